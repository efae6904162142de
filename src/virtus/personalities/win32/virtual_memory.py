"""VirtualAlloc and its relatives: reserving, committing, protecting and describing memory.

What Windows accounts for is in `regions.py`; the engine's memory holds pages that are reserved without any rights.
"""

import struct
from typing import Final

from virtus.personalities.win32 import errors, ntstatus, state
from virtus.personalities.win32.ntstatus import Refused
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.regions import (
    GRANULARITY,
    HIGHEST,
    LOWEST,
    PAGE,
    PAGE_EXECUTE_WRITECOPY,
    PAGE_GUARD,
    PAGE_NOACCESS,
    PAGE_WRITECOPY,
    Kind,
    Region,
    Regions,
    rights,
    valid,
)
from virtus.personalities.win32.table import api

MEM_COMMIT, MEM_RESERVE, MEM_DECOMMIT, MEM_RELEASE, MEM_FREE = 0x1000, 0x2000, 0x4000, 0x8000, 0x1_0000
MEM_RESET, MEM_TOP_DOWN, MEM_RESET_UNDO, MEM_LARGE_PAGES = 0x8_0000, 0x10_0000, 0x100_0000, 0x2000_0000
MEMORY_BASIC_INFORMATION: Final = struct.Struct("<QQIHxxQIIIxxxx")
CURRENT_PROCESS: Final = 0xFFFF_FFFF_FFFF_FFFF
ADDRESS_REQUIREMENTS, ATTRIBUTE_FLAGS = 1, 5
"""MemExtendedParameterAddressRequirements and ...AttributeFlags."""


def regions(process: Process) -> Regions:
    """The process's regions. Whoever maps memory for a guest other than here (images, views, stacks) adds its own."""
    return state.of(process, Regions)


def pages_of(address: int, size: int, unit: int) -> tuple[int, int]:
    """Start and end of all pages that a range touches, the start rounded down to `unit`."""
    return address & ~(unit - 1), (address + size + PAGE - 1) & ~(PAGE - 1)


def reserve(process: Process, address: int, size: int, protection: int, alignment: int = GRANULARITY) -> Region:
    """A new region without committed pages; raises Refused."""
    start, end = pages_of(address, size, GRANULARITY) if address else (0, (size + PAGE - 1) & ~(PAGE - 1))
    if end - 1 > HIGHEST or (address and start < LOWEST):
        raise Refused(ntstatus.NO_MEMORY if not address else ntstatus.INVALID_PARAMETER_2)
    table, memory = regions(process), process.memory
    with table.lock:
        if address and not table.free(start, end):
            raise Refused(ntstatus.CONFLICTING_ADDRESSES)
        try:
            if alignment > GRANULARITY and not address:
                wide = memory.map(0, end + alignment, 0)
                memory.unmap(wide, end + alignment)
                start = (wide + alignment - 1) & ~(alignment - 1)
                end += start
                memory.map(start, end - start, 0)
            else:
                found = memory.map(start, end - start, 0)
                start, end = found, found + end - start
        except FileExistsError:
            raise Refused(ntstatus.CONFLICTING_ADDRESSES) from None
        except OSError:
            raise Refused(ntstatus.NO_MEMORY) from None
        return table.add(Region(start, end - start, Kind.PRIVATE, protection))


def _region(process: Process, start: int, end: int) -> Region:
    """The one region that a range lies in; raises Refused."""
    region = regions(process).find(start)
    if region is None or end > region.end:
        raise Refused(ntstatus.CONFLICTING_ADDRESSES)
    return region


def _change(process: Process, region: Region, start: int, end: int, protection: int) -> None:
    """New rights for committed pages, in the engine's memory and in our account."""
    try:
        process.memory.protect(start, end - start, rights(protection))
    except OSError:
        raise Refused(ntstatus.NO_MEMORY) from None
    region.set(start, end, protection)


def allocate(process: Process, address: int, size: int, kind: int, protection: int, alignment: int = 0) -> int:
    """VirtualAlloc: the base address of what was reserved or committed; raises Refused."""
    if not size or size > HIGHEST or kind & ~(MEM_COMMIT | MEM_RESERVE | MEM_RESET | MEM_RESET_UNDO | MEM_TOP_DOWN):
        raise Refused(ntstatus.PRIVILEGE_NOT_HELD if kind & MEM_LARGE_PAGES else ntstatus.INVALID_PARAMETER_3)
    if not valid(protection) or protection & 0xFF in (PAGE_WRITECOPY, PAGE_EXECUTE_WRITECOPY):
        raise Refused(ntstatus.INVALID_PAGE_PROTECTION)
    table = regions(process)
    with table.lock:
        if kind & (MEM_RESET | MEM_RESET_UNDO):
            # the contents may be dropped, and need not be
            start, end = pages_of(address, size, PAGE)
            _region(process, start, end)
            return start
        if not kind & (MEM_COMMIT | MEM_RESERVE):
            raise Refused(ntstatus.INVALID_PARAMETER_3)
        if kind & MEM_RESERVE or not address:
            region = reserve(process, address, size, protection, alignment or GRANULARITY)
            start, end = region.base, region.end
        else:
            start, end = pages_of(address, size, PAGE)
            region = _region(process, start, end)
            if region.kind is not Kind.PRIVATE:
                raise Refused(ntstatus.CONFLICTING_ADDRESSES)
        if kind & MEM_COMMIT:
            _change(process, region, start, end, protection)
        return start


