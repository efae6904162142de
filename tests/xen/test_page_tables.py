"""Types and references of frames against a recount from the tables themselves, whatever a guest asks for."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xen.stopped import stopped_domains
from virtus.memory.guest_memory import FRAME_SHIFT
from virtus.memory.x86_paging import FRAME_MASK, LARGE, NO_EXECUTE, PRESENT, USER, WRITABLE
from virtus.personalities.xen.abi import EBUSY, EINVAL, EPERM, Refused
from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.frames import FrameTable, Kind
from virtus.personalities.xen.page_tables import FIRST_OURS, LAST_OURS

FRAMES = 10  # few, so that random operations meet
SLOTS = (0, 1, 2, 255, 256, 271, 272, 511)
RW, RO = PRESENT | WRITABLE | USER, PRESENT | USER


def entries_of(domain: Domain, frame: int, level: int) -> list[int]:
    table = domain.memory.entries(frame)
    ours = range(FIRST_OURS, LAST_OURS + 1) if level == Kind.L4 else range(0)
    return [entry for at, entry in enumerate(table) if entry & PRESENT and at not in ours]


def held_otherwise(domain: Domain) -> Iterator[tuple[int, int]]:
    """Frames that the domain's processor uses, and as what."""
    cpu = domain.cpu
    yield from ((root, Kind.L4) for root in (cpu._kernel_root, cpu._user_root) if root > 0)
    yield from ((frame, Kind.DESCRIPTORS) for frame in cpu._gdt)
    if cpu._info_registered:
        yield cpu.info_at >> FRAME_SHIFT, Kind.WRITABLE


def check(domain: Domain) -> None:
    """Every count is what the tables in use, the pins and the allocations make it."""
    frames = domain.frames
    references, uses = Counter[int](), Counter[tuple[int, int]]()
    for frame, kind in held_otherwise(domain):
        references[frame] += 1
        uses[frame, kind] += 1
    own = range(domain.first_frame, domain.first_frame + domain.frame_count)
    for frame, level in domain.tables.pinned.items():
        references[frame] += 1
        uses[frame, level] += 1
    for table in own:
        kind = frames.kind[table]
        if not frames.uses[table] or not Kind.L1 <= kind <= Kind.L4:
            continue
        for entry in entries_of(domain, table, kind):
            frame = (entry & FRAME_MASK) >> FRAME_SHIFT
            assert entry & USER
            references[frame] += 1
            if kind > Kind.L1:
                uses[frame, kind - 1] += 1
            elif entry & WRITABLE:
                uses[frame, Kind.WRITABLE] += 1
    for frame in own:
        if frames.owner[frame] == domain.ident:
            assert frames.references[frame] == 1 + references[frame], hex(frame)
        else:
            assert frames.references[frame] == references[frame] == 0, hex(frame)
        kinds = {kind: count for (one, kind), count in uses.items() if one == frame}
        assert len(kinds) <= 1, f"frame {frame:#x} is used as {kinds}"
        assert frames.uses[frame] == sum(kinds.values()), hex(frame)
        if kinds:
            assert frames.kind[frame] == next(iter(kinds))


numbers = st.integers(0, FRAMES - 1)
flags = st.sampled_from([RW, RO, RW | NO_EXECUTE, PRESENT, 0, LARGE | RW, RW | 0x100])
operations = st.lists(
    st.one_of(
        st.tuples(st.just("pin"), numbers, st.integers(1, 4)),
        st.tuples(st.just("unpin"), numbers, st.just(0)),
        st.tuples(st.just("write"), numbers, st.sampled_from(SLOTS), numbers, flags),
        st.tuples(st.just("plain"), numbers, st.sampled_from(SLOTS), numbers, flags),
    ),
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=120)
@given(operations)
def test_counts_are_what_the_tables_make_them(steps: list[tuple[object, ...]]) -> None:
    with stopped_domains() as (_, (domain,), _):
        first, tables, frames = domain.first_frame, domain.tables, domain.frames
        for name, number, *rest in steps:
            assert isinstance(number, int)
            frame = first + number
            try:
                if name == "pin":
                    (level,) = rest
                    assert isinstance(level, int)
                    tables.pin(frame, level)
                elif name == "unpin":
                    tables.unpin(frame)
                else:
                    slot, target, how = rest
                    assert isinstance(slot, int) and isinstance(target, int) and isinstance(how, int)
                    entry = (first + target) << FRAME_SHIFT | how
                    in_use = frames.uses[frame] and Kind.L1 <= frames.kind[frame] <= Kind.L4
                    if name == "plain" and not in_use:  # what a guest stores by itself
                        domain.memory.entries(frame)[slot] = entry
                    elif name == "write":
                        tables.write((frame << FRAME_SHIFT) + 8 * slot, entry)
            except Refused:
                pass
            check(domain)
        for frame in list(tables.pinned):
            tables.unpin(frame)
        check(domain)
        assert not any(frames.uses[first + number] for number in range(FRAMES))


