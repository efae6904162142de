"""The IBM 7070 Data Processing System (1960) as a processor: words of ten decimal digits and a sign.

Where a subject is treated in the Reference Manual (A22-7003, 1960) is named by its section there. What instructions do
was checked against the simulator of Open SIMH (I7000/i7070_cpu.c); docs/ibm7070.md says where this machine differs.
"""

from collections.abc import Callable
from typing import Any, Final

from virtus.isa.builder import Builder
from virtus.isa.ibm7070 import accumulators, blocks, control, editing, floating, indexing, products, shifts
from virtus.isa.ibm7070.decode import Instruction, decode, decode_word, show_instruction
from virtus.isa.ibm7070.layout import NAMES, WORD
from virtus.isa.ibm7070.meaning import MEANINGS
from virtus.isa.ibm7070.word import replaced

DESCRIBED: Final = (accumulators, products, shifts, indexing, control, blocks, editing, floating)
"""The modules whose import fills the table of meanings."""


class Ibm7070:
    """See `virtus.isa.instruction_set.InstructionSet`. An address is that of eight bytes (see `layout`)."""

    name = "ibm7070"
    version = 1
    register_names: tuple[str, ...] = NAMES
    call_registers: tuple[int, ...] = ()
    longest = WORD
    faults = False
    """Addresses are in bounds by construction: an access to memory is never a fault."""

    def decode(self, code: bytes | memoryview, offset: int) -> Instruction:
        """See InstructionSet."""
        return decode(code, offset)

    def describe(self, instruction: Instruction) -> Callable[[Builder, Any], None]:
        """See InstructionSet."""
        return MEANINGS[instruction.name]

    def resolved(self, word: int, operand: int) -> Instruction:
        """The instruction in a word whose effective address is known: without index word, with that address."""
        return decode_word(replaced(replaced(word, 2, 3, 0), 6, 9, operand))

    def show(self, instruction: Instruction, pc: int) -> str:
        """See InstructionSet."""
        return show_instruction(instruction)


IBM7070: Final = Ibm7070()
