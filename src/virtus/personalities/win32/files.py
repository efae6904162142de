"""Files: opening, reading, writing, positions, sizes and locks, with Windows' semantics on the host's files.

Share modes are kept among the handles of one process alone: Linux programs know none.
"""

import os
import struct
from typing import Final

from virtus.personalities.win32 import completion, errors, file_objects, paths
from virtus.personalities.win32.file_objects import (
    APPEND_DATA,
    DELETE,
    GENERIC_ALL,
    GENERIC_READ,
    GENERIC_WRITE,
    INVALID,
    READ_DATA,
    TYPE_DISK,
    WRITE_DATA,
    File,
)  # fmt: skip
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

CREATE_NEW, CREATE_ALWAYS, OPEN_EXISTING, OPEN_ALWAYS, TRUNCATE_EXISTING = 1, 2, 3, 4, 5
FLAG_OVERLAPPED, FLAG_BACKUP, FLAG_DELETE, FLAG_OPEN_LINK = 0x4000_0000, 0x0200_0000, 0x0400_0000, 0x0020_0000
ATTRIBUTE_READ_ONLY: Final = 1
OVERLAPPED_OFFSET: Final = 16
LOCK_FAIL, LOCK_EXCLUSIVE = 1, 2
STATUS_PENDING: Final = 0x103
STATUS_INVALID_HANDLE, STATUS_END_OF_FILE, STATUS_PIPE_BROKEN = -0x3FFFFFF8, -0x3FFFFFEF, -0x3FFFFEB5
STATUS_ACCESS_DENIED: Final = -0x3FFFFFDE
INVALID_32: Final = 0xFFFF_FFFF


def flags_of(access: int, append_only: bool) -> int:
    """The host's flags for what a file is opened for."""
    reads = access & (GENERIC_READ | GENERIC_ALL | READ_DATA)
    writes = access & (GENERIC_WRITE | GENERIC_ALL | WRITE_DATA) or append_only
    if writes:
        return os.O_RDWR if reads else os.O_WRONLY
    return os.O_RDONLY


def open_file(
    thread: Thread, path: str, access: int, disposition: int, flags: int, *, inheritable: bool = False
) -> tuple[int, int]:
    """Open a host path: a handle and the last error (0, or that it was there already); handle 0 with an error."""
    append_only = bool(access & APPEND_DATA) and not access & (WRITE_DATA | GENERIC_WRITE | GENERIC_ALL)
    mode = flags_of(access, append_only) | os.O_CLOEXEC | (os.O_NOFOLLOW if flags & FLAG_OPEN_LINK else 0)
    there = os.path.lexists(path) if flags & FLAG_OPEN_LINK else os.path.exists(path)
    if disposition in (CREATE_NEW, CREATE_ALWAYS, OPEN_ALWAYS):
        mode |= os.O_CREAT | (os.O_EXCL if disposition == CREATE_NEW else 0)
    truncate = disposition == TRUNCATE_EXISTING or (disposition == CREATE_ALWAYS and there)
    if truncate and os.path.isdir(path):
        return 0, errors.ERROR_ACCESS_DENIED
    if os.path.isdir(path):
        if disposition == CREATE_NEW:
            return 0, errors.ERROR_FILE_EXISTS
        if not flags & FLAG_BACKUP:
            return 0, errors.ERROR_ACCESS_DENIED
        mode = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if flags & FLAG_OPEN_LINK and os.path.islink(path):
        mode = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, mode & ~os.O_NOFOLLOW if not os.path.islink(path) else mode, 0o666)
        if truncate:
            os.ftruncate(fd, 0)
    except FileExistsError:
        return 0, errors.ERROR_FILE_EXISTS
    except OSError as error:
        return 0, paths.error_of(error, path)
    file = File(
        fd, path, access, append_only, bool(flags & FLAG_OVERLAPPED), bool(flags & FLAG_DELETE and access & DELETE)
    )
    file.delete_on_close = bool(flags & FLAG_DELETE)
    existed = there and disposition in (CREATE_ALWAYS, OPEN_ALWAYS)
    return file_objects.add(thread, file, inheritable=inheritable), errors.ERROR_ALREADY_EXISTS if existed else 0


