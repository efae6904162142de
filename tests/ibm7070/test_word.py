"""Words, characters, and the arithmetic on digits that descriptions are made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.isa.ibm7070 import characters, digits, timing
from virtus.isa.ibm7070 import word as words
from virtus.vcpus.interpreter.words import Words

NUMBERS = st.integers(-(10**10) + 1, 10**10 - 1)
FIELDS = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)


@given(NUMBERS)
def test_a_number_is_a_word_and_back(number: int) -> None:
    word = words.number(number)
    assert words.valid(word)
    assert words.value(word) == number
    assert words.parse(words.show(word)) == word


@given(st.integers(0, 10**10 - 1), FIELDS)
def test_a_field_is_the_digits_that_are_shown(number: int, field: list[int]) -> None:
    first, last = field
    assert words.field(number, first, last) == int(f"{number:010d}"[first : last + 1])


@given(st.integers(0, 10**10 - 1), FIELDS, st.integers(0, 10**10 - 1))
def test_replacing_a_field_changes_nothing_else(number: int, field: list[int], new: int) -> None:
    first, last = field
    new %= 10 ** (last - first + 1)
    text = f"{number:010d}"
    expected = text[:first] + f"{new:0{last - first + 1}d}" + text[last + 1 :]
    assert f"{words.replaced(number, first, last, new):010d}" == expected


@given(st.text(alphabet="ABCXYZ 0189.,-$*", max_size=5))
def test_characters_are_two_digits_each(text: str) -> None:
    word = words.alpha(text)
    assert word & words.ALPHA
    codes = characters.codes_of_word(word & words.MAGNITUDE)
    assert "".join(characters.character_of(code) for code in codes) == text.ljust(5)


def test_every_code_has_one_character_in_each_arrangement() -> None:
    for code, text in characters.COMMERCIAL_TEXT.items():
        assert characters.code_of(text) == code
        assert characters.code_of(characters.character_of(code, "scientific")) == code
    assert len(set(characters.COMMERCIAL_TEXT.values())) == len(characters.COMMERCIAL_TEXT)


def test_letters_collate_before_digits() -> None:
    order = [characters.code_of(letter) for letter in " ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"]
    assert order == sorted(order)


@pytest.mark.parametrize("text", ["", "+", "+123", "*0000000000", "+00000000000", "+000000000a"])
def test_what_is_no_word(text: str) -> None:
    with pytest.raises(ValueError, match="no word"):
        words.parse(text)


def test_numbers_of_eleven_digits_are_no_words() -> None:
    with pytest.raises(ValueError, match="ten digits"):
        words.number(10**10)
    assert not words.valid(10**10)
    assert not words.valid(words.MINUS | words.ALPHA)


@given(st.integers(0, 2**63 - 1), st.integers(2, 10**18))
def test_a_reciprocal_divides(number: int, divisor: int) -> None:
    multiplier, shift = digits.reciprocal(divisor)
    assert multiplier < 2**64
    assert (number * multiplier >> 64) >> shift == number // divisor


@given(st.integers(0, 2**63 - 1), st.integers(0, 18))
def test_a_quotient_by_a_power_of_ten(number: int, exponent: int) -> None:
    b = Words()
    assert digits.quotient(b, number, 10**exponent) == number // 10**exponent  # type: ignore[arg-type] # its words only
    assert digits.remainder(b, number, 10**exponent) == number % 10**exponent  # type: ignore[arg-type]


def test_times_are_as_published() -> None:
    """A full addition takes 60 microseconds, a product of random numbers some 860."""
    from virtus.isa.ibm7070.operations import BY_NAME

    (add,) = BY_NAME["A1"]
    assert timing.cycles(add, 0, 9, indexed=False) * timing.MICROSECONDS == 60
    average = 10 * (0.1 * timing.ZERO_WORK + sum(range(10)) / 10 * timing.DIGIT_WORK) / 2
    assert 800 < (7 + average) * timing.MICROSECONDS < 960
