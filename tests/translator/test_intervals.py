"""The set of executable addresses against a set of Python's own."""

from hypothesis import given
from hypothesis import strategies as st

from virtus.vcpus.translator.intervals import Intervals

BOUNDS = st.tuples(st.integers(0, 40), st.integers(0, 40))
STEPS = st.lists(st.tuples(st.booleans(), BOUNDS), max_size=12)


@given(STEPS, BOUNDS)
def test_it_holds_what_a_plain_set_holds(steps: list[tuple[bool, tuple[int, int]]], window: tuple[int, int]) -> None:
    intervals, plain = Intervals(), set[int]()
    for adds, (start, end) in steps:
        if adds:
            intervals.add(start, end)
            plain |= set(range(start, end))
        else:
            intervals.remove(start, end)
            plain -= set(range(start, end))
    assert {value for value in range(42) if value in intervals} == plain
    inside = plain & set(range(*window))
    assert intervals.overlaps(*window) == bool(inside)
    assert {value for low, high in intervals.pieces(*window) for value in range(low, high)} == inside


def test_a_copy_goes_its_own_way() -> None:
    first = Intervals()
    first.add(1, 5)
    second = first.copy()
    second.remove(1, 5)
    assert 1 in first
    assert 1 not in second
