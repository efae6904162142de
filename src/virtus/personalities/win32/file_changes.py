"""What a program changes of an open file through its handle: times, attributes, size, name, and that it goes.

(Microsoft: SetFileInformationByHandle; [MS-FSCC] 2.4 for the structures.)
"""

import os
import stat
from typing import Final

from virtus.personalities.win32 import errors, file_objects, paths, sharing
from virtus.personalities.win32.code_pages import from_utf16
from virtus.personalities.win32.file_information import (
    ALLOCATION,
    BASIC,
    CASE_SENSITIVE,
    DISPOSITION,
    DISPOSITION_EX,
    END_OF_FILE,
    IO_PRIORITY_HINT,
    READ_ONLY,
    RENAME,
    RENAME_EX,
    permissions,
)
from virtus.personalities.win32.file_objects import File
from virtus.personalities.win32.file_time import to_unix_ns
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api

DELETE, POSIX_SEMANTICS, IGNORE_READ_ONLY = 1, 2, 0x10
"""FILE_DISPOSITION_INFORMATION_EX ([MS-FSCC] 2.4.12)."""
REPLACE: Final = 1
LONGEST_NAME: Final = 0x1_0000
UNCHANGED: Final = (0, (1 << 64) - 1, (1 << 64) - 2)
"""Times that mean: leave it ([MS-FSCC] 2.4.7)."""
SIZES: Final = {BASIC: 40, DISPOSITION: 1, DISPOSITION_EX: 4, END_OF_FILE: 8, ALLOCATION: 8, RENAME: 22, RENAME_EX: 22,
                IO_PRIORITY_HINT: 4, CASE_SENSITIVE: 4}  # fmt: skip
"""The least that each structure takes."""


def set_times(fd: int, status: os.stat_result, access: int, write: int) -> None:
    """Set the times of the last access and write; raises OSError."""
    moments = (
        status.st_atime_ns if access in UNCHANGED else to_unix_ns(access),
        status.st_mtime_ns if write in UNCHANGED else to_unix_ns(write),
    )
    try:
        os.utime(fd, ns=moments)
    except OverflowError as error:
        raise OSError(22, "a time that the host cannot keep") from error


def change(thread: Thread, opened: File, kind: int, data: int, size: int) -> int:
    """One kind of information of a file: 0, or an error."""
    if kind not in SIZES:
        return errors.ERROR_INVALID_PARAMETER
    if size < SIZES[kind]:
        return errors.ERROR_BAD_LENGTH
    memory = thread.memory
    try:
        status = os.fstat(opened.fd)
        if kind == BASIC:
            set_times(opened.fd, status, memory.u64(data + 8), memory.u64(data + 16))
            value, mode = memory.u32(data + 32), stat.S_IMODE(status.st_mode)
            if value and bool(value & READ_ONLY) == bool(mode & 0o222):
                os.fchmod(opened.fd, permissions(mode, value))
        elif kind == DISPOSITION:
            return _dispose(opened, status, DELETE if memory.read(data, 1)[0] else 0)
        elif kind == DISPOSITION_EX:
            return _dispose(opened, status, memory.u32(data))
        elif kind == END_OF_FILE:
            length = memory.u64(data)
            if length >> 63:
                return errors.ERROR_INVALID_PARAMETER
            os.ftruncate(opened.fd, length)
        elif kind == ALLOCATION:
            if memory.u64(data) < status.st_size:  # room beyond the end is found when something is written
                os.ftruncate(opened.fd, memory.u64(data))
        elif kind in (RENAME, RENAME_EX):
            return _rename(thread, opened, status, data, size)
    except paths.BadPath as bad:
        return bad.error
    except OSError as error:
        return errors.of_errno(error.errno or 0)
    return 0


def _dispose(opened: File, status: os.stat_result, flags: int) -> int:
    """Have a file go with its last handle, or at once, or not after all."""
    if not flags & DELETE:
        opened.delete_on_close = False
        return 0
    directory = stat.S_ISDIR(status.st_mode)
    if not directory and not status.st_mode & 0o222 and not flags & IGNORE_READ_ONLY:
        return errors.ERROR_ACCESS_DENIED
    if directory and os.listdir(opened.path):
        return errors.ERROR_DIR_NOT_EMPTY
    if flags & POSIX_SEMANTICS:  # the name goes at once
        (os.rmdir if directory else os.unlink)(opened.path)
        opened.delete_on_close = False
    else:
        opened.delete_on_close = True
    return 0


def _rename(thread: Thread, opened: File, status: os.stat_result, data: int, size: int) -> int:
    memory = thread.memory
    length = memory.u32(data + 16)
    if length > min(size - 20, LONGEST_NAME):
        return errors.ERROR_BAD_LENGTH
    name = from_utf16(memory.read(data + 20, length))
    root = memory.u64(data + 8)
    if root:
        directory = file_objects.of(thread, root)
        if directory is None:
            return errors.ERROR_INVALID_HANDLE
        target = paths.find(os.path.join(directory.path, *paths.host_names(name.split("\\"))))
    elif "\\" not in name and "/" not in name:
        target = paths.find(os.path.join(os.path.dirname(opened.path), *paths.host_names([name])))
    else:
        target = paths.to_host(thread.process, name)
    try:
        there = os.lstat(target)
    except OSError:
        there = None
    if there is not None and (there.st_ino, there.st_dev) != (status.st_ino, status.st_dev):
        if not memory.u32(data) & REPLACE:
            return errors.ERROR_ALREADY_EXISTS
        if stat.S_ISDIR(there.st_mode) or not there.st_mode & 0o222 or not sharing.deletable(thread.process, there):
            return errors.ERROR_ACCESS_DENIED
    os.rename(opened.path, target)
    opened.path = target
    return 0


@api("BOOL SetFileInformationByHandle(HANDLE file, DWORD kind, LPVOID data, DWORD size)", "kernel32", "kernelbase")
def set_file_information_by_handle(thread: Thread, file: int, kind: int, data: int, size: int) -> int:
    """Times, size, deletion, another name."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    error = change(thread, found, kind, data, size)
    return thread.fail(error) if error else 1


@api("BOOL SetFileTime(HANDLE file, LPVOID creation, LPVOID access, LPVOID write)", "kernel32", "kernelbase",
     note="Linux keeps no time of creation that could be set")  # fmt: skip
def set_file_time(thread: Thread, file: int, creation: int, access: int, write: int) -> int:
    """Last access and last write."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    moments = [thread.memory.u64(place) if place else 0 for place in (access, write)]
    try:
        set_times(found.fd, os.fstat(found.fd), *moments)
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    return 1
