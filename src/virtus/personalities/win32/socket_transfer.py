"""Winsock's sending and receiving, and waiting for several sockets: select, WSAPoll, event objects."""

import select as host_select
import socket
import struct
import time
from functools import partial
from typing import Any, Final

from virtus.personalities.win32 import socket_addresses, socket_overlapped, sockets
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.socket_addresses import (
    SOCK_DGRAM,
    WSAEINVAL,
    WSAEMSGSIZE,
    WSAEOPNOTSUPP,
)
from virtus.personalities.win32.sockets import READ, WRITE, Socket, SocketError
from virtus.personalities.win32.synchronisation import Event, new_event
from virtus.personalities.win32.table import api
from virtus.personalities.win32.waiting import INFINITE, object_of, wait_for_multiple_objects_ex
from virtus.personalities.win32.winsock import address_at, give_address, refusing

MSG_OOB, MSG_PEEK, MSG_WAITALL = 0x1, 0x2, 0x8
FLAGS: Final = {MSG_OOB: socket.MSG_OOB, MSG_PEEK: socket.MSG_PEEK}
LARGEST: Final = 1 << 24
MOST_BUFFERS: Final = 1024
MOST_SOCKETS: Final = 1024
HANGUP: Final = host_select.POLLHUP | host_select.POLLERR
# WSAPOLLFD (winsock2.h)
POLLERR, POLLHUP, POLLNVAL, POLLWRNORM, POLLRDNORM, POLLRDBAND = 0x1, 0x2, 0x4, 0x10, 0x100, 0x200
FD_READ, FD_WRITE, FD_OOB, FD_ACCEPT, FD_CONNECT, FD_CLOSE = 1, 2, 4, 8, 16, 32
EVENT_BITS: Final = 10


def _flags(flags: int) -> int:
    if flags & ~(MSG_OOB | MSG_PEEK | MSG_WAITALL):
        raise SocketError(WSAEOPNOTSUPP)
    return sum(host for bit, host in FLAGS.items() if flags & bit)


def _receive(thread: Thread, found: Socket, size: int, flags: int) -> tuple[bytes, Any]:
    """Data and the sender's address; a datagram too long for the buffer is an error."""
    host_flags = _flags(flags)
    size = min(size, LARGEST)
    if found.host.type == SOCK_DGRAM:

        def take() -> tuple[bytes, Any]:
            data, _, cut, sender = found.host.recvmsg(size, 0, host_flags)
            return (data, sender) if not cut & socket.MSG_TRUNC else (data, None)

        data, sender = sockets.attempt(thread, found, READ, found.receive_ms, take)
        if sender is None:
            raise SocketError(WSAEMSGSIZE)
        return data, sender
    data = sockets.attempt(thread, found, READ, found.receive_ms, lambda: found.host.recv(size, host_flags))
    while flags & MSG_WAITALL and data and len(data) < size:
        rest = partial(found.host.recv, size - len(data), host_flags)
        more = sockets.attempt(thread, found, READ, found.receive_ms, rest)
        if not more:
            break
        data += more
    return data, ()


def _send(thread: Thread, found: Socket, data: bytes, flags: int, address: Any = None) -> int:
    """Everything where the guest blocks, else what goes at once."""
    host_flags = _flags(flags) | socket.MSG_NOSIGNAL
    sent = 0
    while True:
        part = memoryview(data)[sent:]
        if address is not None:
            put = partial(found.host.sendto, part, host_flags, address)
        else:
            put = partial(found.host.send, part, host_flags)
        sent += sockets.attempt(thread, found, WRITE, found.send_ms, put)
        if sent >= len(data) or not found.blocking:
            return sent


@api("int send(SOCKET handle, LPCVOID data, int size, int flags)", "ws2_32")
@refusing()
def send(thread: Thread, handle: int, data: int, size: int, flags: int) -> int:
    """Bytes sent."""
    found = sockets.of(thread, handle)
    return _send(thread, found, thread.memory.read(data, max(0, min(size, LARGEST))), flags)


@api("int sendto(SOCKET handle, LPCVOID data, int size, int flags, LPVOID address, int address_size)", "ws2_32")
@refusing()
def sendto(thread: Thread, handle: int, data: int, size: int, flags: int, address: int, address_size: int) -> int:
    """To an address, if one is given."""
    found = sockets.of(thread, handle)
    target = address_at(thread, found, address, address_size) if address else None
    return _send(thread, found, thread.memory.read(data, max(0, min(size, LARGEST))), flags, target)


