"""Descriptions: floating decimal arithmetic.

A floating number is a word: its exponent plus 50 in positions 0 and 1, and eight digits that are a fraction in the
others. Accumulators 1 and 2 together are a number of sixteen digits; the exponent of accumulator 2 is smaller by
eight. Sixteen digits fit 64 bits, so they are worked with as one number. Results are cut off, not rounded (FR rounds),
and normalized except by FADS. An exponent above 99 turns the overflow indicator on, one below 0 that of underflow; it
becomes 0. A second half whose exponent would be below 0 is zero. An alpha sign halts the machine.
"""

from typing import Final

from virtus.isa.builder import Bit, Builder, Word
from virtus.isa.ibm7070.accumulators import absolute, signed_result
from virtus.isa.ibm7070.decode import Instruction
from virtus.isa.ibm7070.digits import field, is_alpha, is_minus, leading_zeros, magnitude, power, quotient, sign, signed
from virtus.isa.ibm7070.layout import (
    AC1,
    AC2,
    ALPHA_FLOAT,
    FLOAT_OVERFLOW,
    FLOAT_UNDERFLOW,
    IMPROPER_DIVISION,
)
from virtus.isa.ibm7070.meaning import means, operand, spend
from virtus.isa.ibm7070.products import work
from virtus.isa.ibm7070.timing import FLOATING
from virtus.isa.ibm7070.word import MINUS

FRACTION: Final = 10**8
"""One more than the digits of a fraction."""
DOUBLE: Final = FRACTION * FRACTION
BIAS: Final = 50
GREATEST: Final = 99
SECOND_HALF: Final = 8
"""How much smaller the exponent of accumulator 2 is."""


def _parts(b: Builder, word: Word) -> tuple[Word, Word]:
    """Exponent and fraction."""
    digits = magnitude(b, word)
    exponent = quotient(b, digits, FRACTION)
    return exponent, b.sub(digits, b.mul(exponent, b.const(FRACTION)))


def _numeric(b: Builder, *words: Word) -> None:
    for word in words:
        b.leave_if(is_alpha(b, word), ALPHA_FLOAT)


def _accumulated(b: Builder, *, both: bool) -> tuple[Word, Word]:
    """Exponent and sixteen digits of accumulator 1, or of 1 and 2."""
    exponent, high = _parts(b, b.get(AC1))
    low = field(b, magnitude(b, b.get(AC2)), 2, 9) if both else b.const(0)
    return exponent, b.add(b.mul(high, b.const(FRACTION)), low)


def _normalized(b: Builder, exponent: Word, digits: Word) -> tuple[Word, Word]:
    """With the first of sixteen digits not zero; a zero has the exponent 50."""
    places = leading_zeros(b, digits, 16)
    zero = b.compare("eq", digits, b.const(0))
    moved = b.mul(digits, power(b, b.select(zero, b.const(0), places)))
    return b.select(zero, b.const(BIAS), b.sub(exponent, places)), moved


def _set(b: Builder, exponent: Word, digits: Word, bits: Word) -> None:
    """Accumulators 1 and 2, and the indicators, from a signed exponent and sixteen digits."""
    under = b.compare("slt", exponent, b.const(0))
    over = b.compare("slt", b.const(GREATEST), exponent)
    exponent = b.select(b.either(under, over), b.const(0), exponent)
    high = quotient(b, digits, FRACTION)
    low = b.sub(digits, b.mul(high, b.const(FRACTION)))
    second = b.sub(exponent, b.const(SECOND_HALF))
    low = b.add(b.mul(second, b.const(FRACTION)), low)
    low = b.select(b.compare("slt", second, b.const(0)), b.const(0), low)
    b.set(AC1, b.or_(bits, b.add(b.mul(exponent, b.const(FRACTION)), high)))
    b.set(AC2, b.or_(bits, low))
    b.set(FLOAT_UNDERFLOW, b.or_(b.get(FLOAT_UNDERFLOW), b.word(under)))
    b.set(FLOAT_OVERFLOW, b.or_(b.get(FLOAT_OVERFLOW), b.word(over)))


@means("FA", "FS", "FAA", "FSA", "FAD", "FADS")
def add(b: Builder, i: Instruction) -> None:
    """Add or subtract, or the amount (FAA, FSA); FAD and FADS add to both accumulators' digits."""
    word = operand(b, i).read()
    old = b.get(AC1)
    _numeric(b, old, word)
    exponent, digits = _accumulated(b, both=i.name in ("FAD", "FADS"))
    other_exponent, fraction = _parts(b, word)
    other = b.mul(fraction, b.const(FRACTION))
    smaller = b.compare("slt", exponent, other_exponent)
    distance = absolute(b, b.sub(exponent, other_exponent))
    divisor = power(b, b.select(b.compare("slt", distance, b.const(17)), distance, b.const(17)))
    digits = b.select(smaller, b.divide(digits, divisor, signed=False), digits)
    other = b.select(smaller, other, b.divide(other, divisor, signed=False))
    exponent = b.select(smaller, other_exponent, exponent)
    minus = is_minus(b, old)
    amount = other if i.name in ("FAA", "FSA") else signed(b, other, is_minus(b, word))
    if i.name in ("FS", "FSA"):
        amount = b.sub(b.const(0), amount)
    total = b.add(signed(b, digits, minus), amount)
    bits = signed_result(b, total, minus, b.const(0))
    digits = absolute(b, total)
    over = b.compare("uge", digits, b.const(DOUBLE))
    digits = b.select(over, quotient(b, digits, 10), digits)
    exponent = b.add(exponent, b.word(over))
    if i.name != "FADS":
        exponent, digits = _normalized(b, exponent, digits)
    spend(b, i, b.const(FLOATING))
    _set(b, exponent, digits, bits)


