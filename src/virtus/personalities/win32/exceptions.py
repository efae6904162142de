"""Structured exceptions: raising, dispatching to handlers, unwinding to the one that takes an exception.

Sources: Microsoft, x64 exception handling; winnt.h for CONTEXT, EXCEPTION_RECORD and DISPATCHER_CONTEXT.
"""

import struct
from typing import Final, NoReturn

from virtus.personalities.win32 import crash, state, unwind
from virtus.personalities.win32.guest import AccessViolation, Memory
from virtus.personalities.win32.process import ProcessEnd, Thread
from virtus.personalities.win32.table import api

CONTEXT_SIZE: Final = 0x4D0
CONTEXT_FLAGS, CONTEXT_MXCSR, CONTEXT_SEGMENTS, CONTEXT_EFLAGS = 0x30, 0x34, 0x38, 0x44
CONTEXT_GENERAL, CONTEXT_FLOAT, CONTEXT_VECTORS = 0x78, 0x100, 0x1A0
CONTEXT_ALL: Final = 0x10000F
SEGMENTS: Final = struct.pack("<6H", 0x33, 0x2B, 0x2B, 0x53, 0x2B, 0x2B)
RECORD_SIZE: Final = 0x98
NONCONTINUABLE, UNWINDING, EXIT_UNWIND, TARGET_UNWIND, COLLIDED = 0x1, 0x2, 0x4, 0x20, 0x40
MOST_PARAMETERS: Final = 15
CONTINUE_EXECUTION: Final = 0xFFFF_FFFF
GO_ON, CONTINUE_SEARCH, NESTED, COLLIDED_UNWIND = range(4)
STATUS_NONCONTINUABLE, STATUS_UNWIND, STATUS_BAD_STACK = 0xC0000025, 0xC0000027, 0xC0000028
RSP, RIP, FLAGS = 4, 16, 17
RCX, RDX = 1, 2
BELOW: Final = 0x400
"""Bytes left free below a frame before anything of ours is put on the guest's stack."""
MOST_FRAMES: Final = 100_000
DISPATCHER_SIZE, DISPATCHER_CONTEXT = 0x50, 0x28


class Handlers:
    """What a process has registered."""

    def __init__(self) -> None:
        self.vectored: list[tuple[int, int]] = []  # handle, function
        self.continued: list[tuple[int, int]] = []
        self.unhandled = 0
        self.next = 0x1000


def of(thread: Thread) -> Handlers:
    """The process's handlers."""
    return state.of(thread.process, Handlers)


def store_context(memory: Memory, place: int, general: list[int], vectors: bytes, mxcsr: int) -> None:
    """Registers as a CONTEXT."""
    memory.write(place + CONTEXT_FLAGS, struct.pack("<II", CONTEXT_ALL, mxcsr) + SEGMENTS)
    memory.set_u32(place + CONTEXT_EFLAGS, general[FLAGS])
    memory.write(place + CONTEXT_GENERAL, struct.pack("<17Q", *general[: RIP + 1]))
    memory.write(place + CONTEXT_FLOAT, struct.pack("<HHBxHQQII", 0x27F, 0, 0, 0, 0, 0, mxcsr, 0xFFFF))
    memory.write(place + CONTEXT_VECTORS, vectors)


def load_context(memory: Memory, place: int) -> tuple[list[int], bytes, int]:
    """The registers of a CONTEXT."""
    general = list(struct.unpack("<17Q", memory.read(place + CONTEXT_GENERAL, 8 * 17)))
    general.append(memory.u32(place + CONTEXT_EFLAGS))
    return general, memory.read(place + CONTEXT_VECTORS, 256), memory.u32(place + CONTEXT_MXCSR)


def _go_on(thread: Thread, context: int) -> NoReturn:
    thread.engine.continue_at(*load_context(thread.memory, context))


def _caller(thread: Thread) -> tuple[list[int], bytearray, int]:
    """The registers of whoever called the function that runs: as if it had just returned."""
    registers = thread.engine.context()
    general = list(registers.general)
    unwind.step_leaf(thread.memory, general)
    return general, bytearray(registers.vectors), registers.mxcsr


def raise_here(thread: Thread, code: int, flags: int, parameters: tuple[int, ...]) -> None:
    """Raise an exception at the place where the program called the function that runs."""
    general, vectors, mxcsr = _caller(thread)
    dispatch(thread, code, flags, parameters, general, bytes(vectors), mxcsr)