def test_a_table_four_levels_deep_holds_all_below() -> None:
    with stopped_domains() as (_, (domain,), _):
        first, entries = domain.first_frame, domain.memory.entries
        for level in (4, 3, 2):
            entries(first + level)[7] = (first + level - 1) << FRAME_SHIFT | RW
        entries(first + 1)[7] = first << FRAME_SHIFT | RW
        domain.tables.pin(first + 4, 4)
        check(domain)
        assert [domain.frames.kind[first + at] for at in range(5)] == [Kind.WRITABLE, 1, 2, 3, 4]
        with pytest.raises(Refused) as refusal:
            domain.tables.pin(first, 1)
        assert refusal.value.error == EBUSY
        domain.tables.unpin(first + 4)
        domain.tables.pin(first, 1)
        check(domain)


def test_an_entry_may_keep_what_the_processor_noted() -> None:
    with stopped_domains() as (_, (domain,), _):
        first = domain.first_frame
        domain.tables.pin(first, 1)
        at = first << FRAME_SHIFT
        domain.tables.write(at, (first + 1) << FRAME_SHIFT | RW | 0x60)
        domain.tables.write(at, (first + 1) << FRAME_SHIFT | RO, preserve=True)
        assert domain.memory.entries(first)[0] & 0xFFF == RO | 0x60
        check(domain)


def test_of_a_former_table_only_what_was_replaced_is_looked_at_again() -> None:
    """A processor that shadows tables may remember an entry that the hypervisor replaced while the frame was none."""
    with stopped_domains() as (_, (domain,), _):
        context, frame = domain.cpu.context, domain.first_frame
        at, target = frame << FRAME_SHIFT, (frame + 1) << FRAME_SHIFT
        domain.tables.write(at, target | RO)
        assert not context.changed  # it has never been a table
        domain.tables.pin(frame, 1)
        domain.tables.unpin(frame)
        domain.tables.write(at, target | RW)
        domain.tables.write(at + 8, target | RW)  # there was nothing before
        assert context.changed == [at]
        domain.tables.stored_into(frame)  # somewhere in it, by a back end
        domain.tables.pin(frame, 1)
        assert at in context.changed
        check(domain)


@pytest.mark.parametrize(("address", "error"), [(0, EPERM), (4, EINVAL), (1 << 45, EINVAL)])
def test_entries_are_the_domains_own_and_aligned(address: int, error: int) -> None:
    with stopped_domains() as (_, (domain,), _):
        with pytest.raises(Refused) as refusal:
            domain.tables.write(address, 0)
        assert refusal.value.error == error


def test_a_freed_frame_is_nobodys_until_it_is_given_again() -> None:
    frames = FrameTable(4)
    frames.give(0, 4, 1)
    frames.refer(2, 1)
    with pytest.raises(Refused):
        frames.give_up(2, 1)
    frames.release(2)
    frames.give_up(2, 1)
    with pytest.raises(Refused):
        frames.refer(2, 1)
    assert frames.take_free(7) == 2
    with pytest.raises(Refused):
        frames.refer(2, 1)
    with pytest.raises(Refused):
        frames.take_free(1)
