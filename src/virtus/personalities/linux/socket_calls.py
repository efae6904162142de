"""System calls on sockets."""

import errno
import os
from collections.abc import Callable
from struct import Struct, pack, unpack, unpack_from
from typing import Final

from virtus.host import sockets as host_sockets
from virtus.personalities.linux import known, messages, rights
from virtus.personalities.linux.blocking import FOREVER, Blocking, Wait, after
from virtus.personalities.linux.messages import Receiving, Sending
from virtus.personalities.linux.rights import SOL_SOCKET
from virtus.personalities.linux.sockets import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_UNIX,
    NETLINK_ROUTE,
    SO_PEERCRED,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SocketFile,
    credentials_of,
    key_of,
    unix_address,
)
from virtus.personalities.linux.table import Int, Uint, Word, call
from virtus.personalities.linux.task import Task
from virtus.personalities.linux.timespec import read_timespec

KIND_MASK: Final = 0xF  # SOCK_TYPE_MASK, include/linux/net.h
SOCK_CLOEXEC, SOCK_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
MSG_WAITFORONE: Final = 0x10000
OPTION_MAX: Final = 65536
SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW = 20, 21, 66, 67
TIMEOUTS: Final = {
    SO_RCVTIMEO: "receive_timeout",
    SO_SNDTIMEO: "send_timeout",
    SO_RCVTIMEO_NEW: "receive_timeout",
    SO_SNDTIMEO_NEW: "send_timeout",
}
SO_PASSCRED: Final = 16
SOL_IP, SOL_TCP, SOL_UDP, SOL_IPV6, SOL_UDPLITE, SOL_NETLINK = 0, 6, 17, 41, 136, 270  # include/linux/socket.h
FIRST_NETFILTER: Final = 64  # IPT_BASE_CTL: from here on options belong to packet filters
NETFILTER_6: Final = frozenset({64, 65, 68, 69, 80})  # include/uapi/linux/netfilter_ipv6/ip6_tables.h
POINTERS: Final = {
    # options whose value holds addresses, or that need privileges the guest does not have
    SOL_SOCKET: frozenset({26, 32, 33, 34, 50, 51, 52, 36, 60, 76, 77}),  # filters, *BUFFORCE, mark, zero-copy, pidfds
    SOL_TCP: frozenset({19, 31, 35}),  # TCP_REPAIR, TCP_ULP, TCP_ZEROCOPY_RECEIVE
}
LEVELS: Final = frozenset({SOL_SOCKET, SOL_IP, SOL_TCP, SOL_UDP, SOL_IPV6, SOL_UDPLITE, SOL_NETLINK})
TIMEVAL: Final = Struct("<qq")
MMSGHDR: Final = 64  # struct mmsghdr: struct msghdr, then msg_len
MMSG_LENGTH_AT: Final = 56
CONNECT_RETRY_NS: Final = 5_000_000
"""How often a full listening UNIX-domain socket is tried again: the host does not tell when there is room."""


def socket_of(task: Task, fd: int) -> SocketFile:
    """The socket behind a descriptor; raises EBADF, ENOTSOCK."""
    file = task.descriptors.get(fd)
    if not isinstance(file, SocketFile):
        raise OSError(errno.EBADF if file.flags & os.O_PATH else errno.ENOTSOCK, "")
    return file


def check_kind(task: Task, family: int, kind: int, protocol: int) -> None:
    """Only families that stay inside the machine and carry no privilege."""
    if family == AF_NETLINK:
        if protocol != NETLINK_ROUTE:
            raise OSError(errno.EPROTONOSUPPORT, "")
    elif family not in (AF_UNIX, AF_INET, AF_INET6):
        task.kernel.meter.note(f"socket family {family} refused: only UNIX, IPv4, IPv6 and rtnetlink")
        raise OSError(errno.EAFNOSUPPORT, "")
    elif kind == SOCK_RAW and family != AF_UNIX:
        raise OSError(errno.EPERM, "")


def _install(task: Task, file: SocketFile, flags: int) -> int:
    return task.open_descriptor(file, close_on_exec=bool(flags & SOCK_CLOEXEC))


@call("socket", note="AF_UNIX, AF_INET, AF_INET6 without raw sockets, AF_NETLINK for reading rtnetlink")
def socket(task: Task, family: Int, kind: Int, protocol: Int) -> int:
    """socket(2)."""
    flags = kind & ~KIND_MASK
    kind &= KIND_MASK
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise OSError(errno.EINVAL, "")
    check_kind(task, family, kind, protocol)
    host = host_sockets.create(family, kind, protocol)
    if family == AF_UNIX and kind == SOCK_RAW:
        kind = SOCK_DGRAM  # as unix_create does
    return _install(task, SocketFile(host, flags, family, kind, protocol), flags)


