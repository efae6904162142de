"""Heaps, and the Local* and Global* memory that lives in the process's own."""

import struct
import threading
from typing import Final

from virtus.personalities.win32 import errors, state, virtual_memory
from virtus.personalities.win32.heap_blocks import PAGE, Blocks
from virtus.personalities.win32.modules import RUNTIMES
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.regions import PAGE_READWRITE, Kind, Region
from virtus.personalities.win32.table import api

HEAP_ZERO_MEMORY, HEAP_REALLOC_IN_PLACE_ONLY = 0x8, 0x10
LMEM_ZEROINIT, LMEM_MODIFY, LMEM_MOVEABLE = 0x40, 0x80, 0x2
HEAP_COMPATIBILITY_INFORMATION, HEAP_LOW_FRAGMENTATION = 0, 2
SIZE_ERROR: Final = 0xFFFF_FFFF_FFFF_FFFF
"""What HeapSize gives for what is no block: (SIZE_T)-1."""
PROCESS_HEAP_ENTRY: Final = struct.Struct("<QIBBH24x")
PROCESS_HEAP_ENTRY_BUSY: Final = 4
CLEAR_STEP: Final = 0x10_0000
RSP: Final = 4
"""Its place among general registers; it points to where the function returns to."""


class Heap:
    """A heap: its handle is the address of a page, which is not used otherwise."""

    def __init__(self, process: Process, maximum: int = 0) -> None:
        self._process, self._maximum = process, maximum
        self.blocks = Blocks(self._map, self._unmap, self._clear)
        self.mapped = 0
        self.handle = self._map(PAGE)

    def _map(self, size: int) -> int:
        """Memory that VirtualQuery knows; within the heap's maximum where it has one."""
        if self._maximum and self.mapped + size > self._maximum + 2 * PAGE + 0x10_0000:
            raise OSError("the heap's maximum")
        memory, table = self._process.memory, virtual_memory.regions(self._process)
        with table.lock:
            address = memory.map(0, size, 3)
            region = table.add(Region(address, (size + PAGE - 1) & ~(PAGE - 1), Kind.PRIVATE, PAGE_READWRITE))
            region.set(region.base, region.end, PAGE_READWRITE)
        self.mapped += size
        return address

    def _unmap(self, address: int, size: int) -> None:
        table = virtual_memory.regions(self._process)
        with table.lock:
            region = table.find(address)
            if region is not None:
                table.remove(region)
            self._process.memory.unmap(address, size)
        self.mapped -= size

    def _clear(self, address: int, size: int) -> None:
        for start in range(address, address + size, CLEAR_STEP):
            self._process.memory.write(start, bytes(min(CLEAR_STEP, address + size - start)))

    def destroy(self) -> None:
        """Give back everything, the handle too."""
        self.blocks.destroy()
        self._unmap(self.handle, PAGE)


class Heaps:
    """The heaps of a process; the first one is its own."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.by_handle: dict[int, Heap] = {}
        self.first: Heap | None = None


def process_heap(process: Process) -> Heap:
    """The process's own heap; its handle belongs into the PEB (ProcessHeap)."""
    heaps = state.of(process, Heaps)
    if heaps.first is None:
        with heaps.lock:
            if heaps.first is None:
                heap = Heap(process)
                heaps.by_handle[heap.handle] = heap
                heaps.first = heap
    return heaps.first


def allocate(process: Process, data: bytes) -> int:
    """A block of the process's heap with contents, as functions give them that the guest frees; 0 for no memory."""
    try:
        address = process_heap(process).blocks.allocate(len(data))
    except MemoryError:
        return 0
    process.memory.write(address, data)
    return address


def free(process: Process, address: int) -> bool:
    """Free a block of the process's heap; whether it was one. Of a null pointer, nothing."""
    if address:
        try:
            process_heap(process).blocks.release(address)
        except KeyError:
            return False
    return True


def _heap(thread: Thread, handle: int) -> Heap | None:
    heap = process_heap(thread.process)
    if handle == heap.handle:
        return heap
    return state.of(thread.process, Heaps).by_handle.get(handle)


@api("HANDLE GetProcessHeap(void)", "kernel32", "kernelbase")
def get_process_heap(thread: Thread) -> int:
    """The process's own heap."""
    return process_heap(thread.process).handle


@api("DWORD GetProcessHeaps(DWORD count, HANDLE *result)", "kernel32", "kernelbase")
def get_process_heaps(thread: Thread, count: int, result: int) -> int:
    """All handles, if there is room for them; their number."""
    process_heap(thread.process)
    handles = list(state.of(thread.process, Heaps).by_handle)
    if len(handles) <= count:
        thread.memory.write(result, struct.pack(f"<{len(handles)}Q", *handles))
    return len(handles)