@means("FZA")
def load(b: Builder, i: Instruction) -> None:
    """Zero and add: accumulator 1 gets the number normalized, accumulator 2 zero, with its sign."""
    word = operand(b, i).read()
    _numeric(b, word)
    exponent, fraction = _parts(b, word)
    exponent, digits = _normalized(b, exponent, b.mul(fraction, b.const(FRACTION)))
    under = b.compare("slt", exponent, b.const(0))
    exponent = b.select(under, b.const(0), exponent)
    spend(b, i)
    high = b.add(b.mul(exponent, b.const(FRACTION)), quotient(b, digits, FRACTION))
    b.set(AC1, b.or_(sign(b, word), high))
    b.set(AC2, sign(b, word))
    b.set(FLOAT_UNDERFLOW, b.or_(b.get(FLOAT_UNDERFLOW), b.word(under)))


def _product_sign(b: Builder, one: Word, other: Word) -> Word:
    return b.and_(b.xor(one, other), b.const(MINUS))


@means("FM")
def multiply(b: Builder, i: Instruction) -> None:
    """Accumulator 1 times a word: sixteen digits."""
    word = operand(b, i).read()
    old = b.get(AC1)
    _numeric(b, old, word)
    exponent, one = _parts(b, old)
    other_exponent, other = _parts(b, word)
    exponent = b.sub(b.add(exponent, other_exponent), b.const(BIAS))
    exponent, digits = _normalized(b, exponent, b.mul(one, other))
    spend(b, i, work(b, one))
    _set(b, exponent, digits, _product_sign(b, old, word))


@means("FD", "FDD")
def divide(b: Builder, i: Instruction) -> None:
    """Accumulator 1 (FD), or 1 and 2 (FDD), by a word: the quotient, normalized, to accumulator 1, the remainder to 2.

    A divisor of zero, or one so little normalized that the quotient would have more than eight digits, halts the
    machine.
    """
    word = operand(b, i).read()
    old = b.get(AC1)
    _numeric(b, old, word)
    exponent, digits = _accumulated(b, both=i.name == "FDD")
    other_exponent, divisor = _parts(b, word)
    greater: Bit = b.compare("uge", quotient(b, digits, FRACTION), divisor)
    tenth = quotient(b, digits, 10)
    dividend = b.select(greater, tenth, digits)
    b.leave_if(b.compare("uge", quotient(b, dividend, FRACTION), divisor), IMPROPER_DIVISION)
    result = b.divide(dividend, divisor, signed=False)
    rest = b.sub(dividend, b.mul(result, divisor))
    up = b.word(greater)
    own = b.add(exponent, up)
    exponent, result = _normalized(
        b, b.sub(b.add(own, b.const(BIAS)), other_exponent), b.mul(result, b.const(FRACTION))
    )
    rest_exponent = b.sub(own, b.const(SECOND_HALF))
    tiny = b.either(b.compare("slt", rest_exponent, b.const(0)), b.compare("slt", b.const(GREATEST), rest_exponent))
    rest = b.select(tiny, b.const(0), b.add(b.mul(rest_exponent, b.const(FRACTION)), rest))
    high = quotient(b, result, FRACTION)
    under = b.compare("slt", exponent, b.const(0))
    over = b.compare("slt", b.const(GREATEST), exponent)
    exponent = b.select(b.either(under, over), b.const(0), exponent)
    spend(b, i, work(b, high))
    b.set(AC1, b.or_(_product_sign(b, old, word), b.add(b.mul(exponent, b.const(FRACTION)), high)))
    b.set(AC2, b.or_(sign(b, old), rest))
    b.set(FLOAT_UNDERFLOW, b.or_(b.get(FLOAT_UNDERFLOW), b.word(under)))
    b.set(FLOAT_OVERFLOW, b.or_(b.get(FLOAT_OVERFLOW), b.word(over)))


@means("FR")
def round_(b: Builder, i: Instruction) -> None:
    """Round accumulator 1 by the first digit of accumulator 2, which becomes zero."""
    old = b.get(AC1)
    half = b.compare("uge", field(b, magnitude(b, b.get(AC2)), 2, 2), b.const(5))
    exponent, fraction = _parts(b, old)
    fraction = b.add(fraction, b.word(half))
    carry = b.compare("uge", fraction, b.const(FRACTION))
    fraction = b.select(carry, b.const(FRACTION // 10), fraction)
    exponent = b.add(exponent, b.word(carry))
    over = b.compare("slt", b.const(GREATEST), exponent)
    exponent = b.select(over, b.const(0), exponent)
    spend(b, i)
    b.set(AC1, b.or_(sign(b, old), b.add(b.mul(exponent, b.const(FRACTION)), fraction)))
    b.set(AC2, b.const(0))
    b.set(FLOAT_OVERFLOW, b.or_(b.get(FLOAT_OVERFLOW), b.word(over)))
