"""Objects to wait for and locks, with threads of the host as guest threads."""

import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.win32.fake_engine import FakeEngine, call, new_thread, room, wide
from virtus.personalities.win32 import barriers, errors, keyed_events, locks, once, state, synchronisation, waiting
from virtus.personalities.win32.process import Thread

INFINITE, TIMEOUT, IO_COMPLETION, ABANDONED = 0xFFFF_FFFF, 0x102, 0xC0, 0x80
MODULES = (barriers, keyed_events, locks, once, synchronisation, waiting)
TEB = 0x2000


@pytest.fixture
def thread() -> Thread:
    return new_thread()


def beside(thread: Thread, body: Callable[[Thread], object], ident: int = 1012) -> threading.Thread:
    """Run something as another guest thread."""
    engine = thread.engine
    assert isinstance(engine, FakeEngine)
    other = Thread(thread.process, engine.memory.map(0, TEB, 3), ident)

    def run() -> None:
        engine.current.thread = other
        body(other)

    host = threading.Thread(target=run, daemon=True)
    host.start()
    return host


def noted(seen: list[Any], what: object) -> int:
    seen.append(what)
    return 0


def join(*hosts: threading.Thread) -> None:
    for host in hosts:
        host.join(20)
        assert not host.is_alive()


def wait(thread: Thread, handle: int, milliseconds: int = 0, *, alertable: bool = False) -> int:
    return int(call(thread, "WaitForSingleObjectEx", handle, milliseconds, alertable))


def test_events(thread: Thread) -> None:
    automatic, manual = call(thread, "CreateEventW", 0, 0, 1, 0), call(thread, "CreateEventW", 0, 1, 1, 0)
    assert [wait(thread, automatic), wait(thread, automatic)] == [0, TIMEOUT]
    assert [wait(thread, manual), wait(thread, manual)] == [0, 0]
    assert call(thread, "ResetEvent", manual)
    assert wait(thread, manual) == TIMEOUT
    assert wait(thread, 0xBAD0) == INFINITE
    assert thread.last_error == errors.ERROR_INVALID_HANDLE
    host = beside(thread, lambda other: wait(other, automatic, INFINITE))
    assert call(thread, "SetEvent", automatic)
    join(host)


def test_a_mutex_is_its_threads_and_may_be_abandoned(thread: Thread) -> None:
    mutex = call(thread, "CreateMutexW", 0, 1, 0)
    assert wait(thread, mutex) == 0
    seen: list[object] = []

    def other(self: Thread) -> None:
        seen.append(wait(self, mutex))
        seen.append((call(self, "ReleaseMutex", mutex), self.last_error))
        seen.append(wait(self, mutex, INFINITE))
        synchronisation.abandon(self)

    host = beside(thread, other)
    while len(seen) < 2:
        time.sleep(0.001)
    assert call(thread, "ReleaseMutex", mutex)
    assert call(thread, "ReleaseMutex", mutex)
    join(host)
    assert seen == [TIMEOUT, (0, errors.ERROR_NOT_OWNER), 0]
    assert wait(thread, mutex) == ABANDONED
    assert call(thread, "ReleaseMutex", mutex)
    assert wait(thread, mutex) == 0


def test_semaphores(thread: Thread) -> None:
    semaphore, before = call(thread, "CreateSemaphoreW", 0, 1, 2, 0), room(thread, 4)
    assert [wait(thread, semaphore), wait(thread, semaphore)] == [0, TIMEOUT]
    assert call(thread, "ReleaseSemaphore", semaphore, 2, before)
    assert thread.memory.u32(before) == 0
    assert not call(thread, "ReleaseSemaphore", semaphore, 1, 0)
    assert thread.last_error == errors.ERROR_TOO_MANY_POSTS
    assert not call(thread, "CreateSemaphoreW", 0, 3, 2, 0)
    assert thread.last_error == errors.ERROR_INVALID_PARAMETER


def test_names(thread: Thread) -> None:
    name, other = wide(thread, "Local\\one"), wide(thread, "two")
    first = call(thread, "CreateEventW", 0, 1, 0, name)
    assert thread.last_error == 0
    second = call(thread, "CreateEventW", 0, 1, 0, name)
    assert (thread.last_error, second != first) == (errors.ERROR_ALREADY_EXISTS, True)
    assert call(thread, "SetEvent", first)
    assert wait(thread, second) == 0
    assert call(thread, "CreateMutexW", 0, 0, name) == 0
    assert thread.last_error == errors.ERROR_INVALID_HANDLE
    assert call(thread, "OpenEventW", 0, 0, other) == 0
    assert thread.last_error == errors.ERROR_FILE_NOT_FOUND


