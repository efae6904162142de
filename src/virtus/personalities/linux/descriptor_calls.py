"""System calls on descriptors and on what is set for an open file: dup, close, fcntl, ioctl, flock."""

import errno
import fcntl as host_fcntl
import os
import struct
from typing import Final
from weakref import WeakKeyDictionary

from virtus.personalities.linux import lifecycle, locks
from virtus.personalities.linux.blocking import Blocking
from virtus.personalities.linux.files import STATUS_FLAGS, File
from virtus.personalities.linux.regular import HostFile
from virtus.personalities.linux.table import Int, Uint, Word, call
from virtus.personalities.linux.task import Task

RLIMIT_NOFILE: Final = 7
CLOSE_RANGE_UNSHARE, CLOSE_RANGE_CLOEXEC = 2, 4  # include/uapi/linux/close_range.h
FD_CLOEXEC: Final = 1
F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL = 0, 1, 2, 3, 4  # include/uapi/asm-generic/fcntl.h
F_GETLK, F_SETLK, F_SETLKW, F_SETOWN, F_GETOWN, F_SETSIG, F_GETSIG = 5, 6, 7, 8, 9, 10, 11
F_SETOWN_EX, F_GETOWN_EX, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 15, 16, 36, 37, 38
F_SETLEASE, F_GETLEASE, F_NOTIFY = 1024, 1025, 1026  # include/uapi/linux/fcntl.h
F_DUPFD_QUERY, F_DUPFD_CLOEXEC = 1027, 1030
F_SETPIPE_SZ, F_GETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS = 1031, 1032, 1033, 1034
ALLOWED_ON_PATHS: Final = frozenset({F_DUPFD, F_DUPFD_CLOEXEC, F_DUPFD_QUERY, F_GETFD, F_SETFD, F_GETFL})
DN_MULTISHOT: Final = 0x80000000
PIPE_SIZE_MOST: Final = 1 << 31
FIONCLEX, FIOCLEX, FIONBIO, FIOASYNC = 0x5450, 0x5451, 0x5421, 0x5452  # include/uapi/asm-generic/ioctls.h
_OWNER: Final = struct.Struct("<ii")  # struct f_owner_ex

_owners: WeakKeyDictionary[File, tuple[int, int]] = WeakKeyDictionary()  # (type, id) for SIGIO: kept, never sent
_signals: WeakKeyDictionary[File, int] = WeakKeyDictionary()


@call("close")
def close(task: Task, fd: Int) -> int:
    """close(2)."""
    task.descriptors.close(task, fd)
    return 0


@call("close_range")
def close_range(task: Task, first: Uint, last: Uint, flags: Uint) -> int:
    """close_range(2)."""
    if flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) or first > last:
        return -errno.EINVAL
    if flags & CLOSE_RANGE_UNSHARE:
        task.descriptors = lifecycle.own_descriptors(task)
    descriptors = task.descriptors
    for fd in [fd for fd in descriptors if first <= fd <= last]:
        if flags & CLOSE_RANGE_CLOEXEC:
            descriptors.close_on_exec.add(fd)
        else:
            descriptors.close(task, fd)
    return 0


@call("dup")
def dup(task: Task, fd: Int) -> int:
    """dup(2)."""
    return task.descriptors.add(task.descriptors.get(fd), task.limit(RLIMIT_NOFILE))


def _duplicate_to(task: Task, old: int, new: int, *, close_on_exec: bool) -> int:
    file = task.descriptors.get(old)
    if not 0 <= new < task.limit(RLIMIT_NOFILE):
        return -errno.EBADF
    file.hold()  # it may be what is closed here
    if new in task.descriptors.files:
        task.descriptors.close(task, new)
    task.descriptors.put(new, file, close_on_exec=close_on_exec)
    file.drop()
    return new


@call("dup2")
def dup2(task: Task, old: Int, new: Int) -> int:
    """dup2(2)."""
    if old == new:
        task.descriptors.get(old)
        return new
    return _duplicate_to(task, old, new, close_on_exec=False)


@call("dup3")
def dup3(task: Task, old: Int, new: Int, flags: Int) -> int:
    """dup3(2)."""
    if flags & ~os.O_CLOEXEC or old == new:
        return -errno.EINVAL
    return _duplicate_to(task, old, new, close_on_exec=bool(flags & os.O_CLOEXEC))


@call("flock")
def flock(task: Task, fd: Int, operation: Int) -> int | Blocking:
    """flock(2)."""
    file = task.descriptors.get(fd)
    if file.flags & os.O_PATH:
        return -errno.EBADF
    return locks.flock(file, operation)


def set_status(file: File, flags: int) -> None:
    """Change an open file's status flags (F_SETFL, FIONBIO)."""
    kept = file.flags & ~STATUS_FLAGS | flags & STATUS_FLAGS
    if isinstance(file, HostFile):
        file.set_status(kept)
    else:
        file.flags = kept


