"""Thread pools: work, timers and waits that call back on threads which the process has for that.

Workers are guest threads, started when there is something to do and nobody free. One of them at a time looks after
timers and waits. Whoever has no work for some seconds ends.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from virtus.personalities.win32 import state
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.synchronisation import Event
from virtus.personalities.win32.table import api
from virtus.personalities.win32.threads import new_thread
from virtus.personalities.win32.waiting import (
    WAIT_OBJECT_0,
    WAIT_TIMEOUT,
    Waitable,
    lock,
    native_deadline,
    object_of,
    waitable,
)

IDLE_NS: Final = 5_000_000_000
MOST_WORKERS: Final = 64
WORKER_STACK: Final = 1 << 20


class Item:
    """Something that calls back: work, a timer or a wait. `call` runs one call on a worker."""

    def __init__(self, call: Callable[[Thread, int], None]) -> None:
        self.call = call
        self.queued = self.active = 0
        self.due_ns: int | None = None
        self.period_ns = 0
        self.object: Waitable | None = None
        self.once = True
        self.closed = False

    @property
    def idle(self) -> bool:
        """Whether no call is queued or running."""
        return not self.queued and not self.active


class Pool:
    """A process's pool. What is in it changes with `lock` of `waiting.py` held."""

    def __init__(self) -> None:
        self.queue: deque[tuple[Item, int]] = deque()
        self.armed: set[Item] = set()
        self.changes = 0  # of `armed`: whoever waits for the next due time looks again
        self.workers = self.free = 0
        self.items: dict[int, Item] = {}
        self.instances: dict[int, list[Callable[[], None]]] = {}
        self.start_lock = threading.Lock()

    def handle(self, process: Process, item: Item) -> int:
        """A number for an item, as an opaque pointer."""
        number: int = process.handles.add(item)
        self.items[number] = item
        return number


def pool_of(process: Process) -> Pool:
    """The process's pool."""
    return state.of(process, Pool)


def _due(pool: Pool, thread: Thread) -> None:
    """Queue what has become due or signalled."""
    now = time.monotonic_ns()
    for item in list(pool.armed):
        result = None
        if item.object is not None and item.object.signalled(thread):
            item.object.acquire(thread)
            result = WAIT_OBJECT_0
        elif item.due_ns is not None and now >= item.due_ns:
            result = WAIT_TIMEOUT
        if result is None:
            continue
        if item.period_ns:
            item.due_ns = now + item.period_ns
        elif item.once:
            pool.armed.discard(item)
        pool.queue.append((item, result))
        item.queued += 1


def _next_due(pool: Pool) -> int | None:
    timed = [item.due_ns for item in pool.armed if item.due_ns is not None]
    timed += [due for item in pool.armed if (due := getattr(item.object, "due_ns", None)) is not None]
    return min(timed, default=None)


def _taken(thread: Thread) -> tuple[Item, int] | None:
    """The next call to make, None after some seconds without one, or where timers have changed."""
    process = thread.process
    pool, guard = pool_of(process), lock(process)
    taken: tuple[Item, int] | None = None
    with guard:
        pool.free += 1
        seen, due = pool.changes, _next_due(pool)

    def ready() -> bool:
        nonlocal taken
        with guard:
            _due(pool, thread)
            if pool.queue:
                taken = pool.queue.popleft()
                taken[0].queued -= 1
                taken[0].active += 1
                return True
            return pool.changes != seen

    limit = time.monotonic_ns() + IDLE_NS
    thread.engine.wait(ready, min(limit, due) if due is not None else limit)
    with guard:
        pool.free -= 1
    return taken


def _work(thread: Thread) -> int:
    """A worker's life: it ends when there has been nothing to do for a while."""
    process = thread.process
    pool, guard = pool_of(process), lock(process)
    while True:
        began = time.monotonic_ns()
        taken = _taken(thread)
        if taken is None:
            with guard:
                if not pool.armed and not pool.queue and time.monotonic_ns() - began >= IDLE_NS:
                    pool.workers -= 1
                    return 0
            continue
        _start_workers(process)
        item, result = taken
        try:
            item.call(thread, result)
        finally:
            with guard:
                item.active -= 1
            thread.engine.wake()


def _start_workers(process: Process) -> None:
    """One more worker if there is something to do or to watch, and nobody free."""
    pool = pool_of(process)
    with lock(process):
        needed = bool(pool.queue or pool.armed) and not pool.free and pool.workers < MOST_WORKERS
        if needed:
            pool.workers += 1
    if needed:
        try:
            new_thread(process, WORKER_STACK, _work)
        except OSError:
            with lock(process):
                pool.workers -= 1


def _submit(process: Process, item: Item, result: int = 0) -> None:
    pool = pool_of(process)
    with lock(process):
        pool.queue.append((item, result))
        item.queued += 1
    _start_workers(process)
    process.engine.wake()


