"""Directories: enumeration by pattern or by handle, making, removing, the current one.

(Microsoft: Directory Management Functions, FindFirstFile.)
"""

import os
import struct
from typing import Any, Final

from virtus.personalities.win32 import directory_entries, errors, paths, process_blocks, searches
from virtus.personalities.win32.directory_entries import Search
from virtus.personalities.win32.file_information import ENUMERATIONS, TAG_SYMLINK, times
from virtus.personalities.win32.file_objects import INVALID, File
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text, give
from virtus.personalities.win32.wildcards import expression_of, is_wild

KINDS: Final = {
    10: directory_entries.ID_BOTH, 11: directory_entries.ID_BOTH, 14: directory_entries.FULL,
    15: directory_entries.FULL, 19: directory_entries.ID_EXTENDED, 20: directory_entries.ID_EXTENDED,
}  # fmt: skip
"""FILE_INFO_BY_HANDLE_CLASS: FileIdBothDirectoryInfo, ...Restart, FileFullDirectoryInfo, ...Restart."""
RESTART: Final = (11, 15, 20)
LONGEST_PATH: Final = 260
ALTERNATE: Final = 14
ONLY_DIRECTORIES: Final = 1


def _store(thread: Thread, text: Text, data: int, search: Search, name: str, status: os.stat_result) -> None:
    """WIN32_FIND_DATA."""
    value = search.attributes(name, status)
    size = 0 if value & 0x10 else status.st_size
    head = struct.pack("<I3Q4I", value, *times(status)[:3], size >> 32, size & 0xFFFF_FFFF,
                       TAG_SYMLINK if value & 0x400 else 0, 0)  # fmt: skip
    room = LONGEST_PATH * text.unit
    encoded = text.encode(name)[: room - text.unit].ljust(room, b"\0")
    thread.memory.write(data, head + encoded + bytes(ALTERNATE * text.unit))


def _usual(thread: Thread, word: str) -> Search | None:
    """All of a directory that has just this path; None for anything else."""
    directory = paths.plain(thread.process, word[:-2]) if word.endswith("\\*") else None
    if directory is None:
        return None
    try:
        return searches.quick(thread.process, Search(directory, "*"))
    except OSError:
        return None


def _first(thread: Thread, text: Text, name: int, data: int) -> int:
    word = text.read(thread.memory, name)
    usual = _usual(thread, word)
    if usual is not None:
        found = usual.next()
        if found is not None:
            _store(thread, text, data, usual, *found)
            return thread.process.handles.add(usual)
        usual.closed()
    try:
        head, _, pattern = paths.absolute(thread.process, word).rpartition("\\")
        directory = paths.to_host(thread.process, head + "\\")
        if is_wild(pattern):
            search = searches.quick(thread.process, Search(directory, expression_of(pattern)))
        elif pattern:
            path = paths.to_host(thread.process, word)
            search = Search(os.path.dirname(path), "", names=[os.path.basename(path)])
        else:  # a root, or a name that ends with a backslash: no file is meant
            return thread.fail(errors.ERROR_FILE_NOT_FOUND, INVALID)
    except paths.BadPath as bad:
        return thread.fail(bad.error, INVALID)
    except OSError as error:
        number = errors.of_errno(error.errno or 0)
        if number == errors.ERROR_FILE_NOT_FOUND:
            number = errors.ERROR_PATH_NOT_FOUND
        return thread.fail(number, INVALID)
    found = search.next()
    if found is None:
        search.closed()
        there = os.path.isdir(search.directory)
        return thread.fail(errors.ERROR_FILE_NOT_FOUND if there else errors.ERROR_PATH_NOT_FOUND, INVALID)
    _store(thread, text, data, search, *found)
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


@api("HANDLE FindFirstFileExA(LPCSTR name, DWORD level, LPVOID data, DWORD kind, LPVOID filter, DWORD flags)",
     "kernel32", "kernelbase")  # fmt: skip
def find_first_file_ex_a(thread: Thread, name: int, level: int, data: int, kind: int, filter: int, flags: int) -> int:
    """The same; what the flags ask for is given anyway."""
    return _first(thread, ANSI, name, data)


def _next(thread: Thread, text: Text, handle: int, data: int) -> int:
    search: Any = thread.process.handles.get(handle)
    if not isinstance(search, Search):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    found = search.next()
    if found is None:
        return thread.fail(errors.ERROR_NO_MORE_FILES)
    _store(thread, text, data, search, *found)
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
    found = thread.process.handles.get(search)
    if isinstance(found, Search) and thread.process.handles.close(search):
        found.closed()
        return 1
    return thread.fail(errors.ERROR_INVALID_HANDLE)


def enumerate_handle(thread: Thread, opened: File, kind: int, data: int, size: int) -> int:
    """As many entries of a directory as fit; fails with ERROR_NO_MORE_FILES at the end."""
    try:
        if opened.listing is None or kind in RESTART:
            opened.listing = Search(opened.path, "*")
    except NotADirectoryError:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    stored = directory_entries.pack(opened.listing, KINDS[kind], size)
    if stored is None:
        return thread.fail(errors.ERROR_BAD_LENGTH)
    if not stored:
        return thread.fail(errors.ERROR_NO_MORE_FILES)
    thread.memory.write(data, stored)
    return 1


ENUMERATIONS.update(dict.fromkeys(KINDS, enumerate_handle))


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
    process_blocks.set_directory(thread.memory, thread.process.peb, thread.process.directory)
    return 1


@api("BOOL SetCurrentDirectoryW(LPCWSTR name)", "kernel32", "kernelbase")
def set_current_directory_w(thread: Thread, name: int) -> int:
    """Another current directory."""
    return _change(thread, WIDE, name)


@api("BOOL SetCurrentDirectoryA(LPCSTR name)", "kernel32", "kernelbase")
def set_current_directory_a(thread: Thread, name: int) -> int:
    """Another current directory."""
    return _change(thread, ANSI, name)
