"""Descriptors and credentials that travel in messages of UNIX-domain sockets (unix(7), SCM_RIGHTS, SCM_CREDENTIALS).

The host's socket carries a message's bytes, but it cannot carry an open file of the guest's: what travels in its stead
is the reading end of a pipe of its own, by whose inode the file is found again at the other side. When no such end is
left (received, or lost with the queue it stood in), the writing end reports an error, and the file's reference goes.
"""

import errno
import os
import select
from collections import OrderedDict
from collections.abc import Iterator
from struct import Struct, pack, unpack
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from virtus.personalities.linux.files import File

if TYPE_CHECKING:
    from virtus.personalities.linux.kernel import Kernel
    from virtus.personalities.linux.sockets import SocketFile
    from virtus.personalities.linux.task import Task

SOL_SOCKET: Final = 1  # include/uapi/asm-generic/socket.h
SCM_RIGHTS: Final = 1  # include/linux/socket.h
SCM_CREDENTIALS: Final = 2
SCM_MAX_FD: Final = 253  # include/net/scm.h
MSG_CTRUNC: Final = 8
HEADER: Final = Struct("<Qii")  # struct cmsghdr: length with the header, level, type
CREDENTIALS: Final = Struct("<iII")  # struct ucred: pid, uid, gid
REMEMBERED: Final = 4096
"""Senders whose process number is remembered after their end, for messages still on their way."""


class Control(NamedTuple):
    """One control message."""

    level: int
    kind: int
    data: bytes


def aligned(size: int) -> int:
    """CMSG_ALIGN."""
    return size + 7 & ~7


def parse(raw: bytes) -> Iterator[Control]:
    """Split control data as the kernel does; raises EINVAL for a length that cannot be."""
    at = 0
    while len(raw) - at >= HEADER.size:
        length, level, kind = HEADER.unpack_from(raw, at)
        if length < HEADER.size or length > len(raw) - at:
            raise OSError(errno.EINVAL, "")
        yield Control(level, kind, raw[at + HEADER.size : at + length])
        at += aligned(length)


def compose(messages: list[Control]) -> bytes:
    """The reverse of `parse`; the last message is not padded, as recvmsg(2) leaves it where there is no more room."""
    raw = bytearray()
    for message in messages:
        raw.extend(bytes(aligned(len(raw)) - len(raw)))
        raw += HEADER.pack(HEADER.size + len(message.data), message.level, message.kind) + message.data
    raw.extend(bytes(aligned(len(raw)) - len(raw)))
    return bytes(raw)


class Unix:
    """What one kernel knows of its UNIX-domain sockets beyond what the host knows."""

    def __init__(self, kernel: "Kernel") -> None:
        self._scheduler = kernel.scheduler
        self._travelling: dict[tuple[int, int], File] = {}
        self._senders: OrderedDict[int, int] = OrderedDict()  # guest process by host process of its stub
        self.listeners: WeakValueDictionary[object, SocketFile] = WeakValueDictionary()
        self.wants_credentials = False  # somebody has set SO_PASSCRED

    @property
    def travelling(self) -> int:
        """How many descriptors are on their way."""
        return len(self._travelling)

    def stand_in(self, file: File) -> int:
        """A host descriptor to send in the file's stead; the sender closes its own copy."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(reading)
        key = (status.st_dev, status.st_ino)
        self._travelling[key] = file.hold()

        def nobody_reads(_events: int) -> None:
            self._scheduler.unwatch(writing)
            os.close(writing)
            self._travelling.pop(key).drop()

        self._scheduler.watch(writing, select.EPOLLERR, nobody_reads)
        return reading

    def arrived(self, host: int) -> File | None:
        """The file that a received host descriptor stands for (it is closed then); None for one from outside."""
        status = os.fstat(host)
        file = self._travelling.get((status.st_dev, status.st_ino))
        if file is not None:
            os.close(host)
        return file

    def remember(self, host_pid: int, pid: int) -> None:
        """This guest process has sent its credentials under its stub's number."""
        self._senders[host_pid] = pid
        self._senders.move_to_end(host_pid)
        if len(self._senders) > REMEMBERED:
            self._senders.popitem(last=False)

    def sender(self, host_pid: int) -> int:
        """The guest process behind a number in received credentials; 0 for one from outside."""
        return self._senders.get(host_pid, 0)


_known: WeakKeyDictionary["Kernel", Unix] = WeakKeyDictionary()