@api("int recv(SOCKET handle, LPVOID buffer, int size, int flags)", "ws2_32")
@refusing()
def recv(thread: Thread, handle: int, buffer: int, size: int, flags: int) -> int:
    """Bytes received, 0 at the end."""
    data, _ = _receive(thread, sockets.of(thread, handle), max(0, size), flags)
    thread.memory.write(buffer, data)
    return len(data)


@api("int recvfrom(SOCKET handle, LPVOID buffer, int size, int flags, LPVOID address, int *address_size)", "ws2_32")
@refusing()
def recvfrom(thread: Thread, handle: int, buffer: int, size: int, flags: int, address: int, address_size: int) -> int:
    """With the sender's address."""
    found = sockets.of(thread, handle)
    data, sender = _receive(thread, found, max(0, size), flags)
    thread.memory.write(buffer, data)
    if sender:
        give_address(thread, socket_addresses.pack(found.family, sender), address, address_size)
    return len(data)


def _buffers(thread: Thread, buffers: int, count: int) -> list[tuple[int, int]]:
    """WSABUFs: sizes and addresses."""
    if count > MOST_BUFFERS:
        raise SocketError(WSAEINVAL)
    data = thread.memory.read(buffers, 16 * count)
    return [struct.unpack_from("<I4xQ", data, 16 * place) for place in range(count)]


@api("int WSASend(SOCKET handle, LPVOID buffers, DWORD count, LPDWORD sent, DWORD flags, LPVOID overlapped,"
     " FARPROC routine)", "ws2_32")  # fmt: skip
@refusing()
def wsa_send(
    thread: Thread, handle: int, buffers: int, count: int, sent: int, flags: int, overlapped: int, routine: int
) -> None:
    """From several buffers."""
    found = sockets.of(thread, handle)
    data = b"".join(
        thread.memory.read(address, min(size, LARGEST)) for size, address in _buffers(thread, buffers, count)
    )
    if overlapped:
        socket_overlapped.send(thread, found, data, _flags(flags), None, overlapped, routine, sent)
        return
    number = _send(thread, found, data, flags)
    if sent:
        thread.memory.set_u32(sent, number)


@api("int WSASendTo(SOCKET handle, LPVOID buffers, DWORD count, LPDWORD sent, DWORD flags, LPVOID address,"
     " int address_size, LPVOID overlapped, FARPROC routine)", "ws2_32")  # fmt: skip
@refusing()
def wsa_send_to(
    thread: Thread, handle: int, buffers: int, count: int, sent: int, flags: int, address: int, address_size: int,
    overlapped: int, routine: int,
) -> None:  # fmt: skip
    """From several buffers to an address."""
    found = sockets.of(thread, handle)
    data = b"".join(thread.memory.read(place, min(size, LARGEST)) for size, place in _buffers(thread, buffers, count))
    target = address_at(thread, found, address, address_size) if address else None
    if overlapped:
        socket_overlapped.send(thread, found, data, _flags(flags), target, overlapped, routine, sent)
        return
    number = _send(thread, found, data, flags, target)
    if sent:
        thread.memory.set_u32(sent, number)


@api("int WSARecv(SOCKET handle, LPVOID buffers, DWORD count, LPDWORD received, LPDWORD flags, LPVOID overlapped,"
     " FARPROC routine)", "ws2_32")  # fmt: skip
def wsa_recv(
    thread: Thread, handle: int, buffers: int, count: int, received: int, flags: int, overlapped: int, routine: int
) -> int:
    """Into several buffers."""
    return int(wsa_recv_from(thread, handle, buffers, count, received, flags, 0, 0, overlapped, routine))


@api("int WSARecvFrom(SOCKET handle, LPVOID buffers, DWORD count, LPDWORD received, LPDWORD flags, LPVOID address,"
     " int *address_size, LPVOID overlapped, FARPROC routine)", "ws2_32")  # fmt: skip
