"""Which technique fits a guest."""

import os
from typing import Final

from virtus.errors import GuestNotRunnable, UsageError
from virtus.guests.identify import DEFAULT_PATH, Guest, Kind, find, identify
from virtus.machine.spec import GuestSpec
from virtus.records import StrPath
from virtus.techniques import registry
from virtus.techniques.base import Technique

EMULATED: Final = {("RISC-V", 64)}
"""Processors whose Linux programs can be emulated, with the width of their words."""


def guest_of(spec: GuestSpec) -> Guest:
    """Find and identify the guest as its own root has it; raises GuestNotFound or GuestNotRunnable."""
    if not os.path.isdir(spec.root) or not os.access(spec.root, os.R_OK | os.X_OK):
        raise UsageError("looking for the guest", f"--root {spec.root} is not a readable directory")
    environment = os.environ if spec.env is None else spec.env
    cwd = spec.cwd or (os.getcwd() if os.fspath(spec.root) == "/" else "/")
    return identify(find(spec.argv[0], environment.get("PATH", DEFAULT_PATH), spec.root, cwd))


SYSTEMS: Final = {Kind.KERNEL, Kind.MULTIBOOT, Kind.DISK, Kind.CDROM}


def is_system(guest: Guest) -> bool:
    """Whether it is an operating system, to be booted on a machine of its own."""
    return guest.kind in SYSTEMS


def that_boot(image: StrPath) -> tuple[str, frozenset[str]]:
    """What an image is, and the techniques for it; raises GuestNotFound or GuestNotRunnable."""
    guest = identify(image)
    if guest.kind is Kind.KERNEL:
        names = {"hvm", "paravirt"} if guest.bits == 64 else {"prescan"}
        return f"{guest.bits}-bit kernel", frozenset(names)
    if not is_system(guest):
        raise GuestNotRunnable(f"booting {image}", f"a {guest.kind.value}, no system")
    return guest.kind.value, frozenset({"prescan"})


def is_deck(guest: Guest) -> bool:
    """Whether it is a program for an IBM 7070."""
    return guest.kind is Kind.DECK


HOST: Final = "x86-64"
WINDOWS: Final = "Windows"


def system_of(guest: Guest) -> str:
    """What the guest is a program for, as peers name it: HOST, WINDOWS, or another processor.

    Raises GuestNotRunnable for what no technique runs.
    """
    technique = technique_for(guest)
    if guest.kind is Kind.PE:
        return WINDOWS
    return guest.machine if technique == "emulation" else HOST


def fitting(guest: Guest, technique: str | None) -> Technique:
    """The technique of that name, or the one that fits; raises GuestNotRunnable, and UsageError for one that runs
    systems where the guest is a program."""
    found = registry.get(technique or technique_for(guest))
    if hasattr(found, "boot") and not is_system(guest):
        what = f"{found.name} boots systems, and {guest.path} is a program"
        raise UsageError(f"running {guest.path}", what, "leave --with away, or choose another technique")
    return found


def technique_for(guest: Guest) -> str:
    """The technique's name; raises GuestNotRunnable, naming what the guest would need."""
    if guest.is_native:
        return "seccomp"
    if guest.kind is Kind.ELF and (guest.machine, guest.bits) in EMULATED:
        return "emulation"
    if guest.kind is Kind.DECK:
        return "emulation"
    if guest.kind is Kind.KERNEL and guest.bits == 64:
        return "hvm" if registry.get("hvm").probe().works else "paravirt"
    if guest.kind in SYSTEMS:
        return "prescan"
    if guest.kind is Kind.PE and guest.machine == HOST:
        return "api-wrapper"
    doing = f"running {guest.path}"
    if guest.kind is Kind.PE:
        what = f"a Windows program for {guest.machine}"
        raise GuestNotRunnable(doing, what, "those for x86-64 run here; wine may run it, with its 32-bit half")
    what = f"a program for {guest.machine}" + (" (32-bit)" if guest.bits == 32 else "")
    raise GuestNotRunnable(doing, what, "Linux programs for x86-64 and riscv64 (64-bit) run here")
