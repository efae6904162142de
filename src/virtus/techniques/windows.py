"""What the two techniques for Windows programs have in common: the box of `seccomp`, with a process of ours in it.

The process holds engine, personality and program together (`windows_process`). To the box it is a Linux program like
any other: its files are the overlay's, its calls are filtered, and it dies with the box.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from virtus.errors import GuestNotRunnable, UsageError
from virtus.guests.identify import Kind
from virtus.host import capabilities, dispositions
from virtus.machine.meter import Report
from virtus.machine.spec import GuestSpec, Volume
from virtus.personalities.win32 import drives
from virtus.records import replace
from virtus.techniques import choose
from virtus.techniques.base import Availability
from virtus.techniques.seccomp import Seccomp

IN_PROCESS: Final = "inprocess"
"""The engine that is the processor itself."""
MODULE: Final = "virtus.techniques.windows_process"
TRACE, METER = "VIRTUS_API_TRACE", "VIRTUS_API_METER"
PLACE: Final = "/run/virtus-windows"
"""Where a directory of the supervisor's is shown inside: what the process counted comes out through it."""


def run(name: str, engine: str, spec: GuestSpec, *, meter: bool) -> Report:
    """Run a Windows program in a box, on the engine of that name, to its end. Raises VirtusError."""
    guest = choose.guest_of(spec)
    doing = f"running {spec.argv[0]}"
    if guest.kind is not Kind.PE:
        raise GuestNotRunnable(doing, "no Windows program", f"{name} runs programs for Windows")
    if os.path.realpath(spec.root) != "/":
        raise UsageError(doing, "--root shows another system's files, without the interpreter that this needs")
    if "gdb" in spec.extra or "translate" in spec.extra:
        raise UsageError(doing, f"{name} has neither --gdb nor --translate-only", "use --trace to see its calls")
    environment = dict(os.environ if spec.env is None else spec.env)
    trace = spec.extra.get("trace")
    with _directory() if meter or trace else nullcontext("") as outside:
        volumes = [_placed(volume) for volume in spec.volumes]
        if outside:
            volumes.append(Volume(outside, PLACE))
        if trace is not None:
            environment[TRACE] = f"{PLACE}/trace" if trace not in ("-", "yes") else "-"
        if meter:
            environment[METER] = f"{PLACE}/meter"
        command = [sys.executable, "-P", "-m", MODULE, engine, guest.path, *spec.argv[1:]]
        inside = replace(spec, argv=command, env=environment, volumes=volumes, extra={})
        report = Seccomp().run(inside, meter=meter, body=_body() if engine == IN_PROCESS else None)
        counted = _counted(os.path.join(outside, "meter")) if meter else {}
        if trace not in (None, "-", "yes"):
            _keep(os.path.join(outside, "trace"), trace)
    calls = counted.get("calls", {})
    if calls:
        report = replace(report, exits={"API call": sum(calls.values())}, calls=calls)
    return replace(report, technique=name, details=counted.get("details", {}))


def _directory() -> AbstractContextManager[str]:
    import tempfile  # seldom needed, as json below

    return tempfile.TemporaryDirectory(prefix="virtus-")


def _placed(volume: Volume) -> Volume:
    """A volume where the box shows it: those that are drives at the drives' directories."""
    if volume.target.startswith("/"):
        return volume
    if volume.target == drives.ROOT:
        raise UsageError("preparing the guest's root", f"{drives.ROOT} is the root itself", "choose another letter")
    if not os.path.isdir(volume.source):
        raise UsageError("preparing the guest's root", f"--volume {volume.source} is no directory, and a drive is one")
    return replace(volume, target=drives.place(volume.target))


def _body() -> Callable[[Sequence[str]], None]:
    """The guest's process as a copy of this one, which has most of what it needs: an interpreter's start is saved.

    In the box modules are still imported there, from the guest's root: the guest could change this process anyway.
    """
    from virtus.techniques import windows_inprocess, windows_process

    assert windows_inprocess is not None  # imported already, for the guest
    path, finders = list(sys.path), list(sys.meta_path)

    def body(words: Sequence[str]) -> None:
        sys.path[:], sys.meta_path[:] = path, finders
        capabilities.allow_attaching()  # as after exec(2): its own /proc/self is its own
        dispositions.ignore((signal.SIGPIPE, signal.SIGXFSZ))  # as every interpreter has it
        windows_process.main(list(words[words.index(MODULE) + 1 :]))

    return body


def _counted(path: str) -> dict[str, Any]:
    """What the process wrote: the guest may have written there too, so it is checked; {} for anything else."""
    import json

    try:
        with open(path, "rb") as stream:
            found = json.loads(stream.read(1 << 22))
        calls, details = found["calls"], found["details"]
        numbers = [*calls.items(), *details.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    if all(isinstance(name, str) and isinstance(count, int) for name, count in numbers):
        return {"calls": calls, "details": details}
    return {}


def _keep(source: str, target: str) -> None:
    try:
        with open(source, "rb") as trace, open(target, "wb") as kept:
            while piece := trace.read(1 << 20):
                kept.write(piece)
    except OSError as error:
        raise UsageError("writing --trace", f"{target}: {error.strerror}") from error


def probe() -> Availability:
    """Whether the box can be built here."""
    return Seccomp().probe()
