"""seccomp: the host's kernel serves the guest, inside a box; a supervisor answers the few calls that policy needs."""

import errno
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence

from virtus import errors
from virtus.devices import terminal
from virtus.errors import HostLacks, VirtusError
from virtus.host import capabilities, channel, seccomp
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.machine import init, loop, sandbox
from virtus.machine.meter import Meter, Report, shell_status
from virtus.machine.spec import GuestSpec
from virtus.machine.watch import Watch
from virtus.personalities.linux import supervision
from virtus.personalities.linux.supervised import Supervisor
from virtus.techniques.base import Availability
from virtus.vcpus.notified import NotifiedVcpu

ENDED, FAILED = b"s", b"e"
"""What PID 1 tells at the end: the guest's exit status, or why there was none."""


def build_filter() -> bytes:
    """The BPF program that `supervision` describes. The hottest calls of real programs come first."""
    program = seccomp.Filter()
    refuse = seccomp.RET_ERRNO | errno.EPERM
    for name in supervision.PROCESSES[:1]:
        program.verdict_if_bits(NUMBERS[name], 0, supervision.NAMESPACE_FLAGS, refuse)
    for request in (supervision.TIOCSTI, supervision.TIOCLINUX, supervision.TIOCCONS):
        program.verdict_if_equal(NUMBERS["ioctl"], 1, request, refuse)
    program.verdict_unless_in(NUMBERS["socket"], 0, supervision.SOCKET_FAMILIES, seccomp.RET_ERRNO | errno.EAFNOSUPPORT)
    program.allow_ranges({NUMBERS[name] for name in supervision.NATIVE})
    return program.program(seccomp.RET_USER_NOTIF)


class Seccomp:
    """See Technique."""

    name = "seccomp"
    section = "3.2"
    vcpu = "notified"
    personality = "linux"
    summary = "namespaces, layers, and notification of few calls"

    def probe(self) -> Availability:
        """See Technique."""
        devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            for fd in (0, 1, 2):
                os.dup2(devnull, fd)
            try:
                os._exit(self.run(GuestSpec(argv=["true"])).status)
            except HostLacks as error:
                os._exit(10 if "seccomp" in str(error) else 11)
            except VirtusError:
                os._exit(12)
            finally:
                os._exit(12)
        os.close(devnull)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return Availability(True)
        if status == 10:
            return Availability(False, "no seccomp user notification", "Linux 5.0 or newer, outside other filters")
        return Availability(False, "no box can be built here", "see `virtus doctor`")

    def run(
        self, spec: GuestSpec, *, meter: bool = False, body: Callable[[Sequence[str]], None] | None = None
    ) -> Report:
        """See Technique. With `body` the guest is a process of ours, which does that with the guest's words."""
        started = time.perf_counter()
        own = resource.getrusage(resource.RUSAGE_SELF)
        program = build_filter()
        streams = terminal.terminals_among()
        secret = int.from_bytes(os.urandom(8))
        box = sandbox.start(spec, lambda inside: _first(inside, program, streams, secret, body), proc="real")
        watch = Watch(box)
        watch.start()
        try:
            counted, ended = self._supervise(spec, box, streams, watch, secret)
        except BaseException:
            box.kill()
            raise
        finally:
            watch.stop()
            _, usage = box.wait()
        used = resource.getrusage(resource.RUSAGE_SELF)
        return Report(
            technique=self.name,
            status=ended,
            wall_s=time.perf_counter() - started,
            cpu_s=sum(usage[:2]) + sum(used[:2]) - sum(own[:2]),
            context_switches=sum(usage[14:]) + sum(used[14:]) - sum(own[14:]),  # ru_nvcsw, ru_nivcsw
            exits=dict(counted.exits),
            calls=dict(counted.calls),
            notes=dict(counted.notes),
            guest_s=counted.guest_ns / 1e9,
            personality_s=counted.personality_ns / 1e9,
        )

    def _supervise(
        self, spec: GuestSpec, box: sandbox.SandboxProcess, streams: list[int], watch: Watch, secret: int
    ) -> tuple[Meter, int]:
        """Answer the guest until its machine ends; what was counted, and the status that PID 1 told at the end."""
        counted = Meter()
        listener, procfs, master = _receive_descriptors(box)
        proxy = terminal.Proxy(master, streams[0], streams[-1]) if master >= 0 else None
        vcpu = NotifiedVcpu(listener, lambda: watch.ended)
        personality = Supervisor(counted, spec.process_limit, procfs, secret)
        try:
            if proxy is not None:
                proxy.start()
            loop.run(vcpu, personality, counted)
        finally:
            vcpu.close()
            os.close(procfs)
            if proxy is not None:
                proxy.stop()
        if personality.powered_off:
            box.kill()
            return counted, 0
        text = b""
        while piece := box.control.recv(1 << 16):
            text += piece
        if not text:
            return counted, 137  # everything in the box was killed
        if text[:1] != ENDED:
            raise errors.from_packed(text[1:])
        return counted, int(text[1:])


def _receive_descriptors(box: sandbox.SandboxProcess) -> tuple[int, int, int]:
    """The filter's listener, the machine's procfs, and the master of its terminal (-1: it has none)."""
    message, descriptors = channel.receive_descriptors(box.control, 1, 3)
    if len(descriptors) < 2:
        raise HostLacks("starting the guest", "no seccomp user notification here", "Linux 5.0 or newer is needed")
    return descriptors[0], descriptors[1], descriptors[2] if message == b"t" else -1


def _first(
    inside: sandbox.Inside,
    program: bytes,
    streams: list[int],
    secret: int,
    body: Callable[[Sequence[str]], None] | None,
) -> int:
    """PID 1: drop what the guest must not have, install the filter, start the guest and reap."""

    def end() -> None:
        seccomp.notify(NUMBERS[supervision.POWER], secret)  # comes back when the supervisor has let go of the guest

    spec, control = inside.spec, inside.control
    master = slave = -1
    if streams:
        master, slave = init.open_terminal()
        if inside.uid and os.geteuid() == 0:
            os.fchown(slave, inside.uid, -1)
    _become(inside)
    try:
        listener = seccomp.install(program)
    except OSError:
        return 1  # the supervisor sees that no listener comes
    passed = [listener, inside.procfs] + ([master] if master >= 0 else [])
    channel.send_descriptors(control, b"t" if master >= 0 else b"n", passed)
    for fd in passed:
        os.close(fd)
    environment = dict(os.environ) if spec.env is None else dict(spec.env)
    os.environ["PATH"] = environment.get("PATH", os.defpath)  # execvpe searches the guest's, not ours
    try:
        guest, told = init.spawn(spec.argv, environment, inside.cwd, slave, streams, body)
        if slave >= 0:
            os.close(slave)
        init.started(told, spec.argv[0])
        status = init.serve(guest, control, end)
        answer = ENDED + b"%d" % shell_status(status)
    except VirtusError as error:
        end()
        answer = FAILED + error.packed()
    control.sendall(answer)
    return 0


def _become(inside: sandbox.Inside) -> None:
    """The guest's identity, and no capability that it does not need."""
    root = os.geteuid() == 0 and inside.uid == 0
    if os.geteuid() == 0 and inside.uid != 0:
        os.setgroups(inside.groups)
        os.setresgid(inside.gid, inside.gid, inside.gid)
        os.setresuid(inside.uid, inside.uid, inside.uid)
    capabilities.drop(keep_root=root)
    capabilities.forbid_attaching()
    inside.die_with_outer()


TECHNIQUE = Seccomp()