@call("fcntl", note="no leases; SIGIO owners are remembered and never signalled; F_NOTIFY only to end it")
def fcntl(task: Task, fd: Int, command: Int, argument: Word) -> int | Blocking:
    """fcntl(2)."""
    descriptors = task.descriptors
    file = descriptors.get(fd)
    if file.flags & os.O_PATH and command not in ALLOWED_ON_PATHS:
        return -errno.EBADF
    number = (argument & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
    if command == F_GETFD:
        return int(fd in descriptors.close_on_exec)
    if command == F_SETFD:
        if number & FD_CLOEXEC:
            descriptors.close_on_exec.add(fd)
        else:
            descriptors.close_on_exec.discard(fd)
        return 0
    if command == F_GETFL:
        return file.flags
    if command == F_SETFL:
        set_status(file, number)
        return 0
    if command in (F_DUPFD, F_DUPFD_CLOEXEC):
        limit = task.limit(RLIMIT_NOFILE)
        if not 0 <= number < limit:
            return -errno.EINVAL
        return descriptors.add(file, limit, close_on_exec=command == F_DUPFD_CLOEXEC, start=number)
    if command == F_DUPFD_QUERY:
        return int(descriptors.get(number) is file)
    if command in (F_SETLK, F_SETLKW):
        return locks.set_lock(task, file, argument, wait=command == F_SETLKW)
    if command == F_GETLK:
        return locks.get_lock(task, file, argument)
    if command in (F_OFD_SETLK, F_OFD_SETLKW):
        return locks.description_lock(task, file, argument, wait=command == F_OFD_SETLKW)
    if command == F_OFD_GETLK:
        return locks.get_description_lock(task, file, argument)
    if command in (F_SETPIPE_SZ, F_GETPIPE_SZ):
        return _pipe_size(file, command, argument)
    if command in (F_ADD_SEALS, F_GET_SEALS):
        return host_fcntl.fcntl(_on_host(file), command, number)
    if command in (F_SETOWN, F_GETOWN, F_SETOWN_EX, F_GETOWN_EX, F_SETSIG, F_GETSIG):
        return _ownership(task, file, command, argument, number)
    if command == F_NOTIFY and not number & 0x7FFFFFFF:
        return 0
    if command == F_GETLEASE:
        return locks.F_UNLCK
    if command == F_SETLEASE:
        task.kernel.meter.note("fcntl(F_SETLEASE) refused: there are no leases")
        return -errno.EAGAIN
    return -errno.EINVAL


def _on_host(file: File) -> int:
    if file.host < 0:
        raise OSError(errno.EINVAL, "")
    return file.host


def _pipe_size(file: File, command: int, size: int) -> int:
    if file.kind != "pipe":
        return -errno.EBADF
    if command == F_GETPIPE_SZ:
        return host_fcntl.fcntl(file.host, F_GETPIPE_SZ)
    if not 0 < size < PIPE_SIZE_MOST:
        return -errno.EINVAL
    return host_fcntl.fcntl(file.host, F_SETPIPE_SZ, size)


def _ownership(task: Task, file: File, command: int, argument: int, number: int) -> int:
    kind, ident = _owners.get(file, (1, 0))  # F_OWNER_PID
    if command == F_SETOWN:
        _owners[file] = (2, -number) if number < 0 else (1, number)
    elif command == F_GETOWN:
        return -ident if kind == 2 else ident
    elif command == F_SETOWN_EX:
        kind, ident = _OWNER.unpack(task.read(argument, _OWNER.size))
        if kind not in (0, 1, 2):
            return -errno.EINVAL
        _owners[file] = (kind, ident)
    elif command == F_GETOWN_EX:
        task.write(argument, _OWNER.pack(kind, ident))
    elif command == F_SETSIG:
        if not 0 <= number <= 64:
            return -errno.EINVAL
        _signals[file] = number
    else:
        return _signals.get(file, 0)
    return 0


@call("ioctl", note="each kind of file answers its own requests; the rest is ENOTTY")
def ioctl(task: Task, fd: Int, request: Uint, argument: Word) -> int | Blocking:
    """ioctl(2)."""
    descriptors = task.descriptors
    file = descriptors.get(fd)
    if file.flags & os.O_PATH:
        return -errno.EBADF
    if request == FIOCLEX:
        descriptors.close_on_exec.add(fd)
        return 0
    if request == FIONCLEX:
        descriptors.close_on_exec.discard(fd)
        return 0
    if request in (FIONBIO, FIOASYNC):
        on = struct.unpack("<i", task.read(argument, 4))[0]
        flag = os.O_NONBLOCK if request == FIONBIO else os.O_ASYNC
        set_status(file, file.flags | flag if on else file.flags & ~flag)
        return 0
    return file.ioctl(task, request, argument)