def _create(thread: Thread, text: Text, name: int, access: int, security: int, disposition: int, flags: int) -> int:
    inherit = bool(security and thread.memory.u32(security + 16))
    word = text.read(thread.memory, name)
    if word.upper() in ("CONOUT$", "CONIN$", "CON"):
        stream = thread.process.streams[0 if word.upper() == "CONIN$" else 1]
        found = file_objects.of(thread, stream)
        if found is not None and found.is_console:
            return file_objects.add(thread, found, inheritable=inherit)
        return thread.fail(errors.ERROR_FILE_NOT_FOUND, INVALID)
    try:
        path = paths.to_host(thread.process, word)
    except paths.BadPath as bad:
        return thread.fail(bad.error, INVALID)
    if word.endswith(("\\", "/")) and not os.path.isdir(path):
        return thread.fail(errors.ERROR_PATH_NOT_FOUND, INVALID)
    handle, error = open_file(thread, path, access, disposition, flags, inheritable=inherit)
    thread.last_error = error
    return handle or INVALID


@api("HANDLE CreateFileW(LPCWSTR name, DWORD access, DWORD share, LPVOID security, DWORD disposition, DWORD flags,"
     " HANDLE template)", "kernel32", "kernelbase", note="share modes are not kept against others")  # fmt: skip
def create_file_w(
    thread: Thread, name: int, access: int, share: int, security: int, disposition: int, flags: int, template: int
) -> int:
    """Open or make a file, directory or device."""
    return _create(thread, WIDE, name, access, security, disposition, flags)


@api("HANDLE CreateFileA(LPCSTR name, DWORD access, DWORD share, LPVOID security, DWORD disposition, DWORD flags,"
     " HANDLE template)", "kernel32", "kernelbase", note="share modes are not kept against others")  # fmt: skip
def create_file_a(
    thread: Thread, name: int, access: int, share: int, security: int, disposition: int, flags: int, template: int
) -> int:
    """Open or make a file, directory or device."""
    return _create(thread, ANSI, name, access, security, disposition, flags)


def _offset(thread: Thread, overlapped: int) -> int | None:
    return thread.memory.u64(overlapped + OVERLAPPED_OFFSET) if overlapped else None


@api("BOOL ReadFile(HANDLE file, LPVOID buffer, DWORD size, DWORD* count, LPOVERLAPPED overlapped)",
     "kernel32", "kernelbase")  # fmt: skip
def read_file(thread: Thread, file: int, buffer: int, size: int, count: int, overlapped: int) -> int:
    """Read; at a file's end nothing, or ERROR_HANDLE_EOF when overlapped."""
    if count:
        thread.memory.set_u32(count, 0)
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if found.overlapped and overlapped and found.kind != TYPE_DISK:
        return completion.start(thread, found, overlapped, buffer, size, write=False)
    data = file_objects.read(thread, found, size, _offset(thread, overlapped))
    if isinstance(data, int):
        return thread.fail(data)
    thread.memory.write(buffer, data)
    if count:
        thread.memory.set_u32(count, len(data))
    if overlapped:
        if not data and size and found.kind == TYPE_DISK:
            return thread.fail(errors.ERROR_HANDLE_EOF)
        completion.finish(thread, found, overlapped, len(data), 0)
    return 1


@api("BOOL WriteFile(HANDLE file, LPVOID buffer, DWORD size, DWORD* count, LPOVERLAPPED overlapped)",
     "kernel32", "kernelbase")  # fmt: skip
def write_file(thread: Thread, file: int, buffer: int, size: int, count: int, overlapped: int) -> int:
    """Write all of it."""
    if count:
        thread.memory.set_u32(count, 0)
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    data = thread.memory.read(buffer, size)
    offset = _offset(thread, overlapped)
    if offset == (1 << 64) - 1:
        found_end = os.fstat(found.fd).st_size
        offset = found_end
    error = file_objects.write(thread, found, data, offset)
    if error:
        return thread.fail(error)
    if count:
        thread.memory.set_u32(count, size)
    if overlapped:
        completion.finish(thread, found, overlapped, size, 0)
    return 1


def _status_block(thread: Thread, block: int, status: int, count: int) -> int:
    thread.memory.write(block, struct.pack("<qQ", status, count))
    return status


