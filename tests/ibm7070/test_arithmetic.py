"""Accumulators, stores, comparisons, products and shifts, against Python's integers and strings of digits."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ibm7070.harness import both, execute, program
from virtus.isa.ibm7070 import layout
from virtus.isa.ibm7070 import word as words

LIMIT = 10**10
DIGITS = st.one_of(
    st.integers(0, LIMIT - 1), st.sampled_from([0, 1, LIMIT - 1, LIMIT // 2, 99, 10**9]), st.integers(0, 10**4)
)
SIGNS = st.sampled_from("++--@")
WORDS = st.builds(lambda sign, digits: f"{sign}{digits:010d}", SIGNS, DIGITS)
NUMERIC = st.builds(lambda sign, digits: f"{sign}{digits:010d}", st.sampled_from("+-"), DIGITS)
FIELDS = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: (min(pair), max(pair)))
WHOLE = (0, 9)
FEW = settings(max_examples=25, deadline=None)


@dataclass
class Word:
    """A word as a person reads it."""

    sign: str
    digits: int

    @classmethod
    def of(cls, text: str) -> "Word":
        return cls(text[0], int(text[1:]))

    @property
    def value(self) -> int:
        return -self.digits if self.sign == "-" else self.digits

    def field(self, field: tuple[int, int]) -> "Word":
        return Word(self.sign, int(f"{self.digits:010d}"[field[0] : field[1] + 1]))

    def __str__(self) -> str:
        return f"{self.sign}{self.digits:010d}"


def instruction(code: str, field: tuple[int, int] = WHOLE, address: int = 200) -> str:
    return f"{code}00{field[0]}{field[1]}{address:04d}"


def signed(total: int, like: Word, *others: Word) -> Word:
    """A sum: alpha if anything was, and zero with the sign of what was added to."""
    sign = like.sign if total == 0 and like.sign != "@" else "-" if total < 0 else "+"
    if any(word.sign == "@" for word in (like, *others)):
        sign = "@"
    return Word(sign, abs(total))


@pytest.mark.slow
@FEW
@given(WORDS, FIELDS)
def test_loading(text: str, field: tuple[int, int]) -> None:
    word = Word.of(text).field(field)
    opposite = {"+": "-", "-": "+", "@": "@"}[word.sign]
    for code, sign in (("+13", word.sign), ("-13", opposite), ("+16", "+"), ("-16", "-")):
        after = execute(instruction(code, field), l200=text, a1="@9999999999")
        assert after.accumulator(1) == str(Word(sign, word.digits))
    assert execute(instruction("+33", field), l200=text).accumulator(3) == str(word)


@pytest.mark.slow
@FEW
@given(WORDS, WORDS, FIELDS)
def test_adding(accumulator: str, text: str, field: tuple[int, int]) -> None:
    old, word = Word.of(accumulator), Word.of(text).field(field)
    amount = word.digits
    for code, total, alphas in (
        ("+24", old.value + word.value, (word,)),
        ("-24", old.value - word.value, (word,)),
        ("+17", old.value + amount, ()),
        ("-17", old.value - amount, ()),
    ):
        number = 2 if code[1] == "2" else 1
        after = execute(instruction(code, field), l200=text, **{f"a{number}": accumulator})
        expected = signed(total, old, *alphas)
        assert after.accumulator(number) == str(Word(expected.sign, expected.digits % LIMIT))
        assert after.registers[layout.OVERFLOW1 + number - 1] == (expected.digits >= LIMIT)


@pytest.mark.slow
@FEW
@given(WORDS, WORDS, FIELDS, st.sampled_from([layout.HALTS, layout.SENSES]))
def test_adding_to_storage(accumulator: str, text: str, field: tuple[int, int], mode: int) -> None:
    added, word = Word.of(accumulator), Word.of(text)
    part, width = word.field(field), field[1] - field[0] + 1
    for code, total, sign in (
        ("+18", part.value + added.value, None),
        ("+19", part.digits + added.value, word.sign),
        ("-18", part.value - added.value, None),
    ):
        before = program(instruction(code, field), "-0000000000", l200=text, a1=accumulator)
        before.registers[layout.FIELD_OVERFLOW] = before.registers[layout.SIGN_CHANGE] = mode
        after = both(before)
        result = signed(total, part, added)
        new_sign = sign or result.sign
        ten = result.digits % LIMIT
        shown = f"{word.digits:010d}"
        rest = shown[: field[0]] + "0" * width + shown[field[1] + 1 :]
        overflow, change = ten >= 10**width, new_sign != word.sign and int(rest) != 0
        if mode == layout.HALTS and (overflow or change):
            assert after.reason == (layout.FIELD_OVERFLOWS if overflow else layout.SIGN_CHANGES)
            assert after.word(200) == text
            continue
        kept = f"{ten % 10**width:0{width}d}"
        assert after.word(200) == new_sign + shown[: field[0]] + kept + shown[field[1] + 1 :]
        assert after.registers[layout.FIELD_OVERFLOW] == (layout.SENSED if overflow else mode)
        assert after.registers[layout.SIGN_CHANGE] == (layout.SENSED if change else mode)


@FEW
@given(WORDS, WORDS, FIELDS)
def test_storing(accumulator: str, text: str, field: tuple[int, int]) -> None:
    source, word, width = Word.of(accumulator), Word.of(text), field[1] - field[0] + 1
    shown = f"{word.digits:010d}"
    new = f"{source.digits % 10**width:0{width}d}"
    inside = shown[: field[0]] + new + shown[field[1] + 1 :]
    zeros = "0" * field[0] + new + "0" * (9 - field[1])
    for code, expected in (
        ("+12", source.sign + inside),
        ("-12", word.sign + inside),
        ("-11", source.sign + zeros),
    ):
        before = program(instruction(code, field), "-0000000000", l200=text, a1=accumulator)
        before.registers[layout.FIELD_OVERFLOW] = before.registers[layout.SIGN_CHANGE] = layout.SENSES
        after = both(before)
        assert after.word(200) == expected
        assert after.registers[layout.FIELD_OVERFLOW] == (
            layout.SENSED if source.digits >= 10**width else layout.SENSES
        )


def test_a_store_that_overflows_halts_before_it_is_done() -> None:
    after = execute(instruction("+12", (8, 9)), a1="+0000000123", l200="+5555555555")
    assert after.reason == layout.FIELD_OVERFLOWS
    assert after.word(200) == "+5555555555"
    assert after.pc == 1000


def test_a_store_that_changes_a_sign_halts() -> None:
    after = execute(instruction("+12", (8, 9)), a1="-0000000012", l200="+5555555555")
    assert after.reason == layout.SIGN_CHANGES
    assert execute(instruction("+12"), a1="-0000000012", l200="+5555555555").word(200) == "-0000000012"
    assert execute(instruction("+12", (8, 9)), a1="-0000000012", l200="+0000000055").word(200) == "-0000000012"


def order(word: Word) -> tuple[int, int, int]:
    """Alpha words by their digits, then numbers by their value, -0 before +0."""
    if word.sign == "@":
        return 0, word.digits, 0
    return 1, word.value, word.sign == "+"


@FEW
@given(WORDS, WORDS, FIELDS)
def test_comparing(accumulator: str, text: str, field: tuple[int, int]) -> None:
    one, other = Word.of(accumulator), Word.of(text).field(field)

    def outcome(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        return layout.LOW if a < b else layout.EQUAL if a == b else layout.HIGH

    after = execute(instruction("+15", field), l200=text, a1=accumulator)
    assert after.registers[layout.COMPARED] == outcome(order(one), order(other))
    after = execute(instruction("-15", field), l200=text, a1=accumulator)
    assert after.registers[layout.COMPARED] == outcome((one.digits,), (other.digits,))


@FEW
@given(WORDS, st.integers(0, 9), st.integers(0, 9))
def test_comparing_a_digit(text: str, digit: int, position: int) -> None:
    after = execute(f"+0300{digit}{position}0200", l200=text)
    found = int(text[1 + position])
    expected = layout.HIGH if found > digit else layout.EQUAL if found == digit else layout.LOW
    assert after.registers[layout.COMPARED] == expected


@FEW
@given(WORDS, WORDS, FIELDS)
def test_multiplying(accumulator: str, text: str, field: tuple[int, int]) -> None:
    one, other = Word.of(accumulator), Word.of(text).field(field)
    after = execute(instruction("+53", field), l200=text, a3=accumulator, a1="+0000000007")
    product = f"{one.digits * other.digits:020d}"
    sign = "@" if "@" in one.sign + other.sign else "+" if one.sign == other.sign else "-"
    assert (after.accumulator(1), after.accumulator(2)) == (sign + product[:10], sign + product[10:])
    assert after.accumulator(3) == accumulator


@FEW
@given(WORDS, WORDS, WORDS, FIELDS)
def test_dividing(high: str, low: str, text: str, field: tuple[int, int]) -> None:
    divisor = Word.of(text).field(field)
    dividend = Word.of(high).digits * LIMIT + Word.of(low).digits
    after = execute(instruction("-53", field), l200=text, a1=high, a2=low)
    if Word.of(high).digits >= divisor.digits:
        assert after.reason == layout.IMPROPER_DIVISION
        assert (after.accumulator(1), after.accumulator(2)) == (high, low)
        return
    quotient, rest = divmod(dividend, divisor.digits)
    sign = "@" if "@" in high[0] + text[0] else "+" if high[0] == text[0] else "-"
    assert after.accumulator(1) == f"{high[0]}{rest:010d}"
    assert after.accumulator(2) == f"{sign}{quotient:010d}"
    assert after.accumulator(3) == f"{text[0]}{divisor.digits:010d}"


# Shifts, on strings


def rounded_right(digits: str, count: int) -> str:
    number = int(digits) + (5 * 10 ** (count - 1) if count else 0)
    return f"{number // 10**count:0{len(digits)}d}"


@FEW
@given(WORDS, st.integers(0, 10), st.integers(1, 3))
def test_shifting_one_accumulator(text: str, count: int, number: int) -> None:
    sign, digits = text[0], text[1:]
    expected = {
        0: ("0" * count + digits)[:10],
        1: rounded_right(digits, count),
        2: (digits + "0" * count)[count:],
    }
    for kind, result in expected.items():
        after = execute(f"+500000{number}{kind}{count:02d}", **{f"a{number}": text})
        assert after.accumulator(number) == sign + result


@FEW
@given(WORDS)
def test_shifting_and_counting(text: str) -> None:
    digits = text[1:]
    count = len(digits) - len(digits.lstrip("0")) if int(digits) else 0
    after = execute("+5000071300", a1=text, l7="-9912345678")
    assert after.accumulator(1) == text[0] + digits[count:].ljust(10, "0")
    assert after.word(7) == f"+99{count:04d}5678"


@FEW
@given(WORDS, WORDS)
def test_shifting_and_counting_both(one: str, two: str) -> None:
    digits = one[1:] + two[1:]
    count = len(digits) - len(digits.lstrip("0")) if int(digits) else 0
    after = execute("-5000070300", a1=one, a2=two, l7="+9912345678")
    shifted = digits[count:].ljust(20, "0")
    assert (after.accumulator(1), after.accumulator(2)) == (two[0] + shifted[:10], two[0] + shifted[10:])
    assert after.word(7) == f"+99{count:04d}5678"


@pytest.mark.slow
@FEW
@given(WORDS, WORDS, st.integers(0, 20), st.integers(0, 9))
def test_shifting_both(one: str, two: str, count: int, point: int) -> None:
    digits = one[1:] + two[1:]
    rounded = rounded_right(digits, count)
    expected = {
        0: (one[0], ("0" * count + digits)[:20]),
        1: (one[0], rounded),
        2: (two[0], (digits + "0" * count)[count:]),
        4: (one[0], digits[:point] + ("0" * count + digits[point:])[: 20 - point]),
        5: (two[0], ("" if not point else (digits[:point] + "0" * count)[-point:]) + digits[point:]),
        6: (two[0], digits[: 10 + point] + ("0" * count + digits[10 + point :])[: 10 - point]),
        7: (two[0], (digits[: 10 + point] + "0" * count)[-(10 + point) :] + digits[10 + point :]),
    }
    for kind, (sign, result) in expected.items():
        address = (point * 1000 if kind >= 4 else 0) + kind * 100 + count
        after = execute(f"-500000{address:04d}", a1=one, a2=two)
        assert (after.accumulator(1), after.accumulator(2)) == (sign + result[:10], sign + result[10:]), kind


def test_a_shift_whose_address_is_indexed_is_what_the_sum_says() -> None:
    after = execute("+5005001000", l5="+0002030000", a1="+0000001234")  # SR1 0 plus 203: SL1 3
    assert after.accumulator(1) == "+0001234000"
    after = execute("+5005000000", l5="+0012030000", a1="+0000001234")  # nothing by itself
    assert after.accumulator(1) == "+0001234000"
    assert execute("+5005000000", l5="+0000000000").reason == layout.INVALID_OPERATION


def test_a_shift_by_more_than_there_is_is_invalid() -> None:
    for text in ("+5000001011", "-5000000021"):
        assert execute(text).reason == layout.INVALID_OPERATION


# Accumulators are addresses, too


@pytest.mark.slow
@FEW
@given(WORDS, NUMERIC)
def test_an_accumulator_as_an_address(one: str, two: str) -> None:
    assert execute("+1300099992", a2=one).accumulator(1) == one
    assert execute("+1200099993", a1=one).accumulator(3) == one
    indexed = execute("+1305099900", a2=one, l5="+0000920000")
    assert indexed.accumulator(1) == one
    assert execute("+1205099900", a1=two, l5="+0000930000").accumulator(3) == two


def test_other_high_addresses_have_nothing() -> None:
    for text in ("+1300099990", "+1300099995", "+1200099999", "+1305099990"):
        after = execute(text, l5="+0000090000")
        assert after.reason == layout.NO_SUCH_LOCATION
        assert after.pc == 1000


@given(st.integers(0, LIMIT - 1), st.sampled_from("+-@"))
@settings(max_examples=300, deadline=None)
@pytest.mark.slow
def test_any_word_is_an_instruction(digits: int, sign: str) -> None:
    """It ends in one of the known ways, alike whether interpreted or translated."""
    before = program(f"{sign}{digits:010d}", "-0000000000", l5="+0000070003", a1="+0000000001", a3="-0000000002")
    for at in range(1, 100):
        before.storage.setdefault(at, words.parse(f"-00{at:04d}{at + 1:04d}"))
    if f"{sign}{digits:010d}"[:3] in ("+66", "+67", "+68", "+01", "+02"):
        return  # these may go on for ever
    after = both(before)
    assert all(words.valid(word) for word in after.storage.values())
    assert all(words.valid(after.registers[slot]) for slot in (layout.AC1, layout.AC2, layout.AC3))
