"""Winsock (ws2_32): starting, making, binding, connecting and configuring sockets."""

import socket
import struct
import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from virtus.personalities.win32 import descriptors, handle_functions, socket_addresses, sockets, state
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.socket_addresses import (
    AF_INET,
    AF_INET6,
    BOOLEAN,
    OPTIONS,
    SO_ACCEPTCONN,
    SO_ERROR,
    SO_EXCLUSIVEADDRUSE,
    SO_LINGER,
    SO_RCVTIMEO,
    SO_SNDTIMEO,
    SO_TYPE,
    SO_UPDATE_ACCEPT_CONTEXT,
    SO_UPDATE_CONNECT_CONTEXT,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    WSAEAFNOSUPPORT,
    WSAEFAULT,
    WSAEINVAL,
    WSAENOBUFS,
    WSAENOPROTOOPT,
    WSAEOPNOTSUPP,
    WSAESOCKTNOSUPPORT,
    WSANOTINITIALISED,
    BadAddress,
    of_errno,
)
from virtus.personalities.win32.sockets import INVALID_SOCKET, SOCKET_ERROR, Socket, SocketError, Winsock
from virtus.personalities.win32.table import api

WSADATA_SIZE: Final = 408
VERSION: Final = 0x0202
FIONBIO, FIONREAD, SIOCATMARK = 0x8004_667E, 0x4004_667F, 0x4004_7307
SIO_KEEPALIVE_VALS, SIO_UDP_CONNRESET, SIO_LOOPBACK_FAST_PATH = 0x9800_0004, 0x9800_000C, 0x9800_0010
SIO_BASE_HANDLE: Final = 0x4800_0022
SIO_GET_EXTENSION_FUNCTION_POINTER: Final = 0xC800_0006
EXTENSIONS: Final = {
    "25a207b9-ddf3-4660-8ee9-76e58c74063e": "ConnectEx", "b5367df1-cbac-11cf-95ca-00805f48a192": "AcceptEx",
    "b5367df2-cbac-11cf-95ca-00805f48a192": "GetAcceptExSockaddrs",
    "7fda2e11-8630-436f-a036-f31a6e3cb6a0": "DisconnectEx",
}  # fmt: skip
"""WSAID_* (mswsock.h)."""
WSA_FLAG_NO_HANDLE_INHERIT: Final = 0x80
SHUTDOWNS: Final = {0: socket.SHUT_RD, 1: socket.SHUT_WR, 2: socket.SHUT_RDWR}
LONGEST_ADDRESS: Final = 128
MASK_32: Final = 0xFFFF_FFFF


def refusing(value: int = SOCKET_ERROR) -> Callable[[Callable[..., Any]], Callable[..., int]]:
    """Have a function that raises SocketError give `value` with the error as the thread's last."""

    def wrap(body: Callable[..., Any]) -> Callable[..., int]:
        @wraps(body)
        def guarded(thread: Thread, *arguments: int) -> int:
            try:
                return int(body(thread, *arguments) or 0)
            except SocketError as refused:
                return thread.fail(refused.error, value)

        return guarded

    return wrap


@api("int WSAStartup(WORD version, LPVOID data)", "ws2_32")
def wsa_startup(thread: Thread, version: int, data: int) -> int:
    """Winsock 2.2. Returns the error itself."""
    if not data:
        return WSAEFAULT
    state.of(thread.process, Winsock).count += 1
    wanted = min(version >> 8 | (version & 0xFF) << 8, 0x0202)
    head = struct.pack("<HHHH", wanted >> 8 | (wanted & 0xFF) << 8, VERSION, 0, 0)
    thread.memory.write(data, head.ljust(16, b"\0") + b"WinSock 2.0".ljust(WSADATA_SIZE - 16, b"\0"))
    return 0


@api("int WSACleanup(void)", "ws2_32")
def wsa_cleanup(thread: Thread) -> int:
    """Once for each start."""
    winsock = state.of(thread.process, Winsock)
    if not winsock.count:
        return thread.fail(WSANOTINITIALISED, SOCKET_ERROR)
    winsock.count -= 1
    return 0