def arm(process: Process, item: Item) -> None:
    """Have an item become due or wait from now on."""
    with lock(process):
        pool_of(process).armed.add(item)
        pool_of(process).changes += 1
    _start_workers(process)
    process.engine.wake()


def _disarm(process: Process, item: Item) -> bool:
    """Whether it was armed."""
    pool = pool_of(process)
    with lock(process):
        before = item in pool.armed
        pool.armed.discard(item)
    return before


def cancel_calls(process: Process, item: Item) -> None:
    """Take queued calls back."""
    pool = pool_of(process)
    with lock(process):
        pool.queue = deque(entry for entry in pool.queue if entry[0] is not item)
        item.queued = 0


def _wait_idle(thread: Thread, item: Item, cancel: int) -> None:
    if cancel:
        cancel_calls(thread.process, item)
    thread.engine.wait(lambda: item.idle, None)


def item_of(thread: Thread, handle: int) -> Item | None:
    """What a number stands for, None for nothing."""
    return pool_of(thread.process).items.get(handle)


def close_item(thread: Thread, handle: int) -> None:
    """Give a number back; it becomes due no more."""
    item = pool_of(thread.process).items.pop(handle, None)
    if item is not None:
        item.closed = True
        _disarm(thread.process, item)
        thread.process.handles.close(handle)


def _instance(thread: Thread, body: Callable[[int], Any]) -> None:
    """Run a callback with an instance, and after it what it has asked for."""
    pool = pool_of(thread.process)
    instance = thread.teb  # unlike any other that runs now
    pool.instances[instance] = []
    try:
        body(instance)
    finally:
        for after in pool.instances.pop(instance, []):
            after()


@api("LPVOID CreateThreadpoolWork(FARPROC callback, LPVOID context, LPVOID environment)", "kernel32", "kernelbase")
def create_threadpool_work(thread: Thread, callback: int, context: int, environment: int) -> int:
    """Something to be called as often as it is submitted."""
    pool = pool_of(thread.process)
    handle = 0

    def call(self: Thread, result: int) -> None:
        _instance(self, lambda instance: self.engine.call(callback, instance, context, handle))

    handle = pool.handle(thread.process, Item(call))
    return handle


@api("void SubmitThreadpoolWork(LPVOID work)", "kernel32", "kernelbase")
def submit_threadpool_work(thread: Thread, work: int) -> None:
    """One call more."""
    item = item_of(thread, work)
    if item is not None:
        _submit(thread.process, item)


@api("void WaitForThreadpoolWorkCallbacks(LPVOID work, BOOL cancel)", "kernel32", "kernelbase")
def wait_for_threadpool_work_callbacks(thread: Thread, work: int, cancel: int) -> None:
    """Until no call is queued or running."""
    item = item_of(thread, work)
    if item is not None:
        _wait_idle(thread, item, cancel)


@api("void CloseThreadpoolWork(LPVOID work)", "kernel32", "kernelbase")
def close_threadpool_work(thread: Thread, work: int) -> None:
    """Calls that are queued are still made."""
    close_item(thread, work)


@api("BOOL TrySubmitThreadpoolCallback(FARPROC callback, LPVOID context, LPVOID environment)", "kernel32",
     "kernelbase")  # fmt: skip
def try_submit_threadpool_callback(thread: Thread, callback: int, context: int, environment: int) -> int:
    """One call."""

    def call(self: Thread, result: int) -> None:
        _instance(self, lambda instance: self.engine.call(callback, instance, context))

    _submit(thread.process, Item(call))
    return 1


@api("BOOL QueueUserWorkItem(FARPROC callback, LPVOID context, ULONG flags)", "kernel32", "kernelbase")
def queue_user_work_item(thread: Thread, callback: int, context: int, flags: int) -> int:
    """One call, the older way."""
    _submit(thread.process, Item(lambda self, result: call_back(self, callback, context)))
    return 1


def call_back(thread: Thread, function: int, *arguments: int) -> None:
    """Call a guest's function for its own sake."""
    thread.engine.call(function, *arguments)


@api("LPVOID CreateThreadpoolTimer(FARPROC callback, LPVOID context, LPVOID environment)", "kernel32", "kernelbase")
def create_threadpool_timer(thread: Thread, callback: int, context: int, environment: int) -> int:
    """Called when it is due."""
    return create_threadpool_work(thread, callback, context, environment)


@api("void SetThreadpoolTimer(LPVOID timer, LPFILETIME due, DWORD period, DWORD window)", "kernel32", "kernelbase")
def set_threadpool_timer(thread: Thread, timer: int, due: int, period: int, window: int) -> None:
    """Due at a time, then each period of milliseconds; a null pointer stops it."""
    item = item_of(thread, timer)
    if item is None:
        return
    _disarm(thread.process, item)
    if due:
        item.due_ns, item.period_ns = native_deadline(thread, due), period * 1_000_000
        arm(thread.process, item)


