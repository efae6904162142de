"""Snapshots of the system (toolhelp): this process, its threads and its modules. Other processes are not seen."""

import struct
from typing import Final

from virtus.personalities.win32 import errors
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

SNAP_PROCESS, SNAP_THREAD, SNAP_MODULE, SNAP_MODULE32 = 0x2, 0x4, 0x8, 0x10
INVALID_HANDLE: Final = (1 << 64) - 1
PARENT: Final = 1
MODULE_NAME, PATH_NAME = 256, 260
THREAD_ENTRY: Final = struct.Struct("<IIIIiiI")


class Snapshot:
    """What there was when it was made, and how far each walk has come."""

    def __init__(
        self, processes: list[tuple[int, str]], threads: list[int], modules: list[tuple[int, int, str]]
    ) -> None:
        self.processes, self.threads, self.modules = processes, threads, modules
        self.place: dict[str, int] = {}


@api("HANDLE CreateToolhelp32Snapshot(DWORD flags, DWORD process)", "kernel32", note="of the caller's own process")
def create_toolhelp32_snapshot(thread: Thread, flags: int, process: int) -> int:
    """Processes, threads and modules, as the flags want them."""
    own = thread.process
    if flags & (SNAP_MODULE | SNAP_MODULE32) and process not in (0, own.ident):
        return thread.fail(errors.ERROR_ACCESS_DENIED, INVALID_HANDLE)
    program = own.modules.program
    made = Snapshot(
        [(own.ident, program.name)] if flags & SNAP_PROCESS else [],
        sorted(own.threads) if flags & SNAP_THREAD else [],
        [(module.base, module.size, module.name) for module in own.modules.order]
        if flags & (SNAP_MODULE | SNAP_MODULE32)
        else [],
    )
    handle: int = own.handles.add(made)
    return handle


def _entry(thread: Thread, handle: int, kind: str, *, first: bool) -> tuple[Snapshot, int] | int:
    """The snapshot and the place of the next entry, or the error."""
    found = thread.process.handles.get(handle)
    if not isinstance(found, Snapshot):
        return errors.ERROR_INVALID_HANDLE
    place = 0 if first else found.place.get(kind, 0)
    if place >= len(getattr(found, kind)):
        return errors.ERROR_NO_MORE_FILES
    found.place[kind] = place + 1
    return found, place


def _fixed(text: Text, value: str, count: int) -> bytes:
    return text.encode(value)[: (count - 1) * text.unit].ljust(count * text.unit, b"\0")


def _process(thread: Thread, text: Text, handle: int, result: int, *, first: bool) -> int:
    """PROCESSENTRY32."""
    size = 44 + PATH_NAME * text.unit
    if thread.memory.u32(result) < size:
        return thread.fail(errors.ERROR_BAD_LENGTH)
    found = _entry(thread, handle, "processes", first=first)
    if isinstance(found, int):
        return thread.fail(found)
    ident, name = found[0].processes[found[1]]
    data = struct.pack("<II4xQIIIiI", 0, ident, 0, 0, len(thread.process.threads), PARENT, 8, 0)
    thread.memory.write(result + 4, data + _fixed(text, name, PATH_NAME))
    return 1


@api("BOOL Process32FirstW(HANDLE snapshot, LPVOID result)", "kernel32")
def process32_first_w(thread: Thread, snapshot: int, result: int) -> int:
    """The first process."""
    return _process(thread, WIDE, snapshot, result, first=True)


@api("BOOL Process32NextW(HANDLE snapshot, LPVOID result)", "kernel32")
def process32_next_w(thread: Thread, snapshot: int, result: int) -> int:
    """ERROR_NO_MORE_FILES behind the last."""
    return _process(thread, WIDE, snapshot, result, first=False)


@api("BOOL Process32First(HANDLE snapshot, LPVOID result)", "kernel32")
def process32_first(thread: Thread, snapshot: int, result: int) -> int:
    """The first process."""
    return _process(thread, ANSI, snapshot, result, first=True)


@api("BOOL Process32Next(HANDLE snapshot, LPVOID result)", "kernel32")
def process32_next(thread: Thread, snapshot: int, result: int) -> int:
    """ERROR_NO_MORE_FILES behind the last."""
    return _process(thread, ANSI, snapshot, result, first=False)


def _thread(thread: Thread, handle: int, result: int, *, first: bool) -> int:
    """THREADENTRY32."""
    if thread.memory.u32(result) < THREAD_ENTRY.size:
        return thread.fail(errors.ERROR_BAD_LENGTH)
    found = _entry(thread, handle, "threads", first=first)
    if isinstance(found, int):
        return thread.fail(found)
    ident = found[0].threads[found[1]]
    thread.memory.write(result, THREAD_ENTRY.pack(THREAD_ENTRY.size, 0, ident, thread.process.ident, 8, 0, 0))
    return 1


@api("BOOL Thread32First(HANDLE snapshot, LPVOID result)", "kernel32")
def thread32_first(thread: Thread, snapshot: int, result: int) -> int:
    """The first thread."""
    return _thread(thread, snapshot, result, first=True)


@api("BOOL Thread32Next(HANDLE snapshot, LPVOID result)", "kernel32")
def thread32_next(thread: Thread, snapshot: int, result: int) -> int:
    """ERROR_NO_MORE_FILES behind the last."""
    return _thread(thread, snapshot, result, first=False)


def _module(thread: Thread, handle: int, result: int, *, first: bool) -> int:
    """MODULEENTRY32W."""
    if thread.memory.u32(result) < 48 + 2 * (MODULE_NAME + PATH_NAME):
        return thread.fail(errors.ERROR_BAD_LENGTH)
    found = _entry(thread, handle, "modules", first=first)
    if isinstance(found, int):
        return thread.fail(found)
    base, size, name = found[0].modules[found[1]]
    data = struct.pack("<IIII4xQI4xQ", 1, thread.process.ident, 1, 1, base, size, base)
    thread.memory.write(result + 4, data + _fixed(WIDE, name, MODULE_NAME) + _fixed(WIDE, name, PATH_NAME))
    return 1


@api("BOOL Module32FirstW(HANDLE snapshot, LPVOID result)", "kernel32", note="names without directories")
def module32_first_w(thread: Thread, snapshot: int, result: int) -> int:
    """The first module."""
    return _module(thread, snapshot, result, first=True)


@api("BOOL Module32NextW(HANDLE snapshot, LPVOID result)", "kernel32", note="names without directories")
def module32_next_w(thread: Thread, snapshot: int, result: int) -> int:
    """ERROR_NO_MORE_FILES behind the last."""
    return _module(thread, snapshot, result, first=False)
