"""Winsock over the host's loopback interface."""

import struct
import threading
import uuid
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.win32.fake_engine import FakeEngine, call, new_thread, room, wide
from virtus.personalities.win32 import (
    completion,
    name_resolution,
    nt_files,
    socket_addresses,
    socket_overlapped,
    socket_polls,
    socket_transfer,
    winsock,
)
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.socket_addresses import AF_INET, AF_INET6, BadAddress
from virtus.personalities.win32.sockets import Socket

INVALID, ERROR = 2**64 - 1, -1
MODULES = (completion, name_resolution, nt_files, socket_polls, socket_overlapped, socket_transfer, winsock)
FIONBIO, FIONREAD = 0x8004667E - 2**32, 0x4004667F


@pytest.fixture
def thread() -> Iterator[Thread]:
    thread = new_thread()
    assert call(thread, "WSAStartup", 0x0202, room(thread, 408)) == 0
    yield thread
    for object in thread.process.handles.objects():
        if isinstance(object, Socket):
            object.closed()


def beside(thread: Thread, body: Callable[[Thread], object]) -> threading.Thread:
    engine = thread.engine
    assert isinstance(engine, FakeEngine)
    other = Thread(thread.process, engine.memory.map(0, 0x2000, 3), thread.process.new_ident())
    host = threading.Thread(target=body, args=(other,), daemon=True)
    host.start()
    return host


def address(thread: Thread, port: int) -> int:
    return room(thread, struct.pack("<H", AF_INET) + port.to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8))


def listening(thread: Thread) -> tuple[int, int]:
    handle = call(thread, "socket", AF_INET, 1, 0)
    assert handle != INVALID
    assert call(thread, "bind", handle, address(thread, 0), 16) == 0
    assert call(thread, "listen", handle, 5) == 0
    name, size = room(thread, 28), room(thread, struct.pack("<I", 28))
    assert call(thread, "getsockname", handle, name, size) == 0
    assert thread.memory.u32(size) == 16
    return handle, int.from_bytes(thread.memory.read(name + 2, 2), "big")


def connected(thread: Thread) -> tuple[int, int]:
    server, port = listening(thread)
    client = call(thread, "socket", AF_INET, 1, 6)
    assert call(thread, "connect", client, address(thread, port), 16) == 0
    other = call(thread, "accept", server, 0, 0)
    assert other != INVALID
    assert call(thread, "closesocket", server) == 0
    return client, other


def test_without_a_start_there_are_no_sockets() -> None:
    thread = new_thread()
    assert call(thread, "socket", AF_INET, 1, 0) == INVALID
    assert call(thread, "WSAGetLastError") == 10093
    assert call(thread, "WSACleanup") == ERROR


def test_a_connection_carries_data_both_ways(thread: Thread) -> None:
    client, server = connected(thread)
    data, buffer = room(thread, b"hello"), room(thread, 64)
    assert call(thread, "send", client, data, 5, 0) == 5
    assert call(thread, "recv", server, buffer, 64, 2) == 5
    assert call(thread, "recv", server, buffer, 64, 0) == 5
    assert thread.memory.read(buffer, 5) == b"hello"
    got: list[int] = []
    host = beside(thread, lambda other: got.append(call(other, "recv", client, buffer, 64, 0)))
    assert call(thread, "send", server, room(thread, b"back"), 4, 0) == 4
    host.join(20)
    assert got == [4]
    assert call(thread, "shutdown", server, 1) == 0
    assert call(thread, "recv", client, buffer, 64, 0) == 0
    assert call(thread, "closesocket", client) == 0
    assert call(thread, "recv", client, buffer, 64, 0) == ERROR
    assert thread.last_error == 10038


