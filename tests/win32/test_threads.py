"""Threads, their storage, fibers and thread pools."""

import struct
import time
from typing import Any

import pytest

from tests.win32.fake_engine import FakeEngine, call, new_thread, room
from virtus.personalities.win32 import errors, fibers, local_storage, process_blocks, thread_pool, threads, timer_queues
from virtus.personalities.win32.process import ProcessEnd, Thread

INFINITE, TIMEOUT, STILL_ACTIVE = 0xFFFF_FFFF, 0x102, 259
FAILED = 0xFFFF_FFFF
MODULES = (fibers, local_storage, thread_pool, threads, timer_queues)


@pytest.fixture
def thread() -> Thread:
    return new_thread()


def function(thread: Thread, body: Any) -> int:
    engine = thread.engine
    assert isinstance(engine, FakeEngine)
    return engine.function(body)


def exit_code(thread: Thread, handle: int) -> int:
    result = room(thread, 4)
    assert call(thread, "GetExitCodeThread", handle, result) == 1
    return thread.memory.u32(result)


def test_a_thread_runs_and_its_result_is_its_exit_code(thread: Thread) -> None:
    seen: list[tuple[int, int]] = []

    def body(parameter: int) -> int:
        own = thread.process.current
        seen.append((parameter, own.ident))
        assert own.memory.u64(own.teb + process_blocks.TEB_SELF) == own.teb
        call(own, "ExitThread", 7)
        raise AssertionError

    ident = room(thread, 4)
    handle = call(thread, "CreateThread", 0, 0, function(thread, body), 5, 4, ident)
    assert exit_code(thread, handle) == STILL_ACTIVE
    assert call(thread, "WaitForSingleObject", handle, 1) == TIMEOUT
    assert call(thread, "ResumeThread", handle) == 1
    assert call(thread, "WaitForSingleObject", handle, INFINITE) == 0
    assert exit_code(thread, handle) == 7
    assert seen == [(5, thread.memory.u32(ident))]
    assert call(thread, "GetThreadId", handle) == thread.memory.u32(ident)
    assert call(thread, "OpenThread", 0, 0, thread.memory.u32(ident)) == 0
    assert call(thread, "ResumeThread", handle) == 0


def test_the_last_thread_ends_the_process(thread: Thread) -> None:
    with pytest.raises(ProcessEnd) as ended:
        call(thread, "ExitThread", 3)
    assert ended.value.status == 3


def test_another_running_thread_is_not_stopped(thread: Thread) -> None:
    go = call(thread, "CreateEventW", 0, 1, 0, 0)
    wait = function(thread, lambda parameter: call(thread.process.current, "WaitForSingleObject", go, INFINITE))
    handle = call(thread, "CreateThread", 0, 0, wait, 0, 0, 0)
    assert call(thread, "SuspendThread", handle) == FAILED
    assert thread.last_error == errors.ERROR_ACCESS_DENIED
    assert call(thread, "TerminateThread", handle, 1) == 0
    call(thread, "SetEvent", go)
    assert call(thread, "WaitForSingleObject", handle, INFINITE) == 0


def test_what_is_known_of_a_thread(thread: Thread) -> None:
    current = call(thread, "GetCurrentThread")
    assert call(thread, "SetThreadPriority", current, -2) == 1
    assert call(thread, "GetThreadPriority", current) & 0xFFFF_FFFF == (-2) & 0xFFFF_FFFF
    assert call(thread, "SetThreadPriority", current, 99) == 0
    name, result = room(thread, "worker\0".encode("utf-16-le")), room(thread, 8)
    assert call(thread, "SetThreadDescription", current, name) == 0
    assert call(thread, "GetThreadDescription", current, result) == 0
    assert thread.memory.wide(thread.memory.u64(result)) == "worker"
    times = [room(thread, 8) for _ in range(4)]
    assert call(thread, "GetThreadTimes", current, *times) == 1
    assert thread.memory.u64(times[3]) > 0


def test_thread_local_storage_is_each_threads_own(thread: Thread) -> None:
    seen: list[int] = []
    indices = [call(thread, "TlsAlloc") for _ in range(70)]
    assert indices == list(range(70))
    for index in (0, 69):
        assert call(thread, "TlsSetValue", index, 1000 + index) == 1

    def body(parameter: int) -> int:
        own = thread.process.current
        seen.extend(call(own, "TlsGetValue", index) for index in (0, 69))
        call(own, "TlsSetValue", 69, 5)
        return 0

    handle = call(thread, "CreateThread", 0, 0, function(thread, body), 0, 0, 0)
    call(thread, "WaitForSingleObject", handle, INFINITE)
    assert seen == [0, 0]
    assert [call(thread, "TlsGetValue", index) for index in (0, 69)] == [1000, 1069]
    assert call(thread, "TlsFree", 0) == 1
    assert call(thread, "TlsFree", 0) == 0
    assert call(thread, "TlsAlloc") == 0
    assert call(thread, "TlsGetValue", 0) == 0
    assert call(thread, "TlsSetValue", 1088, 1) == 0


