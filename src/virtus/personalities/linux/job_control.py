"""Stopping and continuing processes, and telling parents about it."""

from typing import TYPE_CHECKING, Final

from virtus.personalities.linux import accounting, delivery, siginfo
from virtus.personalities.linux.signals import SA_NOCLDSTOP

if TYPE_CHECKING:
    from virtus.personalities.linux.kernel import Kernel
    from virtus.personalities.linux.task import Process

SIGHUP: Final = 1
SIGCHLD: Final = 17
SIGCONT: Final = 18


def is_orphaned(kernel: "Kernel", group: int, without: "Process | None" = None) -> bool:
    """Whether nobody of the session outside the group could continue it (POSIX: an orphaned process group).

    init stands for the shell that started the machine's first process, and for nobody else's. `without` is a
    process that is about to leave.
    """
    for process in kernel.processes.values():
        if process.group != group or process is without or not process.alive:
            continue
        parent = process.parent
        if parent is None or parent is without:
            continue
        if parent is kernel.init:
            if process.pid == FIRST_PID:
                return False
        elif parent.group != group and parent.session == process.session:
            return False
    return True


FIRST_PID: Final = 2
"""The machine's first program; 1 is init."""


def has_stopped(kernel: "Kernel", group: int) -> bool:
    """Whether a member of the group is stopped."""
    return any(process.stopped_by and process.group == group for process in kernel.processes.values())


def hang_up_if_orphaned(kernel: "Kernel", group: int, without: "Process | None" = None) -> None:
    """A group that becomes orphaned with stopped members is told, and continued (setpgid(2))."""
    if has_stopped(kernel, group) and is_orphaned(kernel, group, without):
        delivery.post_group(kernel, group, SIGHUP)
        delivery.post_group(kernel, group, SIGCONT)


def stop(process: "Process", number: int) -> None:
    """Stop all threads of a process. Sleepers sleep on; nobody goes back to user mode until it is continued."""
    if process.stopped_by or process.exiting or not process.alive:
        return
    process.stopped_by = number
    process.stop_reported = False
    process.continued = False
    for task in process.tasks.values():
        if task.steps is None:
            process.kernel.interrupt(task)
    tell_parent(process, siginfo.CLD_STOPPED, number)
    if process.pid == FIRST_PID:
        process.kernel.when_stopped()


def continue_(process: "Process") -> None:
    """Let a stopped process go on; `release` then opens the door for its threads."""
    process.stopped_by = 0
    process.stop_reported = True
    process.continued = True
    tell_parent(process, siginfo.CLD_CONTINUED, SIGCONT)


def release(process: "Process") -> None:
    """Let the threads go on that were held, and handle what came while they slept."""
    kernel = process.kernel
    held, process.held = process.held, {}
    for task in held:
        if task.tid in kernel.tasks:
            kernel.to_user_mode(task)
    for task in list(process.tasks.values()):
        if task.wait is not None and delivery.has_deliverable(task):
            kernel.interrupt(task)


def tell_parent(process: "Process", code: int, status: int) -> None:
    """SIGCHLD for a stop or a continuation, unless the parent does not want to know; waits are woken anyway."""
    parent = process.parent
    if parent is None:
        return
    if not parent.actions.get(SIGCHLD).flags & SA_NOCLDSTOP:
        delivery.post(parent, SIGCHLD, child_info(process, SIGCHLD, code, status))
    parent.child_events.wake()


def child_info(process: "Process", number: int, code: int, status: int) -> bytes:
    """The siginfo_t by which a parent learns of its child."""
    user, system = accounting.ticks(process.user_us), accounting.ticks(process.system_us)
    credentials = accounting.credentials_of(process)
    uid = credentials.uid if credentials else 0
    return siginfo.child(number, code, process.pid, uid, status, user, system)
