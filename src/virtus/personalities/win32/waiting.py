"""Waiting: for objects with handles, for time, and for asynchronous procedure calls while that is allowed.

Every wait of a guest ends up in `wait`, and from there in the engine's, so that other guest threads go on.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from virtus.personalities.win32 import errors, ntstatus, state
from virtus.personalities.win32.file_time import from_unix_ns
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api

INFINITE: Final = 0xFFFF_FFFF
MAXIMUM_WAIT_OBJECTS: Final = 64
WAIT_OBJECT_0, WAIT_ABANDONED_0, WAIT_IO_COMPLETION, WAIT_TIMEOUT = 0, 0x80, 0xC0, 0x102
WAIT_FAILED: Final = 0xFFFF_FFFF
CURRENT_PROCESS, CURRENT_THREAD = 0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFE
NANOSECONDS_PER_TICK: Final = 100
STILL_ACTIVE: Final = 259


class Waitable(Protocol):
    """An object of the wait functions. Both methods are called with the process's `lock` held."""

    def signalled(self, thread: Thread) -> bool:
        """Whether a wait by this thread would end at once."""
        ...

    def acquire(self, thread: Thread) -> bool | None:
        """What a satisfied wait does to the object; True says that a mutex had been abandoned."""
        ...


class Waits:
    """What threads that wait have in common."""

    def __init__(self) -> None:
        self.lock = threading.RLock()


class Ending:
    """How a thread has ended, or that it has not: what those that wait for it wait for."""

    def __init__(self) -> None:
        self.ended = False
        self.code = STILL_ACTIVE

    def signalled(self, thread: Thread) -> bool:
        """Whether it has ended."""
        return self.ended

    def acquire(self, thread: Thread) -> None:
        """Nothing changes."""


class Alerts:
    """A thread's queue of asynchronous procedure calls, and the times when timers will add some."""

    def __init__(self) -> None:
        self.queue: deque[Callable[[Thread], None]] = deque()
        self.timers: set[Any] = set()
        self.alerted = False


def lock(process: Process) -> threading.RLock:
    """Held while the state of objects to wait for is read or changed; never over a wait."""
    return state.of(process, Waits).lock


def queue_apc(thread: Thread, body: Callable[[Thread], None]) -> None:
    """Have a thread run something when it next waits alertably."""
    with lock(thread.process):
        state.of(thread, Alerts).queue.append(body)
    thread.engine.wake()


def _due(objects: Sequence[Any]) -> int | None:
    """When, by the monotonic clock, the first timer among objects becomes signalled."""
    times = [due for object in objects if (due := getattr(object, "due_ns", None)) is not None]
    return min(times, default=None)


def run_apcs(thread: Thread) -> bool:
    """Run what is queued; whether there was anything."""
    alerts, ran = state.of(thread, Alerts), False
    while True:
        with lock(thread.process):
            for timer in list(alerts.timers):
                timer.expire(thread)
            if not alerts.queue:
                return ran
            body = alerts.queue.popleft()
        body(thread)
        ran = True


def wait(
    thread: Thread,
    objects: Sequence[Waitable],
    deadline_ns: int | None,
    *,
    every: bool = False,
    alertable: bool = False,
) -> int:
    """WAIT_OBJECT_0 or WAIT_ABANDONED_0 and the object's place, WAIT_IO_COMPLETION after calls, or WAIT_TIMEOUT.

    Without objects it only sleeps. `deadline_ns` is of the monotonic clock; None is never.
    """
    engine, guard, alerts = thread.engine, lock(thread.process), state.of(thread, Alerts)
    if alertable and run_apcs(thread):
        return WAIT_IO_COMPLETION
    result = WAIT_TIMEOUT

    def ready() -> bool:
        nonlocal result
        with guard:
            if alertable and (alerts.queue or alerts.alerted or any(timer.expired for timer in alerts.timers)):
                result = WAIT_IO_COMPLETION
                return True
            if every and objects and all(object.signalled(thread) for object in objects):
                abandoned = [object.acquire(thread) for object in objects]
                result = WAIT_ABANDONED_0 if any(abandoned) else WAIT_OBJECT_0
                return True
            if not every:
                for place, object in enumerate(objects):
                    if object.signalled(thread):
                        result = place + (WAIT_ABANDONED_0 if object.acquire(thread) else WAIT_OBJECT_0)
                        return True
        return False

    while True:
        timed = [*objects, *alerts.timers] if alertable else objects
        due = _due(timed)
        first = min((moment for moment in (deadline_ns, due) if moment is not None), default=None)
        if engine.wait(ready, first):
            break
        if deadline_ns is not None and time.monotonic_ns() >= deadline_ns:
            break
    if result == WAIT_IO_COMPLETION:
        alerts.alerted = False
        run_apcs(thread)
    return result