def _is_runtime(thread: Thread) -> bool:
    """Whether a C runtime that is guest code calls."""
    modules = thread.process.modules
    caller = modules.at(thread.memory.u64(thread.engine.context().general[RSP]))
    return caller is not None and caller.image is not None and caller.name in RUNTIMES


@api("HANDLE HeapCreate(DWORD options, SIZE_T initial, SIZE_T maximum)", "kernel32", "kernelbase")
def heap_create(thread: Thread, options: int, initial: int, maximum: int) -> int:
    """A heap of its own; with a maximum it does not grow beyond (by more than a chunk).

    A C runtime gets the process's own, as Microsoft's uses that: it is served without us, and lasts as long.
    """
    first = process_heap(thread.process)
    if not options and not maximum and _is_runtime(thread):
        return first.handle
    try:
        heap = Heap(thread.process, maximum)
    except OSError:
        return thread.fail(errors.ERROR_NOT_ENOUGH_MEMORY)
    state.of(thread.process, Heaps).by_handle[heap.handle] = heap
    return heap.handle


@api("BOOL HeapDestroy(HANDLE heap)", "kernel32", "kernelbase")
def heap_destroy(thread: Thread, heap: int) -> int:
    """All blocks with it. The process's own stays."""
    heaps = state.of(thread.process, Heaps)
    found = heaps.by_handle.get(heap)
    if found is None or found is heaps.first:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    del heaps.by_handle[heap]
    found.destroy()
    return 1


@api("LPVOID HeapAlloc(HANDLE heap, DWORD flags, SIZE_T size)", "kernel32", "kernelbase")
def heap_alloc(thread: Thread, heap: int, flags: int, size: int) -> int:
    """0 for no memory."""
    found = _heap(thread, heap)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    try:
        return found.blocks.allocate(size, zero=bool(flags & HEAP_ZERO_MEMORY))
    except MemoryError:
        return thread.fail(errors.ERROR_NOT_ENOUGH_MEMORY)


@api("LPVOID RtlAllocateHeap(HANDLE heap, ULONG flags, SIZE_T size)", "ntdll")
def rtl_allocate_heap(thread: Thread, heap: int, flags: int, size: int) -> int:
    """What HeapAlloc forwards to."""
    return heap_alloc(thread, heap, flags, size)


@api("BOOL HeapFree(HANDLE heap, DWORD flags, LPVOID address)", "kernel32", "kernelbase")
def heap_free(thread: Thread, heap: int, flags: int, address: int) -> int:
    """A null pointer is no mistake."""
    found = _heap(thread, heap)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if address:
        try:
            found.blocks.release(address)
        except KeyError:
            return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return 1


@api("BOOLEAN RtlFreeHeap(HANDLE heap, ULONG flags, LPVOID address)", "ntdll")
def rtl_free_heap(thread: Thread, heap: int, flags: int, address: int) -> int:
    """What HeapFree forwards to."""
    return heap_free(thread, heap, flags, address)


def _resize(thread: Thread, blocks: Blocks, address: int, size: int, *, zero: bool, in_place: bool) -> int:
    """A block of another size; raises KeyError, MemoryError."""
    with blocks.lock:
        before = blocks.sizes[address]
        if blocks.resize(address, size):
            if zero and size > before:
                thread.memory.write(address + before, bytes(size - before))
            return address
        if in_place:
            raise MemoryError
        fresh = blocks.allocate(size, zero=zero)
        thread.memory.write(fresh, thread.memory.read(address, min(before, size)))
        blocks.release(address)
        return fresh


@api("LPVOID HeapReAlloc(HANDLE heap, DWORD flags, LPVOID address, SIZE_T size)", "kernel32", "kernelbase")
def heap_re_alloc(thread: Thread, heap: int, flags: int, address: int, size: int) -> int:
    """0, with the old block as it was, for no memory."""
    found = _heap(thread, heap)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    try:
        return _resize(
            thread, found.blocks, address, size, zero=bool(flags & HEAP_ZERO_MEMORY),
            in_place=bool(flags & HEAP_REALLOC_IN_PLACE_ONLY),
        )  # fmt: skip
    except KeyError:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    except MemoryError:
        return thread.fail(errors.ERROR_NOT_ENOUGH_MEMORY)


@api("LPVOID RtlReAllocateHeap(HANDLE heap, ULONG flags, LPVOID address, SIZE_T size)", "ntdll")
def rtl_re_allocate_heap(thread: Thread, heap: int, flags: int, address: int, size: int) -> int:
    """What HeapReAlloc forwards to."""
    return heap_re_alloc(thread, heap, flags, address, size)


