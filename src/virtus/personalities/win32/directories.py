"""Directories: enumeration by pattern or by handle, making, removing, the current one.

Patterns are matched as Windows matches them: `*.*` is everything, `?` one character or none before a dot or the end,
and case does not matter (Microsoft: FindFirstFile; [MS-FSA] 2.1.4.4).
"""

import os
import re
import struct
from functools import lru_cache
from typing import Any, Final

from virtus.personalities.win32 import errors, paths
from virtus.personalities.win32.file_information import (
    TAG_SYMLINK,
    attributes,
    times,
)  # fmt: skip
from virtus.personalities.win32.file_objects import INVALID, File
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text, give

KINDS: Final = {10: "both", 11: "both", 14: "full", 15: "full"}
"""FILE_INFO_BY_HANDLE_CLASS: FileIdBothDirectoryInfo, ...Restart, FileFullDirectoryInfo, ...Restart."""
RESTART: Final = (11, 15)
LONGEST_PATH: Final = 260
ALTERNATE: Final = 14
ONLY_DIRECTORIES: Final = 1


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> "re.Pattern[str]":
    if pattern in ("*.*", "*"):
        return re.compile("(?s).*")
    parts = []
    for character in pattern:
        if character == "*":
            parts.append(".*")
        elif character == "?":
            parts.append(".")
        else:
            parts.append(re.escape(character))
    text = "".join(parts)
    if pattern.endswith(".*"):
        text = text[: -len(r"\..*")] + r"(\..*)?"
    elif pattern.endswith(".") and pattern != ".":
        text = text[: -len(r"\.")]
    return re.compile(f"(?is){text}")


def matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern."""
    return _matcher(pattern).fullmatch(name) is not None


class Search:
    """An enumeration: names that are still to be given."""

    def __init__(self, directory: str, pattern: str) -> None:
        self.directory = directory
        names = sorted(name for name in os.listdir(directory) if matches(pattern, name))
        dots = [name for name in (".", "..") if matches(pattern, name) and directory != "/"]
        self.names = [*dots, *names]
        self.place = 0

    def next(self) -> tuple[str, os.stat_result] | None:
        """The next name, and what it is; those that have gone meanwhile are left out."""
        while self.place < len(self.names):
            name = self.names[self.place]
            self.place += 1
            try:
                return name, os.lstat(os.path.join(self.directory, name))
            except OSError:
                continue
        return None


def _store(thread: Thread, text: Text, data: int, name: str, status: os.stat_result) -> None:
    """WIN32_FIND_DATA."""
    value = attributes(status)
    size = 0 if value & 0x10 else status.st_size
    head = struct.pack("<I3Q4I", value, *times(status)[:3], size >> 32, size & 0xFFFF_FFFF,
                       TAG_SYMLINK if value & 0x400 else 0, 0)  # fmt: skip
    room = LONGEST_PATH * text.unit
    encoded = text.encode(name)[: room - text.unit].ljust(room, b"\0")
    thread.memory.write(data, head + encoded + bytes(ALTERNATE * text.unit))


def _first(thread: Thread, text: Text, name: int, data: int) -> int:
    word = text.read(thread.memory, name)
    try:
        head, _, pattern = paths.absolute(thread.process, word).rpartition("\\")
        head = head + "\\" if head.endswith(":") else head
        directory = paths.to_host(thread.process, head)
        if not any(character in pattern for character in "*?"):
            path = paths.to_host(thread.process, word)
            search = Search.__new__(Search)
            search.directory, search.names, search.place = os.path.dirname(path), [os.path.basename(path)], 0
        else:
            search = Search(directory, pattern)
    except paths.BadPath as bad:
        return thread.fail(bad.error, INVALID)
    except OSError as error:
        number = errors.of_errno(error.errno or 0)
        missing = number == errors.ERROR_FILE_NOT_FOUND
        return thread.fail(errors.ERROR_PATH_NOT_FOUND if missing else number, INVALID)
    found = search.next()
    if found is None:
        there = os.path.isdir(search.directory)
        return thread.fail(errors.ERROR_FILE_NOT_FOUND if there else errors.ERROR_PATH_NOT_FOUND, INVALID)
    _store(thread, text, data, *found)
    return thread.process.handles.add(search)


@api("HANDLE FindFirstFileW(LPCWSTR name, LPVOID data)", "kernel32", "kernelbase")
def find_first_file_w(thread: Thread, name: int, data: int) -> int:
    """Begin an enumeration, with its first file."""
    return _first(thread, WIDE, name, data)


@api("HANDLE FindFirstFileA(LPCSTR name, LPVOID data)", "kernel32", "kernelbase")
def find_first_file_a(thread: Thread, name: int, data: int) -> int:
    """Begin an enumeration, with its first file."""
    return _first(thread, ANSI, name, data)


@api("HANDLE FindFirstFileExW(LPCWSTR name, DWORD level, LPVOID data, DWORD kind, LPVOID filter, DWORD flags)",
     "kernel32", "kernelbase")  # fmt: skip
def find_first_file_ex_w(thread: Thread, name: int, level: int, data: int, kind: int, filter: int, flags: int) -> int:
    """The same; what the flags ask for is given anyway."""
    return _first(thread, WIDE, name, data)


def _next(thread: Thread, text: Text, handle: int, data: int) -> int:
    search: Any = thread.process.handles.get(handle)
    if not isinstance(search, Search):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    found = search.next()
    if found is None:
        return thread.fail(errors.ERROR_NO_MORE_FILES)
    _store(thread, text, data, *found)
    return 1


@api("BOOL FindNextFileW(HANDLE search, LPVOID data)", "kernel32", "kernelbase")
def find_next_file_w(thread: Thread, search: int, data: int) -> int:
    """The next file."""
    return _next(thread, WIDE, search, data)


@api("BOOL FindNextFileA(HANDLE search, LPVOID data)", "kernel32", "kernelbase")
def find_next_file_a(thread: Thread, search: int, data: int) -> int:
    """The next file."""
    return _next(thread, ANSI, search, data)


@api("BOOL FindClose(HANDLE search)", "kernel32", "kernelbase")
def find_close(thread: Thread, search: int) -> int:
    """End it."""
    if isinstance(thread.process.handles.get(search), Search):
        thread.process.handles.close(search)
        return 1
    return thread.fail(errors.ERROR_INVALID_HANDLE)


def enumerate_handle(thread: Thread, opened: File, kind: int, data: int, size: int) -> int:
    """As many entries of a directory as fit; fails with ERROR_NO_MORE_FILES at the end."""
    try:
        if opened.listing is None or kind in RESTART:
            opened.listing = Search(opened.path, "*")
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    stored = pack_entries(opened.listing, KINDS[kind], size)
    if stored is None:
        return thread.fail(errors.ERROR_BAD_LENGTH)
    if not stored:
        return thread.fail(errors.ERROR_NO_MORE_FILES)
    thread.memory.write(data, stored)
    return 1


def pack_entries(search: Search, kind: str, size: int) -> bytes | None:
    """FILE_ID_BOTH_DIR_INFORMATION or FILE_FULL_DIR_INFORMATION entries ([MS-FSCC] 2.4.17, 2.4.14), chained.

    b"" at the end, None where not even one fits.
    """
    result = bytearray()
    last = -1
    while True:
        place = search.place
        found = search.next()
        if found is None:
            break
        name, status = found
        encoded = name.encode("utf-16-le", "surrogatepass")
        value = attributes(status)
        tag = TAG_SYMLINK if value & 0x400 else 0
        entry = struct.pack(
            "<II6QII", 0, 0, *times(status), status.st_size, status.st_blocks * 512, value, len(encoded)
        )
        entry += struct.pack("<I", tag)
        if kind == "both":
            entry += struct.pack("<Bx24x2xQ", 0, status.st_ino)  # no short name
        entry += encoded
        start = -(-len(result) // 8) * 8
        if start + len(entry) > size:
            search.place = place
            if last < 0:
                return None
            break
        if last >= 0:
            struct.pack_into("<I", result, last, start - last)
        result.extend(bytes(start - len(result)))
        last = start
        result += entry
    return bytes(result)


def _path(thread: Thread, text: Text, name: int) -> str:
    return paths.to_host(thread.process, text.read(thread.memory, name))


def _make(thread: Thread, text: Text, name: int) -> int:
    path = ""
    try:
        path = _path(thread, text, name)
        os.mkdir(path)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except OSError as error:
        return thread.fail(paths.error_of(error, path))
    return 1


@api("BOOL CreateDirectoryW(LPCWSTR name, LPVOID security)", "kernel32", "kernelbase")
def create_directory_w(thread: Thread, name: int, security: int) -> int:
    """A new directory."""
    return _make(thread, WIDE, name)


@api("BOOL CreateDirectoryA(LPCSTR name, LPVOID security)", "kernel32", "kernelbase")
def create_directory_a(thread: Thread, name: int, security: int) -> int:
    """A new directory."""
    return _make(thread, ANSI, name)


def _remove(thread: Thread, text: Text, name: int) -> int:
    path = ""
    try:
        path = _path(thread, text, name)
        if os.path.islink(path):
            os.unlink(path)
        else:
            os.rmdir(path)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except NotADirectoryError:
        return thread.fail(errors.ERROR_DIRECTORY)
    except OSError as error:
        return thread.fail(paths.error_of(error, path))
    return 1


@api("BOOL RemoveDirectoryW(LPCWSTR name)", "kernel32", "kernelbase")
def remove_directory_w(thread: Thread, name: int) -> int:
    """Remove an empty one."""
    return _remove(thread, WIDE, name)


@api("BOOL RemoveDirectoryA(LPCSTR name)", "kernel32", "kernelbase")
def remove_directory_a(thread: Thread, name: int) -> int:
    """Remove an empty one."""
    return _remove(thread, ANSI, name)


@api("DWORD GetCurrentDirectoryW(DWORD size, LPWSTR buffer)", "kernel32", "kernelbase")
def get_current_directory_w(thread: Thread, size: int, buffer: int) -> int:
    """The current directory."""
    return give(thread.memory, WIDE, buffer, size, thread.process.directory)


@api("DWORD GetCurrentDirectoryA(DWORD size, LPSTR buffer)", "kernel32", "kernelbase")
def get_current_directory_a(thread: Thread, size: int, buffer: int) -> int:
    """The current directory."""
    return give(thread.memory, ANSI, buffer, size, thread.process.directory)


def _change(thread: Thread, text: Text, name: int) -> int:
    try:
        path = _path(thread, text, name)
        os.chdir(path)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except NotADirectoryError:
        return thread.fail(errors.ERROR_DIRECTORY)
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    thread.process.directory = paths.to_windows(os.getcwd())
    return 1


@api("BOOL SetCurrentDirectoryW(LPCWSTR name)", "kernel32", "kernelbase")
def set_current_directory_w(thread: Thread, name: int) -> int:
    """Another current directory."""
    return _change(thread, WIDE, name)


@api("BOOL SetCurrentDirectoryA(LPCSTR name)", "kernel32", "kernelbase")
def set_current_directory_a(thread: Thread, name: int) -> int:
    """Another current directory."""
    return _change(thread, ANSI, name)
