"""Sockets: host-backed, non-blocking, in the machine's own network namespace."""

import array
import errno
import fcntl
import os
import stat
from collections import deque
from struct import Struct, pack, unpack_from
from typing import TYPE_CHECKING, Final

from virtus.host import sockets as host_sockets
from virtus.personalities.linux import delivery, rights
from virtus.personalities.linux.blocking import FOREVER, Blocking, Wait, after
from virtus.personalities.linux.files import File
from virtus.personalities.linux.pipes import PIECE, SIGPIPE, bytes_ready

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16  # include/linux/socket.h
SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET = 1, 2, 3, 5  # include/linux/net.h
SUN_PATH_MAX: Final = 108  # include/uapi/linux/un.h
SO_PEERCRED: Final = 17
NOBODY: Final = 0xFFFFFFFF  # the uid of an unconnected socket's peer
SO_TYPE, SO_PROTOCOL, SO_DOMAIN, SO_ACCEPTCONN = 3, 38, 39, 30
NETLINK_ROUTE: Final = 0  # include/uapi/linux/netlink.h
NLMSG: Final = Struct("<IHHII")  # struct nlmsghdr
NLMSG_MIN_TYPE: Final = 16  # below: control messages
RTM_KINDS, RTM_GET = 4, 2  # include/uapi/linux/rtnetlink.h: types come in fours, new, del, get, set

FIONREAD, SIOCATMARK, SIOCOUTQ = 0x541B, 0x8905, 0x5411
SIOCGIFNAME, SIOCGIFCONF, SIOCGIFINDEX, SIOCGIFTXQLEN = 0x8910, 0x8912, 0x8933, 0x8942  # include/uapi/linux/sockios.h
INTERFACE_REQUESTS: Final = frozenset(
    {
        SIOCGIFNAME, 0x8913, 0x8915, 0x8917, 0x8919, 0x891B, 0x891D, 0x8921, 0x8927, SIOCGIFINDEX, SIOCGIFTXQLEN,
        0x8970,
    }
)  # fmt: skip
"""SIOCGIF... that store into the struct ifreq they are given: name, flags, addresses, metric, mtu, map, index."""
IFREQ_SIZE: Final = 40  # struct ifreq, include/uapi/linux/if.h