def after(milliseconds: int) -> int | None:
    """A deadline from now; None for INFINITE."""
    return None if milliseconds == INFINITE else time.monotonic_ns() + milliseconds * 1_000_000


def native_deadline(thread: Thread, timeout: int) -> int | None:
    """A native function's: 100 ns, negative from now, else a moment of UTC; a null pointer is never."""
    if not timeout:
        return None
    ticks = thread.memory.u64(timeout)
    if ticks >> 63:
        relative = (1 << 64) - ticks
        return None if relative == 1 << 63 else time.monotonic_ns() + relative * NANOSECONDS_PER_TICK
    return time.monotonic_ns() + max(0, ticks - from_unix_ns(time.time_ns())) * NANOSECONDS_PER_TICK


def object_of(thread: Thread, handle: int) -> Any:
    """The object of a handle, of the two that name the caller itself too; None where there is none."""
    if handle == CURRENT_THREAD:
        return thread
    if handle == CURRENT_PROCESS:
        return thread.process
    return thread.process.handles.get(handle)


def waitable(thread: Thread, handle: int) -> Waitable | None:
    """The object of a handle, if it can be waited for."""
    found = object_of(thread, handle)
    if isinstance(found, Thread):
        return state.of(found, Ending)
    return found if hasattr(found, "signalled") else None


def _wait_many(thread: Thread, count: int, handles: int, every: int, milliseconds: int, alertable: int) -> int:
    if not 1 <= count <= MAXIMUM_WAIT_OBJECTS:
        return thread.fail(errors.ERROR_INVALID_PARAMETER, WAIT_FAILED)
    numbers = [thread.memory.u64(handles + 8 * place) for place in range(count)]
    objects = [found for number in numbers if (found := waitable(thread, number)) is not None]
    if len(objects) < count:
        return thread.fail(errors.ERROR_INVALID_HANDLE, WAIT_FAILED)
    if every and len(set(map(id, objects))) < count:
        return thread.fail(errors.ERROR_INVALID_PARAMETER, WAIT_FAILED)
    return wait(thread, objects, after(milliseconds), every=bool(every), alertable=bool(alertable))


@api("DWORD WaitForSingleObjectEx(HANDLE handle, DWORD milliseconds, BOOL alertable)", "kernel32", "kernelbase")
def wait_for_single_object_ex(thread: Thread, handle: int, milliseconds: int, alertable: int) -> int:
    """One object."""
    found = waitable(thread, handle)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE, WAIT_FAILED)
    if not alertable and not thread.engine.cooperative:  # mostly it is there already, or is only asked for
        with lock(thread.process):
            if found.signalled(thread):
                return WAIT_ABANDONED_0 if found.acquire(thread) else WAIT_OBJECT_0
        if not milliseconds:
            return WAIT_TIMEOUT
    return wait(thread, (found,), after(milliseconds), alertable=bool(alertable))


@api("DWORD WaitForSingleObject(HANDLE handle, DWORD milliseconds)", "kernel32", "kernelbase")
def wait_for_single_object(thread: Thread, handle: int, milliseconds: int) -> int:
    """One object."""
    return wait_for_single_object_ex(thread, handle, milliseconds, 0)


@api("DWORD WaitForMultipleObjectsEx(DWORD count, const HANDLE *handles, BOOL every, DWORD milliseconds,"
     " BOOL alertable)", "kernel32", "kernelbase")  # fmt: skip
def wait_for_multiple_objects_ex(
    thread: Thread, count: int, handles: int, every: int, milliseconds: int, alertable: int
) -> int:
    """Any or all of up to 64 objects."""
    return _wait_many(thread, count, handles, every, milliseconds, alertable)


@api("DWORD WaitForMultipleObjects(DWORD count, const HANDLE *handles, BOOL every, DWORD milliseconds)", "kernel32",
     "kernelbase")  # fmt: skip
def wait_for_multiple_objects(thread: Thread, count: int, handles: int, every: int, milliseconds: int) -> int:
    """Any or all of up to 64 objects."""
    return _wait_many(thread, count, handles, every, milliseconds, 0)


@api("DWORD SignalObjectAndWait(HANDLE signal, HANDLE handle, DWORD milliseconds, BOOL alertable)", "kernel32",
     "kernelbase")  # fmt: skip
def signal_object_and_wait(thread: Thread, signal: int, handle: int, milliseconds: int, alertable: int) -> int:
    """Set an event, release a mutex or a semaphore, then wait."""
    found = object_of(thread, signal)
    if not hasattr(found, "signal") or waitable(thread, handle) is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE, WAIT_FAILED)
    try:
        with lock(thread.process):
            found.signal(thread)
    except ntstatus.Refused as refused:
        return thread.fail(refused.error, WAIT_FAILED)
    thread.engine.wake()
    return wait_for_single_object_ex(thread, handle, milliseconds, alertable)


