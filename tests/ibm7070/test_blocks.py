"""Block transmission, table look-up, editing: instructions that take a word at a time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ibm7070.harness import State, both, execute
from virtus.isa.ibm7070 import layout
from virtus.isa.ibm7070 import word as words

FEW = settings(max_examples=15, deadline=None)
AREAS = st.lists(st.tuples(st.integers(2000, 2100), st.integers(-1, 6)), min_size=1, max_size=4)
HALT = words.parse("-0000000000")


def definitions(areas: list[tuple[int, int]]) -> list[str]:
    return [
        f"{'-' if number == len(areas) - 1 else '+'}00{start:04d}{start + length - 1:04d}"
        for number, (start, length) in enumerate(areas)
    ]


def state(text: str, areas: list[tuple[int, int]], **storage: int) -> State:
    made = State({1000: words.parse(text), 1001: HALT})
    made.storage |= {1500 + number: words.parse(word) for number, word in enumerate(definitions(areas))}
    return made


def expand(areas: list[tuple[int, int]]) -> list[int]:
    return [location for start, length in areas for location in range(start, start + max(length, 0))]


@FEW
@given(AREAS, st.lists(st.integers(-(10**10) + 1, 10**10 - 1), min_size=40, max_size=40))
def test_scattering_and_gathering(areas: list[tuple[int, int]], numbers: list[int]) -> None:
    scatter, gather = state("+6500071500", areas), state("-6500071500", areas)
    scatter.storage[7] = gather.storage[7] = words.parse("+0030000000")
    record = {3000 + offset: words.number(number) for offset, number in enumerate(numbers)}
    scatter.storage |= record
    gather.storage |= {location: words.number(numbers[location % 40]) for location in expand(areas)}
    expected = dict(scatter.storage)
    for offset, location in enumerate(expand(areas)):
        expected[location] = expected.get(3000 + offset, 0)
    assert both(scatter).storage == {location: word for location, word in expected.items() if word}
    expected = dict(gather.storage)
    for offset, location in enumerate(expand(areas)):
        expected[3000 + offset] = expected.get(location, 0)
    assert both(gather).storage == {location: word for location, word in expected.items() if word}


def test_a_list_that_does_not_end_runs_into_what_is_no_storage() -> None:
    after = execute("+6500079989", l7="+0030000000", l9989="+0000000000")
    assert after.reason == layout.NO_SUCH_LOCATION


def test_an_event_waits_for_the_end() -> None:
    before = state("+6500071500", [(2000, 50)])
    before.storage[7] = words.parse("+0030000000")
    before.registers[layout.DEADLINE] = 10
    after = both(before)
    assert (after.reason, after.pc) == (layout.EVENT, 1001)
    assert after.registers[layout.PHASE] == 0


def test_a_block_may_overwrite_its_own_instruction() -> None:
    after = execute("+6500071500", l7="+0030000000", l1500="-0010001001", l3000="-0100000000", l3001="-0000002222")
    assert after.word(1000) == "-0100000000"
    assert (after.reason, after.pc) == (layout.HALT, 1001)


TABLE = st.lists(st.integers(0, 99), min_size=1, max_size=8)


@FEW
@given(TABLE, st.integers(0, 99), st.integers(1, 3))
def test_looking_up(entries: list[int], wanted: int, step: int) -> None:
    """Entries have the argument in 0 to 3; they are `step` locations apart."""
    storage = {f"l{2000 + number * step}": f"-{entry:04d}000{number:03d}" for number, entry in enumerate(entries)}
    storage |= {"l98": f"-11{step:04d}2222", "l1500": f"-002000{2000 + (len(entries) - 1) * step:04d}"}
    storage["a3"] = f"+{wanted:010d}"
    for code, found in (
        ("67", next((n for n, entry in enumerate(entries) if entry == wanted), None)),
        ("68", next((n for n, entry in enumerate(entries) if entry >= wanted), None)),
        ("66", entries.index(min(entries)) if min(entries) < wanted else None),
    ):
        after = execute(f"+{code}00031500", "-0000000000", **storage)
        assert after.pc == (1001 if found is None else 1002)
        if found is not None:
            assert after.word(98) == f"+11{2000 + found * step:04d}2222"
        else:
            assert after.word(98) == storage["l98"]
        if code == "66" and found is not None:
            assert after.accumulator(3) == f"+{min(entries):010d}"


NUMBERS = st.lists(st.tuples(st.sampled_from("+-@"), st.integers(0, 10**10 - 1)), min_size=1, max_size=3)


@FEW
@given(NUMBERS)
def test_editing(numbers: list[tuple[str, int]]) -> None:
    storage = {f"l{2000 + offset}": f"{sign}{digits:010d}" for offset, (sign, digits) in enumerate(numbers)}
    storage |= {"l7": "+0020000000", "l1500": f"-003000{3000 + 2 * len(numbers) - 1:04d}"}
    for code in ("+56", "-56", "+57"):
        after = execute(f"{code}00071500", **storage)
        for offset, (sign, digits) in enumerate(numbers):
            text = f"{digits:010d}"
            if code == "+57":
                text = text.lstrip("0").rjust(10)
            elif code == "-56" and sign != "@":
                text = text[:-1] + ("?ABCDEFGHI" if sign == "+" else "!JKLMNOPQR")[int(text[-1])]
            expected = [words.show(words.alpha(text[:5])), words.show(words.alpha(text[5:]))]
            assert [after.word(3000 + 2 * offset), after.word(3001 + 2 * offset)] == expected
        if code == "-56":
            back = execute("-5700071500", l7="+0040000000", l1500=storage["l1500"], **{
                f"l{location}": after.word(location) for location in range(3000, 3000 + 2 * len(numbers))
            })  # fmt: skip
            for offset, (sign, digits) in enumerate(numbers):
                assert back.word(4000 + offset) == f"{'+' if sign == '@' else sign}{digits:010d}"