@call("socketpair")
def socketpair(task: Task, family: Int, kind: Int, protocol: Int, address: Word) -> int:
    """socketpair(2)."""
    flags = kind & ~KIND_MASK
    kind &= KIND_MASK
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise OSError(errno.EINVAL, "")
    check_kind(task, family, kind, protocol)
    first, second = (
        SocketFile(host, flags, family, kind, protocol) for host in host_sockets.pair(family, kind, protocol)
    )
    first.peer = second.peer = credentials_of(task)
    opened: list[int] = []
    try:
        for file in (first, second):
            opened.append(_install(task, file, flags))
        task.write(address, pack("<ii", *opened))
    except OSError:
        for fd in opened:
            task.descriptors.close(task, fd)
        if not opened:
            second.released()
        raise
    return 0


@call("bind")
def bind(task: Task, fd: Int, address: Word, length: Int) -> int:
    """bind(2)."""
    file = socket_of(task, fd)
    raw = messages.read_address(task, address, length)
    if file.family == AF_UNIX:
        raw, where = unix_address(task, raw)
        host_sockets.bind(file.host, raw)
        known.made()
        file.key = key_of(where) if where is not None else bytes(host_sockets.own_name(file.host)[2:])
    else:
        host_sockets.bind(file.host, raw)
    return 0


@call("listen")
def listen(task: Task, fd: Int, backlog: Int) -> int:
    """listen(2)."""
    file = socket_of(task, fd)
    host_sockets.listen(file.host, backlog)
    file.owner = credentials_of(task)
    if file.key is not None:
        rights.unix(task.kernel).listeners[file.key] = file
    return 0


@call("accept")
def accept(task: Task, fd: Int, address: Word, length_at: Word) -> "int | Blocking":
    """accept(2)."""
    return accept4(task, fd, address, length_at, 0)


@call("accept4")
def accept4(task: Task, fd: Int, address: Word, length_at: Word, flags: Int) -> "int | Blocking":
    """accept4(2)."""
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise OSError(errno.EINVAL, "")
    file = socket_of(task, fd)

    def attempt() -> int:
        host, peer = host_sockets.accept(file.host)
        new = SocketFile(host, flags, file.family, file.type, file.protocol)
        new.receive_timeout, new.send_timeout = 0, 0
        if file.arrivals:
            new.peer = file.arrivals.popleft()
        number = _install(task, new, flags)
        if address:
            try:
                messages.store_address(task, address, length_at, peer)
            except OSError:
                task.descriptors.close(task, number)
                raise
        return number

    try:
        return attempt()
    except BlockingIOError:
        if file.nonblocking:
            raise
    return _when_readable(file, attempt)


def _when_readable(file: SocketFile, attempt: Callable[[], int]) -> Blocking:
    wait = file.wait_readable()
    deadline, restart = wait.deadline, wait.restart
    file.hold()
    try:
        while True:
            happened = yield Wait(readable=file.host, deadline=deadline, restart=restart)
            try:
                return attempt()
            except BlockingIOError:
                if not happened:
                    raise
    finally:
        file.drop()


@call("connect")
def connect(task: Task, fd: Int, address: Word, length: Int) -> "int | Blocking":
    """connect(2)."""
    file = socket_of(task, fd)
    raw = messages.read_address(task, address, length)
    if file.family == AF_UNIX:
        raw, where = unix_address(task, raw)
        try:
            host_sockets.connect(file.host, raw)
        except BlockingIOError:
            if file.nonblocking:
                raise
            return _connect_again(task, file, raw, where)
        _met(task, file, where)
        return 0
    try:
        host_sockets.connect(file.host, raw)
    except OSError as error:
        if error.errno not in (errno.EINPROGRESS, errno.EALREADY) or file.nonblocking:
            raise
        return _connecting(file, raw)
    return 0


def _met(task: Task, file: SocketFile, where: object) -> None:
    """A UNIX-domain stream is connected: both ends learn of each other."""
    if file.type not in (SOCK_STREAM, SOCK_SEQPACKET):
        return
    listener = rights.unix(task.kernel).listeners.get(key_of(where))
    if listener is not None and listener.owner is not None:
        file.peer = listener.owner
        listener.arrivals.append(credentials_of(task))


