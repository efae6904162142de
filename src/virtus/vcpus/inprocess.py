"""Runs one Windows program in this process: the processor executes its instructions, and nobody looks at them.

Its calls of our functions are calls of Python through a few instructions of machine code (`inprocess_code`); a guest
thread is a thread of the host, which runs guest code without the interpreter's lock. Guest code can do whatever this
process can, so the process must be boxed before it starts.
"""

import ctypes
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from virtus.vcpus import inprocess_calls as calls
from virtus.vcpus import inprocess_code as code
from virtus.vcpus import inprocess_faults as faults
from virtus.vcpus import inprocess_hot as hot
from virtus.vcpus.inprocess_calls import Row as Row
from virtus.vcpus.inprocess_memory import PAGE, HostMemory, host_map
from virtus.vcpus.program_state import FLAGS, RIP, RSP
from virtus.vcpus.program_state import CpuContext as CpuContext
from virtus.vcpus.program_state import CpuFault as CpuFault

CODE_BYTES: Final = 1 << 18
MOST_FUNCTIONS: Final = 1 << 13
HOST_STACK: Final = 1 << 20
"""Of a host thread: our functions run there, guest code does not."""
SIGNAL_STACK: Final = 1 << 16
SMALLEST_STACK, LARGEST_STACK = 1 << 16, 1 << 30
STACK_START: Final = 256
"""Bytes above the first frame: a function may store its register arguments there, and we read beyond them."""
SOFT_GUARD: Final = 1 << 16
"""What is left of a stack for handlers once it has overflowed."""
MXCSR_AT_START: Final = 0x1F80
"""Rounding to nearest, all exceptions masked (Microsoft: x64 calling convention, MxCsr)."""
FLAGS_AT_START: Final = 0x202
LONGEST_SLEEP_S: Final = 0.05
"""What somebody waits for is looked at again after that time even if nobody has said that it changed."""
IN_REGISTERS: Final = 6
"""Arguments that our function takes in registers (System V ABI)."""

ARCH_PRCTL, ARCH_SET_GS = 158, 0x1001  # syscall_64.tbl; arch/x86/include/uapi/asm/prctl.h
SA_FLAGS: Final = 0x4 | 0x0800_0000  # SA_SIGINFO, SA_ONSTACK
SIGNALS: Final = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)

Entry = Callable[[int], int]
"""One of our functions: gets the guest address where its arguments lie in a row; gives RAX."""

_libc = ctypes.CDLL(None, use_errno=True)


class _GoOn(BaseException):
    """Execution goes on with other registers, in an activation further out."""

    def __init__(self, context: CpuContext) -> None:
        super().__init__()
        self.context = context


class ThreadEnd(BaseException):
    """The guest thread ends: unwinds our frames on its stack. No `except Exception` may hold it up."""