def release(process: Process, address: int, size: int, kind: int) -> tuple[int, int]:
    """VirtualFree: the range given back; raises Refused."""
    table = regions(process)
    if kind not in (MEM_DECOMMIT, MEM_RELEASE):
        raise Refused(ntstatus.INVALID_PARAMETER)
    with table.lock:
        region = table.find(address)
        if region is None:
            raise Refused(ntstatus.MEMORY_NOT_ALLOCATED)
        if region.kind is not Kind.PRIVATE:
            raise Refused(ntstatus.UNABLE_TO_DELETE_SECTION)
        if not size:
            if address & ~(PAGE - 1) != region.base:
                raise Refused(ntstatus.FREE_VM_NOT_AT_BASE)
            start, end = region.base, region.end
        else:
            start, end = pages_of(address, size, PAGE)
            if end > region.end:
                raise Refused(ntstatus.UNABLE_TO_FREE_VM)
        if kind == MEM_DECOMMIT:
            for low, high, protection in list(region.runs(start, end)):
                if protection:
                    process.memory.unmap(low, high - low)
                    process.memory.map(low, high - low, 0)
            region.set(start, end, 0)
            return start, end
        _shrink(table, region, start, end)
        process.memory.unmap(start, end - start)
        return start, end


def _shrink(table: Regions, region: Region, start: int, end: int) -> None:
    """Take a part out of a region; what remains on both sides are regions of their own."""
    table.remove(region)
    for low, high in ((region.base, start), (end, region.end)):
        if low < high:
            rest = Region(low, high - low, region.kind, region.protection)
            for first, last, protection in region.runs(low, high):
                rest.set(first, last, protection)
            table.add(rest)


def protect(process: Process, address: int, size: int, protection: int) -> int:
    """VirtualProtect: the first page's protection before; raises Refused."""
    if not valid(protection):
        raise Refused(ntstatus.INVALID_PAGE_PROTECTION)
    start, end = pages_of(address, size, PAGE)
    table = regions(process)
    if start == end or end - 1 > HIGHEST:
        raise Refused(ntstatus.INVALID_PARAMETER)
    with table.lock:
        region = _region(process, start, end)
        runs = list(region.runs(start, end))
        if not all(run[2] for run in runs):
            raise Refused(ntstatus.NOT_COMMITTED)
        if region.kind is Kind.PRIVATE and protection & 0xFF in (PAGE_WRITECOPY, PAGE_EXECUTE_WRITECOPY):
            raise Refused(ntstatus.INVALID_PARAMETER)
        _change(process, region, start, end, protection)
        return runs[0][2]


def guard_hit(process: Process, address: int) -> bool:
    """Whether an access faulted on a guard page, which from now on is none (STATUS_GUARD_PAGE_VIOLATION)."""
    table = regions(process)
    with table.lock:
        region = table.find(address)
        if region is None:
            return False
        protection = region.run(address)[2]
        if not protection & PAGE_GUARD:
            return False
        start = address & ~(PAGE - 1)
        _change(process, region, start, start + PAGE, protection & ~PAGE_GUARD)
        return True


def describe(process: Process, address: int) -> bytes:
    """MEMORY_BASIC_INFORMATION of the page of an address; raises Refused beyond the user's space."""
    if address > HIGHEST:
        raise Refused(ntstatus.INVALID_PARAMETER)
    table, page = regions(process), address & ~(PAGE - 1)
    with table.lock:
        region = table.find(address)
        if region is None:
            return MEMORY_BASIC_INFORMATION.pack(page, 0, 0, 0, table.gap(page) - page, MEM_FREE, PAGE_NOACCESS, 0)
        _, end, protection = region.run(page)
        status = MEM_COMMIT if protection else MEM_RESERVE
        return MEMORY_BASIC_INFORMATION.pack(
            page, region.base, region.protection, 0, end - page, status, protection, region.kind
        )


def is_own(thread: Thread, process: int) -> bool:
    """Whether a handle is the caller's own process: others' memory is out of reach."""
    if process == CURRENT_PROCESS:
        return True
    return thread.process.handles.get(process) is thread.process


