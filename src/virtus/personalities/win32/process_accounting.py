"""What a process uses and how it is scheduled: memory, times, priorities (psapi, and kernel32's part of it)."""

import os
import resource
import struct
import time
from typing import Final

from virtus.personalities.win32 import errors, state
from virtus.personalities.win32.file_time import TICKS_PER_SECOND
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.quick_files import QuickFiles
from virtus.personalities.win32.system_information import memory_bytes
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text
from virtus.personalities.win32.waiting import object_of

PRIORITY_CLASSES: Final = frozenset({0x20, 0x40, 0x80, 0x100, 0x4000, 0x8000, 0x10_0000, 0x20_0000})
NORMAL_PRIORITY_CLASS: Final = 0x20
PAGE: Final = 4096
PSAPI: Final = ("psapi", "kernel32", "kernelbase")


class Priority:
    """A process's priority class, which changes nothing."""

    def __init__(self) -> None:
        self.value = NORMAL_PRIORITY_CLASS


def _own(thread: Thread, process: int) -> bool:
    return isinstance(object_of(thread, process), Process)


@api("BOOL SetPriorityClass(HANDLE process, DWORD priority)", "kernel32", "kernelbase", note="changes nothing")
def set_priority_class(thread: Thread, process: int, priority: int) -> int:
    """Kept, and told when it is asked for."""
    if priority not in PRIORITY_CLASSES:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if priority < 0x10_0000:
        state.of(thread.process, Priority).value = priority
    return 1


@api("DWORD GetPriorityClass(HANDLE process)", "kernel32", "kernelbase")
def get_priority_class(thread: Thread, process: int) -> int:
    """As set."""
    return state.of(thread.process, Priority).value


@api("BOOL SetProcessPriorityBoost(HANDLE process, BOOL disable)", "kernel32", "kernelbase", note="changes nothing")
def set_process_priority_boost(thread: Thread, process: int, disable: int) -> int:
    """The host schedules."""
    return 1


@api("BOOL GetProcessPriorityBoost(HANDLE process, BOOL *disabled)", "kernel32", "kernelbase")
def get_process_priority_boost(thread: Thread, process: int, disabled: int) -> int:
    """Not disabled."""
    thread.memory.set_u32(disabled, 0)
    return 1


@api("BOOL SetProcessInformation(HANDLE process, int class, LPVOID data, DWORD size)", "kernel32", "kernelbase",
     note="changes nothing")  # fmt: skip
def set_process_information(thread: Thread, process: int, kind: int, data: int, size: int) -> int:
    """Power and memory priorities: wishes."""
    return 1


@api("BOOL SetProcessMitigationPolicy(int policy, LPVOID data, SIZE_T size)", "kernel32", "kernelbase",
     note="changes nothing")  # fmt: skip
def set_process_mitigation_policy(thread: Thread, policy: int, data: int, size: int) -> int:
    """The box confines the process."""
    return 1


def processor_times() -> list[tuple[int, int, int, int, int, int]]:
    """Of each processor: idle, kernel (with idle) and user time in 100 ns, and zeros (proc(5), stat)."""
    tick = TICKS_PER_SECOND // os.sysconf("SC_CLK_TCK")
    rows = []
    try:
        with open("/proc/stat") as file:
            for line in file:
                words = line.split()
                if words[0].startswith("cpu") and words[0] != "cpu":
                    user, nice, system, idle, wait = (int(word) * tick for word in words[1:6])
                    rows.append((idle + wait, system + idle + wait, user + nice, 0, 0, 0))
    except OSError:
        pass  # where /proc is not, no processor has done anything
    return rows or [(0, 0, 0, 0, 0, 0)]


@api("BOOL GetSystemTimes(LPFILETIME idle, LPFILETIME kernel, LPFILETIME user)", "kernel32", "kernelbase")
def get_system_times(thread: Thread, idle: int, kernel: int, user: int) -> int:
    """Of all processors; the kernel's has idle time in it."""
    rows = processor_times()
    for place, address in enumerate((idle, kernel, user)):
        if address:
            thread.memory.set_u64(address, sum(row[place] for row in rows))
    return 1


