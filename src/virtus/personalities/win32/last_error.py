"""The thread's last error, and what native functions' statuses are as one."""

from typing import Final

from virtus.personalities.win32 import ntstatus
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api

TEB_LAST_STATUS: Final = 0x1250
"""LastStatusValue (winternl.h)."""


@api("DWORD GetLastError(void)", "kernel32", "kernelbase")
def get_last_error(thread: Thread) -> int:
    """Of the calling thread."""
    return thread.last_error


@api("void SetLastError(DWORD error)", "kernel32", "kernelbase")
def set_last_error(thread: Thread, error: int) -> None:
    """Of the calling thread."""
    thread.last_error = error


@api("DWORD RtlGetLastWin32Error(void)", "ntdll")
def rtl_get_last_win32_error(thread: Thread) -> int:
    """What GetLastError forwards to."""
    return thread.last_error


@api("void RtlSetLastWin32Error(DWORD error)", "ntdll")
def rtl_set_last_win32_error(thread: Thread, error: int) -> None:
    """What SetLastError forwards to."""
    thread.last_error = error


@api("void SetLastErrorEx(DWORD error, DWORD kind)", "user32")
def set_last_error_ex(thread: Thread, error: int, kind: int) -> None:
    """The kind is not kept."""
    thread.last_error = error


@api("ULONG RtlNtStatusToDosError(NTSTATUS status)", "ntdll")
def rtl_nt_status_to_dos_error(thread: Thread, status: int) -> int:
    """The status is kept, as the native functions do it."""
    thread.memory.set_u32(thread.teb + TEB_LAST_STATUS, status)
    return ntstatus.to_win32(status)


@api("ULONG RtlNtStatusToDosErrorNoTeb(NTSTATUS status)", "ntdll")
def rtl_nt_status_to_dos_error_no_teb(thread: Thread, status: int) -> int:
    """The status is not kept."""
    return ntstatus.to_win32(status)


@api("NTSTATUS RtlGetLastNtStatus(void)", "ntdll")
def rtl_get_last_nt_status(thread: Thread) -> int:
    """What a native function's failure left."""
    return thread.memory.u32(thread.teb + TEB_LAST_STATUS)


@api("void RtlSetLastWin32ErrorAndNtStatusFromNtStatus(NTSTATUS status)", "ntdll")
def rtl_set_last_win32_error_and_nt_status(thread: Thread, status: int) -> None:
    """Both from a status."""
    thread.last_error = rtl_nt_status_to_dos_error(thread, status)
