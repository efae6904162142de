"""Virtual memory by its native functions, and the tests of addresses that IsBad*Ptr make."""

from virtus.personalities.win32 import ntstatus
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.ntstatus import Refused
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.regions import (
    PAGE,
    PAGE_NOACCESS,
    PROT_WRITE,
    rights,
)
from virtus.personalities.win32.table import api
from virtus.personalities.win32.virtual_memory import (
    MEMORY_BASIC_INFORMATION,
    allocate,
    describe,
    is_own,
    pages_of,
    protect,
    regions,
    release,
)


@api("NTSTATUS NtAllocateVirtualMemory(HANDLE process, LPVOID *address, ULONG_PTR zero_bits, SIZE_T *size, ULONG kind,"
     " ULONG protection)", "ntdll")  # fmt: skip
def nt_allocate_virtual_memory(
    thread: Thread, process: int, address: int, zero_bits: int, size: int, kind: int, protection: int
) -> int:
    """Address and size go in and out."""
    if not is_own(thread, process):
        return ntstatus.ACCESS_DENIED
    wanted, length = thread.memory.u64(address), thread.memory.u64(size)
    try:
        start = allocate(thread.process, wanted, length, kind, protection)
    except Refused as refused:
        return refused.status
    end = (max(wanted, start) + length + PAGE - 1) & ~(PAGE - 1)
    thread.memory.set_u64(address, start)
    thread.memory.set_u64(size, end - start)
    return 0


@api("NTSTATUS NtFreeVirtualMemory(HANDLE process, LPVOID *address, SIZE_T *size, ULONG kind)", "ntdll")
def nt_free_virtual_memory(thread: Thread, process: int, address: int, size: int, kind: int) -> int:
    """Also of a part of a region."""
    if not is_own(thread, process):
        return ntstatus.ACCESS_DENIED
    try:
        start, end = release(thread.process, thread.memory.u64(address), thread.memory.u64(size), kind)
    except Refused as refused:
        return refused.status
    thread.memory.set_u64(address, start)
    thread.memory.set_u64(size, end - start)
    return 0


@api("NTSTATUS NtProtectVirtualMemory(HANDLE process, LPVOID *address, SIZE_T *size, ULONG protection, PULONG old)",
     "ntdll")  # fmt: skip
def nt_protect_virtual_memory(thread: Thread, process: int, address: int, size: int, protection: int, old: int) -> int:
    """VirtualProtect with the range rounded in place."""
    if not is_own(thread, process):
        return ntstatus.ACCESS_DENIED
    place, length = thread.memory.u64(address), thread.memory.u64(size)
    try:
        before = protect(thread.process, place, length, protection)
    except Refused as refused:
        return refused.status
    start, end = pages_of(place, length, PAGE)
    thread.memory.set_u64(address, start)
    thread.memory.set_u64(size, end - start)
    thread.memory.set_u32(old, before)
    return 0


@api("NTSTATUS NtQueryVirtualMemory(HANDLE process, LPCVOID address, int class, LPVOID result, SIZE_T size,"
     " SIZE_T *length)", "ntdll", note="MemoryBasicInformation only")  # fmt: skip
def nt_query_virtual_memory(
    thread: Thread, process: int, address: int, kind: int, result: int, size: int, length: int
) -> int:
    """MemoryBasicInformation."""
    if kind != 0:
        return ntstatus.INVALID_INFO_CLASS
    if size < MEMORY_BASIC_INFORMATION.size:
        return ntstatus.INFO_LENGTH_MISMATCH
    try:
        thread.memory.write(result, describe(thread.process, address))
    except Refused as refused:
        return refused.status
    if length:
        thread.memory.set_u64(length, MEMORY_BASIC_INFORMATION.size)
    return 0


@api("BOOL IsBadReadPtr(LPCVOID address, UINT_PTR size)", "kernel32", "kernelbase")
def is_bad_read_ptr(thread: Thread, address: int, size: int) -> int:
    """Whether some page of a range is not readable."""
    return int(bool(size) and not _allows(thread, address, size, write=False))


@api("BOOL IsBadWritePtr(LPVOID address, UINT_PTR size)", "kernel32", "kernelbase")
def is_bad_write_ptr(thread: Thread, address: int, size: int) -> int:
    """Whether some page of a range is not writable."""
    return int(bool(size) and not _allows(thread, address, size, write=True))


@api("BOOL IsBadCodePtr(FARPROC address)", "kernel32", "kernelbase")
def is_bad_code_ptr(thread: Thread, address: int) -> int:
    """Whether an address is not readable."""
    return int(not _allows(thread, address, 1, write=False))


@api("BOOL IsBadStringPtrA(LPCSTR text, UINT_PTR size)", "kernel32", "kernelbase")
def is_bad_string_ptr_a(thread: Thread, text: int, size: int) -> int:
    """Of the first character."""
    return int(bool(size) and not _allows(thread, text, 1, write=False))


@api("BOOL IsBadStringPtrW(LPCWSTR text, UINT_PTR size)", "kernel32", "kernelbase")
def is_bad_string_ptr_w(thread: Thread, text: int, size: int) -> int:
    """Of the first character."""
    return int(bool(size) and not _allows(thread, text, 2, write=False))


def _allows(thread: Thread, address: int, size: int, *, write: bool) -> bool:
    """Whether all of a range may be read or, by the account of regions where it has one, written."""
    table, place, end = regions(thread.process), address, address + size
    try:
        while place < end:
            thread.memory.read(place, 1)
            region = table.find(place)
            if write and region is not None and not rights(region.run(place)[2] or PAGE_NOACCESS) & PROT_WRITE:
                return False
            place = (place & ~(PAGE - 1)) + PAGE
    except AccessViolation:
        return False
    return True
