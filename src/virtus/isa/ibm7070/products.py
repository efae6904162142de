"""Descriptions: multiplication and division (A22-7003, "Operations involving accumulators").

Products and dividends have twenty digits, in accumulators 1 and 2. They are worked out in halves of five digits, so
that nothing in between needs more than 64 bits. An alpha sign makes the result alpha.
"""

from virtus.isa.builder import Builder, Word
from virtus.isa.ibm7070.decode import Instruction
from virtus.isa.ibm7070.digits import HALF, field, magnitude, quotient, remainder, sign
from virtus.isa.ibm7070.layout import AC1, AC2, AC3, IMPROPER_DIVISION, WORK
from virtus.isa.ibm7070.meaning import means, operand, spend
from virtus.isa.ibm7070.word import ALPHA, LIMIT, MINUS


def product(b: Builder, one: Word, other: Word) -> tuple[Word, Word]:
    """The upper and the lower ten digits of the product of two numbers of ten digits."""
    one_high = quotient(b, one, HALF)
    one_low = b.sub(one, b.mul(one_high, b.const(HALF)))
    other_high = quotient(b, other, HALF)
    other_low = b.sub(other, b.mul(other_high, b.const(HALF)))
    middle = b.add(b.mul(one_high, other_low), b.mul(one_low, other_high))
    low = b.add(b.mul(middle, b.const(HALF)), b.mul(one_low, other_low))
    carry = quotient(b, low, LIMIT)
    return b.add(b.mul(one_high, other_high), carry), b.sub(low, b.mul(carry, b.const(LIMIT)))


def work(b: Builder, digits: Word) -> Word:
    """The cycles that multiplying by ten digits takes (see timing)."""
    upper = quotient(b, digits, 10**4)
    top = quotient(b, upper, 10**4)
    halves = b.add(
        _half_cycles(b, b.sub(digits, b.mul(upper, b.const(10**4)))),
        _half_cycles(b, b.sub(upper, b.mul(top, b.const(10**4)))),
    )
    halves = b.add(halves, _half_cycles(b, top))
    return b.shift_right(b.sub(halves, b.const(1)), b.const(1))  # twelve places were looked at: two zeros too many


def _half_cycles(b: Builder, digits: Word) -> Word:
    return b.load(b.add(b.const(WORK), b.shift_left(digits, b.const(1))), 2)


def product_sign(b: Builder, one: Word, other: Word) -> Word:
    """The sign bits of a product or quotient."""
    alpha = b.and_(b.or_(one, other), b.const(ALPHA))
    return b.select(b.compare("ne", alpha, b.const(0)), alpha, b.and_(b.xor(one, other), b.const(MINUS)))


@means("M")
def multiply(b: Builder, i: Instruction) -> None:
    """Accumulator 3 times a field: the upper digits go to accumulator 1, the lower to accumulator 2."""
    word = operand(b, i).read()
    multiplier = b.get(AC3)
    digits = magnitude(b, multiplier)
    high, low = product(b, digits, field(b, magnitude(b, word), i.first, i.last))
    bits = product_sign(b, multiplier, word)
    spend(b, i, work(b, digits))
    b.set(AC1, b.or_(bits, high))
    b.set(AC2, b.or_(bits, low))


@means("D")
def divide(b: Builder, i: Instruction) -> None:
    """Accumulators 1 and 2 by a field, which goes to accumulator 3: the quotient to 2, the remainder to 1.

    The machine halts where the quotient would have more than ten digits. The remainder has the dividend's sign.
    """
    word = operand(b, i).read()
    old = b.get(AC1)
    divisor = field(b, magnitude(b, word), i.first, i.last)
    high, low = magnitude(b, old), magnitude(b, b.get(AC2))
    b.leave_if(b.compare("uge", high, divisor), IMPROPER_DIVISION)
    upper = quotient(b, low, HALF)
    part = b.add(b.mul(high, b.const(HALF)), upper)
    first = b.divide(part, divisor, signed=False)
    part = b.sub(part, b.mul(first, divisor))
    part = b.add(b.mul(part, b.const(HALF)), remainder(b, low, HALF))
    second = b.divide(part, divisor, signed=False)
    rest = b.sub(part, b.mul(second, divisor))
    result = b.add(b.mul(first, b.const(HALF)), second)
    bits = product_sign(b, old, word)
    spend(b, i, work(b, result))
    b.set(AC1, b.or_(sign(b, old), rest))
    b.set(AC2, b.or_(bits, result))
    b.set(AC3, b.or_(sign(b, word), divisor))
