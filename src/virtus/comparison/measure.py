"""One run, measured from outside and alike for every candidate: the host's accounting of the whole process tree."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SAMPLE_S: Final = 0.02


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


def descendants(pid: int) -> int:
    """How many processes there are now at and below `pid`."""
    count, pending = 0, [pid]
    while pending:
        parent = pending.pop()
        count += 1
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                text = Path(f"/proc/{parent}/task/{task}/children").read_text()
                pending += [int(word) for word in text.split()]
        except OSError:
            continue  # it has just ended
    return count


class _Sampler(threading.Thread):
    """Looks every now and then how many processes there are."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self.most = 1
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(SAMPLE_S):
            self.most = max(self.most, descendants(self._pid))


def measure(command: list[str], environment: Mapping[str, str], base: Path) -> Run:
    """Run a command to its end, without input; its output is collected. Raises OSError when it cannot start."""
    with (base / "run.out").open("w+b") as out, (base / "run.err").open("w+b") as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        sampler = _Sampler(process.pid)
        sampler.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.kill()
            raise
        finally:
            sampler.done.set()
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.join()
        out.seek(0)
        err.seek(0)
        return Run(
            wall_s=wall,
            cpu_s=usage.ru_utime + usage.ru_stime,
            switches=usage.ru_nvcsw + usage.ru_nivcsw,
            processes=sampler.most,
            status=process.returncode if process.returncode >= 0 else 128 - process.returncode,
            stdout=out.read(),
            stderr=err.read(),
        )
