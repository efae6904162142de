"""Index words, branches, signs, switches, indicators."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ibm7070.harness import CODE, both, execute, program
from virtus.isa.ibm7070 import layout

FEW = settings(max_examples=15, deadline=None)
PORTIONS = st.one_of(st.integers(0, 9999), st.sampled_from([0, 1, 9999]))
SIGNS = st.sampled_from("+-@")


def index_word(sign: str, portion: int, rest: int) -> str:
    return f"{sign}77{portion:04d}{rest:04d}"


@FEW
@given(st.sampled_from("+-"), PORTIONS, st.integers(0, 9999))
def test_indexing(sign: str, portion: int, address: int) -> None:
    target = (address + (portion if sign == "+" else -portion)) % 10_000
    after = execute(f"+010500{address:04d}", l5=index_word(sign, portion, 0))
    if target < layout.STORAGE and target not in (CODE, CODE + 1, 5):
        assert after.pc == target
        assert after.reason == layout.HALT or after.reason == layout.INVALID_OPERATION


def test_an_alpha_index_word_halts() -> None:
    assert execute("+1305090200", l5="@0000010000").reason == layout.ALPHA_INDEX_WORD


@FEW
@given(SIGNS, PORTIONS, PORTIONS, PORTIONS)
def test_arithmetic_on_index_words(sign: str, portion: int, rest: int, amount: int) -> None:
    old = index_word(sign, portion, rest)
    value = -portion if sign == "-" else portion
    for code, total in (("+47", value + amount), ("-47", value - amount)):
        new_sign = "@" if sign == "@" else sign if total == 0 else "-" if total < 0 else "+"
        after = execute(f"{code}0007{amount:04d}", l7=old)
        assert after.word(7) == index_word(new_sign, abs(total) % 10_000, rest)
    assert execute(f"+460007{amount:04d}", l7=old).word(7) == index_word("+", amount, rest)
    assert execute(f"-460007{amount:04d}", l7=old).word(7) == index_word("-", amount, rest)
    assert execute(f"+480007{amount:04d}", l7=old).word(7) == index_word(sign, portion, amount)
    assert execute("+4500070200", l200=old).word(7) == old
    assert execute("-4500070200", l7=old).word(200) == old
    assert execute("-4800070200", l200=old).word(7) == index_word(sign, rest, portion)


@FEW
@given(SIGNS, PORTIONS, PORTIONS)
def test_branches_on_index_words(sign: str, portion: int, limit: int) -> None:
    old = index_word(sign, portion, limit)

    def goes(text: str) -> bool:
        return execute(text, l7=old).pc == 2000

    assert goes("+4400072000") == (portion != 0)
    assert goes("-4400072000") == (sign == "-")
    for code, step in (("+49", 1), ("-49", -1), ("-43", 0)):
        after = execute(f"{code}00072000", l7=old)
        new = (portion + step) % 10_000
        assert after.word(7) == index_word(sign, new, limit)
        assert (after.pc == 2000) == (0 < new <= limit)


def test_branch_and_load_keeps_the_next_location() -> None:
    after = execute("+0200942000", l94="-1234567890")
    assert after.pc == 2000
    assert after.word(94) == "+1210017890"


@pytest.mark.parametrize(
    ("code", "register", "yes", "no"),
    [
        ("+10", layout.AC1, 0, 5),
        ("-20", layout.AC2, 1 << 40, 0),
        ("+31", layout.OVERFLOW3, 1, 0),
        ("+40", layout.COMPARED, layout.LOW, layout.HIGH),
        ("-40", layout.COMPARED, layout.HIGH, layout.EQUAL),
        ("-41", layout.COMPARED, layout.EQUAL, layout.NOTHING),
        ("+70", layout.FLOAT_OVERFLOW, 1, 0),
        ("-70", layout.FLOAT_UNDERFLOW, 1, 0),
        ("+41", layout.FIELD_OVERFLOW, layout.SENSED, layout.SENSES),
        ("-03", layout.SIGN_CHANGE, layout.SENSED, layout.SENSES),
    ],
)
def test_branches(code: str, register: int, yes: int, no: int) -> None:
    control = "04" if code == "-03" else "00"
    for index in ("00", "05"):
        for value, goes in ((yes, True), (no, False)):
            before = program(f"{code}{index}{control}2000", "-0000000000", l5="+0000000000")
            before.registers[register] = value
            after = both(before)
            assert after.pc == (2000 if goes else CODE + 1)
            if register in (layout.OVERFLOW3, layout.FLOAT_OVERFLOW, layout.FLOAT_UNDERFLOW):
                assert after.registers[register] == 0
            if register in (layout.FIELD_OVERFLOW, layout.SIGN_CHANGE):
                assert after.registers[register] == layout.SENSES


@pytest.mark.parametrize(("code", "slot"), [("+41", layout.FIELD_OVERFLOW), ("-03", layout.SIGN_CHANGE)])
def test_modes(code: str, slot: int) -> None:
    sense, halt = ("1", "2") if code == "+41" else ("2", "3")
    for old, new in ((layout.HALTS, layout.SENSES), (layout.SENSES, layout.SENSES), (layout.SENSED, layout.SENSED)):
        before = program(f"{code}000{sense}0000", "-0000000000")
        before.registers[slot] = old
        assert both(before).registers[slot] == new
    before = program(f"{code}000{halt}0000", "-0000000000")
    before.registers[slot] = layout.SENSED
    assert both(before).reason in (layout.FIELD_OVERFLOWS, layout.SIGN_CHANGES)
    before.registers[slot] = layout.SENSES
    assert both(before).registers[slot] == layout.HALTS


@pytest.mark.parametrize("sign", ["+", "-", "@"])
def test_signs(sign: str) -> None:
    digit = {"+": 9, "-": 6, "@": 3}[sign]
    for wanted in (3, 6, 9):
        after = execute(f"-0300{wanted}00200", l200=f"{sign}0000000005")
        expected = layout.LOW if digit < wanted else layout.EQUAL if digit == wanted else layout.HIGH
        assert after.registers[layout.COMPARED] == expected
    assert execute(f"-0300{digit}10200", l200="+0000000005").word(200) == f"{sign}0000000005"


def test_electronic_switches() -> None:
    """Switch 13 is digit 2 of location 102."""
    assert execute("+6200120000").word(102) == "+0010000000"
    assert execute("+6200220000", l102="+1111111111").word(102) == "+1101111111"
    for text, expected, goes in (
        ("+6200022000", "+0010000000", True),
        ("+6200322000", "+0010000000", True),
        ("+6200422000", "+0000000000", True),
        ("+6205421000", "+0000000000", True),
    ):
        after = execute(text, l102="+0010000000", l5="+0010000000")
        assert (after.pc == 2000) == goes
        assert after.word(102) == expected
    assert execute("+6200322000").word(102) == "+0010000000"


def test_time_passes() -> None:
    after = execute("-0100000000", "-0100000000", "-0100000000")
    assert after.registers[layout.CYCLES] == 3 * 7


def test_an_event_comes_out_before_the_instruction() -> None:
    before = program("-0100000000", "-0100000000", "-0100000000", "-0000000000")
    before.registers[layout.DEADLINE] = 14
    after = both(before)
    assert (after.reason, after.pc) == (layout.EVENT, CODE + 2)
