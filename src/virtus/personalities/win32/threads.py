"""Threads: starting and ending them, and what is known of them. (What they wait with is in `waiting.py`.)

A running thread cannot be stopped by another: SuspendThread and TerminateThread are refused but for oneself and for
threads that have not begun. Programs must be ready for that, as access may be denied on Windows too.
"""

import resource
import struct
import time
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32 import errors, heaps, local_storage, ntstatus, process_blocks, startup, state
from virtus.personalities.win32.file_time import TICKS_PER_SECOND, from_unix_ns
from virtus.personalities.win32.process import Process, ProcessEnd, Thread
from virtus.personalities.win32.regions import PAGE, PAGE_READWRITE, Kind, Region
from virtus.personalities.win32.synchronisation import abandon
from virtus.personalities.win32.table import api
from virtus.personalities.win32.virtual_memory import regions
from virtus.personalities.win32.waiting import CURRENT_PROCESS, CURRENT_THREAD, STILL_ACTIVE, Ending, lock, object_of

CREATE_SUSPENDED: Final = 4
DEFAULT_STACK: Final = 1 << 20
LARGEST_STACK: Final = 1 << 30
SUSPEND_FAILED: Final = 0xFFFF_FFFF
THREAD_PRIORITY_ERROR_RETURN: Final = 0x7FFF_FFFF
PRIORITIES: Final = frozenset({-15, -2, -1, 0, 1, 2, 15, 0x1_0000, 0x2_0000})
"""THREAD_PRIORITY_*, and the modes of background work."""


class Known:
    """What is known of a thread besides its block."""

    def __init__(self) -> None:
        self.suspended = 0
        self.priority = 0
        self.description = ""
        self.stack: Region | None = None
        self.started_ns = time.time_ns()


def know_stack(process: Process, stack: tuple[int, int]) -> Region:
    """Have VirtualQuery know of a stack that the engine has made, with the page below it that cannot be used."""
    low, high = stack
    region = Region(low - PAGE, high - low + PAGE, Kind.PRIVATE, PAGE_READWRITE)
    region.set(low, high, PAGE_READWRITE)
    table = regions(process)
    with table.lock:
        if table.free(region.base, region.end):
            table.add(region)
    return region


def forget_stack(process: Process, region: Region) -> None:
    """The engine takes a stack back."""
    table = regions(process)
    with table.lock:
        if table.find(region.base) is region:
            table.remove(region)


def new_thread(process: Process, stack_size: int, body: Callable[[Thread], int], *, suspended: bool = False) -> Thread:
    """A guest thread that runs `body` and ends with its result. Raises OSError where there is no memory for it."""
    ident = process.new_ident()
    teb = process_blocks.make_teb(process.memory, process.peb, (0, 0), process.ident, ident)
    thread = Thread(process, teb, ident)
    known = state.of(thread, Known)
    known.suspended = int(suspended)
    process.threads[ident] = thread

    def run() -> None:
        engine = process.engine
        set_stack(thread, engine.stack())
        known.stack = know_stack(process, engine.stack())
        engine.set_teb(teb)
        process.current = thread
        if known.suspended:
            engine.wait(lambda: not known.suspended, None)
        try:
            if hasattr(process, "modules"):
                templates = [startup.template(process.modules, module) for module in process.modules.tls]
                process_blocks.make_tls(process.memory, teb, templates)
                startup.attach(process, startup.DLL_THREAD_ATTACH)
            exit_thread(thread, body(thread))
        except ProcessEnd as ended:
            engine.exit(ended.status)

    process.engine.start_thread(run, min(stack_size or DEFAULT_STACK, LARGEST_STACK))
    return thread


def set_stack(thread: Thread, stack: tuple[int, int]) -> None:
    """Have the thread's block tell of the stack that it runs on."""
    low, high = stack
    thread.memory.set_u64(thread.teb + process_blocks.TEB_STACK_BASE, high)
    thread.memory.set_u64(thread.teb + process_blocks.TEB_STACK_LIMIT, low)
    thread.memory.set_u64(thread.teb + process_blocks.TEB_STACK_ALLOCATION, low - PAGE)


def exit_thread(thread: Thread, code: int) -> None:
    """End the calling guest thread, and with the last one the process. Does not return."""
    process, engine = thread.process, thread.engine
    local_storage.finish_thread(thread)
    if hasattr(process, "modules"):
        startup.attach(process, startup.DLL_THREAD_DETACH)
    abandon(thread)
    ending, stack = state.of(thread, Ending), state.of(thread, Known).stack
    if stack is not None:
        forget_stack(process, stack)
    with lock(process):
        process.threads.pop(thread.ident, None)
        last = not process.threads
    if last:
        raise ProcessEnd(code & 0xFFFF_FFFF)
    ending.code, ending.ended = code & 0xFFFF_FFFF, True
    engine.wake()
    engine.end_thread()