class SocketFile(File):
    """A socket. Timeouts are in nanoseconds, 0 for none; `peer` is what SO_PEERCRED tells."""

    kind = "socket"

    def __init__(self, host: int, flags: int, family: int, type_: int, protocol: int) -> None:
        super().__init__(host, os.O_RDWR | flags & os.O_NONBLOCK, f"socket:[{os.fstat(host).st_ino}]")
        self.family, self.type, self.protocol = family, type_, protocol
        self.receive_timeout = self.send_timeout = 0
        self.peer: tuple[int, int, int] | None = None
        self.owner: tuple[int, int, int] | None = None  # of a listening socket
        self.arrivals: deque[tuple[int, int, int]] = deque()  # who connected and is not accepted yet
        self.key: object = None  # by which connect(2) finds the listening socket

    def read(self, task: "Task", count: int) -> bytes:
        """See File."""
        return os.read(self.host, min(count, PIECE))

    def write(self, task: "Task", data: bytes) -> int:
        """See File."""
        return self.send(task, data, 0)

    def send(self, task: "Task", data: bytes, flags: int, address: bytes = b"", control: bytes = b"") -> int:
        """sendmsg(2) without waiting; EPIPE comes with SIGPIPE, as for pipes."""
        if self.family == AF_NETLINK:
            check_netlink(data)
        elif self.family == AF_UNIX and not control and rights.unix(task.kernel).wants_credentials:
            control = rights.compose([rights.own_credentials(task)])
        try:
            done = host_sockets.send(self.host, data, flags, address=address, control=control)
        except BrokenPipeError:
            if self.type == SOCK_STREAM and not flags & host_sockets.MSG_NOSIGNAL:
                delivery.post_thread(task, SIGPIPE)
            raise
        task.kernel.scheduler.look()
        return done

    def ioctl(self, task: "Task", request: int, argument: int) -> "int | Blocking":
        """See File. Interfaces may be looked at, not changed."""
        if request in (FIONREAD, SIOCOUTQ, SIOCATMARK):
            task.write(argument, pack("<i", bytes_ready(self.host, request)))
        elif request in INTERFACE_REQUESTS:
            task.write(argument, interface_request(self.host, request, task.read(argument, IFREQ_SIZE)))
        elif request == SIOCGIFCONF:
            self._interfaces(task, argument)
        else:
            raise OSError(errno.EPERM if 0x8900 <= request < 0x8A00 else errno.ENOTTY, "")
        return 0

    def _interfaces(self, task: "Task", argument: int) -> None:
        size, address = Struct("<i4xQ").unpack(task.read(argument, 16))
        room = array.array("B", bytes(min(max(size, 0), 64 * IFREQ_SIZE)))
        pointer = room.buffer_info()[0] if address else 0
        request = bytearray(pack("<i4xQ", len(room), pointer))
        fcntl.ioctl(self.host, SIOCGIFCONF, request)
        used = unpack_from("<i", request)[0]
        if address:
            task.write(address, room.tobytes()[:used])
        task.write(argument, pack("<i", used))

    def wait_readable(self) -> Wait:
        """See File."""
        timeout = self.receive_timeout
        return Wait(readable=self.host, deadline=after(timeout) if timeout else FOREVER, restart=not timeout)

    def wait_writable(self) -> Wait:
        """See File."""
        timeout = self.send_timeout
        return Wait(writable=self.host, deadline=after(timeout) if timeout else FOREVER, restart=not timeout)

    def poll_host(self) -> int:
        """See File."""
        return self.host

    def outside_peer(self) -> bool:
        """Whether the other end of a connected UNIX-domain socket is no guest."""
        raw = host_sockets.get_option(self.host, rights.SOL_SOCKET, SO_PEERCRED, bytes(rights.CREDENTIALS.size))
        pid, uid, _ = rights.CREDENTIALS.unpack(raw)
        return bool(pid != os.getpid() and uid != NOBODY)


def interface_request(host: int, request: int, data: bytes) -> bytes:
    """A SIOCGIF... request on a struct ifreq."""
    return fcntl.ioctl(host, request, data)


def wrap(host: int, flags: int) -> SocketFile:
    """A `SocketFile` on a host socket that was made elsewhere."""
    family, type_, protocol = (
        unpack_from("<i", host_sockets.get_option(host, rights.SOL_SOCKET, name, bytes(4)))[0]
        for name in (SO_DOMAIN, SO_TYPE, SO_PROTOCOL)
    )
    return SocketFile(host, flags, family, type_, protocol)


def check_netlink(data: bytes) -> None:
    """Let a guest ask rtnetlink, and change nothing; raises EPERM."""
    at = 0
    while len(data) - at >= NLMSG.size:
        length, kind, *_ = NLMSG.unpack_from(data, at)
        if kind >= NLMSG_MIN_TYPE and kind % RTM_KINDS != RTM_GET:
            raise OSError(errno.EPERM, "")
        if length < NLMSG.size:
            return  # the host ends there too
        at += length + 3 & ~3


def credentials_of(task: "Task") -> tuple[int, int, int]:
    """What SO_PEERCRED tells of a task."""
    return task.process.pid, task.credentials.euid, task.credentials.egid


def unix_address(task: "Task", raw: bytes) -> tuple[bytes, object]:
    """A UNIX-domain address as the host is to resolve it for the task, and a key for the socket that is there."""
    if len(raw) < 2 or raw[:2] != pack("<H", AF_UNIX):
        return raw, None
    name = raw[2:]
    if not name or name[0] == 0:
        return raw, bytes(name)
    path = name.split(b"\0", 1)[0]
    task.kernel.assume(task)
    if task.place.root != "/" and path.startswith(b"/"):
        path = os.fsencode(task.place.root) + path
        if len(path) > SUN_PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, "")
        raw = raw[:2] + path
    return raw, os.fsdecode(path)


def key_of(where: object) -> object:
    """The key of a bound socket: its name, or its inode for a path that exists."""
    if isinstance(where, str):
        try:
            status = os.stat(where)
        except OSError:
            return None
        return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None
    return where
