"""Locks in the guest's own memory: critical sections, SRW locks, condition variables, InitOnce, WaitOnAddress.

The uncontended cases may be machine code, which works on the same words with the same rules:

    critical section   LockCount is -1 when free, 0 when taken, 1 when taken and somebody waits.
                       Enter: OwningThread is mine → RecursionCount + 1; else compare-exchange -1 → 0, owner, count 1.
                       Leave: RecursionCount - 1; at 0 owner 0, compare-exchange 0 → -1; anything else comes here.
    SRW lock           0 free, 1 taken, 16 for each thread that shares it; plus 2 when somebody waits.
                       Compare-exchange 0 → 1 and 1 → 0; n → n + 16 and back while neither 1 nor 2 is in n.
    condition variable the number of threads that wait: to wake at 0 is nothing.

Who waits is known here, and looks again whenever something has been released.
"""

from typing import Final

from virtus.personalities.win32 import errors, heaps, state
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.waiting import after, lock

# RTL_CRITICAL_SECTION (winnt.h)
DEBUG_INFO, LOCK_COUNT, RECURSION, OWNER, LOCK_SEMAPHORE, SPIN_COUNT = 0, 8, 12, 16, 24, 32
CRITICAL_SECTION_SIZE: Final = 40
DEBUG_SIZE: Final = 48
FREE, TAKEN, CONTENDED = 0xFFFF_FFFF, 0, 1

SRW_TAKEN, SRW_WAITED, SRW_SHARED = 1, 2, 16
CONDITION_VARIABLE_LOCKMODE_SHARED: Final = 1


class _Debug:
    """RTL_CRITICAL_SECTION_DEBUG, one for all sections of a process; some programs write into it."""

    def __init__(self) -> None:
        self.address = 0


def _debug(process: Process) -> int:
    found = state.of(process, _Debug)
    if not found.address:
        found.address = heaps.allocate(process, bytes(DEBUG_SIZE))
    return found.address


def _initialise(thread: Thread, section: int, spin: int) -> None:
    fields = (
        _debug(thread.process).to_bytes(8, "little")
        + b"\xff" * 4
        + bytes(20)
        + (spin & 0xFF_FFFF).to_bytes(8, "little")
    )
    thread.memory.write(section, fields)


@api("void InitializeCriticalSection(LPCRITICAL_SECTION section)", "kernel32", "kernelbase")
def initialize_critical_section(thread: Thread, section: int) -> None:
    """Free."""
    _initialise(thread, section, 0)


@api("BOOL InitializeCriticalSectionAndSpinCount(LPCRITICAL_SECTION section, DWORD spin)", "kernel32", "kernelbase")
def initialize_critical_section_and_spin_count(thread: Thread, section: int, spin: int) -> int:
    """Free; nobody spins."""
    _initialise(thread, section, spin)
    return 1


@api("BOOL InitializeCriticalSectionEx(LPCRITICAL_SECTION section, DWORD spin, DWORD flags)", "kernel32",
     "kernelbase")  # fmt: skip
def initialize_critical_section_ex(thread: Thread, section: int, spin: int, flags: int) -> int:
    """Free."""
    _initialise(thread, section, spin)
    return 1


@api("DWORD SetCriticalSectionSpinCount(LPCRITICAL_SECTION section, DWORD spin)", "kernel32", "kernelbase")
def set_critical_section_spin_count(thread: Thread, section: int, spin: int) -> int:
    """The count before."""
    before = thread.memory.u64(section + SPIN_COUNT)
    thread.memory.set_u64(section + SPIN_COUNT, spin)
    return before


@api("void DeleteCriticalSection(LPCRITICAL_SECTION section)", "kernel32", "kernelbase")
def delete_critical_section(thread: Thread, section: int) -> None:
    """All zero, as far as programs look."""
    thread.memory.write(section, bytes(8) + b"\xff" * 4 + bytes(28))


def _own(thread: Thread, section: int) -> None:
    thread.memory.set_u32(section + RECURSION, 1)
    thread.memory.set_u64(section + OWNER, thread.ident)


