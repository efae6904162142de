"""Overlapped input and output, and completion ports.

What can be done at once is done at once, and its completion reported as Windows reports it; reads of pipes that must
wait are finished when somebody waits for them.
"""

import struct
import time
from collections import deque
from typing import Any, Final

from virtus.personalities.win32 import errors, file_objects
from virtus.personalities.win32.file_objects import INVALID, File
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api

INFINITE: Final = 0xFFFF_FFFF
STATUS_PENDING: Final = 0x103
EVENT_OFFSET: Final = 24
ENTRY: Final = struct.Struct("<QQQII")
"""OVERLAPPED_ENTRY: key, overlapped, internal, bytes."""
SKIP_ON_SUCCESS: Final = 1


class Port:
    """A completion port: what has completed, and reads that have not."""

    def __init__(self) -> None:
        self.queue: deque[tuple[int, int, int, int]] = deque()  # key, overlapped, bytes, error
        self.pending: list[tuple[Thread, File, int, int, int]] = []

    def signalled(self, thread: Thread) -> bool:
        """Whether something has completed."""
        self.advance()
        return bool(self.queue)

    def acquire(self, thread: Thread) -> bool | None:
        """Waiting for a port takes nothing from it."""
        return None

    def advance(self) -> None:
        """Finish reads whose data has come."""
        for entry in list(self.pending):
            thread, file, overlapped, buffer, size = entry
            if file_objects.ready(file.fd, write=False):
                self.pending.remove(entry)
                data = file_objects.read(thread, file, size, None)
                if isinstance(data, bytes):
                    thread.memory.write(buffer, data)
                count, error = (len(data), 0) if isinstance(data, bytes) else (0, data)
                finish(thread, file, overlapped, count, error, queued=True)


def finish(thread: Thread, file: File, overlapped: int, count: int, error: int, *, queued: bool = False) -> None:
    """Store a completion into OVERLAPPED, signal its event and tell the file's port."""
    thread.memory.write(overlapped, struct.pack("<QQ", error, count))
    event = thread.process.handles.get(thread.memory.u64(overlapped + EVENT_OFFSET) & ~1)
    if event is not None and hasattr(event, "set"):
        event.set()
    if file.port is not None and (queued or not file.skip_success):
        file.port.queue.append((file.key, overlapped, count, error))
        thread.engine.wake()


def start(thread: Thread, file: File, overlapped: int, buffer: int, size: int, *, write: bool) -> int:
    """An overlapped read of what may have to wait."""
    if file_objects.ready(file.fd, write=write) or file.port is None:
        data = file_objects.read(thread, file, size, None)
        if isinstance(data, int):
            return thread.fail(data)
        thread.memory.write(buffer, data)
        finish(thread, file, overlapped, len(data), 0)
        return 1
    thread.memory.write(overlapped, struct.pack("<QQ", STATUS_PENDING, 0))
    file.port.pending.append((thread, file, overlapped, buffer, size))
    return thread.fail(errors.ERROR_IO_PENDING)


def _port(thread: Thread, handle: int) -> Port | None:
    found: Any = thread.process.handles.get(handle)
    return found if isinstance(found, Port) else None


@api("HANDLE CreateIoCompletionPort(HANDLE file, HANDLE port, ULONG_PTR key, DWORD threads)", "kernel32", "kernelbase")
def create_io_completion_port(thread: Thread, file: int, port: int, key: int, threads: int) -> int:
    """A new port, or one for a file too."""
    if not port:
        port = thread.process.handles.add(Port())
    found = _port(thread, port)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if file not in (0, INVALID):
        target = file_objects.of(thread, file)
        if target is None:
            return thread.fail(errors.ERROR_INVALID_HANDLE)
        if not target.overlapped:
            return thread.fail(errors.ERROR_INVALID_PARAMETER)
        target.port, target.key = found, key
    return port


@api("BOOL PostQueuedCompletionStatus(HANDLE port, DWORD count, ULONG_PTR key, LPOVERLAPPED overlapped)", "kernel32",
     "kernelbase")  # fmt: skip
def post_queued_completion_status(thread: Thread, port: int, count: int, key: int, overlapped: int) -> int:
    """Something of the program's own has completed."""
    found = _port(thread, port)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    found.queue.append((key, overlapped, count, 0))
    thread.engine.wake()
    return 1