def _connect_again(task: Task, file: SocketFile, raw: bytes, where: object) -> Blocking:
    deadline = after(file.send_timeout) if file.send_timeout else FOREVER
    file.hold()
    try:
        while True:
            retry = after(CONNECT_RETRY_NS)
            yield Wait(deadline=min(retry, deadline) if deadline else retry, restart=not deadline)
            task.kernel.assume(task)
            try:
                host_sockets.connect(file.host, raw)
            except BlockingIOError:
                if deadline and after(0) >= deadline:
                    raise
                continue
            _met(task, file, where)
            return 0
    finally:
        file.drop()


def _connecting(file: SocketFile, raw: bytes) -> Blocking:
    deadline = after(file.send_timeout) if file.send_timeout else FOREVER
    file.hold()
    try:
        while True:
            happened = yield Wait(writable=file.host, deadline=deadline, restart=not deadline)
            try:
                host_sockets.connect(file.host, raw)  # tells how it went, and makes it final
            except OSError as error:
                if error.errno == errno.EALREADY and happened:
                    continue
                if error.errno == errno.EALREADY:
                    raise BlockingIOError(errno.EINPROGRESS, "") from error
                if error.errno == errno.EISCONN:
                    return 0
                raise
            return 0
    finally:
        file.drop()


@call("getsockname")
def getsockname(task: Task, fd: Int, address: Word, length_at: Word) -> int:
    """getsockname(2)."""
    messages.store_address(task, address, length_at, host_sockets.own_name(socket_of(task, fd).host))
    return 0


@call("getpeername")
def getpeername(task: Task, fd: Int, address: Word, length_at: Word) -> int:
    """getpeername(2)."""
    messages.store_address(task, address, length_at, host_sockets.peer_name(socket_of(task, fd).host))
    return 0


@call("shutdown")
def shutdown(task: Task, fd: Int, how: Int) -> int:
    """shutdown(2)."""
    host_sockets.shutdown(socket_of(task, fd).host, how)
    return 0


# Data


@call("sendto")
def sendto(
    task: Task, fd: Int, address: Word, size: Word, flags: Int, name: Word, name_length: Int
) -> "int | Blocking":
    """sendto(2), send(2)."""
    file = socket_of(task, fd)
    raw = messages.read_address(task, name, name_length) if name else b""
    return Sending(task, file, [(address, size)], flags, raw, b"").run()


@call("recvfrom")
def recvfrom(
    task: Task, fd: Int, address: Word, size: Word, flags: Int, name: Word, length_at: Word
) -> "int | Blocking":
    """recvfrom(2), recv(2)."""
    file = socket_of(task, fd)
    receiving = Receiving(task, file, [(address, size)], flags)

    def tell() -> None:
        if name:
            messages.store_address(task, name, length_at, receiving.address)

    return _then(receiving.run(), tell)


def _then(result: "int | Blocking", tell: Callable[[], None]) -> "int | Blocking":
    """Store the rest of what a call returns, now or when it is done."""
    if isinstance(result, int):
        tell()
        return result
    return _then_later(result, tell)


def _then_later(steps: Blocking, tell: Callable[[], None]) -> Blocking:
    result = yield from steps
    tell()
    return result


def _sending(task: Task, file: SocketFile, address: int, flags: int) -> Sending:
    message = messages.read_message(task, address)
    name_length = min(message.name_length, host_sockets.ADDRESS_MAX)
    name = task.read(message.name, name_length) if message.name and name_length else b""
    if message.control_length > messages.CONTROL_MAX:
        raise OSError(errno.ENOBUFS, "")
    control = task.read(message.control, message.control_length) if message.control and message.control_length else b""
    return Sending(task, file, message.vectors, flags & ~messages.MSG_CMSG_CLOEXEC, name, control)


@call("sendmsg")
def sendmsg(task: Task, fd: Int, address: Word, flags: Int) -> "int | Blocking":
    """sendmsg(2)."""
    return _sending(task, socket_of(task, fd), address, flags).run()


@call("sendmmsg")
def sendmmsg(task: Task, fd: Int, address: Word, count: Uint, flags: Int) -> "int | Blocking":
    """sendmmsg(2)."""
    file = socket_of(task, fd)
    return _sending_many(task, file, address, min(count, messages.IOV_MAX), flags)


def _sending_many(task: Task, file: SocketFile, address: int, count: int, flags: int) -> Blocking:
    done = 0
    try:
        while done < count:
            at = address + done * MMSGHDR
            result = _sending(task, file, at, flags).run()
            if not isinstance(result, int):
                result = yield from result
            task.write(at + MMSG_LENGTH_AT, pack("<I", result))
            done += 1
    except OSError:
        if not done:
            raise
    return done