def _resident() -> tuple[int, int]:
    """Bytes resident and committed of this process (proc(5), statm)."""
    try:
        with open("/proc/self/statm") as file:
            words = file.read().split()
        return int(words[1]) * PAGE, int(words[5]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0, 0


def _memory_info(thread: Thread, process: int, result: int, size: int) -> int:
    """PROCESS_MEMORY_COUNTERS, or with the private bytes that the extended one has."""
    if not _own(thread, process):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if size < 72:
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    resident, committed = _resident()
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = max(used.ru_maxrss * 1024, resident)
    data = struct.pack(
        "<IIQQQQQQQQ", size, (used.ru_majflt + used.ru_minflt) & 0xFFFF_FFFF, peak, resident, 0, 0, 0, 0, committed,
        max(peak, committed),
    )  # fmt: skip
    thread.memory.write(result, data + (struct.pack("<Q", committed) if size >= 80 else b""))
    return 1


@api("BOOL K32GetProcessMemoryInfo(HANDLE process, LPVOID result, DWORD size)", *PSAPI)
def k32_get_process_memory_info(thread: Thread, process: int, result: int, size: int) -> int:
    """The host's account of this process."""
    return _memory_info(thread, process, result, size)


@api("BOOL GetProcessMemoryInfo(HANDLE process, LPVOID result, DWORD size)", "psapi")
def get_process_memory_info(thread: Thread, process: int, result: int, size: int) -> int:
    """The same by its older name."""
    return _memory_info(thread, process, result, size)


@api("BOOL K32GetPerformanceInfo(LPVOID result, DWORD size)", *PSAPI)
def k32_get_performance_info(thread: Thread, result: int, size: int) -> int:
    """Memory in pages; numbers of processes and handles are not told."""
    if size < 104:
        return thread.fail(errors.ERROR_BAD_LENGTH)
    total, available = (count // PAGE for count in memory_bytes())
    used = total - available
    data = struct.pack("<I4xQQQQQQQQQQIII4x", 104, used, total, used, total, available, 0, 0, 0, 0, PAGE, 0, 1, 1)
    thread.memory.write(result, data)
    return 1


@api("BOOL GetProcessIoCounters(HANDLE process, LPVOID result)", "kernel32", "kernelbase")
def get_process_io_counters(thread: Thread, process: int, result: int) -> int:
    """Reads, writes and others, and their bytes (proc(5), io)."""
    found: dict[str, int] = {}
    try:
        with open("/proc/self/io") as file:
            found = {name: int(value) for name, value in (line.split(":") for line in file)}
    except (OSError, ValueError):
        pass  # zeros: the host does not account
    values = (found.get(name, 0) for name in ("syscr", "syscw", "", "rchar", "wchar", ""))
    thread.memory.write(result, struct.pack("<6Q", *values))
    return 1


@api("BOOL GetProcessHandleCount(HANDLE process, LPDWORD result)", "kernel32", "kernelbase")
def get_process_handle_count(thread: Thread, process: int, result: int) -> int:
    """Handles that are open."""
    thread.memory.set_u32(result, len(thread.process.handles.objects()) + state.of(thread.process, QuickFiles).count())
    return 1


@api("BOOL QueryProcessCycleTime(HANDLE process, PULONG64 result)", "kernel32", "kernelbase")
def query_process_cycle_time(thread: Thread, process: int, result: int) -> int:
    """Processor time in ns, as of a processor of 1 GHz."""
    thread.memory.set_u64(result, time.process_time_ns())
    return 1


@api("BOOL QueryThreadCycleTime(HANDLE target, PULONG64 result)", "kernel32", "kernelbase")
def query_thread_cycle_time(thread: Thread, target: int, result: int) -> int:
    """Processor time of the caller in ns, as of a processor of 1 GHz."""
    thread.memory.set_u64(result, time.thread_time_ns())
    return 1


@api("BOOL SetProcessWorkingSetSize(HANDLE process, SIZE_T least, SIZE_T most)", "kernel32", "kernelbase",
     note="changes nothing")  # fmt: skip
def set_process_working_set_size(thread: Thread, process: int, least: int, most: int) -> int:
    """The host pages."""
    return 1


@api("BOOL K32EmptyWorkingSet(HANDLE process)", *PSAPI, note="changes nothing")
def k32_empty_working_set(thread: Thread, process: int) -> int:
    """The host pages."""
    return 1


@api("void FlushProcessWriteBuffers(void)", "kernel32", "kernelbase", note="processors of x86 need it less")
def flush_process_write_buffers(thread: Thread) -> None:
    """A barrier of memory in all threads: their stores have been seen once they take a turn or a lock."""
    thread.engine.wait(lambda: True, None)


def _module_name(thread: Thread, text: Text, module: int, buffer: int, capacity: int) -> int:
    """A module's name without its path, cut to the buffer."""
    modules = thread.process.modules
    found = modules.program if not module else modules.by_base(module)
    if found is None or not capacity:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    data = text.encode(found.name)[: (capacity - 1) * text.unit]
    thread.memory.write(buffer, data + bytes(text.unit))
    return len(data) // text.unit


@api("DWORD K32GetModuleBaseNameW(HANDLE process, HMODULE module, LPWSTR buffer, DWORD capacity)", *PSAPI)
def k32_get_module_base_name_w(thread: Thread, process: int, module: int, buffer: int, capacity: int) -> int:
    """Of this process's modules."""
    return _module_name(thread, WIDE, module, buffer, capacity)


@api("DWORD K32GetModuleBaseNameA(HANDLE process, HMODULE module, LPSTR buffer, DWORD capacity)", *PSAPI)
def k32_get_module_base_name_a(thread: Thread, process: int, module: int, buffer: int, capacity: int) -> int:
    """Of this process's modules."""
    return _module_name(thread, ANSI, module, buffer, capacity)


@api("BOOL K32EnumProcessModules(HANDLE process, HMODULE *result, DWORD size, LPDWORD needed)", *PSAPI)
def k32_enum_process_modules(thread: Thread, process: int, result: int, size: int, needed: int) -> int:
    """Of this process, the program first."""
    modules = thread.process.modules
    bases = [modules.program.base, *(module.base for module in modules.order if module is not modules.program)]
    fits = bases[: size // 8]
    thread.memory.write(result, struct.pack(f"<{len(fits)}Q", *fits))
    thread.memory.set_u32(needed, 8 * len(bases))
    return 1


@api("BOOL K32GetModuleInformation(HANDLE process, HMODULE module, LPVOID result, DWORD size)", *PSAPI)
def k32_get_module_information(thread: Thread, process: int, module: int, result: int, size: int) -> int:
    """Base, size and entry."""
    found = thread.process.modules.by_base(module)
    if found is None or size < 24:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    thread.memory.write(result, struct.pack("<QI4xQ", found.base, found.size, found.entry))
    return 1


CONTEXT_FAILED: Final = "refused: a running thread is not stopped"


@api("BOOL GetThreadContext(HANDLE target, LPVOID context)", "kernel32", "kernelbase", note=CONTEXT_FAILED)
def get_thread_context(thread: Thread, target: int, context: int) -> int:
    """Access denied, as SuspendThread is."""
    return thread.fail(errors.ERROR_ACCESS_DENIED)


@api("BOOL SetThreadContext(HANDLE target, LPVOID context)", "kernel32", "kernelbase", note=CONTEXT_FAILED)
def set_thread_context(thread: Thread, target: int, context: int) -> int:
    """Access denied, as SuspendThread is."""
    return thread.fail(errors.ERROR_ACCESS_DENIED)