class _GuestThread:
    """What a host thread that runs guest code has: its state, and its calls of guest functions that have not returned.

    `activations` are the guest's stack pointers at their beginning, and the frame of our function that called; `faults`
    are the registers of those of such frames that faults have made.
    """

    def __init__(self, table: int) -> None:
        self.room = mmap.mmap(-1, PAGE)
        self.state = ctypes.addressof(ctypes.c_char.from_buffer(self.room))
        self.words: Any = memoryview(self.room).cast("Q")
        self.words[code.HOST_MXCSR // 8] = MXCSR_AT_START
        self.words[code.TABLE // 8] = table
        self.activations: list[tuple[int, int]] = []
        self.faults: dict[int, CpuContext] = {}
        self.escape: BaseException | None = None
        self.low = self.high = 0
        self.guard = 0
        self.signal_stack = mmap.mmap(-1, SIGNAL_STACK)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.signal_stack))
        if _libc.sigaltstack(struct.pack("<QixxxxQ", start, 0, SIGNAL_STACK), None):
            raise OSError(ctypes.get_errno(), "sigaltstack")

    @property
    def frame(self) -> int:
        """Where the frame of the innermost call of ours lies; 0 before any."""
        frame: int = self.words[code.FRAME // 8]
        return frame


class InProcess:
    """An engine: see `Engine` of the personality win32, which this follows.

    `lookup(dll, name)` gives one of our functions, or None; `fault(fault, context)` gives the context to go on with;
    `trouble` is told of an exception of a function of ours that is no way to go on, and gives what it returns instead;
    `failed` of what a guest thread has ended with otherwise than by its return.
    """

    cooperative = False
    hot = True
    """Whether functions that machine code has are served by it; off where every call is to be seen."""

    def __init__(
        self,
        violation: Callable[[int, bool], Exception],
        lookup: "Callable[[InProcess, str, str], int | None]",
        fault: Callable[[CpuFault, CpuContext], CpuContext],
        ended: Callable[[int], None],
        trouble: Callable[[BaseException], int],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._lookup, self._fault, self._ended = lookup, fault, ended
        self._trouble, self._failed = trouble, failed
        self._addresses: dict[tuple[str, str], int | None] = {}
        self._kept: list[Any] = []
        self._emit_lock = threading.Lock()
        self._make_code()
        self.memory = HostMemory(self._code, violation)
        self._table_room = mmap.mmap(-1, MOST_FUNCTIONS * 16)
        self._table: Any = memoryview(self._table_room).cast("Q")
        self._table_address = ctypes.addressof(ctypes.c_char.from_buffer(self._table_room))
        self._count = 0
        word = ctypes.c_uint64
        self._enter = ctypes.CFUNCTYPE(word, word, word, word, ctypes.c_void_p, word)(self._part("enter"))
        self._return = self._part("returned")
        self._add(self._faulted, ())
        self._makers: dict[int, Callable[[], Row]] = {}
        first_call = ctypes.CFUNCTYPE(word)(self._first_call)
        self._kept.append(first_call)
        self._first_call_address = ctypes.cast(first_call, ctypes.c_void_p).value
        self._local = threading.local()
        self._condition = threading.Condition()
        self._generation = 0
        self._waiters = 0
        first_frame = ctypes.create_string_buffer(code.FRAME_SIZE)
        struct.pack_into("<I", first_frame, code.FRAME_MXCSR, MXCSR_AT_START)
        self._first_frame = ctypes.addressof(first_frame)
        self._kept.append(first_frame)
        self._take_signals()

    # What the personality asks for -----------------------------------------------------------------------------------

    def resolve(self, dll: str, name: str) -> int | None:
        """The guest address of one of our functions; None where there is none."""
        key = dll, name
        if key not in self._addresses:
            found = self._lookup(self, dll, name)
            short = hot.CODE.get(name) if self.hot else None
            if found is not None and short is not None:
                found = self._emit(hot.with_rest(self._with_addresses(dll, short), found))
            self._addresses[key] = found
        return self._addresses[key]

    def entry_point(self, entry: Entry) -> int:
        """A new guest address that calls one of our functions, which gets the place of its arguments."""
        return self._emit(code.stub, self._add(*self.placed(entry)))

    def placed(self, entry: Entry) -> Row:
        """A function that gets the place of its arguments."""
        frame_rsp = code.FRAME_RSP
        load = self.memory.u64

        def call() -> int:
            return entry(load(self.thread.frame + frame_rsp) + 8)

        return self._guarded(call), ()

    def typed(
        self, body: Callable[..., int | None], current: Callable[[], Any], types: Sequence[tuple[int, bool]]
    ) -> Row:
        """A function of integers, each of a size and with or without a sign; first it gets `current`."""
        return calls.typed(body, current, self._escaped, types)

    def call(self, address: int, *arguments: int) -> int:
        """Run a guest function to its return on the current thread, and give its result (RAX)."""
        thread = self.thread
        frame = thread.frame
        outer = self.memory.u64(frame + code.FRAME_RSP) if frame else thread.high - STACK_START
        return self.call_on(outer - 0x20, address, *arguments)

    def call_on(self, stack: int, address: int, *arguments: int) -> int:
        """The same with the stack from there downwards, below what is in use."""
        thread, memory = self.thread, self.memory
        stack = (stack - max(len(arguments), 4) * 8 & -16) - 8  # 8 off a multiple of 16 where a function begins
        memory.set_u64(stack, self._return)
        for index, value in enumerate(arguments[4:]):
            memory.set_u64(stack + 0x28 + 8 * index, value)
        registers = struct.pack("<4Q", *(value & 0xFFFF_FFFF_FFFF_FFFF for value in (*arguments, 0, 0, 0, 0)[:4]))
        thread.activations.append((stack, thread.frame))
        result: int = self._enter(thread.state, address, stack, registers, thread.frame or self._first_frame)
        thread.activations.pop()
        if thread.escape is not None:
            escape, thread.escape = thread.escape, None
            raise escape
        return result

    @property
    def thread(self) -> _GuestThread:
        """Of the calling host thread."""
        try:
            thread: _GuestThread = self._local.thread
        except AttributeError:
            thread = self._local.thread = _GuestThread(self._table_address)
        return thread

    def make_stack(self, size: int) -> None:
        """Give the current guest thread a stack of that many bytes, and pages below that tell of its overflow."""
        thread = self.thread
        size = min(-(-max(size, SMALLEST_STACK) // PAGE) * PAGE, LARGEST_STACK)
        low = self.memory.map(0, size + 2 * SOFT_GUARD, mmap.PROT_READ | mmap.PROT_WRITE)
        self.memory.protect(low, 2 * SOFT_GUARD, 0)
        thread.guard = low + SOFT_GUARD
        thread.low, thread.high = low + 2 * SOFT_GUARD, low + 2 * SOFT_GUARD + size

    def stack(self) -> tuple[int, int]:
        """The current guest thread's stack: its lowest address, and the one behind its highest."""
        thread = self.thread
        return thread.low, thread.high

    def set_teb(self, teb: int) -> None:
        """GS of the current guest thread."""
        if _libc.syscall(ARCH_PRCTL, ARCH_SET_GS, ctypes.c_uint64(teb)):
            raise OSError(ctypes.get_errno(), "arch_prctl")
        self.memory.set_u64(teb + code.GS_STATE, self.thread.state)

    def start_thread(self, body: Callable[[], None], stack_size: int) -> None:
        """A new guest thread with a stack of that size, which runs `body`: it makes its TEB and calls its start."""

        def run() -> None:
            self.make_stack(stack_size)
            thread = self.thread
            try:
                body()
            except ThreadEnd:
                pass
            except BaseException as error:  # nobody above would see it
                self._failed(error)
            finally:
                self.memory.unmap(thread.guard - SOFT_GUARD, thread.high - thread.guard + SOFT_GUARD)

        with self._emit_lock:
            before = threading.stack_size(HOST_STACK)
            try:
                threading.Thread(target=run, daemon=True).start()
            except RuntimeError as error:
                raise OSError(11, str(error)) from error
            finally:
                threading.stack_size(before)

    def end_thread(self) -> NoReturn:
        """Leave the body of the current guest thread at once, through all calls in it."""
        raise ThreadEnd

    def wait(self, ready: Callable[[], bool], deadline_ns: int | None) -> bool:
        """Until `ready` or the deadline (monotonic clock) has passed; whether it was `ready`. Others run meanwhile."""
        while True:
            generation = self._generation
            if ready():
                return True
            seconds = LONGEST_SLEEP_S
            if deadline_ns is not None:
                seconds = min(seconds, (deadline_ns - time.monotonic_ns()) / 1e9)
                if seconds <= 0:
                    return False
            with self._condition:
                if generation == self._generation:
                    self._waiters += 1
                    try:
                        self._condition.wait(seconds)
                    finally:
                        self._waiters -= 1

    def wake(self) -> None:
        """What somebody waits for may have become true; may be called from any thread."""
        with self._condition:
            self._generation += 1
            if self._waiters:
                self._condition.notify_all()

    def exit(self, status: int) -> None:
        """End the process at once with a Windows exit code. Does not return."""
        self._ended(status)

    # Registers -------------------------------------------------------------------------------------------------------

    def context(self) -> CpuContext:
        """The registers of the guest thread that called us, where it called; those that a call need not keep are 0."""
        return self._context(self.thread.frame)

    def outer(self, general: list[int], vectors: bytes) -> CpuContext | None:
        """If these are the registers after the return of a function that `call` called: those of the guest outside."""
        thread = self.thread
        if general[RIP] != self._return:
            return None
        frame = next((frame for stack, frame in thread.activations if stack + 8 == general[RSP]), 0)
        if not frame:
            return None
        if frame in thread.faults:
            return thread.faults[frame]
        context = self._context(frame)
        context.general[RIP] = self.memory.u64(context.general[RSP])
        context.general[RSP] += 8
        return context

    def _context(self, frame: int) -> CpuContext:
        general = [0] * 18
        saved = struct.unpack("<8Q", self.memory.read(frame + code.FRAME_SAVED, 64))
        for register, value in zip(code.SAVED, saved, strict=True):
            general[register] = value
        general[RSP] = stack = self.memory.u64(frame + code.FRAME_RSP)
        general[1], general[2], general[8], general[9] = struct.unpack("<4Q", self.memory.read(stack + 8, 32))
        general[FLAGS] = FLAGS_AT_START
        general[RIP] = self._code + code.OFFSETS["call"]
        low = self.memory.read(frame + code.FRAME_XMM0, 64) + bytes(32)
        vectors = low + self.memory.read(frame + code.FRAME_XMM6, 160)
        return CpuContext(general, vectors, self.memory.u32(frame + code.FRAME_MXCSR))

    def continue_at(self, general: list[int], vectors: bytes, mxcsr: int) -> NoReturn:
        """Go on with these registers and never return: our frames between here and there on the stack are unwound."""
        raise _GoOn(CpuContext(general, vectors, mxcsr))

    def doubles(self) -> tuple[float, ...]:
        """XMM0 to XMM3 as numbers: the floating-point arguments of the function that was called."""
        values = struct.unpack("<8d", self.memory.read(self.thread.frame + code.FRAME_XMM0, 64))
        return values[::2]

    def floats(self) -> tuple[float, ...]:
        """The same in single precision."""
        values = struct.unpack("<16f", self.memory.read(self.thread.frame + code.FRAME_XMM0, 64))
        return values[::4]

    def set_vector(self, data: bytes) -> None:
        """XMM0: a floating-point result."""
        self.memory.write(self.thread.frame + code.FRAME_XMM0, data.ljust(16, b"\0"))

    def flush_instructions(self, start: int, size: int) -> None:
        """Nothing to do: the processor sees changes of code by itself."""

    def close(self) -> None:
        """The process ends soon; nothing to give back before."""

    # Inside ----------------------------------------------------------------------------------------------------------

    def _part(self, name: str) -> int:
        return self._code + code.OFFSETS[name]

    def _make_code(self) -> None:
        """Room for code that is written in one place and executed in another, which nobody can write to."""
        memory = os.memfd_create("virtus-code", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, CODE_BYTES)
            self._writable = mmap.mmap(memory, CODE_BYTES)
            self._code = host_map(0, CODE_BYTES, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_SHARED, memory)
        finally:
            os.close(memory)
        self._writable[: len(code.BYTES)] = code.BYTES
        self._free = -(-len(code.BYTES) // code.STUB_SIZE) * code.STUB_SIZE

    def _with_addresses(self, dll: str, short: bytes) -> bytes:
        """The code of a hot function with the addresses of what it calls."""
        for tag, name in hot.TAGS.items():
            address = ctypes.cast(getattr(_libc, name), ctypes.c_void_p).value or 0
            short = short.replace(tag.to_bytes(8, "little"), address.to_bytes(8, "little"))
        for tag, name in hot.OWN_TAGS.items():
            mark = tag.to_bytes(8, "little")
            if mark in short:
                short = short.replace(mark, (self.resolve(dll, name) or 0).to_bytes(8, "little"))
        for tag, name in hot.ROUTINES.items():
            mark = tag.to_bytes(8, "little")
            if mark in short:
                short = short.replace(mark, self._routine(name).to_bytes(8, "little"))
        return short

    def _routine(self, name: str) -> int:
        """The address of code that functions have in common."""
        key = "", name
        found = self._addresses.get(key)
        if found is None:
            found = self._addresses[key] = self._emit(hot.CODE[name])
        return found

    def lazy_entry_point(self, make: Callable[[], Row]) -> int:
        """The same for a function that is made when it is first called: a callback of ctypes' and its types."""
        number = self._add(None, ())
        self._makers[number] = make
        return self._emit(code.stub, number)

    def _first_call(self) -> int:
        """Make the function that is called, and call it again."""
        thread = self.thread
        number = self.memory.u32(thread.frame + code.FRAME_NUMBER)
        try:
            make = self._makers.get(number)
            if make is not None:
                self._fill(number, *make())
                self._makers.pop(number, None)
            context = self.context()
            context.general[RIP] = self._part("call")
            context.general[0] = number
            raise _GoOn(context)
        except BaseException as escaped:  # nothing may pass through the guest's frames
            return self._escaped(escaped)

    def _emit(self, what: "bytes | Callable[[int, int], bytes]", number: int = 0) -> int:
        """Place code for the guest, or the stub of a function; its address."""
        with self._emit_lock:
            place = self._free
            data = what if isinstance(what, bytes) else what(number, place)
            self._free = -(-(place + len(data)) // code.STUB_SIZE) * code.STUB_SIZE
            if self._free > CODE_BYTES:
                raise MemoryError("too many functions")
            self._writable[place : place + len(data)] = data
            return self._code + place

    def _add(self, call: Callable[..., int] | None, types: Sequence[Any]) -> int:
        """A row in the table of functions; its number. None: it is made when it is called."""
        with self._emit_lock:
            number = self._count
            if number >= MOST_FUNCTIONS:
                raise MemoryError("too many functions")
            self._count += 1
        if call is None:
            self._table[2 * number] = self._first_call_address
        else:
            self._fill(number, call, types)
        return number

    def _fill(self, number: int, call: Callable[..., int], types: Sequence[Any]) -> None:
        callback = ctypes.CFUNCTYPE(ctypes.c_uint64, *types)(call)
        self._kept.append(callback)
        self._table[2 * number + 1] = max(len(types) - IN_REGISTERS, 0)
        self._table[2 * number] = ctypes.cast(callback, ctypes.c_void_p).value

    def _guarded(self, call: Callable[[], int]) -> Callable[[], int]:
        def run() -> int:
            try:
                return call()
            except BaseException as escaped:  # nothing may pass through the guest's frames
                return self._escaped(escaped)

        return run

    def _escaped(self, escaped: BaseException) -> int:
        """A function of ours has ended by an exception: have machine code do what it asks for."""
        thread = self.thread
        if not isinstance(escaped, _GoOn | ThreadEnd):
            try:
                return self._trouble(escaped)
            except BaseException as other:
                escaped = other
        words = thread.words
        if isinstance(escaped, _GoOn) and self._is_innermost(thread, escaped.context.general[RSP]):
            context = escaped.context
            words[code.GENERAL // 8 : code.GENERAL // 8 + 18] = memoryview(struct.pack("<18Q", *context.general)).cast(
                "Q"
            )
            words[code.MXCSR // 8] = context.mxcsr
            self.memory.write(thread.state + code.VECTORS, context.vectors)
            words[code.PENDING // 8] = code.GO_ON
            return 0
        thread.escape = escaped
        words[code.PENDING // 8] = code.LEAVE
        return 0

    @staticmethod
    def _is_innermost(thread: _GuestThread, stack: int) -> bool:
        """Whether a stack pointer belongs to the innermost activation. (Some programs have stacks of their own.)"""
        if len(thread.activations) < 2 or not thread.low <= stack < thread.high:
            return True
        return stack <= thread.activations[-1][0]

    def _faulted(self) -> int:
        """Function 0: guest code got a signal of its own."""
        thread = self.thread
        try:
            fault, context = faults.describe(thread, self.memory)
            thread.faults[thread.frame] = context
            try:
                context = self._fault(fault, context)
            finally:
                del thread.faults[thread.frame]
            raise _GoOn(context)
        except BaseException as escaped:  # as everywhere
            return self._escaped(escaped)

    def _take_signals(self) -> None:
        """Have faults of guest code come to HANDLER; those of ours end the process as ever."""
        action = struct.pack("<Q", self._part("handler")) + b"\xff" * 128 + struct.pack("<i4xQ", SA_FLAGS, 0)
        for number in SIGNALS:
            if _libc.sigaction(int(number), action, None):
                raise OSError(ctypes.get_errno(), "sigaction")