@api("BOOL TryEnterCriticalSection(LPCRITICAL_SECTION section)", "kernel32", "kernelbase")
def try_enter_critical_section(thread: Thread, section: int) -> int:
    """Take it if that needs no wait."""
    memory = thread.memory
    if memory.compare_exchange(section + LOCK_COUNT, 4, FREE, TAKEN) == FREE:
        _own(thread, section)
        return 1
    if memory.u64(section + OWNER) == thread.ident:
        memory.set_u32(section + RECURSION, memory.u32(section + RECURSION) + 1)
        return 1
    return 0


@api("void EnterCriticalSection(LPCRITICAL_SECTION section)", "kernel32", "kernelbase")
def enter_critical_section(thread: Thread, section: int) -> None:
    """Take it, once more if it is the caller's already."""
    if try_enter_critical_section(thread, section):
        return
    memory, place = thread.memory, section + LOCK_COUNT

    def take() -> bool:
        while True:
            before = memory.u32(place)
            if before == FREE:
                if memory.compare_exchange(place, 4, FREE, CONTENDED) == FREE:
                    return True
            elif before == CONTENDED or memory.compare_exchange(place, 4, before, CONTENDED) == before:
                return False

    thread.engine.wait(take, None)
    _own(thread, section)


@api("void LeaveCriticalSection(LPCRITICAL_SECTION section)", "kernel32", "kernelbase")
def leave_critical_section(thread: Thread, section: int) -> None:
    """Give it back once."""
    memory = thread.memory
    count = memory.u32(section + RECURSION) - 1
    memory.set_u32(section + RECURSION, count)
    if count > 0:
        return
    memory.set_u64(section + OWNER, 0)
    if memory.compare_exchange(section + LOCK_COUNT, 4, TAKEN, FREE) != TAKEN:
        memory.set_u32(section + LOCK_COUNT, FREE)
        thread.engine.wake()


@api("NTSTATUS RtlInitializeCriticalSection(LPCRITICAL_SECTION section)", "ntdll")
def rtl_initialize_critical_section(thread: Thread, section: int) -> int:
    """What InitializeCriticalSection calls."""
    _initialise(thread, section, 0)
    return 0


@api("NTSTATUS RtlEnterCriticalSection(LPCRITICAL_SECTION section)", "ntdll")
def rtl_enter_critical_section(thread: Thread, section: int) -> int:
    """What EnterCriticalSection forwards to."""
    enter_critical_section(thread, section)
    return 0


@api("BOOL RtlTryEnterCriticalSection(LPCRITICAL_SECTION section)", "ntdll")
def rtl_try_enter_critical_section(thread: Thread, section: int) -> int:
    """What TryEnterCriticalSection forwards to."""
    return try_enter_critical_section(thread, section)


@api("NTSTATUS RtlLeaveCriticalSection(LPCRITICAL_SECTION section)", "ntdll")
def rtl_leave_critical_section(thread: Thread, section: int) -> int:
    """What LeaveCriticalSection forwards to."""
    leave_critical_section(thread, section)
    return 0


@api("NTSTATUS RtlDeleteCriticalSection(LPCRITICAL_SECTION section)", "ntdll")
def rtl_delete_critical_section(thread: Thread, section: int) -> int:
    """What DeleteCriticalSection forwards to."""
    delete_critical_section(thread, section)
    return 0


@api("void InitializeSRWLock(LPVOID lock)", "kernel32", "kernelbase")
def initialize_srw_lock(thread: Thread, lock: int) -> None:
    """Free."""
    thread.memory.set_u64(lock, 0)


def _try_srw(thread: Thread, lock: int, *, shared: bool) -> bool:
    memory = thread.memory
    while True:
        before = memory.u64(lock)
        if before & SRW_TAKEN or (before & ~SRW_WAITED and not shared):
            return False
        after = before + SRW_SHARED if shared else before | SRW_TAKEN
        if memory.compare_exchange(lock, 8, before, after) == before:
            return True


def _take_srw(thread: Thread, lock: int, *, shared: bool) -> None:
    if _try_srw(thread, lock, shared=shared):
        return
    memory = thread.memory

    def take() -> bool:
        while not _try_srw(thread, lock, shared=shared):
            before = memory.u64(lock)
            busy = before & SRW_TAKEN or (before & ~SRW_WAITED and not shared)
            if busy and (
                before & SRW_WAITED or memory.compare_exchange(lock, 8, before, before | SRW_WAITED) == before
            ):
                return False
        return True

    thread.engine.wait(take, None)