@api("int WSAGetLastError(void)", "ws2_32")
def wsa_get_last_error(thread: Thread) -> int:
    """The thread's last error."""
    return thread.last_error


@api("void WSASetLastError(int error)", "ws2_32")
def wsa_set_last_error(thread: Thread, error: int) -> None:
    """The thread's last error."""
    thread.last_error = error


def _new(thread: Thread, family: int, kind: int, protocol: int) -> int:
    if family not in (AF_INET, AF_INET6):
        raise SocketError(WSAEAFNOSUPPORT)
    if kind not in (SOCK_STREAM, SOCK_DGRAM):
        raise SocketError(WSAESOCKTNOSUPPORT)
    return sockets.new(thread, family, kind, protocol)


@api("SOCKET socket(int family, int kind, int protocol)", "ws2_32")
@refusing(INVALID_SOCKET)
def socket_(thread: Thread, family: int, kind: int, protocol: int) -> int:
    """TCP and UDP over IPv4 and IPv6."""
    return _new(thread, family, kind, protocol)


@api("SOCKET WSASocketW(int family, int kind, int protocol, LPVOID information, DWORD group, DWORD flags)", "ws2_32")
@refusing(INVALID_SOCKET)
def wsa_socket_w(
    thread: Thread, family: int, kind: int, protocol: int, information: int, group: int, flags: int
) -> int:
    """The same; sockets of other processes are not taken over."""
    if information:
        raise SocketError(WSAEOPNOTSUPP)
    return _new(thread, family, kind, protocol)


@api("SOCKET WSASocketA(int family, int kind, int protocol, LPVOID information, DWORD group, DWORD flags)", "ws2_32")
def wsa_socket_a(
    thread: Thread, family: int, kind: int, protocol: int, information: int, group: int, flags: int
) -> int:
    """The same."""
    return wsa_socket_w(thread, family, kind, protocol, information, group, flags)


@api("int closesocket(SOCKET handle)", "ws2_32")
@refusing()
def closesocket(thread: Thread, handle: int) -> None:
    """The host's is closed with the last handle."""
    sockets.of(thread, handle)
    handle_functions.close(thread, handle)
    descriptors.of(thread.process).look_again()
    thread.engine.wake()


def address_at(thread: Thread, found: Socket, address: int, size: int) -> socket_addresses.Address:
    """The host\'s address of a sockaddr of the guest\'s; raises SocketError."""
    try:
        family, host = socket_addresses.unpack(thread.memory.read(address, max(0, min(size, LONGEST_ADDRESS))))
    except BadAddress:
        raise SocketError(WSAEFAULT) from None
    if family != found.family:
        raise SocketError(WSAEAFNOSUPPORT)
    return host


def _named(found: Socket, address: Any) -> bytes:
    return socket_addresses.pack(found.family, address)


def give_address(thread: Thread, data: bytes, buffer: int, size: int) -> None:
    """An address, as far as it is wanted; raises SocketError where there is no room."""
    if not buffer or not size:
        return
    if thread.memory.u32(size) < len(data):
        raise SocketError(WSAEFAULT)
    thread.memory.write(buffer, data)
    thread.memory.set_u32(size, len(data))


@api("int bind(SOCKET handle, LPVOID address, int size)", "ws2_32")
@refusing()
def bind(thread: Thread, handle: int, address: int, size: int) -> None:
    """A local address."""
    found = sockets.of(thread, handle)
    try:
        found.host.bind(address_at(thread, found, address, size))
    except OSError as error:
        raise SocketError(of_errno(error.errno)) from None


@api("int listen(SOCKET handle, int backlog)", "ws2_32")
@refusing()
def listen(thread: Thread, handle: int, backlog: int) -> None:
    """Take connections."""
    try:
        sockets.of(thread, handle).host.listen(max(0, min(backlog, 4096)))
    except OSError as error:
        raise SocketError(of_errno(error.errno)) from None


