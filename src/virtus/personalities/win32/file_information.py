"""What is known of files: attributes, times, sizes, identities, links, volumes."""

import os
import stat
import struct
from typing import Final

from virtus.personalities.win32 import errors, file_objects, paths
from virtus.personalities.win32.file_objects import TYPE_DISK, File
from virtus.personalities.win32.file_time import from_unix_ns, to_unix_ns
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text, give

READ_ONLY, HIDDEN, DIRECTORY, ARCHIVE, NORMAL, REPARSE = 0x1, 0x2, 0x10, 0x20, 0x80, 0x400
INVALID_ATTRIBUTES: Final = 0xFFFF_FFFF
TAG_SYMLINK: Final = 0xA000_000C
# FILE_INFO_BY_HANDLE_CLASS (minwinbase.h)
BASIC, STANDARD, NAME, RENAME, DISPOSITION, ALLOCATION, END_OF_FILE, STREAM = range(8)
ATTRIBUTE_TAG, ID_BOTH_DIRECTORY, ID_INFO, DISPOSITION_EX, RENAME_EX = 9, 10, 18, 21, 22
DISPOSITION_DELETE: Final = 1
NORMALIZED, VOLUME_NONE = 0, 4


def attributes(status: os.stat_result) -> int:
    """FILE_ATTRIBUTE_*."""
    value = DIRECTORY if stat.S_ISDIR(status.st_mode) else ARCHIVE
    if stat.S_ISLNK(status.st_mode):
        value = REPARSE | (ARCHIVE if not stat.S_ISDIR(status.st_mode) else DIRECTORY)
    if not status.st_mode & 0o222:
        value |= READ_ONLY
    return value


def times(status: os.stat_result) -> tuple[int, int, int, int]:
    """Creation, last access, last write and change, as FILETIME. Linux knows no creation: the oldest stands for it."""
    access, write = from_unix_ns(status.st_atime_ns), from_unix_ns(status.st_mtime_ns)
    change = from_unix_ns(status.st_ctime_ns)
    return min(access, write, change), access, write, change


def _halves(value: int) -> tuple[int, int]:
    return value >> 32, value & 0xFFFF_FFFF


def status_of(thread: Thread, text: Text, name: int, *, follow: bool = False) -> os.stat_result | None:
    """The host's status of a guest's path; None with the last error set."""
    path = ""
    try:
        path = paths.to_host(thread.process, text.read(thread.memory, name))
        return os.stat(path) if follow else os.lstat(path)
    except paths.BadPath as bad:
        thread.fail(bad.error)
    except OSError as error:
        thread.fail(paths.error_of(error, path))
    return None


def _attributes(thread: Thread, text: Text, name: int) -> int:
    status = status_of(thread, text, name)
    return INVALID_ATTRIBUTES if status is None else attributes(status)


@api("DWORD GetFileAttributesW(LPCWSTR name)", "kernel32", "kernelbase")
def get_file_attributes_w(thread: Thread, name: int) -> int:
    """Attributes by name."""
    return _attributes(thread, WIDE, name)


@api("DWORD GetFileAttributesA(LPCSTR name)", "kernel32", "kernelbase")
def get_file_attributes_a(thread: Thread, name: int) -> int:
    """Attributes by name."""
    return _attributes(thread, ANSI, name)


def _attributes_ex(thread: Thread, text: Text, name: int, data: int) -> int:
    status = status_of(thread, text, name)
    if status is None:
        return 0
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    moments = times(status)[:3]
    thread.memory.write(data, struct.pack("<I3Q2I", attributes(status), *moments, *_halves(size)))
    return 1


@api("BOOL GetFileAttributesExW(LPCWSTR name, DWORD level, LPVOID data)", "kernel32", "kernelbase")
def get_file_attributes_ex_w(thread: Thread, name: int, level: int, data: int) -> int:
    """WIN32_FILE_ATTRIBUTE_DATA."""
    return _attributes_ex(thread, WIDE, name, data)


@api("BOOL GetFileAttributesExA(LPCSTR name, DWORD level, LPVOID data)", "kernel32", "kernelbase")
def get_file_attributes_ex_a(thread: Thread, name: int, level: int, data: int) -> int:
    """WIN32_FILE_ATTRIBUTE_DATA."""
    return _attributes_ex(thread, ANSI, name, data)