def _release_srw(thread: Thread, lock: int, amount: int) -> None:
    memory = thread.memory
    while True:
        before = memory.u64(lock)
        left = (before & ~SRW_WAITED) - amount
        if left < 0:
            return  # not taken: what Windows raises STATUS_RESOURCE_NOT_OWNED for
        after = left | before & SRW_WAITED if left else 0
        if memory.compare_exchange(lock, 8, before, after) == before:
            break
    if before & SRW_WAITED:
        thread.engine.wake()


@api("void AcquireSRWLockExclusive(LPVOID lock)", "kernel32", "kernelbase")
def acquire_srw_lock_exclusive(thread: Thread, lock: int) -> None:
    """Take it alone."""
    _take_srw(thread, lock, shared=False)


@api("void AcquireSRWLockShared(LPVOID lock)", "kernel32", "kernelbase")
def acquire_srw_lock_shared(thread: Thread, lock: int) -> None:
    """Take it with others."""
    _take_srw(thread, lock, shared=True)


@api("BOOLEAN TryAcquireSRWLockExclusive(LPVOID lock)", "kernel32", "kernelbase")
def try_acquire_srw_lock_exclusive(thread: Thread, lock: int) -> int:
    """Take it alone if that needs no wait."""
    return _try_srw(thread, lock, shared=False)


@api("BOOLEAN TryAcquireSRWLockShared(LPVOID lock)", "kernel32", "kernelbase")
def try_acquire_srw_lock_shared(thread: Thread, lock: int) -> int:
    """Take it with others if that needs no wait."""
    return _try_srw(thread, lock, shared=True)


@api("void ReleaseSRWLockExclusive(LPVOID lock)", "kernel32", "kernelbase")
def release_srw_lock_exclusive(thread: Thread, lock: int) -> None:
    """Give it back."""
    _release_srw(thread, lock, SRW_TAKEN)


@api("void ReleaseSRWLockShared(LPVOID lock)", "kernel32", "kernelbase")
def release_srw_lock_shared(thread: Thread, lock: int) -> None:
    """Give it back."""
    _release_srw(thread, lock, SRW_SHARED)


class Sleepers:
    """Who waits at an address: tokens, of which those that are woken are taken out."""

    def __init__(self) -> None:
        self.by_address: dict[int, list[object]] = {}

    def add(self, address: int) -> object:
        """A new token at the end of the queue."""
        token = object()
        self.by_address.setdefault(address, []).append(token)
        return token

    def waits(self, address: int, token: object) -> bool:
        """Whether nobody has woken it."""
        return token in self.by_address.get(address, ())

    def wake(self, address: int, *, every: bool) -> int:
        """Wake the first or all; how many still wait there."""
        queue = self.by_address.get(address, [])
        del queue[: len(queue) if every else 1]
        if not queue:
            self.by_address.pop(address, None)
        return len(queue)

    def remove(self, address: int, token: object) -> int:
        """Give up; how many still wait there."""
        queue = self.by_address.get(address, [])
        queue.remove(token)
        if not queue:
            self.by_address.pop(address, None)
        return len(queue)


class Conditions(Sleepers):
    """Those at condition variables."""


class Addresses(Sleepers):
    """Those of WaitOnAddress."""


@api("void InitializeConditionVariable(LPVOID variable)", "kernel32", "kernelbase")
def initialize_condition_variable(thread: Thread, variable: int) -> None:
    """Nobody waits."""
    thread.memory.set_u64(variable, 0)


def _wake(thread: Thread, variable: int, *, every: bool) -> None:
    if not thread.memory.u64(variable):
        return
    with lock(thread.process):
        left = state.of(thread.process, Conditions).wake(variable, every=every)
        thread.memory.set_u64(variable, left)
    thread.engine.wake()


@api("void WakeConditionVariable(LPVOID variable)", "kernel32", "kernelbase")
def wake_condition_variable(thread: Thread, variable: int) -> None:
    """The first that waits."""
    _wake(thread, variable, every=False)


@api("void WakeAllConditionVariable(LPVOID variable)", "kernel32", "kernelbase")
def wake_all_condition_variable(thread: Thread, variable: int) -> None:
    """All that wait."""
    _wake(thread, variable, every=True)