def _create(thread: Thread, stack_size: int, start: int, parameter: int, flags: int, ident: int, security: int) -> int:
    def body(self: Thread) -> int:
        return self.engine.call(start, parameter)

    try:
        made = new_thread(thread.process, stack_size, body, suspended=bool(flags & CREATE_SUSPENDED))
    except OSError:
        return thread.fail(errors.ERROR_NOT_ENOUGH_MEMORY)
    if ident:
        thread.memory.set_u32(ident, made.ident)
    inherit = bool(security and thread.memory.u32(security + 16))
    handle: int = thread.process.handles.add(made, inheritable=inherit)
    return handle


@api("HANDLE CreateThread(LPSECURITY_ATTRIBUTES security, SIZE_T stack_size, FARPROC start, LPVOID parameter,"
     " DWORD flags, LPDWORD ident)", "kernel32", "kernelbase")  # fmt: skip
def create_thread(
    thread: Thread, security: int, stack_size: int, start: int, parameter: int, flags: int, ident: int
) -> int:
    """A thread that calls a function of one parameter."""
    return _create(thread, stack_size, start, parameter, flags, ident, security)


@api("HANDLE CreateRemoteThreadEx(HANDLE process, LPSECURITY_ATTRIBUTES security, SIZE_T stack_size, FARPROC start,"
     " LPVOID parameter, DWORD flags, LPVOID attributes, LPDWORD ident)", "kernel32", "kernelbase",
     note="in the caller's own process")  # fmt: skip
def create_remote_thread_ex(
    thread: Thread, process: int, security: int, stack_size: int, start: int, parameter: int, flags: int,
    attributes: int, ident: int,
) -> int:  # fmt: skip
    """The attributes are wishes of where to run."""
    if object_of(thread, process) is not thread.process:
        return thread.fail(errors.ERROR_ACCESS_DENIED)
    return _create(thread, stack_size, start, parameter, flags, ident, security)


@api("void ExitThread(DWORD code)", "kernel32", "kernelbase")
def exit_thread_(thread: Thread, code: int) -> None:
    """Does not return."""
    exit_thread(thread, code)


@api("void FreeLibraryAndExitThread(HMODULE module, DWORD code)", "kernel32", "kernelbase",
     note="the library stays until the process ends")  # fmt: skip
def free_library_and_exit_thread(thread: Thread, module: int, code: int) -> None:
    """Does not return."""
    exit_thread(thread, code)


@api("void RtlExitUserThread(ULONG code)", "ntdll")
def rtl_exit_user_thread(thread: Thread, code: int) -> None:
    """What ExitThread forwards to."""
    exit_thread(thread, code)


@api("BOOL TerminateThread(HANDLE target, DWORD code)", "kernel32", "kernelbase", note="of the caller only")
def terminate_thread(thread: Thread, target: int, code: int) -> int:
    """Of another one refused."""
    found = object_of(thread, target)
    if not isinstance(found, Thread):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if found is thread:
        exit_thread(thread, code)
    return thread.fail(errors.ERROR_ACCESS_DENIED)


@api("DWORD SuspendThread(HANDLE target)", "kernel32", "kernelbase",
     note="of the caller, and of threads that have not begun")  # fmt: skip
def suspend_thread(thread: Thread, target: int) -> int:
    """The count before."""
    found = object_of(thread, target)
    if not isinstance(found, Thread):
        return thread.fail(errors.ERROR_INVALID_HANDLE, SUSPEND_FAILED)
    known = state.of(found, Known)
    with lock(thread.process):
        before = known.suspended
        if not before and found is not thread:
            return thread.fail(errors.ERROR_ACCESS_DENIED, SUSPEND_FAILED)
        known.suspended = before + 1
    if found is thread:
        thread.engine.wait(lambda: not known.suspended, None)
    return before


@api("DWORD ResumeThread(HANDLE target)", "kernel32", "kernelbase")
def resume_thread(thread: Thread, target: int) -> int:
    """The count before."""
    found = object_of(thread, target)
    if hasattr(found, "resume"):  # a child's first thread
        return int(found.resume())
    if not isinstance(found, Thread):
        return thread.fail(errors.ERROR_INVALID_HANDLE, SUSPEND_FAILED)
    known = state.of(found, Known)
    with lock(thread.process):
        before = known.suspended
        known.suspended = max(0, before - 1)
    thread.engine.wake()
    return before


@api("NTSTATUS NtSuspendThread(HANDLE target, PULONG before)", "ntdll",
     note="of the caller, and of threads that have not begun")  # fmt: skip
