"""Which pages come in with one that faulted: neighbours that the guest has used already, as its page tables say.

Nothing changes by that in the guest: a page comes in ahead only where its entry has the accessed bit, and to be written
only where it has the dirty bit.
"""

from typing import Final

from virtus.memory.guest_memory import FRAME_SHIFT
from virtus.vcpus.scanned.address_spaces import READ, WRITE, AddressSpace, Mapping, Shadowed
from virtus.vcpus.scanned.breakpoints import CodePages
from virtus.vcpus.scanned.child import CODE_AT, MEMORY_AT
from virtus.vcpus.scanned.cpu_state import CR0_PG, CR0_WP, CR4_PGE, CR4_PSE, MASK32, CpuState
from virtus.vcpus.scanned.memory_access import (
    ACCESSED,
    DIRTY,
    FRAME,
    GLOBAL,
    LARGE,
    PRESENT,
    WRITABLE,
    PhysicalSpace,
)
from virtus.vcpus.scanned.memory_access import USER as USER_PAGE

AROUND: Final = 16
"""Pages, at a multiple of this, that come in together."""
LOWEST: Final = 0x100
"""Pages below 1 MiB, by number, come in alone: hosts do not map the lowest."""

Found = list[tuple[Mapping, list[tuple[int, Shadowed, bool]]]]
"""What to map, and what to remember of each of its pages: its number, what it is, and whether it is global."""


class Ahead:
    """Looks into the page tables of one processor's guest."""

    def __init__(self, state: CpuState, space: PhysicalSpace, codes: CodePages, words: memoryview) -> None:
        """`words` are those of physical memory."""
        self._state, self._space, self._codes, self._words = state, space, codes, words

    def _entries(self, page: int, user: bool) -> tuple[int, list[int]] | None:
        """The directory's entry and the page table's entries around a page; None where there is no such table."""
        state, words = self._state, self._words
        if not state.cr0 & CR0_PG or page < LOWEST:
            return None
        root = ((state.cr3 & FRAME) >> 2) + (page >> 10)
        if root >= len(words):
            return None
        upper: int = words[root]
        wanted = PRESENT | (USER_PAGE if user else 0)
        if upper & wanted != wanted or (upper & LARGE and state.cr4 & CR4_PSE):
            return None
        at = ((upper & FRAME) >> 2) + (page & 0x3FF & -AROUND)
        return (upper, words[at : at + AROUND].tolist()) if at + AROUND <= len(words) else None

    def data(self, space: AddressSpace, run: range, user: bool, alone: set[int], reserved: range) -> Found:
        """Around a run of pages of data; none that comes in `alone`, or is `reserved`."""
        found: Found = []
        known = self._entries(run.start, user)
        if known is None:
            return found
        upper, entries = known
        wanted = PRESENT | ACCESSED | (USER_PAGE if user else 0)
        pages = space.pages
        for near, entry in enumerate(entries, run.start & -AROUND):
            if entry & wanted != wanted or near in pages or near in run or near in alone or near in reserved:
                continue
            self._add_data(found, near, upper, entry, user)
        return found

    def again(self, space: AddressSpace, pages: tuple[int, ...], stale: set[int]) -> Found:
        """Pages of data for the supervisor, which are not there but for those that are `stale`."""
        found: Found = []
        wanted = PRESENT | ACCESSED
        for page in pages:
            known = self._entries(page, False)
            if known is None or (page in space.pages and page not in stale):
                continue
            entry = known[1][page & AROUND - 1]
            if entry & wanted == wanted:
                self._add_data(found, page, known[0], entry, False)
        return found

    def _add_data(self, found: Found, page: int, upper: int, entry: int, user: bool) -> None:
        """A page that was used, if it is memory, and no code."""
        frame, state = entry >> FRAME_SHIFT, self._state
        if not self._space.is_memory(frame) or self._codes.is_code(frame):
            return
        writable = entry & upper & WRITABLE != 0 or (not user and not state.cr0 & CR0_WP)
        if writable and not entry & DIRTY:
            return  # it will be written next: then it comes in with its rights
        protection = WRITE if writable else READ
        global_ = entry & GLOBAL != 0 and state.cr4 & CR4_PGE != 0
        shadowed = Shadowed(frame, protection, False, upper << 32 | entry, page)
        self._add(found, Mapping(page, 1, protection, MEMORY_AT, frame), (page, shadowed, global_))

    def code(self, space: AddressSpace, page: int, ring: int, protection: int) -> Found:
        """Around a page of code: those that were scanned."""
        found: Found = []
        known = self._entries(page, ring != 0)
        if known is None:
            return found
        upper, entries = known
        wanted = PRESENT | ACCESSED | (USER_PAGE if ring else 0)
        state, pages, copies = self._state, space.pages, self._codes.pages[ring]
        global_mask = GLOBAL if state.cr4 & CR4_PGE else 0
        for near, entry in enumerate(entries, page & -AROUND):
            frame = entry >> FRAME_SHIFT
            if entry & wanted != wanted or frame not in copies:
                continue
            there = near + (space.bias << 16) & MASK32 >> FRAME_SHIFT
            if there in pages or near == page:
                continue
            noted = there, Shadowed(frame, protection, True, upper << 32 | entry, near), entry & global_mask != 0
            offset = self._codes.offset(frame, ring) >> FRAME_SHIFT
            self._add(found, Mapping(there, 1, protection, CODE_AT, offset), noted)
        return found

    @staticmethod
    def _add(found: Found, mapping: Mapping, noted: tuple[int, Shadowed, bool]) -> None:
        """One page more, in one mapping with the last where it continues that."""
        if found:
            last, pages = found[-1]
            if mapping == last._replace(page=last.page + last.pages, frame=last.frame + last.pages, pages=1):
                found[-1] = last._replace(pages=last.pages + 1), [*pages, noted]
                return
        found.append((mapping, [noted]))
