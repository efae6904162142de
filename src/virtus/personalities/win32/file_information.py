"""What is known of files: attributes, times, sizes, identities, links, volumes."""

import os
import stat
import struct
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32 import errors, file_objects, paths
from virtus.personalities.win32.file_objects import TYPE_DISK, File
from virtus.personalities.win32.file_time import from_unix_ns
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text, give

READ_ONLY, HIDDEN, DIRECTORY, ARCHIVE, NORMAL, REPARSE = 0x1, 0x2, 0x10, 0x20, 0x80, 0x400
INVALID_ATTRIBUTES: Final = 0xFFFF_FFFF
TAG_SYMLINK: Final = 0xA000_000C
# FILE_INFO_BY_HANDLE_CLASS (minwinbase.h)
BASIC, STANDARD, NAME, RENAME, DISPOSITION, ALLOCATION, END_OF_FILE, STREAM = range(8)
COMPRESSION, ATTRIBUTE_TAG, REMOTE_PROTOCOL, STORAGE, ALIGNMENT, ID_INFO = 8, 9, 13, 16, 17, 18
IO_PRIORITY_HINT, DISPOSITION_EX, RENAME_EX, CASE_SENSITIVE = 12, 21, 22, 23
NORMALIZED, VOLUME_NONE = 0, 4


def attributes(status: os.stat_result) -> int:
    """FILE_ATTRIBUTE_*."""
    value = DIRECTORY if stat.S_ISDIR(status.st_mode) else ARCHIVE
    if stat.S_ISLNK(status.st_mode):
        value = REPARSE | (ARCHIVE if not stat.S_ISDIR(status.st_mode) else DIRECTORY)
    if not status.st_mode & 0o222:
        value |= READ_ONLY
    return value


def attributes_at(path: str, status: os.stat_result) -> int:
    """The same of what `os.lstat` says of a path: a link to a directory is a directory too, as it is on Windows."""
    value = attributes(status)
    if stat.S_ISLNK(status.st_mode) and os.path.isdir(path):
        value = value & ~ARCHIVE | DIRECTORY
    return value


def times(status: os.stat_result) -> tuple[int, int, int, int]:
    """Creation, last access, last write and change, as FILETIME. Linux knows no creation: the oldest stands for it."""
    access, write = from_unix_ns(status.st_atime_ns), from_unix_ns(status.st_mtime_ns)
    change = from_unix_ns(status.st_ctime_ns)
    return min(access, write, change), access, write, change


def _halves(value: int) -> tuple[int, int]:
    return value >> 32, value & 0xFFFF_FFFF


def status_of(thread: Thread, text: Text, name: int) -> tuple[str, os.stat_result] | None:
    """The host's path of a guest's, and its status; None with the last error set."""
    path = ""
    try:
        path = paths.to_host(thread.process, text.read(thread.memory, name))
        return path, os.lstat(path)
    except paths.BadPath as bad:
        thread.fail(bad.error)
    except OSError as error:
        thread.fail(paths.error_of(error, path))
    return None


def _attributes(thread: Thread, text: Text, name: int) -> int:
    found = status_of(thread, text, name)
    return INVALID_ATTRIBUTES if found is None else attributes_at(*found)


@api("DWORD GetFileAttributesW(LPCWSTR name)", "kernel32", "kernelbase")
def get_file_attributes_w(thread: Thread, name: int) -> int:
    """Attributes by name."""
    return _attributes(thread, WIDE, name)


@api("DWORD GetFileAttributesA(LPCSTR name)", "kernel32", "kernelbase")
def get_file_attributes_a(thread: Thread, name: int) -> int:
    """Attributes by name."""
    return _attributes(thread, ANSI, name)


def _attributes_ex(thread: Thread, text: Text, name: int, data: int) -> int:
    found = status_of(thread, text, name)
    if found is None:
        return 0
    status = found[1]
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    thread.memory.write(data, struct.pack("<I3Q2I", attributes_at(*found), *times(status)[:3], *_halves(size)))
    return 1