def unix(kernel: "Kernel") -> Unix:
    """The kernel's `Unix`."""
    found = _known.get(kernel)
    if found is None:
        found = _known[kernel] = Unix(kernel)
    return found


def own_credentials(task: "Task") -> Control:
    """SCM_CREDENTIALS of the task as it must be told to the host: under the number of its stub, which exists there."""
    leader = task.process.leader or task
    unix(task.kernel).remember(leader.context.ident, task.process.pid)
    credentials = task.credentials
    data = CREDENTIALS.pack(leader.context.ident, credentials.euid, credentials.egid)
    return Control(SOL_SOCKET, SCM_CREDENTIALS, data)


def _stated_credentials(task: "Task", data: bytes) -> Control:
    """Credentials that the sender states itself: its own, or with privileges any that exist (unix(7))."""
    if len(data) != CREDENTIALS.size:
        raise OSError(errno.EINVAL, "")
    pid, uid, gid = CREDENTIALS.unpack(data)
    mine = task.credentials
    if mine.euid != 0 and (
        pid != task.process.pid
        or uid not in (mine.uid, mine.euid, mine.suid)
        or gid not in (mine.gid, mine.egid, mine.sgid)
    ):
        raise OSError(errno.EPERM, "")
    process = task.kernel.processes.get(pid)
    leader = None if process is None else process.leader or next(iter(process.tasks.values()), None)
    if leader is None:
        raise OSError(errno.ESRCH, "")
    unix(task.kernel).remember(leader.context.ident, pid)
    return Control(SOL_SOCKET, SCM_CREDENTIALS, CREDENTIALS.pack(leader.context.ident, uid, gid))


def outgoing(task: "Task", raw: bytes, *, real: bool) -> tuple[bytes, list[int]]:
    """Control data of a guest as the host is to send it, and the stand-ins to close afterwards.

    `real`: the peer is no guest, so that it is sent the host descriptors themselves.
    """
    state = unix(task.kernel)
    messages: list[Control] = []
    stand_ins: list[int] = []
    stated = False
    try:
        for message in parse(raw):
            if message.level != SOL_SOCKET:
                continue
            if message.kind == SCM_RIGHTS:
                if len(message.data) > 4 * SCM_MAX_FD:
                    raise OSError(errno.EINVAL, "")
                count = len(message.data) // 4
                files = [task.descriptors.get(fd) for fd in unpack(f"<{count}i", message.data[: 4 * count])]
                for file in files:
                    if real and file.host < 0:
                        raise OSError(errno.EINVAL, "")
                    stand_ins.append(os.dup(file.host) if real else state.stand_in(file))
                data = pack(f"<{count}i", *stand_ins[len(stand_ins) - count :])
                messages.append(Control(SOL_SOCKET, SCM_RIGHTS, data))
            elif message.kind == SCM_CREDENTIALS:
                messages.append(_stated_credentials(task, message.data))
                stated = True
            else:
                raise OSError(errno.EINVAL, "")
    except OSError:
        for host in stand_ins:
            os.close(host)
        raise
    if state.wants_credentials and not stated and not real:
        messages.append(own_credentials(task))
    return compose(messages) if messages else b"", stand_ins


def incoming(task: "Task", raw: bytes, *, close_on_exec: bool) -> tuple[bytes, bool]:
    """Control data of the host as the guest sees it, with files put into its table; and whether some found no place."""
    state = unix(task.kernel)
    messages: list[Control] = []
    cut = False
    for message in parse(raw):
        data = message.data
        if message.level == SOL_SOCKET and message.kind == SCM_RIGHTS:
            hosts = unpack(f"<{len(data) // 4}i", data)
            fds: list[int] = []
            for host in hosts:
                file = state.arrived(host) or _from_outside(task, host)
                if cut:
                    file.hold().drop()
                    continue
                try:
                    fds.append(task.open_descriptor(file, close_on_exec=close_on_exec))
                except OSError:  # no room in the table: the rest is lost, and the receiver told so
                    cut = True
            if not fds:
                continue
            data = pack(f"<{len(fds)}i", *fds)
        elif message.level == SOL_SOCKET and message.kind == SCM_CREDENTIALS:
            pid, uid, gid = CREDENTIALS.unpack(data)
            data = CREDENTIALS.pack(state.sender(pid), uid, gid)
        messages.append(Control(message.level, message.kind, data))
    return compose(messages), cut


def _from_outside(task: "Task", host: int) -> File:
    from virtus.personalities.linux import stdio  # it wraps sockets too

    return stdio.outside_file(task.kernel, host)
