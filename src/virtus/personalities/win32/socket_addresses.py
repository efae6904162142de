"""Winsock's numbers and structures: errors, families, options and addresses, and what they are to the host."""

import errno
import socket
import struct
from typing import Any, Final

AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 23
SOCK_STREAM, SOCK_DGRAM, SOCK_RAW = 1, 2, 3
IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6 = 0, 6, 17, 41
SOL_SOCKET: Final = 0xFFFF
FAMILIES: Final = {AF_INET: socket.AF_INET, AF_INET6: socket.AF_INET6}

WSAEINTR, WSAEBADF, WSAEACCES, WSAEFAULT, WSAEINVAL, WSAEMFILE = 10004, 10009, 10013, 10014, 10022, 10024
WSAEWOULDBLOCK, WSAEINPROGRESS, WSAEALREADY, WSAENOTSOCK, WSAEDESTADDRREQ = 10035, 10036, 10037, 10038, 10039
WSAEMSGSIZE, WSAEPROTOTYPE, WSAENOPROTOOPT, WSAEPROTONOSUPPORT, WSAESOCKTNOSUPPORT = 10040, 10041, 10042, 10043, 10044
WSAEOPNOTSUPP, WSAEAFNOSUPPORT, WSAEADDRINUSE, WSAEADDRNOTAVAIL, WSAENETDOWN = 10045, 10047, 10048, 10049, 10050
WSAENETUNREACH, WSAECONNABORTED, WSAECONNRESET, WSAENOBUFS, WSAEISCONN = 10051, 10053, 10054, 10055, 10056
WSAENOTCONN, WSAESHUTDOWN, WSAETIMEDOUT, WSAECONNREFUSED, WSAEHOSTUNREACH = 10057, 10058, 10060, 10061, 10065
WSANOTINITIALISED, WSATYPE_NOT_FOUND, WSAHOST_NOT_FOUND, WSATRY_AGAIN = 10093, 10109, 11001, 11002
WSANO_RECOVERY, WSANO_DATA = 11003, 11004

_BY_ERRNO: Final = {
    errno.EINTR: WSAEINTR, errno.EBADF: WSAEBADF, errno.EACCES: WSAEACCES, errno.EPERM: WSAEACCES,
    errno.EFAULT: WSAEFAULT, errno.EINVAL: WSAEINVAL, errno.EMFILE: WSAEMFILE, errno.ENFILE: WSAEMFILE,
    errno.EAGAIN: WSAEWOULDBLOCK, errno.EINPROGRESS: WSAEWOULDBLOCK, errno.EALREADY: WSAEALREADY,
    errno.ENOTSOCK: WSAENOTSOCK, errno.EDESTADDRREQ: WSAEDESTADDRREQ, errno.EMSGSIZE: WSAEMSGSIZE,
    errno.EPROTOTYPE: WSAEPROTOTYPE, errno.ENOPROTOOPT: WSAENOPROTOOPT, errno.EPROTONOSUPPORT: WSAEPROTONOSUPPORT,
    errno.ESOCKTNOSUPPORT: WSAESOCKTNOSUPPORT, errno.EOPNOTSUPP: WSAEOPNOTSUPP, errno.EAFNOSUPPORT: WSAEAFNOSUPPORT,
    errno.EADDRINUSE: WSAEADDRINUSE, errno.EADDRNOTAVAIL: WSAEADDRNOTAVAIL, errno.ENETDOWN: WSAENETDOWN,
    errno.ENETUNREACH: WSAENETUNREACH, errno.ECONNABORTED: WSAECONNABORTED, errno.ECONNRESET: WSAECONNRESET,
    errno.EPIPE: WSAECONNABORTED, errno.ENOBUFS: WSAENOBUFS, errno.ENOMEM: WSAENOBUFS, errno.EISCONN: WSAEISCONN,
    errno.ENOTCONN: WSAENOTCONN, errno.ESHUTDOWN: WSAESHUTDOWN, errno.ETIMEDOUT: WSAETIMEDOUT,
    errno.ECONNREFUSED: WSAECONNREFUSED, errno.EHOSTUNREACH: WSAEHOSTUNREACH,
}  # fmt: skip
RESOLVER: Final = {
    socket.EAI_NONAME: WSAHOST_NOT_FOUND, socket.EAI_AGAIN: WSATRY_AGAIN, socket.EAI_FAIL: WSANO_RECOVERY,
    socket.EAI_FAMILY: WSAEAFNOSUPPORT, socket.EAI_SERVICE: WSATYPE_NOT_FOUND, socket.EAI_SOCKTYPE: WSAESOCKTNOSUPPORT,
    socket.EAI_BADFLAGS: WSAEINVAL, socket.EAI_NODATA: WSAHOST_NOT_FOUND,
}  # fmt: skip

