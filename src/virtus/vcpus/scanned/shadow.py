"""Shadow page tables: fills children from the guest's page tables, and keeps them true to those.

A page of data is mapped as the guest's page tables allow, writable once it is dirty; a page of code is mapped from the
scanner's copies, and never writable anywhere, so that every change of code comes out.
"""

import mmap
from typing import Final

from virtus.memory.guest_memory import FRAME_SHIFT
from virtus.vcpus.scanned.address_spaces import READ, WRITE, AddressSpace, AddressSpaces, Mapping, Shadowed
from virtus.vcpus.scanned.ahead import Ahead, Found
from virtus.vcpus.scanned.breakpoints import SUPERVISOR, USER, CodePages
from virtus.vcpus.scanned.cells import MAPPED, SHARED, TRANSLATED, Cells
from virtus.vcpus.scanned.child import CODE_AT, MEMORY_AT
from virtus.vcpus.scanned.cpu_state import CR0_PG, CR0_WP, CR4_PGE, CR4_PSE, MASK32, CpuState
from virtus.vcpus.scanned.memory_access import (
    ACCESSED,
    DIRTY,
    FRAME,
    GLOBAL,
    LARGE,
    LARGE_FRAME,
    LARGE_OFFSET,
    PRESENT,
    WRITABLE,
    PhysicalSpace,
    walk,
)
from virtus.vcpus.scanned.memory_access import USER as USER_PAGE
from virtus.vcpus.scanned.working_sets import WorkingSets

BIAS_ORDER: Final = (0xA, 0x6, 0x8, 0x4, 0xC, 0x2, 0x9, 0x7, 0x5, 0xB, 0x3, 0x1, 0xD, 0xE, 0xF)
RESERVE_ORDER: Final = (0x3EF, 0x3DF, 0x3CF, 0x3BF, 0x37F, 0x33F, 0x2EF, 0x2BF, 0x23F, 0x1BF, 0x17F, 0x0FF)
"""Page tables, by number, in whose range the monitor may have pages of its own."""
AROUND: Final = 16
"""Pages that one fault fills at most, where the guest's page tables have them side by side."""