@api("LPVOID VirtualAlloc(LPVOID address, SIZE_T size, DWORD kind, DWORD protection)", "kernel32", "kernelbase")
def virtual_alloc(thread: Thread, address: int, size: int, kind: int, protection: int) -> int:
    """Reserve or commit pages."""
    try:
        return allocate(thread.process, address, size, kind, protection)
    except Refused as refused:
        return thread.fail(refused.error)


@api("LPVOID VirtualAllocEx(HANDLE process, LPVOID address, SIZE_T size, DWORD kind, DWORD protection)", "kernel32",
     "kernelbase", note="in the caller's own process")  # fmt: skip
def virtual_alloc_ex(thread: Thread, process: int, address: int, size: int, kind: int, protection: int) -> int:
    """Reserve or commit pages."""
    if not is_own(thread, process):
        return thread.fail(errors.ERROR_ACCESS_DENIED)
    return virtual_alloc(thread, address, size, kind, protection)


@api("LPVOID VirtualAllocExNuma(HANDLE process, LPVOID address, SIZE_T size, DWORD kind, DWORD protection, DWORD node)",
     "kernel32", "kernelbase", note="in the caller's own process")  # fmt: skip
def virtual_alloc_ex_numa(
    thread: Thread, process: int, address: int, size: int, kind: int, protection: int, node: int
) -> int:
    """The host chooses the node."""
    return virtual_alloc_ex(thread, process, address, size, kind, protection)


def _alignment(thread: Thread, parameters: int, count: int) -> int:
    """The alignment that extended parameters ask for; raises Refused for bounds, which are not kept."""
    alignment = 0
    for place in range(parameters, parameters + 16 * min(count, 16), 16):
        kind, value = thread.memory.u64(place) & 0xFF, thread.memory.u64(place + 8)
        if kind == ADDRESS_REQUIREMENTS:
            lowest, highest, alignment = struct.unpack("<QQQ", thread.memory.read(value, 24))
            if lowest or highest or alignment & (alignment - 1):
                raise Refused(ntstatus.NOT_SUPPORTED)
        elif kind != ATTRIBUTE_FLAGS and kind != 2:  # a NUMA node is a wish
            raise Refused(ntstatus.INVALID_PARAMETER)
    return alignment


@api("LPVOID VirtualAlloc2(HANDLE process, LPVOID address, SIZE_T size, ULONG kind, ULONG protection,"
     " LPVOID parameters, ULONG count)", "kernelbase", "api-ms-win-core-memory-l1-1-6",
     note="alignments, but neither bounds nor placeholders")  # fmt: skip
def virtual_alloc2(
    thread: Thread, process: int, address: int, size: int, kind: int, protection: int, parameters: int, count: int
) -> int:
    """VirtualAlloc with an alignment."""
    if process and not is_own(thread, process):
        return thread.fail(errors.ERROR_ACCESS_DENIED)
    try:
        return allocate(thread.process, address, size, kind, protection, _alignment(thread, parameters, count))
    except Refused as refused:
        return thread.fail(refused.error)


@api("BOOL VirtualFree(LPVOID address, SIZE_T size, DWORD kind)", "kernel32", "kernelbase")
def virtual_free(thread: Thread, address: int, size: int, kind: int) -> int:
    """Decommit pages or release a region; releasing takes a size of 0."""
    if kind == MEM_RELEASE and size:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    try:
        release(thread.process, address, size, kind)
    except Refused as refused:
        return thread.fail(refused.error)
    return 1


@api("BOOL VirtualFreeEx(HANDLE process, LPVOID address, SIZE_T size, DWORD kind)", "kernel32", "kernelbase",
     note="in the caller's own process")  # fmt: skip
def virtual_free_ex(thread: Thread, process: int, address: int, size: int, kind: int) -> int:
    """Decommit pages or release a region."""
    if not is_own(thread, process):
        return thread.fail(errors.ERROR_ACCESS_DENIED)
    return virtual_free(thread, address, size, kind)


@api("BOOL VirtualProtect(LPVOID address, SIZE_T size, DWORD protection, LPDWORD old)", "kernel32", "kernelbase")
def virtual_protect(thread: Thread, address: int, size: int, protection: int, old: int) -> int:
    """Change the protection of committed pages."""
    if not old:
        return thread.fail(errors.ERROR_NOACCESS)
    try:
        thread.memory.set_u32(old, protect(thread.process, address, size, protection))
    except Refused as refused:
        return thread.fail(refused.error)
    return 1


@api("BOOL VirtualProtectEx(HANDLE process, LPVOID address, SIZE_T size, DWORD protection, LPDWORD old)", "kernel32",
     "kernelbase", note="in the caller's own process")  # fmt: skip
