"""Runs one Windows program on an emulated processor: its calls of ours, ours of it, its threads and its faults."""

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

from virtus.vcpus.emulated_x86 import library, stubs
from virtus.vcpus.emulated_x86.callbacks import Callbacks
from virtus.vcpus.emulated_x86.hot_functions import HOT
from virtus.vcpus.emulated_x86.library import Registers, Unicorn
from virtus.vcpus.emulated_x86.loops import Loops
from virtus.vcpus.emulated_x86.memory import EXECUTE, NO_ACCESS, PAGE, READ, SPACE, WRITE, AddressSpace
from virtus.vcpus.emulated_x86.threads import SLICE_S, GuestThread, Turns
from virtus.vcpus.program_state import FLAGS, NO_VECTOR, RIP, RSP, CpuContext, CpuFault

STUB_BYTES: Final = 1 << 18
HOST_STACK: Final = 1 << 20
"""Of a thread of the host that a guest thread runs on: Python keeps little there."""
SMALLEST_STACK, DEFAULT_STACK, LARGEST_STACK = 1 << 16, 1 << 20, 1 << 30
STACK_START: Final = 64
"""Bytes above the first frame: a function may store its register arguments there (x64 calling convention)."""
MXCSR_AT_START: Final = 0x1F80
"""Rounding to nearest, all exceptions masked (Microsoft: x64 calling convention, MxCsr)."""
FLAGS_AT_START: Final = 0x202
INVALID_OPCODE: Final = 6
BREAKPOINT: Final = 3

Entry = Callable[[int], int]
"""One of our functions: gets the guest address where its arguments lie in a row; gives RAX."""


class _GoOn(Exception):
    """Execution goes on at a context that belongs to an activation further out."""

    def __init__(self, context: CpuContext) -> None:
        super().__init__()
        self.context = context


class ThreadEnd(BaseException):
    """The guest thread ends: unwinds our frames on its stack. No `except Exception` may hold it up."""


