"""Binary floating-point arithmetic on bit patterns, exact: IEEE 754-2019 with every rounding mode and exception flag.

A float is the integer that its bits are, in a `FloatFormat`. Results that are not a number are the canonical quiet NaN
(RISC-V ISA manual, volume I, 21.3 "NaN Generation and Propagation"), and underflow is detected after rounding (21.4).
Every operation returns its result and the exception flags it raised; rounding modes and flags are numbered as in
`virtus.isa.builder`. Python's integers have no bounds, so each operation computes the exact value first, and rounds
once.
"""

from math import isqrt
from typing import Final

from virtus.isa.builder import (
    DIVIDE_BY_ZERO,
    DOWN,
    INEXACT,
    INVALID,
    NEAREST_AWAY,
    NEAREST_EVEN,
    OVERFLOW,
    TOWARDS_ZERO,
    UNDERFLOW,
    UP,
)
from virtus.records import dataclass

ROUNDING_MODES: Final = (NEAREST_EVEN, TOWARDS_ZERO, DOWN, UP, NEAREST_AWAY)
Result = tuple[int, int]
"""Bits (or an integer), and flags."""


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """An interchange format (IEEE 754-2019, 3.4), and the numbers that follow from its two widths."""

    bits: int
    fraction: int
    """Bits of the trailing significand."""
    sign: int
    """The sign bit."""
    infinity: int
    quiet: int
    """The bit that tells quiet NaN from signalling."""
    nan: int
    """The canonical NaN."""
    hidden: int
    """The significand's leading bit of normal numbers, which is not stored."""
    lowest: int
    """The exponent of the last place of subnormal numbers."""
    most: int
    """The exponent of the last place of the greatest numbers."""


def _format(bits: int, fraction: int) -> FloatFormat:
    exponent = bits - 1 - fraction
    bias = (1 << exponent - 1) - 1
    infinity = (1 << exponent) - 1 << fraction
    quiet = 1 << fraction - 1
    lowest = 1 - bias - fraction
    return FloatFormat(
        bits, fraction, 1 << bits - 1, infinity, quiet, infinity | quiet, 1 << fraction, lowest, bias - fraction
    )


SINGLE: Final = _format(32, 23)
DOUBLE: Final = _format(64, 52)


def is_nan(a: int, format: FloatFormat) -> bool:
    """Whether it is no number, quiet or signalling."""
    return a & ~format.sign > format.infinity


def is_signalling(a: int, format: FloatFormat) -> bool:
    """Whether it is a NaN whose use is invalid."""
    return a & ~format.sign > format.infinity and not a & format.quiet


def finite_parts(a: int, format: FloatFormat) -> tuple[int, int]:
    """Of a finite number: significand (an integer, without sign) and the exponent of its last place."""
    exponent, significand = (a & format.infinity) >> format.fraction, a & format.hidden - 1
    if exponent:
        return significand | format.hidden, format.lowest + exponent - 1
    return significand, format.lowest


def _rounds_up(odd: int, rest: int, half: int, mode: int, *, negative: bool) -> bool:
    """Whether a magnitude is rounded away from zero that leaves `rest` (not 0); `half` is half a last place."""
    if mode == NEAREST_EVEN:
        return rest > half or (rest == half and bool(odd))
    if mode == NEAREST_AWAY:
        return rest >= half
    return mode == (DOWN if negative else UP)


def round_exact(negative: bool, significand: int, exponent: int, format: FloatFormat, mode: int) -> Result:
    """Round `significand * 2**exponent` (not zero) to the format; inexact by a set last bit that stands for more."""
    sign = format.sign if negative else 0
    place = exponent + significand.bit_length() - format.fraction - 1  # of the result's last bit, were it normal
    tiny = place < format.lowest
    flags = 0
    if tiny:
        place = format.lowest
    shift = place - exponent
    if shift <= 0:
        kept = significand << -shift
    else:
        kept, rest, half = significand >> shift, significand & (1 << shift) - 1, 1 << shift - 1
        if rest:
            flags = INEXACT
            if tiny:
                flags |= _underflow(negative, significand, exponent, format, mode)
            if _rounds_up(kept & 1, rest, half, mode, negative=negative):
                kept += 1
                if kept == format.hidden << 1:
                    kept, place = format.hidden, place + 1
    if place > format.most:
        return _overflow(sign, format, mode)
    if kept < format.hidden:
        return sign | kept, flags
    return sign | (place - format.lowest + 1 << format.fraction) + kept - format.hidden, flags


