"""Waiting for children: wait4(2) and waitid(2)."""

import errno
import os
from struct import Struct
from typing import Final

from virtus.personalities.linux import accounting, lifecycle, siginfo
from virtus.personalities.linux.blocking import Blocking, Wait
from virtus.personalities.linux.job_control import SIGCHLD
from virtus.personalities.linux.table import Int, Word, call
from virtus.personalities.linux.task import Process, Task

WNOHANG: Final = 1  # include/uapi/linux/wait.h
WSTOPPED: Final = 2  # wait4(2) calls it WUNTRACED
WEXITED: Final = 4
WCONTINUED: Final = 8
WNOWAIT: Final = 0x01000000
WNOTHREAD: Final = 0x20000000  # __WNOTHREAD
WALL: Final = 0x40000000  # __WALL
WCLONE: Final = 0x80000000  # __WCLONE
P_ALL, P_PID, P_PGID, P_PIDFD = range(4)
STOPPED_STATUS: Final = 0x7F
CONTINUED_STATUS: Final = 0xFFFF

_RUSAGE = Struct("<18q")  # struct rusage, include/uapi/linux/resource.h
_INFO = Struct("<iii4xiIi")  # the part of siginfo_t that waitid(2) writes


class Change:
    """A child's change of state, as both calls report it."""

    __slots__ = ("child", "code", "status", "value")

    def __init__(self, child: Process, code: int, value: int, status: int) -> None:
        self.child, self.code, self.value, self.status = child, code, value, status


def _matches(child: Process, kind: int, number: int, options: int) -> bool:
    if (kind == P_PID and child.pid != number) or (kind == P_PGID and child.group != number):
        return False
    return bool(options & WALL) or (child.exit_signal != SIGCHLD) == bool(options & WCLONE)


def _change(child: Process, options: int) -> Change | None:
    """What there is to report of a child; it is reported once, unless WNOWAIT."""
    keep = options & WNOWAIT
    status = child.exit_status
    if status is not None:
        if not options & WEXITED:
            return None
        number = status & lifecycle.SIGNAL_BITS
        code = siginfo.CLD_KILLED if number else siginfo.CLD_EXITED
        if status & lifecycle.CORE_BIT:
            code = siginfo.CLD_DUMPED
        return Change(child, code, number or status >> 8, status)
    if child.stopped_by and not child.stop_reported and options & WSTOPPED:
        child.stop_reported = not keep
        return Change(child, siginfo.CLD_STOPPED, child.stopped_by, child.stopped_by << 8 | STOPPED_STATUS)
    if child.continued and options & WCONTINUED:
        child.continued = bool(keep)
        return Change(child, siginfo.CLD_CONTINUED, 18, CONTINUED_STATUS)
    return None


def _look(task: Task, kind: int, number: int, options: int) -> Change | None:
    """A change to report now, or None; raises ECHILD when there never will be one."""
    process = task.process
    children = [child for child in process.children.values() if _matches(child, kind, number, options)]
    if not children:
        raise OSError(errno.ECHILD, "")
    for child in children:
        change = _change(child, options)
        if change is not None:
            return change
    return None


def _usage(child: Process) -> bytes:
    user, system = child.user_us + child.children_user_us, child.system_us + child.children_system_us
    peak = max(child.max_rss_kib, child.children_max_rss_kib)
    return _RUSAGE.pack(*divmod(user, 1_000_000), *divmod(system, 1_000_000), peak, *(0,) * 13)


def _reap(task: Task, change: Change, options: int) -> None:
    """The zombie is waited for: its account goes to the parent, and its number is free."""
    if change.child.exit_status is not None and not options & WNOWAIT:
        accounting.inherit(task.process, change.child)
        lifecycle.forget(change.child)


@call("wait4")
def wait4(task: Task, pid: Int, address: Word, options: Int, usage: Word) -> "int | Blocking":
    """wait4(2)."""
    options &= 0xFFFFFFFF
    if options & ~(WNOHANG | WSTOPPED | WCONTINUED | WNOTHREAD | WALL | WCLONE):
        raise OSError(errno.EINVAL, "")
    if pid == -(1 << 31):
        raise OSError(errno.ESRCH, "")
    options |= WEXITED
    kind, number = P_PID, pid
    if pid == -1:
        kind = P_ALL
    elif pid <= 0:
        kind, number = P_PGID, -pid or task.process.group
    change = _look(task, kind, number, options)
    if change is not None:
        return _report4(task, change, address, options, usage)
    return 0 if options & WNOHANG else _await4(task, kind, number, address, options, usage)


def _await4(task: Task, kind: int, number: int, address: int, options: int, usage: int) -> Blocking:
    queue = task.process.child_events
    while True:
        yield Wait(queues=(queue,))
        change = _look(task, kind, number, options)
        if change is not None:
            return _report4(task, change, address, options, usage)


def _report4(task: Task, change: Change, address: int, options: int, usage: int) -> int:
    _reap(task, change, options)
    if address:
        task.write(address, change.status.to_bytes(4, "little"))
    if usage:
        task.write(usage, _usage(change.child))
    return change.child.pid


@call("waitid")
def waitid(task: Task, kind: Int, number: Int, info: Word, options: Int, usage: Word) -> "int | Blocking":
    """waitid(2)."""
    options &= 0xFFFFFFFF
    known = WNOHANG | WSTOPPED | WEXITED | WCONTINUED | WNOWAIT | WNOTHREAD | WALL | WCLONE
    if options & ~known or not options & (WEXITED | WSTOPPED | WCONTINUED):
        raise OSError(errno.EINVAL, "")
    hang = not options & WNOHANG
    nonblocking_pidfd = False
    if kind == P_PID:
        if number <= 0:
            raise OSError(errno.EINVAL, "")
    elif kind == P_PGID:
        if number < 0:
            raise OSError(errno.EINVAL, "")
        number = number or task.process.group
    elif kind == P_PIDFD:
        if number < 0:
            raise OSError(errno.EINVAL, "")
        file = task.descriptors.get(number)
        process = getattr(file, "process", None)
        if not isinstance(process, Process):
            raise OSError(errno.EBADF, "")
        nonblocking_pidfd = bool(file.flags & os.O_NONBLOCK)
        kind, number = P_PID, process.pid
    elif kind != P_ALL:
        raise OSError(errno.EINVAL, "")
    change = _look(task, kind, number, options)
    if change is None and hang:
        if nonblocking_pidfd:
            raise OSError(errno.EAGAIN, "")
        return _await_id(task, kind, number, info, options, usage)
    return _report_id(task, change, info, options, usage)


def _await_id(task: Task, kind: int, number: int, info: int, options: int, usage: int) -> Blocking:
    queue = task.process.child_events
    while True:
        yield Wait(queues=(queue,))
        change = _look(task, kind, number, options)
        if change is not None:
            return _report_id(task, change, info, options, usage)


def _report_id(task: Task, change: Change | None, info: int, options: int, usage: int) -> int:
    row = bytes(_INFO.size)
    if change is not None:
        credentials = accounting.credentials_of(change.child)
        uid = credentials.uid if credentials else 0
        row = _INFO.pack(SIGCHLD, 0, change.code, change.child.pid, uid, change.value)
        _reap(task, change, options)
        if usage:
            task.write(usage, _usage(change.child))
    if info:
        task.write(info, row)
    return 0
