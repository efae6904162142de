"""Overlapped input and output: operations that end later, and who is told: an event, a port, a procedure of the thread.

What can be done at once is done at once, and reported as Windows reports it; what must wait goes to `descriptors`.
(Microsoft: Synchronous and Asynchronous I/O, I/O Completion Ports.)
"""

import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from virtus.personalities.win32 import descriptors, errors, ntstatus, state, waiting
from virtus.personalities.win32.file_objects import INVALID
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.synchronisation import Event
from virtus.personalities.win32.table import api
from virtus.records import dataclass

EVENT_OFFSET: Final = 24
"""OVERLAPPED: Internal (a status), InternalHigh (bytes), offset, event."""
ENTRY: Final = struct.Struct("<QQQQ")
"""OVERLAPPED_ENTRY: key, overlapped, internal, bytes."""
SKIP_ON_SUCCESS: Final = 1
CANCELLED: Final = 0xC000_0120
STATUSES: Final = {
    0: 0, errors.ERROR_HANDLE_EOF: 0xC000_0011, errors.ERROR_BROKEN_PIPE: 0xC000_014B,
    errors.ERROR_NO_DATA: 0xC000_00B1, errors.ERROR_OPERATION_ABORTED: CANCELLED, errors.ERROR_MORE_DATA: 0x8000_0005,
    errors.ERROR_ACCESS_DENIED: 0xC000_0022, errors.ERROR_INVALID_HANDLE: 0xC000_0008,
    errors.ERROR_DISK_FULL: 0xC000_007F, errors.ERROR_PIPE_LISTENING: 0xC000_00B3, errors.ERROR_IO_PENDING: 0x103,
    errors.ERROR_INVALID_PARAMETER: 0xC000_000D, errors.ERROR_LOCK_VIOLATION: 0xC000_0054,
    10051: 0xC000_023C, 10053: 0xC000_0241, 10054: 0xC000_020D, 10060: 0xC000_00B5, 10061: 0xC000_0236,  # sockets'
}  # fmt: skip
"""Statuses of the errors that reading and writing end with."""


class Port:
    """A completion port: what has completed. Changed with the process's lock held."""

    def __init__(self) -> None:
        self.queue: deque[tuple[int, int, int, int]] = deque()  # key, overlapped, bytes, status

    def signalled(self, thread: Thread) -> bool:
        """Whether something has completed."""
        return bool(self.queue)

    def acquire(self, thread: Thread) -> bool | None:
        """Waiting for a port takes nothing from it."""
        return None


Routine = Callable[[Thread, int, int], None]
"""A completion procedure: gets the error and the number of bytes, on the thread that started the operation."""


@dataclass(frozen=True, slots=True)
class Request:
    """Where an operation's end is told: its status block, an event's handle, a procedure, and what the port is told.

    The lowest bit of the event's handle keeps the port from being told (Microsoft: GetQueuedCompletionStatus).
    """

    block: int
    event: int
    context: int
    routine: Routine | None = None


def of_overlapped(thread: Thread, overlapped: int, routine: Routine | None = None) -> Request:
    """What an OVERLAPPED asks for; with a procedure its event is the caller's own."""
    return Request(overlapped, 0 if routine else thread.memory.u64(overlapped + EVENT_OFFSET), overlapped, routine)


class Operation:
    """One that has not ended."""

    def __init__(self, thread: Thread, file: Any, request: Request, waits: descriptors.Waiting) -> None:
        self.thread, self.file, self.request, self.waits = thread, file, request, waits


class Operations:
    """All of a process's that have not ended."""

    def __init__(self) -> None:
        self.pending: list[Operation] = []


def status_of(error: int) -> int:
    """The status of an error of reading or writing."""
    return STATUSES.get(error, ntstatus.UNSUCCESSFUL)


def finish(thread: Thread, file: Any, request: Request, count: int, error: int, *, queued: bool = False) -> None:
    """Store an operation's end, set the event, and tell the port or the procedure.

    `queued`: it did not end at once, so that the port is told in any case.
    """
    process, status, event = thread.process, status_of(error), None
    thread.memory.write(request.block, struct.pack("<QQ", status, count))
    if request.event:
        event = process.handles.get(request.event & ~1)
    with waiting.lock(process):
        if isinstance(event, Event):
            event.signal(thread)
        told = request.routine is None and request.context and not request.event & 1
        if told and file.port is not None and (queued or not file.skip_success):
            file.port.queue.append((file.key, request.context, count, status))
    routine = request.routine
    if routine is not None:
        waiting.queue_apc(thread, lambda self: routine(self, error, count))
    thread.engine.wake()