def _underflow(negative: bool, significand: int, exponent: int, format: FloatFormat, mode: int) -> int:
    """The flag, unless rounding with unbounded exponents carries an inexact result to the smallest normal number."""
    if exponent + significand.bit_length() < format.lowest + format.fraction:
        return UNDERFLOW
    shift = significand.bit_length() - format.fraction - 1
    if shift <= 0:
        return UNDERFLOW
    kept, rest, half = significand >> shift, significand & (1 << shift) - 1, 1 << shift - 1
    carries = kept == (format.hidden << 1) - 1 and rest and _rounds_up(1, rest, half, mode, negative=negative)
    return 0 if carries else UNDERFLOW


def _overflow(sign: int, format: FloatFormat, mode: int) -> Result:
    """Infinity, or the greatest number where the mode rounds towards zero (IEEE 754-2019, 7.4)."""
    stays = mode == TOWARDS_ZERO or mode == (UP if sign else DOWN)
    return sign | format.infinity - stays, OVERFLOW | INEXACT


def _no_number(format: FloatFormat, *operands: int) -> Result:
    """The result of an operation of which an operand is a NaN."""
    return format.nan, INVALID if any(is_signalling(operand, format) for operand in operands) else 0


def _sum(
    negative_a: bool, a: int, at_a: int, negative_b: bool, b: int, at_b: int, format: FloatFormat, mode: int
) -> Result:
    """Round the sum of two exact values, each a magnitude and the exponent of its last place."""
    low = min(at_a, at_b)
    total = (-a if negative_a else a) << at_a - low
    total += (-b if negative_b else b) << at_b - low
    if total:
        return round_exact(total < 0, abs(total), low, format, mode)
    if a == 0 and b == 0 and negative_a == negative_b:
        return (format.sign if negative_a else 0), 0
    return (format.sign if mode == DOWN else 0), 0  # IEEE 754-2019, 6.3


def add(a: int, b: int, format: FloatFormat, mode: int) -> Result:
    """The sum."""
    sign, infinity = format.sign, format.infinity
    size_a, size_b = a & ~sign, b & ~sign
    if size_a >= infinity or size_b >= infinity:
        if size_a > infinity or size_b > infinity:
            return _no_number(format, a, b)
        if size_a == size_b and a != b:
            return format.nan, INVALID
        return (a if size_a == infinity else b), 0
    return _sum(a >= sign, *finite_parts(a, format), b >= sign, *finite_parts(b, format), format, mode)


def subtract(a: int, b: int, format: FloatFormat, mode: int) -> Result:
    """The difference."""
    if is_nan(b, format):
        return _no_number(format, a, b)
    return add(a, b ^ format.sign, format, mode)


def multiply(a: int, b: int, format: FloatFormat, mode: int) -> Result:
    """The product."""
    size_a, size_b, infinity = a & ~format.sign, b & ~format.sign, format.infinity
    sign = (a ^ b) & format.sign
    if size_a >= infinity or size_b >= infinity:
        if size_a > infinity or size_b > infinity:
            return _no_number(format, a, b)
        return (sign | infinity, 0) if size_a and size_b else (format.nan, INVALID)
    if not size_a or not size_b:
        return sign, 0
    (significand_a, at_a), (significand_b, at_b) = finite_parts(a, format), finite_parts(b, format)
    return round_exact(bool(sign), significand_a * significand_b, at_a + at_b, format, mode)


def divide(a: int, b: int, format: FloatFormat, mode: int) -> Result:
    """The quotient."""
    size_a, size_b, infinity = a & ~format.sign, b & ~format.sign, format.infinity
    sign = (a ^ b) & format.sign
    if size_a > infinity or size_b > infinity:
        return _no_number(format, a, b)
    if size_a == infinity:
        return (sign | infinity, 0) if size_b != infinity else (format.nan, INVALID)
    if size_b == infinity:
        return sign, 0
    if not size_b:
        return (sign | infinity, DIVIDE_BY_ZERO) if size_a else (format.nan, INVALID)
    if not size_a:
        return sign, 0
    (significand_a, at_a), (significand_b, at_b) = finite_parts(a, format), finite_parts(b, format)
    shift = 2 * format.fraction + 4  # two bits more than the significand has, whatever the operands
    quotient, rest = divmod(significand_a << shift, significand_b)
    return round_exact(bool(sign), quotient << 1 | (rest != 0), at_a - at_b - shift - 1, format, mode)


def square_root(a: int, format: FloatFormat, mode: int) -> Result:
    """The square root; that of -0 is -0."""
    if is_nan(a, format):
        return _no_number(format, a)
    if not a & ~format.sign or a == format.infinity:
        return a, 0
    if a & format.sign:
        return format.nan, INVALID
    significand, at = finite_parts(a, format)
    shift = 2 * format.fraction + 4 + (at & 1)
    significand <<= shift
    root = isqrt(significand)
    return round_exact(False, root << 1 | (root * root != significand), (at - shift >> 1) - 1, format, mode)


