"""Signals on their way: sending them, and what happens to a task that has some before it goes back to user mode.

`post` only queues (and stops or continues, which need nobody's help). Everything else a signal does is done by the
task that takes it, at the door to user mode: `before_user_mode`. So a sleeping call always unwinds before its task is
changed or ended.
"""

import errno
from typing import TYPE_CHECKING, Final

from virtus.personalities.linux import accounting, job_control, lifecycle, siginfo
from virtus.personalities.linux.abi.base import NO_SYSCALL
from virtus.personalities.linux.abi.stacks import BadFrame
from virtus.personalities.linux.results import INTERRUPTED, RESTART
from virtus.personalities.linux.signals import (
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SIG_DFL,
    SIG_IGN,
    SIGNAL_COUNT,
    UNBLOCKABLE,
    Action,
)

if TYPE_CHECKING:
    from virtus.personalities.linux.kernel import Kernel
    from virtus.personalities.linux.task import Process, Task

SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL = 3, 4, 5, 6, 7, 8, 9  # include/uapi/asm-generic/signal.h
SIGSEGV, SIGPIPE, SIGALRM, SIGTERM, SIGCHLD, SIGCONT, SIGSTOP = 11, 13, 14, 15, 17, 18, 19
SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF = 20, 21, 22, 23, 24, 25, 26, 27
SIGWINCH, SIGSYS = 28, 31


def _mask(*numbers: int) -> int:
    return sum(1 << (number - 1) for number in numbers)


IGNORED: Final = _mask(SIGCHLD, SIGCONT, SIGURG, SIGWINCH)  # by default (signal(7))
STOPS: Final = _mask(SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU)
DUMPS: Final = _mask(SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS)
SYNCHRONOUS: Final = _mask(SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS)
CONTINUES: Final = _mask(SIGCONT)
KILLS: Final = _mask(SIGKILL)
FORWARDED: Final = frozenset({SIGVTALRM, SIGPROF, SIGXCPU})  # timers and limits that the host keeps on a stub
RESTART_WORD: Final = RESTART & 2**64 - 1
RESTART_WORDS: Final = frozenset({RESTART_WORD, INTERRUPTED & 2**64 - 1})
EINTR_WORD: Final = -errno.EINTR & 2**64 - 1


def may_signal(task: "Task", process: "Process", number: int) -> bool:
    """Whether a task may send this signal to a process (kill(2))."""
    mine, theirs = task.credentials, accounting.credentials_of(process)
    if task.process is process or mine.euid == 0 or theirs is None:
        return True
    if number == SIGCONT and task.process.session == process.session:
        return True
    return bool({mine.euid, mine.uid} & {theirs.suid, theirs.uid})


def post(process: "Process", number: int, info: bytes | None = None) -> None:
    """Send a signal to a process as a whole; any thread that does not block it may take it. 0 sends nothing."""
    _send(process, None, number, info)


def post_thread(task: "Task", number: int, info: bytes | None = None) -> None:
    """Send a signal to one thread."""
    _send(task.process, task, number, info)


def post_group(kernel: "Kernel", group: int, number: int, info: bytes | None = None) -> int:
    """Send a signal to a process group; how many processes that were."""
    members = [process for process in kernel.processes.values() if process.group == group and process.alive]
    for process in members:
        _send(process, None, number, info)
    return len(members)


def _ignored(process: "Process", number: int) -> bool:
    handler = process.actions.get(number).handler
    return handler == SIG_IGN or (handler == SIG_DFL and bool(IGNORED >> (number - 1) & 1))


def _send(process: "Process", target: "Task | None", number: int, info: bytes | None) -> None:
    if not number or not process.tasks or process.exiting:
        return  # nobody, init, or on its way out
    bit = 1 << (number - 1)
    continued = False
    if bit & STOPS:
        _discard(process, CONTINUES)
    elif bit & (CONTINUES | KILLS):
        if bit & CONTINUES:
            _discard(process, STOPS)
        if process.stopped_by:
            continued = True
            if bit & KILLS:
                process.stopped_by = 0
            else:
                job_control.continue_(process)
    _queue(process, target, number, bit, info)
    if continued:
        job_control.release(process)


def _queue(process: "Process", target: "Task | None", number: int, bit: int, info: bytes | None) -> None:
    first = target or process.leader or next(iter(process.tasks.values()))
    if not first.blocked & bit and _ignored(process, number) and not bit & UNBLOCKABLE:
        return
    chosen = _thread_for(process, target, bit)
    if chosen is not None and bit & STOPS and process.actions.get(number).handler == SIG_DFL:
        if number == SIGSTOP or not job_control.is_orphaned(process.kernel, process.group):
            job_control.stop(process, number)
        return
    (process if target is None else target).pending.add(number, info or siginfo.kernel(number))
    _tell_watchers(process)
    for task, (wanted, queue) in process.signal_waits.items():
        if wanted & bit and target in (None, task):
            queue.wake()
            return
    if chosen is not None and not process.stopped_by:
        process.kernel.interrupt(chosen)


def _thread_for(process: "Process", target: "Task | None", bit: int) -> "Task | None":
    """The thread that is to take a signal: the leader if it can; None when all block it."""
    if target is not None:
        return target if not target.blocked & bit or bit & UNBLOCKABLE else None
    for task in (process.leader, *process.tasks.values()):
        if task is not None and (not task.blocked & bit or bit & UNBLOCKABLE):
            return task
    return None


