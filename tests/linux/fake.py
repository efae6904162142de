"""A machine without a host's stubs: contexts whose memory is a bytearray, under a real kernel.

    machine = FakeMachine()
    assert machine.call("getpid") == 2

`call` goes through `Kernel.handle` as an exit of a vCPU does. It returns the call's result, or None when the task is
not back in user mode (asleep, stopped or gone).
"""

import errno
import importlib
import itertools
import os
import struct
from typing import Any

from virtus.exits import Exit, Reason
from virtus.isa.x86 import registers as r
from virtus.machine.meter import Meter
from virtus.machine.spec import GuestSpec
from virtus.personalities.linux.abi.base import NO_SYSCALL
from virtus.personalities.linux.impersonation import Impersonation
from virtus.personalities.linux.kernel import Kernel
from virtus.personalities.linux.task import Credentials, Place, Process, Task

BASE = 0x10000
"""Where a fake context's memory begins; everything outside is EFAULT."""
SIZE = 1 << 18
CODE = 0x400000
XSTATE_SIZE = 832
UNLIMITED = (2**64 - 1, 2**64 - 1)
LIMITS = dict.fromkeys(range(16), UNLIMITED) | {7: (1024, 4096)}
PROCESS_CALLS = ("process_calls", "session_calls", "prctl_calls", "signal_calls", "interval_timers", "wait_calls")
_idents = itertools.count(1 << 24)  # beyond PID_MAX_LIMIT: no thread of this host


class FakeContext:
    """See virtus.exits.Context."""

    def __init__(self, memory: bytearray | None = None) -> None:
        self.ident = next(_idents)
        self.memory = bytearray(SIZE) if memory is None else memory
        self.regs = memoryview(bytearray(8 * r.COUNT)).cast("Q")
        self.regs[r.RIP], self.regs[r.RSP], self.regs[r.EFLAGS] = CODE, BASE + SIZE - 4096, 0x202
        self.regs[r.CS], self.regs[r.SS], self.regs[r.ORIG_RAX] = 0x33, 0x2B, r.NO_SYSCALL
        self.xstate = bytearray(XSTATE_SIZE)
        struct.pack_into("<Q", self.xstate, 464, 7)
        self.running = False
        self.killed = False
        self.kicks = 0
        self.injected: list[tuple[int, ...]] = []
        self.info = bytes(128)

    def resume(self) -> None:
        assert not self.running
        self.running = True

    def inject(self, number: int, *arguments: int) -> int:
        self.injected.append((number, *arguments))
        return 0

    def fork(self, *, share_memory: bool) -> "FakeContext":
        child = type(self)(self.memory if share_memory else bytearray(self.memory))
        child.regs[:] = self.regs
        return child

    def fresh(self) -> "FakeContext":
        return type(self)()

    def empty(self) -> None:
        self.memory[:] = bytes(len(self.memory))

    def read(self, address: int, size: int) -> bytes:
        at = address - BASE
        if at < 0 or at + size > len(self.memory):
            raise OSError(errno.EFAULT, "")
        return bytes(self.memory[at : at + size])

    def read_partial(self, address: int, size: int) -> bytes:
        at = address - BASE
        return b"" if at < 0 else bytes(self.memory[at : at + size])

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        at = address - BASE
        if at < 0 or at + len(data) > len(self.memory):
            raise OSError(errno.EFAULT, "")
        self.memory[at : at + len(data)] = data

    def fault(self) -> bytes:
        return self.info

    def extended_state(self) -> bytes:
        return bytes(self.xstate)

    def set_extended_state(self, state: bytes) -> None:
        if len(state) != len(self.xstate):
            raise OSError(errno.EINVAL, "")
        self.xstate[:] = state

    def flush_instructions(self, start: int, size: int) -> None:
        pass

    def precise_faults(self) -> None:
        pass

    def kick(self) -> None:
        if self.running:
            self.kicks += 1

    def kill(self) -> None:
        self.killed = True
        self.running = False


def context_of(task: Task) -> FakeContext:
    """A task's context as the fake it is."""
    context = task.context
    assert isinstance(context, FakeContext)
    return context


