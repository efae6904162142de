"""What uml-skas and uml-tt share: the kernel process, from the sandbox around it to the report it leaves."""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from virtus import errors
from virtus.errors import HostLacks, MachineBroken, VirtusError
from virtus.exits import Context, Vcpu
from virtus.host import channel, dispositions
from virtus.host.channel import Channel
from virtus.machine import loop, sandbox, watch
from virtus.machine.meter import Meter, Report, shell_status
from virtus.machine.spec import GuestSpec
from virtus.personalities.linux import boot, table
from virtus.personalities.linux.abi import abi_of
from virtus.personalities.linux.kernel import Kernel
from virtus.techniques.base import Availability

BALANCE_NS = 50_000_000
"""How often contexts' placement on processors is looked at."""


class UserModeVcpu(Vcpu, Protocol):
    """What a vCPU for the user-mode kernel offers besides running."""

    @property
    def created(self) -> int:
        """Host threads made so far."""
        ...

    def boot(self) -> Context:
        """The first guest context, its address space empty."""
        ...

    def watch(self, epoll: Any) -> None:
        """Have `run` report readiness of this epoll set."""
        ...

    def balance(self) -> None:
        """Look at where contexts run."""
        ...


class Standby(Protocol):
    """A process beside the box that is started when the box first asks something of it."""

    asked: Channel
    """Can be read then."""

    def start(self, *without: Channel) -> int:
        """Fork it; it holds none of these sockets."""
        ...


Attach = Callable[[Kernel, Any], Callable[[], dict[str, int]]]
"""Joins what a technique has besides a vCPU to the kernel, before the guest starts; what it returns is asked at the end
for the figures that go into the report."""


def run(
    name: str,
    make_vcpu: Callable[[], UserModeVcpu],
    spec: GuestSpec,
    *,
    machine: str = "x86_64",
    attach: Attach | None = None,
    instead: Callable[[Kernel], None] | None = None,
    standby: Standby | None = None,
) -> Report:
    """Run a guest under the user-mode kernel with the vCPU that `make_vcpu` makes inside the sandbox.

    `machine` is the guest's processor as uname(2) names it. With `instead` the guest is loaded and does not run: that
    is done then.
    """
    started = time.perf_counter()
    boot.load_handlers(machine)
    process = sandbox.start(
        spec, lambda inside: _kernel_main(inside, make_vcpu, machine, attach, instead), proc="empty"
    )
    forward = _Forwarding(process.control, standby)
    try:
        answer = forward.collect()
    finally:
        forward.restore()
    status, usage = process.wait()
    if "error" in answer:
        raise errors.from_words(answer["error"])
    if "status" not in answer:
        raise VirtusError("running the guest", f"the kernel process ended with wait status {status:#x}")
    return Report(
        technique=name,
        status=shell_status(answer["status"]),
        wall_s=time.perf_counter() - started,
        cpu_s=usage.ru_utime + usage.ru_stime,
        context_switches=usage.ru_nvcsw + usage.ru_nivcsw,
        host_processes=answer["host_processes"] + 1,
        exits=answer["exits"],
        calls=answer["calls"],
        notes=answer["notes"],
        guest_s=answer["guest_ns"] / 1e9,
        personality_s=answer["personality_ns"] / 1e9,
        details=answer["details"],
    )


def prepare() -> None:
    """Compile now what kernels otherwise compile at the first call of each kind."""
    for machine in ("x86_64", "riscv64"):
        boot.load_handlers(machine)
        table.prepare(abi_of(machine).arguments)


