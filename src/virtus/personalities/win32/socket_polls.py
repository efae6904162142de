r"""The device behind sockets, \Device\Afd, as far as event loops use it: asking a completion port for readiness.

mio (so tokio) and libuv poll with it: a request says which events of a socket are waited for, and completes, once, with
those that have come. The structures are no part of Microsoft's documentation; they are those of wepoll and of mio.
"""

import select
import struct
from typing import Final

from virtus.personalities.win32 import completion, errors, ntstatus
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.sockets import Socket
from virtus.personalities.win32.table import api

IOCTL_AFD_POLL: Final = 0x0001_2024
POLL_INFO: Final = struct.Struct("<qII")
"""AFD_POLL_INFO: the time to wait, how many sockets, whether others' requests end; each socket follows."""
POLL_SOCKET: Final = struct.Struct("<QII")
"""AFD_POLL_HANDLE_INFO: handle, events, status."""
SIZE: Final = POLL_INFO.size + POLL_SOCKET.size
RECEIVE, SEND, DISCONNECT, ABORT, LOCAL_CLOSE, ACCEPT, CONNECT_FAIL = 0x1, 0x4, 0x8, 0x10, 0x20, 0x80, 0x100
ALWAYS: Final = ABORT | LOCAL_CLOSE
"""Told whether asked for or not."""
INVALID_DEVICE_REQUEST: Final = 0xC000_0010


class SocketPolls:
    """An open device: polls of any sockets are started through it, and told to its port."""

    def __init__(self) -> None:
        self.fd = -1
        self.overlapped, self.skip_success = True, False
        self.port: object | None = None
        self.key = self.busy = self.handles = 0

    def opened(self) -> None:
        """Another handle."""
        self.handles += 1

    def closed(self) -> None:
        """One handle less; whoever closes the last has ended its polls."""
        self.handles -= 1


def open_device(thread: Thread, *, inheritable: bool) -> int:
    """A handle of the device; any name below it will do."""
    device = SocketPolls()
    device.opened()
    return thread.process.handles.add(device, inheritable=inheritable)


def events_of(found: Socket) -> int:
    """What there is now of a socket."""
    if found.fd < 0:
        return LOCAL_CLOSE
    seen = found.ready(select.POLLIN | select.POLLOUT | select.POLLRDHUP)
    if found.connecting and seen & (select.POLLERR | select.POLLHUP):
        return CONNECT_FAIL
    found.connecting = found.connecting and not seen & select.POLLOUT
    events = ABORT if seen & select.POLLERR else 0
    events |= SEND if seen & select.POLLOUT else 0
    if seen & select.POLLIN:
        events |= RECEIVE | ACCEPT
    return events | (DISCONNECT if seen & (select.POLLRDHUP | select.POLLHUP) else 0)


def _poll(thread: Thread, device: SocketPolls, request: completion.Request, input: int, output: int) -> int:
    memory = thread.memory
    timeout, count, _ = POLL_INFO.unpack(memory.read(input, POLL_INFO.size))
    handle, wanted, _ = POLL_SOCKET.unpack(memory.read(input + POLL_INFO.size, POLL_SOCKET.size))
    found = thread.process.handles.get(handle)
    if count != 1:
        return ntstatus.NOT_SUPPORTED
    if not isinstance(found, Socket):
        return ntstatus.INVALID_HANDLE

    def attempt() -> tuple[int, int] | None:
        events = events_of(found) & (wanted | ALWAYS)
        if not events and timeout:
            return None
        ready = POLL_SOCKET.pack(handle, events, 0)
        memory.write(output, POLL_INFO.pack(timeout, 1 if events else 0, 0) + ready)
        return SIZE, 0

    mask = select.POLLIN if wanted & (RECEIVE | ACCEPT) else 0
    mask |= select.POLLOUT if wanted & (SEND | CONNECT_FAIL) else 0
    mask |= select.POLLRDHUP if wanted & DISCONNECT else 0
    error = completion.start(thread, device, request, attempt, write=False, fd=found.fd, events=mask)
    return ntstatus.PENDING if error == errors.ERROR_IO_PENDING else completion.status_of(error)


@api("NTSTATUS NtDeviceIoControlFile(HANDLE file, HANDLE event, LPVOID routine, LPVOID context, LPVOID block,"
     " ULONG code, LPVOID input, ULONG input_size, LPVOID output, ULONG output_size)", "ntdll",
     note="polls of sockets, one each; no other device has requests of its own")  # fmt: skip
def nt_device_io_control_file(
    thread: Thread, file: int, event: int, routine: int, context: int, block: int, code: int, input: int,
    input_size: int, output: int, output_size: int,
) -> int:  # fmt: skip
    """Poll a socket."""
    device = thread.process.handles.get(file)
    if not isinstance(device, SocketPolls) or code != IOCTL_AFD_POLL or routine:
        return INVALID_DEVICE_REQUEST
    if input_size < SIZE or output_size < SIZE:
        return ntstatus.INVALID_PARAMETER
    return _poll(thread, device, completion.Request(block, event, context), input, output)
