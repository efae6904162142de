"""Names of hosts, services and interfaces: getaddrinfo and its older relatives."""

import socket
import struct
from typing import Any, Final

from virtus.personalities.win32 import heaps, socket_addresses, state
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.socket_addresses import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    FAMILIES,
    RESOLVER,
    WSAEFAULT,
    WSAEINVAL,
    WSAHOST_NOT_FOUND,
    BadAddress,
)
from virtus.personalities.win32.sockets import SOCKET_ERROR
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

ADDRINFO: Final = struct.Struct("<iiiiQQQQ")
AI_PASSIVE, AI_CANONNAME, AI_NUMERICHOST, AI_NUMERICSERV = 1, 2, 4, 8
HOST_FLAGS: Final = {
    AI_PASSIVE: socket.AI_PASSIVE, AI_CANONNAME: socket.AI_CANONNAME, AI_NUMERICHOST: socket.AI_NUMERICHOST,
    AI_NUMERICSERV: socket.AI_NUMERICSERV,
}  # fmt: skip
INADDR_NONE: Final = 0xFFFF_FFFF


def _find(thread: Thread, text: Text, node: int, service: int, hints: int, result: int) -> int:
    """getaddrinfo: 0, or the error itself."""
    host = text.read(thread.memory, node) if node else None
    port = text.read(thread.memory, service) if service else None
    flags = family = kind = protocol = 0
    if hints:
        flags, family, kind, protocol = struct.unpack("<iiii", thread.memory.read(hints, 16))
    if family not in (AF_UNSPEC, AF_INET, AF_INET6):
        return socket_addresses.WSAEAFNOSUPPORT
    host_flags = sum(value for bit, value in HOST_FLAGS.items() if flags & bit)
    try:
        found = socket.getaddrinfo(host or None, port, FAMILIES.get(family, 0), kind, protocol, host_flags)
    except socket.gaierror as error:
        return RESOLVER.get(error.errno or 0, WSAHOST_NOT_FOUND)
    except (OSError, UnicodeError, OverflowError):
        return WSAHOST_NOT_FOUND
    thread.memory.set_u64(result, _list(thread.process, text, found))
    return 0


def _list(process: Process, text: Text, found: list[Any]) -> int:
    """ADDRINFOs, each a block with its address and name behind it; the first one's address."""
    following = 0
    for family, kind, protocol, name, address in reversed(found):
        if family not in (socket.AF_INET, socket.AF_INET6):
            continue
        number = AF_INET if family == socket.AF_INET else AF_INET6
        data = socket_addresses.pack(number, address)
        words = text.encode(name + "\0") if name else b""
        block = heaps.allocate(process, bytes(ADDRINFO.size + len(data) + len(words)))
        place = block + ADDRINFO.size
        head = ADDRINFO.pack(
            0, number, int(kind), protocol, len(data), place + len(data) if words else 0, place, following
        )  # fmt: skip
        process.memory.write(block, head + data + words)
        following = block
    return following


def _free(thread: Thread, first: int) -> None:
    while first:
        following = thread.memory.u64(first + 40)
        if not heaps.free(thread.process, first):
            return
        first = following


@api("INT getaddrinfo(LPCSTR node, LPCSTR service, LPVOID hints, LPVOID *result)", "ws2_32")
def getaddrinfo(thread: Thread, node: int, service: int, hints: int, result: int) -> int:
    """The error itself, 0 for none."""
    return _failed(thread, _find(thread, ANSI, node, service, hints, result))


@api("INT GetAddrInfoW(LPCWSTR node, LPCWSTR service, LPVOID hints, LPVOID *result)", "ws2_32")
def get_addr_info_w(thread: Thread, node: int, service: int, hints: int, result: int) -> int:
    """The error itself, 0 for none."""
    return _failed(thread, _find(thread, WIDE, node, service, hints, result))


def _failed(thread: Thread, error: int) -> int:
    if error:
        thread.last_error = error
    return error


@api("void freeaddrinfo(LPVOID first)", "ws2_32")
def freeaddrinfo(thread: Thread, first: int) -> None:
    """What getaddrinfo gave."""
    _free(thread, first)


@api("void FreeAddrInfoW(LPVOID first)", "ws2_32")
def free_addr_info_w(thread: Thread, first: int) -> None:
    """What GetAddrInfoW gave."""
    _free(thread, first)


@api("int gethostname(LPSTR buffer, int capacity)", "ws2_32")
def gethostname(thread: Thread, buffer: int, capacity: int) -> int:
    """The host's name."""
    name = socket.gethostname().encode() + b"\0"
    if capacity < len(name):
        return thread.fail(WSAEFAULT, SOCKET_ERROR)
    thread.memory.write(buffer, name)
    return 0


@api("int GetHostNameW(LPWSTR buffer, int capacity)", "ws2_32")
def get_host_name_w(thread: Thread, buffer: int, capacity: int) -> int:
    """The host's name."""
    name = WIDE.encode(socket.gethostname() + "\0")
    if 2 * capacity < len(name):
        return thread.fail(WSAEFAULT, SOCKET_ERROR)
    thread.memory.write(buffer, name)
    return 0


class HostEntry:
    """Where a thread's last hostent lies, which the next call overwrites."""

    def __init__(self) -> None:
        self.block = 0


