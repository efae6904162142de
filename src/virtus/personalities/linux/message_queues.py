"""System V message queues."""

import errno
from collections import deque
from struct import Struct
from typing import Final
from weakref import WeakKeyDictionary

from virtus.personalities.linux.blocking import Blocking, Wait, WaitQueue
from virtus.personalities.linux.ipc import (
    IDENTIFIERS_MAX,
    IPC_INFO,
    IPC_NOWAIT,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    READ,
    WRITE,
    Permission,
    Registry,
    now,
)
from virtus.personalities.linux.table import Int, Long, Word, call
from virtus.personalities.linux.task import Task

# include/uapi/linux/msg.h
MSG_NOERROR: Final = 0o10000
MSG_EXCEPT: Final = 0o20000
MSG_COPY: Final = 0o40000
MSG_STAT, MSG_INFO, MSG_STAT_ANY = 11, 12, 13
MSGMAX: Final = 8192
MSGMNB: Final = 16384
MSQID_DS: Final = Struct("<3q3Qii16x")  # after ipc64_perm: stime, rtime, ctime, cbytes, qnum, qbytes, lspid, lrpid
MSGINFO: Final = Struct("<7iHxx")
TYPE: Final = Struct("<q")
CAP_SYS_RESOURCE: Final = 1 << 24


class MessageQueue:
    """One queue."""

    def __init__(self, task: Task, key: int, mode: int) -> None:
        self.permission = Permission(task, key, mode)
        self.messages: deque[tuple[int, bytes]] = deque()
        self.bytes = 0
        self.bytes_max = MSGMNB
        self.changed = WaitQueue()
        self.sent_at = self.received_at = 0
        self.changed_at = now()
        self.sent_by = self.received_by = 0
        self.removed = False

    def pack(self) -> bytes:
        """struct msqid64_ds."""
        return self.permission.pack() + MSQID_DS.pack(
            self.sent_at, self.received_at, self.changed_at, self.bytes, len(self.messages), self.bytes_max,
            self.sent_by, self.received_by,
        )  # fmt: skip

    def send(self, task: Task, kind: int, text: bytes) -> bool:
        """Queue a message; False when there is no room."""
        if self.bytes + len(text) > self.bytes_max or len(self.messages) >= self.bytes_max:
            return False
        self.messages.append((kind, text))
        self.bytes += len(text)
        self.sent_at, self.sent_by = now(), task.process.pid
        self.changed.wake()
        return True

    def find(self, kind: int, flags: int) -> int | None:
        """Which message msgrcv(2) is to have: the first, of a type, not of it, or of the lowest type up to one."""
        if flags & MSG_COPY:
            return kind if 0 <= kind < len(self.messages) else None
        if kind == 0:
            return 0 if self.messages else None
        best: int | None = None
        for at, (found, _) in enumerate(self.messages):
            if kind > 0:
                if (found == kind) != bool(flags & MSG_EXCEPT):
                    return at
            elif found <= -kind and (best is None or found < self.messages[best][0]):
                best = at
        return best

    def receive(self, task: Task, address: int, size: int, kind: int, flags: int) -> int | None:
        """Hand a message over; its length, or None when there is none. Raises E2BIG."""
        at = self.find(kind, flags)
        if at is None:
            return None
        found, text = self.messages[at]
        if len(text) > size:
            if not flags & MSG_NOERROR:
                raise OSError(errno.E2BIG, "")
            text = text[:size]
        task.write(address, TYPE.pack(found) + text)
        if not flags & MSG_COPY:
            self.bytes -= len(self.messages[at][1])
            del self.messages[at]
            self.received_at, self.received_by = now(), task.process.pid
            self.changed.wake()
        return len(text)


_queues: WeakKeyDictionary[object, Registry[MessageQueue]] = WeakKeyDictionary()


def _registry(task: Task) -> Registry[MessageQueue]:
    registry = _queues.get(task.kernel)
    if registry is None:
        registry = _queues[task.kernel] = Registry(IDENTIFIERS_MAX)
    return registry