def test_waiting_for_many(thread: Thread) -> None:
    handles = [call(thread, "CreateEventW", 0, 0, 0, 0) for _ in range(3)]
    array = room(thread, struct.pack("<3Q", *handles))
    call(thread, "SetEvent", handles[1])
    assert call(thread, "WaitForMultipleObjects", 3, array, 1, 0) == TIMEOUT
    assert call(thread, "WaitForMultipleObjects", 3, array, 0, 0) == 1
    for handle in handles:
        call(thread, "SetEvent", handle)
    assert call(thread, "WaitForMultipleObjects", 3, array, 1, INFINITE) == 0
    assert call(thread, "WaitForMultipleObjects", 3, array, 0, 0) == TIMEOUT
    assert call(thread, "WaitForMultipleObjects", 65, array, 0, 0) == INFINITE
    assert call(thread, "WaitForMultipleObjects", 0, array, 0, 0) == INFINITE


def test_calls_are_run_in_alertable_waits_only(thread: Thread) -> None:
    seen: list[int] = []
    engine = thread.engine
    assert isinstance(engine, FakeEngine)
    function = engine.function(lambda argument: noted(seen, argument))
    assert call(thread, "QueueUserAPC", function, 2**64 - 2, 7)
    assert call(thread, "SleepEx", 0, 0) == 0
    assert seen == []
    assert call(thread, "SleepEx", INFINITE, 1) == IO_COMPLETION
    assert seen == [7]
    assert call(thread, "SleepEx", 0, 1) == 0


def test_a_timer_is_due_and_calls(thread: Thread) -> None:
    seen: list[tuple[int, ...]] = []
    engine = thread.engine
    assert isinstance(engine, FakeEngine)
    function = engine.function(lambda *arguments: noted(seen, arguments))
    timer, due = call(thread, "CreateWaitableTimerW", 0, 0, 0), room(thread, struct.pack("<q", -10_000))
    assert call(thread, "SetWaitableTimer", timer, due, 0, 0, 0, 0)
    assert wait(thread, timer, INFINITE) == 0
    assert wait(thread, timer) == TIMEOUT
    assert call(thread, "SetWaitableTimer", timer, due, 1, function, 5, 0)
    assert call(thread, "SleepEx", INFINITE, 1) == IO_COMPLETION
    assert call(thread, "SleepEx", INFINITE, 1) == IO_COMPLETION
    assert [arguments[0] for arguments in seen[:2]] == [5, 5]
    assert call(thread, "CancelWaitableTimer", timer)
    assert call(thread, "SleepEx", 3, 1) == 0


@pytest.mark.parametrize("kind", ["section", "srw"])
def test_locks_exclude(thread: Thread, kind: str) -> None:
    word, counter = room(thread, 40), [0]
    if kind == "section":
        call(thread, "InitializeCriticalSection", word)
    enter, leave = (
        ("EnterCriticalSection", "LeaveCriticalSection")
        if kind == "section"
        else ("AcquireSRWLockExclusive", "ReleaseSRWLockExclusive")
    )

    def count(self: Thread) -> None:
        for turn in range(40):
            call(self, enter, word)
            before = counter[0]
            if turn % 8 == 0:
                time.sleep(0)
            counter[0] = before + 1
            call(self, leave, word)

    join(*(beside(thread, count, 16 + 4 * number) for number in range(4)))
    assert counter == [160]
    assert thread.memory.read(word + 8, 4) == (b"\xff" * 4 if kind == "section" else bytes(4))
    assert kind == "section" or thread.memory.u64(word) == 0


def test_a_critical_section_recurses_and_is_tried(thread: Thread) -> None:
    section, seen = room(thread, 40), list[int]()
    call(thread, "InitializeCriticalSectionEx", section, 4000, 0)
    assert thread.memory.u64(section) != 0
    call(thread, "EnterCriticalSection", section)
    assert call(thread, "TryEnterCriticalSection", section)
    join(beside(thread, lambda other: seen.append(call(other, "TryEnterCriticalSection", section))))
    call(thread, "LeaveCriticalSection", section)
    join(beside(thread, lambda other: seen.append(call(other, "TryEnterCriticalSection", section))))
    call(thread, "LeaveCriticalSection", section)
    join(beside(thread, lambda other: seen.append(call(other, "TryEnterCriticalSection", section))))
    assert seen == [0, 0, 1]


def test_srw_locks_are_shared(thread: Thread) -> None:
    lock = room(thread, 8)
    call(thread, "AcquireSRWLockShared", lock)
    call(thread, "AcquireSRWLockShared", lock)
    assert not call(thread, "TryAcquireSRWLockExclusive", lock)
    host = beside(thread, lambda other: call(other, "AcquireSRWLockExclusive", lock))
    while not thread.memory.u64(lock) & locks.SRW_WAITED:
        time.sleep(0.001)
    call(thread, "ReleaseSRWLockShared", lock)
    assert host.is_alive()
    call(thread, "ReleaseSRWLockShared", lock)
    join(host)
    assert not call(thread, "TryAcquireSRWLockShared", lock)
    call(thread, "ReleaseSRWLockExclusive", lock)
    assert call(thread, "TryAcquireSRWLockShared", lock)