class EmulatedX86:
    """An engine: see `Engine` of the personality win32, which this follows.

    `lookup(dll, name)` gives one of our functions, or None; `fault(fault, context)` gives the context to go on with, or
    goes on itself. `failed` is told what a guest thread's body raised. With `every_call` nothing is guest code that
    could be a call of ours: for whoever counts or traces.
    """

    cooperative = True

    def __init__(
        self,
        violation: Callable[[int, bool], Exception],
        lookup: Callable[[str, str], Entry | None],
        fault: Callable[[CpuFault, CpuContext], CpuContext],
        ended: Callable[[int], None],
        failed: Callable[[BaseException], None],
        *,
        every_call: bool = False,
    ) -> None:
        self.memory = AddressSpace(violation)
        self._unicorn = Unicorn()
        self._unicorn.map_host(0, SPACE, self.memory.base)
        self._callbacks = Callbacks(self._unicorn, self.memory)
        self._lookup, self._fault, self._ended, self._failed = lookup, fault, ended, failed
        self._entries: dict[int, Entry] = {}  # by where the processor stands when it has halted there
        self._every_call = every_call
        self._addresses: dict[tuple[str, str], int | None] = {}
        self._stubs = self.memory.map(0, STUB_BYTES, READ | WRITE)
        self._free = self._stubs
        self._return = self._emit(stubs.HALT)
        self.memory.protect(self._stubs, STUB_BYTES, READ | EXECUTE)
        self.memory.code_changed = self._code_changed
        self.memory.rights_reduced = self._unicorn.flush_rights
        self._brief = Registers((library.RIP, library.RSP, library.RAX))
        self._result = Registers((library.RAX,))
        self._arguments = Registers((library.RCX, library.RDX, library.R8, library.R8 + 1, library.RSP))
        self._gs = Registers((library.GS_BASE,))
        self._general = Registers(library.GENERAL)
        self._vectors = Registers(tuple(range(library.XMM0, library.XMM0 + 16)), 16)
        self._mxcsr = Registers((library.MXCSR,))
        self.turns = Turns(lambda thread: self._unicorn.save(thread.context), self._enter)
        self.loops = Loops(self._unicorn, self.memory, self._callbacks)
        self.calls = 0
        self._closed = False
        self._ticks = threading.Thread(target=self._tick, daemon=True)
        self._start_registers()
        first = GuestThread(self._unicorn.new_context())
        first.begun = True
        self.turns.adopt(first)
        self._ticks.start()

    # What the personality asks for -----------------------------------------------------------------------------------

    def resolve(self, dll: str, name: str) -> int | None:
        """The guest address of one of our functions; None where there is none."""
        key = dll, name
        if key not in self._addresses:
            entry = self._lookup(dll, name)
            if entry is None:
                self._addresses[key] = None
            else:
                slow = self.entry_point(entry)
                hot = None if self._every_call else HOT.get(name)
                self._addresses[key] = slow if hot is None else self._emit(hot + self._jump(len(hot), slow))
        return self._addresses[key]

    def entry_point(self, entry: Entry) -> int:
        """A new guest address that calls one of our functions."""
        address = self._emit(stubs.ENTRY_CODE)
        self._entries[address + stubs.HALTED] = entry
        return address

    def call(self, address: int, *arguments: int) -> int:
        """Run a guest function to its return on the current thread, and give its result (RAX)."""
        self._unicorn.load(self._brief)
        outer: int = self._brief.words[1] or self.turns.current.high - STACK_START
        return self._call(outer, outer, address, arguments)

    def call_on(self, stack: int, address: int, *arguments: int) -> int:
        """The same with the stack from there downwards, below what is in use."""
        self._unicorn.load(self._brief)
        return self._call(self._brief.words[1], stack, address, arguments)

    def _call(self, before: int, outer: int, address: int, arguments: tuple[int, ...]) -> int:
        unicorn = self._unicorn
        room = max(len(arguments), 4) * 8
        stack = (outer - room - 0x20 & -16) - 8  # RSP is 8 off a multiple of 16 where a function begins
        memory = self.memory
        memory.set_u64(stack, self._return)
        for index, value in enumerate(arguments[4:]):
            memory.set_u64(stack + 0x28 + 8 * index, value)
        words = self._arguments.words
        for index in range(4):
            words[index] = (arguments[index] if index < len(arguments) else 0) & 0xFFFF_FFFF_FFFF_FFFF
        words[4] = stack
        unicorn.store(self._arguments)
        thread = self.turns.current
        thread.calls.append((stack + 8, before, thread.fault))
        thread.fault = None
        try:
            self._run(address, stack)
        finally:
            thread.fault = thread.calls.pop()[2]
        result: int = self._brief.words[2]
        self._arguments.words[4] = before
        unicorn.store(self._arguments)
        return result

    def end_thread(self) -> NoReturn:
        """Leave the body of the current guest thread at once, through all calls in it, ours and the guest's."""
        raise ThreadEnd

    def make_stack(self, size: int) -> None:
        """Give the current guest thread a stack of that many bytes, with a page below that cannot be used."""
        size = min(-(-max(size, SMALLEST_STACK) // PAGE) * PAGE, LARGEST_STACK)
        low = self.memory.map(0, size + PAGE, READ | WRITE)
        self.memory.protect(low, PAGE, NO_ACCESS)
        thread = self.turns.current
        thread.low, thread.high = low + PAGE, low + PAGE + size
        words = self._arguments.words
        words[4] = thread.high - STACK_START
        self._unicorn.store(self._arguments)

    def stack(self) -> tuple[int, int]:
        """The current guest thread's stack: its lowest address, and the one behind its highest."""
        thread = self.turns.current
        return thread.low, thread.high

    def set_teb(self, teb: int) -> None:
        """GS of the current guest thread."""
        self.turns.current.teb = teb
        self._gs.words[0] = teb
        self._unicorn.store(self._gs)

    def start_thread(self, body: Callable[[], None], stack_size: int) -> None:
        """A new guest thread with a stack of that size, which runs `body`: it makes its TEB and calls its start."""

        def run() -> None:
            self._start_registers()
            self.make_stack(stack_size)
            try:
                body()
            except ThreadEnd:
                pass
            except BaseException as error:  # of ours, or the end of the process: nobody above would see it
                self._failed(error)
            finally:
                self.memory.unmap(thread.low - PAGE, thread.high - thread.low + PAGE)
                self._unicorn.free_context(thread.context)

        thread = GuestThread(self._unicorn.new_context())
        self.turns.start(thread, run, HOST_STACK)

    def wait(self, ready: Callable[[], bool], deadline_ns: int | None) -> bool:
        """Until `ready` or the deadline (monotonic clock) has passed; whether it was `ready`. Others run meanwhile."""
        return self.turns.wait(ready, deadline_ns)

    def wake(self) -> None:
        """What somebody waits for may have become true; may be called from any thread."""
        self.turns.wake()

    def exit(self, status: int) -> None:
        """End the process at once with a Windows exit code. Does not return."""
        self._ended(status)

    # Registers -------------------------------------------------------------------------------------------------------

    def context(self) -> CpuContext:
        """The registers of the guest thread that is stopped here."""
        for registers in (self._general, self._vectors, self._mxcsr):
            self._unicorn.load(registers)
        general = self._general.words.tolist()
        return CpuContext(general, bytes(self._vectors.words.cast("B")), self._mxcsr.words[0] & 0xFFFFFFFF)

    def outer(self, general: list[int], vectors: bytes) -> CpuContext | None:
        """If these are the registers after the return of a function that `call` called: those of the guest outside."""
        if general[RIP] != self._return:
            return None
        for stack, before, fault in self.turns.current.calls:
            if stack == general[RSP]:
                if isinstance(fault, CpuContext):
                    return fault
                if not before:
                    return None
                outside = [*general[:RSP], before + 8, *general[RSP + 1 : RIP], self.memory.u64(before), general[FLAGS]]
                return CpuContext(outside, vectors, MXCSR_AT_START)
        return None

    def continue_at(self, general: list[int], vectors: bytes, mxcsr: int) -> NoReturn:
        """Go on with these registers and never return: our frames between here and there on the stack are unwound."""
        raise _GoOn(CpuContext(general, vectors, mxcsr))

    def doubles(self) -> tuple[float, ...]:
        """XMM0 to XMM3 as numbers: the floating-point arguments of the function that was called."""
        self._unicorn.load(self._vectors)
        values = self._vectors.words.cast("B").cast("d")
        return tuple(values[2 * index] for index in range(4))

    def floats(self) -> tuple[float, ...]:
        """The same in single precision."""
        self._unicorn.load(self._vectors)
        values = self._vectors.words.cast("B").cast("f")
        return tuple(values[4 * index] for index in range(4))

    def set_vector(self, data: bytes) -> None:
        """XMM0, low half: a floating-point result."""
        self._unicorn.load(self._vectors)
        self._vectors.words[0] = int.from_bytes(data.ljust(8, b"\0"), "little")
        self._unicorn.store(self._vectors)

    def flush_instructions(self, start: int, size: int) -> None:
        """Code in this range may have changed."""
        self._code_changed(start, start + max(size, 1))

    def close(self) -> None:
        """Give everything back; no guest thread may run."""
        if not self._closed:
            self._closed = True
            self._ticks.join()
            self._unicorn.close()
            self.memory.close()

    # Inside ----------------------------------------------------------------------------------------------------------

    def _run(self, address: int, stack: int) -> None:
        """Run from `address` to the return of the activation whose frame begins at `stack`."""
        unicorn, brief = self._unicorn, self._brief
        entries, returned = self._entries, self._return + 1
        words, stop = brief.words, self._callbacks.stop
        while True:
            stop.value = 0
            error = unicorn.run(address)
            unicorn.load(brief)
            address = words[0]
            try:
                if error == library.OK and self._callbacks.vector == NO_VECTOR:
                    if address == returned:
                        return
                    entry = entries.get(address)
                    if entry is not None:
                        self.calls += 1
                        address += stubs.GOES_ON - stubs.HALTED
                        self._result.words[0] = entry(words[1] + 8) & 0xFFFF_FFFF_FFFF_FFFF
                        unicorn.store(self._result)
                    else:
                        self._pause(address)
                else:
                    address = self._faulted(error)
            except _GoOn as go_on:
                if go_on.context.general[RSP] > stack:
                    raise
                address = self._load(go_on.context)

    def _pause(self, address: int) -> None:
        """A slice is over, or somebody asked for a stop."""
        self.loops.seen_at(address)
        self.turns.pass_on()

    def _faulted(self, error: int) -> int:
        vector = self._callbacks.take_vector()
        refused = self._callbacks.take_refused()
        if error == library.ERROR_INVALID_INSTRUCTION:
            vector = INVALID_OPCODE
        page, kind = refused if refused and vector == NO_VECTOR else (0, 0)
        context = self.context()
        if vector == BREAKPOINT:
            context.general[RIP] -= 1  # at the instruction, as for faults
        thread = self.turns.current
        thread.fault = context
        try:
            return self._load(self._fault(CpuFault(vector, page, kind), context))
        finally:
            thread.fault = None

    def _load(self, context: CpuContext) -> int:
        """Set all registers; gives the address to go on at."""
        for index, value in enumerate(context.general):
            self._general.words[index] = value
        self._vectors.words.cast("B")[:] = context.vectors
        self._mxcsr.words[0] = context.mxcsr
        for registers in (self._general, self._vectors, self._mxcsr):
            self._unicorn.store(registers)
        return context.general[RIP]

    def _start_registers(self) -> None:
        self._load(CpuContext([0] * 17 + [FLAGS_AT_START], bytes(256), MXCSR_AT_START))

    def _enter(self, thread: GuestThread) -> None:
        if thread.begun:
            self._unicorn.restore(thread.context)
        thread.begun = True  # at its first turn a thread sets its registers itself

    def _emit(self, code: bytes) -> int:
        """Place code for the guest; it may not write there itself."""
        address = self._free
        self._free = -(-(address + len(code)) // stubs.SLOT) * stubs.SLOT
        if self._free > self._stubs + STUB_BYTES:
            raise MemoryError("too many functions")
        ctypes.memmove(self.memory.base + address, code, len(code))
        return address

    def _jump(self, at: int, target: int) -> bytes:
        """A jump, to stand at an offset from where code is emitted next."""
        return b"\xe9" + (target - (self._free + at + 5)).to_bytes(4, "little", signed=True)

    def _code_changed(self, start: int, end: int) -> None:
        self.loops.code_changed(start, end)
        if end - start > 1 << 20:
            self._unicorn.flush_all_code()
            return
        for page in range(start & -PAGE, end, PAGE):  # Unicorn looks up each as code, and does nothing where it is not
            if self.memory.executable(page):
                self._unicorn.flush_code(max(page, start), min(page + PAGE, end))

    def _tick(self) -> None:
        """Another thread of the host: ends slices."""
        while not self._closed:
            time.sleep(SLICE_S)
            if not self._closed:
                self._callbacks.stop.value = 1
