"""Where libraries are looked for, as far as a program may say: kept, and told when it is asked for.

Libraries of ours are never looked for; others lie beside the program, where they are looked for anyway.
"""

from virtus.personalities.win32 import errors, state
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, give

NOTE = "libraries are looked for beside the program"


class Directories:
    """What a process has asked for."""

    def __init__(self) -> None:
        self.directory = ""
        self.added: dict[int, str] = {}


@api("BOOL SetDllDirectoryW(LPCWSTR path)", "kernel32", note=NOTE)
def set_dll_directory_w(thread: Thread, path: int) -> int:
    """Kept."""
    state.of(thread.process, Directories).directory = WIDE.read(thread.memory, path) if path else ""
    return 1


@api("BOOL SetDllDirectoryA(LPCSTR path)", "kernel32", note=NOTE)
def set_dll_directory_a(thread: Thread, path: int) -> int:
    """Kept."""
    state.of(thread.process, Directories).directory = ANSI.read(thread.memory, path) if path else ""
    return 1


@api("DWORD GetDllDirectoryW(DWORD capacity, LPWSTR buffer)", "kernel32")
def get_dll_directory_w(thread: Thread, capacity: int, buffer: int) -> int:
    """As set."""
    return give(thread.memory, WIDE, buffer, capacity, state.of(thread.process, Directories).directory)


@api("BOOL SetDefaultDllDirectories(DWORD flags)", "kernel32", "kernelbase", note=NOTE)
def set_default_dll_directories(thread: Thread, flags: int) -> int:
    """A safer search, as it is anyway."""
    return 1 if flags and not flags & ~0x1F00 else thread.fail(errors.ERROR_INVALID_PARAMETER)


@api("LPVOID AddDllDirectory(LPCWSTR path)", "kernel32", "kernelbase", note=NOTE)
def add_dll_directory(thread: Thread, path: int) -> int:
    """A cookie."""
    directories = state.of(thread.process, Directories)
    cookie = 0x10 * (len(directories.added) + 1)
    directories.added[cookie] = WIDE.read(thread.memory, path)
    return cookie


@api("BOOL RemoveDllDirectory(LPVOID cookie)", "kernel32", "kernelbase")
def remove_dll_directory(thread: Thread, cookie: int) -> int:
    """By its cookie."""
    found = state.of(thread.process, Directories).added.pop(cookie, None)
    return 1 if found is not None else thread.fail(errors.ERROR_INVALID_PARAMETER)