def multiply_add(a: int, b: int, c: int, format: FloatFormat, mode: int) -> Result:
    """a·b + c, rounded once; 0·∞ is invalid whatever is added."""
    sign, infinity = format.sign, format.infinity
    size_a, size_b, size_c = a & ~sign, b & ~sign, c & ~sign
    product_sign = (a ^ b) & sign
    if (size_a == 0 and size_b == infinity) or (size_a == infinity and size_b == 0):
        return format.nan, INVALID
    if size_a > infinity or size_b > infinity or size_c > infinity:
        return _no_number(format, a, b, c)
    if size_a == infinity or size_b == infinity:
        if size_c == infinity and c & sign != product_sign:
            return format.nan, INVALID
        return product_sign | infinity, 0
    if size_c == infinity:
        return c, 0
    (significand_a, at_a), (significand_b, at_b) = finite_parts(a, format), finite_parts(b, format)
    product = significand_a * significand_b
    return _sum(bool(product_sign), product, at_a + at_b, c >= sign, *finite_parts(c, format), format, mode)


def _order(a: int, format: FloatFormat) -> int:
    """A number that is ordered as the floats are, -0 below +0."""
    return a if a < format.sign else format.sign - 1 - a


def _extreme(a: int, b: int, format: FloatFormat, *, greater: bool) -> Result:
    flags = _no_number(format, a, b)[1]
    if is_nan(a, format):
        return (format.nan if is_nan(b, format) else b), flags
    if is_nan(b, format):
        return a, flags
    return (a if (_order(a, format) < _order(b, format)) != greater else b), flags


def minimum(a: int, b: int, format: FloatFormat) -> Result:
    """IEEE 754-2019 minimumNumber."""
    return _extreme(a, b, format, greater=False)


def maximum(a: int, b: int, format: FloatFormat) -> Result:
    """IEEE 754-2019 maximumNumber."""
    return _extreme(a, b, format, greater=True)


def equal(a: int, b: int, format: FloatFormat) -> tuple[bool, int]:
    """Quiet comparison: only signalling NaN is invalid."""
    if is_nan(a, format) or is_nan(b, format):
        return False, _no_number(format, a, b)[1]
    return a == b or not (a | b) & ~format.sign, 0


def less(a: int, b: int, format: FloatFormat) -> tuple[bool, int]:
    """Signalling comparison: every NaN is invalid."""
    if is_nan(a, format) or is_nan(b, format):
        return False, INVALID
    return _order(a, format) < _order(b, format) and bool((a | b) & ~format.sign), 0


def less_equal(a: int, b: int, format: FloatFormat) -> tuple[bool, int]:
    """Likewise."""
    if is_nan(a, format) or is_nan(b, format):
        return False, INVALID
    return _order(a, format) <= _order(b, format) or not (a | b) & ~format.sign, 0


def classify(a: int, format: FloatFormat) -> int:
    """RISC-V's fclass mask (table "Format of result of FCLASS instruction"): one bit of ten."""
    size = a & ~format.sign
    if size > format.infinity:
        return 1 << 9 if a & format.quiet else 1 << 8
    distance = 3 if size == format.infinity else 2 if size >= format.hidden else 1 if size else 0
    return 1 << (3 - distance if a & format.sign else 4 + distance)


def to_integer(a: int, format: FloatFormat, bits: int, mode: int, *, signed: bool) -> Result:
    """To an integer of so many bits (negative ones as such); out of range is invalid and saturates, NaN upwards."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    size = a & ~format.sign
    negative = a >= format.sign
    if size >= format.infinity:
        return (low if negative and size == format.infinity else high), INVALID
    significand, at = finite_parts(a, format)
    flags = 0
    if at >= 0:
        value = significand << at
    else:
        shift = min(-at, format.fraction + 2)  # beyond it all is rest, and less than half
        value, rest = significand >> shift, significand & (1 << shift) - 1
        if rest:
            flags = INEXACT
            value += _rounds_up(value & 1, rest, 1 << shift - 1, mode, negative=negative)
    if negative:
        value = -value
    if low <= value <= high:
        return value, flags
    return (low if negative else high), INVALID


def from_integer(value: int, format: FloatFormat, mode: int) -> Result:
    """The float nearest to an integer."""
    return round_exact(value < 0, abs(value), 0, format, mode) if value else (0, 0)


def convert(a: int, source: FloatFormat, target: FloatFormat, mode: int) -> Result:
    """From one format to the other."""
    size = a & ~source.sign
    if size > source.infinity:
        return target.nan, _no_number(source, a)[1]
    sign = target.sign if a >= source.sign else 0
    if size == source.infinity:
        return sign | target.infinity, 0
    if not size:
        return sign, 0
    return round_exact(bool(sign), *finite_parts(a, source), target, mode)