def test_fiber_local_storage_is_finished_with_its_function(thread: Thread) -> None:
    ended: list[int] = []
    callback = function(thread, lambda value: ended.append(value) or 0)  # type: ignore[func-returns-value]
    index = call(thread, "FlsAlloc", callback)

    def body(parameter: int) -> int:
        call(thread.process.current, "FlsSetValue", index, 11)
        return 0

    handle = call(thread, "CreateThread", 0, 0, function(thread, body), 0, 0, 0)
    call(thread, "WaitForSingleObject", handle, INFINITE)
    assert ended == [11]
    assert call(thread, "FlsGetValue", index) == 0
    call(thread, "FlsSetValue", index, 12)
    assert call(thread, "FlsFree", index) == 1
    assert ended == [11, 12]


def test_fibers_switch_and_keep_their_places(thread: Thread) -> None:
    seen: list[str] = []
    main = call(thread, "ConvertThreadToFiber", 0x77)
    assert thread.memory.u64(thread.memory.u64(thread.teb + fibers.TEB_FIBER_DATA)) == 0x77
    assert call(thread, "ConvertThreadToFiber", 0) == 0
    assert thread.last_error == errors.ERROR_ALREADY_FIBER
    index = call(thread, "FlsAlloc", 0)
    call(thread, "FlsSetValue", index, 1)

    def body(data: int) -> int:
        own = thread.process.current
        assert own is thread
        for turn in range(3):
            seen.append(f"{data}:{turn}:{call(own, 'FlsGetValue', index)}")
            call(own, "FlsSetValue", index, data)
            call(own, "SwitchToFiber", main)
        raise AssertionError

    made = [call(thread, "CreateFiber", 0, function(thread, body), data) for data in (5, 6)]
    for _ in range(2):
        for fiber in made:
            call(thread, "SwitchToFiber", fiber)
            seen.append(f"main:{call(thread, 'FlsGetValue', index)}")
    assert seen == ["5:0:0", "main:1", "6:0:0", "main:1", "5:1:5", "main:1", "6:1:6", "main:1"]
    for fiber in made:
        call(thread, "DeleteFiber", fiber)
    assert call(thread, "IsThreadAFiber") == 1
    assert call(thread, "ConvertFiberToThread") == 1
    assert call(thread, "IsThreadAFiber") == 0


def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_work_is_done_as_often_as_it_is_submitted(thread: Thread) -> None:
    seen: list[int] = []

    def body(instance: int, context: int, work: int) -> int:
        seen.append(context)
        return 0

    work = call(thread, "CreateThreadpoolWork", function(thread, body), 9, 0)
    for _ in range(5):
        call(thread, "SubmitThreadpoolWork", work)
    call(thread, "WaitForThreadpoolWorkCallbacks", work, 0)
    assert seen == [9] * 5
    call(thread, "CloseThreadpoolWork", work)
    call(thread, "SubmitThreadpoolWork", work)
    assert call(thread, "QueueUserWorkItem", function(thread, lambda context: seen.append(context)), 1, 0) == 1
    until(lambda: seen == [9] * 5 + [1])


def test_timers_of_the_pool(thread: Thread) -> None:
    seen: list[int] = []
    body = function(thread, lambda instance, context, timer: seen.append(context))
    timer, due = call(thread, "CreateThreadpoolTimer", body, 4, 0), room(thread, struct.pack("<q", -10_000))
    call(thread, "SetThreadpoolTimer", timer, due, 1, 0)
    until(lambda: len(seen) >= 3)
    assert call(thread, "IsThreadpoolTimerSet", timer) == 1
    call(thread, "SetThreadpoolTimer", timer, 0, 0, 0)
    call(thread, "WaitForThreadpoolTimerCallbacks", timer, 1)
    count = len(seen)
    assert call(thread, "IsThreadpoolTimerSet", timer) == 0
    call(thread, "CloseThreadpoolTimer", timer)
    handle = room(thread, 8)
    once = function(thread, lambda argument, fired: seen.append(argument))
    assert call(thread, "CreateTimerQueueTimer", handle, 0, once, 8, 1, 0, 0) == 1
    until(lambda: seen[count:] == [8])
    call(thread, "DeleteTimerQueueTimer", 0, thread.memory.u64(handle), 2**64 - 1)


def test_waits_of_the_pool(thread: Thread) -> None:
    seen: list[tuple[int, int]] = []
    event, handle = call(thread, "CreateEventW", 0, 0, 0, 0), room(thread, 8)
    body = function(thread, lambda context, timed_out: seen.append((context, timed_out)))
    assert call(thread, "RegisterWaitForSingleObject", handle, event, body, 3, INFINITE, 0) == 1
    for number in range(2):
        call(thread, "SetEvent", event)
        until(lambda wanted=number + 1: len(seen) == wanted)
    assert call(thread, "UnregisterWaitEx", thread.memory.u64(handle), 2**64 - 1) == 1
    assert call(thread, "RegisterWaitForSingleObject", handle, event, body, 4, 1, 8) == 1
    until(lambda: len(seen) == 3)
    assert seen == [(3, 0), (3, 0), (4, 1)]
