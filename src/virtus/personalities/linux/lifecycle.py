"""Threads and processes come and go.

A task ends in `end_task`, a process when its last task does; it then is a zombie until its parent waits for it, or is
forgotten at once where the parent does not want to know. The machine ends with its first process.
"""

from time import monotonic_ns
from typing import Final

from virtus.exits import Context
from virtus.personalities.linux import accounting, delivery, futex, job_control, siginfo
from virtus.personalities.linux.blocking import WaitQueue
from virtus.personalities.linux.files import Descriptors
from virtus.personalities.linux.job_control import FIRST_PID, SIGCHLD, SIGCONT, SIGHUP
from virtus.personalities.linux.signals import SA_NOCLDWAIT, SIG_IGN
from virtus.personalities.linux.task import Memory, Process, Task

SIGNAL_BITS: Final = 0x7F  # of a wait status: the signal that ended the process
CORE_BIT: Final = 0x80
REAL_TIMER: Final = "real"
"""The key of setitimer(2)'s timer among a process's; every timer has `arm(value, interval)`, and zeros disarm it."""


# What tasks share


def own_descriptors(task: Task) -> Descriptors:
    """The task's table of descriptors, shared with nobody from now on."""
    table = task.descriptors
    if table.sharers > 1:
        table.sharers -= 1
        table = task.descriptors = table.copy()
        table.sharers = 1
    return table


def leave_memory(task: Task) -> None:
    """The task goes to a memory of its own (execve): a vfork parent that lent its memory goes on."""
    task.memory.sharers -= 1
    task.memory = Memory()
    process = task.process
    for name, timer in list(process.timers.items()):
        if name != REAL_TIMER:  # execve(2): interval timers stay, POSIX timers go
            timer.arm(0, 0)
            del process.timers[name]
    _vfork_done(process)


def _vfork_done(process: Process) -> None:
    queue, process.vfork_done = process.vfork_done, None
    if queue is not None:
        queue.wake()


def end_other_threads(task: Task) -> None:
    """Leave the task alone in its process and make it the leader (execve)."""
    process, kernel = task.process, task.kernel
    for other in list(process.tasks.values()):
        if other is not task:
            end_task(other)
    if task.tid != process.pid:
        kernel.tasks.pop(task.tid, None)
        process.tasks.pop(task.tid, None)
        task.tid = process.pid
        kernel.tasks[task.tid] = process.tasks[task.tid] = task


# The end of a thread


def end_task(task: Task) -> None:
    """End one thread: its call is dropped, what it shared is left, its context killed."""
    process, kernel = task.process, task.kernel
    if kernel.tasks.get(task.tid) is not task:
        return
    kernel.cancel_call(task)
    process.held.pop(task, None)
    process.signal_waits.pop(task, None)
    if process.leader is task:
        process.last_credentials = task.credentials
    accounting.settle(task)
    _leave_marks(task)
    task.memory.sharers -= 1
    process.tasks.pop(task.tid, None)
    kernel.detach(task)
    task.state = "Z"
    table = task.descriptors
    table.sharers -= 1
    if table.sharers == 0:
        table.close_all(task)


def _leave_marks(task: Task) -> None:
    """What other threads may wait for in the memory that they share with an ending one."""
    if task.robust_list:
        futex.walk_robust_list(task)
    address, task.clear_child_tid = task.clear_child_tid, 0
    if address and task.memory.sharers > 1:
        try:
            task.write(address, bytes(4))
        except OSError:
            return  # the guest's own mistake
        futex.wake_address(task, address, 1)


def exit_task(task: Task, status: int) -> None:
    """exit(2): end this thread; with the last one the process ends, with its leader's status."""
    process = task.process
    if process.leader is task:
        process.leader_status = status
    if len(process.tasks) == 1:
        _end(process, process.leader_status)
    else:
        end_task(task)


def end_process(process: Process, number: int) -> None:
    """End a process by a signal."""
    _end(process, number & SIGNAL_BITS)


def exit_process(process: Process, code: int) -> None:
    """exit_group(2)."""
    _end(process, (code & 0xFF) << 8)


def die(task: Task, number: int) -> None:
    """End the task's process by a signal, whatever it has done to escape."""
    end_process(task.process, number)


def on_context_ended(task: Task, host_status: int) -> None:
    """A stub is gone without the kernel's doing (killed from outside, or by a limit of the host): SIGKILL."""
    del host_status
    end_process(task.process, delivery.SIGKILL)


# The end of a process


