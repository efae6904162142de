"""Just enough of x86-64's encoding for the instructions that the hypervisor executes for a guest's kernel.

Source: Intel SDM volume 2A, 2.1 and 2.2 (prefixes, ModRM, SIB). The bytes are a guest's: a decoder never looks beyond.
"""

from typing import Final

from virtus.personalities.xen.abi import Refused
from virtus.records import dataclass

LONGEST: Final = 15
PREFIXES: Final = frozenset({0x66, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, 0xF0})
OPERAND_SIZE: Final = 0x66
REGISTERS: Final = (0, 2, 3, 1, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15)
"""From an instruction's register number (rax rcx rdx rbx rsp rbp rsi rdi) to its place in struct kvm_regs."""
UNKNOWN: Final = 0


@dataclass(frozen=True, slots=True)
class Instruction:
    """A decoded head: prefixes, opcode (two-byte opcodes have 0x0F00 added) and, where asked for, ModRM."""

    opcode: int
    at: int  # of the byte behind the opcode
    rex: int
    narrow: bool  # has the operand-size prefix
    code: bytes

    @property
    def size(self) -> int:
        """The operand size of instructions that have one by prefix, in bytes."""
        return 8 if self.rex & 8 else 2 if self.narrow else 4

    def byte(self, offset: int = 0) -> int:
        """A byte behind the opcode; raises Refused beyond the end."""
        if self.at + offset >= len(self.code):
            raise Refused(UNKNOWN, "a truncated instruction")
        return self.code[self.at + offset]

    @property
    def register(self) -> int:
        """The register of ModRM.reg, as a place in `regs`."""
        return REGISTERS[self.byte() >> 3 & 7 | (self.rex & 4) << 1]

    @property
    def extension(self) -> int:
        """ModRM.reg as a part of the opcode."""
        return self.byte() >> 3 & 7

    @property
    def base(self) -> int:
        """The register of ModRM.rm, where it names a register."""
        return REGISTERS[self.byte() & 7 | (self.rex & 1) << 3]

    @property
    def in_memory(self) -> bool:
        """Whether ModRM names memory."""
        return self.byte() >> 6 != 3

    def behind_operand(self) -> int:
        """Where an immediate begins, or the next instruction: behind ModRM, SIB and displacement."""
        modrm = self.byte()
        mode, rm = modrm >> 6, modrm & 7
        length = 1 + {0: 0, 1: 1, 2: 4, 3: 0}[mode]
        if mode != 3 and rm == 4:
            length += 1
            if mode == 0 and self.byte(1) & 7 == 5:
                length += 4
        elif mode == 0 and rm == 5:
            length += 4
        return self.at + length

    def immediate(self, at: int, size: int) -> int:
        """A sign-extended immediate as an unsigned 64-bit number; raises Refused beyond the end."""
        if at + size > len(self.code):
            raise Refused(UNKNOWN, "a truncated instruction")
        return int.from_bytes(self.code[at : at + size], "little", signed=True) & (1 << 64) - 1


def decode(code: bytes) -> Instruction:
    """The head of the instruction at the start of `code`; raises Refused where it is no instruction that fits."""
    at, rex, narrow = 0, 0, False
    while at < len(code) and code[at] in PREFIXES:
        narrow |= code[at] == OPERAND_SIZE
        at += 1
    if at < len(code) and code[at] & 0xF0 == 0x40:
        rex = code[at]
        at += 1
    if at < len(code) and code[at] == 0x0F:
        at += 1
        if at < len(code):
            return Instruction(0x0F00 | code[at], at + 1, rex, narrow, code)
    elif at < len(code):
        return Instruction(code[at], at + 1, rex, narrow, code)
    raise Refused(UNKNOWN, "no instruction")
