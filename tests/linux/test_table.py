"""The system-call table: how registers become arguments, and that it is a table of x86-64 Linux."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.isa.riscv64 import linux_calls as riscv64
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux import boot, table
from virtus.personalities.linux.table import Int, Long, Uint, Word, call

REGISTERS = (3, 2, 1, 0, 4, 5)


@pytest.fixture
def scratch() -> Iterator[None]:
    before = dict(table.TABLE)
    yield
    table.TABLE.clear()
    table.TABLE.update(before)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
def test_registers_are_read_as_the_annotations_say(values: list[int]) -> None:
    def handler(task: object, a: Int, b: Uint, c: Long, d: Word) -> tuple[int, int, int, int]:
        return a, b, c, d

    before = dict(table.TABLE)
    try:
        call("test_call")(handler)
        entry = table.TABLE["test_call"].bind(REGISTERS)
    finally:
        table.TABLE.clear()
        table.TABLE.update(before)
    a, b, c, d = entry(None, values)
    assert a == int.from_bytes(values[3].to_bytes(8, "little")[:4], "little", signed=True)
    assert b == values[2] % 2**32
    assert c == int.from_bytes(values[1].to_bytes(8, "little"), "little", signed=True)
    assert d == values[0]


def test_a_call_stands_in_the_table_once(scratch: None) -> None:
    def handler(task: object) -> int:
        return 0

    call("once")(handler)
    with pytest.raises(ValueError, match="twice"):
        call("once")(handler)


def test_notes_make_support_partial(scratch: None) -> None:
    def handler(task: object) -> int:
        return 0

    call("whole")(handler)
    call("part", note="half of it")(handler)
    assert table.TABLE["whole"].support is table.Support.FULL
    assert table.TABLE["part"].support is table.Support.PARTIAL


def test_every_entry_is_a_call_of_linux_and_none_is_missing() -> None:
    boot.load_handlers()
    assert set(table.TABLE) == set(NUMBERS) | set(riscv64.NUMBERS)
