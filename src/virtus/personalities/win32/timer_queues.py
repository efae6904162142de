"""The older functions of thread pools: registered waits and timer queues."""

import time
from typing import Final

from virtus.personalities.win32 import errors
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.synchronisation import Event
from virtus.personalities.win32.table import api
from virtus.personalities.win32.thread_pool import Item, arm, call_back, cancel_calls, close_item, item_of, pool_of
from virtus.personalities.win32.waiting import (
    INFINITE,
    WAIT_TIMEOUT,
    object_of,
    waitable,
)

WT_EXECUTEONLYONCE: Final = 8
INVALID_HANDLE: Final = (1 << 64) - 1


@api("BOOL RegisterWaitForSingleObject(HANDLE *result, HANDLE object, FARPROC callback, LPVOID context,"
     " ULONG milliseconds, ULONG flags)", "kernel32", "kernelbase")  # fmt: skip
def register_wait_for_single_object(
    thread: Thread, result: int, object: int, callback: int, context: int, milliseconds: int, flags: int
) -> int:
    """Called whenever the object is signalled or the time is over, or once."""
    found = waitable(thread, object)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    item = Item(lambda self, outcome: call_back(self, callback, context, int(outcome == WAIT_TIMEOUT)))
    item.object, item.once = found, bool(flags & WT_EXECUTEONLYONCE)
    if milliseconds != INFINITE:
        item.due_ns = time.monotonic_ns() + milliseconds * 1_000_000
        item.period_ns = 0 if item.once else milliseconds * 1_000_000
    thread.memory.set_u64(result, pool_of(thread.process).handle(thread.process, item))
    arm(thread.process, item)
    return 1


def _unregister(thread: Thread, handle: int, event: int) -> int:
    """Stop something; INVALID_HANDLE_VALUE waits for calls that run, an event is set when none does."""
    item = item_of(thread, handle)
    if item is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    close_item(thread, handle)
    cancel_calls(thread.process, item)
    if event == INVALID_HANDLE:
        thread.engine.wait(lambda: item.idle, None)
        return 1
    if event:
        found = object_of(thread, event)
        if isinstance(found, Event) and item.idle:
            found.signal(thread)
            thread.engine.wake()
    return 1 if item.idle else thread.fail(errors.ERROR_IO_PENDING)


@api("BOOL UnregisterWait(HANDLE wait)", "kernel32")
def unregister_wait(thread: Thread, wait: int) -> int:
    """ERROR_IO_PENDING while a call runs."""
    return _unregister(thread, wait, 0)


@api("BOOL UnregisterWaitEx(HANDLE wait, HANDLE event)", "kernel32", "kernelbase")
def unregister_wait_ex(thread: Thread, wait: int, event: int) -> int:
    """INVALID_HANDLE_VALUE waits for a call that runs."""
    return _unregister(thread, wait, event)


@api("HANDLE CreateTimerQueue(void)", "kernel32", "kernelbase")
def create_timer_queue(thread: Thread) -> int:
    """A number; all timers are the process's."""
    return pool_of(thread.process).handle(thread.process, Item(lambda self, result: None))


@api("BOOL CreateTimerQueueTimer(HANDLE *result, HANDLE queue, FARPROC callback, LPVOID argument, DWORD due,"
     " DWORD period, ULONG flags)", "kernel32", "kernelbase")  # fmt: skip
def create_timer_queue_timer(
    thread: Thread, result: int, queue: int, callback: int, argument: int, due: int, period: int, flags: int
) -> int:
    """Called after a time, then each period."""
    item = Item(lambda self, outcome: call_back(self, callback, argument, 1))
    item.due_ns, item.period_ns = time.monotonic_ns() + due * 1_000_000, period * 1_000_000
    thread.memory.set_u64(result, pool_of(thread.process).handle(thread.process, item))
    arm(thread.process, item)
    return 1


@api("BOOL ChangeTimerQueueTimer(HANDLE queue, HANDLE timer, ULONG due, ULONG period)", "kernel32", "kernelbase")
def change_timer_queue_timer(thread: Thread, queue: int, timer: int, due: int, period: int) -> int:
    """Another time."""
    item = item_of(thread, timer)
    if item is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    item.due_ns, item.period_ns = time.monotonic_ns() + due * 1_000_000, period * 1_000_000
    arm(thread.process, item)
    return 1


@api("BOOL DeleteTimerQueueTimer(HANDLE queue, HANDLE timer, HANDLE event)", "kernel32", "kernelbase")
def delete_timer_queue_timer(thread: Thread, queue: int, timer: int, event: int) -> int:
    """INVALID_HANDLE_VALUE waits for a call that runs."""
    return _unregister(thread, timer, event)


@api("BOOL DeleteTimerQueueEx(HANDLE queue, HANDLE event)", "kernel32", "kernelbase",
     note="its timers are to be deleted one by one")  # fmt: skip
def delete_timer_queue_ex(thread: Thread, queue: int, event: int) -> int:
    """The number is free again."""
    return _unregister(thread, queue, event)
