"""What System V shared memory, semaphores and message queues have in common: keys, identifiers and permissions.

One namespace of them per machine (include/uapi/linux/ipc.h, ipc/util.c).
"""

import errno
from struct import Struct
from time import time
from typing import Final, Generic, Protocol, TypeVar

from virtus.personalities.linux.task import Task

IPC_PRIVATE: Final = 0
IPC_CREAT: Final = 0o1000
IPC_EXCL: Final = 0o2000
IPC_NOWAIT: Final = 0o4000
IPC_RMID: Final = 0
IPC_SET: Final = 1
IPC_STAT: Final = 2
IPC_INFO: Final = 3
IDENTIFIERS_MAX: Final = 32000  # SEMMNI and MSGMNI; shared memory has 4096
SEQUENCE_STEP: Final = 32768  # IPCMNI: an identifier is its slot plus so much times how often the slot was used
CAP_IPC_OWNER: Final = 1 << 15  # include/uapi/linux/capability.h
CAP_SYS_ADMIN: Final = 1 << 21
READ, WRITE = 4, 2
PERMISSION: Final = Struct("<iIIIIIHxxxxxx16x")  # struct ipc64_perm: key, uid, gid, cuid, cgid, mode, seq


class Permission:
    """Owner, creator and mode of an object."""

    __slots__ = ("cgid", "cuid", "gid", "key", "mode", "sequence", "uid")

    def __init__(self, task: Task, key: int, mode: int) -> None:
        mine = task.credentials
        self.key, self.mode, self.sequence = key, mode & 0o777, 0
        self.uid = self.cuid = mine.euid
        self.gid = self.cgid = mine.egid

    def check(self, task: Task, wanted: int) -> None:
        """Raises EACCES unless the task may do `wanted` (READ, WRITE bits)."""
        mine = task.credentials
        if mine.euid in (self.uid, self.cuid):
            granted = self.mode >> 6
        elif {mine.egid, *mine.groups} & {self.gid, self.cgid}:
            granted = self.mode >> 3
        else:
            granted = self.mode
        if wanted & ~granted & 7 and not mine.effective & CAP_IPC_OWNER:
            raise OSError(errno.EACCES, "")

    def check_owner(self, task: Task) -> None:
        """Raises EPERM unless the task may change or remove the object."""
        mine = task.credentials
        if mine.euid not in (self.uid, self.cuid) and not mine.effective & CAP_SYS_ADMIN:
            raise OSError(errno.EPERM, "")

    def pack(self) -> bytes:
        """struct ipc64_perm."""
        return PERMISSION.pack(self.key, self.uid, self.gid, self.cuid, self.cgid, self.mode, self.sequence)

    def change(self, data: bytes) -> None:
        """What IPC_SET takes over: uid, gid and the mode's permission bits."""
        _key, uid, gid, _cuid, _cgid, mode, _sequence = PERMISSION.unpack(data)
        self.uid, self.gid, self.mode = uid, gid, self.mode & ~0o777 | mode & 0o777


class Owned(Protocol):
    """An object with a permission."""

    permission: Permission


_Object = TypeVar("_Object", bound=Owned)


class Registry(Generic[_Object]):
    """The objects of one kind in one machine, by identifier and by key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._slots: dict[int, tuple[int, _Object]] = {}  # slot -> identifier, object
        self._used: dict[int, int] = {}

    def named(self, key: int) -> tuple[int, _Object] | None:
        """The object of a key that still has one."""
        if key == IPC_PRIVATE:
            return None
        for identifier, found in self._slots.values():
            if found.permission.key == key:
                return identifier, found
        return None

    def open(self, task: Task, key: int, flags: int) -> tuple[int, _Object] | None:
        """The existing object that a *get call names, None when it is to be created; raises ENOENT, EEXIST, EACCES."""
        found = self.named(key)
        if found is None:
            if key != IPC_PRIVATE and not flags & IPC_CREAT:
                raise OSError(errno.ENOENT, "")
            return None
        if flags & IPC_CREAT and flags & IPC_EXCL:
            raise OSError(errno.EEXIST, "")
        found[1].permission.check(task, (flags >> 6 | flags >> 3 | flags) & 7)
        return found

    def add(self, made: _Object) -> int:
        """Give a new object an identifier; raises ENOSPC."""
        slot = 0
        while slot in self._slots:
            slot += 1
        if slot >= self._most:
            raise OSError(errno.ENOSPC, "")
        sequence = self._used.get(slot, -1) + 1 & 0xFFFF
        self._used[slot] = made.permission.sequence = sequence
        identifier = sequence * SEQUENCE_STEP + slot & 0x7FFFFFFF
        self._slots[slot] = identifier, made
        return identifier

    def get(self, identifier: int) -> _Object:
        """Raises EINVAL for an identifier that names nothing."""
        found = self._slots.get(identifier % SEQUENCE_STEP) if identifier >= 0 else None
        if found is None or found[0] != identifier:
            raise OSError(errno.EINVAL, "")
        return found[1]

    def at(self, slot: int) -> tuple[int, _Object]:
        """By slot, as ipcs(1) lists them; raises EINVAL."""
        if slot not in self._slots:
            raise OSError(errno.EINVAL, "")
        return self._slots[slot]

    def remove(self, identifier: int) -> None:
        """Forget an object."""
        self._slots.pop(identifier % SEQUENCE_STEP, None)

    def items(self) -> list[tuple[int, _Object]]:
        """Identifiers and objects."""
        return list(self._slots.values())

    @property
    def highest(self) -> int:
        """The highest slot in use, what *_INFO returns."""
        return max(self._slots, default=0)


def now() -> int:
    """Seconds, as the *_ds structures have them."""
    return int(time())
