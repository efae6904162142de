"""Initialisation that happens once: InitOnce."""

from virtus.personalities.win32 import errors, heaps
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api

# INIT_ONCE: the low two bits; the others are the context
ONCE_PENDING, ONCE_DONE, ONCE_MASK = 1, 2, 3
INIT_ONCE_CHECK_ONLY, INIT_ONCE_ASYNC, INIT_ONCE_INIT_FAILED = 1, 2, 4


@api("BOOL InitOnceBeginInitialize(LPVOID once, DWORD flags, BOOL *pending, LPVOID *context)", "kernel32",
     "kernelbase")  # fmt: skip
def init_once_begin_initialize(thread: Thread, once: int, flags: int, pending: int, context: int) -> int:
    """Whether the caller is to initialise; otherwise waits until it is done, unless that may be tried in parallel."""
    memory, mine = thread.memory, False
    if flags & INIT_ONCE_CHECK_ONLY:
        if memory.u64(once) & ONCE_MASK != ONCE_DONE:
            return thread.fail(errors.ERROR_GEN_FAILURE)
    else:

        def settled() -> bool:
            nonlocal mine
            while True:
                before = memory.u64(once)
                if before & ONCE_MASK == ONCE_DONE:
                    return True
                if flags & INIT_ONCE_ASYNC:
                    mine = True
                    return True
                if before & ONCE_MASK:
                    return False
                if memory.compare_exchange(once, 8, before, ONCE_PENDING) == before:
                    mine = True
                    return True

        thread.engine.wait(settled, None)
    memory.set_u32(pending, mine)
    if context and not mine:
        memory.set_u64(context, memory.u64(once) & ~ONCE_MASK)
    return 1


@api("BOOL InitOnceComplete(LPVOID once, DWORD flags, LPVOID context)", "kernel32", "kernelbase")
def init_once_complete(thread: Thread, once: int, flags: int, context: int) -> int:
    """Done, with a context; or failed, so that another tries."""
    if context & ONCE_MASK or (flags & INIT_ONCE_INIT_FAILED and context):
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    expected = 0 if flags & INIT_ONCE_ASYNC else ONCE_PENDING
    value = 0 if flags & INIT_ONCE_INIT_FAILED else context | ONCE_DONE
    if thread.memory.compare_exchange(once, 8, expected, value) != expected:
        return thread.fail(errors.ERROR_GEN_FAILURE)
    thread.engine.wake()
    return 1


@api("BOOL InitOnceExecuteOnce(LPVOID once, FARPROC function, LPVOID parameter, LPVOID *context)", "kernel32",
     "kernelbase")  # fmt: skip
def init_once_execute_once(thread: Thread, once: int, function: int, parameter: int, context: int) -> int:
    """Have a function called once; the others wait for it."""
    memory = thread.memory
    if memory.u64(once) & ONCE_MASK != ONCE_DONE:
        scratch = heaps.allocate(thread.process, bytes(16))
        try:
            init_once_begin_initialize(thread, once, 0, scratch, 0)
            if memory.u32(scratch):
                done = thread.engine.call(function, once, parameter, context) & 0xFFFF_FFFF
                given = memory.u64(context) if context and done else 0
                if not init_once_complete(thread, once, 0 if done else INIT_ONCE_INIT_FAILED, given):
                    return 0
                return int(bool(done))
        finally:
            heaps.free(thread.process, scratch)
    if context:
        memory.set_u64(context, memory.u64(once) & ~ONCE_MASK)
    return 1


@api("void InitOnceInitialize(LPVOID once)", "kernel32", "kernelbase")
def init_once_initialize(thread: Thread, once: int) -> None:
    """Not begun."""
    thread.memory.set_u64(once, 0)