class _Forwarding:
    """The supervisor's side: signals of the user go to the kernel process, its report comes back."""

    FORWARDED = (*watch.FORWARDED, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)

    def __init__(self, control: Channel, standby: Standby | None = None) -> None:
        self._control = control
        self._standby = standby
        self._before = {number: signal.signal(number, self._forward) for number in self.FORWARDED}

    def _forward(self, number: int, _frame: object) -> None:
        try:
            self._control.send(bytes([number]))
        except OSError:
            return  # the machine has just ended

    def collect(self) -> dict[str, Any]:
        """What the kernel process reports at its end; {} when it could not."""
        pieces = []
        while piece := self._received():
            if piece == b"\0stop":
                os.kill(os.getpid(), signal.SIGSTOP)
                continue
            pieces.append(piece)
        self._start_when_asked(0)
        return json.loads(b"".join(pieces)) if pieces else {}

    def _received(self) -> bytes:
        """What comes next from the kernel process; nothing at its end."""
        self._start_when_asked(None)
        return self._control.recv(1 << 16)

    def _start_when_asked(self, timeout_ms: int | None) -> None:
        """Start what stands by, if it is asked; until the kernel process is heard, or for this long."""
        if self._standby is None:
            return
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._standby.asked, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(timeout_ms)}
        if self._standby.asked.fileno() in ready:
            self._standby.start(self._control)
            self._standby = None

    def restore(self) -> None:
        """Handlers as they were."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _kernel_main(
    inside: sandbox.Inside,
    make_vcpu: Callable[[], UserModeVcpu],
    machine: str,
    attach: Attach | None,
    instead: Callable[[Kernel], None] | None,
) -> int:
    """The kernel process: PID 1 of the machine's namespaces."""
    control = inside.control
    dispositions.ignore(_Forwarding.FORWARDED)  # the supervisor passes on what is the guest's
    try:
        answer = _machine(inside, make_vcpu, machine, attach, instead)
    except VirtusError as error:
        answer = {"error": error.words()}
    except OSError as error:
        answer = {"error": MachineBroken("running the guest", str(error)).words()}
    control.setblocking(True)
    control.sendall(json.dumps(answer).encode())
    control.shutdown(channel.SHUT_WR)
    return 0


def _machine(
    inside: sandbox.Inside,
    make_vcpu: Callable[[], UserModeVcpu],
    machine: str,
    attach: Attach | None,
    instead: Callable[[Kernel], None] | None,
) -> dict[str, Any]:
    meter = Meter()
    vcpu = make_vcpu()
    kernel: Kernel | None = None
    try:
        kernel = boot.make_kernel(meter, inside, machine=machine)
        vcpu.watch(kernel.scheduler.epoll)
        _listen(kernel, inside.control)
        _end_with(kernel, inside.outer)
        kernel.when_stopped = lambda: _pass_on_stop(inside.control)
        _keep_balanced(kernel, vcpu)
        figures = attach(kernel, vcpu) if attach is not None else dict
        boot.start_guest(kernel, vcpu.boot(), inside)
        if instead is not None:
            instead(kernel)
            kernel.finish(0)
        loop.run(vcpu, kernel, meter)
        return {
            "status": kernel.exit_status,
            "host_processes": vcpu.created + 1,
            "exits": meter.exits,
            "calls": meter.calls,
            "notes": meter.notes,
            "guest_ns": meter.guest_ns,
            "personality_ns": meter.personality_ns,
            "details": figures(),
        }
    finally:
        vcpu.close()
        if kernel is not None:
            kernel.close()


def _listen(kernel: Kernel, control: Channel) -> None:
    """Signals that the supervisor forwards, one byte each; its end is the machine's end."""
    control.setblocking(False)

    def arrived(_events: int) -> None:
        try:
            numbers = control.recv(64)
        except BlockingIOError:
            return
        if not numbers:
            kernel.finish(signal.SIGKILL)
            kernel.scheduler.unwatch(control.fileno())
        for number in numbers:
            boot.signal_from_outside(kernel, number)

    kernel.scheduler.watch(control.fileno(), 1, arrived)


def _end_with(kernel: Kernel, outer: int) -> None:
    """The box ends with its outer process; the host's own bond does not outlast a change of user (setfsuid)."""

    def gone(_events: int) -> None:
        kernel.finish(signal.SIGKILL)
        kernel.scheduler.unwatch(outer)

    kernel.scheduler.watch(outer, 1, gone)


def _pass_on_stop(control: Channel) -> None:
    """The guest was stopped as a job is: the supervisor, which the user's shell knows, is to stop as well."""
    try:
        control.send(b"\0stop")
    except OSError:
        return  # the supervisor is gone, and the machine soon will be


def _keep_balanced(kernel: Kernel, vcpu: UserModeVcpu) -> None:
    def look() -> None:
        vcpu.balance()
        kernel.scheduler.at(time.monotonic_ns() + BALANCE_NS, look)

    look()


def probe(spawn: Callable[[], UserModeVcpu]) -> Availability:
    """Whether stub processes can be made here, by making one in a child process."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            spawn().close()
        except OSError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        return Availability(False, "ptrace(2) of own children is forbidden", "allow ptrace (Yama, container policy)")
    try:
        sandbox.probe()
    except HostLacks as error:
        return Availability(False, error.found, error.remedy)
    return Availability(True)