def dispatch(
    thread: Thread, code: int, flags: int, parameters: tuple[int, ...], general: list[int], vectors: bytes, mxcsr: int
) -> NoReturn:
    """Have the program's handlers decide about an exception at these registers. Does not return."""
    memory = thread.memory
    block = (general[RSP] - BELOW - CONTEXT_SIZE - RECORD_SIZE - 0x20) & -64
    record, pointers = block + CONTEXT_SIZE, block + CONTEXT_SIZE + RECORD_SIZE + 8 & -8
    try:
        store_context(memory, block, general, vectors, mxcsr)
        head = struct.pack("<IIQQII", code, flags, 0, general[RIP], len(parameters), 0)
        memory.write(record, head + struct.pack(f"<{len(parameters)}Q", *parameters))
        memory.write(pointers, struct.pack("<QQ", record, block))
    except AccessViolation:
        _unhandled(thread, code, parameters, general)
    _deliver(thread, record, block, pointers)


def _deliver(thread: Thread, record: int, context: int, pointers: int) -> NoReturn:
    """Vectored handlers, handlers of frames, the filter for what nobody takes."""
    memory, engine, handlers = thread.memory, thread.engine, of(thread)
    stack = context - 0x100 & -16
    for _, function in list(handlers.vectored):
        if engine.call_on(stack, function, pointers) & 0xFFFF_FFFF == CONTINUE_EXECUTION:
            for _, continued in list(handlers.continued):
                engine.call_on(stack, continued, pointers)
            _go_on(thread, context)
    general, vectors, mxcsr = load_context(memory, context)
    walked, saved = list(general), bytearray(vectors)
    reached = stack - CONTEXT_SIZE & -64
    dispatcher = reached - DISPATCHER_SIZE & -16
    for _ in range(MOST_FRAMES):
        _cross(thread, walked, saved)
        frame = _step(thread, walked, saved, dispatcher, 0)
        if frame is None:
            break
        if frame.handler and frame.flags & unwind.FLAG_EXCEPTION:
            store_context(memory, reached, walked, bytes(saved), mxcsr)
            memory.set_u64(dispatcher + DISPATCHER_CONTEXT, reached)
            answer = engine.call_on(dispatcher, frame.handler, record, frame.establisher, context, dispatcher)
            if answer & 0xFFFF_FFFF == GO_ON:
                _go_on(thread, context)
    if handlers.unhandled and engine.call_on(stack, handlers.unhandled, pointers) & 0xFFFF_FFFF == CONTINUE_EXECUTION:
        _go_on(thread, context)
    count = min(memory.u32(record + 24), MOST_PARAMETERS)
    parameters = struct.unpack(f"<{count}Q", memory.read(record + 32, 8 * count))
    _unhandled(thread, memory.u32(record), parameters, general)


def _cross(thread: Thread, general: list[int], vectors: bytearray) -> None:
    """Where a function returns to us, go on with who called us: the registers of the guest there."""
    while (outer := thread.engine.outer(general, bytes(vectors))) is not None:
        general[:], vectors[:] = outer.general, outer.vectors


def _step(thread: Thread, general: list[int], vectors: bytearray, dispatcher: int, target: int) -> unwind.Frame | None:
    """Leave one frame, and describe it in a DISPATCHER_CONTEXT; None behind the last one."""
    memory, address = thread.memory, general[RIP]
    module = thread.process.modules.at(address)
    if module is None or module.image is None:
        return None
    low, high = thread.engine.stack()
    if not low <= general[RSP] < high:
        return None
    try:
        entry = unwind.function_entry(memory, module, address)
        if not entry:
            establisher = general[RSP]
            unwind.step_leaf(memory, general)
            return unwind.Frame(0, 0, establisher, 0)
        frame = unwind.step(memory, module.base, entry, general, vectors)
        words = (address, module.base, entry, frame.establisher, target, 0, frame.handler, frame.data, 0)
        memory.write(dispatcher, struct.pack("<9QII", *words, 0, 0))
    except AccessViolation:
        return None
    return frame


def _unhandled(thread: Thread, code: int, parameters: tuple[int, ...], general: list[int]) -> NoReturn:
    crash.tell(crash.exception_words(thread.process, code, parameters, general))
    raise ProcessEnd(code)


