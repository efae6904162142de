"""System V shared memory: each segment is a memfd of the kernel's, mapped into guests by injection."""

import errno
import mmap
import os
from struct import Struct
from typing import Final
from weakref import WeakKeyDictionary

from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux import placement
from virtus.personalities.linux.ipc import (
    IPC_INFO,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    READ,
    WRITE,
    Permission,
    Registry,
    now,
)
from virtus.personalities.linux.memory_calls import MAP_FIXED_NOREPLACE, check_range
from virtus.personalities.linux.table import Int, Word, call
from virtus.personalities.linux.task import PAGE, Memory, Task

# include/uapi/linux/shm.h
SHM_RDONLY: Final = 0o10000
SHM_RND: Final = 0o20000
SHM_REMAP: Final = 0o40000
SHM_EXEC: Final = 0o100000
SHM_LOCK, SHM_UNLOCK, SHM_STAT, SHM_INFO, SHM_STAT_ANY = 11, 12, 13, 14, 15
SHM_DEST: Final = 0o1000
SHM_LOCKED: Final = 0o2000
SHMMNI: Final = 4096
SHMMAX: Final = 2**64 - 1 - (1 << 24)
SHMALL: Final = SHMMAX // PAGE
SHMID_DS: Final = Struct("<Q3qiiQ16x")  # after ipc64_perm: segsz, atime, dtime, ctime, cpid, lpid, nattch
SHMINFO: Final = Struct("<5Q32x")
SHM_INFO_STRUCT: Final = Struct("<ixxxx5Q")


class Segment:
    """One segment; it lives until it is removed and nobody has it attached."""

    def __init__(self, task: Task, key: int, mode: int, size: int) -> None:
        self.permission = Permission(task, key, mode)
        self.size = size
        self.host = os.memfd_create("SYSV", os.MFD_CLOEXEC)
        os.ftruncate(self.host, -(-size // PAGE) * PAGE)
        self.created_by, self.last_by = task.process.pid, 0
        self.attached_at = self.detached_at = 0
        self.changed_at = now()

    def pack(self, attached: int) -> bytes:
        """struct shmid64_ds."""
        return self.permission.pack() + SHMID_DS.pack(
            self.size, self.attached_at, self.detached_at, self.changed_at, self.created_by, self.last_by, attached
        )


_segments: WeakKeyDictionary[object, Registry[Segment]] = WeakKeyDictionary()


def _registry(task: Task) -> Registry[Segment]:
    registry = _segments.get(task.kernel)
    if registry is None:
        registry = _segments[task.kernel] = Registry(SHMMNI)
    return registry


def _attachments(task: Task) -> dict[int, int]:
    """How often each segment (by id()) is attached, over all address spaces: nobody has to keep count at fork, exec
    and exit."""
    counts: dict[int, int] = {}
    memories: set[Memory] = {other.memory for other in task.kernel.tasks.values()}
    for memory in memories:
        for segment in memory.attached.values():
            counts[id(segment)] = counts.get(id(segment), 0) + 1
    return counts


def _sweep(task: Task) -> dict[int, int]:
    """Destroy what is removed and no longer attached; the attachments of the rest."""
    counts = _attachments(task)
    registry = _registry(task)
    for identifier, segment in registry.items():
        if segment.permission.mode & SHM_DEST and not counts.get(id(segment)):
            registry.remove(identifier)
            os.close(segment.host)
            segment.host = -1
    return counts


@call("shmget", note="without huge pages")
def shmget(task: Task, key: Int, size: Word, flags: Int) -> int:
    """shmget(2)."""
    _sweep(task)
    registry = _registry(task)
    found = registry.open(task, key, flags)
    if found is not None:
        if size > found[1].size:
            raise OSError(errno.EINVAL, "")
        return found[0]
    if not 1 <= size <= SHMMAX:
        raise OSError(errno.EINVAL, "")
    try:
        segment = Segment(task, key, flags, size)
    except (OSError, OverflowError):
        raise OSError(errno.ENOSPC, "") from None
    return registry.add(segment)


@call("shmat")
def shmat(task: Task, identifier: Int, address: Word, flags: Int) -> int:
    """shmat(2): the address."""
    segment = _registry(task).get(identifier)
    segment.permission.check(task, READ if flags & SHM_RDONLY else READ | WRITE)
    if address % PAGE:
        if not flags & SHM_RND:
            raise OSError(errno.EINVAL, "")
        address &= -PAGE
    size = -(-segment.size // PAGE) * PAGE
    mapping = mmap.MAP_SHARED
    if address:
        check_range(task, address, size)
        mapping |= 0x10 if flags & SHM_REMAP else MAP_FIXED_NOREPLACE
    elif flags & SHM_REMAP:
        raise OSError(errno.EINVAL, "")
    protection = mmap.PROT_READ if flags & SHM_RDONLY else mmap.PROT_READ | mmap.PROT_WRITE
    if flags & SHM_EXEC:
        protection |= mmap.PROT_EXEC
    result = placement.map_memory(task, address, size, protection, mapping, segment.host, 0)
    if -4095 <= result < 0:
        raise OSError(errno.EINVAL if -result == errno.EEXIST else -result, "")
    task.memory.attached[result] = segment
    segment.attached_at, segment.last_by = now(), task.process.pid
    return result


@call("shmdt")
def shmdt(task: Task, address: Word) -> int:
    """shmdt(2)."""
    segment = task.memory.attached.pop(address, None)
    if segment is None:
        raise OSError(errno.EINVAL, "")
    task.context.inject(NUMBERS["munmap"], address, -(-segment.size // PAGE) * PAGE)
    segment.detached_at, segment.last_by = now(), task.process.pid
    _sweep(task)
    return 0


@call("shmctl", note="SHM_LOCK marks only: the memory stays pageable")
def shmctl(task: Task, identifier: Int, command: Int, address: Word) -> int:
    """shmctl(2)."""
    counts = _sweep(task)
    registry = _registry(task)
    if command == IPC_INFO:
        task.write(address, SHMINFO.pack(SHMMAX, 1, SHMMNI, SHMMNI, SHMALL))
        return registry.highest
    if command == SHM_INFO:
        rows = registry.items()
        pages = sum(-(-segment.size // PAGE) for _, segment in rows)
        task.write(address, SHM_INFO_STRUCT.pack(len(rows), pages, pages, 0, 0, 0))
        return registry.highest
    if command in (SHM_STAT, SHM_STAT_ANY):
        identifier, segment = registry.at(identifier)
    else:
        segment = registry.get(identifier)
    permission = segment.permission
    if command in (IPC_STAT, SHM_STAT, SHM_STAT_ANY):
        if command != SHM_STAT_ANY:
            permission.check(task, READ)
        task.write(address, segment.pack(counts.get(id(segment), 0)))
        return 0 if command == IPC_STAT else identifier
    if command not in (IPC_RMID, IPC_SET, SHM_LOCK, SHM_UNLOCK):
        raise OSError(errno.EINVAL, "")
    permission.check_owner(task)
    if command == IPC_SET:
        permission.change(task.read(address, 48))
        segment.changed_at = now()
    elif command == IPC_RMID:
        permission.mode |= SHM_DEST
        permission.key = 0
        _sweep(task)
    elif command == SHM_LOCK:
        permission.mode |= SHM_LOCKED
    else:
        permission.mode &= ~SHM_LOCKED
    return 0
