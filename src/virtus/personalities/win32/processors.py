"""Processors: how many, which belong together, and which the guest would like."""

import struct
from typing import Final

from virtus.personalities.win32 import errors
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.system_information import all_processors, processors
from virtus.personalities.win32.table import api

ALL_PROCESSOR_GROUPS: Final = 0xFFFF
RELATION_CORE, RELATION_NODE, RELATION_CACHE, RELATION_PACKAGE, RELATION_GROUP, RELATION_ALL = 0, 1, 2, 3, 4, 0xFFFF


def _relations(kind: int) -> bytes:
    """SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX: each processor a core, all one package, node and group."""
    made, mask = [], all_processors()
    affinity = struct.pack("<QH6x", mask, 0)
    if kind in (RELATION_CORE, RELATION_ALL):
        for number in range(processors()):
            made.append(struct.pack("<II", RELATION_CORE, 48) + bytes([0, 0]) + bytes(20) + struct.pack("<H", 1)
                        + struct.pack("<QH6x", 1 << number, 0))  # fmt: skip
    if kind in (RELATION_NODE, RELATION_ALL):
        made.append(struct.pack("<III", RELATION_NODE, 48, 0) + bytes(18) + struct.pack("<H", 1) + affinity)
    if kind in (RELATION_PACKAGE, RELATION_ALL):
        made.append(struct.pack("<II", RELATION_PACKAGE, 48) + bytes(22) + struct.pack("<H", 1) + affinity)
    if kind in (RELATION_GROUP, RELATION_ALL):
        group = struct.pack("<BB38xQ", processors(), processors(), mask)
        made.append(struct.pack("<IIHH20x", RELATION_GROUP, 32 + len(group), 1, 1) + group)
    return b"".join(made)


@api("BOOL GetLogicalProcessorInformationEx(int kind, LPVOID buffer, LPDWORD length)", "kernel32", "kernelbase")
def get_logical_processor_information_ex(thread: Thread, kind: int, buffer: int, length: int) -> int:
    """Cores, package, node and group; caches are not told of."""
    return _sized(thread, _relations(kind & 0xFFFF), buffer, length)


@api("BOOL GetLogicalProcessorInformation(LPVOID buffer, LPDWORD length)", "kernel32", "kernelbase")
def get_logical_processor_information(thread: Thread, buffer: int, length: int) -> int:
    """The same in the older form."""
    cores = [struct.pack("<QII16x", 1 << number, RELATION_CORE, 0) for number in range(processors())]
    whole = [struct.pack("<QII16x", all_processors(), kind, 0) for kind in (RELATION_NODE, RELATION_PACKAGE)]
    return _sized(thread, b"".join(cores + whole), buffer, length)


def _sized(thread: Thread, data: bytes, buffer: int, length: int) -> int:
    available = thread.memory.u32(length)
    thread.memory.set_u32(length, len(data))
    if not buffer or available < len(data):
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    thread.memory.write(buffer, data)
    return 1


@api("DWORD GetActiveProcessorCount(WORD group)", "kernel32", "kernelbase")
def get_active_processor_count(thread: Thread, group: int) -> int:
    """Of the one group."""
    return processors() if group in (0, ALL_PROCESSOR_GROUPS) else thread.fail(errors.ERROR_INVALID_PARAMETER)


@api("DWORD GetMaximumProcessorCount(WORD group)", "kernel32", "kernelbase")
def get_maximum_processor_count(thread: Thread, group: int) -> int:
    """Of the one group."""
    return get_active_processor_count(thread, group)


@api("WORD GetActiveProcessorGroupCount(void)", "kernel32", "kernelbase")
def get_active_processor_group_count(thread: Thread) -> int:
    """One."""
    return 1


@api("WORD GetMaximumProcessorGroupCount(void)", "kernel32", "kernelbase")
def get_maximum_processor_group_count(thread: Thread) -> int:
    """One."""
    return 1


@api("DWORD GetCurrentProcessorNumber(void)", "kernel32", "kernelbase")
def get_current_processor_number(thread: Thread) -> int:
    """0: which one it is may have changed by the time that the caller looks."""
    return 0


@api("void GetCurrentProcessorNumberEx(LPVOID result)", "kernel32", "kernelbase")
def get_current_processor_number_ex(thread: Thread, result: int) -> None:
    """The first of the one group."""
    thread.memory.write(result, bytes(4))


@api("BOOL GetNumaHighestNodeNumber(PULONG result)", "kernel32", "kernelbase")
def get_numa_highest_node_number(thread: Thread, result: int) -> int:
    """One node."""
    thread.memory.set_u32(result, 0)
    return 1


@api("BOOL GetNumaNodeProcessorMaskEx(USHORT node, LPVOID result)", "kernel32", "kernelbase")
def get_numa_node_processor_mask_ex(thread: Thread, node: int, result: int) -> int:
    """All processors."""
    if node:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.memory.write(result, struct.pack("<QH6x", all_processors(), 0))
    return 1


@api("BOOL GetProcessAffinityMask(HANDLE process, DWORD_PTR *own, DWORD_PTR *system)", "kernel32", "kernelbase")
def get_process_affinity_mask(thread: Thread, process: int, own: int, system: int) -> int:
    """All processors."""
    thread.memory.set_u64(own, all_processors())
    thread.memory.set_u64(system, all_processors())
    return 1


@api("BOOL SetProcessAffinityMask(HANDLE process, DWORD_PTR mask)", "kernel32", "kernelbase",
     note="a wish: the host chooses processors")  # fmt: skip
def set_process_affinity_mask(thread: Thread, process: int, mask: int) -> int:
    """Only of processors that are there."""
    if not mask or mask & ~all_processors():
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return 1


@api("DWORD_PTR SetThreadAffinityMask(HANDLE target, DWORD_PTR mask)", "kernel32", "kernelbase",
     note="a wish: the host chooses processors")  # fmt: skip
def set_thread_affinity_mask(thread: Thread, target: int, mask: int) -> int:
    """The mask before: all."""
    if not mask or mask & ~all_processors():
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return all_processors()


@api("DWORD SetThreadIdealProcessor(HANDLE target, DWORD processor)", "kernel32", "kernelbase")
def set_thread_ideal_processor(thread: Thread, target: int, processor: int) -> int:
    """A wish; the one before."""
    return 0


@api("BOOL GetThreadGroupAffinity(HANDLE target, LPVOID result)", "kernel32", "kernelbase")
def get_thread_group_affinity(thread: Thread, target: int, result: int) -> int:
    """All processors of the one group."""
    thread.memory.write(result, struct.pack("<QH6x", all_processors(), 0))
    return 1


@api("BOOL SetThreadGroupAffinity(HANDLE target, LPVOID affinity, LPVOID before)", "kernel32", "kernelbase",
     note="a wish: the host chooses processors")  # fmt: skip
def set_thread_group_affinity(thread: Thread, target: int, affinity: int, before: int) -> int:
    """Only of the one group."""
    mask, group = struct.unpack("<QH", thread.memory.read(affinity, 10))
    if group or not mask or mask & ~all_processors():
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if before:
        thread.memory.write(before, struct.pack("<QH6x", all_processors(), 0))
    return 1