@call("msgget")
def msgget(task: Task, key: Int, flags: Int) -> int:
    """msgget(2)."""
    registry = _registry(task)
    found = registry.open(task, key, flags)
    return found[0] if found is not None else registry.add(MessageQueue(task, key, flags))


def _changed(queue: MessageQueue) -> Wait:
    return Wait(queues=(queue.changed,), restart=False)


def _send_later(task: Task, queue: MessageQueue, kind: int, text: bytes) -> Blocking:
    while True:
        yield _changed(queue)
        if queue.removed:
            raise OSError(errno.EIDRM, "")
        if queue.send(task, kind, text):
            return 0


@call("msgsnd")
def msgsnd(task: Task, identifier: Int, address: Word, size: Word, flags: Int) -> int | Blocking:
    """msgsnd(2)."""
    if size > MSGMAX or identifier < 0:
        raise OSError(errno.EINVAL, "")
    data = task.read(address, TYPE.size + size)
    kind = TYPE.unpack_from(data)[0]
    if kind < 1:
        raise OSError(errno.EINVAL, "")
    queue = _registry(task).get(identifier)
    queue.permission.check(task, WRITE)
    if queue.send(task, kind, data[TYPE.size :]):
        return 0
    if flags & IPC_NOWAIT:
        raise OSError(errno.EAGAIN, "")
    return _send_later(task, queue, kind, data[TYPE.size :])


def _receive_later(task: Task, queue: MessageQueue, address: int, size: int, kind: int, flags: int) -> Blocking:
    while True:
        yield _changed(queue)
        if queue.removed:
            raise OSError(errno.EIDRM, "")
        got = queue.receive(task, address, size, kind, flags)
        if got is not None:
            return got


@call("msgrcv")
def msgrcv(task: Task, identifier: Int, address: Word, size: Word, kind: Long, flags: Int) -> int | Blocking:
    """msgrcv(2): the message's length."""
    if size >> 63 or identifier < 0:
        raise OSError(errno.EINVAL, "")
    if flags & MSG_COPY and (flags & MSG_EXCEPT or not flags & IPC_NOWAIT):
        raise OSError(errno.EINVAL, "")
    queue = _registry(task).get(identifier)
    queue.permission.check(task, READ)
    got = queue.receive(task, address, size, kind, flags)
    if got is not None:
        return got
    if flags & IPC_NOWAIT:
        raise OSError(errno.ENOMSG, "")
    return _receive_later(task, queue, address, size, kind, flags)


@call("msgctl")
def msgctl(task: Task, identifier: Int, command: Int, address: Word) -> int:
    """msgctl(2)."""
    registry = _registry(task)
    if command in (IPC_INFO, MSG_INFO):
        rows = registry.items()
        used = (len(rows), sum(len(found.messages) for _, found in rows), sum(found.bytes for _, found in rows))
        pool, maps, total = used if command == MSG_INFO else (IDENTIFIERS_MAX * MSGMNB // 1024, MSGMNB, MSGMNB)
        task.write(address, MSGINFO.pack(pool, maps, MSGMAX, MSGMNB, IDENTIFIERS_MAX, 16, total, 0xFFFF))
        return registry.highest
    if command in (MSG_STAT, MSG_STAT_ANY):
        identifier, queue = registry.at(identifier)
    else:
        queue = registry.get(identifier)
    permission = queue.permission
    if command in (IPC_STAT, MSG_STAT, MSG_STAT_ANY):
        if command != MSG_STAT_ANY:
            permission.check(task, READ)
        task.write(address, queue.pack())
        return 0 if command == IPC_STAT else identifier
    if command not in (IPC_RMID, IPC_SET):
        raise OSError(errno.EINVAL, "")
    permission.check_owner(task)
    if command == IPC_RMID:
        registry.remove(identifier)
        queue.removed = True
    else:
        data = task.read(address, 48 + MSQID_DS.size)
        bytes_max = MSQID_DS.unpack_from(data, 48)[5]
        if bytes_max > MSGMNB and not task.credentials.effective & CAP_SYS_RESOURCE:
            raise OSError(errno.EPERM, "")
        permission.change(data[:48])
        queue.bytes_max, queue.changed_at = bytes_max, now()
    queue.changed.wake()
    return 0