@api("SIZE_T HeapSize(HANDLE heap, DWORD flags, LPCVOID address)", "kernel32", "kernelbase")
def heap_size(thread: Thread, heap: int, flags: int, address: int) -> int:
    """What was asked for; (SIZE_T)-1 for what is no block."""
    found = _heap(thread, heap)
    return SIZE_ERROR if found is None else found.blocks.sizes.get(address, SIZE_ERROR)


@api("SIZE_T RtlSizeHeap(HANDLE heap, ULONG flags, LPCVOID address)", "ntdll")
def rtl_size_heap(thread: Thread, heap: int, flags: int, address: int) -> int:
    """What HeapSize forwards to."""
    return heap_size(thread, heap, flags, address)


@api("BOOL HeapValidate(HANDLE heap, DWORD flags, LPCVOID address)", "kernel32", "kernelbase")
def heap_validate(thread: Thread, heap: int, flags: int, address: int) -> int:
    """Of a heap always, since its account is not the guest's; of a block, whether it is one."""
    found = _heap(thread, heap)
    return int(found is not None and (not address or address in found.blocks.sizes))


@api("SIZE_T HeapCompact(HANDLE heap, DWORD flags)", "kernel32", "kernelbase")
def heap_compact(thread: Thread, heap: int, flags: int) -> int:
    """The largest block that could be had without growing: one of a chunk."""
    return 0x1_0000 if _heap(thread, heap) is not None else thread.fail(errors.ERROR_INVALID_HANDLE)


@api("BOOL HeapLock(HANDLE heap)", "kernel32", "kernelbase", note="locks nothing: every call is whole by itself")
def heap_lock(thread: Thread, heap: int) -> int:
    """Succeeds for a heap."""
    return int(_heap(thread, heap) is not None)


@api("BOOL HeapUnlock(HANDLE heap)", "kernel32", "kernelbase")
def heap_unlock(thread: Thread, heap: int) -> int:
    """Succeeds for a heap."""
    return int(_heap(thread, heap) is not None)


@api("BOOL HeapWalk(HANDLE heap, LPVOID entry)", "kernel32", "kernelbase", note="shows the blocks in use only")
def heap_walk(thread: Thread, heap: int, entry: int) -> int:
    """One block after the other, by address; ERROR_NO_MORE_ITEMS behind the last."""
    found = _heap(thread, heap)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    before = thread.memory.u64(entry)
    following = min((address for address in list(found.blocks.sizes) if address > before), default=0)
    if not following:
        return thread.fail(errors.ERROR_NO_MORE_ITEMS)
    size = min(found.blocks.sizes.get(following, 0), 0xFFFF_FFFF)
    thread.memory.write(entry, PROCESS_HEAP_ENTRY.pack(following, size, 0, 0, PROCESS_HEAP_ENTRY_BUSY))
    return 1


@api("BOOL HeapSetInformation(HANDLE heap, int class, LPVOID data, SIZE_T size)", "kernel32", "kernelbase")
def heap_set_information(thread: Thread, heap: int, kind: int, data: int, size: int) -> int:
    """HeapEnableTerminationOnCorruption and the low-fragmentation heap: both are so anyway."""
    return 1 if kind in (0, 1, 3) else thread.fail(errors.ERROR_INVALID_PARAMETER)


@api("BOOL HeapQueryInformation(HANDLE heap, int class, LPVOID data, SIZE_T size, SIZE_T *length)", "kernel32",
     "kernelbase")  # fmt: skip
def heap_query_information(thread: Thread, heap: int, kind: int, data: int, size: int, length: int) -> int:
    """HeapCompatibilityInformation: a low-fragmentation heap."""
    if kind != HEAP_COMPATIBILITY_INFORMATION:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if length:
        thread.memory.set_u64(length, 4)
    if size < 4:
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    thread.memory.set_u32(data, HEAP_LOW_FRAGMENTATION)
    return 1


@api("HANDLE RtlCreateHeap(ULONG flags, LPVOID base, SIZE_T reserve, SIZE_T commit, LPVOID lock, LPVOID parameters)",
     "ntdll")  # fmt: skip
def rtl_create_heap(
    thread: Thread, flags: int, base: int, reserve: int, commit: int, lock: int, parameters: int
) -> int:
    """A heap that grows; one in the caller's memory is refused."""
    return 0 if base else heap_create(thread, flags, commit, 0)


@api("HANDLE RtlDestroyHeap(HANDLE heap)", "ntdll")
def rtl_destroy_heap(thread: Thread, heap: int) -> int:
    """0 for success, else the handle."""
    return 0 if heap_destroy(thread, heap) else heap


def _local_alloc(thread: Thread, flags: int, size: int) -> int:
    """Movable memory does not move: its handle is its address."""
    heap = process_heap(thread.process)
    return heap_alloc(thread, heap.handle, HEAP_ZERO_MEMORY if flags & LMEM_ZEROINIT else 0, size)