def _join(thread: Thread, variable: int) -> object:
    """Wait at a condition variable from now on."""
    with lock(thread.process):
        sleepers = state.of(thread.process, Conditions)
        token = sleepers.add(variable)
        thread.memory.set_u64(variable, len(sleepers.by_address[variable]))
    return token


def _sleep(thread: Thread, variable: int, token: object, milliseconds: int) -> bool:
    """Until woken; False after the time."""
    sleepers, guard = state.of(thread.process, Conditions), lock(thread.process)

    def woken() -> bool:
        with guard:
            return not sleepers.waits(variable, token)

    if thread.engine.wait(woken, after(milliseconds)):
        return True
    with guard:
        if not sleepers.waits(variable, token):
            return True
        thread.memory.set_u64(variable, sleepers.remove(variable, token))
    return False


@api("BOOL SleepConditionVariableCS(LPVOID variable, LPCRITICAL_SECTION section, DWORD milliseconds)", "kernel32",
     "kernelbase")  # fmt: skip
def sleep_condition_variable_cs(thread: Thread, variable: int, section: int, milliseconds: int) -> int:
    """Leave the section while waiting; ERROR_TIMEOUT."""
    token = _join(thread, variable)
    leave_critical_section(thread, section)
    woken = _sleep(thread, variable, token, milliseconds)
    enter_critical_section(thread, section)
    return 1 if woken else thread.fail(errors.ERROR_TIMEOUT)


@api("BOOL SleepConditionVariableSRW(LPVOID variable, LPVOID lock, DWORD milliseconds, ULONG flags)", "kernel32",
     "kernelbase")  # fmt: skip
def sleep_condition_variable_srw(thread: Thread, variable: int, lock: int, milliseconds: int, flags: int) -> int:
    """Release the lock while waiting; ERROR_TIMEOUT."""
    shared = bool(flags & CONDITION_VARIABLE_LOCKMODE_SHARED)
    token = _join(thread, variable)
    _release_srw(thread, lock, SRW_SHARED if shared else SRW_TAKEN)
    woken = _sleep(thread, variable, token, milliseconds)
    _take_srw(thread, lock, shared=shared)
    return 1 if woken else thread.fail(errors.ERROR_TIMEOUT)


SYNCH_DLLS: Final = ("api-ms-win-core-synch-l1-2-0", "kernelbase")


def sleep_on(thread: Thread, address: int, compare: int, size: int, deadline_ns: int | None) -> bool:
    """While the value is what it is compared with, until woken; False after the deadline."""
    sleepers, guard = state.of(thread.process, Addresses), lock(thread.process)
    with guard:
        expected = thread.memory.read(compare, size)
        if thread.memory.read(address, size) != expected:
            return True
        token = sleepers.add(address)

    def woken() -> bool:  # whoever wakes may be machine code, which knows no sleepers
        with guard:
            if sleepers.waits(address, token) and thread.memory.read(address, size) != expected:
                sleepers.remove(address, token)
            return not sleepers.waits(address, token)

    if thread.engine.wait(woken, deadline_ns):
        return True
    with guard:
        if not sleepers.waits(address, token):
            return True
        sleepers.remove(address, token)
    return False


@api("BOOL WaitOnAddress(LPVOID address, LPVOID compare, SIZE_T size, DWORD milliseconds)", *SYNCH_DLLS)
def wait_on_address(thread: Thread, address: int, compare: int, size: int, milliseconds: int) -> int:
    """While the value is what it is compared with, until woken; ERROR_TIMEOUT."""
    if size not in (1, 2, 4, 8):
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    woken = sleep_on(thread, address, compare, size, after(milliseconds))
    return 1 if woken else thread.fail(errors.ERROR_TIMEOUT)


def _wake_address(thread: Thread, address: int, *, every: bool) -> None:
    sleepers = state.of(thread.process, Addresses)
    with lock(thread.process):
        if address not in sleepers.by_address:
            return
        sleepers.wake(address, every=every)
    thread.engine.wake()


@api("void WakeByAddressSingle(LPVOID address)", *SYNCH_DLLS)
def wake_by_address_single(thread: Thread, address: int) -> None:
    """The first that waits."""
    _wake_address(thread, address, every=False)


@api("void WakeByAddressAll(LPVOID address)", *SYNCH_DLLS)
def wake_by_address_all(thread: Thread, address: int) -> None:
    """All that wait."""
    _wake_address(thread, address, every=True)