@api("NTSTATUS NtReadFile(HANDLE file, HANDLE event, LPVOID routine, LPVOID context, LPVOID block, LPVOID buffer,"
     " ULONG size, LPVOID offset, ULONG* key)", "ntdll")  # fmt: skip
def nt_read_file(
    thread: Thread, file: int, event: int, routine: int, context: int, block: int, buffer: int, size: int,
    offset: int, key: int,
) -> int:  # fmt: skip
    """The same with a status."""
    found = file_objects.of(thread, file)
    if found is None:
        return STATUS_INVALID_HANDLE
    place = thread.memory.u64(offset) if offset else None
    data = file_objects.read(thread, found, size, place if place is None or place < 1 << 63 else None)
    if isinstance(data, int):
        status = STATUS_PIPE_BROKEN if data == errors.ERROR_BROKEN_PIPE else STATUS_ACCESS_DENIED
        return _status_block(thread, block, status, 0)
    if not data and size:
        return _status_block(thread, block, STATUS_END_OF_FILE, 0)
    thread.memory.write(buffer, data)
    return _status_block(thread, block, 0, len(data))


@api("NTSTATUS NtWriteFile(HANDLE file, HANDLE event, LPVOID routine, LPVOID context, LPVOID block, LPVOID buffer,"
     " ULONG size, LPVOID offset, ULONG* key)", "ntdll")  # fmt: skip
def nt_write_file(
    thread: Thread, file: int, event: int, routine: int, context: int, block: int, buffer: int, size: int,
    offset: int, key: int,
) -> int:  # fmt: skip
    """The same with a status."""
    found = file_objects.of(thread, file)
    if found is None:
        return STATUS_INVALID_HANDLE
    place = thread.memory.u64(offset) if offset else None
    data = thread.memory.read(buffer, size)
    error = file_objects.write(thread, found, data, place if place is None or place < 1 << 63 else None)
    if error:
        return _status_block(
            thread, block, STATUS_PIPE_BROKEN if error == errors.ERROR_NO_DATA else STATUS_ACCESS_DENIED, 0
        )
    return _status_block(thread, block, 0, size)


@api("BOOL SetFilePointerEx(HANDLE file, LARGE_INTEGER distance, LARGE_INTEGER* place, DWORD method)", "kernel32",
     "kernelbase")  # fmt: skip
def set_file_pointer_ex(thread: Thread, file: int, distance: int, place: int, method: int) -> int:
    """Move where the file stands."""
    moved = _seek(thread, file, distance, method)
    if moved is None:
        return 0
    if place:
        thread.memory.set_u64(place, moved)
    return 1


def _seek(thread: Thread, file: int, distance: int, method: int) -> int | None:
    found = file_objects.of(thread, file)
    if found is None:
        thread.fail(errors.ERROR_INVALID_HANDLE)
        return None
    try:
        return os.lseek(found.fd, distance, (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)[method])
    except IndexError:
        thread.fail(errors.ERROR_INVALID_PARAMETER)
    except OSError as error:
        negative = found.kind == TYPE_DISK and error.errno == 22  # EINVAL: before the file's start
        thread.fail(errors.ERROR_NEGATIVE_SEEK if negative else errors.ERROR_INVALID_FUNCTION)
    return None


@api("DWORD SetFilePointer(HANDLE file, LONG distance, LONG* high, DWORD method)", "kernel32", "kernelbase")
def set_file_pointer(thread: Thread, file: int, distance: int, high: int, method: int) -> int:
    """The same in two halves."""
    if high:
        distance = distance & INVALID_32 | thread.memory.u32(high) << 32
        distance -= (distance >> 63) << 64
    moved = _seek(thread, file, distance, method)
    if moved is None:
        return INVALID_32
    if high:
        thread.memory.set_u32(high, moved >> 32)
    thread.last_error = 0
    return moved & INVALID_32


