"""What integer instructions mean: RV64I, M, Zba, Zbb, Zbs. Source: RISC-V ISA manual, volume I."""

from collections.abc import Callable
from typing import Final

from virtus.isa.builder import Builder, Predicate, Word
from virtus.isa.riscv64.instruction import Instruction
from virtus.isa.riscv64.meaning import MEANINGS, Meaning, means, read, write

Operation = Callable[[Builder, Word, Word], Word]
LOWEST: Final = -(1 << 63)


def _count(b: Builder, word: Word, bits: int) -> Word:
    """The part of a word that a shift looks at."""
    return b.and_(word, b.const(bits - 1))


def _low(operation: Operation) -> Operation:
    """An operation on the low halves, sign-extended."""
    return lambda b, x, y: b.sign_extend(operation(b, x, y), 32)


def _rotate(b: Builder, word: Word, count: Word, bits: int) -> Word:
    """To the right; `word` is zero-extended from `bits`, the result is what has wrapped in the low `bits`."""
    back = b.and_(b.sub(b.const(0), count), b.const(bits - 1))
    return b.or_(b.shift_right(word, count), b.shift_left(word, back))


def _rotate_right(b: Builder, x: Word, y: Word) -> Word:
    return _rotate(b, x, _count(b, y, 64), 64)


def _rotate_right_32(b: Builder, x: Word, y: Word) -> Word:
    return b.sign_extend(_rotate(b, b.zero_extend(x, 32), _count(b, y, 32), 32), 32)


def _complement(b: Builder, word: Word) -> Word:
    return b.xor(word, b.const(-1))


def _single_bit(b: Builder, y: Word) -> Word:
    return b.shift_left(b.const(1), _count(b, y, 64))


def _scaled(by: int) -> Operation:
    return lambda b, x, y: b.add(b.shift_left(x, b.const(by)), y)


def _scaled_unsigned(by: int) -> Operation:
    return lambda b, x, y: b.add(b.shift_left(b.zero_extend(x, 32), b.const(by)), y)


def _lesser(predicate: Predicate, *, greater: bool) -> Operation:
    def choose(b: Builder, x: Word, y: Word) -> Word:
        less = b.compare(predicate, x, y)
        return b.select(less, y, x) if greater else b.select(less, x, y)

    return choose


BINARY: Final[dict[str, Operation]] = {
    "add": lambda b, x, y: b.add(x, y),
    "sub": lambda b, x, y: b.sub(x, y),
    "xor": lambda b, x, y: b.xor(x, y),
    "or": lambda b, x, y: b.or_(x, y),
    "and": lambda b, x, y: b.and_(x, y),
    "sll": lambda b, x, y: b.shift_left(x, _count(b, y, 64)),
    "srl": lambda b, x, y: b.shift_right(x, _count(b, y, 64)),
    "sra": lambda b, x, y: b.shift_right_signed(x, _count(b, y, 64)),
    "slt": lambda b, x, y: b.word(b.compare("slt", x, y)),
    "sltu": lambda b, x, y: b.word(b.compare("ult", x, y)),
    "addw": _low(lambda b, x, y: b.add(x, y)),
    "subw": _low(lambda b, x, y: b.sub(x, y)),
    "sllw": _low(lambda b, x, y: b.shift_left(x, _count(b, y, 32))),
    "srlw": _low(lambda b, x, y: b.shift_right(b.zero_extend(x, 32), _count(b, y, 32))),
    "sraw": lambda b, x, y: b.shift_right_signed(b.sign_extend(x, 32), _count(b, y, 32)),
    "mul": lambda b, x, y: b.mul(x, y),
    "mulw": _low(lambda b, x, y: b.mul(x, y)),
    "mulh": lambda b, x, y: b.multiply_high(x, y, signed_a=True, signed_b=True),
    "mulhu": lambda b, x, y: b.multiply_high(x, y, signed_a=False, signed_b=False),
    "mulhsu": lambda b, x, y: b.multiply_high(x, y, signed_a=True, signed_b=False),
    "sh1add": _scaled(1),
    "sh2add": _scaled(2),
    "sh3add": _scaled(3),
    "add.uw": _scaled_unsigned(0),
    "sh1add.uw": _scaled_unsigned(1),
    "sh2add.uw": _scaled_unsigned(2),
    "sh3add.uw": _scaled_unsigned(3),
    "andn": lambda b, x, y: b.and_(x, _complement(b, y)),
    "orn": lambda b, x, y: b.or_(x, _complement(b, y)),
    "xnor": lambda b, x, y: _complement(b, b.xor(x, y)),
    "min": _lesser("slt", greater=False),
    "minu": _lesser("ult", greater=False),
    "max": _lesser("slt", greater=True),
    "maxu": _lesser("ult", greater=True),
    "ror": _rotate_right,
    "rol": lambda b, x, y: _rotate_right(b, x, b.sub(b.const(0), y)),
    "rorw": _rotate_right_32,
    "rolw": lambda b, x, y: _rotate_right_32(b, x, b.sub(b.const(0), y)),
    "bclr": lambda b, x, y: b.and_(x, _complement(b, _single_bit(b, y))),
    "bset": lambda b, x, y: b.or_(x, _single_bit(b, y)),
    "binv": lambda b, x, y: b.xor(x, _single_bit(b, y)),
    "bext": lambda b, x, y: b.and_(b.shift_right(x, _count(b, y, 64)), b.const(1)),
}
WITH_IMMEDIATE: Final = {
    "addi": "add", "slti": "slt", "sltiu": "sltu", "xori": "xor", "ori": "or", "andi": "and", "addiw": "addw",
    "slli": "sll", "srli": "srl", "srai": "sra", "slliw": "sllw", "srliw": "srlw", "sraiw": "sraw",
    "rori": "ror", "roriw": "rorw", "bclri": "bclr", "bexti": "bext", "binvi": "binv", "bseti": "bset",
}  # fmt: skip
UNARY: Final[dict[str, Callable[[Builder, Word], Word]]] = {
    "clz": lambda b, x: b.leading_zeros(x, 64),
    "ctz": lambda b, x: b.trailing_zeros(x, 64),
    "cpop": lambda b, x: b.population(x),
    "clzw": lambda b, x: b.leading_zeros(x, 32),
    "ctzw": lambda b, x: b.trailing_zeros(x, 32),
    "cpopw": lambda b, x: b.population(b.zero_extend(x, 32)),
    "sext.b": lambda b, x: b.sign_extend(x, 8),
    "sext.h": lambda b, x: b.sign_extend(x, 16),
    "zext.h": lambda b, x: b.zero_extend(x, 16),
    "rev8": lambda b, x: b.swap_bytes(x),
}


