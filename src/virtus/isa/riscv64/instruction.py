"""A decoded instruction of RV64GC."""

from typing import Final

ILLEGAL: Final = "illegal"


class Instruction:
    """`name` is the operation's mnemonic; a compressed instruction has its expansion's, and size 2.

    `rd`, `rs1`, `rs2`, `rs3` are register numbers 0..31 (integer or floating-point, as the operation has it),
    `immediate` is signed and already scaled, `rounding` the rm field, `code` the encoding.
    """

    __slots__ = ("code", "immediate", "name", "rd", "rounding", "rs1", "rs2", "rs3", "size")

    def __init__(
        self,
        name: str,
        size: int,
        code: int,
        rd: int = 0,
        rs1: int = 0,
        rs2: int = 0,
        immediate: int = 0,
        rs3: int = 0,
        rounding: int = 7,
    ) -> None:
        self.name, self.size, self.code = name, size, code
        self.rd, self.rs1, self.rs2, self.rs3 = rd, rs1, rs2, rs3
        self.immediate, self.rounding = immediate, rounding

    def __repr__(self) -> str:
        return (
            f"<{self.name} rd={self.rd} rs1={self.rs1} rs2={self.rs2} rs3={self.rs3} imm={self.immediate} "
            f"rm={self.rounding} size={self.size}>"
        )


def illegal(code: int, size: int) -> Instruction:
    """An encoding that means nothing."""
    return Instruction(ILLEGAL, size, code)


def signed(value: int, bits: int) -> int:
    """The low `bits` of `value` as a two's complement number."""
    sign = 1 << (bits - 1)
    return (value & (2 * sign - 1) ^ sign) - sign
