"""The memory that all address spaces of a translated machine share."""

from collections.abc import Iterator

import pytest

from virtus.errors import MachineBroken
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.region import Region


@pytest.fixture
def memory() -> Iterator[Region]:
    made = Region()
    yield made
    made.close()


def test_code_stands_where_vectors_beside_it_are_aligned(memory: Region) -> None:
    for size in (1, 64, 100):
        assert memory.place % 64 == 0
        assert memory.put(bytes(size)) % 64 == 0


def test_code_has_an_end(memory: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "CODE_BYTES", 128)
    memory.put(bytes(100))
    with pytest.raises(MachineBroken, match="has filled"):
        memory.put(bytes(1))


def test_a_state_that_is_given_back_is_empty_when_it_is_taken_again(memory: Region) -> None:
    page = memory.take_state()
    memory.state(page)[5] = 7
    memory.give_state(page)
    assert memory.take_state() == page
    assert memory.state(page)[5] == 0


def test_states_come_to_an_end(memory: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOST_THREADS", 1)
    memory.take_state()
    with pytest.raises(MachineBroken, match="threads are there already"):
        memory.take_state()
