"""The threads of one hardware-assisted machine: one a processor, and one for what comes from outside."""

import contextlib
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from virtus.devices.console import Console
from virtus.devices.virtio.device import Device
from virtus.devices.virtio.mmio import QUEUE_NOTIFY
from virtus.errors import VirtusError
from virtus.exits import Exit, Reason
from virtus.host import kvm_devices
from virtus.machine import loop
from virtus.machine.control import ControlSocket
from virtus.machine.meter import Meter
from virtus.personalities.virtual_pc.board import Board
from virtus.techniques.booting import ended_by_signals
from virtus.vcpus.hardware import HardwareMachine, HardwareVcpu

DESTROYED: Final = 137
SWITCH_INTERVAL_S: Final = 5e-5
"""How long one of our threads keeps the interpreter while another waits: processors that come out wait for it."""
PAUSE_S: Final = 0.05
"""After so long a processor that has not come out is asked again."""
EVENT: Final = (1).to_bytes(8, "little")


class RunningMachine:
    """A machine from its start to its end. What controls it is called in the thread that called `run`."""

    def __init__(self, machine: HardwareMachine, board: Board, devices: list[Device], console: Console) -> None:
        self.machine, self.board, self.devices, self.console = machine, board, devices, console
        self.began = time.monotonic()
        self._doorbells: dict[int, Callable[[], None]] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._failed: list[BaseException] = []
        self._going = threading.Event()
        self._going.set()
        self._patients = [_Patient(board, vcpu, self._going) for vcpu in machine.vcpus]
        board.stopped = self._stop

    @property
    def paused(self) -> bool:
        """Whether its processors wait."""
        return not self._going.is_set()

    def run(self, open_things: contextlib.ExitStack, control: ControlSocket) -> list[Meter]:
        """Until the machine has ended; what each processor's meter says."""
        open_things.callback(os.close, self._wake)
        self._hang_doorbells(open_things)
        open_things.enter_context(ended_by_signals())
        open_things.enter_context(_told_of_resizing(self._stop))
        open_things.callback(self.console.stop)
        self.console.start()
        open_things.callback(_switch_interval, _switch_interval(SWITCH_INTERVAL_S))
        meters = [Meter() for _ in self.machine.vcpus]
        threads = [
            threading.Thread(target=self._processor, args=(vcpu, patient, meter), name=f"processor {vcpu.number}",
                             daemon=True)
            for vcpu, patient, meter in zip(self.machine.vcpus, self._patients, meters, strict=True)
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        try:
            while self.board.running:
                self._serve(control)
        finally:
            self.board.end("left", DESTROYED)
            self._stop()
            for thread in threads:
                while thread.is_alive():
                    self._stop()
                    thread.join(PAUSE_S)
            self._flush()
        if self._failed:
            raise self._failed[0]
        return meters

    def _flush(self) -> None:
        try:
            for device in self.devices:
                device.flush()
        except OSError as error:
            raise VirtusError("storing what the guest has written", error.strerror or str(error)) from error

    # control

    def pause(self) -> None:
        """No processor runs any more, and each has finished what it came out for."""
        self._going.clear()
        for patient, vcpu in zip(self._patients, self.machine.vcpus, strict=True):
            while self.board.running and not patient.waits.is_set():
                vcpu.kick()
                patient.waits.wait(PAUSE_S)

    def unpause(self) -> None:
        """The processors go on."""
        self._going.set()

    # threads

    def _processor(self, vcpu: HardwareVcpu, patient: "_Patient", meter: Meter) -> None:
        try:
            vcpu.begin()
            loop.run(vcpu, patient, meter)
        except BaseException as error:  # whatever ends a processor ends the machine, and is raised there
            self._failed.append(error)
            self.board.end("broken", 1)

    def _hang_doorbells(self, open_things: contextlib.ExitStack) -> None:
        """Notifications of queues come as events, not as exits."""
        for transport in self.board.transports:
            for number in range(len(transport.device.queues)):
                fd = kvm_devices.doorbell(self.machine.vm, transport.base + QUEUE_NOTIFY, number)
                open_things.callback(os.close, fd)

                def rung(transport: Any = transport, number: int = number) -> None:
                    with self.board.lock:
                        transport.notified(number)

                self._doorbells[fd] = rung

    def _serve(self, control: ControlSocket) -> None:
        """Wait until something comes, and answer it."""
        watched = [*self._doorbells, self._wake, *self.board.descriptors(), *control.descriptors()]
        ready = select.select(watched, [], [])[0]
        others = False
        for fd in ready:
            rung = self._doorbells.get(fd)
            if rung is None and fd != self._wake:
                others = True
                continue
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 8)
            if rung is None:
                self.board.terminal_resized()
            else:
                rung()
        if others:
            self.board.poll()
            control.poll()

    def _stop(self) -> None:
        """Have everybody look whether the machine still runs."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake, EVENT)
        if not self.board.running:
            self._going.set()
            for vcpu in self.machine.vcpus:
                vcpu.kick()

    def cpu_s(self) -> float:
        """Processor time of this process so far, the guest's included."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime


class _Patient:
    """The board as a processor sees it that does not go on while the machine is paused. See Personality."""

    def __init__(self, board: Board, vcpu: HardwareVcpu, going: threading.Event) -> None:
        self._board, self._vcpu, self._going = board, vcpu, going
        self.name_of = board.name_of
        self._settled = True
        self.waits = threading.Event()
        """Set while the processor waits, with nothing half done."""

    @property
    def running(self) -> bool:
        """See Personality."""
        if not self._going.is_set():
            if not self._settled:
                self._vcpu.settle()
            else:
                self.waits.set()
                self._going.wait()
                self.waits.clear()
        return self._board.running

    def handle(self, exit: Exit) -> None:
        """See Personality."""
        self._settled = exit.reason is Reason.EVENT
        self._board.handle(exit)


@contextlib.contextmanager
def _told_of_resizing(tell: Callable[[], None]) -> Any:
    """`tell` is called when the terminal has got another size."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGWINCH, lambda number, frame: tell())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _switch_interval(seconds: float) -> float:
    """Set how long a thread keeps the interpreter, in seconds; what it was before."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    return before
