"""Decimal digits of binary numbers, over the builder: fields, shifts by powers of ten, signs.

A quotient by a constant is a multiplication by its reciprocal (Granlund and Montgomery, "Division by Invariant Integers
using Multiplication", 1994), which costs a fraction of a division on every host.
"""

from functools import cache
from typing import Final

from virtus.isa.builder import Bit, Builder, Word
from virtus.isa.ibm7070.layout import POWERS
from virtus.isa.ibm7070.word import ALPHA, LIMIT, MAGNITUDE, MINUS, SIGN_SHIFT, SIGNS

HALF: Final = 10**5
"""Half a word's digits."""


@cache
def reciprocal(divisor: int) -> tuple[int, int]:
    """(multiplier, shift): a // divisor == (a * multiplier >> 64) >> shift for all a below 2**63; 1 < divisor <
    2**63."""
    shift = divisor.bit_length() - 1
    if divisor == 1 << shift:
        return 1 << 63, shift - 1
    return -(-(1 << 64 + shift) // divisor), shift


def quotient(b: Builder, a: Word, divisor: int) -> Word:
    """a // divisor, for a below 2**63."""
    if divisor == 1:
        return a
    multiplier, shift = reciprocal(divisor)
    high = b.multiply_high(a, b.const(multiplier), signed_a=False, signed_b=False)
    return b.shift_right(high, b.const(shift)) if shift else high


def remainder(b: Builder, a: Word, divisor: int) -> Word:
    """a % divisor, likewise."""
    return b.sub(a, b.mul(quotient(b, a, divisor), b.const(divisor)))


def magnitude(b: Builder, word: Word) -> Word:
    """The digits of a word, as a number."""
    return b.and_(word, b.const(MAGNITUDE))


def sign(b: Builder, word: Word) -> Word:
    """The bits of its sign, at their place."""
    return b.and_(word, b.const(SIGNS))


def is_minus(b: Builder, word: Word) -> Bit:
    """Whether its sign is minus."""
    return b.compare("ne", b.and_(word, b.const(MINUS)), b.const(0))


def is_alpha(b: Builder, word: Word) -> Bit:
    """Whether its sign is alpha."""
    return b.compare("ne", b.and_(word, b.const(ALPHA)), b.const(0))


def field(b: Builder, digits: Word, first: int, last: int) -> Word:
    """Positions `first` to `last` of ten digits, as a number."""
    shifted = quotient(b, digits, 10 ** (9 - last))
    return shifted if first == 0 else remainder(b, shifted, 10 ** (last - first + 1))


def replaced(b: Builder, digits: Word, first: int, last: int, new: Word) -> Word:
    """Ten digits with others from `first` to `last`."""
    if (first, last) == (0, 9):
        return new
    difference = b.sub(new, field(b, digits, first, last))
    return b.add(digits, b.mul(difference, b.const(10 ** (9 - last))))


def signed(b: Builder, digits: Word, minus: Bit) -> Word:
    """A number and its sign as a two's complement number."""
    return b.select(minus, b.sub(b.const(0), digits), digits)


def minus_sign(b: Builder, minus: Bit) -> Word:
    """The sign bits for minus or plus."""
    return b.shift_left(b.word(minus), b.const(SIGN_SHIFT))


def power(b: Builder, exponent: Word) -> Word:
    """Ten to a computed power, 0 to 19."""
    return b.load(b.add(b.const(POWERS), b.shift_left(exponent, b.const(3))), 8)


def leading_zeros(b: Builder, number: Word, places: int) -> Word:
    """How many of that many decimal places are zero before the first that is not."""
    count = b.word(b.compare("ult", number, b.const(10 ** (places - 1))))
    for place in range(places - 1):
        count = b.add(count, b.word(b.compare("ult", number, b.const(10**place))))
    return count


def carried(b: Builder, digits: Word) -> tuple[Word, Word]:
    """A sum below 2 * 10**10 without its carry, and the carry."""
    over = b.compare("uge", digits, b.const(LIMIT))
    return b.select(over, b.sub(digits, b.const(LIMIT)), digits), b.word(over)