def _set_attributes(thread: Thread, text: Text, name: int, value: int) -> int:
    status = status_of(thread, text, name, follow=True)
    if status is None:
        return 0
    mode = stat.S_IMODE(status.st_mode)
    mode = mode & ~0o222 if value & READ_ONLY else mode | 0o200 | (mode & 0o444) >> 1 & 0o022 & ~_umask()
    try:
        os.chmod(paths.to_host(thread.process, text.read(thread.memory, name)), mode)
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    return 1


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


@api("BOOL SetFileAttributesW(LPCWSTR name, DWORD attributes)", "kernel32", "kernelbase", note="read-only alone")
def set_file_attributes_w(thread: Thread, name: int, attributes: int) -> int:
    """Read-only or not."""
    return _set_attributes(thread, WIDE, name, attributes)


@api("BOOL SetFileAttributesA(LPCSTR name, DWORD attributes)", "kernel32", "kernelbase", note="read-only alone")
def set_file_attributes_a(thread: Thread, name: int, attributes: int) -> int:
    """Read-only or not."""
    return _set_attributes(thread, ANSI, name, attributes)


def _file(thread: Thread, handle: int) -> tuple[File, os.stat_result] | None:
    found = file_objects.of(thread, handle)
    if found is None:
        thread.fail(errors.ERROR_INVALID_HANDLE)
        return None
    return found, os.fstat(found.fd)


@api("BOOL GetFileInformationByHandle(HANDLE file, LPVOID data)", "kernel32", "kernelbase")
def get_file_information_by_handle(thread: Thread, file: int, data: int) -> int:
    """BY_HANDLE_FILE_INFORMATION."""
    found = _file(thread, file)
    if found is None:
        return 0
    opened, status = found
    if opened.kind != TYPE_DISK:
        return thread.fail(errors.ERROR_INVALID_FUNCTION)
    words = struct.pack(
        "<I3Q6I", attributes(status), *times(status)[:3], status.st_dev & 0xFFFF_FFFF, *_halves(status.st_size),
        status.st_nlink, *_halves(status.st_ino),
    )  # fmt: skip
    thread.memory.write(data, words)
    return 1


def information(opened: File, status: os.stat_result, kind: int) -> bytes | None:
    """What GetFileInformationByHandleEx stores; None for a kind that is not there."""
    directory = stat.S_ISDIR(status.st_mode)
    if kind == BASIC:
        return struct.pack("<4QII", *times(status), attributes(status), 0)
    if kind == STANDARD:
        blocks = status.st_blocks * 512
        return struct.pack("<QQIBBH", blocks, status.st_size, status.st_nlink, opened.delete_on_close, directory, 0)
    if kind == NAME:
        name = paths.to_windows(opened.path)[2:].encode("utf-16-le", "surrogatepass")
        return struct.pack("<I", len(name)) + name
    if kind == ATTRIBUTE_TAG:
        return struct.pack("<II", attributes(status), TAG_SYMLINK if stat.S_ISLNK(status.st_mode) else 0)
    if kind == ID_INFO:
        return struct.pack("<QQQ", status.st_dev, status.st_ino, 0)
    return None


@api("BOOL GetFileInformationByHandleEx(HANDLE file, DWORD kind, LPVOID data, DWORD size)", "kernel32", "kernelbase")
def get_file_information_by_handle_ex(thread: Thread, file: int, kind: int, data: int, size: int) -> int:
    """One of several structures."""
    from virtus.personalities.win32 import directories

    found = _file(thread, file)
    if found is None:
        return 0
    opened, status = found
    if kind in directories.KINDS:
        return directories.enumerate_handle(thread, opened, kind, data, size)
    if opened.kind != TYPE_DISK and kind != NAME:
        return thread.fail(errors.ERROR_INVALID_FUNCTION)
    stored = information(opened, status, kind)
    if stored is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if len(stored) > size:
        return thread.fail(errors.ERROR_MORE_DATA if kind == NAME else errors.ERROR_BAD_LENGTH)
    thread.memory.write(data, stored)
    return 1


