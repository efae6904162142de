"""One run, measured from outside and alike for every candidate: the host's accounting of the whole process tree."""

import ctypes
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from virtus.comparison.tree import descendants, end
from virtus.records import dataclass

SAMPLE_S: Final = 0.02
FIRST_SAMPLE_S: Final = 0.002  # the first looks follow each other faster, for short runs
REAP_S: Final = 0.5
"""How long the rest of a peer's processes may take to end after it."""
PR_SET_CHILD_SUBREAPER: Final = 36  # include/uapi/linux/prctl.h

_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took. Processor time and switches are of the command and all it waited for (wait4(2))."""

    wall_s: float
    cpu_s: float
    switches: int
    processes: int  # most of the host's processes at once
    status: int
    stdout: bytes
    stderr: bytes


class _Sampler(threading.Thread):
    """Looks every now and then which processes there are."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self.most = 1
        self.seen: set[int] = set()
        self._done = threading.Event()

    def run(self) -> None:
        pause = FIRST_SAMPLE_S
        while not self._done.wait(pause):
            pause = min(2 * pause, SAMPLE_S)
            found = descendants(self._pid)
            self.seen.update(found)
            self.most = max(self.most, len(found))

    def stop(self) -> None:
        """Look no more. May be called twice."""
        self._done.set()
        self.join()


def _adopt_orphans(*, yes: bool) -> None:
    """Whether processes whose parent ends become this one's children (PR_SET_CHILD_SUBREAPER)."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0)


def _reap(pids: set[int]) -> list[resource.struct_rusage]:
    """What the processes used that nobody else waited for: some peers leave their guest's to init."""
    usages = []
    deadline = time.monotonic() + REAP_S
    for pid in pids:
        while True:
            try:
                reaped, _, usage = os.wait4(pid, os.WNOHANG)
            except ChildProcessError:
                break  # its own parent has waited for it
            if reaped:
                usages.append(usage)
                break
            if time.monotonic() > deadline:
                break  # a daemon that stays
            time.sleep(0.001)
    return usages


@contextmanager
def placed(processors: frozenset[int] | None) -> Iterator[None]:
    """What this thread starts meanwhile stays on these processors; None: where the host puts it."""
    before = os.sched_getaffinity(0)
    try:
        if processors is not None:
            os.sched_setaffinity(0, processors)
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(
    command: list[str],
    environment: Mapping[str, str],
    base: Path,
    started: Callable[[int], None] = lambda pid: None,
    processors: frozenset[int] | None = None,
) -> Run:
    """Run a command to its end, without input; its output is collected. Raises OSError when it cannot start.

    `started` is told its number, and 0 when it has ended. `processors` binds the command, not who looks at it.
    The input is an empty file: runsc gives its standard streams to nobody, which /dev/null must not become.
    """
    nothing = base / "run.in"
    nothing.write_bytes(b"")
    with nothing.open("rb") as none, (base / "run.out").open("w+b") as out, (base / "run.err").open("w+b") as err:
        begin = time.perf_counter()
        with placed(processors):
            process = subprocess.Popen(command, env=dict(environment), stdin=none, stdout=out, stderr=err)
        started(process.pid)
        sampler = _Sampler(process.pid)
        _adopt_orphans(yes=True)
        sampler.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
            sampler.stop()
            usages = [usage, *_reap(sampler.seen - {process.pid})]
        except BaseException:
            if process.returncode is None:  # else its number may be another's by now
                end(process.pid)
                process.wait()
            raise
        finally:
            sampler.stop()
            _adopt_orphans(yes=False)
            started(0)
        out.seek(0)
        err.seek(0)
        return Run(
            wall_s=wall,
            cpu_s=sum(used.ru_utime + used.ru_stime for used in usages),
            switches=sum(used.ru_nvcsw + used.ru_nivcsw for used in usages),
            processes=sampler.most,
            status=process.returncode if process.returncode >= 0 else 128 - process.returncode,
            stdout=out.read(),
            stderr=err.read(),
        )
