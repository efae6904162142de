"""Who a process is, and whose: numbers, process groups and sessions (credentials(7), setpgid(2))."""

import errno

from virtus.personalities.linux import job_control
from virtus.personalities.linux.table import Int, call
from virtus.personalities.linux.task import Process, Task


@call("getpid")
def getpid(task: Task) -> int:
    """getpid(2)."""
    return task.process.pid


@call("gettid")
def gettid(task: Task) -> int:
    """gettid(2)."""
    return task.tid


@call("getppid")
def getppid(task: Task) -> int:
    """getppid(2)."""
    parent = task.process.parent
    return parent.pid if parent else 0


def _process(task: Task, pid: int) -> Process:
    """The process of a number, the task's own for 0; raises ESRCH."""
    if not pid:
        return task.process
    process = task.kernel.processes.get(pid)
    if process is None:
        raise OSError(errno.ESRCH, "")
    return process


@call("getpgid")
def getpgid(task: Task, pid: Int) -> int:
    """getpgid(2)."""
    return _process(task, pid).group


@call("getpgrp")
def getpgrp(task: Task) -> int:
    """getpgrp(2)."""
    return task.process.group


@call("getsid")
def getsid(task: Task, pid: Int) -> int:
    """getsid(2)."""
    return _process(task, pid).session


@call("setpgid")
def setpgid(task: Task, pid: Int, group: Int) -> int:
    """setpgid(2)."""
    if group < 0:
        raise OSError(errno.EINVAL, "")
    own, process = task.process, _process(task, pid)
    group = group or process.pid
    if process is not own:
        if process.parent is not own:
            raise OSError(errno.ESRCH, "")
        if process.session != own.session:
            raise OSError(errno.EPERM, "")
        if process.has_execed:
            raise OSError(errno.EACCES, "")
    if process.session == process.pid:
        raise OSError(errno.EPERM, "")
    if group != process.pid and not any(
        other.group == group and other.session == own.session for other in task.kernel.processes.values()
    ):
        raise OSError(errno.EPERM, "")
    old, process.group = process.group, group
    if old != group:
        job_control.hang_up_if_orphaned(task.kernel, old)
    return 0


@call("setsid")
def setsid(task: Task) -> int:
    """setsid(2)."""
    process = task.process
    if any(other.group == process.pid for other in task.kernel.processes.values()):
        raise OSError(errno.EPERM, "")
    process.session = process.group = process.pid
    process.terminal = None
    return process.pid