@api("SOCKET accept(SOCKET handle, LPVOID address, int *size)", "ws2_32")
@refusing(INVALID_SOCKET)
def accept(thread: Thread, handle: int, address: int, size: int) -> int:
    """The next connection; the new socket blocks as this one does."""
    found = sockets.of(thread, handle)
    host, peer = sockets.attempt(thread, found, sockets.READ, 0, found.host.accept)
    made = Socket(host, found.family)
    made.blocking = found.blocking
    give_address(thread, _named(found, peer), address, size)
    number: int = thread.process.handles.add(made)
    return number


@api("int connect(SOCKET handle, LPVOID address, int size)", "ws2_32")
@refusing()
def connect(thread: Thread, handle: int, address: int, size: int) -> None:
    """WSAEWOULDBLOCK for what goes on without the caller."""
    found = sockets.of(thread, handle)
    sockets.connect(thread, found, address_at(thread, found, address, size))


@api("int WSAConnect(SOCKET handle, LPVOID address, int size, LPVOID caller, LPVOID callee, LPVOID quality,"
     " LPVOID group)", "ws2_32")  # fmt: skip
def wsa_connect(
    thread: Thread, handle: int, address: int, size: int, caller: int, callee: int, quality: int, group: int
) -> int:
    """The same."""
    return int(connect(thread, handle, address, size))


@api("int getsockname(SOCKET handle, LPVOID address, int *size)", "ws2_32")
@refusing()
def getsockname(thread: Thread, handle: int, address: int, size: int) -> None:
    """The local address."""
    found = sockets.of(thread, handle)
    name = found.host.getsockname()
    if not name[1]:
        raise SocketError(WSAEINVAL)
    give_address(thread, _named(found, name), address, size)


@api("int getpeername(SOCKET handle, LPVOID address, int *size)", "ws2_32")
@refusing()
def getpeername(thread: Thread, handle: int, address: int, size: int) -> None:
    """The other side's address."""
    found = sockets.of(thread, handle)
    try:
        give_address(thread, _named(found, found.host.getpeername()), address, size)
    except OSError as error:
        raise SocketError(of_errno(error.errno)) from None


@api("int shutdown(SOCKET handle, int how)", "ws2_32")
@refusing()
def shutdown(thread: Thread, handle: int, how: int) -> None:
    """Reading, writing, or both."""
    if how not in SHUTDOWNS:
        raise SocketError(WSAEINVAL)
    try:
        sockets.of(thread, handle).host.shutdown(SHUTDOWNS[how])
    except OSError as error:
        raise SocketError(of_errno(error.errno)) from None


def _control(thread: Thread, found: Socket, command: int, argument: int) -> int:
    """ioctlsocket: what is left at `argument`."""
    if command == FIONBIO:
        found.blocking = not thread.memory.u32(argument)
        return thread.memory.u32(argument)
    if command == FIONREAD:
        if found.ready(sockets.READ):
            try:
                return len(found.host.recv(1 << 16, socket.MSG_PEEK))
            except OSError:
                return 0
        return 0
    if command == SIOCATMARK:
        return 1
    raise SocketError(WSAEOPNOTSUPP)


@api("int ioctlsocket(SOCKET handle, LONG command, PULONG argument)", "ws2_32")
@refusing()
def ioctlsocket(thread: Thread, handle: int, command: int, argument: int) -> None:
    """FIONBIO, FIONREAD and SIOCATMARK."""
    found = sockets.of(thread, handle)
    thread.memory.set_u32(argument, _control(thread, found, command & MASK_32, argument))


@api("int WSAIoctl(SOCKET handle, DWORD command, LPVOID input, DWORD input_size, LPVOID output, DWORD output_size,"
     " LPDWORD count, LPVOID overlapped, FARPROC routine)", "ws2_32")  # fmt: skip