def test_a_large_message_is_sent_whole(thread: Thread) -> None:
    client, server = connected(thread)
    size = 2_000_000
    data, buffer = room(thread, bytes(range(250)) * (size // 250)), room(thread, size)
    host = beside(thread, lambda other: call(other, "send", client, data, size, 0))
    assert call(thread, "recv", server, buffer, size, 8) == size
    host.join(20)
    assert thread.memory.read(buffer, size) == thread.memory.read(data, size)


def test_a_socket_that_does_not_block(thread: Thread) -> None:
    client, server = connected(thread)
    one, buffer = room(thread, struct.pack("<I", 1)), room(thread, 16)
    assert call(thread, "ioctlsocket", client, FIONBIO, one) == 0
    assert call(thread, "recv", client, buffer, 16, 0) == ERROR
    assert thread.last_error == 10035
    timeout = room(thread, struct.pack("<I", 2))
    assert call(thread, "setsockopt", server, 0xFFFF, 0x1006, timeout, 4) == 0
    assert call(thread, "recv", server, buffer, 16, 0) == ERROR
    assert thread.last_error == 10060
    call(thread, "send", server, room(thread, b"abc"), 3, 0)
    readable = room(thread, struct.pack("<IIQQ", 2, 0, client, server))
    assert call(thread, "select", 0, readable, 0, 0, 0) == 1
    assert struct.unpack("<I4xQ", thread.memory.read(readable, 16)) == (1, client)
    assert call(thread, "__WSAFDIsSet", server, readable) == 0
    assert call(thread, "ioctlsocket", client, FIONREAD, buffer) == 0
    assert thread.memory.u32(buffer) == 3
    entries = room(thread, struct.pack("<QhhxxxxQhhxxxx", client, 0x110, 0, server, 0x100, 0))
    assert call(thread, "WSAPoll", entries, 2, 0) == 1
    assert thread.memory.u16(entries + 10) == 0x110
    assert call(thread, "select", 0, 0, 0, 0, 0) == ERROR


def test_several_buffers(thread: Thread) -> None:
    client, server = connected(thread)
    count, flags = room(thread, 4), room(thread, 4)
    parts = [room(thread, b"ab"), room(thread, b"cde")]
    buffers = room(thread, struct.pack("<I4xQI4xQ", 2, parts[0], 3, parts[1]))
    assert call(thread, "WSASend", client, buffers, 2, count, 0, 0, 0) == 0
    assert thread.memory.u32(count) == 5
    target = [room(thread, 4), room(thread, 10)]
    buffers = room(thread, struct.pack("<I4xQI4xQ", 4, target[0], 10, target[1]))
    assert call(thread, "WSARecv", server, buffers, 2, count, flags, 0, 0) == 0
    assert thread.memory.read(target[0], 4) + thread.memory.read(target[1], 1) == b"abcde"


def test_closing_a_socket_ends_what_goes_on(thread: Thread) -> None:
    client, server = connected(thread)
    port = call(thread, "CreateIoCompletionPort", client, 0, 5, 0)
    block, flags = room(thread, 32), room(thread, 4)
    parts = room(thread, struct.pack("<I4xQ", 4, room(thread, 4)))
    assert call(thread, "WSARecv", client, parts, 1, 0, flags, block, 0) == ERROR
    assert call(thread, "closesocket", client) == 0
    assert completed(thread, port)[:2] == (5, block)
    assert call(thread, "recv", server, block, 4, 0) == 0


def test_nobody_listens(thread: Thread) -> None:
    server, port = listening(thread)
    assert call(thread, "closesocket", server) == 0
    client = call(thread, "WSASocketW", AF_INET, 1, 0, 0, 0, 1)
    assert call(thread, "connect", client, address(thread, port), 16) == ERROR
    assert thread.last_error == 10061


def test_datagrams(thread: Thread) -> None:
    one, two = (call(thread, "socket", AF_INET, 2, 17) for _ in range(2))
    assert call(thread, "bind", one, address(thread, 0), 16) == 0
    name, size, buffer = room(thread, 16), room(thread, struct.pack("<I", 16)), room(thread, 64)
    call(thread, "getsockname", one, name, size)
    assert call(thread, "sendto", two, room(thread, b"datagram"), 8, 0, name, 16) == 8
    assert call(thread, "recvfrom", one, buffer, 64, 0, name, size) == 8
    assert call(thread, "sendto", two, room(thread, b"datagram"), 8, 0, address(thread, 0), 16) == ERROR
    call(thread, "getsockname", one, name, size)
    call(thread, "sendto", two, room(thread, b"datagram"), 8, 0, name, 16)
    assert call(thread, "recvfrom", one, buffer, 4, 0, 0, 0) == ERROR
    assert thread.last_error == 10040


def test_options(thread: Thread) -> None:
    handle = call(thread, "socket", AF_INET6, 1, 0)
    value, size = room(thread, struct.pack("<I", 1)), room(thread, struct.pack("<I", 4))
    assert call(thread, "setsockopt", handle, 6, 1, value, 4) == 0
    assert call(thread, "getsockopt", handle, 6, 1, value, size) == 0
    assert thread.memory.u32(value) == 1
    assert call(thread, "getsockopt", handle, 0xFFFF, 0x1008, value, size) == 0
    assert thread.memory.u32(value) == 1
    assert call(thread, "getsockopt", handle, 0xFFFF, 0x7777, value, size) == ERROR
    assert thread.last_error == 10042
    assert call(thread, "socket", 17, 1, 0) == INVALID
    assert thread.last_error == 10047


def test_events_of_sockets(thread: Thread) -> None:
    client, server = connected(thread)
    event, result = call(thread, "WSACreateEvent"), room(thread, 44)
    assert call(thread, "WSAEventSelect", client, event, 1 | 32) == 0
    events = room(thread, struct.pack("<Q", event))
    assert call(thread, "WSAWaitForMultipleEvents", 1, events, 0, 1, 0) == 0x102
    call(thread, "send", server, room(thread, b"x"), 1, 0)
    assert call(thread, "WSAWaitForMultipleEvents", 1, events, 0, 0xFFFF_FFFF, 0) == 0
    assert call(thread, "WSAEnumNetworkEvents", client, event, result) == 0
    assert thread.memory.u32(result) == 1
    call(thread, "recv", client, result, 1, 0)
    call(thread, "closesocket", server)
    assert call(thread, "WSAWaitForMultipleEvents", 1, events, 0, 0xFFFF_FFFF, 0) == 0
    assert call(thread, "WSAEnumNetworkEvents", client, event, result) == 0
    assert thread.memory.u32(result) == 32


def test_names(thread: Thread) -> None:
    result = room(thread, 8)
    hints = room(thread, struct.pack("<iiii", 4, AF_INET, 1, 0) + bytes(32))
    assert call(thread, "getaddrinfo", room(thread, b"127.0.0.1\0"), room(thread, b"80\0"), hints, result) == 0
    first = thread.memory.u64(result)
    _, family, kind, _, size, _, place, following = struct.unpack("<iiiiQQQQ", thread.memory.read(first, 48))
    assert (family, kind, size, following) == (AF_INET, 1, 16, 0)
    assert socket_addresses.unpack(thread.memory.read(place, 16)) == (AF_INET, ("127.0.0.1", 80))
    call(thread, "freeaddrinfo", first)
    assert call(thread, "GetAddrInfoW", wide(thread, "not an address"), 0, hints, result) == 11001
    assert call(thread, "inet_addr", room(thread, b"1.2.3.4\0")) == 0x04030201
    entry = call(thread, "gethostbyname", room(thread, b"127.0.0.1\0"))
    addresses = thread.memory.u64(entry + 24)
    assert thread.memory.read(thread.memory.u64(addresses), 4) == bytes([127, 0, 0, 1])
    assert call(thread, "inet_pton", AF_INET6, room(thread, b"::1\0"), hints) == 1
    assert call(thread, "inet_ntop", AF_INET6, hints, result - 0, 2) == 0
    assert [call(thread, "htons", 0x1234), call(thread, "htonl", 0x12345678)] == [0x3412, 0x78563412]


@given(st.binary(max_size=40))
def test_any_bytes_are_an_address_or_none(data: bytes) -> None:
    try:
        family, where = socket_addresses.unpack(data)
    except BadAddress:
        return
    again = socket_addresses.pack(family, where)
    assert again[:8] == data[:8] or family == AF_INET6
    assert socket_addresses.unpack(again) == (family, where)


def extension(thread: Thread, handle: int, identifier: str) -> str:
    guid, result = room(thread, uuid.UUID(identifier).bytes_le), room(thread, 8)
    count = room(thread, 4)
    assert call(thread, "WSAIoctl", handle, 0xC8000006, guid, 16, result, 8, count, 0, 0) == 0
    engine = thread.engine
    assert isinstance(engine, FakeEngine)
    return next(name for name, address in engine.names.items() if address == thread.memory.u64(result))


def completed(thread: Thread, port: int) -> tuple[int, int, int, int]:
    entries, count = room(thread, 32), room(thread, 4)
    assert call(thread, "GetQueuedCompletionStatusEx", port, entries, 1, count, 0xFFFF_FFFF, 0) == 1
    key, overlapped, status, size = struct.unpack("<QQQI", thread.memory.read(entries, 28))
    return key, overlapped, status, size


def test_overlapped_operations_end_through_a_port(thread: Thread) -> None:
    port = call(thread, "CreateIoCompletionPort", INVALID, 0, 0, 0)
    server, number = listening(thread)
    client, accepted = (call(thread, "WSASocketW", AF_INET, 1, 6, 0, 0, 1) for _ in range(2))
    for key, handle in ((1, server), (2, client), (3, accepted)):
        assert call(thread, "CreateIoCompletionPort", handle, port, key, 0) == port
    blocks = [room(thread, 32) for _ in range(4)]
    accept_ex = extension(thread, server, "b5367df1-cbac-11cf-95ca-00805f48a192")
    connect_ex = extension(thread, client, "25a207b9-ddf3-4660-8ee9-76e58c74063e")
    assert (accept_ex, connect_ex) == ("AcceptEx", "ConnectEx")
    buffer = room(thread, 64)
    assert call(thread, "AcceptEx", server, accepted, buffer, 0, 32, 32, 0, blocks[0]) == 0
    assert thread.last_error == 997
    assert call(thread, "bind", client, address(thread, 0), 16) == 0
    connecting = call(thread, "ConnectEx", client, address(thread, number), 16, 0, 0, 0, blocks[1])
    assert connecting or thread.last_error == 997
    done = sorted(completed(thread, port) for _ in range(2))
    assert done == [(1, blocks[0], 0, 0), (2, blocks[1], 0, 0)]
    assert call(thread, "setsockopt", client, 0xFFFF, 0x7010, 0, 0) == 0
    local, remote, sizes = room(thread, 8), room(thread, 8), [room(thread, 4), room(thread, 4)]
    call(thread, "GetAcceptExSockaddrs", buffer, 0, 32, 32, local, sizes[0], remote, sizes[1])
    assert thread.memory.read(thread.memory.u64(local) + 2, 2) == number.to_bytes(2, "big")
    into, flags = room(thread, 16), room(thread, 4)
    parts = room(thread, struct.pack("<I4xQ", 16, into))
    assert call(thread, "WSARecv", accepted, parts, 1, 0, flags, blocks[2], 0) == ERROR
    assert thread.last_error == 997
    source = room(thread, struct.pack("<I4xQ", 5, room(thread, b"hello")))
    assert call(thread, "WSASend", client, source, 1, 0, 0, blocks[3], 0) == 0
    assert {completed(thread, port) for _ in range(2)} == {(2, blocks[3], 0, 5), (3, blocks[2], 0, 5)}
    assert thread.memory.read(into, 5) == b"hello"
    count = room(thread, 4)
    assert call(thread, "WSAGetOverlappedResult", accepted, blocks[2], count, 0, flags) == 1
    assert thread.memory.u32(count) == 5
    assert call(thread, "WSARecv", accepted, parts, 1, 0, flags, blocks[2], 0) == ERROR
    assert call(thread, "CancelIoEx", accepted, blocks[2]) == 1
    assert completed(thread, port)[:2] == (3, blocks[2])


class EventLoop:
    """What mio and libuv do: a port, the device behind sockets, and one poll at a time of each socket."""

    def __init__(self, thread: Thread) -> None:
        self.thread = thread
        name = "\\Device\\Afd\\Mio".encode("utf-16-le")
        text = room(thread, struct.pack("<HHIQ", len(name), len(name), 0, room(thread, name)))
        attributes = room(thread, struct.pack("<IIQQIIQQ", 48, 0, 0, text, 0, 0, 0, 0))
        device, block = room(thread, 8), room(thread, 16)
        arguments = (device, 0x100000, attributes, block, 0, 0, 3, 1, 0, 0, 0)
        assert call(thread, "NtCreateFile", *arguments) == 0
        self.device = thread.memory.u64(device)
        self.port = call(thread, "CreateIoCompletionPort", INVALID, 0, 0, 0)
        assert call(thread, "CreateIoCompletionPort", self.device, self.port, 77, 0) == self.port
        assert call(thread, "SetFileCompletionNotificationModes", self.device, 2) == 1

    def poll(self, handle: int, events: int, timeout: int = 2**63 - 1) -> tuple[int, int]:
        """A request's status and its block, which the information follows."""
        block = room(self.thread, bytes(16) + struct.pack("<qIIQII", timeout, 1, 0, handle, events, 0))
        words = (self.device, 0, 0, block, block, 0x12024, block + 16, 32, block + 16, 32)
        return call(self.thread, "NtDeviceIoControlFile", *words) & 0xFFFF_FFFF, block

    def completed(self, block: int) -> tuple[int, int]:
        """The status and the events of the next request that is completed, which is that one."""
        entries, count = room(self.thread, 64), room(self.thread, 4)
        assert call(self.thread, "GetQueuedCompletionStatusEx", self.port, entries, 2, count, 20_000, 0) == 1
        key, overlapped = struct.unpack("<QQ", self.thread.memory.read(entries, 16))
        assert (key, overlapped, self.thread.memory.u32(count)) == (77, block, 1)
        return self.thread.memory.u64(block) & 0xFFFF_FFFF, self.thread.memory.u32(block + 16 + 24)


RECEIVE, SEND, DISCONNECT, LOCAL_CLOSE, ACCEPT, CONNECT_FAIL, PENDING = 1, 4, 8, 0x20, 0x80, 0x100, 0x103


def test_an_event_loop_polls_sockets_by_their_device(thread: Thread) -> None:
    loop = EventLoop(thread)
    server, port = listening(thread)
    status, waiting = loop.poll(server, ACCEPT)
    assert status == PENDING
    client = call(thread, "socket", AF_INET, 1, 6)
    assert call(thread, "ioctlsocket", client, FIONBIO, room(thread, struct.pack("<I", 1))) == 0
    call(thread, "connect", client, address(thread, port), 16)
    assert loop.completed(waiting) == (0, ACCEPT)
    status, sending = loop.poll(client, SEND | CONNECT_FAIL)
    assert status in (0, PENDING)
    assert loop.completed(sending) == (0, SEND)
    other = call(thread, "accept", server, 0, 0)
    status, reading = loop.poll(other, RECEIVE | DISCONNECT)
    assert status == PENDING
    assert call(thread, "send", client, room(thread, b"a"), 1, 0) == 1
    assert loop.completed(reading) == (0, RECEIVE)
    assert call(thread, "recv", other, room(thread, 8), 8, 0) == 1
    status, reading = loop.poll(other, RECEIVE | DISCONNECT)
    assert status == PENDING
    assert call(thread, "closesocket", client) == 0
    assert loop.completed(reading) == (0, RECEIVE | DISCONNECT)
    status, now = loop.poll(server, ACCEPT, timeout=0)
    assert status == 0
    assert loop.completed(now) == (0, 0)


def test_polls_of_sockets_end_with_them_or_when_cancelled(thread: Thread) -> None:
    loop = EventLoop(thread)
    server, _ = listening(thread)
    status, first = loop.poll(server, ACCEPT)
    assert status == PENDING
    assert call(thread, "NtCancelIoFileEx", loop.device, first, room(thread, 16)) == 0
    assert loop.completed(first)[0] == 0xC0000120  # STATUS_CANCELLED
    status, second = loop.poll(server, ACCEPT)
    assert status == PENDING
    assert call(thread, "closesocket", server) == 0
    assert loop.completed(second) == (0, LOCAL_CLOSE)
    assert loop.poll(server, ACCEPT)[0] == 0xC0000008  # STATUS_INVALID_HANDLE
    closed = call(thread, "socket", AF_INET, 1, 6)
    assert call(thread, "ioctlsocket", closed, FIONBIO, room(thread, struct.pack("<I", 1))) == 0
    call(thread, "connect", closed, address(thread, 1), 16)
    status, third = loop.poll(closed, SEND | CONNECT_FAIL)
    assert status in (0, PENDING)
    assert loop.completed(third) == (0, CONNECT_FAIL)
    assert call(thread, "CloseHandle", loop.device) == 1