def _wait(thread: Thread, port: Port, milliseconds: int) -> bool:
    deadline = None if milliseconds == INFINITE else time.monotonic_ns() + milliseconds * 1_000_000
    return bool(port.signalled(thread) or thread.engine.wait(lambda: port.signalled(thread), deadline))


@api("BOOL GetQueuedCompletionStatusEx(HANDLE port, LPVOID entries, ULONG room, ULONG* count, DWORD milliseconds,"
     " BOOL alertable)", "kernel32", "kernelbase")  # fmt: skip
def get_queued_completion_status_ex(
    thread: Thread, port: int, entries: int, room: int, count: int, milliseconds: int, alertable: int
) -> int:
    """As many completions as there are and fit."""
    found = _port(thread, port)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if not _wait(thread, found, milliseconds):
        return thread.fail(errors.ERROR_WAIT_TIMEOUT)
    taken = min(room, len(found.queue))
    for index in range(taken):
        key, overlapped, size, error = found.queue.popleft()
        thread.memory.write(entries + ENTRY.size * index, ENTRY.pack(key, overlapped, error, size, 0))
    thread.memory.set_u32(count, taken)
    return 1


@api("BOOL GetQueuedCompletionStatus(HANDLE port, DWORD* count, ULONG_PTR* key, LPOVERLAPPED* overlapped,"
     " DWORD milliseconds)", "kernel32", "kernelbase")  # fmt: skip
def get_queued_completion_status(
    thread: Thread, port: int, count: int, key: int, overlapped: int, milliseconds: int
) -> int:
    """One completion."""
    found = _port(thread, port)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if not _wait(thread, found, milliseconds):
        thread.memory.set_u64(overlapped, 0)
        return thread.fail(errors.ERROR_WAIT_TIMEOUT)
    taken = found.queue.popleft()
    thread.memory.set_u64(key, taken[0])
    thread.memory.set_u64(overlapped, taken[1])
    thread.memory.set_u32(count, taken[2])
    return 1 if not taken[3] else thread.fail(taken[3])


@api("BOOL GetOverlappedResult(HANDLE file, LPOVERLAPPED overlapped, DWORD* count, BOOL wait)", "kernel32",
     "kernelbase")  # fmt: skip
def get_overlapped_result(thread: Thread, file: int, overlapped: int, count: int, wait: int) -> int:
    """How an overlapped operation ended."""
    found = file_objects.of(thread, file)

    def done() -> bool:
        if found is not None and found.port is not None:
            found.port.advance()
        return thread.memory.u64(overlapped) != STATUS_PENDING

    if not done():
        if not wait:
            return thread.fail(errors.ERROR_IO_INCOMPLETE)
        thread.engine.wait(done, None)
    thread.memory.set_u32(count, thread.memory.u64(overlapped + 8))
    error = thread.memory.u64(overlapped)
    return 1 if not error else thread.fail(error)


@api("BOOL CancelIoEx(HANDLE file, LPOVERLAPPED overlapped)", "kernel32", "kernelbase")
def cancel_io_ex(thread: Thread, file: int, overlapped: int) -> int:
    """End reads that wait."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    waiting = [entry for entry in found.port.pending if entry[1] is found] if found.port is not None else []
    waiting = [entry for entry in waiting if overlapped in (0, entry[2])]
    for entry in waiting:
        found.port.pending.remove(entry)
        finish(thread, found, entry[2], 0, errors.ERROR_OPERATION_ABORTED, queued=True)
    return 1 if waiting else thread.fail(errors.ERROR_NOT_FOUND)


@api("BOOL CancelIo(HANDLE file)", "kernel32", "kernelbase")
def cancel_io(thread: Thread, file: int) -> int:
    """End reads that wait; there may be none."""
    cancel_io_ex(thread, file, 0)
    return 1


@api("BOOL SetFileCompletionNotificationModes(HANDLE file, UCHAR flags)", "kernel32", "kernelbase")
def set_file_completion_notification_modes(thread: Thread, file: int, flags: int) -> int:
    """Whether what completes at once is queued too."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    found.skip_success = bool(flags & SKIP_ON_SUCCESS)
    return 1
