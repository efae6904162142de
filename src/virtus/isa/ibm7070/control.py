"""Descriptions: branches on indicators and accumulators, signs, switches, and what is left to the rest of the
machine."""

from typing import Final

from virtus.isa.builder import ILLEGAL, Builder, Word
from virtus.isa.ibm7070.decode import INVALID, Instruction
from virtus.isa.ibm7070.digits import field, is_alpha, is_minus, magnitude, replaced, sign
from virtus.isa.ibm7070.indexing import branch_if, known_target
from virtus.isa.ibm7070.layout import (
    AC1,
    ASSIGNED,
    COMPARED,
    EQUAL,
    FIELD_OVERFLOW,
    FIELD_OVERFLOWS,
    FLOAT_OVERFLOW,
    FLOAT_UNDERFLOW,
    HALT,
    HALTS,
    HIGH,
    LOW,
    OVERFLOW1,
    SENSED,
    SENSES,
    SIGN_CHANGE,
    SIGN_CHANGES,
    SWITCHES,
)
from virtus.isa.ibm7070.meaning import (
    Place,
    accumulator,
    assigned,
    branch_target,
    means,
    operand,
    spend,
)
from virtus.isa.ibm7070.word import ALPHA, ALPHA_DIGIT, MINUS, MINUS_DIGIT, PLUS_DIGIT, SIGNS

BITS_OF_DIGIT: Final = {PLUS_DIGIT: 0, MINUS_DIGIT: MINUS, ALPHA_DIGIT: ALPHA}
OUTSIDE: Final = (
    "BAS", "BCB", "QR", "QW", "PC", "PR", "US", "UR", "UW", "UWIV", "TYP", "BAL", "BUL", "BQL", "BTL",
    "ULN", "QLN", "TLN", "ULF", "QLF", "TLF",
    *(prefix + name for prefix in ("", "P") for name in (
        "TR", "TRR", "TW", "TWR", "TWZ", "TWC", "TSF", "TSB", "TRA",
        "TSEL", "TM", "TRW", "TRU", "TRB", "TSM", "TSK", "TEF", "TSLD", "TSHD",
    )),
)  # fmt: skip


@means(INVALID)
def invalid(b: Builder, i: Instruction) -> None:
    """An operation code that is none, or an alpha word."""
    b.trap(ILLEGAL)


@means(*OUTSIDE)
def outside(b: Builder, i: Instruction) -> None:
    """Devices, switches and priority do it."""
    assigned(b, i, ASSIGNED)


@means("HB", "HP")
def halt(b: Builder, i: Instruction) -> None:
    """Halt, and branch (HB) or proceed (HP) when started again."""
    assigned(b, i, HALT)


@means("NOP")
def nothing(b: Builder, i: Instruction) -> None:
    """Let time pass."""
    spend(b, i)


@means("B")
def branch(b: Builder, i: Instruction) -> None:
    """Go there."""
    if i.index:
        target = branch_target(b, i)
        spend(b, i)
        b.jump_to(target)
    else:
        spend(b, i)
        b.jump(known_target(i))


@means("BZ1", "BZ2", "BZ3")
def branch_zero(b: Builder, i: Instruction) -> None:
    """When an accumulator's digits are zero."""
    branch_if(b, i, b.compare("eq", magnitude(b, b.get(accumulator(i))), b.const(0)))


@means("BM1", "BM2", "BM3")
def branch_minus(b: Builder, i: Instruction) -> None:
    """When an accumulator is minus."""
    branch_if(b, i, is_minus(b, b.get(accumulator(i))))


@means("BV1", "BV2", "BV3")
def branch_overflow(b: Builder, i: Instruction) -> None:
    """When an accumulator has overflowed; the indicator is turned off."""
    _branch_indicator(b, i, OVERFLOW1 + accumulator(i) - AC1)


@means("FBV", "FBU")
def branch_float(b: Builder, i: Instruction) -> None:
    """When floating arithmetic has overflowed or underflowed; the indicator is turned off."""
    _branch_indicator(b, i, FLOAT_OVERFLOW if i.name == "FBV" else FLOAT_UNDERFLOW)


