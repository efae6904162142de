"""Events, mutexes, semaphores and waitable timers: objects with handles that threads wait for."""

import time
from collections.abc import Callable
from typing import Any, Final

from virtus.personalities.win32 import errors, ntstatus, state
from virtus.personalities.win32.file_time import from_unix_ns
from virtus.personalities.win32.ntstatus import Refused
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text
from virtus.personalities.win32.waiting import (
    Alerts,
    lock,
    native_deadline,
    object_of,
    void,
)

CREATE_EVENT_MANUAL_RESET, CREATE_EVENT_INITIAL_SET, CREATE_MUTEX_INITIAL_OWNER = 1, 2, 1
CREATE_WAITABLE_TIMER_MANUAL_RESET: Final = 1
SECURITY_INHERIT_OFFSET: Final = 16
"""bInheritHandle in SECURITY_ATTRIBUTES."""


class Event:
    """An event; one that resets itself lets one wait through."""

    def __init__(self, *, manual: bool, initial: bool) -> None:
        self.manual, self.is_set = manual, initial

    def signalled(self, thread: Thread) -> bool:
        """Whether it is set."""
        return self.is_set

    def acquire(self, thread: Thread) -> None:
        """Reset it, unless that is done by hand."""
        if not self.manual:
            self.is_set = False

    def set(self) -> None:
        """Set it; whoever does so wakes the engine's waiters."""
        self.is_set = True

    def signal(self, thread: Thread) -> None:
        """The same for SignalObjectAndWait."""
        self.is_set = True


class Mutex:
    """A mutex, which a thread may take more than once; of a thread that ends it is abandoned."""

    def __init__(self) -> None:
        self.owner: Thread | None = None
        self.count = 0
        self.abandoned = False

    def signalled(self, thread: Thread) -> bool:
        """Whether this thread may take it."""
        return self.owner is None or self.owner is thread

    def acquire(self, thread: Thread) -> bool:
        """Take it; whether it had been abandoned."""
        if self.owner is None:
            self.owner = thread
            state.of(thread, Owned).mutexes.add(self)
        self.count += 1
        abandoned, self.abandoned = self.abandoned, False
        return abandoned

    def signal(self, thread: Thread) -> None:
        """Release it once; raises Refused for a thread that has it not."""
        if self.owner is not thread:
            raise Refused(ntstatus.MUTANT_NOT_OWNED)
        self.count -= 1
        if not self.count:
            self.owner = None
            state.of(thread, Owned).mutexes.discard(self)


class Owned:
    """The mutexes that a thread has."""

    def __init__(self) -> None:
        self.mutexes: set[Mutex] = set()


class Semaphore:
    """A semaphore."""

    def __init__(self, count: int, maximum: int) -> None:
        self.count, self.maximum = count, maximum

    def signalled(self, thread: Thread) -> bool:
        """Whether its count is above zero."""
        return self.count > 0

    def acquire(self, thread: Thread) -> None:
        """Count down."""
        self.count -= 1

    def release(self, count: int) -> int:
        """Count up; the count before. Raises Refused beyond the maximum."""
        if count <= 0:
            raise Refused(ntstatus.INVALID_PARAMETER)
        if self.count + count > self.maximum:
            raise Refused(ntstatus.SEMAPHORE_LIMIT_EXCEEDED)
        self.count += count
        return self.count - count

    def signal(self, thread: Thread) -> None:
        """Count up by one."""
        self.release(1)