BOOLEAN, NUMBER, MILLISECONDS = "boolean", "number", "milliseconds"
OPTIONS: Final[dict[tuple[int, int], tuple[int, int, str]]] = {
    (SOL_SOCKET, 0x0004): (socket.SOL_SOCKET, socket.SO_REUSEADDR, BOOLEAN),
    (SOL_SOCKET, 0x0008): (socket.SOL_SOCKET, socket.SO_KEEPALIVE, BOOLEAN),
    (SOL_SOCKET, 0x0020): (socket.SOL_SOCKET, socket.SO_BROADCAST, BOOLEAN),
    (SOL_SOCKET, 0x1001): (socket.SOL_SOCKET, socket.SO_SNDBUF, NUMBER),
    (SOL_SOCKET, 0x1002): (socket.SOL_SOCKET, socket.SO_RCVBUF, NUMBER),
    (IPPROTO_TCP, 0x01): (socket.IPPROTO_TCP, socket.TCP_NODELAY, BOOLEAN),
    (IPPROTO_TCP, 0x03): (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, NUMBER),
    (IPPROTO_TCP, 0x10): (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, NUMBER),
    (IPPROTO_TCP, 0x11): (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, NUMBER),
    (IPPROTO_IP, 0x03): (socket.IPPROTO_IP, socket.IP_TOS, NUMBER),
    (IPPROTO_IP, 0x04): (socket.IPPROTO_IP, socket.IP_TTL, NUMBER),
    (IPPROTO_IP, 0x0A): (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, NUMBER),
    (IPPROTO_IP, 0x0B): (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, BOOLEAN),
    (IPPROTO_IPV6, 0x04): (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, NUMBER),
    (IPPROTO_IPV6, 0x1B): (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, BOOLEAN),
}
"""By level and name (ws2def.h, ws2ipdef.h): the host's, and the kind of the value. All values are of 32 bits."""
SO_LINGER, SO_SNDTIMEO, SO_RCVTIMEO, SO_ERROR, SO_TYPE, SO_ACCEPTCONN = 0x80, 0x1005, 0x1006, 0x1007, 0x1008, 0x0002
SO_EXCLUSIVEADDRUSE, SO_UPDATE_ACCEPT_CONTEXT, SO_UPDATE_CONNECT_CONTEXT = 0xFFFF_FFFB, 0x700B, 0x7010


class BadAddress(ValueError):
    """Bytes that are no address of IPv4 or IPv6."""


def of_errno(number: int | None) -> int:
    """Winsock's error for a host's errno."""
    return _BY_ERRNO.get(number or 0, WSAEINVAL)


Address = tuple[str, int] | tuple[str, int, int, int]


def unpack(data: bytes) -> tuple[int, Address]:
    """Windows' family and the host's address of a sockaddr; raises BadAddress."""
    if len(data) < 16:
        raise BadAddress(data.hex())
    family = int.from_bytes(data[:2], "little")
    port = int.from_bytes(data[2:4], "big")
    if family == AF_INET:
        return family, (socket.inet_ntop(socket.AF_INET, data[4:8]), port)
    if family == AF_INET6 and len(data) >= 28:
        flow, scope = int.from_bytes(data[4:8], "big") & 0xF_FFFF, int.from_bytes(data[24:28], "little")
        return family, (socket.inet_ntop(socket.AF_INET6, data[8:24]), port, flow, scope)
    raise BadAddress(data[:28].hex())


def pack(family: int, address: tuple[Any, ...]) -> bytes:
    """A sockaddr of Windows' family and the host's address; an unnamed one is all zero."""
    if family == AF_INET:
        host, port = _host_and_port(address, "0.0.0.0")
        return struct.pack("<H", AF_INET) + port.to_bytes(2, "big") + socket.inet_pton(socket.AF_INET, host) + bytes(8)
    host, port = _host_and_port(address, "::")
    flow, scope = (int(number) for number in (*address[2:], 0, 0)[:2])
    head = struct.pack("<H", AF_INET6) + port.to_bytes(2, "big") + flow.to_bytes(4, "big")
    return head + socket.inet_pton(socket.AF_INET6, host.partition("%")[0]) + struct.pack("<I", scope)


def _host_and_port(address: tuple[Any, ...], unnamed: str) -> tuple[str, int]:
    return (str(address[0]), int(address[1])) if address else (unnamed, 0)
