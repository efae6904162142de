"""prescan: a whole PC in an ordinary process, its code scanned before it runs, as VMware Workstation.

This is the VMApp: the user's side, with console, keys and media. It has a VMDriver hold the host's resources
(`machine/vm_driver.py`), whose monitor (`vcpus/scanned`) meets the board of a PC (`personalities/pc`) in the loop.
"""

import contextlib
import resource
import time
from pathlib import Path
from typing import Final

from virtus.devices import network
from virtus.devices.console import Console
from virtus.errors import GuestNotRunnable, VirtusError
from virtus.guests.elf import NotLoadable
from virtus.machine import loop
from virtus.machine.machine_spec import LEAST_MEMORY, MachineSpec
from virtus.machine.meter import Meter, Report
from virtus.machine.spec import GuestSpec
from virtus.machine.vm_driver import VmDriver
from virtus.personalities.pc import bios, direct_boot, multiboot, without_bios
from virtus.personalities.pc.board import VIDEO_HOLE, Board, Media
from virtus.personalities.pc.start import CODE, DATA, GDT, GDT_AT, Start
from virtus.techniques.base import Availability
from virtus.techniques.booting import ethernet_address, open_disk, read_image
from virtus.vcpus.scanned import cpu_state
from virtus.vcpus.scanned.vcpu import ScannedVcpu

SERIAL_CONSOLE: Final = "console=ttyS0"
"""Linux talks to the first serial port, and so to our console, unless its command line names another one."""
FLAT_CODE, FLAT_DATA = 0xC09B, 0xC093  # attributes of the segments in `Start`'s table
FLOPPY_SIZES: Final = {size * 1024 for size in (160, 180, 320, 360, 720, 1200, 1440, 2880)}
OUI: Final = b"\x52\x54\x00"
"""Of the network card: locally administered, as QEMU's are."""
CD_MAGIC_AT, CD_MAGIC = 0x8001, b"CD001"  # ECMA-119, 8.1.2


class Prescan:
    """See Technique; `boot` is its `run` for machines."""

    name = "prescan"
    section = "3.3"
    vcpu = "scanned"
    personality = "pc"
    summary = "a whole PC by scanning code before it runs, as VMware Workstation"

    def probe(self) -> Availability:
        """See Technique: starts a monitor and its processes."""
        driver = VmDriver(MachineSpec(Path("-"), memory=LEAST_MEMORY))
        try:
            driver.start(_Nothing())
        except VirtusError as error:
            return Availability(False, error.found, error.remedy)
        finally:
            driver.close()
        return Availability(True)

    def run(self, spec: GuestSpec, *, meter: bool = False) -> Report:
        """See Technique: the guest is a kernel or an image, and its arguments are its command line."""
        return self.boot(MachineSpec(kernel=Path(spec.argv[0]), append=" ".join(spec.argv[1:])))

    def boot(self, spec: MachineSpec) -> Report:
        """Boot a kernel or an image, and serve it until the machine ends; raises VirtusError where it cannot start.

        The report's status is 0 when the machine powered off or restarted, 1 when its processor shut down, 130 when
        the user left by Ctrl-].
        """
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        counted = Meter()
        image = read_image(spec.kernel)
        with contextlib.ExitStack() as things:
            driver = VmDriver(spec, (VIDEO_HOLE,))
            things.callback(driver.close)
            firmware, media = _media(spec, image, things)
            console = Console(spec.console_in, spec.console_out)
            board = Board(driver.memory, console, media, show_screen=firmware is not None)
            if firmware is not None:
                driver.add_rom(bios.FOUR_GIB - len(firmware.system), firmware.system)
                bios.load(driver.memory, firmware)[1].close()
                start = None
            else:
                start = _load(spec, image, driver, board)
            vcpu = driver.start(board)
            if start is not None:
                _enter(vcpu, start)
            board.kick, board.dma.written = vcpu.kick, driver.wrote
            things.callback(console.stop)
            console.start()
            loop.run(vcpu, board, counted)
            if firmware is not None:
                board.show()
            for disk in media.disks:
                disk.flush()
            details = driver.figures()
            if board.status and board.ended.startswith("its processor"):
                counted.note(board.ended)
        after = resource.getrusage(resource.RUSAGE_SELF)
        return Report(
            technique=self.name,
            status=board.status,
            wall_s=time.perf_counter() - started,
            cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            context_switches=after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
            host_processes=details["processes"] + 2,
            exits=dict(counted.exits),
            notes=dict(counted.notes),
            guest_s=counted.guest_ns / 1e9,
            personality_s=counted.personality_ns / 1e9,
            details=details,
        )


