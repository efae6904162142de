"""Overlapped operations of sockets, which end through ports, events or procedures; AcceptEx and ConnectEx."""

import socket
from collections.abc import Callable
from typing import Any, Final

from virtus.personalities.win32 import completion, socket_addresses, sockets
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.socket_addresses import WSAEFAULT, WSAEINVAL, BadAddress, of_errno
from virtus.personalities.win32.sockets import Socket, SocketError
from virtus.personalities.win32.table import api
from virtus.personalities.win32.winsock import address_at, refusing

WSA_INVALID_PARAMETER: Final = 87
ADDRESS_EXTRA: Final = 16
LARGEST: Final = 1 << 24
STATUS_ERRORS: Final = {status: error for error, status in completion.STATUSES.items() if error >= 10000}


def begin(
    thread: Thread, found: Socket, overlapped: int, routine: int, attempt: Callable[[], int | None], *, write: bool
) -> None:
    """Begin an operation; raises SocketError, with WSA_IO_PENDING for one that goes on.

    `attempt` gives bytes, None while it would have to wait, or raises OSError.
    """

    def guarded() -> tuple[int, int] | None:
        try:
            count = attempt()
        except BlockingIOError:
            return None
        except OSError as error:
            return 0, sockets.unreachable(of_errno(error.errno))
        except AccessViolation:
            return 0, WSAEFAULT
        return None if count is None else (count, 0)

    def called(self: Thread, error: int, count: int) -> None:
        self.engine.call(routine, error, count, overlapped, 0)

    request = completion.of_overlapped(thread, overlapped, called if routine else None)
    error = completion.start(thread, found, request, guarded, write=write)
    if error:
        raise SocketError(error)


def _counted(thread: Thread, place: int, count: int) -> int:
    """Tell the caller's counter too, while the call has not returned."""
    if place:
        thread.memory.set_u32(place, count)
    return count


def send(
    thread: Thread, found: Socket, data: bytes, flags: int, address: Any, overlapped: int, routine: int, sent: int
) -> None:
    """Send all of some data, part by part."""
    done = 0
    returned = False

    def attempt() -> int | None:
        nonlocal done
        while True:
            part = memoryview(data)[done:]
            done += (
                found.host.send(part, flags | socket.MSG_NOSIGNAL)
                if address is None
                else found.host.sendto(part, flags | socket.MSG_NOSIGNAL, address)
            )
            if done >= len(data):
                return done if returned else _counted(thread, sent, done)

    try:
        begin(thread, found, overlapped, routine, attempt, write=True)
    finally:
        returned = True


def scatter(thread: Thread, buffers: list[tuple[int, int]], data: bytes) -> None:
    """Data into buffers one after the other; they are sizes and addresses."""
    for size, address in buffers:
        thread.memory.write(address, data[:size])
        data = data[size:]


def receive(
    thread: Thread, found: Socket, buffers: list[tuple[int, int]], flags: int, where: tuple[int, int], overlapped: int,
    routine: int, received: int,
) -> None:  # fmt: skip
    """Receive what there is; `where` are the places for the sender's address and its size."""
    size = min(sum(length for length, _ in buffers), LARGEST)
    returned = False

    def attempt() -> int:
        data, sender = found.host.recvfrom(size, flags)
        scatter(thread, buffers, data)
        if sender and where[0] and where[1]:
            packed = socket_addresses.pack(found.family, sender)
            thread.memory.write(where[0], packed[: thread.memory.u32(where[1])])
            thread.memory.set_u32(where[1], len(packed))
        return len(data) if returned else _counted(thread, received, len(data))

    try:
        begin(thread, found, overlapped, routine, attempt, write=False)
    finally:
        returned = True


@api("BOOL WSAGetOverlappedResult(SOCKET handle, LPVOID overlapped, LPDWORD count, BOOL wait, LPDWORD flags)", "ws2_32")
@refusing(0)
def wsa_get_overlapped_result(thread: Thread, handle: int, overlapped: int, count: int, wait: int, flags: int) -> int:
    """How an operation ended, in Winsock's errors."""
    sockets.of(thread, handle)
    thread.memory.set_u32(flags, 0)
    done = completion.get_overlapped_result(thread, handle, overlapped, count, wait)
    if not done:
        status = thread.memory.u32(overlapped)
        raise SocketError(STATUS_ERRORS.get(status, thread.last_error))
    return 1