class Timer:
    """A waitable timer: signalled from its due time on, by hand or once each period."""

    def __init__(self, *, manual: bool) -> None:
        self.manual, self.is_set = manual, False
        self.due_ns: int | None = None
        self.period_ns = 0
        self.calls: Callable[[Thread, int], None] | None = None
        self.caller: Thread | None = None

    @property
    def expired(self) -> bool:
        """Whether the due time has come."""
        return self.due_ns is not None and time.monotonic_ns() >= self.due_ns

    def expire(self, thread: Thread) -> None:
        """Take note of a due time that has come."""
        if not self.expired:
            return
        self.is_set = True
        if self.calls is not None and self.caller is not None:
            calls, moment = self.calls, from_unix_ns(time.time_ns())
            state.of(self.caller, Alerts).queue.append(lambda self: calls(self, moment))
        if self.period_ns and self.due_ns is not None:
            self.due_ns += ((time.monotonic_ns() - self.due_ns) // self.period_ns + 1) * self.period_ns
        else:
            self.cancel()

    def cancel(self) -> None:
        """It does not become due any more; what is signalled stays so."""
        self.due_ns = None
        if self.caller is not None:
            state.of(self.caller, Alerts).timers.discard(self)

    def signalled(self, thread: Thread) -> bool:
        """Whether it was due."""
        self.expire(thread)
        return self.is_set

    def acquire(self, thread: Thread) -> None:
        """Reset it, unless that is done by setting it anew."""
        if not self.manual:
            self.is_set = False


class Names:
    """Named objects of the process."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}


def abandon(thread: Thread) -> None:
    """Release what a thread that ends has taken."""
    with lock(thread.process):
        for mutex in state.of(thread, Owned).mutexes:
            mutex.owner, mutex.count, mutex.abandoned = None, 0, True
        state.of(thread, Owned).mutexes.clear()
    thread.engine.wake()


def _inheritable(thread: Thread, security: int) -> bool:
    return bool(security and thread.memory.u32(security + SECURITY_INHERIT_OFFSET))


def _create(thread: Thread, kind: type[Any], security: int, text: Text, name: int, make: Callable[[], Any]) -> int:
    """A handle of a new object, or of the one that has the name already: then the last error tells so."""
    names = state.of(thread.process, Names).objects
    known = text.read(thread.memory, name) if name else ""
    known = known.removeprefix("Local\\").removeprefix("Global\\")
    with lock(thread.process):
        found = names.get(known) if known else None
        if found is not None and not isinstance(found, kind):
            return thread.fail(errors.ERROR_INVALID_HANDLE)
        created = make() if found is None else found
        if known:
            names[known] = created
    handle: int = thread.process.handles.add(created, inheritable=_inheritable(thread, security))
    thread.last_error = errors.ERROR_SUCCESS if found is None else errors.ERROR_ALREADY_EXISTS
    return handle


def _open(thread: Thread, kind: type[Any], text: Text, inherit: int, name: int) -> int:
    known = text.read(thread.memory, name) if name else ""
    found = state.of(thread.process, Names).objects.get(known.removeprefix("Local\\").removeprefix("Global\\"))
    if found is None:
        return thread.fail(errors.ERROR_FILE_NOT_FOUND)
    if not isinstance(found, kind):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    handle: int = thread.process.handles.add(found, inheritable=bool(inherit))
    return handle


def _change(thread: Thread, handle: int, kind: type[Any], change: Callable[[Any], Any]) -> int:
    """Change an object's state, and let those who wait look."""
    found = object_of(thread, handle)
    if not isinstance(found, kind):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    try:
        with lock(thread.process):
            change(found)
    except Refused as refused:
        return thread.fail(refused.error)
    thread.engine.wake()
    return 1


NAMES_NOTE: Final = "names are the process's own"


@api("HANDLE CreateEventW(LPSECURITY_ATTRIBUTES security, BOOL manual, BOOL initial, LPCWSTR name)", "kernel32",
     "kernelbase", note=NAMES_NOTE)  # fmt: skip
def create_event_w(thread: Thread, security: int, manual: int, initial: int, name: int) -> int:
    """An event, new or of that name."""
    return _create(
        thread, Event, security, WIDE, name, lambda: Event(manual=bool(manual), initial=bool(initial))
    )  # fmt: skip


@api("HANDLE CreateEventA(LPSECURITY_ATTRIBUTES security, BOOL manual, BOOL initial, LPCSTR name)", "kernel32",
     "kernelbase", note=NAMES_NOTE)  # fmt: skip
def create_event_a(thread: Thread, security: int, manual: int, initial: int, name: int) -> int:
    """An event, new or of that name."""
    return _create(
        thread, Event, security, ANSI, name, lambda: Event(manual=bool(manual), initial=bool(initial))
    )  # fmt: skip


@api("HANDLE CreateEventExW(LPSECURITY_ATTRIBUTES security, LPCWSTR name, DWORD flags, DWORD access)", "kernel32",
     "kernelbase", note=NAMES_NOTE)  # fmt: skip
def create_event_ex_w(thread: Thread, security: int, name: int, flags: int, access: int) -> int:
    """The same with flags."""
    return create_event_w(
        thread, security, flags & CREATE_EVENT_MANUAL_RESET, flags & CREATE_EVENT_INITIAL_SET, name
    )  # fmt: skip


@api("HANDLE CreateEventExA(LPSECURITY_ATTRIBUTES security, LPCSTR name, DWORD flags, DWORD access)", "kernel32",
     "kernelbase", note=NAMES_NOTE)  # fmt: skip
def create_event_ex_a(thread: Thread, security: int, name: int, flags: int, access: int) -> int:
    """The same with flags."""
    return create_event_a(
        thread, security, flags & CREATE_EVENT_MANUAL_RESET, flags & CREATE_EVENT_INITIAL_SET, name
    )  # fmt: skip


@api("HANDLE OpenEventW(DWORD access, BOOL inherit, LPCWSTR name)", "kernel32", "kernelbase", note=NAMES_NOTE)
def open_event_w(thread: Thread, access: int, inherit: int, name: int) -> int:
    """One that is there."""
    return _open(thread, Event, WIDE, inherit, name)


@api("HANDLE OpenEventA(DWORD access, BOOL inherit, LPCSTR name)", "kernel32", "kernelbase", note=NAMES_NOTE)
def open_event_a(thread: Thread, access: int, inherit: int, name: int) -> int:
    """One that is there."""
    return _open(thread, Event, ANSI, inherit, name)


@api("BOOL SetEvent(HANDLE event)", "kernel32", "kernelbase")
def set_event(thread: Thread, event: int) -> int:
    """Let one wait through, or all."""
    return _change(thread, event, Event, lambda found: found.signal(thread))


@api("BOOL ResetEvent(HANDLE event)", "kernel32", "kernelbase")
def reset_event(thread: Thread, event: int) -> int:
    """Let none through."""
    return _change(thread, event, Event, lambda found: setattr(found, "is_set", False))


@api("BOOL PulseEvent(HANDLE event)", "kernel32", "kernelbase", note="waiters may miss it, as they may on Windows")
def pulse_event(thread: Thread, event: int) -> int:
    """Set and reset: nobody is sure to see it (Microsoft: PulseEvent, "unreliable")."""
    return set_event(thread, event) and reset_event(thread, event)


@api("HANDLE CreateMutexW(LPSECURITY_ATTRIBUTES security, BOOL owned, LPCWSTR name)", "kernel32", "kernelbase",
     note=NAMES_NOTE)  # fmt: skip
def create_mutex_w(thread: Thread, security: int, owned: int, name: int) -> int:
    """A mutex, which the caller may have at once if it is new."""
    return _create(thread, Mutex, security, WIDE, name, lambda: _mutex(thread, owned))


@api("HANDLE CreateMutexA(LPSECURITY_ATTRIBUTES security, BOOL owned, LPCSTR name)", "kernel32", "kernelbase",
     note=NAMES_NOTE)  # fmt: skip
def create_mutex_a(thread: Thread, security: int, owned: int, name: int) -> int:
    """A mutex, which the caller may have at once if it is new."""
    return _create(thread, Mutex, security, ANSI, name, lambda: _mutex(thread, owned))


@api("HANDLE CreateMutexExW(LPSECURITY_ATTRIBUTES security, LPCWSTR name, DWORD flags, DWORD access)", "kernel32",
     "kernelbase", note=NAMES_NOTE)  # fmt: skip
def create_mutex_ex_w(thread: Thread, security: int, name: int, flags: int, access: int) -> int:
    """The same with flags."""
    return create_mutex_w(thread, security, flags & CREATE_MUTEX_INITIAL_OWNER, name)


def _mutex(thread: Thread, owned: int) -> Mutex:
    mutex = Mutex()
    if owned:
        mutex.acquire(thread)
    return mutex


@api("HANDLE OpenMutexW(DWORD access, BOOL inherit, LPCWSTR name)", "kernel32", "kernelbase", note=NAMES_NOTE)
def open_mutex_w(thread: Thread, access: int, inherit: int, name: int) -> int:
    """One that is there."""
    return _open(thread, Mutex, WIDE, inherit, name)


@api("BOOL ReleaseMutex(HANDLE mutex)", "kernel32", "kernelbase")
def release_mutex(thread: Thread, mutex: int) -> int:
    """ERROR_NOT_OWNER for a thread that has it not."""
    return _change(thread, mutex, Mutex, lambda found: found.signal(thread))


def _semaphore(thread: Thread, security: int, initial: int, maximum: int, text: Text, name: int) -> int:
    if maximum <= 0 or not 0 <= initial <= maximum:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return _create(thread, Semaphore, security, text, name, lambda: Semaphore(initial, maximum))


@api("HANDLE CreateSemaphoreW(LPSECURITY_ATTRIBUTES security, LONG initial, LONG maximum, LPCWSTR name)", "kernel32",
     "kernelbase", note=NAMES_NOTE)  # fmt: skip
def create_semaphore_w(thread: Thread, security: int, initial: int, maximum: int, name: int) -> int:
    """A semaphore, new or of that name."""
    return _semaphore(thread, security, initial, maximum, WIDE, name)


@api("HANDLE CreateSemaphoreA(LPSECURITY_ATTRIBUTES security, LONG initial, LONG maximum, LPCSTR name)", "kernel32",
     "kernelbase", note=NAMES_NOTE)  # fmt: skip
def create_semaphore_a(thread: Thread, security: int, initial: int, maximum: int, name: int) -> int:
    """A semaphore, new or of that name."""
    return _semaphore(thread, security, initial, maximum, ANSI, name)


@api("HANDLE CreateSemaphoreExW(LPSECURITY_ATTRIBUTES security, LONG initial, LONG maximum, LPCWSTR name, DWORD flags,"
     " DWORD access)", "kernel32", "kernelbase", note=NAMES_NOTE)  # fmt: skip
def create_semaphore_ex_w(
    thread: Thread, security: int, initial: int, maximum: int, name: int, flags: int, access: int
) -> int:
    """The same with an access."""
    return _semaphore(thread, security, initial, maximum, WIDE, name)


@api("HANDLE OpenSemaphoreW(DWORD access, BOOL inherit, LPCWSTR name)", "kernel32", "kernelbase", note=NAMES_NOTE)
def open_semaphore_w(thread: Thread, access: int, inherit: int, name: int) -> int:
    """One that is there."""
    return _open(thread, Semaphore, WIDE, inherit, name)


@api("HANDLE OpenSemaphoreA(DWORD access, BOOL inherit, LPCSTR name)", "kernel32", "kernelbase", note=NAMES_NOTE)
def open_semaphore_a(thread: Thread, access: int, inherit: int, name: int) -> int:
    """One that is there."""
    return _open(thread, Semaphore, ANSI, inherit, name)


@api("BOOL ReleaseSemaphore(HANDLE semaphore, LONG count, LPLONG before)", "kernel32", "kernelbase")
def release_semaphore(thread: Thread, semaphore: int, count: int, before: int) -> int:
    """ERROR_TOO_MANY_POSTS beyond the maximum."""

    def release(found: Semaphore) -> None:
        count_before = found.release(count)
        if before:
            thread.memory.set_u32(before, count_before)

    return _change(thread, semaphore, Semaphore, release)


def _timer(thread: Thread, security: int, manual: int, text: Text, name: int) -> int:
    return _create(thread, Timer, security, text, name, lambda: Timer(manual=bool(manual)))


@api("HANDLE CreateWaitableTimerW(LPSECURITY_ATTRIBUTES security, BOOL manual, LPCWSTR name)", "kernel32",
     "kernelbase", note=NAMES_NOTE)  # fmt: skip
def create_waitable_timer_w(thread: Thread, security: int, manual: int, name: int) -> int:
    """A timer, new or of that name."""
    return _timer(thread, security, manual, WIDE, name)


@api("HANDLE CreateWaitableTimerA(LPSECURITY_ATTRIBUTES security, BOOL manual, LPCSTR name)", "kernel32",
     note=NAMES_NOTE)  # fmt: skip
def create_waitable_timer_a(thread: Thread, security: int, manual: int, name: int) -> int:
    """A timer, new or of that name."""
    return _timer(thread, security, manual, ANSI, name)


@api("HANDLE CreateWaitableTimerExW(LPSECURITY_ATTRIBUTES security, LPCWSTR name, DWORD flags, DWORD access)",
     "kernel32", "kernelbase", note=NAMES_NOTE)  # fmt: skip
def create_waitable_timer_ex_w(thread: Thread, security: int, name: int, flags: int, access: int) -> int:
    """The same with flags; all are of high resolution."""
    return _timer(thread, security, flags & CREATE_WAITABLE_TIMER_MANUAL_RESET, WIDE, name)


@api("HANDLE OpenWaitableTimerW(DWORD access, BOOL inherit, LPCWSTR name)", "kernel32", "kernelbase", note=NAMES_NOTE)
def open_waitable_timer_w(thread: Thread, access: int, inherit: int, name: int) -> int:
    """One that is there."""
    return _open(thread, Timer, WIDE, inherit, name)


@api("BOOL SetWaitableTimer(HANDLE timer, const LARGE_INTEGER *due, LONG period, FARPROC routine, LPVOID argument,"
     " BOOL resume)", "kernel32", "kernelbase")  # fmt: skip
def set_waitable_timer(
    thread: Thread, timer: int, due: int, period: int, routine: int, argument: int, resume: int
) -> int:
    """Due at a moment of UTC, or (negative) after a time; then each period of milliseconds."""
    moment = native_deadline(thread, due) if due else time.monotonic_ns()
    if period < 0:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)

    def calls(self: Thread, moment: int) -> None:
        void(self.engine.call(routine, argument, moment & 0xFFFF_FFFF, moment >> 32))

    def arm(found: Timer) -> None:
        found.cancel()
        found.is_set, found.due_ns, found.period_ns = False, moment, period * 1_000_000
        found.calls, found.caller = (calls, thread) if routine else (None, None)
        if routine:
            state.of(thread, Alerts).timers.add(found)

    return _change(thread, timer, Timer, arm)


