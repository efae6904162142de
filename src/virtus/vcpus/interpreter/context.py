"""A guest thread under the interpreter: its registers are here, its memory in a stub process.

The stub does no more than hold the guest's memory and execute the calls that build it.
"""

import ctypes
from typing import TYPE_CHECKING, Final

from virtus.isa.instruction_set import InstructionSet
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.records import dataclass, field
from virtus.vcpus.foreign import NO_SYSCALL, ForeignContext, account
from virtus.vcpus.interpreter.blocks import CompiledCode
from virtus.vcpus.interpreter.pages import PageMemory
from virtus.vcpus.interpreter.watched import WatchedMemory, Watchpoint
from virtus.vcpus.ptrace import StubContext
from virtus.vcpus.translator import float_state, layout
from virtus.vcpus.translator.intervals import Intervals

if TYPE_CHECKING:
    from virtus.vcpus.interpreter.vcpu import InterpreterVcpu

WORDS: Final = 96
"""Of a state block, as far as the interpreter uses it (`translator/layout.py`)."""
_MMAP, _MUNMAP = NUMBERS["mmap"], NUMBERS["munmap"]


class AddressSpace:
    """What the threads of an address space share."""

    def __init__(self, isa: InstructionSet, ident: int) -> None:
        self.contexts: list[InterpretedContext] = []
        self.executable = Intervals()
        self.code = CompiledCode(isa)
        self.memory = PageMemory(ident, self.executable)
        self.seen: PageMemory | WatchedMemory = self.memory  # as threads access it
        self.breakpoints: frozenset[int] = frozenset()
        self.programs = 0  # how often it has been emptied for a new one

    def copy(self, isa: InstructionSet, ident: int) -> "AddressSpace":
        """What a fork of the address space begins with; nobody debugs it."""
        other = AddressSpace(isa, ident)
        other.executable = other.memory.executable = self.executable.copy()
        other.code.instructions.update(self.code.instructions)
        return other

    def stop_at(self, addresses: frozenset[int]) -> None:
        """Threads come out when they are about to execute one of these instructions (see `Halt`)."""
        self.breakpoints = addresses
        self.code.stop_at(addresses)

    def watch(self, watchpoints: frozenset[Watchpoint]) -> None:
        """Threads come out after these accesses."""
        self.seen = WatchedMemory(self.memory, watchpoints) if watchpoints else self.memory
        for context in self.contexts:
            context.evaluator.memory = self.seen


@dataclass(frozen=True, slots=True)
class Halt:
    """A thread has come out for its debugger: at a breakpoint, after a step, or after an access that was watched."""

    address: int
    """Of the instruction that is next; for a watched access that of the data."""
    watched: str = ""
    """`watch`, `rwatch` or `awatch`, as it was asked for."""
    step: bool = False


@dataclass(slots=True)
class Debugging:
    """What a debugger asks of one thread."""

    step: bool = False
    """To come out after one instruction."""
    stepped: bool = False
    """That instruction has been executed; it came out for another reason first."""
    held: bool = False
    """Not to run, whoever resumes it."""
    free: bool = False
    """It runs over breakpoints."""
    halt: Halt | None = field(default=None)
    """Why it came out last, when that was for the debugger."""


class InterpretedContext(ForeignContext):
    """See `virtus.exits.Context`; `regs` are words of a state block."""

    def __init__(self, vcpu: "InterpreterVcpu", host: StubContext, space: AddressSpace) -> None:
        super().__init__(host)
        self.vcpu = vcpu
        self.space = space
        self.running = self.kicked = False
        self.debugging = Debugging()
        self._block = (ctypes.c_uint64 * WORDS)()
        self.regs = memoryview(self._block).cast("B").cast("Q")
        self.regs[layout.RESERVED_ADDRESS] = self.regs[layout.SYSCALL_NUMBER] = NO_SYSCALL
        self.regs[layout.MXCSR] = float_state.INITIAL
        self.evaluator = vcpu.evaluator(self.regs, space)
        space.contexts.append(self)

    def resume(self) -> None:
        """See Context."""
        self.vcpu.resume(self)

    def kick(self) -> None:
        """See Context."""
        self.kicked = self.running

    def kill(self) -> None:
        """See Context."""
        self.vcpu.kill(self)

    def inject(self, number: int, *arguments: int) -> int:
        """See Context. Keeps account of what may be executed."""
        result = self.host.inject(number, *arguments)
        mapped = account(self.space.executable, number, arguments, result)
        if mapped is not None:
            for start, end in mapped.changed:
                self.flush_instructions(start, end - start)
            if self.vcpu.observer is not None and mapped.executable and number == _MMAP and arguments[4] >= 0:
                self.vcpu.observer.mapped(self, *mapped.executable, arguments[4], arguments[5])
        return result

    def flush_instructions(self, start: int, size: int) -> None:
        """See Context."""
        self.space.code.forget(start, size)

    def precise_faults(self) -> None:
        """See Context. They always are."""

    def fork(self, *, share_memory: bool) -> "InterpretedContext":
        """See Context."""
        return self.vcpu.fork(self, share_memory=share_memory)

    def fresh(self) -> "InterpretedContext":
        """See Context."""
        return self.vcpu.fresh()

    def empty(self) -> None:
        """See Context."""
        self.host.inject(_MUNMAP, 0, layout.GUEST_END)
        self.space.executable.remove(0, layout.GUEST_END)
        self.space.code.forget()
        self.space.programs += 1
        for register in range(64):
            self.regs[register] = 0
        self.regs[layout.MXCSR], self.regs[layout.ROUNDING] = float_state.INITIAL, 0
        self.regs[layout.RESERVED_ADDRESS] = NO_SYSCALL
        if self.vcpu.observer is not None:
            self.vcpu.observer.emptied(self)
