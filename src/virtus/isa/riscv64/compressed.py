"""Decoding of 16-bit instructions (extension C with F and D): each becomes what it stands for, with size 2.

Source: RISC-V ISA manual, volume I, chapter "C", tables "Instruction listing for RVC, Quadrant 0, 1, 2".
"""

from virtus.isa.riscv64.instruction import Instruction, illegal, signed
from virtus.isa.riscv64.registers import RA, SP


def decode_compressed(code: int) -> Instruction:
    """The instruction that 16 bits stand for; reserved ones are illegal, hints have no effect."""
    found = (_quadrant_0, _quadrant_1, _quadrant_2)[code & 3](code)
    return found if found is not None else illegal(code, 2)


def _make(name: str, code: int, rd: int = 0, rs1: int = 0, rs2: int = 0, immediate: int = 0) -> Instruction:
    return Instruction(name, 2, code, rd, rs1, rs2, immediate)


def _bits(code: int, high: int, low: int) -> int:
    return code >> low & (1 << high - low + 1) - 1


def _upper_register(code: int) -> int:
    """rs1' or rd' in bits 9..7."""
    return (code >> 7 & 7) + 8


def _lower_register(code: int) -> int:
    """rs2' or rd' in bits 4..2."""
    return (code >> 2 & 7) + 8


def _immediate_6(code: int) -> int:
    return signed((code >> 12 & 1) << 5 | code >> 2 & 31, 6)


def _quadrant_0(code: int) -> Instruction | None:
    kind = code >> 13
    base, register = _upper_register(code), _lower_register(code)
    if kind == 0:
        offset = _bits(code, 10, 7) << 6 | _bits(code, 12, 11) << 4 | _bits(code, 5, 5) << 3 | _bits(code, 6, 6) << 2
        return _make("addi", code, register, SP, 0, offset) if offset else None
    word = _bits(code, 5, 5) << 6 | _bits(code, 12, 10) << 3 | _bits(code, 6, 6) << 2
    double = _bits(code, 6, 5) << 6 | _bits(code, 12, 10) << 3
    if kind in (1, 2, 3):
        name = ("fld", "lw", "ld")[kind - 1]
        return _make(name, code, register, base, 0, word if kind == 2 else double)
    if kind in (5, 6, 7):
        name = ("fsd", "sw", "sd")[kind - 5]
        return _make(name, code, 0, base, register, word if kind == 6 else double)
    return None


def _quadrant_1(code: int) -> Instruction | None:
    kind, register, immediate = code >> 13, _bits(code, 11, 7), _immediate_6(code)
    if kind == 0:
        return _make("addi", code, register, register, 0, immediate)
    if kind == 1:
        return _make("addiw", code, register, register, 0, immediate) if register else None
    if kind == 2:
        return _make("addi", code, register, 0, 0, immediate)
    if kind == 3:
        if not immediate:
            return None
        if register != SP:
            return _make("lui", code, register, 0, 0, immediate << 12)
        offset = (
            _bits(code, 12, 12) << 9 | _bits(code, 4, 3) << 7 | _bits(code, 5, 5) << 6
            | _bits(code, 2, 2) << 5 | _bits(code, 6, 6) << 4
        )  # fmt: skip
        return _make("addi", code, SP, SP, 0, signed(offset, 10))
    if kind == 4:
        return _arithmetic(code, immediate)
    if kind == 5:
        offset = (
            _bits(code, 12, 12) << 11 | _bits(code, 8, 8) << 10 | _bits(code, 10, 9) << 8 | _bits(code, 6, 6) << 7
            | _bits(code, 7, 7) << 6 | _bits(code, 2, 2) << 5 | _bits(code, 11, 11) << 4 | _bits(code, 5, 3) << 1
        )  # fmt: skip
        return _make("jal", code, 0, 0, 0, signed(offset, 12))
    offset = (
        _bits(code, 12, 12) << 8 | _bits(code, 6, 5) << 6 | _bits(code, 2, 2) << 5
        | _bits(code, 11, 10) << 3 | _bits(code, 4, 3) << 1
    )  # fmt: skip
    return _make("beq" if kind == 6 else "bne", code, 0, _upper_register(code), 0, signed(offset, 9))


def _arithmetic(code: int, immediate: int) -> Instruction | None:
    register, other = _upper_register(code), _lower_register(code)
    kind = _bits(code, 11, 10)
    if kind < 2:
        return _make("srli" if kind == 0 else "srai", code, register, register, 0, immediate & 63)
    if kind == 2:
        return _make("andi", code, register, register, 0, immediate)
    if code >> 12 & 1:
        name = ("subw", "addw", "", "")[_bits(code, 6, 5)]
    else:
        name = ("sub", "xor", "or", "and")[_bits(code, 6, 5)]
    return _make(name, code, register, register, other) if name else None


def _quadrant_2(code: int) -> Instruction | None:
    kind, register, other = code >> 13, _bits(code, 11, 7), _bits(code, 6, 2)
    word = _bits(code, 3, 2) << 6 | _bits(code, 12, 12) << 5 | _bits(code, 6, 4) << 2
    double = _bits(code, 4, 2) << 6 | _bits(code, 12, 12) << 5 | _bits(code, 6, 5) << 3
    if kind == 0:
        return _make("slli", code, register, register, 0, _immediate_6(code) & 63)
    if kind == 1:
        return _make("fld", code, register, SP, 0, double)
    if kind in (2, 3):
        name, offset = ("lw", word) if kind == 2 else ("ld", double)
        return _make(name, code, register, SP, 0, offset) if register else None
    if kind == 4:
        return _jumps_and_moves(code, register, other)
    if kind == 6:
        return _make("sw", code, 0, SP, other, _bits(code, 8, 7) << 6 | _bits(code, 12, 9) << 2)
    offset = _bits(code, 9, 7) << 6 | _bits(code, 12, 10) << 3
    return _make("fsd" if kind == 5 else "sd", code, 0, SP, other, offset)


def _jumps_and_moves(code: int, register: int, other: int) -> Instruction | None:
    if not code >> 12 & 1:
        if other:
            return _make("add", code, register, 0, other)
        return _make("jalr", code, 0, register) if register else None
    if other:
        return _make("add", code, register, register, other)
    return _make("jalr", code, RA, register) if register else _make("ebreak", code)
