"""prescan: a whole PC in an ordinary process, its code scanned before it runs, as VMware Workstation.

This is the VMApp: the user's side, with console, keys and media. It has a VMDriver hold the host's resources
(`machine/vm_driver.py`), whose monitor (`vcpus/scanned`) meets the board of a PC (`personalities/pc`) in the loop.
"""

import contextlib
import resource
import time
from pathlib import Path

from virtus.devices.console import Console
from virtus.devices.pc.vga import VIDEO_MEMORY
from virtus.errors import VirtusError
from virtus.machine import loop
from virtus.machine.machine_spec import LEAST_MEMORY, MachineSpec
from virtus.machine.meter import Meter, Report
from virtus.machine.spec import GuestSpec
from virtus.machine.vm_driver import VmDriver
from virtus.personalities.pc.board import VIDEO_HOLE, Board
from virtus.techniques.base import Availability
from virtus.techniques.booting import ended_by_signals
from virtus.techniques.prescan_control import PcControl
from virtus.techniques.prescan_start import Kind, Loader, enter, find_bios, front, kind_of, media
from virtus.vcpus.scanned.interrupts import NoInterrupts
from virtus.vcpus.scanned.vcpu import ScannedVcpu


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
            driver.start(NoInterrupts())
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
        the user left by Ctrl-], 137 when it was destroyed.
        """
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        counted = Meter()
        kind = kind_of(spec.kernel)
        firmware = find_bios(spec, kind)
        with contextlib.ExitStack() as things:
            driver = VmDriver(spec, (VIDEO_HOLE,), device_memory=VIDEO_MEMORY)
            things.callback(driver.close)
            console = Console(spec.console_in, spec.console_out)
            board = Board(driver.memory, console, media(spec, kind, firmware, things), front=front(spec, kind))
            loader = Loader(spec, kind, driver, board)
            start = loader.prepare(firmware)
            vcpu = driver.start(board)
            if start is not None:
                enter(vcpu, start)
            elif kind is Kind.MULTIBOOT:
                loader.wait_for_bios(vcpu)
            board.use_shortcuts(vcpu.set_port)
            board.kick, board.dma.written, board.video_moved = vcpu.kick, driver.wrote, driver.show_device_memory
            board.video_moved(board.video_window())
            control = PcControl(spec, board, console)
            things.callback(control.close)
            board.services.append(control)
            things.enter_context(ended_by_signals(lambda status: _end(board, vcpu, status)))
            things.callback(console.stop)
            console.start()
            loop.run(vcpu, board, counted)
            board.terminal.show()
            for disk in board.media.disks:
                disk.flush()
            details = driver.figures() | _unknown(board)
            if board.status and board.ended.startswith("its processor"):
                counted.note(f"{board.ended} at EIP {vcpu.state.eip:#x}, CR2 {vcpu.state.cr2:#x}")
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


def _end(board: Board, vcpu: ScannedVcpu, status: int) -> None:
    board.end("ended by a signal", status)
    vcpu.kick()


def _unknown(board: Board) -> dict[str, int]:
    """What the guest looked for and is not there: how much of it."""
    found = {"unknown ports": len(board.ports.unknown), "unknown pages": len(board.unknown_memory)}
    return {name: count for name, count in found.items() if count}


TECHNIQUE = Prescan()
