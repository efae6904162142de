"""Reading and writing through handles: at once, or overlapped, with Windows' answers at the end of files and pipes.

Of a disk's file nothing has to wait, so that an overlapped operation ends before its function returns, as it may on
Windows; of pipes and terminals it goes on until the host has data or room. (Microsoft: ReadFile, WriteFile, ReadFileEx,
NtReadFile.)
"""

import os
import struct
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32 import completion, errors, file_objects, ntstatus
from virtus.personalities.win32.completion import Request, of_overlapped, status_of
from virtus.personalities.win32.file_objects import MOST_AT_ONCE, TYPE_DISK, File
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api

OVERLAPPED_OFFSET: Final = 16
APPEND: Final = (1 << 64) - 1
"""An offset of all ones: at the file's end (Microsoft: WriteFile)."""
CURRENT_POSITION: Final = 0xFFFF_FFFF_FFFF_FFFE
"""FILE_USE_FILE_POINTER_POSITION of native functions."""
PIPE_PIECE: Final = 4096
"""What a pipe that is ready takes without waiting (PIPE_BUF, pipe(7))."""

Attempt = Callable[[], tuple[int, int] | None]


def reading(thread: Thread, file: File, buffer: int, size: int, offset: int | None) -> Attempt:
    """An attempt to read: bytes and error, or None where it would have to wait."""

    def attempt() -> tuple[int, int] | None:
        error = file.prepare()
        if error:
            return 0, error
        if file.kind != TYPE_DISK and not file.rest and not file_objects.ready(file.fd, write=False):
            return None
        try:
            count, error = file.fill(thread.memory, buffer, min(size, MOST_AT_ONCE), offset)
        except AccessViolation:  # the program has taken the buffer away while the operation went on
            return 0, errors.ERROR_NOACCESS
        if error:
            return 0, error
        if file.rest:
            return count, errors.ERROR_MORE_DATA
        return count, errors.ERROR_HANDLE_EOF if not count and size and file.kind == TYPE_DISK else 0

    return attempt


def writing(file: File, data: bytes, offset: int | None) -> Attempt:
    """An attempt to write all of it."""
    done = 0

    def attempt() -> tuple[int, int] | None:
        nonlocal done
        if file.kind == TYPE_DISK:
            error = file.send(data, offset)
            return (0, error) if error else (len(data), 0)
        error = file.prepare()
        if error:
            return 0, error
        while done < len(data) or not data:
            if not file_objects.ready(file.fd, write=True):
                return None
            piece = data if file.messages else data[done : done + PIPE_PIECE]
            error = file.send(piece, None)
            if error:
                return done, error
            done += len(piece)
            if not data:
                break
        return done, 0

    return attempt


def _read_now(thread: Thread, file: File, buffer: int, size: int, offset: int | None) -> tuple[int, int]:
    count, error = file_objects.fill(thread, file, buffer, size, offset)
    return count, errors.ERROR_MORE_DATA if file.rest and not error else error


@api("BOOL ReadFile(HANDLE file, LPVOID buffer, DWORD size, DWORD* count, LPOVERLAPPED overlapped)",
     "kernel32", "kernelbase")  # fmt: skip
def read_file(thread: Thread, file: int, buffer: int, size: int, count: int, overlapped: int) -> int:
    """Read; at a file's end nothing, or ERROR_HANDLE_EOF where an offset is given."""
    if count:
        thread.memory.set_u32(count, 0)
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    offset = thread.memory.u64(overlapped + OVERLAPPED_OFFSET) if overlapped else None
    if found.overlapped:
        if not overlapped:
            return thread.fail(errors.ERROR_INVALID_PARAMETER)
        attempt = reading(thread, found, buffer, size, offset)
        error = completion.start(thread, found, of_overlapped(thread, overlapped), attempt, write=False)
        if count and error in (0, errors.ERROR_MORE_DATA):
            thread.memory.set_u32(count, thread.memory.u64(overlapped + 8))
        return thread.fail(error) if error else 1
    got, error = _read_now(thread, found, buffer, size, offset)
    if count:
        thread.memory.set_u32(count, got)
    if overlapped:
        if not got and size and found.kind == TYPE_DISK and not error:
            error = errors.ERROR_HANDLE_EOF
        thread.memory.write(overlapped, struct.pack("<QQ", status_of(error), got))
        if not error and found.kind == TYPE_DISK and offset is not None:
            os.lseek(found.fd, offset + got, os.SEEK_SET)  # a synchronous handle's position follows
    return thread.fail(error) if error else 1


@api("BOOL WriteFile(HANDLE file, LPVOID buffer, DWORD size, DWORD* count, LPOVERLAPPED overlapped)",
     "kernel32", "kernelbase")  # fmt: skip