class FakeMachine:
    """A kernel with its first process (pid 2), whose only thread is about to make calls."""

    machine = "x86_64"
    context_class: type[FakeContext] = FakeContext

    def __init__(self, *modules: str, **spec: Any) -> None:
        for module in (*PROCESS_CALLS, *modules):
            importlib.import_module(f"virtus.personalities.linux.{module}")
        procfs = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
        self.meter = Meter()
        impersonation = Impersonation(many_users=False)
        self.kernel = Kernel(self.meter, GuestSpec(argv=["true"], **spec), procfs, impersonation, self.machine)
        process = Process(self.kernel, self.kernel.next_pid(), self.kernel.init)
        process.group = process.session = process.pid
        process.limits = dict(LIMITS)
        self.kernel.processes[process.pid] = self.kernel.init.children[process.pid] = process
        self.task = Task(self.kernel, process.pid, process, self.context_class())
        self.task.credentials = Credentials(1000, 1000, ())
        self.task.place = Place("/", os.open("/", os.O_PATH | os.O_CLOEXEC), 0o022)
        self.task.descriptors.sharers = 1
        process.tasks[self.task.tid] = self.task
        self.kernel.attach(self.task, self.task.context)
        self.task.context.resume()
        self._exit = Exit()

    @property
    def process(self) -> Process:
        return self.task.process

    def close(self) -> None:
        self.kernel.close()

    def call(self, name: str, *arguments: int, task: Task | None = None) -> int | None:
        """Make a system call; None when the task does not come back at once."""
        task = task or self.task
        regs = task.regs
        abi = self.kernel.abi
        for index, value in zip(abi.arguments, arguments, strict=False):
            regs[index] = value & NO_SYSCALL
        number = regs[abi.original] = abi.numbers[name]
        entered, left = abi.entry
        regs[entered] = regs[left]
        self.entering(regs)
        self._come_out(task, Reason.SYSCALL, number)
        return self.result(task)

    def call_number(self, number: int) -> int | None:
        """Make a system call that need not have a name; its arguments are what the registers hold."""
        self._come_out(self.task, Reason.SYSCALL, number)
        return self.result()

    def entering(self, regs: Any) -> None:
        """What else a vCPU of this machine leaves in the registers at a system call."""

    def result(self, task: Task | None = None) -> int | None:
        """The result register of a task that is in user mode, signed; None otherwise."""
        task = task or self.task
        if not context_of(task).running or context_of(task).killed:
            return None
        word: int = task.regs[self.kernel.abi.result]
        return word - (1 << 64) if word >> 63 else word

    def signal(self, number: int, *, task: Task | None = None, info: bytes = bytes(128)) -> None:
        """The task comes out with a signal of the host's (0: it was kicked)."""
        task = task or self.task
        context_of(task).info = info
        task.regs[self.kernel.abi.original] = NO_SYSCALL
        self._come_out(task, Reason.SIGNAL, number)

    def event(self) -> None:
        """A descriptor or timer of the host's is ready: let the kernel see to it."""
        self._exit.reason, self._exit.context, self._exit.number = Reason.EVENT, None, 0
        self.kernel.handle(self._exit)

    def ended(self, task: Task, status: int = 9) -> None:
        """The task's context was killed from outside."""
        self._come_out(task, Reason.ENDED, status)

    def settle(self) -> None:
        """Deliver every kick that is on its way."""
        again = True
        while again:
            again = False
            for task in list(self.kernel.tasks.values()):
                if context_of(task).running and context_of(task).kicks:
                    context_of(task).kicks = 0
                    self.signal(0, task=task)
                    again = True

    def left(self, number: int) -> None:
        """The task came out for a reason of its instruction set's own."""
        self._come_out(self.task, Reason.LEFT, number)

    def _come_out(self, task: Task, reason: Reason, number: int) -> None:
        context_of(task).running = False
        self._exit.reason, self._exit.context, self._exit.number = reason, task.context, number
        self.kernel.handle(self._exit)

    def store(self, data: bytes, at: int = BASE) -> int:
        """Put data into the first task's memory; its address."""
        self.task.write(at, data)
        return at

    def fork(self, *, task: Task | None = None) -> Task:
        """fork(2); the child."""
        pid = self.call("fork", task=task)
        assert pid is not None
        assert pid > 0, os.strerror(-pid)
        return self.kernel.tasks[pid]