def _branch_indicator(b: Builder, i: Instruction, slot: int) -> None:
    on = b.get(slot)
    target = branch_target(b, i)
    condition = b.compare("ne", on, b.const(0))
    spend(b, i)
    b.set(slot, b.const(0))
    b.jump_to(b.select(condition, target, b.const(b.pc + i.size)))


@means("BL", "BE", "BH")
def branch_compared(b: Builder, i: Instruction) -> None:
    """On the outcome of the last comparison."""
    wanted = {"BL": LOW, "BE": EQUAL, "BH": HIGH}[i.name]
    branch_if(b, i, b.compare("eq", b.get(COMPARED), b.const(wanted)))


# Field overflow and sign change: how they are answered, and whether they were there


@means("SMFV", "SMSC")
def sense(b: Builder, i: Instruction) -> None:
    """From now on it is noted; an indicator that is on stays on."""
    slot = FIELD_OVERFLOW if i.name == "SMFV" else SIGN_CHANGE
    old = b.get(slot)
    spend(b, i)
    b.set(slot, b.select(b.compare("eq", old, b.const(HALTS)), b.const(SENSES), old))


@means("HMFV", "HMSC")
def halt_mode(b: Builder, i: Instruction) -> None:
    """From now on it halts the machine: at once, if the indicator is on."""
    slot, reason = (FIELD_OVERFLOW, FIELD_OVERFLOWS) if i.name == "HMFV" else (SIGN_CHANGE, SIGN_CHANGES)
    b.leave_if(b.compare("eq", b.get(slot), b.const(SENSED)), reason)
    spend(b, i)
    b.set(slot, b.const(HALTS))


@means("BFV", "BSC")
def branch_sensed(b: Builder, i: Instruction) -> None:
    """When it has been noted; the indicator is turned off."""
    slot = FIELD_OVERFLOW if i.name == "BFV" else SIGN_CHANGE
    old = b.get(slot)
    target = branch_target(b, i)
    condition = b.compare("eq", old, b.const(SENSED))
    spend(b, i)
    b.set(slot, b.select(condition, b.const(SENSES), old))
    b.jump_to(b.select(condition, target, b.const(b.pc + i.size)))


# Signs


@means("CSA", "CSM", "CSP")
def compare_sign(b: Builder, i: Instruction) -> None:
    """How a word's sign compares with one of the instruction's, as digits: high when the word's is greater."""
    word = operand(b, i).read()
    digit = _sign_digit(b, word)
    spend(b, i)
    low = b.compare("ult", digit, b.const(i.first))
    other = b.select(b.compare("eq", digit, b.const(i.first)), b.const(EQUAL), b.const(HIGH))
    b.set(COMPARED, b.select(low, b.const(LOW), other))


def _sign_digit(b: Builder, word: Word) -> Word:
    numeric = b.select(is_minus(b, word), b.const(MINUS_DIGIT), b.const(PLUS_DIGIT))
    return b.select(is_alpha(b, word), b.const(ALPHA_DIGIT), numeric)


@means("MSA", "MSM", "MSP")
def make_sign(b: Builder, i: Instruction) -> None:
    """Give a word a sign."""
    place = operand(b, i).claim()
    word = place.read()
    spend(b, i)
    place.write(b.or_(b.and_(word, b.const(~SIGNS)), b.const(BITS_OF_DIGIT[i.first])))


# Electronic switches


@means("BES", "BSN", "BSF", "ESN", "ESF")
def switch(b: Builder, i: Instruction) -> None:
    """A digit of locations 101 to 103: off when it is 0. BES branches when on, BSN and BSF also turn it on or off."""
    assert i.operation is not None
    location = SWITCHES + i.operation.code - 61
    place = Place(b, b.const(location), location)
    if i.name != "BES":
        place.claim()
    word = place.read()
    digits = magnitude(b, word)
    on = b.compare("ne", field(b, digits, i.last, i.last), b.const(0))
    target = branch_target(b, i) if i.name.startswith("B") else b.const(0)
    spend(b, i)
    if i.name != "BES":
        new = b.const(1 if i.name in ("ESN", "BSN") else 0)
        place.write(b.or_(sign(b, word), replaced(b, digits, i.last, i.last, new)))
    if i.name.startswith("B"):
        if i.index:
            b.jump_to(b.select(on, target, b.const(b.pc + i.size)))
        else:
            b.branch(on, known_target(i))