@api("BOOL SetEndOfFile(HANDLE file)", "kernel32", "kernelbase")
def set_end_of_file(thread: Thread, file: int) -> int:
    """Cut or lengthen it to where it stands."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    try:
        os.ftruncate(found.fd, os.lseek(found.fd, 0, os.SEEK_CUR))
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    return 1


@api("BOOL FlushFileBuffers(HANDLE file)", "kernel32", "kernelbase")
def flush_file_buffers(thread: Thread, file: int) -> int:
    """To the disk, where it is on one."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if found.kind == TYPE_DISK:
        try:
            os.fsync(found.fd)
        except OSError as error:
            return thread.fail(errors.of_errno(error.errno or 0))
    return 1


@api("BOOL GetFileSizeEx(HANDLE file, LARGE_INTEGER* size)", "kernel32", "kernelbase")
def get_file_size_ex(thread: Thread, file: int, size: int) -> int:
    """Bytes of it."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if found.kind != TYPE_DISK:
        return thread.fail(errors.ERROR_INVALID_FUNCTION)
    thread.memory.set_u64(size, os.fstat(found.fd).st_size)
    return 1


@api("DWORD GetFileSize(HANDLE file, DWORD* high)", "kernel32", "kernelbase")
def get_file_size(thread: Thread, file: int, high: int) -> int:
    """The same in two halves."""
    found = file_objects.of(thread, file)
    if found is None or found.kind != TYPE_DISK:
        return thread.fail(errors.ERROR_INVALID_HANDLE, INVALID_32)
    size = os.fstat(found.fd).st_size
    if high:
        thread.memory.set_u32(high, size >> 32)
    thread.last_error = 0
    return size & INVALID_32


def _lock(thread: Thread, file: int, start: int, size: int, exclusive: bool, fail: bool) -> int:
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)

    def free() -> bool:
        for other in thread.process.handles.objects():
            if isinstance(other, File) and other is not found and other.path == found.path:
                for low, length, alone in other.locks:
                    if (alone or exclusive) and low < start + size and start < low + length:
                        return False
        return True

    if not free():
        if fail:
            return thread.fail(errors.ERROR_LOCK_VIOLATION)
        thread.engine.wait(free, None)
    found.locks.append((start, size, exclusive))
    return 1


def _unlock(thread: Thread, file: int, start: int, size: int) -> int:
    found = file_objects.of(thread, file)
    for lock in found.locks if found is not None else ():
        if lock[:2] == (start, size):
            assert found is not None
            found.locks.remove(lock)
            thread.engine.wake()
            return 1
    return thread.fail(errors.ERROR_NOT_LOCKED)


@api("BOOL LockFileEx(HANDLE file, DWORD flags, DWORD reserved, DWORD low, DWORD high, LPOVERLAPPED overlapped)",
     "kernel32", "kernelbase", note="within the process")  # fmt: skip
def lock_file_ex(thread: Thread, file: int, flags: int, reserved: int, low: int, high: int, overlapped: int) -> int:
    """Lock a range, shared or not."""
    start = thread.memory.u64(overlapped + OVERLAPPED_OFFSET)
    return _lock(thread, file, start, low | high << 32, bool(flags & LOCK_EXCLUSIVE), bool(flags & LOCK_FAIL))


@api("BOOL UnlockFileEx(HANDLE file, DWORD reserved, DWORD low, DWORD high, LPOVERLAPPED overlapped)", "kernel32",
     "kernelbase")  # fmt: skip
def unlock_file_ex(thread: Thread, file: int, reserved: int, low: int, high: int, overlapped: int) -> int:
    """Let it go."""
    return _unlock(thread, file, thread.memory.u64(overlapped + OVERLAPPED_OFFSET), low | high << 32)


@api("BOOL LockFile(HANDLE file, DWORD start, DWORD start_high, DWORD low, DWORD high)", "kernel32", "kernelbase",
     note="within the process")  # fmt: skip
def lock_file(thread: Thread, file: int, start: int, start_high: int, low: int, high: int) -> int:
    """Lock a range at once, or fail."""
    return _lock(thread, file, start | start_high << 32, low | high << 32, exclusive=True, fail=True)


@api("BOOL UnlockFile(HANDLE file, DWORD start, DWORD start_high, DWORD low, DWORD high)", "kernel32", "kernelbase")
def unlock_file(thread: Thread, file: int, start: int, start_high: int, low: int, high: int) -> int:
    """Let it go."""
    return _unlock(thread, file, start | start_high << 32, low | high << 32)
