"""Exact floating point, against definitions on fractions and against the host's arithmetic."""

import math
import struct
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

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
from virtus.vcpus.interpreter import softfloat
from virtus.vcpus.interpreter.softfloat import DOUBLE, ROUNDING_MODES, SINGLE, FloatFormat

Operation = Callable[[int, int, FloatFormat, int], tuple[int, int]]
slowly = settings(max_examples=40)
"""For what computes with long fractions."""
FORMATS = st.sampled_from([SINGLE, DOUBLE])
MODES = st.sampled_from(ROUNDING_MODES)
FUNCTIONS: dict[str, tuple[Operation, Callable[[Fraction, Fraction], Fraction]]] = {
    "add": (softfloat.add, lambda a, b: a + b),
    "subtract": (softfloat.subtract, lambda a, b: a - b),
    "multiply": (softfloat.multiply, lambda a, b: a * b),
    "divide": (softfloat.divide, lambda a, b: a / b),
}


@st.composite
def floats(draw: st.DrawFn, format: FloatFormat) -> int:
    """Any bits, with exponents near the middle and the ends more often than elsewhere."""
    most = format.infinity >> format.fraction
    exponent = draw(
        st.one_of(st.integers(0, 2), st.integers(most - 2, most), st.integers(most // 2 - 60, most // 2 + 60))
        | st.integers(0, most)
    )
    fraction = draw(st.integers(0, format.hidden - 1) | st.integers(0, 3) | st.just(format.hidden - 1))
    return draw(st.sampled_from((0, format.sign))) | min(exponent, most) << format.fraction | fraction


def is_finite(bits: int, format: FloatFormat) -> bool:
    return bits & ~format.sign < format.infinity


def value(bits: int, format: FloatFormat) -> Fraction:
    """What a finite float stands for (IEEE 754-2019, 3.4), computed the long way round."""
    exponent = bits >> format.fraction & (1 << format.bits - 1 - format.fraction) - 1
    fraction = Fraction(bits & format.hidden - 1, format.hidden)
    bias = (1 << format.bits - 2 - format.fraction) - 1
    size = fraction * Fraction(2) ** (1 - bias) if exponent == 0 else (1 + fraction) * Fraction(2) ** (exponent - bias)
    return -size if bits & format.sign else size


def neighbours(exact: Fraction, format: FloatFormat) -> tuple[int, int]:
    """The greatest magnitude of the format that is not beyond |exact|, and the least not below it; by bisection."""
    low, high = 0, format.infinity  # magnitudes are ordered as their bits are
    while high - low > 1:
        middle = (low + high) // 2
        if value(middle, format) <= abs(exact):
            low = middle
        else:
            high = middle
    return (low, low) if value(low, format) == abs(exact) else (low, high)


def check_rounded(exact: Fraction, found: tuple[int, int], format: FloatFormat, mode: int) -> None:
    """That a result is the float that the mode asks for, with the flags that belong to it."""
    bits, flags = found
    size = bits & ~format.sign
    assert bool(bits & format.sign) == (exact < 0)
    below, above = neighbours(exact, format)
    away = mode == (DOWN if exact < 0 else UP)
    if below == above:
        assert (size, flags) == (below, 0)
        return
    limit = 2 * value(format.infinity - 1, format) - value(format.infinity - 2, format)  # were there one more
    upper = limit if above == format.infinity else value(above, format)
    to_below, to_above = abs(exact) - value(below, format), upper - abs(exact)
    if mode == TOWARDS_ZERO or (mode in (UP, DOWN) and not away):
        wanted = below
    elif away or to_above < to_below:
        wanted = above
    elif to_below < to_above:
        wanted = below
    else:
        wanted = above if mode == NEAREST_AWAY or below & 1 else below
    assert size == wanted
    assert flags & INEXACT
    beyond = abs(exact) >= limit or wanted == format.infinity
    assert bool(flags & OVERFLOW) == beyond
    if flags & UNDERFLOW:
        assert size <= format.hidden  # at most the smallest normal number
    else:
        assert size >= format.hidden
    assert not flags & (INVALID | DIVIDE_BY_ZERO)


@pytest.mark.parametrize("name", FUNCTIONS)
@slowly
@given(data=st.data(), format=FORMATS, mode=MODES)
def test_a_result_is_rounded_as_the_mode_says(name: str, data: st.DataObject, format: FloatFormat, mode: int) -> None:
    operation, definition = FUNCTIONS[name]
    a, b = data.draw(floats(format)), data.draw(floats(format))
    assume(is_finite(a, format) and is_finite(b, format))
    assume(name != "divide" or b & ~format.sign)
    exact = definition(value(a, format), value(b, format))
    found = operation(a, b, format, mode)
    if exact:
        check_rounded(exact, found, format, mode)
    else:
        assert found[0] & ~format.sign == 0 and found[1] == 0


@slowly
@given(data=st.data(), format=FORMATS, mode=MODES)
def test_a_fused_result_is_rounded_once(data: st.DataObject, format: FloatFormat, mode: int) -> None:
    a, b, c = (data.draw(floats(format)) for _ in range(3))
    assume(all(is_finite(operand, format) for operand in (a, b, c)))
    exact = value(a, format) * value(b, format) + value(c, format)
    assume(exact)
    check_rounded(exact, softfloat.multiply_add(a, b, c, format, mode), format, mode)


@slowly
@given(data=st.data(), format=FORMATS, mode=MODES)
def test_a_square_root_squared_is_near(data: st.DataObject, format: FloatFormat, mode: int) -> None:
    a = data.draw(floats(format)) & ~format.sign
    assume(0 < a < format.infinity)
    root, flags = softfloat.square_root(a, format, mode)
    exact, of_root = value(a, format), value(root, format)
    assert flags == (0 if of_root**2 == exact else INEXACT)
    below, above = value(root - 1, format), value(root + 1, format)
    if mode in (TOWARDS_ZERO, DOWN):
        assert of_root**2 <= exact < above**2
    elif mode == UP:
        assert below**2 < exact <= of_root**2
    else:
        assert ((below + of_root) / 2) ** 2 <= exact <= ((above + of_root) / 2) ** 2


@slowly
@given(data=st.data(), format=FORMATS, mode=MODES, bits=st.sampled_from([32, 64]), signed=st.booleans())
def test_integers_both_ways(data: st.DataObject, format: FloatFormat, mode: int, bits: int, signed: bool) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    number = data.draw(st.integers(low, high))
    found = softfloat.from_integer(number, format, mode)
    if number:
        check_rounded(Fraction(number), found, format, mode)
    else:
        assert found == (0, 0)
    a = data.draw(floats(format))
    assume(is_finite(a, format))
    exact = value(a, format)
    rounded = {
        NEAREST_EVEN: round(exact),
        TOWARDS_ZERO: math.trunc(exact),
        DOWN: math.floor(exact),
        UP: math.ceil(exact),
        NEAREST_AWAY: math.floor(abs(exact) + Fraction(1, 2)) * (1 if exact > 0 else -1),
    }[mode]
    got, flags = softfloat.to_integer(a, format, bits, mode, signed=signed)
    if low <= rounded <= high:
        assert (got, flags) == (rounded, 0 if rounded == exact else INEXACT)
    else:
        assert (got, flags) == (low if rounded < low else high, INVALID)


@given(a=floats(DOUBLE), mode=MODES)
def test_narrowing_rounds(a: int, mode: int) -> None:
    assume(0 < a & ~DOUBLE.sign < DOUBLE.infinity)
    check_rounded(value(a, DOUBLE), softfloat.convert(a, DOUBLE, SINGLE, mode), SINGLE, mode)


@given(a=floats(SINGLE), mode=MODES)
def test_widening_is_exact_and_comes_back(a: int, mode: int) -> None:
    assume(a & ~SINGLE.sign <= SINGLE.infinity)
    wide, flags = softfloat.convert(a, SINGLE, DOUBLE, mode)
    assert flags == 0
    assert softfloat.convert(wide, DOUBLE, SINGLE, mode) == (a, 0)


def host(bits: int) -> float:
    found: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return found


@given(a=floats(DOUBLE), b=floats(DOUBLE))
def test_comparisons_are_the_hosts(a: int, b: int) -> None:
    x, y = host(a), host(b)
    assert softfloat.equal(a, b, DOUBLE)[0] == (x == y)
    assert softfloat.less(a, b, DOUBLE)[0] == (x < y)
    assert softfloat.less_equal(a, b, DOUBLE)[0] == (x <= y)
    not_a_number = x != x or y != y
    assert softfloat.less(a, b, DOUBLE)[1] == softfloat.less_equal(a, b, DOUBLE)[1] == INVALID * not_a_number


@given(data=st.data(), format=FORMATS, mode=MODES)
def test_what_is_no_number_is_canonical(data: st.DataObject, format: FloatFormat, mode: int) -> None:
    nan = format.infinity | data.draw(st.integers(1, format.hidden - 1)) | data.draw(st.sampled_from((0, format.sign)))
    other = data.draw(floats(format))
    signalling = softfloat.is_signalling(nan, format) or softfloat.is_signalling(other, format)
    wanted = format.nan, INVALID * signalling
    for operation, _ in FUNCTIONS.values():
        assert operation(nan, other, format, mode) == operation(other, nan, format, mode) == wanted
    assert softfloat.square_root(nan, format, mode) == (format.nan, INVALID * softfloat.is_signalling(nan, format))


@pytest.mark.parametrize("format", [SINGLE, DOUBLE], ids=["single", "double"])
def test_special_values(format: FloatFormat) -> None:
    infinity, one, sign, nan = format.infinity, softfloat.from_integer(1, format, 0)[0], format.sign, format.nan
    assert softfloat.add(infinity, infinity | sign, format, 0) == (nan, INVALID)
    assert softfloat.subtract(infinity, infinity, format, 0) == (nan, INVALID)
    assert softfloat.multiply(infinity, sign, format, 0) == (nan, INVALID)
    assert softfloat.divide(0, sign, format, 0) == (nan, INVALID)
    assert softfloat.divide(one, sign, format, 0) == (infinity | sign, DIVIDE_BY_ZERO)
    assert softfloat.divide(infinity, 0, format, 0) == (infinity, 0)
    assert softfloat.square_root(sign, format, 0) == (sign, 0)
    assert softfloat.square_root(one | sign, format, 0) == (nan, INVALID)
    assert softfloat.multiply_add(infinity, 0, nan, format, 0) == (nan, INVALID)
    assert softfloat.multiply_add(infinity, one, infinity | sign, format, 0) == (nan, INVALID)
    assert softfloat.subtract(one, one, format, NEAREST_EVEN) == (0, 0)
    assert softfloat.subtract(one, one, format, DOWN) == (sign, 0)
    assert softfloat.add(sign, sign, format, UP) == (sign, 0)
    assert softfloat.minimum(0, sign, format) == (sign, 0)
    assert softfloat.maximum(sign, 0, format) == (0, 0)
    assert softfloat.minimum(nan, one, format) == (one, 0)
    assert softfloat.maximum(infinity | 1, nan, format) == (nan, INVALID)
    assert softfloat.to_integer(nan, format, 32, 0, signed=True) == (2**31 - 1, INVALID)
    assert softfloat.to_integer(infinity | sign, format, 64, 0, signed=False) == (0, INVALID)


@pytest.mark.parametrize("format", [SINGLE, DOUBLE], ids=["single", "double"])
def test_classes(format: FloatFormat) -> None:
    positive = [0, 1, format.hidden, format.infinity]  # zero, subnormal, normal, infinity
    expected = [*(bits | format.sign for bits in reversed(positive)), *positive, format.infinity | 1, format.nan]
    assert [softfloat.classify(bits, format) for bits in expected] == [1 << bit for bit in range(10)]


@pytest.mark.parametrize("format", [SINGLE, DOUBLE], ids=["single", "double"])
def test_underflow_is_told_after_rounding(format: FloatFormat) -> None:
    """Just below the smallest normal number: no underflow where 24 or 53 bits would carry up to it."""
    all_ones = 2 * format.hidden - 1
    nearer, farther = (all_ones << 3 | 7, all_ones << 3 | 2)
    at = format.lowest - 4
    assert softfloat.round_exact(False, nearer, at, format, NEAREST_EVEN) == (format.hidden, INEXACT)
    assert softfloat.round_exact(False, farther, at, format, NEAREST_EVEN) == (format.hidden, INEXACT | UNDERFLOW)