def nt_suspend_thread(thread: Thread, target: int, before: int) -> int:
    """The native one."""
    count = suspend_thread(thread, target)
    if before:
        thread.memory.set_u32(before, count)
    return ntstatus.ACCESS_DENIED if count == SUSPEND_FAILED else 0


@api("NTSTATUS NtResumeThread(HANDLE target, PULONG before)", "ntdll")
def nt_resume_thread(thread: Thread, target: int, before: int) -> int:
    """The native one."""
    count = resume_thread(thread, target)
    if before:
        thread.memory.set_u32(before, count)
    return ntstatus.INVALID_HANDLE if count == SUSPEND_FAILED else 0


@api("HANDLE GetCurrentThread(void)", "kernel32", "kernelbase")
def get_current_thread(thread: Thread) -> int:
    """A number that stands for whoever uses it."""
    return CURRENT_THREAD


@api("DWORD GetCurrentThreadId(void)", "kernel32", "kernelbase")
def get_current_thread_id(thread: Thread) -> int:
    """The thread's number."""
    return thread.ident


@api("HANDLE GetCurrentProcess(void)", "kernel32", "kernelbase")
def get_current_process(thread: Thread) -> int:
    """A number that stands for whoever uses it."""
    return CURRENT_PROCESS


@api("DWORD GetCurrentProcessId(void)", "kernel32", "kernelbase")
def get_current_process_id(thread: Thread) -> int:
    """The process's number."""
    return thread.process.ident


@api("HANDLE OpenThread(DWORD access, BOOL inherit, DWORD ident)", "kernel32", "kernelbase",
     note="of the caller's own process")  # fmt: skip
def open_thread(thread: Thread, access: int, inherit: int, ident: int) -> int:
    """A handle of a thread by its number."""
    found = thread.process.threads.get(ident)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    handle: int = thread.process.handles.add(found, inheritable=bool(inherit))
    return handle


def _thread(thread: Thread, handle: int) -> Thread | None:
    found = object_of(thread, handle)
    return found if isinstance(found, Thread) else None


@api("DWORD GetThreadId(HANDLE target)", "kernel32", "kernelbase")
def get_thread_id(thread: Thread, target: int) -> int:
    """The number of a handle's thread."""
    found = _thread(thread, target)
    return thread.fail(errors.ERROR_INVALID_HANDLE) if found is None else found.ident


@api("DWORD GetProcessIdOfThread(HANDLE target)", "kernel32", "kernelbase")
def get_process_id_of_thread(thread: Thread, target: int) -> int:
    """Of a thread of this process."""
    return thread.process.ident if _thread(thread, target) else thread.fail(errors.ERROR_INVALID_HANDLE)


@api("BOOL GetExitCodeThread(HANDLE target, LPDWORD result)", "kernel32", "kernelbase")
def get_exit_code_thread(thread: Thread, target: int, result: int) -> int:
    """STILL_ACTIVE while it runs."""
    found = _thread(thread, target)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    ending = state.of(found, Ending)
    thread.memory.set_u32(result, ending.code if ending.ended else STILL_ACTIVE)
    return 1


@api("BOOL SetThreadPriority(HANDLE target, int priority)", "kernel32", "kernelbase", note="changes nothing")
def set_thread_priority(thread: Thread, target: int, priority: int) -> int:
    """Kept, and told when it is asked for."""
    found = _thread(thread, target)
    if found is None or priority not in PRIORITIES:
        return thread.fail(errors.ERROR_INVALID_HANDLE if found is None else errors.ERROR_INVALID_PARAMETER)
    if priority < 0x1_0000:
        state.of(found, Known).priority = priority
    return 1


@api("int GetThreadPriority(HANDLE target)", "kernel32", "kernelbase")
def get_thread_priority(thread: Thread, target: int) -> int:
    """As set."""
    found = _thread(thread, target)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE, THREAD_PRIORITY_ERROR_RETURN)
    return state.of(found, Known).priority


@api("BOOL SetThreadPriorityBoost(HANDLE target, BOOL disable)", "kernel32", "kernelbase", note="changes nothing")
def set_thread_priority_boost(thread: Thread, target: int, disable: int) -> int:
    """The host schedules."""
    return 1 if _thread(thread, target) else thread.fail(errors.ERROR_INVALID_HANDLE)


@api("BOOL SetThreadInformation(HANDLE target, int class, LPVOID data, DWORD size)", "kernel32", "kernelbase",
     note="changes nothing")  # fmt: skip
def set_thread_information(thread: Thread, target: int, kind: int, data: int, size: int) -> int:
    """Priorities of memory and power: wishes."""
    return 1 if _thread(thread, target) else thread.fail(errors.ERROR_INVALID_HANDLE)


