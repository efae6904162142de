"""Functions of any handle: closing, duplicating, and the three standard ones."""

from typing import Any, Final

from virtus.personalities.win32 import errors, file_objects
from virtus.personalities.win32.file_objects import CURRENT_PROCESS, INVALID, STDERR, STDIN, File
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.process_blocks import PARAMETERS_STREAMS, PEB_PARAMETERS
from virtus.personalities.win32.table import api

DUPLICATE_CLOSE_SOURCE: Final = 1
FLAG_INHERIT: Final = 1
PSEUDO: Final = frozenset(range(INVALID - 5, INVALID + 1))
"""Handles that mean the current process, thread or token, and need no closing."""


def standard_streams(process: Process) -> tuple[int, ...]:
    """Handles of our own standard streams, made at the start."""
    handles = []
    for fd in (0, 1, 2):
        file = File(fd, standard=True)
        file.opened()
        handles.append(process.handles.add(file, inheritable=True))
    return tuple(handles)


def close(thread: Thread, handle: int) -> bool:
    """Close a handle; whether it was one."""
    found = thread.process.handles.get(handle)
    if found is None or not thread.process.handles.close(handle):
        return False
    if getattr(found, "busy", 0) and found.handles <= 1:
        from virtus.personalities.win32 import completion  # there already, where an operation goes on

        completion.cancel(thread.process, found)
    closed = getattr(found, "closed", None)
    if closed is not None:
        closed()
    return True


@api("BOOL CloseHandle(HANDLE handle)", "kernel32", "kernelbase")
def close_handle(thread: Thread, handle: int) -> int:
    """Whether it was one."""
    if handle in PSEUDO or close(thread, handle):
        return 1
    return thread.fail(errors.ERROR_INVALID_HANDLE)


@api("NTSTATUS NtClose(HANDLE handle)", "ntdll")
def nt_close(thread: Thread, handle: int) -> int:
    """0, or STATUS_INVALID_HANDLE."""
    return 0 if handle in PSEUDO or close(thread, handle) else 0xC0000008 - (1 << 32)


@api("BOOL DuplicateHandle(HANDLE source_process, HANDLE source, HANDLE target_process, HANDLE* target, DWORD access,"
     " BOOL inherit, DWORD options)", "kernel32", "kernelbase", note="within the process")  # fmt: skip
def duplicate_handle(
    thread: Thread, source_process: int, source: int, target_process: int, target: int, access: int, inherit: int,
    options: int,
) -> int:  # fmt: skip
    """Another handle of the same object."""
    found: Any = thread.process.handles.get(source)
    if source == CURRENT_PROCESS - 1:  # the current thread: an object of its own, where threads have one
        found = getattr(thread, "object", None) or thread
    elif source == CURRENT_PROCESS:
        found = thread.process
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    opened = getattr(found, "opened", None)
    if opened is not None:
        opened()
    if target:
        thread.memory.set_u64(target, thread.process.handles.add(found, inheritable=bool(inherit)))
    if options & DUPLICATE_CLOSE_SOURCE:
        close(thread, source)
    return 1


@api("HANDLE GetStdHandle(DWORD which)", "kernel32", "kernelbase")
def get_std_handle(thread: Thread, which: int) -> int:
    """Standard input, output or error output."""
    index = STDIN - (which - (1 << 32))
    if not 0 <= index < 3:
        return thread.fail(errors.ERROR_INVALID_HANDLE, INVALID)
    return thread.process.streams[index]


@api("BOOL SetStdHandle(DWORD which, HANDLE handle)", "kernel32", "kernelbase")
def set_std_handle(thread: Thread, which: int, handle: int) -> int:
    """Another one from now on."""
    index = STDIN - (which - (1 << 32))
    if not 0 <= index <= STDIN - STDERR:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    streams = list(thread.process.streams)
    streams[index] = handle
    thread.process.streams = tuple(streams)
    parameters = thread.memory.u64(thread.process.peb + PEB_PARAMETERS)
    thread.memory.set_u64(parameters + PARAMETERS_STREAMS + 8 * index, handle)
    return 1


@api("DWORD GetFileType(HANDLE file)", "kernel32", "kernelbase")
def get_file_type(thread: Thread, file: int) -> int:
    """Disk, character device or pipe."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    thread.last_error = 0
    return found.kind


@api("BOOL SetHandleInformation(HANDLE object, DWORD mask, DWORD flags)", "kernel32", "kernelbase",
     note="a handle that is protected from closing is closed all the same")  # fmt: skip
def set_handle_information(thread: Thread, object: int, mask: int, flags: int) -> int:
    """Whether children get it."""
    handles = thread.process.handles
    if handles.get(object) is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if mask & FLAG_INHERIT:
        handles.set_inheritable(object, bool(flags & FLAG_INHERIT))
    return 1


@api("BOOL GetHandleInformation(HANDLE object, DWORD* flags)", "kernel32", "kernelbase")
def get_handle_information(thread: Thread, object: int, flags: int) -> int:
    """Whether children get it."""
    handles = thread.process.handles
    if handles.get(object) is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    thread.memory.set_u32(flags, FLAG_INHERIT if handles.is_inheritable(object) else 0)
    return 1