def _discard(process: "Process", mask: int) -> None:
    process.pending.discard(mask)
    for task in process.tasks.values():
        task.pending.discard(mask)


def _tell_watchers(process: "Process") -> None:
    """signalfd descriptors look again."""
    for file in process.kernel.signal_files:
        file.update(process)


def discard(process: "Process", mask: int) -> None:
    """Drop pending signals (their disposition has become to ignore them)."""
    _discard(process, mask)
    _tell_watchers(process)


def force(task: "Task", number: int, info: bytes) -> None:
    """A signal that the task cannot escape: a fault. Blocked or ignored, it kills."""
    bit = 1 << (number - 1)
    actions = task.process.actions
    if task.blocked & bit or actions.get(number).handler == SIG_IGN:
        actions.actions[number] = Action()
        task.blocked &= ~bit
    task.pending.add(number, info)


def on_host_signal(task: "Task", number: int) -> None:
    """The task came out of user mode with a signal of the host's: a fault of its own, or a timer kept by the host."""
    if not number:
        return  # only kicked, to look at its signals
    if SYNCHRONOUS >> (number - 1) & 1:
        info = task.context.fault()
        if siginfo.code_of(info) <= 0:
            info = siginfo.kernel(number)  # somebody on the host; who is no business of the guest's
        force(task, number, info)
    elif number in FORWARDED:
        post(task.process, number)


def take(task: "Task", mask: int) -> tuple[int, bytes] | None:
    """The next pending signal of the task or its process in `mask`, faults before everything else."""
    found = task.pending.take(mask & SYNCHRONOUS) or task.pending.take(mask) or task.process.pending.take(mask)
    if found is not None:
        process = task.process
        if found[0] == SIGALRM and lifecycle.REAL_TIMER in process.timers:
            process.timers[lifecycle.REAL_TIMER].repeat()
        _tell_watchers(process)
    return found


def has_deliverable(task: "Task") -> bool:
    """Whether a signal is waiting that the task may take now: no time to fall asleep."""
    process = task.process
    pending = (task.pending.bits | process.pending.bits) & ~task.blocked
    if not pending:
        return False
    if task in process.signal_waits:
        pending &= ~process.signal_waits[task][0]
    return bool(pending) and not process.stopped_by


def has_fatal(task: "Task") -> bool:
    """Whether one of them ends the process."""
    pending = (task.pending.bits | task.process.pending.bits) & ~task.blocked
    actions = task.process.actions
    return any(
        pending >> (number - 1) & 1 and actions.get(number).handler == SIG_DFL
        for number in range(1, SIGNAL_COUNT + 1)
        if not (STOPS | IGNORED) >> (number - 1) & 1
    )


def handled_mask(process: "Process") -> int:
    """All signals that have a handler."""
    return _mask(*(number for number, action in process.actions.actions.items() if action.handler > SIG_IGN))


def before_user_mode(task: "Task") -> bool:
    """Handle the task's signals; whether it may go on in user mode now. Call with the context stopped.

    The registers hold the result of the call it comes from, if it does: RESTART is resolved here.
    """
    process = task.process
    kernel = task.kernel
    regs = task.regs
    while True:
        if task.tid not in kernel.tasks or process.exiting:
            return False
        if process.stopped_by:
            process.held[task] = None
            return False
        taken = take(task, ~task.blocked)
        if taken is None:
            if task.restore_mask is None:
                break
            task.blocked, task.restore_mask = task.restore_mask, None
            continue
        number, info = taken
        if kernel.tracer is not None and kernel.tracer(task, number, info):
            return False  # until it says how to go on
        action = process.actions.get(number)
        if action.handler > SIG_IGN:
            _enter_handler(task, number, info, action)
        elif action.handler == SIG_DFL and not _default(task, number):
            return False
    abi = kernel.abi
    if regs[abi.result] in RESTART_WORDS and regs[abi.original] != NO_SYSCALL:
        abi.again(regs)
    return True


def _default(task: "Task", number: int) -> bool:
    """The default action; False when the task is gone."""
    process = task.process
    bit = 1 << (number - 1)
    if bit & IGNORED:
        return True
    if bit & STOPS:
        if number == SIGSTOP or not job_control.is_orphaned(task.kernel, process.group):
            job_control.stop(process, number)
        return True
    if bit & DUMPS and task.process.limits.get(4, (0, 0))[0]:  # RLIMIT_CORE
        task.kernel.meter.note("a guest program crashed; core files are not written")
    lifecycle.end_process(process, number)
    return False


def _enter_handler(task: "Task", number: int, info: bytes, action: Action) -> None:
    process, regs = task.process, task.regs
    abi = task.kernel.abi
    if regs[abi.result] in RESTART_WORDS and regs[abi.original] != NO_SYSCALL:
        if regs[abi.result] == RESTART_WORD and action.flags & SA_RESTART:
            abi.again(regs)
        else:
            regs[abi.result] = EINTR_WORD
    mask = task.blocked if task.restore_mask is None else task.restore_mask
    try:
        abi.frames.build(task, number, info, action, mask)
    except BadFrame:
        if number == SIGSEGV:
            process.actions.actions[SIGSEGV] = Action()
        force(task, SIGSEGV, siginfo.kernel(SIGSEGV))
        return
    task.restore_mask = None
    if action.flags & SA_RESETHAND:
        process.actions.actions[number] = action._replace(handler=SIG_DFL)
    task.blocked |= action.mask
    if not action.flags & SA_NODEFER:
        task.blocked |= 1 << (number - 1)
    task.blocked &= ~UNBLOCKABLE