@api("HRESULT SetThreadDescription(HANDLE target, LPCWSTR text)", "kernel32", "kernelbase")
def set_thread_description(thread: Thread, target: int, text: int) -> int:
    """A name for debuggers."""
    found = _thread(thread, target)
    if found is None:
        return -0x7FF8_FFFA  # HRESULT_FROM_WIN32(ERROR_INVALID_HANDLE)
    state.of(found, Known).description = thread.memory.wide(text)
    return 0


@api("HRESULT GetThreadDescription(HANDLE target, LPWSTR *result)", "kernel32", "kernelbase")
def get_thread_description(thread: Thread, target: int, result: int) -> int:
    """The caller frees it with LocalFree."""
    found = _thread(thread, target)
    if found is None:
        return -0x7FF8_FFFA
    text = state.of(found, Known).description.encode("utf-16-le", "surrogatepass") + b"\0\0"
    thread.memory.set_u64(result, heaps.allocate(thread.process, text))
    return 0


@api("BOOL SetThreadStackGuarantee(PULONG size)", "kernel32", "kernelbase")
def set_thread_stack_guarantee(thread: Thread, size: int) -> int:
    """The size before: none. Handlers of overflows run on what is left."""
    thread.memory.set_u32(size, 0)
    return 1


@api("void GetCurrentThreadStackLimits(PULONG_PTR low, PULONG_PTR high)", "kernel32", "kernelbase")
def get_current_thread_stack_limits(thread: Thread, low: int, high: int) -> None:
    """As the TEB has them."""
    thread.memory.set_u64(low, thread.memory.u64(thread.teb + process_blocks.TEB_STACK_ALLOCATION))
    thread.memory.set_u64(high, thread.memory.u64(thread.teb + process_blocks.TEB_STACK_BASE))


def _times(thread: Thread, results: tuple[int, ...], started_ns: int, user: float, system: float) -> None:
    """Made, ended (not), kernel time, user time; processor times are in 100 ns."""
    values = (from_unix_ns(started_ns), 0, int(system * TICKS_PER_SECOND), int(user * TICKS_PER_SECOND))
    for address, value in zip(results, values, strict=True):
        thread.memory.set_u64(address, value)


@api("BOOL GetThreadTimes(HANDLE target, LPFILETIME made, LPFILETIME ended, LPFILETIME kernel, LPFILETIME user)",
     "kernel32", "kernelbase", note="processor time of the caller only")  # fmt: skip
def get_thread_times(thread: Thread, target: int, made: int, ended: int, kernel: int, user: int) -> int:
    """The caller's processor time; of another thread none."""
    found = _thread(thread, target)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    spent = time.thread_time() if found is thread else 0.0
    _times(thread, (made, ended, kernel, user), state.of(found, Known).started_ns, spent, 0.0)
    return 1


class Started:
    """When the process started."""

    def __init__(self) -> None:
        self.ns = time.time_ns() - int(time.process_time() * 1e9)


@api("BOOL GetProcessTimes(HANDLE process, LPFILETIME made, LPFILETIME ended, LPFILETIME kernel, LPFILETIME user)",
     "kernel32", "kernelbase", note="of the caller's own process")  # fmt: skip
def get_process_times(thread: Thread, process: int, made: int, ended: int, kernel: int, user: int) -> int:
    """The host's account of this process."""
    if object_of(thread, process) is not thread.process:
        return thread.fail(errors.ERROR_ACCESS_DENIED)
    used = resource.getrusage(resource.RUSAGE_SELF)
    started = state.of(thread.process, Started).ns
    _times(thread, (made, ended, kernel, user), started, used.ru_utime, used.ru_stime)
    return 1


@api("NTSTATUS NtQueryInformationThread(HANDLE target, int class, LPVOID buffer, ULONG size, PULONG length)", "ntdll",
     note="ThreadBasicInformation only")  # fmt: skip
def nt_query_information_thread(thread: Thread, target: int, kind: int, buffer: int, size: int, length: int) -> int:
    """ThreadBasicInformation."""
    found = _thread(thread, target)
    if found is None or kind != 0:
        return ntstatus.INVALID_HANDLE if found is None else ntstatus.INVALID_INFO_CLASS
    ending = state.of(found, Ending)
    data = struct.pack("<I4xQQQQii", ending.code, found.teb, thread.process.ident, found.ident, 1, 8, 8)
    if size < len(data):
        return ntstatus.INFO_LENGTH_MISMATCH
    thread.memory.write(buffer, data)
    if length:
        thread.memory.set_u32(length, len(data))
    return 0