def virtual_protect_ex(thread: Thread, process: int, address: int, size: int, protection: int, old: int) -> int:
    """Change the protection of committed pages."""
    if not is_own(thread, process):
        return thread.fail(errors.ERROR_ACCESS_DENIED)
    return virtual_protect(thread, address, size, protection, old)


@api("SIZE_T VirtualQuery(LPCVOID address, LPVOID result, SIZE_T size)", "kernel32", "kernelbase")
def virtual_query(thread: Thread, address: int, result: int, size: int) -> int:
    """Pages that are alike, from an address on."""
    if size < MEMORY_BASIC_INFORMATION.size:
        return thread.fail(errors.ERROR_BAD_LENGTH)
    try:
        thread.memory.write(result, describe(thread.process, address))
    except Refused as refused:
        return thread.fail(refused.error)
    return MEMORY_BASIC_INFORMATION.size


@api("SIZE_T VirtualQueryEx(HANDLE process, LPCVOID address, LPVOID result, SIZE_T size)", "kernel32", "kernelbase",
     note="in the caller's own process")  # fmt: skip
def virtual_query_ex(thread: Thread, process: int, address: int, result: int, size: int) -> int:
    """Pages that are alike, from an address on."""
    if not is_own(thread, process):
        return thread.fail(errors.ERROR_ACCESS_DENIED)
    return virtual_query(thread, address, result, size)


@api("BOOL VirtualLock(LPVOID address, SIZE_T size)", "kernel32", "kernelbase", note="pages may be swapped still")
def virtual_lock(thread: Thread, address: int, size: int) -> int:
    """Succeeds for committed pages."""
    try:
        region = _region(thread.process, *pages_of(address, size, PAGE))
    except Refused as refused:
        return thread.fail(refused.error)
    return (
        1 if all(run[2] for run in region.runs(*pages_of(address, size, PAGE))) else thread.fail(errors.ERROR_NOACCESS)
    )


@api("BOOL VirtualUnlock(LPVOID address, SIZE_T size)", "kernel32", "kernelbase")
def virtual_unlock(thread: Thread, address: int, size: int) -> int:
    """What was never locked is not."""
    return thread.fail(errors.ERROR_NOT_LOCKED)


@api("DWORD DiscardVirtualMemory(LPVOID address, SIZE_T size)", "kernel32", "kernelbase")
def discard_virtual_memory(thread: Thread, address: int, size: int) -> int:
    """The contents may be dropped, and need not be. Returns the error itself."""
    try:
        _region(thread.process, *pages_of(address, size, PAGE))
    except Refused as refused:
        return refused.error
    return 0


@api("BOOL PrefetchVirtualMemory(HANDLE process, ULONG_PTR count, LPVOID ranges, ULONG flags)", "kernel32",
     "kernelbase")  # fmt: skip
def prefetch_virtual_memory(thread: Thread, process: int, count: int, ranges: int, flags: int) -> int:
    """A wish, which the host's own reading ahead answers."""
    return 1


@api("SIZE_T GetLargePageMinimum(void)", "kernel32", "kernelbase")
def get_large_page_minimum(thread: Thread) -> int:
    """0: large pages are not offered."""
    return 0


@api("BOOL FlushInstructionCache(HANDLE process, LPCVOID address, SIZE_T size)", "kernel32", "kernelbase")
def flush_instruction_cache(thread: Thread, process: int, address: int, size: int) -> int:
    """x86 sees its stores into code."""
    return 1


@api("BOOL ReadProcessMemory(HANDLE process, LPCVOID address, LPVOID buffer, SIZE_T size, SIZE_T *count)", "kernel32",
     "kernelbase", note="of the caller's own process")  # fmt: skip
def read_process_memory(thread: Thread, process: int, address: int, buffer: int, size: int, count: int) -> int:
    """A copy; ERROR_PARTIAL_COPY where something is not readable."""
    return _copy(thread, process, address, buffer, size, count)


@api("BOOL WriteProcessMemory(HANDLE process, LPVOID address, LPCVOID buffer, SIZE_T size, SIZE_T *count)",
     "kernel32", "kernelbase", note="of the caller's own process")  # fmt: skip
def write_process_memory(thread: Thread, process: int, address: int, buffer: int, size: int, count: int) -> int:
    """A copy; ERROR_NOACCESS where something is not writable."""
    return _copy(thread, process, buffer, address, size, count)


def _copy(thread: Thread, process: int, source: int, target: int, size: int, count: int) -> int:
    if not is_own(thread, process):
        return thread.fail(errors.ERROR_ACCESS_DENIED)
    thread.memory.write(target, thread.memory.read(source, size))
    if count:
        thread.memory.set_u64(count, size)
    return 1