@api("BOOL SetFileInformationByHandle(HANDLE file, DWORD kind, LPVOID data, DWORD size)", "kernel32", "kernelbase")
def set_file_information_by_handle(thread: Thread, file: int, kind: int, data: int, size: int) -> int:
    """Times, size, deletion, another name."""
    found = _file(thread, file)
    if found is None:
        return 0
    opened, status = found
    memory = thread.memory
    try:
        if kind == BASIC:
            _set_times(opened.fd, status, memory.u64(data + 8), memory.u64(data + 16))
            value = memory.u32(data + 32)
            if value:
                mode = stat.S_IMODE(status.st_mode)
                os.fchmod(opened.fd, mode & ~0o222 if value & READ_ONLY else mode | 0o200)
        elif kind in (DISPOSITION, DISPOSITION_EX):
            flags = memory.read(data, 1)[0]
            opened.delete_on_close = bool(flags & DISPOSITION_DELETE)
            if kind == DISPOSITION_EX and flags & DISPOSITION_DELETE:  # POSIX semantics: the name goes at once
                (os.rmdir if stat.S_ISDIR(status.st_mode) else os.unlink)(opened.path)
                opened.delete_on_close = False
            elif opened.delete_on_close and stat.S_ISDIR(status.st_mode) and os.listdir(opened.path):
                opened.delete_on_close = False
                return thread.fail(errors.ERROR_DIR_NOT_EMPTY)
        elif kind == END_OF_FILE:
            os.ftruncate(opened.fd, memory.u64(data))
        elif kind == ALLOCATION:
            pass  # room is found when something is written
        elif kind in (RENAME, RENAME_EX):
            name = memory.read(data + 20, memory.u32(data + 16)).decode("utf-16-le", "surrogatepass")
            target = paths.to_host(thread.process, name)
            if not memory.read(data, 1)[0] & 1 and os.path.lexists(target):
                return thread.fail(errors.ERROR_ALREADY_EXISTS)
            os.rename(opened.path, target)
            opened.path = target
        else:
            return thread.fail(errors.ERROR_INVALID_PARAMETER)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    return 1


def _set_times(fd: int, status: os.stat_result, access: int, write: int) -> None:
    unchanged = (0, (1 << 64) - 1)
    moments = (
        status.st_atime_ns if access in unchanged else to_unix_ns(access),
        status.st_mtime_ns if write in unchanged else to_unix_ns(write),
    )
    os.utime(fd, ns=moments)


@api("BOOL SetFileTime(HANDLE file, LPVOID creation, LPVOID access, LPVOID write)", "kernel32", "kernelbase",
     note="Linux keeps no time of creation")  # fmt: skip
def set_file_time(thread: Thread, file: int, creation: int, access: int, write: int) -> int:
    """Last access and last write."""
    found = _file(thread, file)
    if found is None:
        return 0
    values = [thread.memory.u64(place) if place else 0 for place in (access, write)]
    try:
        _set_times(found[0].fd, found[1], values[0], values[1])
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    return 1


@api("BOOL GetFileTime(HANDLE file, LPVOID creation, LPVOID access, LPVOID write)", "kernel32", "kernelbase")
def get_file_time(thread: Thread, file: int, creation: int, access: int, write: int) -> int:
    """Three times."""
    found = _file(thread, file)
    if found is None:
        return 0
    for place, value in zip((creation, access, write), times(found[1]), strict=False):
        if place:
            thread.memory.set_u64(place, value)
    return 1


@api("DWORD GetFinalPathNameByHandleW(HANDLE file, LPWSTR buffer, DWORD size, DWORD flags)", "kernel32", "kernelbase")
def get_final_path_name_by_handle_w(thread: Thread, file: int, buffer: int, size: int, flags: int) -> int:
    """The path of an open file, links resolved."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    path = os.path.realpath(found.path) if found.path else ""
    if not path:
        return thread.fail(errors.ERROR_INVALID_FUNCTION)
    name = paths.to_windows(path)
    return give(thread.memory, WIDE, buffer, size, name[2:] if flags & VOLUME_NONE else paths.VERBATIM + name)