@api("BOOL SetWaitableTimerEx(HANDLE timer, const LARGE_INTEGER *due, LONG period, FARPROC routine, LPVOID argument,"
     " LPVOID context, ULONG delay)", "kernel32", "kernelbase")  # fmt: skip
def set_waitable_timer_ex(
    thread: Thread, timer: int, due: int, period: int, routine: int, argument: int, context: int, delay: int
) -> int:
    """The same; the tolerable delay is not used."""
    return set_waitable_timer(thread, timer, due, period, routine, argument, 0)


@api("BOOL CancelWaitableTimer(HANDLE timer)", "kernel32", "kernelbase")
def cancel_waitable_timer(thread: Thread, timer: int) -> int:
    """It does not become due any more."""
    return _change(thread, timer, Timer, lambda found: found.cancel())


@api("NTSTATUS NtSetEvent(HANDLE event, LPLONG before)", "ntdll")
def nt_set_event(thread: Thread, event: int, before: int) -> int:
    """The native one, with the state before."""
    found = object_of(thread, event)
    if not isinstance(found, Event):
        return ntstatus.INVALID_HANDLE if found is None else ntstatus.OBJECT_TYPE_MISMATCH
    if before:
        thread.memory.set_u32(before, found.is_set)
    set_event(thread, event)
    return 0


@api("NTSTATUS NtCreateEvent(HANDLE *result, ACCESS_MASK access, LPVOID attributes, int kind, BOOLEAN initial)",
     "ntdll", note="without a name")  # fmt: skip
def nt_create_event(thread: Thread, result: int, access: int, attributes: int, kind: int, initial: int) -> int:
    """`kind` 0 is reset by hand, 1 by the wait."""
    event = Event(manual=kind == 0, initial=bool(initial))
    thread.memory.set_u64(result, thread.process.handles.add(event))
    return 0


def new_event(process: Process, *, manual: bool, initial: bool) -> int:
    """A handle of an event, for functions that give one."""
    handle: int = process.handles.add(Event(manual=manual, initial=initial))
    return handle
