"""Locks of parts of a file, which are its handle's: the host's locks of open file descriptions.

So they hold between processes too, and end with the last handle. What the host has no lock for, a range above its
largest offset or an exclusive one through a handle that only reads, holds within the process. They bind those that
lock: reading and writing asks for none. (Microsoft: LockFileEx; Linux: fcntl(2), "Open file description locks".)
"""

import errno
import fcntl
import struct
import time
from typing import Final

from virtus.personalities.win32 import errors, file_objects, ntstatus
from virtus.personalities.win32.file_objects import TYPE_DISK, File
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.waiting import lock

LOCK_FAIL, LOCK_EXCLUSIVE = 1, 2
OVERLAPPED_OFFSET: Final = 16
LARGEST_OFFSET: Final = (1 << 63) - 1
FLOCK: Final = struct.Struct("hhqqi4x")
"""struct flock of x86-64: type, whence, start, length, process."""
RETRY_NS: Final = 10_000_000
"""How often a lock that another process has is tried again."""
NOTE: Final = "binds those that lock"


def _host(file: File, kind: int, start: int, size: int) -> bool:
    """Set a lock of the host's, or take it away; whether nobody else has it."""
    if start + size > LARGEST_OFFSET or not size:
        return True
    try:
        fcntl.fcntl(file.fd, fcntl.F_OFD_SETLK, FLOCK.pack(kind, 0, start, size, 0))
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def try_lock(thread: Thread, file: File, start: int, size: int, *, exclusive: bool) -> bool:
    """Lock a range if nobody has it."""
    with lock(thread.process):
        for other in set(thread.process.handles.objects()):
            if not isinstance(other, File) or not other.locks or other.path != file.path:
                continue
            for low, length, alone in other.locks:
                overlaps = low < start + size and start < low + length
                if overlaps and (alone or exclusive) and (other is not file or alone):
                    return False
        if not _host(file, fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK, start, size):
            return False
        file.locks.append((start, size, exclusive))
        return True


def unlock(thread: Thread, file: File, start: int, size: int) -> bool:
    """Give up a lock of exactly that range; whether there was one."""
    with lock(thread.process):
        held = next((each for each in file.locks if each[:2] == (start, size)), None)
        if held is None:
            return False
        file.locks.remove(held)
        if all(start >= low + length or low >= start + size for low, length, _ in file.locks):
            _host(file, fcntl.F_UNLCK, start, size)
    thread.engine.wake()
    return True


def _lock(thread: Thread, handle: int, start: int, size: int, *, exclusive: bool, fail: bool) -> int:
    """0, or an error."""
    found = file_objects.of(thread, handle)
    if found is None:
        return errors.ERROR_INVALID_HANDLE
    if found.kind != TYPE_DISK:
        return errors.ERROR_INVALID_FUNCTION
    while not try_lock(thread, found, start, size, exclusive=exclusive):
        if fail:
            return errors.ERROR_LOCK_VIOLATION
        thread.engine.wait(lambda: False, time.monotonic_ns() + RETRY_NS)
    return 0


def _unlock(thread: Thread, handle: int, start: int, size: int) -> int:
    found = file_objects.of(thread, handle)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    return 1 if unlock(thread, found, start, size) else thread.fail(errors.ERROR_NOT_LOCKED)


@api("BOOL LockFileEx(HANDLE file, DWORD flags, DWORD reserved, DWORD low, DWORD high, LPOVERLAPPED overlapped)",
     "kernel32", "kernelbase", note=NOTE)  # fmt: skip
def lock_file_ex(thread: Thread, file: int, flags: int, reserved: int, low: int, high: int, overlapped: int) -> int:
    """Lock a range, shared or not."""
    start = thread.memory.u64(overlapped + OVERLAPPED_OFFSET)
    error = _lock(
        thread, file, start, low | high << 32, exclusive=bool(flags & LOCK_EXCLUSIVE), fail=bool(flags & LOCK_FAIL)
    )
    if not error:
        thread.memory.write(overlapped, bytes(16))
    return thread.fail(error) if error else 1


@api("BOOL UnlockFileEx(HANDLE file, DWORD reserved, DWORD low, DWORD high, LPOVERLAPPED overlapped)", "kernel32",
     "kernelbase")  # fmt: skip
def unlock_file_ex(thread: Thread, file: int, reserved: int, low: int, high: int, overlapped: int) -> int:
    """Let it go."""
    return _unlock(thread, file, thread.memory.u64(overlapped + OVERLAPPED_OFFSET), low | high << 32)


@api("BOOL LockFile(HANDLE file, DWORD start, DWORD start_high, DWORD low, DWORD high)", "kernel32", "kernelbase",
     note=NOTE)  # fmt: skip
def lock_file(thread: Thread, file: int, start: int, start_high: int, low: int, high: int) -> int:
    """Lock a range at once, or fail."""
    error = _lock(thread, file, start | start_high << 32, low | high << 32, exclusive=True, fail=True)
    return thread.fail(error) if error else 1


@api("BOOL UnlockFile(HANDLE file, DWORD start, DWORD start_high, DWORD low, DWORD high)", "kernel32", "kernelbase")
def unlock_file(thread: Thread, file: int, start: int, start_high: int, low: int, high: int) -> int:
    """Let it go."""
    return _unlock(thread, file, start | start_high << 32, low | high << 32)


@api("NTSTATUS NtLockFile(HANDLE file, HANDLE event, LPVOID routine, LPVOID context, LPVOID block,"
     " LARGE_INTEGER *start, LARGE_INTEGER *size, ULONG key, BOOLEAN fail, BOOLEAN exclusive)", "ntdll",
     note=NOTE)  # fmt: skip
def nt_lock_file(
    thread: Thread, file: int, event: int, routine: int, context: int, block: int, start: int, size: int, key: int,
    fail: int, exclusive: int,
) -> int:  # fmt: skip
    """The native lock; ends before it returns."""
    memory = thread.memory
    error = _lock(thread, file, memory.u64(start), memory.u64(size), exclusive=bool(exclusive), fail=bool(fail))
    statuses = {0: 0, errors.ERROR_LOCK_VIOLATION: 0xC000_0055, errors.ERROR_INVALID_HANDLE: ntstatus.INVALID_HANDLE}
    status = statuses.get(error, 0xC000_0010)
    memory.write(block, struct.pack("<QQ", status, 0))
    return status


@api("NTSTATUS NtUnlockFile(HANDLE file, LPVOID block, LARGE_INTEGER *start, LARGE_INTEGER *size, ULONG key)", "ntdll")
def nt_unlock_file(thread: Thread, file: int, block: int, start: int, size: int, key: int) -> int:
    """The native unlock."""
    found = file_objects.of(thread, file)
    if found is None:
        return ntstatus.INVALID_HANDLE
    ended = unlock(thread, found, thread.memory.u64(start), thread.memory.u64(size))
    status = 0 if ended else 0xC000_007E
    thread.memory.write(block, struct.pack("<QQ", status, 0))
    return status