@refusing()
def wsa_recv_from(
    thread: Thread, handle: int, buffers: int, count: int, received: int, flags: int, address: int, address_size: int,
    overlapped: int, routine: int,
) -> None:  # fmt: skip
    """Into several buffers, with the sender's address."""
    found = sockets.of(thread, handle)
    parts = _buffers(thread, buffers, count)
    if overlapped:
        host_flags = _flags(thread.memory.u32(flags) if flags else 0)
        where = address, address_size
        socket_overlapped.receive(thread, found, parts, host_flags, where, overlapped, routine, received)
        return
    data, sender = _receive(thread, found, sum(size for size, _ in parts), thread.memory.u32(flags) if flags else 0)
    socket_overlapped.scatter(thread, parts, data)
    if sender:
        give_address(thread, socket_addresses.pack(found.family, sender), address, address_size)
    if received:
        thread.memory.set_u32(received, len(data))
    if flags:
        thread.memory.set_u32(flags, 0)


def _set(thread: Thread, address: int) -> list[int]:
    """The sockets of an fd_set, which is a number and an array."""
    if not address:
        return []
    count = thread.memory.u32(address)
    if count > MOST_SOCKETS:
        raise SocketError(WSAEINVAL)
    return list(struct.unpack(f"<{count}Q", thread.memory.read(address + 8, 8 * count)))


@api("int select(int ignored, LPVOID readable, LPVOID writable, LPVOID failed, LPVOID timeout)", "ws2_32")
@refusing()
def select(thread: Thread, ignored: int, readable: int, writable: int, failed: int, timeout: int) -> int:
    """How many sockets are ready; the sets keep those."""
    places = (readable, writable, failed)
    sets = [_set(thread, address) for address in places]
    if not any(sets):
        raise SocketError(WSAEINVAL)
    wanted = [
        (sockets.of(thread, handle), mask)
        for handles, mask in zip(sets, (READ, WRITE, host_select.POLLPRI), strict=True)
        for handle in handles
    ]
    deadline = None
    if timeout:
        seconds, microseconds = struct.unpack("<ii", thread.memory.read(timeout, 8))
        deadline = time.monotonic_ns() + max(0, seconds) * 10**9 + max(0, microseconds) * 1000
    sockets.wait_for(thread, wanted, deadline)
    total = 0
    masks = (READ | HANGUP, WRITE, host_select.POLLPRI | host_select.POLLERR)
    for address, handles, mask in zip(places, sets, masks, strict=True):
        if not address:
            continue
        ready = [handle for handle in handles if _is_ready(sockets.of(thread, handle), mask)]
        thread.memory.set_u32(address, len(ready))
        thread.memory.write(address + 8, struct.pack(f"<{len(ready)}Q", *ready))
        total += len(ready)
    return total


def _is_ready(found: Socket, mask: int) -> bool:
    """Whether a socket is ready; one whose connecting failed is not writable but failed."""
    seen = found.ready(mask)
    if mask == WRITE and seen & host_select.POLLERR and found.connecting:
        return False
    return bool(seen & mask)


@api("int __WSAFDIsSet(SOCKET handle, LPVOID set)", "ws2_32")
@refusing(0)
def wsa_fd_is_set(thread: Thread, handle: int, set: int) -> int:
    """Whether a socket is in an fd_set."""
    return handle in _set(thread, set)


@api("int WSAPoll(LPVOID entries, ULONG count, INT milliseconds)", "ws2_32")
@refusing()
def wsa_poll(thread: Thread, entries: int, count: int, milliseconds: int) -> int:
    """How many have something to tell."""
    if not 0 < count <= MOST_SOCKETS:
        raise SocketError(WSAEINVAL)
    rows = [struct.unpack("<Qhh", thread.memory.read(entries + 16 * place, 12)) for place in range(count)]
    found = [thread.process.handles.get(handle) for handle, _, _ in rows]
    wanted = []
    for object, (_, events, _) in zip(found, rows, strict=True):
        if isinstance(object, Socket):
            mask = (READ if events & (POLLRDNORM | POLLRDBAND) else 0) | (WRITE if events & POLLWRNORM else 0)
            wanted.append((object, mask))
    deadline = None if milliseconds < 0 else time.monotonic_ns() + milliseconds * 1_000_000
    if len(wanted) == count:
        sockets.wait_for(thread, wanted, deadline)
    total = 0
    for place, object in enumerate(found):
        result = POLLNVAL
        if isinstance(object, Socket):
            events = rows[place][1]
            seen = object.ready((READ if events & POLLRDNORM else 0) | (WRITE if events & POLLWRNORM else 0))
            result = (POLLRDNORM if seen & READ else 0) | (POLLWRNORM if seen & WRITE else 0)
            result |= (POLLERR if seen & host_select.POLLERR else 0) | (POLLHUP if seen & host_select.POLLHUP else 0)
        thread.memory.set_u16(entries + 16 * place + 10, result)
        total += bool(result)
    return total


