"""Fibers: each has a guest thread of the engine's for its stack and registers, and all share their thread's TEB.

Only the one that was switched to runs; the others wait to be switched to. So a fiber keeps its place in our functions
too, whatever it was doing when it switched.
"""

from typing import Final

from virtus.personalities.win32 import errors, heaps, local_storage, process_blocks, state, threads
from virtus.personalities.win32.process import Process, ProcessEnd, Thread
from virtus.personalities.win32.table import api

TEB_FIBER_DATA: Final = 0x20
FIBER_SIZE: Final = 0x100
NOT_A_FIBER: Final = 0x1E00
"""What GetCurrentFiber gives in a thread that is no fiber (ntdll's own mark)."""


class Fiber:
    """A fiber. `address` is its handle: in the guest's memory, beginning with its data."""

    def __init__(self, address: int, thread: Thread | None) -> None:
        self.address, self.thread = address, thread
        self.stack: tuple[int, int] | None = None
        self.start = self.fls = self.stack_size = 0
        self.begun = thread is not None
        self.running = thread is not None
        self.deleted = False


class Fibers:
    """The fibers of a process, and what each thread's current one is."""

    def __init__(self) -> None:
        self.by_address: dict[int, Fiber] = {}


class Current:
    """The fiber that a thread is."""

    def __init__(self) -> None:
        self.fiber: Fiber | None = None


def _make(process: Process, data: int, thread: Thread | None) -> Fiber | None:
    address = heaps.allocate(process, data.to_bytes(8, "little") + bytes(FIBER_SIZE - 8))
    if not address:
        return None
    fiber = Fiber(address, thread)
    state.of(process, Fibers).by_address[address] = fiber
    return fiber


@api("LPVOID ConvertThreadToFiberEx(LPVOID data, DWORD flags)", "kernel32", "kernelbase")
def convert_thread_to_fiber_ex(thread: Thread, data: int, flags: int) -> int:
    """ERROR_ALREADY_FIBER for one that is."""
    current = state.of(thread, Current)
    if current.fiber is not None:
        return thread.fail(errors.ERROR_ALREADY_FIBER)
    current.fiber = _make(thread.process, data, thread)
    if current.fiber is None:
        return thread.fail(errors.ERROR_NOT_ENOUGH_MEMORY)
    thread.memory.set_u64(thread.teb + TEB_FIBER_DATA, current.fiber.address)
    return current.fiber.address


@api("LPVOID ConvertThreadToFiber(LPVOID data)", "kernel32", "kernelbase")
def convert_thread_to_fiber(thread: Thread, data: int) -> int:
    """The thread's own fiber."""
    return convert_thread_to_fiber_ex(thread, data, 0)


@api("BOOL ConvertFiberToThread(void)", "kernel32", "kernelbase")
def convert_fiber_to_thread(thread: Thread) -> int:
    """ERROR_ALREADY_THREAD for one that is no fiber."""
    current = state.of(thread, Current)
    if current.fiber is None:
        return thread.fail(errors.ERROR_ALREADY_THREAD)
    state.of(thread.process, Fibers).by_address.pop(current.fiber.address, None)
    heaps.free(thread.process, current.fiber.address)
    current.fiber = None
    thread.memory.set_u64(thread.teb + TEB_FIBER_DATA, 0)
    return 1


@api("BOOL IsThreadAFiber(void)", "kernel32", "kernelbase")
def is_thread_a_fiber(thread: Thread) -> int:
    """Whether the thread was converted."""
    return int(state.of(thread, Current).fiber is not None)


@api("LPVOID CreateFiberEx(SIZE_T commit, SIZE_T reserve, DWORD flags, FARPROC start, LPVOID data)", "kernel32",
     "kernelbase")  # fmt: skip
def create_fiber_ex(thread: Thread, commit: int, reserve: int, flags: int, start: int, data: int) -> int:
    """It runs when it is first switched to."""
    fiber = _make(thread.process, data, None)
    if fiber is None:
        return thread.fail(errors.ERROR_NOT_ENOUGH_MEMORY)
    fiber.stack_size = min(reserve or threads.DEFAULT_STACK, threads.LARGEST_STACK)
    fiber.start = start
    return fiber.address


@api("LPVOID CreateFiber(SIZE_T stack_size, FARPROC start, LPVOID data)", "kernel32", "kernelbase")
def create_fiber(thread: Thread, stack_size: int, start: int, data: int) -> int:
    """It runs when it is first switched to."""
    return create_fiber_ex(thread, 0, stack_size, 0, start, data)


def _begin(thread: Thread, fiber: Fiber) -> None:
    """Start the engine's thread of a fiber."""
    fiber.begun = True
    process, engine = thread.process, thread.engine

    def run() -> None:
        fiber.stack = engine.stack()
        region = threads.know_stack(process, fiber.stack)
        owner = fiber.thread
        assert owner is not None
        engine.set_teb(owner.teb)
        process.current = owner
        _arrive(owner, fiber)
        try:
            engine.call(fiber.start, process.memory.u64(fiber.address))
            threads.forget_stack(process, region)
            threads.exit_thread(owner, 0)  # a fiber that returns ends its thread
        except ProcessEnd as ended:
            engine.exit(ended.status)
        finally:
            threads.forget_stack(process, region)

    engine.start_thread(run, fiber.stack_size)


def _arrive(thread: Thread, fiber: Fiber) -> None:
    """The thread's TEB is this fiber's from now on."""
    memory, teb = thread.memory, thread.teb
    memory.set_u64(teb + TEB_FIBER_DATA, fiber.address)
    memory.set_u64(teb + local_storage.TEB_FLS_DATA, fiber.fls)
    if fiber.stack is not None:
        threads.set_stack(thread, fiber.stack)


@api("void SwitchToFiber(LPVOID fiber)", "kernel32", "kernelbase")
def switch_to_fiber(thread: Thread, fiber: int) -> None:
    """Returns when somebody switches back."""
    current, target = state.of(thread, Current), state.of(thread.process, Fibers).by_address.get(fiber)
    own = current.fiber
    if own is None or target is None or target is own or target.running:
        return  # Windows' behaviour is undefined here
    memory, teb = thread.memory, thread.teb
    own.fls = memory.u64(teb + local_storage.TEB_FLS_DATA)
    if own.stack is None:
        own.stack = memory.u64(teb + process_blocks.TEB_STACK_LIMIT), memory.u64(teb + process_blocks.TEB_STACK_BASE)
    own.running, target.running = False, True
    target.thread, current.fiber = thread, target
    if target.begun:
        thread.engine.wake()
    else:
        _begin(thread, target)
    thread.engine.wait(lambda: own.running or own.deleted, None)
    if own.deleted:
        thread.engine.end_thread()
    owner = own.thread
    assert owner is not None
    if owner is not thread:  # another thread has switched to this fiber
        thread.engine.set_teb(owner.teb)
        thread.process.current = owner
    _arrive(owner, own)


@api("void DeleteFiber(LPVOID fiber)", "kernel32", "kernelbase")
def delete_fiber(thread: Thread, fiber: int) -> None:
    """The current one ends its thread."""
    fibers = state.of(thread.process, Fibers).by_address
    found = fibers.pop(fiber, None)
    if found is None:
        return
    if found is state.of(thread, Current).fiber:
        threads.exit_thread(thread, 1)
    local_storage.finish_fiber(thread, found.fls)
    found.deleted = True
    thread.engine.wake()
    heaps.free(thread.process, fiber)