@api("BOOL GetFileAttributesExW(LPCWSTR name, DWORD level, LPVOID data)", "kernel32", "kernelbase")
def get_file_attributes_ex_w(thread: Thread, name: int, level: int, data: int) -> int:
    """WIN32_FILE_ATTRIBUTE_DATA."""
    return _attributes_ex(thread, WIDE, name, data)


@api("BOOL GetFileAttributesExA(LPCSTR name, DWORD level, LPVOID data)", "kernel32", "kernelbase")
def get_file_attributes_ex_a(thread: Thread, name: int, level: int, data: int) -> int:
    """WIN32_FILE_ATTRIBUTE_DATA."""
    return _attributes_ex(thread, ANSI, name, data)


def permissions(mode: int, value: int) -> int:
    """A file's mode with the read-only attribute set or taken away: then whoever may read may write, but for others."""
    return mode & ~0o222 if value & READ_ONLY else mode | 0o200 | (mode & 0o040) >> 1


def _set_attributes(thread: Thread, text: Text, name: int, value: int) -> int:
    found = status_of(thread, text, name)
    if found is None:
        return 0
    try:
        mode = stat.S_IMODE(os.stat(found[0]).st_mode)
        if bool(value & READ_ONLY) == bool(mode & 0o222):
            os.chmod(found[0], permissions(mode, value))
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    return 1


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


ENUMERATIONS: Final[dict[int, Callable[[Thread, File, int, int, int], int]]] = {}
"""Kinds of information that are a directory's entries: entered by the module of those."""


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
    if kind == COMPRESSION:
        return struct.pack("<QH6x", status.st_size, 0)
    if kind == ALIGNMENT:
        return struct.pack("<I", 0)
    if kind == STORAGE:
        return struct.pack("<7I", 512, 4096, 4096, 4096, 0x3, 0, 0)
    if kind == STREAM:  # the one unnamed stream, which a directory has not
        name = "::$DATA".encode("utf-16-le")
        return b"" if directory else struct.pack("<IIQQ", 0, len(name), status.st_size, status.st_blocks * 512) + name
    if kind == CASE_SENSITIVE:
        return struct.pack("<I", 0)
    return None


@api("BOOL GetFileInformationByHandleEx(HANDLE file, DWORD kind, LPVOID data, DWORD size)", "kernel32", "kernelbase")
def get_file_information_by_handle_ex(thread: Thread, file: int, kind: int, data: int, size: int) -> int:
    """One of several structures."""
    found = _file(thread, file)
    if found is None:
        return 0
    opened, status = found
    if kind in ENUMERATIONS:
        return ENUMERATIONS[kind](thread, opened, kind, data, size)
    if opened.kind != TYPE_DISK and kind != NAME:
        return thread.fail(errors.ERROR_INVALID_FUNCTION)
    stored = information(opened, status, kind)
    if stored is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if not stored:
        return thread.fail(errors.ERROR_HANDLE_EOF)
    if len(stored) > size:
        return thread.fail(errors.ERROR_MORE_DATA if kind == NAME else errors.ERROR_BAD_LENGTH)
    thread.memory.write(data, stored)
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
    return _final_path(thread, WIDE, file, buffer, size, flags)


@api("DWORD GetFinalPathNameByHandleA(HANDLE file, LPSTR buffer, DWORD size, DWORD flags)", "kernel32", "kernelbase")
def get_final_path_name_by_handle_a(thread: Thread, file: int, buffer: int, size: int, flags: int) -> int:
    """The same in the ANSI code page."""
    return _final_path(thread, ANSI, file, buffer, size, flags)


def _final_path(thread: Thread, text: Text, file: int, buffer: int, size: int, flags: int) -> int:
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    path = os.path.realpath(found.path) if found.path else ""
    if not path:
        return thread.fail(errors.ERROR_INVALID_FUNCTION)
    name = paths.to_windows(path)
    return give(thread.memory, text, buffer, size, name[2:] if flags & VOLUME_NONE else paths.VERBATIM + name)
