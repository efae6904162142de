"""Where mappings of riscv64 guests go: never over another, never beyond user memory, the same each time."""

import errno
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linux.fake import BASE
from tests.linux.riscv64 import PAGE, RiscvContext, RiscvMachine
from virtus.isa.riscv64.registers import GUEST_END
from virtus.personalities.linux import placement
from virtus.personalities.linux.task import Task

PRIVATE, FIXED, ANONYMOUS, NOREPLACE = 2, 0x10, 0x20, 0x100000
MAYMOVE: Final = 1
TOP: Final = GUEST_END - placement.STACK_GAP
AS: Final = 9


def mapped(task: Task) -> list[tuple[int, int]]:
    context = task.context
    assert isinstance(context, RiscvContext)
    return context.mapped()


@pytest.fixture(autouse=True)
def of_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no row of the host's /proc for a fake context."""
    monkeypatch.setattr(placement, "mapped", mapped)


@pytest.fixture
def machine() -> Iterator[RiscvMachine]:
    made = RiscvMachine("memory_calls", "sysv", "limits_calls")
    yield made
    made.close()


def map_(machine: RiscvMachine, length: int, address: int = 0, flags: int = 0) -> int:
    result = machine.call("mmap", address, length, 3, PRIVATE | ANONYMOUS | flags, -1, 0)
    assert result is not None
    return result


def test_mappings_go_down_from_below_the_stack(machine: RiscvMachine) -> None:
    assert map_(machine, 1) == TOP - PAGE
    assert map_(machine, 3 * PAGE) == TOP - 4 * PAGE
    assert map_(machine, PAGE, 0x12_3456_7000) == 0x12_3456_7000
    assert map_(machine, PAGE, 0x12_3456_7000) == TOP - 5 * PAGE  # the hint is taken
    assert map_(machine, PAGE, 0x1000) == TOP - 6 * PAGE  # a hint for where nothing may be


def test_what_cannot_be_is_refused(machine: RiscvMachine) -> None:
    assert map_(machine, 0) == -errno.EINVAL
    assert map_(machine, GUEST_END) == -errno.ENOMEM
    assert map_(machine, 2**64 - 1) == -errno.ENOMEM
    assert map_(machine, PAGE, GUEST_END, FIXED) == -errno.ENOMEM
    assert map_(machine, PAGE, GUEST_END - PAGE, FIXED) == GUEST_END - PAGE
    assert map_(machine, PAGE, GUEST_END - PAGE, NOREPLACE) == -errno.EEXIST
    assert machine.call("mremap", GUEST_END - PAGE, PAGE, 2 * PAGE, 0, 0) == -errno.ENOMEM
    assert machine.call("mremap", GUEST_END - PAGE, PAGE, 2 * PAGE, MAYMOVE, 0) == TOP - 2 * PAGE


def test_after_the_lowest_address_the_highest_gap_is_taken(machine: RiscvMachine) -> None:
    kept = map_(machine, 4 * PAGE)
    gone = map_(machine, 2 * PAGE)
    below = map_(machine, PAGE)
    assert machine.call("munmap", gone, 2 * PAGE) == 0
    machine.task.memory.map_cursor = placement.LOWEST
    assert map_(machine, 3 * PAGE) == below - 3 * PAGE  # does not fit between
    machine.task.memory.map_cursor = placement.LOWEST
    assert map_(machine, 2 * PAGE) == gone
    assert {page * PAGE for page in machine.context.pages} >= {kept, gone, below}


def test_a_heap_ends_where_something_else_begins(machine: RiscvMachine) -> None:
    memory = machine.task.memory
    memory.break_start = memory.break_end = 0x20000
    assert map_(machine, PAGE, 0x23000, FIXED) == 0x23000
    assert machine.call("brk", 0x22800) == 0x22800
    assert machine.call("brk", 0x23800) == 0x22800
    assert machine.call("brk", 0) == 0x22800


def test_the_address_space_can_be_limited(machine: RiscvMachine) -> None:
    limit = machine.store((64 * PAGE).to_bytes(8, "little") * 2)
    first = map_(machine, 32 * PAGE)
    assert machine.call("setrlimit", AS, limit) == 0
    assert map_(machine, 33 * PAGE) == -errno.ENOMEM
    assert machine.call("mremap", first, 32 * PAGE, 65 * PAGE, MAYMOVE, 0) == -errno.ENOMEM
    assert map_(machine, 32 * PAGE) > 0
    assert map_(machine, PAGE, BASE, FIXED) == BASE  # in place of what is there, as far as one can tell


def test_shared_memory_is_placed_alike(machine: RiscvMachine) -> None:
    segment = machine.call("shmget", 0, 2 * PAGE, 0o600)
    assert segment is not None
    assert machine.call("shmat", segment, 0, 0) == TOP - 2 * PAGE
    assert machine.call("shmat", segment, GUEST_END, 0) == -errno.ENOMEM


SIZES = st.integers(1, 12 * PAGE)
ACTIONS = st.lists(st.tuples(st.sampled_from(("map", "unmap", "move")), SIZES, SIZES, st.integers(0, 30)), max_size=16)


def _play(actions: list[tuple[str, int, int, int]]) -> list[int]:
    machine = RiscvMachine("memory_calls")
    regions: list[tuple[int, int]] = []
    results = []
    try:
        for name, size, other, which in actions:
            if which == 30:
                machine.task.memory.map_cursor = placement.LOWEST
            if name == "map" or not regions:
                result = map_(machine, size)
                regions.append((result, size))
            else:
                start, length = regions.pop(which % len(regions))
                if name == "unmap":
                    result = machine.call("munmap", start, length) or 0
                else:
                    result = machine.call("mremap", start, length, other, MAYMOVE, 0) or 0
                    regions.append((result, other))
            results.append(result)
            pages = [page for start, length in regions for page in range(start, start + length, PAGE)]
            assert all(placement.LOWEST <= page < GUEST_END for page in pages)  # growing in place may go above TOP
            assert sorted(pages) == [start for start, _ in machine.context.mapped()]
    finally:
        machine.close()
    return results


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_nothing_overlaps_and_all_is_as_before_when_done_again(actions: list[tuple[str, int, int, int]]) -> None:
    assert _play(actions) == _play(actions)
