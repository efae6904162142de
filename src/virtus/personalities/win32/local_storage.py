"""Thread-local and fiber-local storage.

The slots are in the guest's memory, where Windows has them and machine code finds them: 64 TLS slots in the TEB, 1,024
more behind TlsExpansionSlots, and the fiber's behind FlsData.
"""

import threading
from collections.abc import Iterable
from typing import Final

from virtus.personalities.win32 import errors, heaps, state
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api

# TEB (winternl.h, 64 bits)
TEB_TLS_SLOTS, TEB_TLS_EXPANSION, TEB_FLS_DATA = 0x1480, 0x1780, 0x17C8
TLS_MINIMUM_AVAILABLE, TLS_EXPANSION_SLOTS = 64, 1024
FLS_MAXIMUM_AVAILABLE: Final = 4080
OUT_OF_INDEXES: Final = 0xFFFF_FFFF


class Slots:
    """Which slots are taken, and the function to call with what is in one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tls: dict[int, int] = {}
        self.fls: dict[int, int] = {}
        self.fls_blocks: set[int] = set()

    def take(self, slots: dict[int, int], count: int, callback: int) -> int:
        """The first free slot, or OUT_OF_INDEXES."""
        with self.lock:
            for index in range(count):
                if index not in slots:
                    slots[index] = callback
                    return index
        return OUT_OF_INDEXES


def _slots(process: Process) -> Slots:
    return state.of(process, Slots)


def _tls(thread: Thread, index: int, *, make: bool = False) -> int:
    """Where a slot is, 0 for one that is nowhere yet."""
    if index < TLS_MINIMUM_AVAILABLE:
        return thread.teb + TEB_TLS_SLOTS + 8 * index
    block = thread.memory.u64(thread.teb + TEB_TLS_EXPANSION)
    if not block and make:
        block = heaps.allocate(thread.process, bytes(8 * TLS_EXPANSION_SLOTS))
        thread.memory.set_u64(thread.teb + TEB_TLS_EXPANSION, block)
    return block and block + 8 * (index - TLS_MINIMUM_AVAILABLE)


def _fls(thread: Thread, index: int, *, make: bool = False) -> int:
    block = thread.memory.u64(thread.teb + TEB_FLS_DATA)
    if not block and make:
        block = heaps.allocate(thread.process, bytes(8 * FLS_MAXIMUM_AVAILABLE))
        thread.memory.set_u64(thread.teb + TEB_FLS_DATA, block)
        _slots(thread.process).fls_blocks.add(block)
    return block and block + 8 * index


@api("DWORD TlsAlloc(void)", "kernel32", "kernelbase")
def tls_alloc(thread: Thread) -> int:
    """A slot, zero in every thread."""
    slots = _slots(thread.process)
    index = slots.take(slots.tls, TLS_MINIMUM_AVAILABLE + TLS_EXPANSION_SLOTS, 0)
    if index == OUT_OF_INDEXES:
        return thread.fail(errors.ERROR_NO_MORE_ITEMS, OUT_OF_INDEXES)
    _clear_tls(thread.process, index)
    return index


def _clear_tls(process: Process, index: int) -> None:
    for other in list(process.threads.values()):
        place = _tls(other, index)
        if place:
            process.memory.set_u64(place, 0)


@api("BOOL TlsFree(DWORD index)", "kernel32", "kernelbase")
def tls_free(thread: Thread, index: int) -> int:
    """ERROR_INVALID_PARAMETER for one that is not taken."""
    slots = _slots(thread.process)
    with slots.lock:
        if slots.tls.pop(index, None) is None:
            return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return 1


@api("LPVOID TlsGetValue(DWORD index)", "kernel32", "kernelbase")
def tls_get_value(thread: Thread, index: int) -> int:
    """Sets the last error to success, since 0 may be a value."""
    if index >= TLS_MINIMUM_AVAILABLE + TLS_EXPANSION_SLOTS:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.last_error = errors.ERROR_SUCCESS
    place = _tls(thread, index)
    return thread.memory.u64(place) if place else 0


@api("BOOL TlsSetValue(DWORD index, LPVOID value)", "kernel32", "kernelbase")
def tls_set_value(thread: Thread, index: int, value: int) -> int:
    """In the calling thread."""
    if index >= TLS_MINIMUM_AVAILABLE + TLS_EXPANSION_SLOTS:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.memory.set_u64(_tls(thread, index, make=True), value)
    return 1


@api("DWORD FlsAlloc(FARPROC callback)", "kernel32", "kernelbase")
def fls_alloc(thread: Thread, callback: int) -> int:
    """A slot, with a function to be called for each value when its fiber or thread ends."""
    slots = _slots(thread.process)
    index = slots.take(slots.fls, FLS_MAXIMUM_AVAILABLE, callback)
    if index == OUT_OF_INDEXES:
        return thread.fail(errors.ERROR_INVALID_PARAMETER, OUT_OF_INDEXES)
    return index


@api("BOOL FlsFree(DWORD index)", "kernel32", "kernelbase")
def fls_free(thread: Thread, index: int) -> int:
    """The function is called for the value of every fiber."""
    slots = _slots(thread.process)
    with slots.lock:
        callback = slots.fls.pop(index, None)
    if callback is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    for block in list(slots.fls_blocks):
        _finish(thread, block, ((index, callback),))
    return 1


@api("LPVOID FlsGetValue(DWORD index)", "kernel32", "kernelbase")
def fls_get_value(thread: Thread, index: int) -> int:
    """Of the current fiber."""
    if index >= FLS_MAXIMUM_AVAILABLE:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.last_error = errors.ERROR_SUCCESS
    place = _fls(thread, index)
    return thread.memory.u64(place) if place else 0


@api("BOOL FlsSetValue(DWORD index, LPVOID value)", "kernel32", "kernelbase")
def fls_set_value(thread: Thread, index: int, value: int) -> int:
    """Of the current fiber."""
    if index >= FLS_MAXIMUM_AVAILABLE:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.memory.set_u64(_fls(thread, index, make=True), value)
    return 1


def _finish(thread: Thread, block: int, entries: Iterable[tuple[int, int]]) -> None:
    """Call the functions for the values of one fiber."""
    for index, callback in entries:
        value = thread.memory.u64(block + 8 * index)
        if value:
            thread.memory.set_u64(block + 8 * index, 0)
            if callback:
                thread.engine.call(callback, value)


def finish_fiber(thread: Thread, block: int) -> None:
    """A fiber ends whose slots are at an address, or has none for 0."""
    slots = _slots(thread.process)
    if block in slots.fls_blocks:
        _finish(thread, block, sorted(slots.fls.items()))
        slots.fls_blocks.discard(block)
        heaps.free(thread.process, block)


def finish_thread(thread: Thread) -> None:
    """A thread ends: its fiber's functions are called, and what belonged to it is given back."""
    finish_fiber(thread, thread.memory.u64(thread.teb + TEB_FLS_DATA))
    thread.memory.set_u64(thread.teb + TEB_FLS_DATA, 0)
    block = thread.memory.u64(thread.teb + TEB_TLS_EXPANSION)
    if block:
        thread.memory.set_u64(thread.teb + TEB_TLS_EXPANSION, 0)
        heaps.free(thread.process, block)
