"""How a guest of prescan starts: what kind of guest it is, what is in the PC's drives, and who loads it."""

import contextlib
import os
import re
from enum import Enum
from pathlib import Path
from typing import Final

from virtus.devices import network
from virtus.errors import GuestNotRunnable, HostLacks, UsageError
from virtus.guests import identify
from virtus.guests.elf import NotLoadable
from virtus.machine.machine_spec import DiskSpec, MachineSpec
from virtus.machine.vm_driver import VmDriver
from virtus.personalities.pc import bios, boot_rom, direct_boot, multiboot, video, without_bios
from virtus.personalities.pc.board import MOST_DISKS, Board, Media
from virtus.personalities.pc.front import Front
from virtus.personalities.pc.start import CODE, DATA, GDT, GDT_AT, Start
from virtus.techniques.booting import ethernet_address, open_disk, read_image
from virtus.vcpus.scanned import cpu_state
from virtus.vcpus.scanned.vcpu import ScannedVcpu

SERIAL_CONSOLE: Final = "console=ttyS0"
"""Linux talks to the first serial port, and so to our console, unless its command line names another one."""
FLAT_CODE, FLAT_DATA = 0xC09B, 0xC093  # attributes of the segments in `Start`'s table
EFLAGS: Final = 2  # interrupts are off; the bit is always set
FLOPPY_SIZES: Final = {size * 1024 for size in (160, 180, 320, 360, 720, 1200, 1440, 2880)}
OUI: Final = b"\x52\x54\x00"
"""Of the network card: locally administered, as QEMU's are."""
NO_BIOS: Final = "none"


class Kind(Enum):
    """Kinds of guests."""

    LINUX = "kernel"
    MULTIBOOT = "multiboot"
    FLOPPY = "floppy"
    CDROM = "cdrom"
    DISK = "disk"


KINDS: Final = {
    identify.Kind.KERNEL: Kind.LINUX, identify.Kind.MULTIBOOT: Kind.MULTIBOOT, identify.Kind.CDROM: Kind.CDROM,
    identify.Kind.DISK: Kind.DISK,
}  # fmt: skip


def kind_of(path: Path) -> Kind:
    """What an image is; raises GuestNotFound, or GuestNotRunnable for what is no system of 32 bits."""
    guest = identify.identify(path)
    kind = KINDS.get(guest.kind)
    if kind is None or guest.bits == 64:
        what = f"a {guest.bits}-bit {guest.kind.value}" if guest.bits else f"a {guest.kind.value}"
        raise GuestNotRunnable(f"booting {path}", what, "prescan boots 32-bit kernels, and disk, CD and floppy images")
    return Kind.FLOPPY if kind is Kind.DISK and path.stat().st_size in FLOPPY_SIZES else kind


def find_bios(spec: MachineSpec, kind: Kind) -> bios.Bios | None:
    """The BIOS: images cannot do without; multiboot kernels may call it, and get it if there is one.

    Raises HostLacks.
    """
    word = spec.extra.get("bios")
    if kind is Kind.LINUX or (word == NO_BIOS and kind is Kind.MULTIBOOT):
        return None
    try:
        return bios.find(None if word in (None, NO_BIOS) else Path(word))
    except HostLacks:
        if kind is Kind.MULTIBOOT and word is None:
            return None
        raise


def front(spec: MachineSpec, kind: Kind) -> Front:
    """What of the machine the console shows, unless the user says; raises UsageError."""
    word = spec.extra.get("console")
    if word is not None:
        if word not in (Front.SCREEN.value, Front.SERIAL.value):
            raise UsageError("reading --console", f"{word!r}", "write screen or serial")
        return Front(word)
    if kind is Kind.LINUX:
        consoles = re.findall(r"(?:^|\s)console=(\S+)", spec.append)
        return Front.SCREEN if consoles and re.match(r"tty\d", consoles[-1]) else Front.SERIAL
    return Front.FIRST if kind is Kind.MULTIBOOT else Front.SCREEN