class Shadow:
    """What fills and empties the address spaces of one processor."""

    def __init__(
        self,
        state: CpuState,
        space: PhysicalSpace,
        codes: CodePages,
        spaces: AddressSpaces,
        cells: Cells,
        *,
        hidden: bool,
    ) -> None:
        """`hidden`: this host's processor can make pages executable that cannot be read."""
        self._state, self._space, self._codes, self._spaces = state, space, codes, spaces
        self._cells = cells
        self._words = space.memory.bytes.cast("I")
        self._ahead = Ahead(state, space, codes, self._words)
        self._working_sets = WorkingSets()
        self._code_protection = mmap.PROT_EXEC | (0 if hidden else mmap.PROT_READ)
        self.flushes = 0
        self.fills = self.pages_filled = self.kept = self.unmapped = 0
        self._control = (state.cr0, state.cr4)
        self._biased = not hidden and spaces.children.can_bias
        self._last: AddressSpace | None = None
        self.biases = 0
        """How often code had to go elsewhere."""
        self._alone: set[int] = set()
        """Linear pages, by number, that the guest has invalidated: who does so maps them one by one."""
        self.reserved = range(0)
        """Linear pages, by number, that the monitor has taken in the supervisor's address space."""

    def close(self) -> None:
        """Let go of the views."""
        self._words.release()

    def current(self) -> AddressSpace:
        """The address space that the processor runs in now, as its page tables say it."""
        state = self._state
        space = (
            self._spaces.user(state.cr3 if state.cr0 & CR0_PG else -2) if state.cpl == 3 else self._spaces.supervisor
        )
        if space.checked != self.flushes:
            self._check(space)
        if space is not self._last:
            self._last = space
            if space.bias and self._in_the_way(space.code_tables):
                self.move_code(space)
        return space

    def code_page(self, space: AddressSpace, linear: int) -> int:
        """The number of the page where the code of a linear address is mapped."""
        return (linear + (space.bias << 28) & MASK32) >> FRAME_SHIFT

    def _in_the_way(self, tables: set[int]) -> bool:
        """Whether the guest has anything of its own in the ranges of these page tables."""
        state = self._state
        if not state.cr0 & CR0_PG:
            return any(self._space.is_memory(table << 10) for table in tables)
        root = (state.cr3 & FRAME) >> 2
        if root + 1024 > len(self._words):
            return False
        words = self._words
        return any(words[root + table] & PRESENT for table in tables)

    def free_range(self) -> int | None:
        """A linear address behind which the guest has nothing for 4 MiB, neither data nor, with code's bias, code."""
        bias = self._spaces.supervisor.bias << 6
        for table in RESERVE_ORDER:
            there = table + bias & 0x3FF
            if not self._in_the_way({table, there}) and there not in self._spaces.supervisor.code_tables:
                return table << 22
        return None

    def reserve(self, space: AddressSpace, base: int, offset: int, size: int) -> None:
        """Show the supervisor's child the monitor's cells and, as code, the fragments behind them."""
        space.child.map(base, SHARED, WRITE, CODE_AT, offset)
        code = self.code_page(space, base + SHARED)
        space.child.map(code << FRAME_SHIFT, size - SHARED, self._code_protection, CODE_AT, offset + SHARED)
        first = base >> FRAME_SHIFT
        self.reserved = range(first, first + (size >> FRAME_SHIFT))
        for number in range(first, first + (SHARED >> FRAME_SHIFT)):
            space.note(number, Shadowed(-1, WRITE, False, 0, number), flushable=False)
        for number in range(code, code + (size - SHARED >> FRAME_SHIFT)):
            space.note(number, Shadowed(-1, self._code_protection, False, 0, number), flushable=False)

    def is_free(self, base: int) -> bool:
        """Whether the guest has still nothing where the monitor's own pages are, or are to be."""
        return not self._in_the_way({base >> 22, self.code_page(self._spaces.supervisor, base) >> 10})

    def move_code(self, space: AddressSpace, page: int | None = None) -> None:
        """Find a bias where the guest has nothing, for all code there is and that at a page; all code is unmapped."""
        sources = {known.source for known in space.pages.values() if known.code} | (
            {page} if page is not None else set()
        )
        stale = [number for number, known in space.pages.items() if known.code]
        if stale:
            space.unmap_many(stale)
        space.code_tables.clear()
        space.epoch += 1
        self.biases += 1
        for bias in BIAS_ORDER:
            tables = {(source + (bias << 16) & 0xFFFFF) >> 10 for source in sources}
            if not self._in_the_way(tables):
                space.bias = bias
                return
        space.bias = BIAS_ORDER[self.biases % len(BIAS_ORDER)]

    def flush(self) -> None:
        """CR0, CR3 or CR4 was written: what is not global must be looked at again, at the next use."""
        state = self._state
        self.flushes += 1
        control = (state.cr0 & (CR0_PG | CR0_WP), state.cr4 & (CR4_PGE | CR4_PSE))
        if control != self._control:
            self._control = control
            for space in self._spaces.all():
                space.unmap_all()
                space.checked = -1
            self._cells.forget_all()

    def flush_page(self, linear: int) -> None:
        """INVLPG: this page of all, global or not; a page of 4 MiB goes as a whole where it is one."""
        page = linear >> FRAME_SHIFT
        state = self._state
        large = False
        if page in self.reserved:
            return
        self._alone.add(page)
        for space in self._spaces.under(state.cr3):
            if space.bias:
                code = space.pages.get(self.code_page(space, linear))
                if code is not None and code.code:
                    space.unmap(self.code_page(space, linear))
            known = space.pages.get(page)
            large = known is not None and is_large(known.key)
            if large:
                first = page & ~0x3FF
                space.unmap_many([near for near in range(first, first + 1024) if near in space.pages])
            else:
                space.unmap(page)
        if not large and not any(page in space.pages for space in self._spaces.all()):
            self._cells.present[page] = 0

    def note(self, space: AddressSpace, page: int, shadowed: Shadowed, *, global_: bool) -> None:
        """Remember what of the guest was mapped at a linear page, by number."""
        space.note(page, shadowed, flushable=not global_)
        self._cells.remember(shadowed.source, MAPPED, large=is_large(shadowed.key))

    def note_translation(self, page: int) -> None:
        """Somebody else remembers the translation of a linear page."""
        self._cells.remember(page, TRANSLATED, large=is_large(self._key(page)))

    def _check(self, space: AddressSpace) -> None:
        """Keep of the pages that are not global those that the page tables have as they were."""
        space.checked = self.flushes
        state = self._state
        if not state.cr0 & CR0_PG:
            return
        supervisor = space is self._spaces.supervisor
        pages, key_of = space.pages, self._key
        stale = [page for page in space.flushable if pages[page].key != key_of(pages[page].source)]
        self.kept += len(space.flushable) - len(stale)
        self.unmapped += len(stale)
        if supervisor:
            again = self._working_sets.change(state.cr3, space.flushable)
            self._exchange(space, stale, self._ahead.again(space, again, set(stale)) if again else [])
        elif 2 * len(stale) > len(pages):
            space.unmap_all()  # another program
        elif stale:
            space.unmap_many(stale)

    def _exchange(self, space: AddressSpace, stale: list[int], wanted: Found) -> None:
        """Take pages out, and map others."""
        if stale or wanted:
            done = space.exchange(stale, [mapping for mapping, _ in wanted])
            self._note_all(space, wanted[:done])

    def _key(self, page: int) -> int:
        """The entries behind a linear page as one number; 0 where there are none."""
        state, words = self._state, self._words
        try:
            upper: int = words[((state.cr3 & FRAME) >> 2) + (page >> 10)]
            if upper & LARGE and state.cr4 & CR4_PSE:
                return upper
            if not upper & PRESENT:
                return 0
            return upper << 32 | words[((upper & FRAME) >> 2) + (page & 0x3FF)]
        except IndexError:
            return 0

    def entry(self, page: int) -> tuple[int, bool]:
        """What `Shadowed` remembers of a linear page: its entries as one number, and whether it is global."""
        state = self._state
        key = self._key(page) if state.cr0 & CR0_PG else 0
        lower = key if key < 1 << 32 else key & MASK32
        return key, state.cr4 & CR4_PGE != 0 and lower & GLOBAL != 0

    def peek(self, linear: int, *, user: bool) -> int | None:
        """The physical address of code that may be scanned ahead: memory that the guest has used; nothing changes."""
        state = self._state
        if not state.cr0 & CR0_PG:
            physical = linear
        else:
            key = self._key(linear >> FRAME_SHIFT)
            large = key < 1 << 32 and key & LARGE
            upper, entry = (key, key) if large else (key >> 32, key & 0xFFFF_FFFF)
            wanted = PRESENT | ACCESSED | (USER_PAGE if user else 0)
            if upper & wanted & ~(0 if large else ACCESSED) != wanted & ~(0 if large else ACCESSED):
                return None
            if entry & wanted != wanted:
                return None
            physical = entry & LARGE_FRAME | linear & LARGE_OFFSET if large else entry & FRAME | linear & 0xFFF
        return physical if self._space.is_memory(physical >> FRAME_SHIFT) else None

    def fill(self, space: AddressSpace, linear: int, *, write: bool) -> bool:
        """Map the page of data at a linear address, and neighbours. False where the monitor must do the access: there
        is no memory, code is written, or the host does not map so low. Raises GuestFault(#PF)."""
        user = self._state.cpl == 3
        page = linear >> FRAME_SHIFT
        found = walk(self._state, self._space.memory, linear, write=write, user=user)
        physical = found.physical >> FRAME_SHIFT
        frame = self._space.in_file(physical)
        if page in self.reserved or frame is None or self._occupied(space, page):
            return False
        code = self._codes.is_code(frame)
        if code and write:
            return False
        writable = (found.writable or (not user and not self._state.cr0 & CR0_WP)) and (found.dirty or write)
        writable = (writable or not self._state.cr0 & CR0_PG) and not code
        count = 1 if code or page in self._alone else self._run(space, page, physical, writable, user, found.large)
        protection = WRITE if writable else READ
        global_ = found.global_ and self._state.cr4 & CR4_PGE != 0
        pages = [
            (near, Shadowed(frame + near - page, protection, False, self._key(near), near), global_)
            for near in range(page, page + count)
        ]
        more: Found = []
        if not found.large and not code and page not in self._alone:
            more = self._ahead.data(space, range(page, page + count), user, self._alone, self.reserved)
        return self._map(space, [(Mapping(page, count, protection, MEMORY_AT, frame), pages), *more])

    def bring(self, space: AddressSpace, linear: int) -> None:
        """Map the page of data at a linear address, and neighbours, if user code has it and has used it."""
        page = linear >> FRAME_SHIFT
        if page in space.pages or page in self._alone:
            return
        wanted = self._ahead.data(space, range(page, page), True, self._alone, self.reserved)
        if any(number == page for _, pages in wanted for number, _, _ in pages):
            self._map(space, wanted)

    def _map(self, space: AddressSpace, wanted: Found) -> bool:
        """Map the first, and what else comes in with it; False where the host does not map so low."""
        self.fills += 1
        done = space.show([mapping for mapping, _ in wanted])
        self._note_all(space, wanted[:done])
        return done > 0

    def _note_all(self, space: AddressSpace, mapped: Found) -> None:
        for _, pages in mapped:
            self.pages_filled += len(pages)
            for page, shadowed, global_ in pages:
                self.note(space, page, shadowed, global_=global_)

    def _occupied(self, space: AddressSpace, page: int) -> bool:
        """Code lies where the guest now has data: it goes elsewhere, if it can."""
        known = space.pages.get(page)
        if known is None or not known.code:
            return False
        if self._biased:
            self.move_code(space)
        return not self._biased

    def _run(self, space: AddressSpace, page: int, frame: int, writable: bool, user: bool, large: bool) -> int:
        """How many pages from here on can be mapped alike, this one included."""
        memory, codes, pages = self._space, self._codes, space.pages
        devices = frame in memory.device_pages
        paging = self._state.cr0 & CR0_PG
        first = self._key(page) & 0xFFFF_FFFF
        wanted = PRESENT | ACCESSED | (DIRTY | WRITABLE if writable else 0) | (USER_PAGE if user else 0)
        end = min(AROUND, 1024 - (page & 0x3FF))
        for near in range(1, end):
            if page + near in pages or page + near in self.reserved or page + near in self._alone:
                return near
            if devices:
                if frame + near not in memory.device_pages:
                    return near
            elif not memory.is_memory(frame + near) or codes.is_code(frame + near):
                return near
            if paging and not large:
                entry = self._key(page + near) & 0xFFFF_FFFF
                if entry & wanted != wanted or entry >> 12 != frame + near or (entry ^ first) & GLOBAL:
                    return near
                if not writable and entry & WRITABLE:
                    return near  # it will be written next: then it comes in with its rights
        return max(end, 1)

    def move_devices(self, pages: range) -> None:
        """The guest sees the devices' memory at these page frames from now on, and nowhere else."""
        if pages == self._space.device_pages:
            return
        self._space.device_pages = pages
        first = self._space.memory.frames
        for space in self._spaces.all():
            shown = [frame for frame in space.by_frame if frame >= first]
            space.unmap_many([page for frame in shown for page in space.by_frame[frame]])

    def map_code(self, space: AddressSpace, linear: int, frame: int) -> list[int]:
        """Make the copy of a frame executable at a linear address, and what lies around it; the linear pages, by
        number, none where the host does not map so low."""
        source = linear >> FRAME_SHIFT
        page = self.code_page(space, linear)
        if self._biased and (not space.bias or self._in_the_way({page >> 10})):
            self.move_code(space, source)
            page = self.code_page(space, linear)
        space.code_tables.add(page >> 10)
        ring = USER if self._state.cpl == 3 else SUPERVISOR
        offset = self._codes.offset(frame, ring)
        key, global_ = self.entry(source)
        shadowed = Shadowed(frame, self._code_protection, True, key, source)
        first = Mapping(page, 1, self._code_protection, CODE_AT, offset >> FRAME_SHIFT), [(page, shadowed, global_)]
        more = self._ahead.code(space, source, ring, self._code_protection) if source not in self._alone else []
        if not self._map(space, [first, *more]):
            return []
        return [source, *(shadowed.source for _, pages in more for _, shadowed, _ in pages)]

    def protect(self, frame: int) -> None:
        """A frame has become code: where it can be written, it goes, and comes back read-only."""
        for space in self._spaces.all():
            for page in list(space.by_frame.get(frame, ())):
                if space.pages[page].protection == WRITE:
                    space.unmap(page)

    def drop_code(self, frames: list[int]) -> None:
        """The copies of these frames are gone: nobody may execute them any longer."""
        for space in self._spaces.all():
            for frame in frames:
                for page in list(space.by_frame.get(frame, ())):
                    space.unmap(page)


def is_large(key: int) -> bool:
    """Whether `Shadowed.key` is of a page of 4 MiB: then it is a directory's entry alone."""
    return key < 1 << 32 and key & LARGE != 0