@api("BOOL SetThreadpoolTimerEx(LPVOID timer, LPFILETIME due, DWORD period, DWORD window)", "kernel32", "kernelbase")
def set_threadpool_timer_ex(thread: Thread, timer: int, due: int, period: int, window: int) -> int:
    """Whether it was set before."""
    item = item_of(thread, timer)
    before = item is not None and item in pool_of(thread.process).armed
    set_threadpool_timer(thread, timer, due, period, window)
    return int(before)


@api("BOOL IsThreadpoolTimerSet(LPVOID timer)", "kernel32", "kernelbase")
def is_threadpool_timer_set(thread: Thread, timer: int) -> int:
    """Whether it will become due."""
    return int(item_of(thread, timer) in pool_of(thread.process).armed)


@api("void WaitForThreadpoolTimerCallbacks(LPVOID timer, BOOL cancel)", "kernel32", "kernelbase")
def wait_for_threadpool_timer_callbacks(thread: Thread, timer: int, cancel: int) -> None:
    """Until no call is queued or running."""
    wait_for_threadpool_work_callbacks(thread, timer, cancel)


@api("void CloseThreadpoolTimer(LPVOID timer)", "kernel32", "kernelbase")
def close_threadpool_timer(thread: Thread, timer: int) -> None:
    """It becomes due no more."""
    close_item(thread, timer)


@api("LPVOID CreateThreadpoolWait(FARPROC callback, LPVOID context, LPVOID environment)", "kernel32", "kernelbase")
def create_threadpool_wait(thread: Thread, callback: int, context: int, environment: int) -> int:
    """Called when an object is signalled, or after a time."""
    handle = 0

    def call(self: Thread, result: int) -> None:
        _instance(self, lambda instance: self.engine.call(callback, instance, context, handle, result))

    handle = pool_of(thread.process).handle(thread.process, Item(call))
    return handle


@api("void SetThreadpoolWait(LPVOID wait, HANDLE object, LPFILETIME timeout)", "kernel32", "kernelbase")
def set_threadpool_wait(thread: Thread, wait: int, object: int, timeout: int) -> None:
    """Wait once; a null handle stops it."""
    item = item_of(thread, wait)
    if item is None:
        return
    _disarm(thread.process, item)
    if object:
        item.object, item.due_ns = waitable(thread, object), native_deadline(thread, timeout)
        arm(thread.process, item)


@api("void WaitForThreadpoolWaitCallbacks(LPVOID wait, BOOL cancel)", "kernel32", "kernelbase")
def wait_for_threadpool_wait_callbacks(thread: Thread, wait: int, cancel: int) -> None:
    """Until no call is queued or running."""
    wait_for_threadpool_work_callbacks(thread, wait, cancel)


@api("void CloseThreadpoolWait(LPVOID wait)", "kernel32", "kernelbase")
def close_threadpool_wait(thread: Thread, wait: int) -> None:
    """It waits no more."""
    close_item(thread, wait)


@api("LPVOID CreateThreadpool(LPVOID reserved)", "kernel32", "kernelbase", note="all pools are one")
def create_threadpool(thread: Thread, reserved: int) -> int:
    """The process's own pool under another number."""
    return pool_of(thread.process).handle(thread.process, Item(lambda self, result: None))


@api("void CloseThreadpool(LPVOID pool)", "kernel32", "kernelbase")
def close_threadpool(thread: Thread, pool: int) -> None:
    """The process's own stays."""
    close_item(thread, pool)


@api("void SetThreadpoolThreadMaximum(LPVOID pool, DWORD count)", "kernel32", "kernelbase", note="changes nothing")
def set_threadpool_thread_maximum(thread: Thread, pool: int, count: int) -> None:
    """As many as there is work for."""


@api("BOOL SetThreadpoolThreadMinimum(LPVOID pool, DWORD count)", "kernel32", "kernelbase", note="changes nothing")
def set_threadpool_thread_minimum(thread: Thread, pool: int, count: int) -> int:
    """As many as there is work for."""
    return 1


@api("BOOL CallbackMayRunLong(LPVOID instance)", "kernel32", "kernelbase")
def callback_may_run_long(thread: Thread, instance: int) -> int:
    """Others are started as they are needed."""
    return 1


def _afterwards(thread: Thread, instance: int, body: Callable[[], None]) -> None:
    pending = pool_of(thread.process).instances.get(instance)
    if pending is not None:
        pending.append(body)


@api("void SetEventWhenCallbackReturns(LPVOID instance, HANDLE event)", "kernel32", "kernelbase")
def set_event_when_callback_returns(thread: Thread, instance: int, event: int) -> None:
    """After the callback."""
    found = object_of(thread, event)

    def signal() -> None:
        if isinstance(found, Event):
            found.signal(thread)
            thread.engine.wake()

    _afterwards(thread, instance, signal)


@api("void FreeLibraryWhenCallbackReturns(LPVOID instance, HMODULE module)", "kernel32", "kernelbase",
     note="the library stays")  # fmt: skip
def free_library_when_callback_returns(thread: Thread, instance: int, module: int) -> None:
    """A library that stays loaded harms nobody."""
