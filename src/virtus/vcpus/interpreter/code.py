"""What the interpreter has made of guest code, for all threads of an address space: decoded, and compiled to Python."""

from collections.abc import Callable
from typing import Any

from virtus.isa.instruction_set import InstructionSet
from virtus.vcpus.interpreter.memory import Memory, MemoryFault
from virtus.vcpus.interpreter.words import ALL, ONES

Decoded = tuple[Callable[[Any, Any], None], Any, int]
"""The description, the instruction, and the address of the next one."""


class Code:
    """Instructions by address as they were when first fetched, until somebody says that they may have changed."""

    def __init__(self, isa: InstructionSet) -> None:
        self.isa = isa
        self.instructions: dict[int, Decoded] = {}

    def decode(self, memory: Memory, pc: int) -> Decoded:
        """Fetch an instruction that is not known yet; raises MemoryFault where it cannot be read whole."""
        code = memory.fetch(pc)
        instruction = self.isa.decode(bytes(code).ljust(self.isa.longest, b"\0"), 0)
        if len(code) < instruction.size or not code:
            raise MemoryFault(pc + len(code))  # it goes on where there is no memory
        following = pc + instruction.size & ONES
        found = self.instructions[pc] = (self.isa.describe(instruction), instruction, following)
        return found

    def forget(self, start: int = 0, size: int = ALL) -> None:
        """Code in this range may have changed."""
        low, high = start - self.isa.longest, start + size
        if size < len(self.instructions):
            for pc in range(low + 1, high):
                self.instructions.pop(pc, None)
        else:
            for pc in [pc for pc in self.instructions if low < pc < high]:
                del self.instructions[pc]
