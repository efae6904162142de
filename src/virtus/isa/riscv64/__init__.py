"""RISC-V with 64 bits as a user-mode program sees it: RV64GC with Zba, Zbb and Zbs."""

from typing import Final

from virtus.isa.riscv64 import control, floating, integers, memory
from virtus.isa.riscv64.decode import decode
from virtus.isa.riscv64.instruction import Instruction
from virtus.isa.riscv64.meaning import MEANINGS, Meaning
from virtus.isa.riscv64.registers import CALL_REGISTERS, NAMES

DESCRIBED: Final = (integers, memory, floating, control)
"""The modules whose import fills the table of meanings."""


class Riscv64:
    """See `virtus.isa.instruction_set.InstructionSet`."""

    name = "riscv64"
    version = 1
    register_names: tuple[str, ...] = NAMES
    call_registers: tuple[int, ...] = CALL_REGISTERS
    longest = 4

    def decode(self, code: bytes | memoryview, offset: int) -> Instruction:
        """See InstructionSet."""
        return decode(code, offset)

    def describe(self, instruction: Instruction) -> Meaning:
        """See InstructionSet."""
        return MEANINGS[instruction.name]

    def show(self, instruction: Instruction, pc: int) -> str:
        """See InstructionSet."""
        from virtus.isa.riscv64.show import show

        return show(instruction, pc)


RISCV64: Final = Riscv64()
