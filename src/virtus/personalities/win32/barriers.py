"""Synchronisation barriers and interlocked lists."""

from typing import Final

from virtus.personalities.win32 import errors, state
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.waiting import lock

BARRIER_SIZE: Final = 32
LIST_HEADER_SIZE: Final = 16
DEPTH_STEP, SEQUENCE_STEP = 1, 0x1_0000
MASK: Final = 0xFFFF_FFFF_FFFF_FFFF


class Barriers:
    """Of each barrier how many are to come, how many have, and how often all had."""

    def __init__(self) -> None:
        self.by_address: dict[int, list[int]] = {}


@api("BOOL InitializeSynchronizationBarrier(LPVOID barrier, LONG total, LONG spin)", "kernel32", "kernelbase")
def initialize_synchronization_barrier(thread: Thread, barrier: int, total: int, spin: int) -> int:
    """For a number of threads."""
    if total <= 0:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.memory.write(barrier, bytes(BARRIER_SIZE))
    state.of(thread.process, Barriers).by_address[barrier] = [total, 0, 0]
    return 1


@api("BOOL EnterSynchronizationBarrier(LPVOID barrier, DWORD flags)", "kernel32", "kernelbase")
def enter_synchronization_barrier(thread: Thread, barrier: int, flags: int) -> int:
    """Wait until all have come; true for the last one."""
    counts = state.of(thread.process, Barriers).by_address.get(barrier)
    if counts is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    with lock(thread.process):
        counts[1] += 1
        turn, last = counts[2], counts[1] == counts[0]
        if last:
            counts[1], counts[2] = 0, turn + 1
    if last:
        thread.engine.wake()
        return 1
    thread.engine.wait(lambda: counts[2] != turn, None)
    return 0


@api("BOOL DeleteSynchronizationBarrier(LPVOID barrier)", "kernel32", "kernelbase")
def delete_synchronization_barrier(thread: Thread, barrier: int) -> int:
    """Always true."""
    state.of(thread.process, Barriers).by_address.pop(barrier, None)
    return 1


# SLIST_HEADER on x64: depth (16 bits) and sequence (48 bits), then the first entry's address, whose low 4 bits are
# no part of it (winnt.h: HeaderX64). Only these functions change it.


def _lists(thread: Thread, head: int) -> tuple[int, int]:
    return thread.memory.u64(head), thread.memory.u64(head + 8) & ~15


def _set_list(thread: Thread, head: int, depth: int, before: int, first: int) -> None:
    thread.memory.set_u64(head, ((before >> 16) + 1 << 16 & MASK) | depth & 0xFFFF)
    thread.memory.set_u64(head + 8, first)


@api("void InitializeSListHead(LPVOID head)", "kernel32", "kernelbase")
def initialize_s_list_head(thread: Thread, head: int) -> None:
    """Empty."""
    thread.memory.write(head, bytes(LIST_HEADER_SIZE))


@api("LPVOID InterlockedPushEntrySList(LPVOID head, LPVOID entry)", "kernel32", "kernelbase")
def interlocked_push_entry_s_list(thread: Thread, head: int, entry: int) -> int:
    """The entry that was first before."""
    with lock(thread.process):
        before, first = _lists(thread, head)
        thread.memory.set_u64(entry, first)
        _set_list(thread, head, (before & 0xFFFF) + 1, before, entry)
        return first


@api("LPVOID InterlockedPopEntrySList(LPVOID head)", "kernel32", "kernelbase")
def interlocked_pop_entry_s_list(thread: Thread, head: int) -> int:
    """The first entry, 0 for none."""
    with lock(thread.process):
        before, first = _lists(thread, head)
        if first:
            _set_list(thread, head, (before & 0xFFFF) - 1, before, thread.memory.u64(first))
        return first


@api("LPVOID InterlockedFlushSList(LPVOID head)", "kernel32", "kernelbase")
def interlocked_flush_s_list(thread: Thread, head: int) -> int:
    """All entries; the list is empty."""
    with lock(thread.process):
        before, first = _lists(thread, head)
        _set_list(thread, head, 0, before, 0)
        return first


@api("USHORT QueryDepthSList(LPVOID head)", "kernel32", "kernelbase")
def query_depth_s_list(thread: Thread, head: int) -> int:
    """How many entries."""
    return thread.memory.u64(head) & 0xFFFF


@api("void RtlInitializeSListHead(LPVOID head)", "ntdll")
def rtl_initialize_s_list_head(thread: Thread, head: int) -> None:
    """What InitializeSListHead forwards to."""
    initialize_s_list_head(thread, head)


@api("LPVOID RtlInterlockedFlushSList(LPVOID head)", "ntdll")
def rtl_interlocked_flush_s_list(thread: Thread, head: int) -> int:
    """What InterlockedFlushSList forwards to."""
    return interlocked_flush_s_list(thread, head)
