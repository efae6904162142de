"""Regions, virtual memory and heaps, against a plain model of pages and blocks."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.win32.fake_engine import FakeEngine, call, new_thread, room
from virtus.guests import pe
from virtus.personalities.win32 import commit_journal, errors, heaps, native_memory, virtual_memory
from virtus.personalities.win32.commit_journal import CommitJournal
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.heap_blocks import LARGE, class_of
from virtus.personalities.win32.modules import Module
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.regions import PAGE, PAGE_READWRITE, Kind, Region
from virtus.techniques.peers import prng_dll

COMMIT, RESERVE, DECOMMIT, RELEASE = 0x1000, 0x2000, 0x4000, 0x8000
BASE = 0x10000
MODULES = (native_memory,)


@pytest.fixture
def thread() -> Thread:
    return new_thread()


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(1, 16), st.sampled_from([0, 2, 4])), max_size=12))
def test_runs_are_what_pages_one_by_one_are(changes: list[tuple[int, int, int]]) -> None:
    region, pages = Region(BASE, 16 * PAGE, Kind.PRIVATE, 4), [0] * 16
    for first, count, value in changes:
        last = min(16, first + count)
        region.set(BASE + first * PAGE, BASE + last * PAGE, value)
        pages[first:last] = [value] * (last - first)
    seen = [value for start, end, value in region.runs(BASE, region.end) for _ in range(start, end, PAGE)]
    assert seen == pages
    assert all(one != other for one, other in zip(region.values, region.values[1:], strict=False))


def query(thread: Thread, address: int) -> tuple[int, ...]:
    result = room(thread, 48)
    assert call(thread, "VirtualQuery", address, result, 48) == 48
    base, allocation, first, _, size, status, protection, kind = struct.unpack(
        "<QQIHxxQIIIxxxx", thread.memory.read(result, 48)
    )
    return base, allocation, first, size, status, protection, kind


def test_reserving_and_committing(thread: Thread) -> None:
    base = call(thread, "VirtualAlloc", 0, 5 * PAGE + 1, RESERVE, 4)
    assert base % 0x10000 == 0
    assert query(thread, base + 2 * PAGE + 7) == (base + 2 * PAGE, base, 4, 4 * PAGE, RESERVE, 0, 0x20000)
    with pytest.raises(AccessViolation):
        thread.memory.read(base, 1)
    assert call(thread, "VirtualAlloc", base + PAGE + 5, 10, COMMIT, 2) == base + PAGE
    assert query(thread, base + PAGE)[3:6] == (PAGE, COMMIT, 2)
    assert thread.memory.read(base + PAGE, 1) == b"\0"
    with pytest.raises(AccessViolation):
        thread.memory.write(base + PAGE, b"x")
    old = room(thread, 4)
    assert call(thread, "VirtualProtect", base + PAGE, PAGE, 4, old) == 1
    assert thread.memory.u32(old) == 2
    thread.memory.write(base + PAGE, b"x")
    assert call(thread, "VirtualFree", base + PAGE, PAGE, DECOMMIT) == 1
    assert call(thread, "VirtualAlloc", base, 6 * PAGE, COMMIT, 4) == base
    assert thread.memory.read(base + PAGE, 1) == b"\0"
    assert call(thread, "VirtualFree", base, 0, RELEASE) == 1
    assert query(thread, base)[4] == 0x10000


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, 0, COMMIT, 4), errors.ERROR_INVALID_PARAMETER),
        ((0, 1, COMMIT, 3), errors.ERROR_INVALID_PARAMETER),
        ((0, 1, COMMIT, 8), errors.ERROR_INVALID_PARAMETER),
        ((0, 1, 0, 4), errors.ERROR_INVALID_PARAMETER),
        ((0, 1, COMMIT | 0x20000000, 4), errors.ERROR_PRIVILEGE_NOT_HELD),
        ((0x5000_0000, 1, COMMIT, 4), errors.ERROR_INVALID_ADDRESS),
        ((0x1000, 1, RESERVE, 4), errors.ERROR_INVALID_PARAMETER),
        ((0, 1 << 60, RESERVE, 4), errors.ERROR_INVALID_PARAMETER),
    ],
)
def test_what_cannot_be_allocated(thread: Thread, arguments: tuple[int, ...], error: int) -> None:
    assert call(thread, "VirtualAlloc", *arguments) == 0
    assert thread.last_error == error


def test_what_cannot_be_freed_or_protected(thread: Thread) -> None:
    base, old = call(thread, "VirtualAlloc", 0, 4 * PAGE, RESERVE, 4), room(thread, 4)
    for arguments, error in (
        ((base, PAGE, RELEASE), errors.ERROR_INVALID_PARAMETER),
        ((base + PAGE, 0, RELEASE), errors.ERROR_INVALID_ADDRESS),
        ((0x4000_0000, 0, RELEASE), errors.ERROR_INVALID_ADDRESS),
        ((base, 0, RELEASE | DECOMMIT), errors.ERROR_INVALID_PARAMETER),
    ):
        assert call(thread, "VirtualFree", *arguments) == 0
        assert thread.last_error == error
    assert call(thread, "VirtualProtect", base, PAGE, 4, old) == 0
    assert thread.last_error == errors.ERROR_INVALID_ADDRESS
    assert call(thread, "VirtualProtect", base, PAGE, 4, 0) == 0
    assert thread.last_error == errors.ERROR_NOACCESS


def test_a_part_of_a_region_can_be_released_natively(thread: Thread) -> None:
    base = call(thread, "VirtualAlloc", 0, 4 * PAGE, RESERVE | COMMIT, 4)
    thread.memory.write(base + 3 * PAGE, b"kept")
    address, size = room(thread, struct.pack("<Q", base + PAGE)), room(thread, struct.pack("<Q", PAGE))
    assert call(thread, "NtFreeVirtualMemory", 2**64 - 1, address, size, RELEASE) == 0
    assert query(thread, base + PAGE)[3:5] == (PAGE, 0x10000)
    assert query(thread, base + 2 * PAGE)[:2] == (base + 2 * PAGE, base + 2 * PAGE)
    assert thread.memory.read(base + 3 * PAGE, 4) == b"kept"


def test_a_guard_page_is_hit_once(thread: Thread) -> None:
    base = call(thread, "VirtualAlloc", 0, PAGE, RESERVE | COMMIT, 0x104)
    with pytest.raises(AccessViolation):
        thread.memory.read(base, 1)
    assert virtual_memory.guard_hit(thread.process, base + 9)
    assert not virtual_memory.guard_hit(thread.process, base + 9)
    thread.memory.write(base, b"x")


def test_alignment_of_virtual_alloc2(thread: Thread) -> None:
    requirements = room(thread, struct.pack("<QQQ", 0, 0, 1 << 22))
    parameter = room(thread, struct.pack("<QQ", 1, requirements))
    base = call(thread, "VirtualAlloc2", 0, 0, PAGE, RESERVE | COMMIT, 4, parameter, 1)
    assert base % (1 << 22) == 0
    thread.memory.write(base, b"x")


@given(st.integers(0, 1 << 30))
def test_a_class_holds_its_size_and_wastes_a_quarter(size: int) -> None:
    block = class_of(size)
    assert block >= max(1, size)
    assert block % 16 == 0
    assert block <= max(16, size + max(16, size // 4, 4096 * (size >= LARGE)))
    assert class_of(block) == block


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("afr"), st.integers(0, 9), st.integers(0, 3000)), max_size=30), st.booleans())
def test_blocks_keep_their_contents_and_never_overlap(steps: list[tuple[str, int, int]], zero: bool) -> None:
    thread = new_thread()
    heap, flags = call(thread, "GetProcessHeap"), 8 if zero else 0
    model: dict[int, bytes] = {}
    for number, (what, which, size) in enumerate(steps):
        fill = bytes([number + 1])
        if what == "a" or not model:
            address = call(thread, "HeapAlloc", heap, flags, size)
            assert address % 16 == 0
            if zero:
                assert thread.memory.read(address, size) == bytes(size)
        else:
            address = list(model)[which % len(model)]
            before = model.pop(address)
            if what == "f":
                assert call(thread, "HeapFree", heap, 0, address) == 1
                continue
            address = call(thread, "HeapReAlloc", heap, flags, address, size)
            kept = min(len(before), size)
            assert thread.memory.read(address, kept) == before[:kept]
            if zero:
                assert thread.memory.read(address + kept, size - kept) == bytes(size - kept)
        thread.memory.write(address, fill * size)
        model[address] = fill * size
    for address, content in model.items():
        assert call(thread, "HeapSize", heap, 0, address) == len(content)
        assert thread.memory.read(address, len(content)) == content


def test_what_is_no_block_is_refused(thread: Thread) -> None:
    heap = call(thread, "GetProcessHeap")
    assert call(thread, "HeapFree", heap, 0, 0x1234) == 0
    assert thread.last_error == errors.ERROR_INVALID_PARAMETER
    assert call(thread, "HeapSize", heap, 0, 0x1234) == 2**64 - 1
    assert call(thread, "HeapFree", heap, 0, 0) == 1
    assert call(thread, "HeapAlloc", 77, 0, 5) == 0
    assert call(thread, "HeapAlloc", heap, 0, 2**63) == 0
    assert thread.last_error == errors.ERROR_NOT_ENOUGH_MEMORY
    assert call(thread, "LocalFree", 0x1234) == 0x1234


def test_a_heap_gives_all_back(thread: Thread) -> None:
    heap = call(thread, "HeapCreate", 0, 0, 0)
    small, large = call(thread, "HeapAlloc", heap, 0, 5), call(thread, "HeapAlloc", heap, 0, LARGE)
    assert query(thread, large)[3] == LARGE
    assert call(thread, "HeapDestroy", heap) == 1
    for address in (small, large, heap):
        assert query(thread, address)[4] == 0x10000
    assert call(thread, "HeapDestroy", heap) == 0
    assert call(thread, "HeapDestroy", heaps.process_heap(thread.process).handle) == 0


def test_a_runtime_gets_the_heap_of_the_process(thread: Thread) -> None:
    engine = thread.engine
    assert isinstance(engine, FakeEngine)
    own = heaps.process_heap(thread.process).handle
    dll = pe.parse(prng_dll.image(), "msvcrt.dll")
    thread.process.modules.order.append(Module("msvcrt.dll", "/msvcrt.dll", 0x5000_0000, 0x10000, dll))
    for caller, is_own in ((0x5000_1234, True), (0x5001_0000, False)):
        thread.memory.set_u64(engine.return_place, caller)
        assert (call(thread, "HeapCreate", 0, 0, 0) == own) == is_own
        assert call(thread, "HeapCreate", 1, 0, 0) != own
        assert call(thread, "HeapCreate", 0, 0, 0x40000) != own


def test_a_heap_with_a_maximum_ends(thread: Thread) -> None:
    heap = call(thread, "HeapCreate", 0, 0, 0x40000)
    taken = 0
    while call(thread, "HeapAlloc", heap, 0, 0x8000):
        taken += 1
        assert taken < 100
    assert taken >= 8


def test_a_walk_sees_the_blocks(thread: Thread) -> None:
    heap = call(thread, "HeapCreate", 0, 0, 0)
    blocks = {call(thread, "HeapAlloc", heap, 0, size): size for size in (1, 100, 5000)}
    entry, seen = room(thread, 40), {}
    while call(thread, "HeapWalk", heap, entry):
        seen[thread.memory.u64(entry)] = thread.memory.u32(entry + 8)
    assert seen == blocks
    assert thread.last_error == errors.ERROR_NO_MORE_ITEMS


def test_what_machine_code_has_committed_is_accounted_for(thread: Thread) -> None:
    memory, table = thread.memory, virtual_memory.regions(thread.process)
    place = memory.map(0, commit_journal.SIZE, 3)
    table.publish(CommitJournal(memory, place))
    base = 0x5000_0000
    size = commit_journal.SMALLEST
    first = table.add(Region(base, size, Kind.PRIVATE, PAGE_READWRITE))
    second = table.add(Region(base + size, size, Kind.PRIVATE, PAGE_READWRITE))
    table.add(Region(base + 2 * size, PAGE, Kind.PRIVATE, PAGE_READWRITE))  # too small to be known
    assert memory.u64(place + commit_journal.COUNT) == 2
    pages = [(base + size, 1), (base + size - 2 * PAGE, 2), (base, 1), (base, 1), (base + 4 * size, 1)]
    for index, (start, count) in enumerate(pages):
        memory.set_u64(place + commit_journal.NOTES + 16 * index + 8, start + count * PAGE)
        memory.set_u64(place + commit_journal.NOTES + 16 * index, start)
    memory.set_u64(place + commit_journal.BEGUN, len(pages))
    assert table.find(base) is first
    assert memory.u64(place + commit_journal.BEGUN) == 0
    assert list(first.runs(base, base + size)) == [
        (base, base + PAGE, PAGE_READWRITE), (base + PAGE, base + size - 2 * PAGE, 0),
        (base + size - 2 * PAGE, base + size, PAGE_READWRITE),
    ]  # fmt: skip
    assert second.run(base + size) == (base + size, base + size + PAGE, PAGE_READWRITE)
    table.remove(first)
    known = memory.read(place + commit_journal.RESERVATIONS, 16)
    assert known == struct.pack("<QQ", base + size, base + 2 * size)
    assert memory.u64(place + commit_journal.COUNT) == 1