@api("void Sleep(DWORD milliseconds)", "kernel32", "kernelbase")
def sleep(thread: Thread, milliseconds: int) -> None:
    """0 only lets others run."""
    wait(thread, (), after(milliseconds))


@api("DWORD SleepEx(DWORD milliseconds, BOOL alertable)", "kernel32", "kernelbase")
def sleep_ex(thread: Thread, milliseconds: int, alertable: int) -> int:
    """WAIT_IO_COMPLETION when calls ended it, else 0."""
    return WAIT_IO_COMPLETION if wait(thread, (), after(milliseconds), alertable=bool(alertable)) == 0xC0 else 0


@api("BOOL SwitchToThread(void)", "kernel32", "kernelbase")
def switch_to_thread(thread: Thread) -> int:
    """Let others run."""
    thread.engine.wait(lambda: False, time.monotonic_ns())
    return 1


@api("DWORD QueueUserAPC(FARPROC function, HANDLE thread, ULONG_PTR argument)", "kernel32", "kernelbase")
def queue_user_apc(thread: Thread, function: int, handle: int, argument: int) -> int:
    """For the thread's next alertable wait."""
    target = object_of(thread, handle)
    if not isinstance(target, Thread):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    queue_apc(target, lambda self: void(self.engine.call(function, argument)))
    return 1


def void(_: object) -> None:
    """Forget a result."""


@api("NTSTATUS NtQueueApcThread(HANDLE thread, FARPROC function, LPVOID first, LPVOID second, LPVOID third)", "ntdll")
def nt_queue_apc_thread(thread: Thread, handle: int, function: int, first: int, second: int, third: int) -> int:
    """With three arguments."""
    target = object_of(thread, handle)
    if not isinstance(target, Thread):
        return ntstatus.INVALID_HANDLE
    queue_apc(target, lambda self: void(self.engine.call(function, first, second, third)))
    return 0


@api("NTSTATUS NtTestAlert(void)", "ntdll")
def nt_test_alert(thread: Thread) -> int:
    """Run the calls that are queued."""
    run_apcs(thread)
    return 0


@api("NTSTATUS NtAlertThread(HANDLE thread)", "ntdll")
def nt_alert_thread(thread: Thread, handle: int) -> int:
    """End the thread's alertable wait."""
    target = object_of(thread, handle)
    if not isinstance(target, Thread):
        return ntstatus.INVALID_HANDLE
    state.of(target, Alerts).alerted = True
    thread.engine.wake()
    return 0


@api("NTSTATUS NtWaitForSingleObject(HANDLE handle, BOOLEAN alertable, LARGE_INTEGER *timeout)", "ntdll")
def nt_wait_for_single_object(thread: Thread, handle: int, alertable: int, timeout: int) -> int:
    """The native wait."""
    found = waitable(thread, handle)
    if found is None:
        return ntstatus.INVALID_HANDLE if object_of(thread, handle) is None else ntstatus.OBJECT_TYPE_MISMATCH
    return wait(thread, (found,), native_deadline(thread, timeout), alertable=bool(alertable))


@api("NTSTATUS NtWaitForMultipleObjects(ULONG count, const HANDLE *handles, ULONG kind, BOOLEAN alertable,"
     " LARGE_INTEGER *timeout)", "ntdll")  # fmt: skip
def nt_wait_for_multiple_objects(
    thread: Thread, count: int, handles: int, kind: int, alertable: int, timeout: int
) -> int:
    """`kind` is 0 for all and 1 for any."""
    if not 1 <= count <= MAXIMUM_WAIT_OBJECTS or kind not in (0, 1):
        return ntstatus.INVALID_PARAMETER
    found = [waitable(thread, thread.memory.u64(handles + 8 * place)) for place in range(count)]
    objects = [object for object in found if object is not None]
    if len(objects) < count:
        return ntstatus.INVALID_HANDLE
    return wait(thread, objects, native_deadline(thread, timeout), every=kind == 0, alertable=bool(alertable))


@api("NTSTATUS NtDelayExecution(BOOLEAN alertable, LARGE_INTEGER *timeout)", "ntdll")
def nt_delay_execution(thread: Thread, alertable: int, timeout: int) -> int:
    """The native sleep."""
    result = wait(thread, (), native_deadline(thread, timeout), alertable=bool(alertable))
    return ntstatus.USER_APC if result == WAIT_IO_COMPLETION else 0


@api("NTSTATUS NtYieldExecution(void)", "ntdll")
def nt_yield_execution(thread: Thread) -> int:
    """Let others run."""
    switch_to_thread(thread)
    return 0
