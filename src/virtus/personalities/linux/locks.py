"""File locks: POSIX record locks are kept here; flock(2) and open-file-description locks are the host's.

The host's record locks belong to a process, and every guest process is the same host process when it comes to files;
so the kernel keeps them by inode and by table of descriptors (fcntl(2): a lock belongs to the process, and ends when
any descriptor of the file is closed). The other two kinds belong to an open file description, and each description of
a guest is one of the host's: they are asked of the host, without waiting.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from virtus.personalities.linux.blocking import Blocking, Wait, WaitQueue, after

if TYPE_CHECKING:
    from virtus.personalities.linux.files import File
    from virtus.personalities.linux.task import Task

F_RDLCK: Final = 0  # include/uapi/asm-generic/fcntl.h
F_WRLCK: Final = 1
F_UNLCK: Final = 2
F_OFD_GETLK: Final = 36
F_OFD_SETLK: Final = 37
FLOCK: Final = struct.Struct("<hh4xqqi4x")  # struct flock: type, whence, start, length, pid
END: Final = 2**63 - 1  # OFFSET_MAX
RETRY_NS: Final = 20_000_000
"""How soon a lock of the host is asked for again when nobody here has released one: its holder may be outside."""


class Lock:
    """A range [start, end] of one file, both inclusive."""

    __slots__ = ("end", "kind", "owner", "pid", "start")

    def __init__(self, owner: object, pid: int, kind: int, start: int, end: int) -> None:
        self.owner, self.pid, self.kind, self.start, self.end = owner, pid, kind, start, end


Inode = tuple[int, int]
held: dict[Inode, list[Lock]] = {}
"""Every record lock of the machine, by (device, inode)."""
released = WaitQueue()
"""Woken when any lock has gone."""
_waiting: dict[object, tuple[Inode, Lock]] = {}  # owners that wait, with what they want: for deadlocks


def conflict(inode: Inode, wanted: Lock) -> Lock | None:
    """The first lock of somebody else that stands in the way."""
    for lock in held.get(inode, ()):
        if (
            lock.owner is not wanted.owner
            and lock.start <= wanted.end
            and wanted.start <= lock.end
            and (lock.kind == F_WRLCK or wanted.kind == F_WRLCK)
        ):
            return lock
    return None


def change(inode: Inode, wanted: Lock) -> None:
    """Give the range `wanted.kind` (F_UNLCK removes): the owner's locks are cut, and equal neighbours joined."""
    kept: list[Lock] = []
    gone = False
    start, end = wanted.start, wanted.end
    for lock in held.get(inode, ()):
        if lock.owner is not wanted.owner:
            kept.append(lock)
            continue
        if lock.kind == wanted.kind and lock.start <= end + 1 and start <= lock.end + 1:
            start, end = min(start, lock.start), max(end, lock.end)
            continue
        if lock.end < wanted.start or lock.start > wanted.end:
            kept.append(lock)
            continue
        gone = True
        if lock.start < wanted.start:
            kept.append(Lock(lock.owner, lock.pid, lock.kind, lock.start, wanted.start - 1))
        if lock.end > wanted.end:
            kept.append(Lock(lock.owner, lock.pid, lock.kind, wanted.end + 1, lock.end))
    if wanted.kind != F_UNLCK:
        kept.append(Lock(wanted.owner, wanted.pid, wanted.kind, start, end))
    if kept:
        held[inode] = sorted(kept, key=lambda lock: lock.start)
    else:
        held.pop(inode, None)
    if gone:
        released.wake()


def release(owner: object, status: os.stat_result) -> None:
    """A descriptor of the file is closed: all the owner's locks on it end."""
    inode = (status.st_dev, status.st_ino)
    if inode in held:
        change(inode, Lock(owner, 0, F_UNLCK, 0, END))


def would_deadlock(inode: Inode, wanted: Lock) -> bool:
    """Whether the holder in the way waits, directly or through others, for this owner."""
    seen: set[int] = set()
    blocker = conflict(inode, wanted)
    while blocker is not None and id(blocker.owner) not in seen:
        if blocker.owner is wanted.owner:
            return True
        seen.add(id(blocker.owner))
        waits = _waiting.get(blocker.owner)
        blocker = conflict(*waits) if waits is not None else None
    return False