def unwind_to(thread: Thread, target: int, address: int, record: int, value: int, context: int) -> NoReturn:
    """RtlUnwindEx: call the termination handlers of all frames up to `target`, and go on at `address` in it."""
    memory, engine = thread.memory, thread.engine
    general, vectors, mxcsr = _caller(thread)
    low = general[RSP] - BELOW
    own = (low - CONTEXT_SIZE - RECORD_SIZE) & -64
    if not record:
        record = own + CONTEXT_SIZE
        memory.write(record, struct.pack("<IIQQII", STATUS_UNWIND, 0, 0, general[RIP], 0, 0))
    flags = memory.u32(record + 4) | UNWINDING | (0 if target else EXIT_UNWIND)
    dispatcher = own - 2 * DISPATCHER_SIZE & -16
    for _ in range(MOST_FRAMES):
        _cross(thread, general, vectors)
        before = list(general)
        before_vectors = bytes(vectors)
        frame = _step(thread, general, vectors, dispatcher, address)
        if frame is None:
            break
        reached = frame.establisher == target
        if frame.handler and frame.flags & unwind.FLAG_UNWIND:
            memory.set_u32(record + 4, flags | (TARGET_UNWIND if reached else 0))
            store_context(memory, own, before, before_vectors, mxcsr)
            memory.set_u64(own + CONTEXT_GENERAL, value)
            memory.set_u64(dispatcher + DISPATCHER_CONTEXT, own)
            engine.call_on(dispatcher, frame.handler, record, frame.establisher, own, dispatcher)
            if reached:  # the handler may have set registers for where it goes on
                before, before_vectors, mxcsr = load_context(memory, own)
        if reached:
            before[0], before[RIP] = value, address
            engine.continue_at(before, before_vectors, mxcsr)
    code = memory.u32(record)
    _unhandled(thread, STATUS_BAD_STACK if target else code, (), general)


# Functions ------------------------------------------------------------------------------------------------------------


@api("void RaiseException(DWORD code, DWORD flags, DWORD count, ULONG_PTR* parameters)", "kernel32", "kernelbase")
def raise_exception(thread: Thread, code: int, flags: int, count: int, parameters: int) -> None:
    """Raise an exception of the program's own."""
    count = min(count, MOST_PARAMETERS) if parameters else 0
    values = struct.unpack(f"<{count}Q", thread.memory.read(parameters, 8 * count))
    raise_here(thread, code, flags & NONCONTINUABLE, values)


@api("void RtlRaiseException(LPVOID record)", "ntdll", "kernel32")
def rtl_raise_exception(thread: Thread, record: int) -> None:
    """Raise what a record says."""
    memory = thread.memory
    count = min(memory.u32(record + 24), MOST_PARAMETERS)
    values = struct.unpack(f"<{count}Q", memory.read(record + 32, 8 * count))
    raise_here(thread, memory.u32(record), memory.u32(record + 4), values)


@api("LPVOID SetUnhandledExceptionFilter(LPVOID filter)", "kernel32", "kernelbase")
def set_unhandled_exception_filter(thread: Thread, filter: int) -> int:
    """Who decides about what nobody takes; gives the one before."""
    handlers = of(thread)
    before, handlers.unhandled = handlers.unhandled, filter
    return before


@api("LONG UnhandledExceptionFilter(LPVOID pointers)", "kernel32", "kernelbase")
def unhandled_exception_filter(thread: Thread, pointers: int) -> int:
    """The program's filter, or the end."""
    memory = thread.memory
    record, context = memory.u64(pointers), memory.u64(pointers + 8)
    count = min(memory.u32(record + 24), MOST_PARAMETERS)
    parameters = struct.unpack(f"<{count}Q", memory.read(record + 32, 8 * count))
    _unhandled(thread, memory.u32(record), parameters, load_context(memory, context)[0])


def _add(thread: Thread, handlers: list[tuple[int, int]], first: int, function: int) -> int:
    own = of(thread)
    own.next += 16
    handlers.insert(0 if first else len(handlers), (own.next, function))
    return own.next


@api("LPVOID AddVectoredExceptionHandler(ULONG first, LPVOID handler)", "kernel32", "kernelbase")
def add_vectored_exception_handler(thread: Thread, first: int, handler: int) -> int:
    """A handler that is asked before all frames."""
    return _add(thread, of(thread).vectored, first, handler)


@api("LPVOID RtlAddVectoredExceptionHandler(ULONG first, LPVOID handler)", "ntdll")
def rtl_add_vectored_exception_handler(thread: Thread, first: int, handler: int) -> int:
    """A handler that is asked before all frames."""
    return _add(thread, of(thread).vectored, first, handler)


@api("LPVOID AddVectoredContinueHandler(ULONG first, LPVOID handler)", "kernel32", "kernelbase")
def add_vectored_continue_handler(thread: Thread, first: int, handler: int) -> int:
    """A handler that is told when the program goes on."""
    return _add(thread, of(thread).continued, first, handler)


def _remove(handlers: list[tuple[int, int]], handle: int) -> int:
    for entry in handlers:
        if entry[0] == handle:
            handlers.remove(entry)
            return 1
    return 0


@api("ULONG RemoveVectoredExceptionHandler(LPVOID handle)", "kernel32", "kernelbase")
def remove_vectored_exception_handler(thread: Thread, handle: int) -> int:
    """Whether it was one."""
    return _remove(of(thread).vectored, handle)


@api("ULONG RemoveVectoredContinueHandler(LPVOID handle)", "kernel32", "kernelbase")
def remove_vectored_continue_handler(thread: Thread, handle: int) -> int:
    """Whether it was one."""
    return _remove(of(thread).continued, handle)