class _Nothing:
    """No interrupts."""

    def pending(self) -> bool:
        return False

    def acknowledge(self) -> int:
        raise LookupError("no interrupt is pending")


def _media(spec: MachineSpec, image: bytes, things: contextlib.ExitStack) -> tuple[bios.Bios | None, Media]:
    """What is in the drives; with a BIOS where the guest is an image that it boots."""
    kernel = direct_boot.is_bzimage(image[:4096]) or multiboot.is_multiboot(image)
    media = Media(
        disks=[open_disk(disk.path, things, read_only=disk.read_only, snapshot=disk.snapshot) for disk in spec.disks],
        cdrom=None if spec.cdrom is None else open_disk(spec.cdrom, things, read_only=True),
        floppy=None if spec.floppy is None else open_disk(spec.floppy, things, read_only=False, snapshot=True),
        link=network.attach(spec.net),
        address=ethernet_address(OUI, spec.name),
    )
    if media.link is not None:
        things.callback(media.link.close)
    if kernel:
        return None, media
    if len(image) in FLOPPY_SIZES:
        kind, media.floppy = "floppy", open_disk(spec.kernel, things, read_only=False, snapshot=True)
    elif image[CD_MAGIC_AT : CD_MAGIC_AT + len(CD_MAGIC)] == CD_MAGIC:
        kind, media.cdrom = "cdrom", open_disk(spec.kernel, things, read_only=True)
    else:
        kind, media.disks = "disk", [open_disk(spec.kernel, things, read_only=False, snapshot=True), *media.disks]
    firmware = bios.find()
    order = bios.boot_order(
        floppy=media.floppy is not None, cdrom=media.cdrom is not None, disks=len(media.disks), first=kind
    )
    media.files = bios.files(firmware, spec.memory, order)
    return firmware, media


def _load(spec: MachineSpec, image: bytes, driver: VmDriver, board: Board) -> Start:
    """Do what a boot loader does; raises GuestNotRunnable."""
    ramdisk = b"" if spec.initrd is None else read_image(spec.initrd)
    try:
        if direct_boot.is_bzimage(image[:4096]):
            words = spec.append if "console=" in spec.append else f"{SERIAL_CONSOLE} {spec.append}".strip()
            start = direct_boot.load(driver.memory, image, ramdisk, words)
            without_bios.set_up(board, driver.memory)
            return start
        modules = [multiboot.Module(ramdisk, str(spec.initrd))] if spec.initrd is not None else []
        return multiboot.load(driver.memory, image, spec.append, modules)
    except NotLoadable as error:
        raise GuestNotRunnable(f"booting {spec.kernel}", str(error)) from error


def _enter(vcpu: ScannedVcpu, start: Start) -> None:
    """Flat protected mode, as `Start` says."""
    state = vcpu.state
    state.cr0 = cpu_state.CR0_PE | cpu_state.CR0_ET
    state.gdtr.base, state.gdtr.limit = GDT_AT, len(GDT) - 1
    for number, segment in enumerate(state.segments):
        code = number == cpu_state.CS
        segment.load(CODE if code else DATA, 0, cpu_state.MASK32, FLAT_CODE if code else FLAT_DATA)
    registers = state.registers
    registers[:] = [0] * len(registers)
    registers[cpu_state.EAX], registers[cpu_state.EBX] = start.eax, start.ebx
    registers[cpu_state.ESI], registers[cpu_state.ESP] = start.esi, start.esp
    state.eip = start.eip


TECHNIQUE = Prescan()