def _of_registers(operation: Operation) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        if i.rd:
            b.set(i.rd, operation(b, read(b, i.rs1), read(b, i.rs2)))

    return meaning


def _with_immediate(operation: Operation) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        if i.rd:
            b.set(i.rd, operation(b, read(b, i.rs1), b.const(i.immediate)))

    return meaning


def _of_one(operation: Callable[[Builder, Word], Word]) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        if i.rd:
            b.set(i.rd, operation(b, read(b, i.rs1)))

    return meaning


MEANINGS.update({name: _of_registers(operation) for name, operation in BINARY.items()})
MEANINGS.update({name: _with_immediate(BINARY[plain]) for name, plain in WITH_IMMEDIATE.items()})
MEANINGS.update({name: _of_one(operation) for name, operation in UNARY.items()})


@means("slli.uw")
def _slli_uw(b: Builder, i: Instruction) -> None:
    write(b, i.rd, b.shift_left(b.zero_extend(read(b, i.rs1), 32), b.const(i.immediate)))


@means("orc.b")
def _orc_b(b: Builder, i: Instruction) -> None:
    """Each byte becomes all ones, unless it is zero."""
    word = read(b, i.rs1)
    lows = b.const(0x7F7F7F7F7F7F7F7F)
    filled = b.or_(b.add(b.and_(word, lows), lows), word)  # the top bit of a byte says whether it is not zero
    tops = b.and_(b.shift_right(filled, b.const(7)), b.const(0x0101010101010101))
    write(b, i.rd, b.mul(tops, b.const(0xFF)))


@means("lui")
def _lui(b: Builder, i: Instruction) -> None:
    write(b, i.rd, b.const(i.immediate))


@means("auipc")
def _auipc(b: Builder, i: Instruction) -> None:
    write(b, i.rd, b.const(b.pc + i.immediate))


def _quotient(b: Builder, x: Word, y: Word, *, signed: bool, rest: bool) -> Word:
    """Division without traps (chapter "M", table "Semantics for division by zero and division overflow")."""
    zero = b.compare("eq", y, b.const(0))
    refused = zero
    if signed:
        overflow = b.both(b.compare("eq", x, b.const(LOWEST)), b.compare("eq", y, b.const(-1)))
        refused = b.either(zero, overflow)
    divisor = b.select(refused, b.const(1), y)  # LOWEST / 1 is LOWEST, and its rest 0: as overflow wants it
    if rest:
        return b.select(zero, x, b.remainder(x, divisor, signed=signed))
    return b.select(zero, b.const(-1), b.divide(x, divisor, signed=signed))


def _divides(*, signed: bool, rest: bool, half: bool) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        x, y = read(b, i.rs1), read(b, i.rs2)
        if half:
            extend = b.sign_extend if signed else b.zero_extend
            x, y = extend(x, 32), extend(y, 32)
        result = _quotient(b, x, y, signed=signed, rest=rest)
        write(b, i.rd, b.sign_extend(result, 32) if half else result)

    return meaning


for _suffix, _half in (("", False), ("w", True)):
    means("div" + _suffix)(_divides(signed=True, rest=False, half=_half))
    means("divu" + _suffix)(_divides(signed=False, rest=False, half=_half))
    means("rem" + _suffix)(_divides(signed=True, rest=True, half=_half))
    means("remu" + _suffix)(_divides(signed=False, rest=True, half=_half))