@api("HANDLE WSACreateEvent(void)", "ws2_32")
def wsa_create_event(thread: Thread) -> int:
    """An event that is reset by hand."""
    return new_event(thread.process, manual=True, initial=False)


def _event(thread: Thread, handle: int, *, set: bool) -> int:
    found = object_of(thread, handle)
    if not isinstance(found, Event):
        return thread.fail(6)
    found.is_set = set
    thread.engine.wake()
    return 1


@api("BOOL WSASetEvent(HANDLE event)", "ws2_32")
def wsa_set_event(thread: Thread, event: int) -> int:
    """As SetEvent."""
    return _event(thread, event, set=True)


@api("BOOL WSAResetEvent(HANDLE event)", "ws2_32")
def wsa_reset_event(thread: Thread, event: int) -> int:
    """As ResetEvent."""
    return _event(thread, event, set=False)


@api("BOOL WSACloseEvent(HANDLE event)", "ws2_32")
def wsa_close_event(thread: Thread, event: int) -> int:
    """As CloseHandle."""
    return int(thread.process.handles.close(event))


def _network_events(found: Socket) -> int:
    """FD_* of what is there now, of what the socket was selected for and has not been reported."""
    seen, mask = found.ready(READ | WRITE), found.event_mask
    events = 0
    if seen & READ:
        listening = found.host.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listening:
            events |= FD_ACCEPT
        else:
            try:
                ended = found.host.type != SOCK_DGRAM and not found.host.recv(1, socket.MSG_PEEK)
            except OSError:
                ended = True
            events |= FD_CLOSE if ended else FD_READ
    if seen & (WRITE | host_select.POLLERR):
        events |= FD_WRITE | (FD_CONNECT if found.connecting else 0)
    return events & mask & ~(found.reported & (FD_WRITE | FD_CLOSE | FD_CONNECT))


@api("int WSAEventSelect(SOCKET handle, HANDLE event, LONG mask)", "ws2_32")
@refusing()
def wsa_event_select(thread: Thread, handle: int, event: int, mask: int) -> None:
    """Set an event when something happens to a socket, which does not block from now on."""
    found = sockets.of(thread, handle)
    target = object_of(thread, event) if event else None
    if event and not isinstance(target, Event):
        raise SocketError(WSAEINVAL)
    found.blocking = False
    found.event, found.event_mask, found.reported = target, mask, 0


@api("int WSAEnumNetworkEvents(SOCKET handle, HANDLE event, LPVOID result)", "ws2_32")
@refusing()
def wsa_enum_network_events(thread: Thread, handle: int, event: int, result: int) -> None:
    """What has happened, with an error for each kind; resets the event."""
    found = sockets.of(thread, handle)
    events, codes = _network_events(found), [0] * EVENT_BITS
    if events & FD_CONNECT:
        number = found.host.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        codes[4] = sockets.unreachable(socket_addresses.of_errno(number)) if number else 0
        found.connecting = False
    found.reported |= events
    if event:
        _event(thread, event, set=False)
    thread.memory.write(result, struct.pack(f"<i{EVENT_BITS}i", events, *codes))


@api("DWORD WSAWaitForMultipleEvents(DWORD count, const HANDLE *events, BOOL every, DWORD milliseconds,"
     " BOOL alertable)", "ws2_32")  # fmt: skip
def wsa_wait_for_multiple_events(
    thread: Thread, count: int, events: int, every: int, milliseconds: int, alertable: int
) -> int:
    """As WaitForMultipleObjectsEx, and while waiting what happens to sockets sets their events."""
    deadline = None if milliseconds == INFINITE else time.monotonic_ns() + milliseconds * 1_000_000
    while True:
        selected = [
            one for one in thread.process.handles.objects() if isinstance(one, Socket) and one.event is not None
        ]
        for one in selected:
            if _network_events(one) and isinstance(one.event, Event):
                one.event.set()
        result = int(wait_for_multiple_objects_ex(thread, count, events, every, 0, alertable))
        if result != 0x102 or (deadline is not None and time.monotonic_ns() >= deadline):
            return result
        step = time.monotonic_ns() + 10_000_000
        pause = step if deadline is None else min(step, deadline)
        thread.engine.wait(lambda: any(_network_events(one) for one in selected), pause)  # noqa: B023  # used at once