def start(
    thread: Thread,
    file: Any,
    request: Request,
    attempt: Callable[[], tuple[int, int] | None],
    *,
    write: bool,
    fd: int = -1,
    events: int = 0,
) -> int:
    """Begin an operation. `attempt` gives bytes and error when it could be done, None while it would have to wait.

    `fd` is the descriptor to wait for, where it is not the file's, and `events` what of poll(2) to wait for, where that
    is neither reading nor writing alone. Returns 0, or an error: ERROR_IO_PENDING for an
    operation that goes on; any other is not told elsewhere.
    """
    event = thread.process.handles.get(request.event & ~1) if request.event else None
    if isinstance(event, Event):
        with waiting.lock(thread.process):
            event.is_set = False
    done = attempt()
    if done is not None:
        count, error = done
        if error and error != errors.ERROR_MORE_DATA:
            thread.memory.write(request.block, struct.pack("<QQ", status_of(error), count))
        else:
            finish(thread, file, request, count, error)
        return error
    thread.memory.write(request.block, struct.pack("<QQ", ntstatus.PENDING, 0))

    def later() -> bool:
        outcome = attempt()
        if outcome is None:
            return False
        _end(operation, *outcome)
        return True

    operation = Operation(thread, file, request, descriptors.Waiting(file.fd if fd < 0 else fd, write, later, events))
    with waiting.lock(thread.process):
        state.of(thread.process, Operations).pending.append(operation)
        file.busy += 1
    descriptors.of(thread.process).add(operation.waits)
    return errors.ERROR_IO_PENDING


def _end(operation: Operation, count: int, error: int) -> None:
    thread = operation.thread
    with waiting.lock(thread.process):
        state.of(thread.process, Operations).pending.remove(operation)
        operation.file.busy -= 1
    finish(thread, operation.file, operation.request, count, error, queued=True)


def cancel(process: Process, file: Any, block: int = 0, thread: Thread | None = None) -> int:
    """End operations of a file (one, for a status block; a thread's only, for a thread); how many."""
    found = 0
    for operation in list(state.of(process, Operations).pending):
        wanted = operation.file is file and block in (0, operation.request.block)
        if wanted and thread in (None, operation.thread) and descriptors.of(process).remove(operation.waits):
            _end(operation, 0, errors.ERROR_OPERATION_ABORTED)
            found += 1
    return found


def _port(thread: Thread, handle: int) -> Port | None:
    found: Any = thread.process.handles.get(handle)
    return found if isinstance(found, Port) else None


@api("HANDLE CreateIoCompletionPort(HANDLE file, HANDLE port, ULONG_PTR key, DWORD threads)", "kernel32", "kernelbase")
def create_io_completion_port(thread: Thread, file: int, port: int, key: int, threads: int) -> int:
    """A new port, or one for a file too."""
    target = None
    if file not in (0, INVALID):
        target = thread.process.handles.get(file)
        if not hasattr(target, "overlapped"):
            return thread.fail(errors.ERROR_INVALID_HANDLE)
        if not target.overlapped or target.port is not None:
            return thread.fail(errors.ERROR_INVALID_PARAMETER)
    elif port:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if not port:
        port = thread.process.handles.add(Port())
    found = _port(thread, port)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if target is not None:
        target.port, target.key = found, key
    return port


def post(thread: Thread, port: Port, key: int, overlapped: int, count: int, status: int) -> None:
    """Something has completed."""
    with waiting.lock(thread.process):
        port.queue.append((key, overlapped, count, status))
    thread.engine.wake()


@api("BOOL PostQueuedCompletionStatus(HANDLE port, DWORD count, ULONG_PTR key, LPOVERLAPPED overlapped)", "kernel32",
     "kernelbase")  # fmt: skip
def post_queued_completion_status(thread: Thread, port: int, count: int, key: int, overlapped: int) -> int:
    """Something of the program's own has completed."""
    found = _port(thread, port)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    post(thread, found, key, overlapped, count, 0)
    return 1


def _take(thread: Thread, port: Port, most: int, milliseconds: int, alertable: int) -> list[tuple[int, int, int, int]]:
    """Completions, at least one; none where the time is over or procedures of the thread have run (last error)."""
    taken: list[tuple[int, int, int, int]] = []
    deadline = waiting.after(milliseconds)
    while not taken:
        with waiting.lock(thread.process):
            while port.queue and len(taken) < most:
                taken.append(port.queue.popleft())
        if not taken:
            result = waiting.wait(thread, (port,), deadline, alertable=bool(alertable))
            if result != waiting.WAIT_OBJECT_0:
                thread.last_error = result
                return []
    return taken


@api("BOOL GetQueuedCompletionStatusEx(HANDLE port, LPVOID entries, ULONG room, ULONG* count, DWORD milliseconds,"
     " BOOL alertable)", "kernel32", "kernelbase")  # fmt: skip