def parse(task: "Task", file: "File", address: int) -> Lock:
    """The guest's struct flock as a range; raises EINVAL and EOVERFLOW as Linux (flock64_to_posix_lock)."""
    kind, whence, start, length, _ = FLOCK.unpack(task.read(address, FLOCK.size))
    if kind not in (F_RDLCK, F_WRLCK, F_UNLCK):
        raise OSError(errno.EINVAL, "")
    if whence == os.SEEK_CUR:
        start += file.seek(0, os.SEEK_CUR)
    elif whence == os.SEEK_END:
        start += file.stat().st_size
    elif whence != os.SEEK_SET:
        raise OSError(errno.EINVAL, "")
    if start > END or start + max(length - 1, 0) > END:
        raise OSError(errno.EOVERFLOW, "")
    if length > 0:
        end = start + length - 1
    elif length < 0:
        start, end = start + length, start - 1
    else:
        end = END
    if start < 0:
        raise OSError(errno.EINVAL, "")
    return Lock(task.descriptors, task.process.pid, kind, start, end)


def get_lock(task: "Task", file: "File", address: int) -> int:
    """fcntl(F_GETLK): the lock in the way, or F_UNLCK."""
    wanted = parse(task, file, address)
    if wanted.kind == F_UNLCK:
        raise OSError(errno.EINVAL, "")
    status = file.stat()
    found = conflict((status.st_dev, status.st_ino), wanted)
    if found is None:
        task.write(address, struct.pack("<h", F_UNLCK))
    else:
        length = 0 if found.end == END else found.end - found.start + 1
        task.write(address, FLOCK.pack(found.kind, os.SEEK_SET, found.start, length, found.pid))
    return 0


def set_lock(task: "Task", file: "File", address: int, *, wait: bool) -> int | Blocking:
    """fcntl(F_SETLK, F_SETLKW)."""
    wanted = parse(task, file, address)
    if (wanted.kind == F_RDLCK and not file.readable) or (wanted.kind == F_WRLCK and not file.writable):
        raise OSError(errno.EBADF, "")
    status = file.stat()
    inode = (status.st_dev, status.st_ino)
    if wanted.kind != F_UNLCK and conflict(inode, wanted) is not None:
        if not wait:
            raise OSError(errno.EAGAIN, "")
        return _set_waiting(inode, wanted)
    change(inode, wanted)
    return 0


def _set_waiting(inode: Inode, wanted: Lock) -> Blocking:
    try:
        while conflict(inode, wanted) is not None:
            if would_deadlock(inode, wanted):
                raise OSError(errno.EDEADLK, "")
            _waiting[wanted.owner] = (inode, wanted)
            yield Wait(queues=(released,))
        change(inode, wanted)
        return 0
    finally:
        _waiting.pop(wanted.owner, None)


def host_lock(file: Any, ask: Callable[[], None], *, wait: bool) -> int | Blocking:
    """Take a lock that belongs to the open file description: `ask` asks the host and raises BlockingIOError."""
    try:
        ask()
    except BlockingIOError:
        if not wait:
            raise
        return _host_waiting(file, ask)
    file.locked = True
    return 0


def _host_waiting(file: Any, ask: Callable[[], None]) -> Blocking:
    while True:
        yield Wait(queues=(released,), deadline=after(RETRY_NS))
        try:
            ask()
        except BlockingIOError:
            continue
        file.locked = True
        return 0


def description_lock(task: "Task", file: "File", address: int, *, wait: bool) -> int | Blocking:
    """fcntl(F_OFD_SETLK, F_OFD_SETLKW)."""
    raw = task.read(address, FLOCK.size)
    kind, _, _, _, pid = FLOCK.unpack(raw)
    if pid:
        raise OSError(errno.EINVAL, "")

    def ask() -> None:
        fcntl.fcntl(file.host, F_OFD_SETLK, raw)

    result = host_lock(file, ask, wait=wait)
    if kind == F_UNLCK:
        released.wake()
    return result


def get_description_lock(task: "Task", file: "File", address: int) -> int:
    """fcntl(F_OFD_GETLK)."""
    answer = fcntl.fcntl(file.host, F_OFD_GETLK, task.read(address, FLOCK.size))
    task.write(address, answer)
    return 0


def flock(file: "File", operation: int) -> int | Blocking:
    """flock(2)."""
    kind = operation & ~fcntl.LOCK_NB
    if kind not in (fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN):
        raise OSError(errno.EINVAL, "")

    def ask() -> None:
        fcntl.flock(file.host, kind | fcntl.LOCK_NB)

    result = host_lock(file, ask, wait=not operation & fcntl.LOCK_NB)
    if kind != fcntl.LOCK_EX:  # unlocked, or weakened: others may go on
        released.wake()
    return result