@api("BOOL ConnectEx(SOCKET handle, LPVOID address, int size, LPVOID data, DWORD data_size, LPDWORD sent,"
     " LPVOID overlapped)", "mswsock")  # fmt: skip
@refusing(0)
def connect_ex(
    thread: Thread, handle: int, address: int, size: int, data: int, data_size: int, sent: int, overlapped: int
) -> int:
    """Connect, and send the first data."""
    found = sockets.of(thread, handle)
    if not overlapped or data_size > LARGEST:
        raise SocketError(WSA_INVALID_PARAMETER)
    target = address_at(thread, found, address, size)
    first = thread.memory.read(data, data_size) if data and data_size else b""
    try:
        found.host.connect(target)
    except BlockingIOError:
        pass  # it goes on
    except OSError as error:
        raise SocketError(sockets.unreachable(of_errno(error.errno))) from None

    def attempt() -> int | None:
        if not found.ready(sockets.WRITE):
            return None
        number = found.host.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, "")
        return found.host.send(first, socket.MSG_NOSIGNAL) if first else 0

    begin(thread, found, overlapped, 0, attempt, write=True)
    return 1


@api("BOOL AcceptEx(SOCKET listener, SOCKET accepted, LPVOID buffer, DWORD data_size, DWORD local_size,"
     " DWORD remote_size, LPDWORD received, LPVOID overlapped)", "mswsock", "ws2_32")  # fmt: skip
@refusing(0)
def accept_ex(
    thread: Thread, listener: int, accepted: int, buffer: int, data_size: int, local_size: int, remote_size: int,
    received: int, overlapped: int,
) -> int:  # fmt: skip
    """The next connection, into a socket that is there already; the addresses follow the place for first data."""
    found, target = sockets.of(thread, listener), sockets.of(thread, accepted)
    least = len(socket_addresses.pack(found.family, ())) + ADDRESS_EXTRA
    if not overlapped or local_size < least or remote_size < least or data_size > LARGEST:
        raise SocketError(WSAEINVAL)

    def attempt() -> int:
        host, _ = found.host.accept()
        host.setblocking(False)
        target.host.close()
        target.host = host
        local = socket_addresses.pack(found.family, host.getsockname())
        remote = socket_addresses.pack(found.family, host.getpeername())
        thread.memory.write(buffer + data_size, local)
        thread.memory.write(buffer + data_size + local_size, remote)
        return 0

    begin(thread, found, overlapped, 0, attempt, write=False)
    return 1


@api("void GetAcceptExSockaddrs(LPVOID buffer, DWORD data_size, DWORD local_size, DWORD remote_size, LPVOID *local,"
     " int *local_length, LPVOID *remote, int *remote_length)", "mswsock")  # fmt: skip
def get_accept_ex_sockaddrs(
    thread: Thread, buffer: int, data_size: int, local_size: int, remote_size: int, local: int, local_length: int,
    remote: int, remote_length: int,
) -> None:  # fmt: skip
    """Where AcceptEx has put the addresses."""
    place = buffer + data_size
    for where, length, result in ((place, local_length, local), (place + local_size, remote_length, remote)):
        try:
            family, address = socket_addresses.unpack(thread.memory.read(where, 28))
        except BadAddress:
            continue
        thread.memory.set_u64(result, where)
        thread.memory.set_u32(length, len(socket_addresses.pack(family, address)))


@api("BOOL DisconnectEx(SOCKET handle, LPVOID overlapped, DWORD flags, DWORD reserved)", "mswsock",
     note="the socket is not to be used again")  # fmt: skip
@refusing(0)
def disconnect_ex(thread: Thread, handle: int, overlapped: int, flags: int, reserved: int) -> int:
    """Both directions end."""
    found = sockets.of(thread, handle)
    if flags:
        raise SocketError(WSAEINVAL)
    try:
        found.host.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        raise SocketError(of_errno(error.errno)) from None
    if overlapped:
        begin(thread, found, overlapped, 0, lambda: 0, write=True)
    return 1
