"""Floating decimal arithmetic, against exact fractions."""

from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ibm7070.harness import State, execute
from virtus.isa.ibm7070 import layout

FEW = settings(max_examples=25, deadline=None)


def shown(sign: str, exponent: int, fraction: int) -> str:
    return f"{sign}{exponent:02d}{fraction:08d}"


NORMAL = st.builds(shown, st.sampled_from("+-"), st.integers(25, 75), st.integers(10**7, 10**8 - 1))


def value(word: str) -> Fraction:
    """Of one word."""
    amount = Fraction(int(word[3:]), 10**8) * Fraction(10) ** (int(word[1:3]) - 50)
    return -amount if word[0] == "-" else amount


def both_halves(after: State) -> Fraction:
    return value(after.accumulator(1)) + value(after.accumulator(2))


def is_normal(word: str) -> bool:
    return int(word[3:]) == 0 or word[3] != "0"


@FEW
@given(NORMAL, NORMAL)
def test_adding_and_subtracting(one: str, other: str) -> None:
    for code, exact in (
        ("+74", value(one) + value(other)),
        ("-74", value(one) - value(other)),
        ("+77", value(one) + abs(value(other))),
        ("-77", value(one) - abs(value(other))),
    ):
        after = execute(f"{code}00000200", l200=other, a1=one, a2="+9999999999")
        unit = Fraction(10) ** (max(int(one[1:3]), int(other[1:3])) - 50 - 16)
        result = both_halves(after)
        if int(after.accumulator(1)[1:3]) >= 8:
            assert abs(result - exact) <= 2 * unit
        assert is_normal(after.accumulator(1))


def test_zero_has_the_exponent_of_fifty() -> None:
    after = execute("-7400000200", l200="+5212345678", a1="+5212345678")
    assert (after.accumulator(1), after.accumulator(2)) == ("+5000000000", "+4200000000")


@FEW
@given(NORMAL, NORMAL)
def test_multiplying(one: str, other: str) -> None:
    after = execute("+7300000200", l200=other, a1=one)
    exponent = int(one[1:3]) + int(other[1:3]) - 50
    over, under = exponent > 100, exponent - 1 < 0
    assert is_normal(after.accumulator(1))
    if 10 <= exponent <= 99:
        assert both_halves(after) == value(one) * value(other)
        assert not after.registers[layout.FLOAT_OVERFLOW]
    if over:
        assert after.registers[layout.FLOAT_OVERFLOW]
    if under and exponent < 0:
        assert after.registers[layout.FLOAT_UNDERFLOW]


@FEW
@given(NORMAL, NORMAL)
def test_dividing(one: str, other: str) -> None:
    after = execute("-7300000200", l200=other, a1=one, a2="+0099999999")
    exact = value(one) / value(other)
    quotient = value(after.accumulator(1))
    if 1 <= int(one[1:3]) - int(other[1:3]) + 50 <= 98:
        assert abs(quotient) <= abs(exact)
        assert abs(exact - quotient) < abs(exact) * Fraction(1, 10**7)
        rest = value(after.accumulator(2))
        if int(one[1:3]) >= 8:
            assert quotient * value(other) + rest == value(one)


def test_dividing_by_zero_halts() -> None:
    assert execute("-7300000200", l200="+5000000000", a1="+5110000000").reason == layout.IMPROPER_DIVISION


def test_an_alpha_word_halts() -> None:
    for code in ("+74", "-74", "+73", "-73", "+75"):
        assert execute(f"{code}00000200", l200="@5110000000", a1="+5110000000").reason == layout.ALPHA_FLOAT


@FEW
@given(st.sampled_from("+-"), st.integers(10, 99), st.integers(0, 10**8 - 1))
def test_loading_normalizes(sign: str, exponent: int, fraction: int) -> None:
    word = shown(sign, exponent, fraction)
    after = execute("+7500000200", l200=word)
    assert is_normal(after.accumulator(1))
    assert value(after.accumulator(1)) == value(word)
    assert after.accumulator(2) == f"{sign}0000000000"


@FEW
@given(NORMAL, st.integers(0, 9))
def test_rounding(one: str, digit: int) -> None:
    after = execute("+7100000000", a1=one, a2=f"+42{digit}0000000")
    unit = Fraction(10) ** (int(one[1:3]) - 50 - 8)
    expected = abs(value(one)) + (unit if digit >= 5 else 0)
    assert abs(value(after.accumulator(1))) == expected
    assert after.accumulator(2) == "+0000000000"


def test_too_great_and_too_small() -> None:
    after = execute("+7300000200", l200="+9910000000", a1="+9910000000")
    assert after.registers[layout.FLOAT_OVERFLOW] == 1
    assert after.accumulator(1) == "+0010000000"
    after = execute("+7300000200", l200="+0110000000", a1="+0110000000")
    assert after.registers[layout.FLOAT_UNDERFLOW] == 1


def test_a_series_converges() -> None:
    """The sums 1/2 + 1/4 + ... approach 1, as each floating sum takes the next term."""
    total = shown("+", 50, 0)
    sums: list[Fraction] = []
    for n in range(1, 12):
        term = shown("+", 50, int(Fraction(1, 2**n) * 10**8))
        total = execute("+7400000200", l200=term, a1=total).accumulator(1)
        sums.append(value(total))
    assert all(one < other for one, other in pairwise(sums))
    assert Fraction(99, 100) < sums[-1] < 1