@api("void RtlCaptureContext(LPVOID context)", "kernel32", "kernelbase", "ntdll")
def rtl_capture_context(thread: Thread, context: int) -> None:
    """The caller's registers, as they are when the call returns."""
    general, vectors, mxcsr = _caller(thread)
    store_context(thread.memory, context, general, bytes(vectors), mxcsr)


@api("void RtlRestoreContext(LPVOID context, LPVOID record)", "kernel32", "ntdll")
def rtl_restore_context(thread: Thread, context: int, record: int) -> None:
    """Go on with the registers of a CONTEXT."""
    _go_on(thread, context)


@api("LPVOID RtlLookupFunctionEntry(DWORD64 address, DWORD64* base, LPVOID history)", "kernel32", "kernelbase", "ntdll")
def rtl_lookup_function_entry(thread: Thread, address: int, base: int, history: int) -> int:
    """The RUNTIME_FUNCTION of an address, and its module's base."""
    module = thread.process.modules.at(address)
    if module is None or module.image is None:
        thread.memory.set_u64(base, 0)
        return 0
    thread.memory.set_u64(base, module.base)
    return unwind.function_entry(thread.memory, module, address)


@api("LPVOID RtlVirtualUnwind(DWORD kind, DWORD64 base, DWORD64 address, LPVOID entry, LPVOID context, LPVOID* data,"
     " DWORD64* establisher, LPVOID pointers)", "kernel32", "kernelbase", "ntdll")  # fmt: skip
def rtl_virtual_unwind(
    thread: Thread, kind: int, base: int, address: int, entry: int, context: int, data: int, establisher: int,
    pointers: int,
) -> int:  # fmt: skip
    """Leave one frame; gives the handler of the kind that is asked for."""
    memory = thread.memory
    general, vectors, mxcsr = load_context(memory, context)
    general[RIP] = address
    saved = bytearray(vectors)
    frame = unwind.step(memory, base, entry, general, saved)
    store_context(memory, context, general, bytes(saved), mxcsr)
    memory.set_u64(data, frame.data)
    memory.set_u64(establisher, frame.establisher)
    return frame.handler if frame.flags & kind else 0


@api("void RtlUnwindEx(LPVOID frame, LPVOID address, LPVOID record, LPVOID value, LPVOID context, LPVOID history)",
     "kernel32", "kernelbase", "ntdll")  # fmt: skip
def rtl_unwind_ex(
    thread: Thread, frame: int, address: int, record: int, value: int, context: int, history: int
) -> None:
    """Leave all frames up to one, and go on in it."""
    unwind_to(thread, frame, address, record, value, context)


@api("void RtlUnwind(LPVOID frame, LPVOID address, LPVOID record, LPVOID value)", "kernel32", "kernelbase", "ntdll")
def rtl_unwind(thread: Thread, frame: int, address: int, record: int, value: int) -> None:
    """Leave all frames up to one, and go on in it."""
    unwind_to(thread, frame, address, record, value, 0)


@api("int __C_specific_handler(LPVOID record, LPVOID frame, LPVOID context, LPVOID dispatcher)", "ntdll")
def c_specific_handler(thread: Thread, record: int, frame: int, context: int, dispatcher: int) -> int:
    """The handler of functions with __try: filters and termination blocks by a table of ranges of addresses."""
    memory, engine = thread.memory, thread.engine
    address, base = memory.u64(dispatcher), memory.u64(dispatcher + 8)
    table, offset = memory.u64(dispatcher + 0x38), address - base
    flags = memory.u32(record + 4)
    target = memory.u64(dispatcher + 0x20) - base
    pointers = dispatcher - 0x40 & -16
    memory.write(pointers, struct.pack("<QQ", record, context))
    for index in range(memory.u32(dispatcher + 0x48), memory.u32(table)):
        begin, end, handler, goes_on = struct.unpack("<4I", memory.read(table + 4 + 16 * index, 16))
        if not begin <= offset < end:
            continue
        if flags & (UNWINDING | EXIT_UNWIND):
            if flags & TARGET_UNWIND and begin <= target < end and goes_on:
                return CONTINUE_SEARCH
            if not goes_on:
                memory.set_u32(dispatcher + 0x48, index + 1)
                engine.call_on(pointers - 0x20, base + handler, 1, frame)
        elif goes_on:
            answer = 1 if handler == 1 else engine.call_on(pointers - 0x20, base + handler, pointers, frame)
            answer &= 0xFFFF_FFFF
            if answer == CONTINUE_EXECUTION:
                return GO_ON
            if 0 < answer < 1 << 31:
                unwind_to(thread, frame, base + goes_on, record, memory.u32(record), context)
    return CONTINUE_SEARCH