def get_queued_completion_status_ex(
    thread: Thread, port: int, entries: int, room: int, count: int, milliseconds: int, alertable: int
) -> int:
    """As many completions as there are and fit."""
    found = _port(thread, port)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if not room:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    taken = _take(thread, found, room, milliseconds, alertable)
    for index, (key, overlapped, size, status) in enumerate(taken):
        thread.memory.write(entries + ENTRY.size * index, ENTRY.pack(key, overlapped, status, size))
    thread.memory.set_u32(count, len(taken))
    return int(bool(taken))


@api("BOOL GetQueuedCompletionStatus(HANDLE port, DWORD* count, ULONG_PTR* key, LPOVERLAPPED* overlapped,"
     " DWORD milliseconds)", "kernel32", "kernelbase")  # fmt: skip
def get_queued_completion_status(
    thread: Thread, port: int, count: int, key: int, overlapped: int, milliseconds: int
) -> int:
    """One completion; false for that of an operation that failed, and with no OVERLAPPED where the time is over."""
    found = _port(thread, port)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    taken = _take(thread, found, 1, milliseconds, 0)
    if not taken:
        thread.memory.set_u64(overlapped, 0)
        return 0
    thread.memory.set_u64(key, taken[0][0])
    thread.memory.set_u64(overlapped, taken[0][1])
    thread.memory.set_u32(count, taken[0][2])
    status = taken[0][3]
    return 1 if not status else thread.fail(ntstatus.to_win32(status))


@api("BOOL GetOverlappedResultEx(HANDLE file, LPOVERLAPPED overlapped, DWORD* count, DWORD milliseconds,"
     " BOOL alertable)", "kernel32", "kernelbase")  # fmt: skip
def get_overlapped_result_ex(
    thread: Thread, file: int, overlapped: int, count: int, milliseconds: int, alertable: int
) -> int:
    """How an overlapped operation ended, after waiting for that."""

    class Done:
        def signalled(self, thread: Thread) -> bool:
            return thread.memory.u64(overlapped) != ntstatus.PENDING

        def acquire(self, thread: Thread) -> bool | None:
            return None

    result = waiting.wait(thread, (Done(),), waiting.after(milliseconds), alertable=bool(alertable))
    if result != waiting.WAIT_OBJECT_0:
        return thread.fail(result if milliseconds else errors.ERROR_IO_INCOMPLETE)
    thread.memory.set_u32(count, thread.memory.u64(overlapped + 8))
    status = thread.memory.u64(overlapped)
    return 1 if not status else thread.fail(ntstatus.to_win32(status))


@api("BOOL GetOverlappedResult(HANDLE file, LPOVERLAPPED overlapped, DWORD* count, BOOL wait)", "kernel32",
     "kernelbase")  # fmt: skip
def get_overlapped_result(thread: Thread, file: int, overlapped: int, count: int, wait: int) -> int:
    """How an overlapped operation ended; ERROR_IO_INCOMPLETE for one that has not, unless that is waited for."""
    return get_overlapped_result_ex(thread, file, overlapped, count, waiting.INFINITE if wait else 0, 0)


@api("BOOL CancelIoEx(HANDLE file, LPOVERLAPPED overlapped)", "kernel32", "kernelbase")
def cancel_io_ex(thread: Thread, file: int, overlapped: int) -> int:
    """End operations that wait; ERROR_NOT_FOUND where none does."""
    found = thread.process.handles.get(file)
    if not hasattr(found, "overlapped"):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    return 1 if cancel(thread.process, found, overlapped) else thread.fail(errors.ERROR_NOT_FOUND)


@api("BOOL CancelIo(HANDLE file)", "kernel32", "kernelbase")
def cancel_io(thread: Thread, file: int) -> int:
    """End operations of the calling thread; there may be none."""
    found = thread.process.handles.get(file)
    if not hasattr(found, "overlapped"):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    cancel(thread.process, found, thread=thread)
    return 1


@api("NTSTATUS NtCancelIoFileEx(HANDLE file, LPVOID request, LPVOID block)", "ntdll")
def nt_cancel_io_file_ex(thread: Thread, file: int, request: int, block: int) -> int:
    """The native CancelIoEx: `request` is the status block that the operation was started with."""
    found = thread.process.handles.get(file)
    if not hasattr(found, "overlapped"):
        return ntstatus.INVALID_HANDLE
    ended = cancel(thread.process, found, request)
    thread.memory.write(block, struct.pack("<QQ", 0 if ended else ntstatus.NOT_FOUND, 0))
    return 0 if ended else ntstatus.NOT_FOUND


@api("BOOL SetFileCompletionNotificationModes(HANDLE file, UCHAR flags)", "kernel32", "kernelbase")
def set_file_completion_notification_modes(thread: Thread, file: int, flags: int) -> int:
    """Whether what completes at once is queued too."""
    found = thread.process.handles.get(file)
    if not hasattr(found, "skip_success"):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    found.skip_success |= bool(flags & SKIP_ON_SUCCESS)
    return 1