@api("LPVOID gethostbyname(LPCSTR name)", "ws2_32")
def gethostbyname(thread: Thread, name: int) -> int:
    """A hostent of IPv4 addresses, valid until the thread's next call."""
    try:
        wanted = ANSI.read(thread.memory, name) if name else socket.gethostname()
        _, _, addresses = socket.gethostbyname_ex(wanted)
    except (OSError, UnicodeError):
        return thread.fail(WSAHOST_NOT_FOUND)
    words = wanted.encode() + b"\0"
    count = len(addresses)
    # hostent, its name, an empty list of aliases, the list of addresses, the addresses
    head, aliases = 32, 8
    size = head + aliases + 8 * (count + 1) + 4 * count + len(words)
    entry = state.of(thread, HostEntry)
    heaps.free(thread.process, entry.block)
    block = entry.block = heaps.allocate(thread.process, bytes(size))
    lists = block + head + aliases
    data = lists + 8 * (count + 1)
    text = data + 4 * count
    made = struct.pack("<QQhh4xQ", text, block + head, AF_INET, 4, lists) + bytes(aliases)
    made += struct.pack(f"<{count + 1}Q", *(data + 4 * place for place in range(count)), 0)
    made += b"".join(socket.inet_aton(address) for address in addresses) + words
    thread.memory.write(block, made)
    return block


@api("ULONG inet_addr(LPCSTR text)", "ws2_32")
def inet_addr(thread: Thread, text: int) -> int:
    """INADDR_NONE for what is none."""
    try:
        return int.from_bytes(socket.inet_aton(thread.memory.string(text).decode("ascii")), "little")
    except (OSError, UnicodeError):
        return INADDR_NONE


def _to_number(thread: Thread, text: Text, family: int, address: int, result: int) -> int:
    if family not in FAMILIES:
        return thread.fail(socket_addresses.WSAEAFNOSUPPORT, SOCKET_ERROR)
    try:
        data = socket.inet_pton(FAMILIES[family], text.read(thread.memory, address))
    except (OSError, UnicodeError, ValueError):
        return 0
    thread.memory.write(result, data)
    return 1


@api("INT inet_pton(INT family, LPCSTR text, LPVOID result)", "ws2_32")
def inet_pton(thread: Thread, family: int, text: int, result: int) -> int:
    """1, or 0 for what is no address."""
    return _to_number(thread, ANSI, family, text, result)


@api("INT InetPtonW(INT family, LPCWSTR text, LPVOID result)", "ws2_32")
def inet_pton_w(thread: Thread, family: int, text: int, result: int) -> int:
    """1, or 0 for what is no address."""
    return _to_number(thread, WIDE, family, text, result)


def _to_text(thread: Thread, text: Text, family: int, address: int, buffer: int, capacity: int) -> int:
    if family not in FAMILIES:
        return thread.fail(socket_addresses.WSAEAFNOSUPPORT)
    data = thread.memory.read(address, 4 if family == AF_INET else 16)
    words = text.encode(socket.inet_ntop(FAMILIES[family], data) + "\0")
    if len(words) > capacity * text.unit:
        return thread.fail(WSAEINVAL)
    thread.memory.write(buffer, words)
    return buffer


@api("LPCSTR inet_ntop(INT family, LPCVOID address, LPSTR buffer, size_t capacity)", "ws2_32")
def inet_ntop(thread: Thread, family: int, address: int, buffer: int, capacity: int) -> int:
    """The buffer, 0 for an error."""
    return _to_text(thread, ANSI, family, address, buffer, capacity)


@api("LPCWSTR InetNtopW(INT family, LPCVOID address, LPWSTR buffer, size_t capacity)", "ws2_32")
def inet_ntop_w(thread: Thread, family: int, address: int, buffer: int, capacity: int) -> int:
    """The buffer, 0 for an error."""
    return _to_text(thread, WIDE, family, address, buffer, capacity)


@api("INT getnameinfo(LPVOID address, int size, LPSTR host, DWORD host_size, LPSTR service, DWORD service_size,"
     " INT flags)", "ws2_32")  # fmt: skip
def getnameinfo(
    thread: Thread, address: int, size: int, host: int, host_size: int, service: int, service_size: int, flags: int
) -> int:
    """Names, or with NI_NUMERICHOST (2) and NI_NUMERICSERV (8) numbers."""
    try:
        _, where = socket_addresses.unpack(thread.memory.read(address, max(0, min(size, 128))))
        host_flags = (socket.NI_NUMERICHOST if flags & 2 else 0) | (socket.NI_NUMERICSERV if flags & 8 else 0)
        names = socket.getnameinfo(where, host_flags)
    except BadAddress:
        return WSAEFAULT
    except OSError:
        return WSAHOST_NOT_FOUND
    for name, buffer, room in zip(names, (host, service), (host_size, service_size), strict=True):
        data = name.encode() + b"\0"
        if buffer and len(data) <= room:
            thread.memory.write(buffer, data)
        elif buffer:
            return WSAEFAULT
    return 0


@api("DWORD if_nametoindex(LPCSTR name)", "iphlpapi")
def if_nametoindex(thread: Thread, name: int) -> int:
    """0 for an unknown one."""
    try:
        return socket.if_nametoindex(ANSI.read(thread.memory, name))
    except OSError:
        return 0
