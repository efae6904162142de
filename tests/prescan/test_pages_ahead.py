"""Pages that come in with one that faulted: those that the guest has used, and nothing of the guest's changes."""

from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.prescan.machines import DONE, PRINT_EAX, Boot, needs_assembler, printed
from virtus.memory.guest_memory import GuestMemory
from virtus.vcpus.scanned.address_spaces import READ, WRITE, AddressSpace, Shadowed
from virtus.vcpus.scanned.ahead import AROUND, Ahead
from virtus.vcpus.scanned.breakpoints import USER, CodePages
from virtus.vcpus.scanned.child import Child
from virtus.vcpus.scanned.cpu_state import CR0_PG, CR0_WP, CpuState
from virtus.vcpus.scanned.memory_access import ACCESSED, DIRTY, PRESENT, WRITABLE, PhysicalSpace
from virtus.vcpus.scanned.memory_access import USER as FOR_USERS
from virtus.vcpus.scanned.working_sets import AFRESH, MOST_PAGES, WorkingSets

MEMORY, DIRECTORY, TABLE = 1 << 20, 0x1000, 0x2000
FIRST = 0x400
"""The page, by number, that the table begins with."""
USED = PRESENT | ACCESSED | FOR_USERS


class Tables:
    """A page directory with one table, and who looks into it."""

    def __init__(self) -> None:
        self.memory, self.state = GuestMemory(MEMORY), CpuState()
        self.codes = CodePages(self.memory)
        self.space = AddressSpace(cast(Child, None))
        self.words = self.memory.bytes.cast("I")
        self.ahead = Ahead(self.state, PhysicalSpace(self.memory), self.codes, self.words)
        self.state.cr0 |= CR0_PG | CR0_WP
        self.state.cr3 = DIRECTORY
        self.words[(DIRECTORY >> 2) + (FIRST >> 10)] = TABLE | PRESENT | WRITABLE | FOR_USERS

    def put(self, entries: list[int]) -> None:
        for number in range(1024):
            self.words[(TABLE >> 2) + number] = entries[number] if number < len(entries) else 0

    def data(self, page: int, user: bool = True) -> list[tuple[int, int, int]]:
        """Page, frame and protection of all that comes in with a page."""
        found = self.ahead.data(self.space, range(page, page + 1), user, set(), range(0))
        assert [noted[0] for _, pages in found for noted in pages] == [
            number for mapping, _ in found for number in range(mapping.page, mapping.page + mapping.pages)
        ]
        return [(page, known.frame, known.protection) for _, pages in found for page, known, _ in pages]

    def close(self) -> None:
        self.words.release()
        self.codes.close()
        self.memory.close()


@pytest.fixture(scope="module")
def tables() -> Iterator[Tables]:
    made = Tables()
    yield made
    made.close()


entries = st.lists(
    st.integers(0, 0x7F).flatmap(lambda rights: st.integers(0, 0x140).map(lambda frame: frame << 12 | rights)),
    min_size=AROUND,
    max_size=AROUND,
)


@settings(max_examples=60, deadline=None)
@given(entries, st.integers(0, AROUND - 1), st.booleans(), st.sets(st.integers(FIRST, FIRST + AROUND - 1)))
def test_what_comes_in_is_what_an_access_would_find_without_changing_an_entry(
    tables: Tables, drawn: list[int], at: int, user: bool, there: set[int]
) -> None:
    tables.put(drawn)
    tables.space.pages = {page: Shadowed(0, READ, False, 0, page) for page in there}
    found = {page: (frame, protection) for page, frame, protection in tables.data(FIRST + at, user)}
    for number, entry in enumerate(drawn):
        page = FIRST + number
        usable = entry & PRESENT and entry & ACCESSED and (not user or entry & FOR_USERS) and entry >> 12 < MEMORY >> 12
        clean = entry & WRITABLE and not entry & DIRTY
        if page == FIRST + at or page in there or not usable or clean:
            assert page not in found
        else:
            assert found[page] == (entry >> 12, WRITE if entry & WRITABLE else READ)


def test_runs_are_mapped_at_once(tables: Tables) -> None:
    tables.space.pages = {}
    frames = (5, 6, 7, 9, 10, 40)
    tables.put([frame << 12 | USED for frame in frames])
    found = tables.ahead.data(tables.space, range(FIRST + 15, FIRST + 16), True, {FIRST + 5}, range(0))
    assert [(mapping.page - FIRST, mapping.pages, mapping.frame) for mapping, _ in found] == [(0, 3, 5), (3, 2, 9)]


def test_of_code_what_was_scanned_comes_in(tables: Tables) -> None:
    tables.space.pages, tables.space.bias = {}, 0xA
    tables.put([frame << 12 | USED for frame in (5, 6, 7, 9, 10, 40)])
    for frame in (5, 7, 10):
        tables.codes.make(frame, USER)
    found = tables.ahead.code(tables.space, FIRST, USER, READ)
    assert [(mapping.page, mapping.frame) for mapping, _ in found] == [
        (0xA_0000 + FIRST + number, tables.codes.offset(frame, USER) >> 12) for number, frame in ((2, 7), (4, 10))
    ]
    assert [known.source for _, pages in found for _, known, _ in pages] == [FIRST + 2, FIRST + 4]