def _receiving(task: Task, file: SocketFile, address: int, flags: int) -> "int | Blocking":
    message = messages.read_message(task, address)
    room = message.control_length if message.control else 0
    receiving = Receiving(task, file, message.vectors, flags, room)
    return _then(receiving.run(), lambda: messages.store_message(task, address, message, receiving))


@call("recvmsg")
def recvmsg(task: Task, fd: Int, address: Word, flags: Int) -> "int | Blocking":
    """recvmsg(2)."""
    return _receiving(task, socket_of(task, fd), address, flags)


@call("recvmmsg")
def recvmmsg(task: Task, fd: Int, address: Word, count: Uint, flags: Int, timeout: Word) -> "int | Blocking":
    """recvmmsg(2)."""
    file = socket_of(task, fd)
    deadline = after(read_timespec(task, timeout)) if timeout else FOREVER
    return _receiving_many(task, file, address, min(count, messages.IOV_MAX), flags, deadline)


def _receiving_many(task: Task, file: SocketFile, address: int, count: int, flags: int, deadline: int) -> Blocking:
    done = 0
    try:
        while done < count:
            at = address + done * MMSGHDR
            result = _receiving(task, file, at, flags & ~MSG_WAITFORONE)
            if not isinstance(result, int):
                result = yield from result
            task.write(at + MMSG_LENGTH_AT, pack("<I", result))
            done += 1
            if flags & MSG_WAITFORONE:
                flags |= messages.MSG_DONTWAIT
            if deadline and after(0) >= deadline:
                break  # looked at after each datagram only (recvmmsg(2), BUGS)
    except OSError:
        if not done:
            raise
    return done


# Options


def check_option(level: int, name: int) -> None:
    """Options that are plain values; raises ENOPROTOOPT, or EPERM for those that hold addresses or need privileges."""
    if level not in LEVELS:
        raise OSError(errno.ENOPROTOOPT, "")
    if name in POINTERS.get(level, ()):
        raise OSError(errno.EPERM, "")
    if (level == SOL_IP and name >= FIRST_NETFILTER) or (level == SOL_IPV6 and name in NETFILTER_6):
        raise OSError(errno.ENOPROTOOPT, "")


@call("setsockopt", note="no packet filters, no options that need privileges over the network")
def setsockopt(task: Task, fd: Int, level: Int, name: Int, address: Word, size: Int) -> int:
    """setsockopt(2)."""
    file = socket_of(task, fd)
    if size < 0 or size > OPTION_MAX:
        raise OSError(errno.EINVAL, "")
    check_option(level, name)
    value = task.read(address, size) if size else b""
    host_sockets.set_option(file.host, level, name, value)
    if level == SOL_SOCKET:
        if name in TIMEOUTS:
            seconds, microseconds = TIMEVAL.unpack_from(value)
            setattr(file, TIMEOUTS[name], max(seconds * 1_000_000 + microseconds, 0) * 1000)
        elif name == SO_PASSCRED and file.family == AF_UNIX and messages.first_int(value):
            rights.unix(task.kernel).wants_credentials = True
    return 0


@call("getsockopt", note="as setsockopt")
def getsockopt(task: Task, fd: Int, level: Int, name: Int, address: Word, size_at: Word) -> int:
    """getsockopt(2)."""
    file = socket_of(task, fd)
    size = unpack("<i", task.read(size_at, 4))[0]
    if size < 0:
        raise OSError(errno.EINVAL, "")
    check_option(level, name)
    size = min(size, OPTION_MAX)
    if level == SOL_SOCKET and name == SO_PEERCRED and file.family == AF_UNIX:
        value = _peer_credentials(file)[:size]
    else:
        value = host_sockets.get_option(file.host, level, name, task.read(address, size) if size else b"")
    task.write(address, value)
    task.write(size_at, pack("<i", len(value)))
    return 0


def _peer_credentials(file: SocketFile) -> bytes:
    if file.peer is not None:
        return rights.CREDENTIALS.pack(*file.peer)
    if file.owner is not None:
        return rights.CREDENTIALS.pack(*file.owner)  # a listening socket tells its own
    raw = host_sockets.get_option(file.host, SOL_SOCKET, SO_PEERCRED, bytes(rights.CREDENTIALS.size))
    pid, uid, gid = unpack_from("<iII", raw)
    return rights.CREDENTIALS.pack(0 if pid == os.getpid() else pid, uid, gid)