@refusing()
def wsa_ioctl(
    thread: Thread, handle: int, command: int, input: int, input_size: int, output: int, output_size: int, count: int,
    overlapped: int, routine: int,
) -> None:  # fmt: skip
    """The same, and keep-alive."""
    found = sockets.of(thread, handle)
    if command == SIO_KEEPALIVE_VALS and input_size >= 12:
        on, time, interval = struct.unpack("<III", thread.memory.read(input, 12))
        found.host.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, bool(on))
        if on:
            found.host.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, min(32767, max(1, time // 1000)))
            found.host.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, min(32767, max(1, interval // 1000)))
    elif command == FIONREAD and output_size >= 4:
        thread.memory.set_u32(output, _control(thread, found, command, 0))
    elif command == FIONBIO and input_size >= 4:
        _control(thread, found, command, input)
    elif command == SIO_BASE_HANDLE and output_size >= 8:
        thread.memory.set_u64(output, handle)
    elif command == SIO_GET_EXTENSION_FUNCTION_POINTER and input_size >= 16 and output_size >= 8:
        name = EXTENSIONS.get(str(uuid.UUID(bytes_le=thread.memory.read(input, 16))))
        address = thread.engine.resolve("mswsock", name) if name else None
        if not address:
            raise SocketError(WSAEINVAL)
        thread.memory.set_u64(output, address)
    elif command not in (SIO_UDP_CONNRESET, SIO_LOOPBACK_FAST_PATH):
        raise SocketError(WSAEOPNOTSUPP)
    if count:
        thread.memory.set_u32(
            count, {FIONREAD: 4, SIO_BASE_HANDLE: 8, SIO_GET_EXTENSION_FUNCTION_POINTER: 8}.get(command, 0)
        )


@api("int setsockopt(SOCKET handle, int level, int name, LPCVOID value, int size)", "ws2_32")
@refusing()
def setsockopt(thread: Thread, handle: int, level: int, name: int, value: int, size: int) -> None:
    """Options that the host has too, timeouts and lingering."""
    found = sockets.of(thread, handle)
    name &= MASK_32
    data = int.from_bytes(thread.memory.read(value, max(0, min(size, 4))), "little") if value else 0
    if level == SOL_SOCKET and name in (SO_RCVTIMEO, SO_SNDTIMEO):
        if name == SO_RCVTIMEO:
            found.receive_ms = data
        else:
            found.send_ms = data
        return
    if level == SOL_SOCKET and name in (SO_EXCLUSIVEADDRUSE, SO_UPDATE_ACCEPT_CONTEXT, SO_UPDATE_CONNECT_CONTEXT):
        return
    try:
        if level == SOL_SOCKET and name == SO_LINGER:
            on, seconds = struct.unpack("<HH", thread.memory.read(value, 4))
            found.host.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", on, seconds))
            return
        if (level, name) not in OPTIONS:
            raise SocketError(WSAENOPROTOOPT)
        host_level, host_name, kind = OPTIONS[level, name]
        number = int(bool(data)) if kind == BOOLEAN else data & 0x7FFF_FFFF
        found.host.setsockopt(host_level, host_name, number)
    except OSError as error:
        raise SocketError(of_errno(error.errno)) from None


@api("int getsockopt(SOCKET handle, int level, int name, LPVOID value, int *size)", "ws2_32")
@refusing()
def getsockopt(thread: Thread, handle: int, level: int, name: int, value: int, size: int) -> None:
    """Of the same."""
    found = sockets.of(thread, handle)
    data = struct.pack("<I", _option(found, level, name & MASK_32) & MASK_32)
    if level == SOL_SOCKET and name == SO_LINGER:
        on, seconds = struct.unpack("ii", found.host.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
        data = struct.pack("<HH", bool(on), seconds)
    room = thread.memory.u32(size)
    if room < 1:
        raise SocketError(WSAEFAULT)
    thread.memory.write(value, data[:room])
    thread.memory.set_u32(size, min(room, 4))


def _option(found: Socket, level: int, name: int) -> int:
    if level == SOL_SOCKET:
        own = {SO_RCVTIMEO: found.receive_ms, SO_SNDTIMEO: found.send_ms, SO_TYPE: int(found.host.type),
               SO_EXCLUSIVEADDRUSE: 0, SO_LINGER: 0}  # fmt: skip
        if name in own:
            return own[name]
        if name == SO_ERROR:
            number = found.host.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return sockets.unreachable(of_errno(number)) if number else 0
        if name == SO_ACCEPTCONN:
            return found.host.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (level, name) not in OPTIONS:
        raise SocketError(WSAENOPROTOOPT)
    host_level, host_name, _ = OPTIONS[level, name]
    return found.host.getsockopt(host_level, host_name)


@api("USHORT htons(USHORT value)", "ws2_32")
def htons(thread: Thread, value: int) -> int:
    """Bytes in the other order."""
    return value >> 8 | (value & 0xFF) << 8


@api("USHORT ntohs(USHORT value)", "ws2_32")
def ntohs(thread: Thread, value: int) -> int:
    """Bytes in the other order."""
    return htons(thread, value)


@api("ULONG htonl(ULONG value)", "ws2_32")
def htonl(thread: Thread, value: int) -> int:
    """Bytes in the other order."""
    return int.from_bytes(value.to_bytes(4, "little"), "big")


@api("ULONG ntohl(ULONG value)", "ws2_32")
def ntohl(thread: Thread, value: int) -> int:
    """Bytes in the other order."""
    return htonl(thread, value)


# WSAPROTOCOL_INFOW: flags of the service, its family and kind, its name (winsock2.h)
PROTOCOL_SIZE: Final = 628
XP1_STREAM, XP1_DATAGRAM = 0x0002_0066, 0x0002_0609
PFL_MATCHES_PROTOCOL_ZERO: Final = 8
PROTOCOLS: Final = (
    (AF_INET, SOCK_STREAM, 6, XP1_STREAM, "MSAFD Tcpip [TCP/IP]"), (AF_INET, SOCK_DGRAM, 17, XP1_DATAGRAM,
    "MSAFD Tcpip [UDP/IP]"), (AF_INET6, SOCK_STREAM, 6, XP1_STREAM, "MSAFD Tcpip [TCP/IPv6]"),
    (AF_INET6, SOCK_DGRAM, 17, XP1_DATAGRAM, "MSAFD Tcpip [UDP/IPv6]"),
)  # fmt: skip


@api("int WSAEnumProtocolsW(LPVOID wanted, LPVOID buffer, LPDWORD size)", "ws2_32")
@refusing()
def wsa_enum_protocols_w(thread: Thread, wanted: int, buffer: int, size: int) -> int:
    """TCP and UDP over IPv4 and IPv6; how many."""
    numbers: set[int] = set()
    while wanted and len(numbers) < 64 and (number := thread.memory.u32(wanted)):
        numbers.add(number)
        wanted += 4
    made = []
    for index, (family, kind, protocol, flags, name) in enumerate(PROTOCOLS):
        if numbers and protocol not in numbers:
            continue
        length = 16 if family == AF_INET else 28
        chain = struct.pack("<I", 1) + bytes(28)
        head = struct.pack("<IIIII", flags, 0, 0, 0, PFL_MATCHES_PROTOCOL_ZERO) + bytes(16)
        head += struct.pack("<I", 1001 + index) + chain
        head += struct.pack("<iiiiiiiiiII", 2, family, length, length, kind, protocol, 0, 0, 0, 0, 0)
        made.append(head + name.encode("utf-16-le").ljust(512, b"\0"))
    data = b"".join(made)
    room = thread.memory.u32(size)
    thread.memory.set_u32(size, len(data))
    if room < len(data) or not buffer:
        raise SocketError(WSAENOBUFS)
    thread.memory.write(buffer, data)
    return len(made)