def test_tables_beyond_memory_bring_nothing_in(tables: Tables) -> None:
    tables.space.pages = {}
    tables.put([5 << 12 | USED])
    for wrong in (MEMORY | PRESENT | FOR_USERS, 0xFFFF_F000 | PRESENT | FOR_USERS, TABLE):
        tables.words[(DIRECTORY >> 2) + (FIRST >> 10)] = wrong
        assert not tables.data(FIRST + 3)
    tables.state.cr3 = 0xFFFF_F000
    assert not tables.data(FIRST + 3)
    tables.state.cr3 = DIRECTORY
    tables.words[(DIRECTORY >> 2) + (FIRST >> 10)] = TABLE | PRESENT | WRITABLE | FOR_USERS


@needs_assembler
def test_a_guest_that_comes_back_to_pages_has_them_with_few_faults(boot: Boot) -> None:
    """Every other page of sixteen, of frames in another order; the others are clean, and get their dirty bits."""
    machine = boot(f"""
        mov $0x201000, %edi; mov $0x107, %eax; mov $1024, %ecx
        1: mov %eax, (%edi); add $4, %edi; add $0x1000, %eax; loop 1b
        movl $0x201007, 0x200000; movl $0x203007, 0x200004; mov $0x203000, %edi; mov $0x30F003, %eax
        1: mov %eax, (%edi); add $4, %edi; sub $0x1000, %eax; cmp $0x2FF003, %eax; jne 1b
        mov $0x200000, %eax; mov %eax, %cr3; mov $0x80, %eax; mov %eax, %cr4
        mov %cr0, %eax; or $0x80010000, %eax; mov %eax, %cr0
        mov $64, %edx; xor %ebx, %ebx; mov $0x202000, %ebp; movl $0x201007, 0x202000
        2: mov $0x400000, %esi; mov $8, %ecx
        1: incl (%esi); add (%esi), %ebx; add $0x2000, %esi; loop 1b
        xchg %ebp, %eax; mov %eax, %cr3; xchg %ebp, %eax; mov %cr3, %ecx
        mov $0x200000, %eax; mov %eax, %cr3; dec %edx; jnz 2b
        mov %ebx, %eax; {PRINT_EAX} mov 0x203000, %eax; {PRINT_EAX} mov 0x203004, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [8 * sum(range(1, 65)), 0x30F063, 0x30E003]
    assert machine.vcpu.monitor.shadow.fills < 8 * 64 // 2


def test_what_was_in_under_a_cr3_comes_back_with_it_but_now_and_then() -> None:
    sets = WorkingSets()
    assert sets.change(1, set()) == ()
    for _ in range(AFRESH // 2 - 1):
        sets.change(2, {7, 5})
        assert sets.change(1, {9}) in ((5, 7), ())
    assert sets.change(1, {9, 10}) == ()
    found = [sets.change(2 - number % 2, {3}) for number in range(2 * AFRESH)]
    assert found.count(()) == 2
    sets.change(3, set(range(MOST_PAGES + 1)))
    assert sets.change(2, set()) == (3,)


@needs_assembler
def test_a_supervisor_has_the_pages_of_two_address_spaces_in_turn_with_few_faults(boot: Boot) -> None:
    """Each has a frame of its own at three of the same addresses; one of them becomes another on the way."""
    pages = "".join(
        f"movl $0x{frame:x}000 + 0x67, 0x{table:x}000 + 4 * {0x300 + 2 * number}; "
        for table, frames in ((0x201, (0x310, 0x311, 0x312)), (0x203, (0x320, 0x321, 0x322)))
        for number, frame in enumerate(frames)
    )
    machine = boot(f"""
        mov $0x201000, %edi; mov $0x163, %eax; mov $1024, %ecx
        1: mov %eax, (%edi); mov %eax, 0x2000(%edi); add $4, %edi; add $0x1000, %eax; loop 1b
        {pages} movl $0x201007, 0x200000; movl $0x203007, 0x202000
        mov $0x200000, %eax; mov %eax, %cr3; mov $0x80, %eax; mov %eax, %cr4
        mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0
        mov $256, %edx; mov $0x200000, %ebp
        1: incl 0x300000; addl $2, 0x302000; addl $3, 0x304000; xor $0x2000, %ebp; mov %ebp, %cr3
        cmp $128, %edx; jne 2f; movl $0x330067, 0x203000 + 4 * 0x302; invlpg 0x302000
        2: dec %edx; jnz 1b
        mov 0x310000, %eax; {PRINT_EAX} mov 0x321000, %eax; {PRINT_EAX} mov 0x330000, %eax; {PRINT_EAX}
        mov 0x322000, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [128, 2 * 64, 2 * 64, 3 * 128]
    assert machine.vcpu.monitor.shadow.fills < 256
