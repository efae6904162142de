"""Functions of the process itself: its end, how it was started, and what it may ask of errors."""

import struct
import sys
from typing import Final

from virtus.personalities.win32 import errors, exceptions, heaps, inheritance, state
from virtus.personalities.win32.file_objects import CURRENT_PROCESS
from virtus.personalities.win32.process import Process, ProcessEnd, Thread
from virtus.personalities.win32.table import api

STARTUP_SIZE: Final = 104
USE_STREAMS: Final = 0x100
STILL_ACTIVE: Final = 259
STATUS_INVALID_HANDLE, STATUS_DLL_NOT_FOUND = -0x3FFFFFF8, -0x3FFFFECB
STATUS_BREAKPOINT, STATUS_FAIL_FAST = 0x8000_0003, 0xC000_0602


class Startup:
    """Strings of STARTUPINFO, made once."""

    def __init__(self) -> None:
        self.empty = self.reserved = 0


def end(thread: Thread, status: int) -> None:
    """End the process: libraries are told, and what is open is closed by the host."""
    from virtus.personalities.win32 import startup

    if not thread.process.ending:
        thread.process.ending = True
        startup.attach(thread.process, startup.DLL_PROCESS_DETACH)
    raise ProcessEnd(status)


@api("void ExitProcess(UINT status)", "kernel32", "kernelbase")
def exit_process(thread: Thread, status: int) -> None:
    """End the process, its libraries told."""
    end(thread, status)


@api("void RtlExitUserProcess(UINT status)", "ntdll")
def rtl_exit_user_process(thread: Thread, status: int) -> None:
    """End the process, its libraries told."""
    end(thread, status)


def _startup(thread: Thread, info: int) -> None:
    strings = state.of(thread.process, Startup)
    if not strings.empty:
        strings.empty = heaps.allocate(thread.process, b"\0\0")
    thread.memory.write(info, bytes(STARTUP_SIZE))
    thread.memory.set_u32(info, STARTUP_SIZE)
    thread.memory.set_u64(info + 16, strings.empty)
    thread.memory.set_u64(info + 24, strings.empty)
    given = state.of(thread.process, inheritance.Given)
    if given.reserved:
        if not strings.reserved:
            strings.reserved = heaps.allocate(thread.process, given.reserved)
        thread.memory.set_u16(info + 66, len(given.reserved))
        thread.memory.set_u64(info + 72, strings.reserved)
    thread.memory.set_u32(info + 60, given.flags | USE_STREAMS)
    thread.memory.set_u16(info + 64, given.show)
    thread.memory.write(info + 80, struct.pack("<3Q", *thread.process.streams))


@api("void GetStartupInfoW(LPVOID info)", "kernel32", "kernelbase")
def get_startup_info_w(thread: Thread, info: int) -> None:
    """The streams, and nothing of windows."""
    _startup(thread, info)


@api("void GetStartupInfoA(LPVOID info)", "kernel32", "kernelbase")
def get_startup_info_a(thread: Thread, info: int) -> None:
    """The streams, and nothing of windows."""
    _startup(thread, info)


@api("void FatalExit(int status)", "kernel32", "kernelbase")
def fatal_exit(thread: Thread, status: int) -> None:
    """End it at once."""
    raise ProcessEnd(status)


@api("void FatalAppExitA(UINT action, LPCSTR text)", "kernel32", "kernelbase")
def fatal_app_exit_a(thread: Thread, action: int, text: int) -> None:
    """Say why, and end."""
    sys.stderr.write(thread.memory.string(text).decode("utf-8", "replace") + "\n")
    raise ProcessEnd(1)


@api("BOOL SetProcessShutdownParameters(DWORD level, DWORD flags)", "kernel32", "kernelbase")
def set_process_shutdown_parameters(thread: Thread, level: int, flags: int) -> int:
    """Nobody shuts this system down."""
    return 1


@api("int __wine_dbg_header(int kind, LPVOID channel, LPCSTR function)", "ntdll")
def wine_dbg_header(thread: Thread, kind: int, channel: int, function: int) -> int:
    """Of Wine's own libraries: no trace is written."""
    return -1


@api("int __wine_dbg_output(LPCSTR text)", "ntdll")
def wine_dbg_output(thread: Thread, text: int) -> int:
    """Of Wine's own libraries: no trace is written."""
    return 0


@api("LPCSTR __wine_dbg_strdup(LPCSTR text)", "ntdll")
def wine_dbg_strdup(thread: Thread, text: int) -> int:
    """Of Wine's own libraries: the text lives long enough."""
    return text


@api("UCHAR __wine_dbg_get_channel_flags(LPVOID channel)", "ntdll")
def wine_dbg_get_channel_flags(thread: Thread, channel: int) -> int:
    """Of Wine's own libraries: nothing is traced."""
    return 0


@api("DWORD GetProcessVersion(DWORD process)", "kernel32", "kernelbase")
def get_process_version(thread: Thread, process: int) -> int:
    """Of Windows, that the program was made for."""
    image = thread.process.modules.program.image
    if image is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return image.version[0] << 16 | image.version[1]


@api("LPVOID RtlGetCurrentPeb(void)", "ntdll")
def rtl_get_current_peb(thread: Thread) -> int:
    """The process's block."""
    return thread.process.peb


@api("NTSTATUS LdrAddRefDll(ULONG flags, HMODULE module)", "ntdll", note="libraries stay until the process ends")
def ldr_add_ref_dll(thread: Thread, flags: int, module: int) -> int:
    """Whether it is a module."""
    return 0 if thread.process.modules.by_base(module) else STATUS_DLL_NOT_FOUND


@api("void DebugBreak(void)", "kernel32", "kernelbase")
def debug_break(thread: Thread) -> None:
    """A breakpoint, which ends a program that nobody debugs."""
    exceptions.raise_here(thread, STATUS_BREAKPOINT, 0, ())


@api("void RaiseFailFastException(LPVOID record, LPVOID context, DWORD flags)", "kernel32", "kernelbase")
def raise_fail_fast_exception(thread: Thread, record: int, context: int, flags: int) -> None:
    """The end, and nobody is asked."""
    raise ProcessEnd(thread.memory.u32(record) if record else STATUS_FAIL_FAST)


@api("BOOL TerminateProcess(HANDLE process, UINT status)", "kernel32", "kernelbase")
def terminate_process(thread: Thread, process: int, status: int) -> int:
    """End a process at once."""
    found = thread.process if process == CURRENT_PROCESS else thread.process.handles.get(process)
    if isinstance(found, Process):
        raise ProcessEnd(status)
    if found is None or not hasattr(found, "terminate"):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    found.terminate(status)
    return 1


@api("NTSTATUS NtTerminateProcess(HANDLE process, NTSTATUS status)", "ntdll")
def nt_terminate_process(thread: Thread, process: int, status: int) -> int:
    """End a process at once."""
    return 0 if terminate_process(thread, process or CURRENT_PROCESS, status) else STATUS_INVALID_HANDLE


@api("BOOL GetExitCodeProcess(HANDLE process, DWORD* status)", "kernel32", "kernelbase")
def get_exit_code_process(thread: Thread, process: int, status: int) -> int:
    """How it ended, or STILL_ACTIVE."""
    found = thread.process if process == CURRENT_PROCESS else thread.process.handles.get(process)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    code = getattr(found, "exit_code", None)
    thread.memory.set_u32(status, STILL_ACTIVE if code is None else code)
    return 1