def _end(process: Process, status: int) -> None:
    """End all threads, then the process, with a wait status."""
    if process.exiting:
        return
    process.exiting = True
    kernel = process.kernel
    # the leader last, so that /proc and getrusage keep a row of it while the others go
    for task in sorted(process.tasks.values(), key=lambda task: task.tid == process.pid):
        process.last_credentials = task.credentials
        end_task(task)
    cancel_timers(process)
    process.stopped_by = 0
    process.pending.discard(-1)
    _vfork_done(process)
    _leave_terminal(process)
    _orphan_children(process)
    process.exit_status = status
    _tell_the_parent(process, status)
    job_control.hang_up_if_orphaned(kernel, process.group, process)
    for watcher in list(process.watchers):
        watcher()
    if process.pid == FIRST_PID:
        kernel.finish(status)


def cancel_timers(process: Process) -> None:
    """Disarm every timer of the process."""
    timers, process.timers = process.timers, {}
    for timer in timers.values():
        timer.arm(0, 0)


def _leave_terminal(process: Process) -> None:
    """A session leader takes the controlling terminal from its session, and the foreground group is told."""
    terminal = process.terminal
    if process.session != process.pid or terminal is None:
        return
    kernel = process.kernel
    foreground = terminal.foreground
    for other in kernel.processes.values():
        if other.session == process.session:
            other.terminal = None
    terminal.session = terminal.foreground = 0
    if foreground:
        delivery.post_group(kernel, foreground, SIGHUP)
        delivery.post_group(kernel, foreground, SIGCONT)


def _new_parent(process: Process) -> Process:
    """Who takes the children of an ending process: the nearest ancestor that has asked for them, or init."""
    ancestor = process.parent
    while ancestor is not None and not (ancestor.subreaper and ancestor.alive and not ancestor.exiting):
        ancestor = ancestor.parent
    return ancestor or process.kernel.init


def _orphan_children(process: Process) -> None:
    kernel = process.kernel
    new = _new_parent(process)
    children = list(process.children.values())
    process.children.clear()
    for child in children:
        child.parent = new
        new.children[child.pid] = child
        for task in list(child.tasks.values()):
            if task.death_signal:
                delivery.post_thread(task, task.death_signal)
        if not child.alive:
            if child.exit_status is not None:
                child.exit_signal = SIGCHLD
                _tell_the_parent(child, child.exit_status)
        elif child.group != process.group:
            job_control.hang_up_if_orphaned(kernel, child.group, process)


def _tell_the_parent(process: Process, status: int) -> None:
    """The exit signal and waits; a parent that ignores its children's end has them forgotten at once."""
    parent = process.parent
    kernel = process.kernel
    if parent is None or parent is kernel.init:
        forget(process)
        return
    number = process.exit_signal
    action = parent.actions.get(SIGCHLD)
    forgotten = number == SIGCHLD and (action.handler == SIG_IGN or bool(action.flags & SA_NOCLDWAIT))
    if number and not (forgotten and action.handler == SIG_IGN):
        signal = status & SIGNAL_BITS
        code = siginfo.CLD_DUMPED if status & CORE_BIT else siginfo.CLD_KILLED if signal else siginfo.CLD_EXITED
        value = signal or status >> 8 & 0xFF
        delivery.post(parent, number, job_control.child_info(process, number, code, value))
    if forgotten:
        forget(process)
    parent.child_events.wake()


def forget(process: Process) -> None:
    """Nobody is to wait for this zombie any more."""
    process.kernel.processes.pop(process.pid, None)
    if process.parent is not None:
        process.parent.children.pop(process.pid, None)


# Birth


def new_process(task: Task, *, parent: Process | None = None) -> Process:
    """A process like the task's own, without tasks yet, as fork(2) makes it."""
    kernel, old = task.kernel, task.process
    process = Process(kernel, kernel.next_pid(), old)
    process.parent = parent or old
    process.environment = list(old.environment)
    process.start_ns = monotonic_ns()
    process.dumpable = old.dumpable
    process.no_new_privileges = old.no_new_privileges
    return process


def new_task(task: Task, tid: int, process: Process, context: Context) -> Task:
    """A task that starts with what every kind of clone(2) copies; nothing shared is set up yet."""
    child = Task(task.kernel, tid, process, context)
    child.name = task.name
    child.processors = task.processors
    child.credentials = task.credentials
    child.blocked = task.blocked if task.restore_mask is None else task.restore_mask
    return child


def enrol(task: Task) -> None:
    """The task, and its process if that is new, begin to exist for everybody."""
    process, kernel = task.process, task.kernel
    if process.pid not in kernel.processes:
        kernel.processes[process.pid] = process
        assert process.parent is not None
        process.parent.children[process.pid] = process
    process.tasks[task.tid] = task
    kernel.attach(task, task.context)


def lend_memory(process: Process) -> WaitQueue:
    """The queue that is woken when a vfork child leaves its parent's memory."""
    process.vfork_done = WaitQueue()
    return process.vfork_done
