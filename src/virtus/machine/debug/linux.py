"""What the personality `linux` knows of the process that is debugged, and of the system calls that are traced."""

import os
import signal
from collections.abc import Callable
from typing import Any, Final

from virtus.personalities.linux import delivery, paths, siginfo, sysroot
from virtus.personalities.linux.boot import FIRST_PID
from virtus.personalities.linux.kernel import Kernel
from virtus.personalities.linux.table import TABLE
from virtus.personalities.linux.task import Process, Task

_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_STATES: Final = {"R": "in user mode", "S": "asleep in a system call", "T": "stopped", "Z": "ended"}


class LinuxSystem:
    """See `virtus.machine.debug.debuggee.System`: the machine's first process."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._report: Callable[[int, int], None] | None = None
        self._undecided: dict[int, tuple[int, bytes]] = {}
        self._decided: list[tuple[Task, int]] = []

    def report_signals(self, report: Callable[[int, int], None] | None) -> None:
        """See System."""
        self._report = report
        self._decided.clear()
        self._kernel.tracer = None if report is None else self._is_reported

    def _is_reported(self, task: Task, number: int, info: bytes) -> bool:
        """Whether a signal that a task takes is the debugger's to decide on; the task waits for that."""
        if task.process is not self._process() or number == signal.SIGKILL or self._report is None:
            return False
        if (task, number) in self._decided:
            self._decided.remove((task, number))
            return False
        if delivery.SYNCHRONOUS >> number - 1 & 1 and siginfo.code_of(info) > 0:
            return False  # a fault: reported where it came up
        self._undecided[task.tid] = number, info
        self._report(task.tid, number)
        return True

    def information(self, thread: int) -> bytes:
        """See System."""
        return self._undecided.get(thread, (0, b""))[1]

    def decide(self, thread: int, number: int) -> None:
        """See System."""
        task, (reported, info) = self._tasks()[thread], self._undecided.pop(thread)
        if number:
            self._decided.append((task, number))
            task.pending.add(number, info if number == reported else siginfo.kernel(number))
        self._kernel.to_user_mode(task)

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
        task = self._tasks()[thread]
        self._decided.append((task, number))
        delivery.post_thread(task, number, siginfo.kernel(number))

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


class LinuxCalls:
    """See `virtus.machine.debug.trace.TracedSystem`: calls as the table has them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def thread(self, ident: int) -> int:
        """See TracedSystem."""
        return next((task.tid for task in self._kernel.tasks.values() if task.context.ident == ident), 0)

    def show(self, number: int, registers: "memoryview[int]") -> str:
        """See TracedSystem."""
        abi = self._kernel.abi
        name = abi.names.get(number) or abi.unknown(number)
        entry = TABLE.get(name)
        values = [registers[register] for register in abi.arguments]
        return f"{name}({', '.join(map(_argument, entry.kinds if entry is not None else (), values))})"


def _argument(kind: str, value: int) -> str:
    """As the table has its kind; numbers of more than one digit that may be addresses or flags in hexadecimal."""
    if kind == "int":
        value &= 2**32 - 1
        return str(value - 2**32 if value >> 31 else value)
    if kind == "unsigned":
        value &= 2**32 - 1
    elif kind == "long" and value >> 63:
        return str(value - 2**64)
    return str(value) if value < 10 else f"{value:#x}"