def write_file(thread: Thread, file: int, buffer: int, size: int, count: int, overlapped: int) -> int:
    """Write all of it."""
    if count:
        thread.memory.set_u32(count, 0)
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    data = thread.memory.read(buffer, size) if size else b""
    offset = _place(found, thread.memory.u64(overlapped + OVERLAPPED_OFFSET)) if overlapped else None
    if found.overlapped:
        if not overlapped:
            return thread.fail(errors.ERROR_INVALID_PARAMETER)
        request = of_overlapped(thread, overlapped)
        error = completion.start(thread, found, request, writing(found, data, offset), write=True)
        if count and not error:
            thread.memory.set_u32(count, size)
        return thread.fail(error) if error else 1
    error = file_objects.write(thread, found, data, offset)
    if overlapped:
        thread.memory.write(overlapped, struct.pack("<QQ", status_of(error), 0 if error else size))
        if not error and found.kind == TYPE_DISK and offset is not None:
            os.lseek(found.fd, offset + size, os.SEEK_SET)
    if error:
        return thread.fail(error)
    if count:
        thread.memory.set_u32(count, size)
    return 1


def _place(file: File, offset: int) -> int:
    return os.fstat(file.fd).st_size if offset == APPEND and file.kind == TYPE_DISK else offset


def _routine(function: int, overlapped: int) -> completion.Routine:
    def call(thread: Thread, error: int, count: int) -> None:
        thread.engine.call(function, error, count, overlapped)

    return call


@api("BOOL ReadFileEx(HANDLE file, LPVOID buffer, DWORD size, LPOVERLAPPED overlapped, FARPROC routine)", "kernel32",
     "kernelbase")  # fmt: skip
def read_file_ex(thread: Thread, file: int, buffer: int, size: int, overlapped: int, routine: int) -> int:
    """Read; the procedure is called in a later alertable wait of the thread."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    offset = thread.memory.u64(overlapped + OVERLAPPED_OFFSET)
    request = of_overlapped(thread, overlapped, _routine(routine, overlapped))
    error = completion.start(thread, found, request, reading(thread, found, buffer, size, offset), write=False)
    going_on = error in (0, errors.ERROR_IO_PENDING, errors.ERROR_MORE_DATA)
    thread.last_error = errors.ERROR_SUCCESS if going_on and error != errors.ERROR_MORE_DATA else error
    return int(going_on)


@api("BOOL WriteFileEx(HANDLE file, LPVOID buffer, DWORD size, LPOVERLAPPED overlapped, FARPROC routine)", "kernel32",
     "kernelbase")  # fmt: skip
def write_file_ex(thread: Thread, file: int, buffer: int, size: int, overlapped: int, routine: int) -> int:
    """Write; the procedure is called in a later alertable wait of the thread."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    data = thread.memory.read(buffer, size) if size else b""
    offset = _place(found, thread.memory.u64(overlapped + OVERLAPPED_OFFSET))
    request = of_overlapped(thread, overlapped, _routine(routine, overlapped))
    error = completion.start(thread, found, request, writing(found, data, offset), write=True)
    going_on = error in (0, errors.ERROR_IO_PENDING)
    thread.last_error = errors.ERROR_SUCCESS if going_on else error
    return int(going_on)


def _native(thread: Thread, file: File, request: Request, attempt: Attempt, *, write: bool) -> int:
    """The status of a native operation, which waits where the handle is synchronous."""
    if file.overlapped:
        error = completion.start(thread, file, request, attempt, write=write)
        return status_of(error)
    while (done := attempt()) is None:
        file_objects.until_ready(thread, file, write=write, always=True)
    status = status_of(done[1])
    thread.memory.write(request.block, struct.pack("<QQ", status, done[0]))
    return status


def _native_offset(thread: Thread, file: File, address: int) -> int | None:
    if not address or file.kind != TYPE_DISK:
        return None
    offset = thread.memory.u64(address)
    return None if offset == CURRENT_POSITION else _place(file, offset)


def _native_routine(function: int, context: int, block: int) -> completion.Routine | None:
    if not function:
        return None

    def call(thread: Thread, error: int, count: int) -> None:
        thread.engine.call(function, context, block, 0)

    return call


@api("NTSTATUS NtReadFile(HANDLE file, HANDLE event, LPVOID routine, LPVOID context, LPVOID block, LPVOID buffer,"
     " ULONG size, LPVOID offset, ULONG* key)", "ntdll")  # fmt: skip
def nt_read_file(
    thread: Thread, file: int, event: int, routine: int, context: int, block: int, buffer: int, size: int,
    offset: int, key: int,
) -> int:  # fmt: skip
    """The native read."""
    found = file_objects.of(thread, file)
    if found is None:
        return ntstatus.INVALID_HANDLE
    request = Request(block, event, context, _native_routine(routine, context, block))
    attempt = reading(thread, found, buffer, size, _native_offset(thread, found, offset))
    return _native(thread, found, request, attempt, write=False)


@api("NTSTATUS NtWriteFile(HANDLE file, HANDLE event, LPVOID routine, LPVOID context, LPVOID block, LPVOID buffer,"
     " ULONG size, LPVOID offset, ULONG* key)", "ntdll")  # fmt: skip
def nt_write_file(
    thread: Thread, file: int, event: int, routine: int, context: int, block: int, buffer: int, size: int,
    offset: int, key: int,
) -> int:  # fmt: skip
    """The native write."""
    found = file_objects.of(thread, file)
    if found is None:
        return ntstatus.INVALID_HANDLE
    data = thread.memory.read(buffer, size) if size else b""
    request = Request(block, event, context, _native_routine(routine, context, block))
    attempt = writing(found, data, _native_offset(thread, found, offset))
    return _native(thread, found, request, attempt, write=True)