@pytest.mark.parametrize("kind", ["section", "srw"])
def test_a_queue_with_condition_variables(thread: Thread, kind: str) -> None:
    lock, variable, queue, got = room(thread, 40), room(thread, 8), list[int](), list[int]()
    call(thread, "InitializeCriticalSection", lock) if kind == "section" else None
    enter, leave = (
        ("EnterCriticalSection", "LeaveCriticalSection")
        if kind == "section"
        else ("AcquireSRWLockExclusive", "ReleaseSRWLockExclusive")
    )

    def take(self: Thread) -> None:
        while True:
            call(self, enter, lock)
            while not queue:
                if kind == "section":
                    call(self, "SleepConditionVariableCS", variable, lock, INFINITE)
                else:
                    call(self, "SleepConditionVariableSRW", variable, lock, INFINITE, 0)
            item = queue.pop(0)
            got.append(item)
            call(self, leave, lock)
            if item < 0:
                return

    hosts = [beside(thread, take, 20 + 4 * number) for number in range(3)]
    for item in [*range(30), -1, -1, -1]:
        call(thread, enter, lock)
        queue.append(item)
        call(thread, leave, lock)
        call(thread, "WakeConditionVariable", variable)
    join(*hosts)
    assert sorted(got) == [-1, -1, -1, *range(30)]
    call(thread, enter, lock)
    if kind == "section":
        assert not call(thread, "SleepConditionVariableCS", variable, lock, 1)
    else:
        assert not call(thread, "SleepConditionVariableSRW", variable, lock, 1, 0)
    assert thread.last_error == errors.ERROR_TIMEOUT
    assert thread.memory.u64(variable) == 0


def test_waiting_on_an_address(thread: Thread) -> None:
    word, zero = room(thread, struct.pack("<I", 0)), room(thread, 8)
    host = beside(thread, lambda other: call(other, "WaitOnAddress", word, zero, 4, INFINITE))
    while not state.of(thread.process, locks.Addresses).by_address:
        time.sleep(0.001)
    thread.memory.set_u32(word, 1)
    call(thread, "WakeByAddressSingle", word)
    join(host)
    assert call(thread, "WaitOnAddress", word, zero, 4, INFINITE) == 1
    assert call(thread, "WaitOnAddress", zero, zero, 8, 1) == 0
    assert thread.last_error == errors.ERROR_TIMEOUT
    assert call(thread, "WaitOnAddress", zero, zero, 3, 1) == 0


def test_something_is_initialised_once(thread: Thread) -> None:
    once, ran = room(thread, 8), list[int]()
    engine = thread.engine
    assert isinstance(engine, FakeEngine)

    def initialise(address: int, parameter: int, context: int) -> int:
        ran.append(parameter)
        time.sleep(0.005)
        thread.memory.set_u64(context, 0x40)
        return int(len(ran) > 1)

    function, given = engine.function(initialise), room(thread, 8)
    assert call(thread, "InitOnceExecuteOnce", once, function, 9, given) == 0

    def run(self: Thread) -> None:
        context = room(self, 8)
        assert call(self, "InitOnceExecuteOnce", once, function, 9, context) == 1
        ran.append(self.memory.u64(context))

    join(*(beside(thread, run, 32 + 4 * number) for number in range(3)))
    assert ran == [9, 9, 0x40, 0x40, 0x40]


def test_a_barrier_lets_all_through_together(thread: Thread) -> None:
    barrier, last = room(thread, 32), list[int]()
    assert call(thread, "InitializeSynchronizationBarrier", barrier, 3, 0)

    def come(self: Thread) -> None:
        last.append(sum(call(self, "EnterSynchronizationBarrier", barrier, 0) for _ in range(5)))

    join(*(beside(thread, come, 40 + 4 * number) for number in range(3)))
    assert sum(last) == 5


def test_keyed_events_pair(thread: Thread) -> None:
    key = room(thread, 8)
    host = beside(thread, lambda other: call(other, "NtWaitForKeyedEvent", 0, key, 0, 0))
    assert call(thread, "NtReleaseKeyedEvent", 0, key, 0, 0) == 0
    join(host)
    soon = room(thread, struct.pack("<q", -1000))
    assert call(thread, "NtReleaseKeyedEvent", 0, key, 0, soon) == TIMEOUT
    assert call(thread, "NtWaitForKeyedEvent", 0, key, 0, soon) == TIMEOUT


def test_interlocked_lists(thread: Thread) -> None:
    head, entries = room(thread, 16), [room(thread, 16) for _ in range(3)]
    call(thread, "InitializeSListHead", head)
    assert [call(thread, "InterlockedPushEntrySList", head, entry) for entry in entries] == [0, *entries[:2]]
    assert call(thread, "QueryDepthSList", head) == 3
    assert call(thread, "InterlockedPopEntrySList", head) == entries[2]
    assert call(thread, "InterlockedFlushSList", head) == entries[1]
    assert thread.memory.u64(entries[1]) == entries[0]
    assert call(thread, "InterlockedPopEntrySList", head) == 0