def _local_free(thread: Thread, handle: int) -> int:
    """0 for success, else the handle."""
    if free(thread.process, handle):
        return 0
    return thread.fail(errors.ERROR_INVALID_HANDLE, handle)


def _local_re_alloc(thread: Thread, handle: int, size: int, flags: int) -> int:
    heap = process_heap(thread.process)
    if flags & LMEM_MODIFY:
        return handle
    return heap_re_alloc(thread, heap.handle, HEAP_ZERO_MEMORY if flags & LMEM_ZEROINIT else 0, handle, size)


def _local_size(thread: Thread, handle: int) -> int:
    size = process_heap(thread.process).blocks.sizes.get(handle)
    return thread.fail(errors.ERROR_INVALID_HANDLE) if size is None else size


@api("HLOCAL LocalAlloc(UINT flags, SIZE_T size)", "kernel32", "kernelbase")
def local_alloc(thread: Thread, flags: int, size: int) -> int:
    """A block of the process's heap."""
    return _local_alloc(thread, flags, size)


@api("HLOCAL LocalFree(HLOCAL handle)", "kernel32", "kernelbase")
def local_free(thread: Thread, handle: int) -> int:
    """0 for success, else the handle."""
    return _local_free(thread, handle)


@api("HLOCAL LocalReAlloc(HLOCAL handle, SIZE_T size, UINT flags)", "kernel32", "kernelbase")
def local_re_alloc(thread: Thread, handle: int, size: int, flags: int) -> int:
    """A block of another size."""
    return _local_re_alloc(thread, handle, size, flags)


@api("SIZE_T LocalSize(HLOCAL handle)", "kernel32", "kernelbase")
def local_size(thread: Thread, handle: int) -> int:
    """What was asked for."""
    return _local_size(thread, handle)


@api("LPVOID LocalLock(HLOCAL handle)", "kernel32", "kernelbase")
def local_lock(thread: Thread, handle: int) -> int:
    """The address, which is the handle."""
    return handle


@api("BOOL LocalUnlock(HLOCAL handle)", "kernel32", "kernelbase")
def local_unlock(thread: Thread, handle: int) -> int:
    """No lock remains: 0 without an error."""
    return thread.fail(0)


@api("HGLOBAL GlobalAlloc(UINT flags, SIZE_T size)", "kernel32", "kernelbase")
def global_alloc(thread: Thread, flags: int, size: int) -> int:
    """A block of the process's heap."""
    return _local_alloc(thread, flags, size)


@api("HGLOBAL GlobalFree(HGLOBAL handle)", "kernel32", "kernelbase")
def global_free(thread: Thread, handle: int) -> int:
    """0 for success, else the handle."""
    return _local_free(thread, handle)


@api("HGLOBAL GlobalReAlloc(HGLOBAL handle, SIZE_T size, UINT flags)", "kernel32", "kernelbase")
def global_re_alloc(thread: Thread, handle: int, size: int, flags: int) -> int:
    """A block of another size."""
    return _local_re_alloc(thread, handle, size, flags)


@api("SIZE_T GlobalSize(HGLOBAL handle)", "kernel32", "kernelbase")
def global_size(thread: Thread, handle: int) -> int:
    """What was asked for."""
    return _local_size(thread, handle)


@api("LPVOID GlobalLock(HGLOBAL handle)", "kernel32", "kernelbase")
def global_lock(thread: Thread, handle: int) -> int:
    """The address, which is the handle."""
    return handle


@api("BOOL GlobalUnlock(HGLOBAL handle)", "kernel32", "kernelbase")
def global_unlock(thread: Thread, handle: int) -> int:
    """No lock remains: 0 without an error."""
    return thread.fail(0)


@api("HGLOBAL GlobalHandle(LPCVOID address)", "kernel32")
def global_handle(thread: Thread, address: int) -> int:
    """The handle, which is the address."""
    return address


@api("LPVOID CoTaskMemAlloc(SIZE_T size)", "ole32", "combase")
def co_task_mem_alloc(thread: Thread, size: int) -> int:
    """A block of the process's heap."""
    return _local_alloc(thread, 0, size)


@api("LPVOID CoTaskMemRealloc(LPVOID address, SIZE_T size)", "ole32", "combase")
def co_task_mem_realloc(thread: Thread, address: int, size: int) -> int:
    """As realloc(3), freeing for size 0."""
    if not address:
        return _local_alloc(thread, 0, size)
    if not size:
        free(thread.process, address)
        return 0
    return _local_re_alloc(thread, address, size, 0)


@api("void CoTaskMemFree(LPVOID address)", "ole32", "combase")
def co_task_mem_free(thread: Thread, address: int) -> None:
    """A null pointer is no mistake."""
    free(thread.process, address)
