"""The user-mode kernel: answers every exit of a Linux guest, and keeps who sleeps, runs and has ended.

It knows its vCPU only through `virtus.exits`: contexts that stop at system calls and faults, and that can be resumed.
"""

import errno
import os
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from types import GeneratorType
from typing import Any, Final

from virtus.exits import EVENT, SIGNAL, SYSCALL, Context, Exit, Reason
from virtus.personalities.linux import delivery, lifecycle, siginfo
from virtus.personalities.linux.abi import abi_of
from virtus.personalities.linux.abi.base import NO_SYSCALL
from virtus.personalities.linux.blocking import Blocking, Interrupted, Wait
from virtus.personalities.linux.impersonation import Impersonation
from virtus.personalities.linux.results import INTERRUPTED, NO_RESULT, RESTART
from virtus.personalities.linux.scheduler import Scheduler
from virtus.personalities.linux.table import TABLE
from virtus.personalities.linux.task import Process, Task

MASK: Final = 2**64 - 1
RESTART_RESULTS: Final = frozenset({RESTART & MASK, INTERRUPTED & MASK})
PID_LIMIT: Final = 4194304  # PID_MAX_LIMIT, include/linux/threads.h


class Kernel:
    """One machine's kernel. `meter` has `note(line)`; `spec` is the machine.spec.GuestSpec it was made from."""

    def __init__(
        self, meter: Any, spec: Any, procfs: int, impersonation: Impersonation, machine: str = "x86_64"
    ) -> None:
        abi = self.abi = abi_of(machine)
        self.sysroots: tuple[str, ...] = ()  # guest directories with libraries for a foreign processor
        self._result, self._original = abi.result, abi.original
        self._entered, self._left = abi.entry
        self.meter = meter
        self.spec = spec
        self.procfs = procfs
        self.hostname: str = spec.hostname
        self.domainname = "(none)"
        self.started_ns = monotonic_ns()
        self.tasks: dict[int, Task] = {}
        self.processes: dict[int, Process] = {}
        self.init = self.processes[1] = Process(self, 1, None)
        self.console: Any = None
        self.when_stopped: Callable[[], None] = lambda: None  # called when the machine's first process is stopped
        self.tracer: Callable[[Task, int, bytes], bool] | None = None  # who decides on signals before they are taken
        self.signal_files: list[Any] = []
        self.exit_status: int | None = None  # as wait4(2) reports it, of the machine's first process
        self.scheduler = Scheduler(self._awake)
        self._impersonation = impersonation
        self._by_context: dict[int, Task] = {}
        self._ready: deque[tuple[Wait, bool | None]] = deque()
        self._last_pid = 1
        self._current: Task | None = None
        self._entries: list[Callable[[Task, Any], Any] | None] = [None] * (max(abi.numbers.values()) + 1)

    def _bind(self, number: int) -> Callable[[Task, Any], Any] | None:
        """A call's entry function, made when a guest first needs it: no guest uses all of the table. None: no such
        call."""
        entry = TABLE.get(self.abi.names.get(number, ""))
        if entry is None or self.abi.numbers.get(entry.name) != number:
            return None
        bound = self._entries[number] = entry.bind(self.abi.arguments)
        return bound

    # The personality's side of the loop

    @property
    def running(self) -> bool:
        """See Personality."""
        return self.exit_status is None

    def name_of(self, exit: Exit) -> str:
        """See Personality."""
        if exit.reason is SYSCALL:
            return self.abi.names.get(exit.number) or self.abi.unknown(exit.number)
        return str(exit.number)

    def handle(self, exit: Exit) -> None:
        """See Personality."""
        reason = exit.reason
        if reason is EVENT:
            self.scheduler.dispatch()
        else:
            task = self._by_context.get(exit.context.ident)
            if task is not None:
                self._current = task
                if reason is SYSCALL:
                    self._call(task, exit.number)
                elif reason is SIGNAL:
                    if exit.number:
                        delivery.on_host_signal(task, exit.number)
                    self.to_user_mode(task)
                elif reason is Reason.LEFT:
                    # nothing that Linux knows: as an instruction that the processor does not have
                    delivery.force(task, delivery.SIGILL, siginfo.kernel(delivery.SIGILL))
                    self.to_user_mode(task)
                else:
                    lifecycle.on_context_ended(task, exit.number)
                self._current = None
        while self._ready:
            self._go_on(*self._ready.popleft())

    def _call(self, task: Task, number: int) -> None:
        regs = task.regs
        entry = (self._entries[number] or self._bind(number)) if number < len(self._entries) else None
        if regs[self._entered] != regs[self._left]:
            self.meter.note("a call through the 32-bit entry was refused: only x86-64 programs run here")
            result: Any = -errno.ENOSYS
        elif entry is None:
            self.meter.note(f"{self.abi.unknown(number)}: ENOSYS")
            result = -errno.ENOSYS
        else:
            try:
                result = entry(task, regs)
            except Exception as error:
                result = self._failure(error)
        if type(result) is GeneratorType:
            task.steps = result
            self._step(task, None)
        else:
            self.finish_call(task, result)

    def _failure(self, error: Exception) -> int:
        """The result of a call whose handler raised.

        Anything but an OSError is a mistake of ours: it ends the call with EIO and a line in the meter, no more.
        """
        if isinstance(error, OSError):
            return -(error.errno or errno.EIO)
        self.meter.note(f"a mistake in the kernel, answered with EIO: {type(error).__name__}: {error}")
        return -errno.EIO

    def finish_call(self, task: Task, result: int) -> None:
        """Give a call its result and let the task go on, unless the handler saw to that (NO_RESULT)."""
        if result != NO_RESULT:
            task.regs[self._result] = result & MASK
        self.to_user_mode(task)

    def to_user_mode(self, task: Task) -> None:
        """Let the task run, after the signals it has to handle first; not at all when it is gone or stopped."""
        process = task.process
        held_up = (
            (task.pending.bits | process.pending.bits) & ~task.blocked
            or task.restore_mask is not None
            or process.stopped_by
            or process.exiting
            or task.regs[self._result] in RESTART_RESULTS
        )
        if held_up and not delivery.before_user_mode(task):
            return
        if task.tid in self.tasks and task.wait is None and task.steps is None and not task.context.running:
            task.regs[self._original] = NO_SYSCALL
            task.context.resume()

    # Calls that wait

    def _step(self, task: Task, send: bool | Interrupted | None) -> None:
        """Take a waiting call one step on."""
        steps = task.steps
        assert steps is not None
        self._current = task
        waited = task.wait
        task.wait = None
        outcome = self._advance(steps, waited, send)
        if isinstance(outcome, Wait):
            self._sleep(task, outcome)
        else:
            task.steps = None
            task.state = "R"
            self.finish_call(task, outcome)
        self._current = None

    def _advance(self, steps: Blocking, waited: Wait | None, send: bool | Interrupted | None) -> Wait | int:
        """What a waiting call says next: what it waits for, or its result."""
        try:
            if isinstance(send, Interrupted):
                return steps.throw(send)
            return next(steps) if send is None else steps.send(send)
        except StopIteration as end:
            return int(end.value)
        except Interrupted:
            return RESTART if waited is None or waited.restart else INTERRUPTED
        except Exception as error:
            return self._failure(error)

    def _sleep(self, task: Task, wait: Wait) -> None:
        wait.task = task
        task.wait = wait
        task.state = "S"
        if task.process.exiting or delivery.has_deliverable(task):
            self._ready.append((wait, None))
            return
        self.scheduler.sleep(wait)

    def _awake(self, wait: Wait, happened: bool) -> None:
        """Something a task waited for has come: have it go on after the exit that is being handled."""
        if wait.task is not None:
            self.scheduler.forget(wait)
            self._ready.append((wait, happened))

    def _go_on(self, wait: Wait, happened: bool | None) -> None:
        """Resume the handler: `happened` is what its yield gives, None is a signal."""
        task = wait.task
        wait.task = None
        if task is None or task.wait is not wait:
            return
        if happened is None:
            self.scheduler.forget(wait)
            task.wait = wait
            self._step(task, Interrupted())
        else:
            self._step(task, happened)

    def wake(self, wait: Wait) -> None:
        """Wake a sleeping task: what it waited for has happened."""
        self._awake(wait, True)

    def interrupt(self, task: Task) -> None:
        """Have a task look at its signals: out of its sleep, or out of user mode."""
        wait = task.wait
        if wait is not None:
            if wait.task is not None:
                self.scheduler.forget(wait)
                self._ready.append((wait, None))
        elif task is not self._current:
            task.context.kick()

    def cancel_call(self, task: Task) -> None:
        """Drop the call a task is inside of (the task is being ended)."""
        if task.wait is not None:
            self.scheduler.forget(task.wait)
            task.wait.task = None
            task.wait = None
        if task.steps is not None and task is not self._current:
            task.steps.close()
        task.steps = None

    # Tasks

    def next_pid(self) -> int:
        """The next free process or thread number."""
        while True:
            self._last_pid = self._last_pid + 1 if self._last_pid < PID_LIMIT else 300
            if self._last_pid not in self.tasks and self._last_pid not in self.processes:
                return self._last_pid

    def attach(self, task: Task, context: Context) -> None:
        """From now on `context` is where this task runs."""
        self._by_context.pop(task.context.ident, None)
        task.context = context
        task.regs = context.regs
        self._by_context[context.ident] = task
        self.tasks[task.tid] = task

    def detach(self, task: Task) -> None:
        """The task is gone; its context is killed and forgotten."""
        self._by_context.pop(task.context.ident, None)
        self.tasks.pop(task.tid, None)
        task.context.kill()

    def finish(self, status: int) -> None:
        """End the machine with this wait status."""
        if self.exit_status is None:
            self.exit_status = status

    def assume(self, task: Task) -> None:
        """Take on the task's working directory, umask and file-system identity for the host calls to come."""
        self._impersonation.assume(task)

    def close(self) -> None:
        """Give back what the host holds."""
        for task in list(self.tasks.values()):
            self.cancel_call(task)
        self.scheduler.close()
        if self.procfs >= 0:
            os.close(self.procfs)
            self.procfs = -1