def media(spec: MachineSpec, kind: Kind, firmware: bios.Bios | None, things: contextlib.ExitStack) -> Media:
    """What is in the drives and at the plugs; closed with `things`. Raises UsageError."""
    disks = list(spec.disks)
    if kind is Kind.DISK:
        same = [disk for disk in disks if disk.path.exists() and os.path.samefile(disk.path, spec.kernel)]
        first = same or [DiskSpec(spec.kernel, snapshot=True)]
        disks = first[:1] + [disk for disk in disks if disk not in same]
    if len(disks) > MOST_DISKS:
        raise UsageError("reading --disk", f"{len(disks)} disks", f"a PC has {MOST_DISKS} beside its CD drive")
    cdrom = spec.kernel if kind is Kind.CDROM else spec.cdrom
    floppy = spec.kernel if kind is Kind.FLOPPY else spec.floppy
    found = Media(
        disks=[open_disk(disk.path, things, read_only=disk.read_only, snapshot=disk.snapshot) for disk in disks],
        cdrom=None if cdrom is None else open_disk(cdrom, things, read_only=True),
        floppy=None if floppy is None else open_disk(floppy, things, read_only=False, snapshot=True),
        link=network.attach(spec.net),
        address=ethernet_address(OUI, spec.name),
    )
    if found.link is not None:
        things.callback(found.link.close)
    if firmware is not None:
        by_rom = kind is Kind.MULTIBOOT
        order = bios.boot_order(
            floppy=floppy is not None, cdrom=cdrom is not None, disks=len(disks),
            first="rom" if by_rom else kind.value, rom=boot_rom.BOOT_PATH if by_rom else "",
        )  # fmt: skip
        found.files = bios.files(firmware, spec.memory, order)
        if by_rom:
            found.files[boot_rom.NAME] = boot_rom.rom()
    return found


class Loader:
    """Does what a boot loader does, at once or when the BIOS has done its part."""

    def __init__(self, spec: MachineSpec, kind: Kind, driver: VmDriver, board: Board) -> None:
        self._spec, self._kind, self._driver, self._board = spec, kind, driver, board
        self._ramdisk = b"" if spec.initrd is None else read_image(spec.initrd)
        self._image = read_image(spec.kernel) if kind in (Kind.LINUX, Kind.MULTIBOOT) else b""

    def prepare(self, firmware: bios.Bios | None) -> Start | None:
        """Fill memory; where the processor begins, None for its reset vector. Raises GuestNotRunnable."""
        if firmware is None:
            directory = self._spec.extra.get("bios")
            display = None if directory == NO_BIOS else bios.find_display(Path(directory) if directory else None)
            start = self._load(None)
            without_bios.set_up(self._board, self._driver.memory, video.find_font(display or b""))
            self._show()
            return start
        self._driver.add_rom(bios.FOUR_GIB - len(firmware.system), firmware.system)
        bios.load(self._driver.memory, firmware)[1].close()
        return None

    def wait_for_bios(self, vcpu: ScannedVcpu) -> None:
        """Have the kernel loaded when the BIOS would boot; the processor is then at its entry."""

        def load(ranges: list[tuple[int, int, int]]) -> None:
            start = self._load(ranges)
            self._driver.wrote(0, self._driver.memory.size)
            enter(vcpu, start)
            self._board.terminal.begin()

        self._board.ports.attach(range(boot_rom.PORT, boot_rom.PORT + 2), boot_rom.LoaderPort(self._board.dma, load), 2)

    def _load(self, ranges: list[tuple[int, int, int]] | None) -> Start:
        spec, memory = self._spec, self._driver.memory
        try:
            if self._kind is Kind.LINUX:
                screen = video.screen_info(video.asked_for(spec.append), without_bios.VIDEO_AT)
                return direct_boot.load(memory, self._image, self._ramdisk, _words(spec.append), screen)
            modules = [multiboot.Module(self._ramdisk, str(spec.initrd))] if spec.initrd is not None else []
            return multiboot.load(memory, self._image, spec.append, modules, ranges)
        except NotLoadable as error:
            raise GuestNotRunnable(f"booting {spec.kernel}", str(error)) from error

    def _show(self) -> None:
        """The mode of the screen that Linux was promised."""
        mode = video.asked_for(self._spec.append) if self._kind is Kind.LINUX else None
        if mode is not None:
            video.set_mode(self._board.vga, mode)
        self._board.terminal.begin()


def _words(append: str) -> str:
    """Linux's command line: its console is ours unless it says."""
    return append if "console=" in append else f"{SERIAL_CONSOLE} {append}".strip()


def enter(vcpu: ScannedVcpu, start: Start) -> None:
    """Flat protected mode, as `Start` says."""
    state = vcpu.state
    state.cr0, state.eflags = cpu_state.CR0_PE | cpu_state.CR0_ET, EFLAGS
    state.gdtr.base, state.gdtr.limit = GDT_AT, len(GDT) - 1
    for number, segment in enumerate(state.segments):
        code = number == cpu_state.CS
        segment.load(CODE if code else DATA, 0, cpu_state.MASK32, FLAT_CODE if code else FLAT_DATA)
    registers = state.registers
    registers[:] = [0] * len(registers)
    registers[cpu_state.EAX], registers[cpu_state.EBX] = start.eax, start.ebx
    registers[cpu_state.ESI], registers[cpu_state.ESP] = start.esi, start.esp
    state.eip = start.eip
