"""What the personality `linux` knows of the process that is debugged."""

import os
import signal
from typing import Any, Final

from virtus.personalities.linux import delivery, paths, siginfo, sysroot
from virtus.personalities.linux.boot import FIRST_PID
from virtus.personalities.linux.kernel import Kernel
from virtus.personalities.linux.task import Process, Task

_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_STATES: Final = {"R": "in user mode", "S": "asleep in a system call", "T": "stopped", "Z": "ended"}


class LinuxSystem:
    """See `virtus.machine.debug.debuggee.System`: the machine's first process."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def _process(self) -> Process | None:
        return self._kernel.processes.get(FIRST_PID)

    def _tasks(self) -> dict[int, Task]:
        process = self._process()
        return {} if process is None else process.tasks

    def contexts(self) -> dict[int, Any]:
        """See System."""
        return {number: task.context for number, task in sorted(self._tasks().items())}

    def executable(self) -> str:
        """See System."""
        process = self._process()
        return "" if process is None else process.executable

    def auxiliary(self) -> bytes:
        """See System."""
        process = self._process()
        return b"" if process is None else process.auxiliary

    def describe(self, thread: int) -> str:
        """See System."""
        task = self._tasks()[thread]
        return f"{os.fsdecode(task.name)}, {_STATES.get(task.state, task.state)}"

    def signal(self, thread: int, number: int) -> None:
        """See System."""
        delivery.post_thread(self._tasks()[thread], number, siginfo.kernel(number))

    def kill(self) -> None:
        """See System."""
        self._kernel.finish(signal.SIGKILL)

    def status(self) -> int | None:
        """See System."""
        return self._kernel.exit_status

    def open(self, path: str) -> int:
        """See System. As the process would find it: GDB reads libraries from a sysroot, too."""
        task = next(iter(self._tasks().values()), None)
        if task is None:
            raise FileNotFoundError(path)
        found = sysroot.redirected(task, os.fsencode(path))
        return paths.open_host(task, os.fsdecode(found), _READ)
