"""The builder evaluated on integers: each description, called with this, carries its instruction out.

A word is an integer from 0 to 2**64 - 1, a bit a bool (or 0 and 1), a float the integer that its bits are. Registers
and all other state of the thread are the words of `vcpus/translator/layout.py`, whether anything is translated or not;
so a thread may change between being interpreted and being translated at any instruction.
"""

import signal
import time
from collections.abc import Callable, MutableSequence
from typing import Final, Literal

from virtus.isa.builder import ILLEGAL, AtomicOperation
from virtus.isa.instruction_set import InstructionSet
from virtus.vcpus.interpreter.code import Code
from virtus.vcpus.interpreter.floats import Floats
from virtus.vcpus.interpreter.memory import Memory, MemoryFault
from virtus.vcpus.interpreter.outcome import CameOut
from virtus.vcpus.interpreter.words import ONES, Words
from virtus.vcpus.translator.layout import (
    EXIT_BREAKPOINT,
    EXIT_FLUSH,
    EXIT_ILLEGAL,
    EXIT_SYSCALL,
    LEAVE_FIRST,
    PC,
    RESERVED_ADDRESS,
    RESERVED_VALUE,
)

NO_RESERVATION: Final = ONES
NANOSECONDS_PER_TICK: Final = 100
"""Of the counter `time` (see Builder.counter)."""


class Evaluator(Words, Floats):
    """A thread's processor; see the module, and `virtus.isa.builder.Builder` for what is not documented here.

    `registers` are at least 80 words of 64 bits in `layout`'s order. `code` may be shared by all threads of an address
    space: it holds what has been fetched until an instruction flushes it, or somebody has it forget.
    A method of memory may raise MemoryFault: it comes out of `step` and `run`, with PC at the instruction and nothing
    of it done.
    """

    def __init__(
        self,
        isa: InstructionSet,
        registers: MutableSequence[int] | memoryview,
        memory: Memory,
        code: Code | None = None,
    ) -> None:
        self.isa = isa
        self.registers = registers
        self.memory = memory
        self.code = Code(isa) if code is None else code
        self.executed = 0
        """Instructions carried out so far, not counting those that came out with a fault or a trap."""
        self.pc = 0
        self._next = 0
        self._outcome = 0
        self.get: Callable[[int], int] = registers.__getitem__  # the sequence's own methods, as the builder's
        self.set: Callable[[int, int], None] = registers.__setitem__

    # Stepping

    def step(self) -> int:
        """Carry out the instruction at PC. 0, or why the thread comes out, an exit of layout's, with PC as it says."""
        return self.run(1)[1]

    def run(self, count: int) -> tuple[int, int]:
        """Carry out up to `count` instructions; how many it were, and what `step` would have returned for the last.

        An instruction that comes out is among them if PC is after it.
        """
        registers, instructions = self.registers, self.code.instructions
        before = self.executed
        self._next = pc = registers[PC]
        self._outcome = 0
        left = count
        try:
            while left > 0:
                found = instructions.get(pc) or self.code.decode(self.memory, pc)
                meaning, instruction, self._next = found
                self.pc = pc
                meaning(self, instruction)
                pc = self._next
                left -= 1
                if self._outcome:
                    break
        except CameOut as reason:
            self._outcome = reason.outcome
        finally:
            registers[PC] = pc
            self.executed += count - left
        return self.executed - before, self._outcome

    # Memory

    def load(self, address: int, size: int, *, signed: bool = False) -> int:  # noqa: D102 # see Builder; likewise below
        value = self.memory.load(address, size)
        if signed and value >> 8 * size - 1:
            return value | ONES << 8 * size & ONES
        return value

    def store(self, address: int, value: int, size: int) -> None:  # noqa: D102
        self.memory.store(address, value, size)

    def fence(self) -> None:
        """One thing is done after the other here anyway."""

    def _aligned(self, address: int, size: int) -> None:
        """Atomic accesses that are not aligned are an error of the bus on Linux (BUS_ADRALN)."""
        if address & size - 1:
            raise MemoryFault(address, signal.SIGBUS)

    def atomic(self, operation: AtomicOperation, address: int, value: int, size: int) -> int:  # noqa: D102
        self._aligned(address, size)
        memory, mask, sign = self.memory, (1 << 8 * size) - 1, 1 << 8 * size - 1
        value &= mask
        while True:
            old = memory.load(address, size)
            if memory.compare_exchange(address, old, _COMBINE[operation](old, value, sign) & mask, size):
                return (old ^ sign) - sign & ONES

    def load_reserved(self, address: int, size: int) -> int:  # noqa: D102
        self._aligned(address, size)
        value = self.load(address, size, signed=True)
        self.registers[RESERVED_ADDRESS], self.registers[RESERVED_VALUE] = address, value
        return value

    def store_conditional(self, address: int, value: int, size: int) -> int:  # noqa: D102
        self._aligned(address, size)
        registers, mask = self.registers, (1 << 8 * size) - 1
        reserved = registers[RESERVED_ADDRESS]
        stored = address == reserved and self.memory.compare_exchange(
            address, registers[RESERVED_VALUE] & mask, value & mask, size
        )
        registers[RESERVED_ADDRESS] = NO_RESERVATION
        return 0 if stored else 1

    # Counters

    def counter(self, name: Literal["cycle", "time", "instructions"]) -> int:
        """By the host's clock, which grows on whether interpreted or translated; one a nanosecond but for `time`."""
        now = time.monotonic_ns()
        return now // NANOSECONDS_PER_TICK if name == "time" else now

    # Where it goes on

    def jump(self, target: int) -> None:  # noqa: D102
        self._next = target & ONES

    def branch(self, condition: bool, target: int) -> None:  # noqa: D102
        if condition:
            self._next = target & ONES

    def jump_to(self, target: int, *, is_return: bool = False) -> None:  # noqa: D102
        self._next = target

    def call(self, target: int, link: int) -> None:  # noqa: D102
        self._next = target & ONES

    def call_to(self, target: int, link: int) -> None:  # noqa: D102
        self._next = target

    def system_call(self) -> None:  # noqa: D102
        self._outcome = EXIT_SYSCALL

    def flush_instructions(self) -> None:  # noqa: D102
        self.code.forget()
        self._outcome = EXIT_FLUSH

    def trap(self, kind: Literal["illegal", "breakpoint"]) -> None:  # noqa: D102
        raise CameOut(EXIT_ILLEGAL if kind == ILLEGAL else EXIT_BREAKPOINT)

    def leave_if(self, condition: bool, reason: int) -> None:  # noqa: D102
        if condition:
            raise CameOut(LEAVE_FIRST + reason)


_COMBINE: Final[dict[AtomicOperation, Callable[[int, int, int], int]]] = {
    "add": lambda old, value, sign: old + value,
    "swap": lambda old, value, sign: value,
    "xor": lambda old, value, sign: old ^ value,
    "or": lambda old, value, sign: old | value,
    "and": lambda old, value, sign: old & value,
    "min": lambda old, value, sign: old if old ^ sign < value ^ sign else value,
    "max": lambda old, value, sign: value if old ^ sign < value ^ sign else old,
    "minu": lambda old, value, sign: min(old, value),
    "maxu": lambda old, value, sign: max(old, value),
}
