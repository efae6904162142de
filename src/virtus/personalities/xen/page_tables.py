"""Direct paging: a domain's page tables are checked when they come into use, and entry by entry when they change.

Each entry that is present holds a reference to its frame, and a use of it: as a table of the level below, or as
writable memory. So a table in use can be mapped read-only alone, and a frame of another domain not at all.

Source: xen.git, xen/arch/x86/mm.c (alloc_page_type, mod_l1_entry, new_guest_cr3).
"""

from typing import Final, Protocol

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory
from virtus.memory.x86_paging import (
    ACCESSED,
    DIRTY,
    FRAME_MASK,
    GLOBAL,
    LARGE,
    PRESENT,
    USER,
    WRITABLE,
)
from virtus.personalities.xen.abi import EBUSY, EINVAL, EPERM, Refused
from virtus.personalities.xen.frames import FrameTable, Kind

FIRST_OURS, LAST_OURS = 256, 271
"""L4 slots of the hypervisor's in every address space (ROOT_PAGETABLE_FIRST_XEN_SLOT, asm-x86/config.h)."""
IGNORED_CHANGES: Final = ACCESSED | DIRTY
NOTHING: Final = bytes(256)
"""So many bytes of a table are looked at together."""


class Translations(Protocol):
    """Whoever remembers translations of the domain's page tables: its processor."""

    @property
    def flush_pending(self) -> bool:
        """Whether entries were changed since the last flush."""
        ...

    def entry_changed(self, address: int, old: int, new: int) -> None:
        """The entry at a physical address was changed; it takes effect at the latest with the next flush."""
        ...

    def page_overwritten(self, frame: int) -> None:
        """A frame becomes a table, and translations from an earlier life of it must not come back."""
        ...

    def flush(self) -> None:
        """No translation that was changed is used any more."""
        ...

    def table_returns(self) -> None:
        """A frame is used as a table again, after a time in which the guest could store into it."""
        ...


class PageTables:
    """The page tables of one domain. `reserved` are the L4 entries that every address space has, by slot."""

    def __init__(
        self, memory: GuestMemory, frames: FrameTable, domain: int, translations: Translations, reserved: dict[int, int]
    ) -> None:
        self.memory, self.frames, self.domain, self.translations = memory, frames, domain, translations
        self.reserved = reserved
        self.pinned: dict[int, int] = {}  # frame: level
        self.granted: set[int] = set()  # physical addresses of L1 entries that map other domains' frames
        self._ever: set[int] = set()  # frames that have been tables, and whose translations may be remembered
        self._overwritten: set[int] = set()  # of these, the ones that the hypervisor has stored into since
        self._words = memory.words

    def save(self) -> dict[str, int]:
        """Which tables are pinned, by frame; raises ValueError while other domains' frames are mapped."""
        if self.granted:
            raise ValueError("it maps frames of other domains")
        return {str(frame): level for frame, level in self.pinned.items()}

    def load(self, saved: dict[str, int]) -> None:
        """What `save` gave; a processor that has not run yet remembers no translation."""
        self.pinned = {int(frame): level for frame, level in saved.items()}

    # uses of frames

    def use_table(self, frame: int, level: int) -> None:
        """Refer to a frame of the domain's and use it as a table of a level; raises Refused."""
        self.frames.refer(frame, self.domain)
        try:
            self.frames.use(frame, level, self._validate)
        except Refused:
            self.frames.release(frame)
            raise

    def end_table(self, frame: int) -> None:
        """Give back what `use_table` took."""
        if self.frames.end_use(frame):
            self._devalidate(frame, self.frames.kind[frame])
        self.frames.release(frame)

    def use_writable(self, frame: int) -> None:
        """Refer to a frame of the domain's as writable memory; raises Refused. `end_writable` gives it back."""
        frames = self.frames
        frames.refer(frame, self.domain)
        if frames.uses[frame]:
            if frames.kind[frame] != Kind.WRITABLE:
                frames.release(frame)
                raise Refused(EBUSY, f"frame {frame:#x} is in use as {Kind(frames.kind[frame]).name}")
        elif frames.kind[frame] != Kind.WRITABLE:
            frames.kind[frame] = Kind.WRITABLE
            if self.translations.flush_pending:
                self.translations.flush()  # it was a table, perhaps: nothing may go through it any more
        frames.uses[frame] += 1

    def end_writable(self, frame: int) -> None:
        """Give back what `use_writable` took."""
        self.frames.uses[frame] -= 1
        self.frames.release(frame)

    def stored_into(self, frame: int) -> None:
        """The hypervisor itself has written to a frame of the domain's, unseen by its processor."""
        if frame in self._ever:
            self._overwritten.add(frame)

    # tables as a whole

    def _validate(self, frame: int, before: int) -> None:
        """A frame comes into use as a table: take what each entry needs; raises Refused with nothing taken."""
        level = self.frames.kind[frame]
        if level != before and self.translations.flush_pending:
            self.translations.flush()  # it was writable, perhaps: nobody may write to it any more
        entries, taken = self.memory.entries(frame), list[int]()
        try:
            for at, entry in self._present(frame):
                if not (level == Kind.L4 and FIRST_OURS <= at <= LAST_OURS):
                    fitted = self._fit(entry)
                    self._take(fitted, level)
                    taken.append(entry)
                    if fitted != entry:
                        entries[at] = fitted
        except Refused:
            for entry in taken:
                self._put(entry, level)
            raise
        if level == Kind.L4:
            for at, entry in self.reserved.items():
                entries[at] = entry
            for at in range(FIRST_OURS, LAST_OURS + 1):
                if at not in self.reserved:
                    entries[at] = 0
        if frame in self._ever:
            self.translations.table_returns()
        else:
            self._ever.add(frame)
        if frame in self._overwritten:
            self._overwritten.discard(frame)
            self.translations.page_overwritten(frame)

    def _devalidate(self, frame: int, level: int) -> None:
        first = frame << FRAME_SHIFT
        for at, entry in self._present(frame):
            if not (level == Kind.L4 and FIRST_OURS <= at <= LAST_OURS):
                if level == Kind.L1 and first + 8 * at in self.granted:
                    self.granted.discard(first + 8 * at)  # the grant's own reference stays until it is unmapped
                else:
                    self._put(entry, level)

    # entries

    def _present(self, frame: int) -> list[tuple[int, int]]:
        """The entries of a table that are present, by their number; most tables are nearly empty."""
        page, entries = bytes(self.memory.frame(frame)), self.memory.entries(frame)
        found = list[tuple[int, int]]()
        for first in range(0, PAGE, len(NOTHING)):
            if page[first : first + len(NOTHING)] != NOTHING:
                at = first >> 3
                numbered = enumerate(entries[at : at + len(NOTHING) // 8].tolist(), at)
                found += [(number, entry) for number, entry in numbered if entry & PRESENT]
        return found

    @staticmethod
    def _fit(entry: int) -> int:
        """An entry as the hardware gets it: the guest's kernel is at ring 3 too, and no translation is global."""
        return (entry | USER) & ~GLOBAL

    def _take(self, entry: int, level: int) -> None:
        frame = (entry & FRAME_MASK) >> FRAME_SHIFT
        if level > 1:
            if entry & LARGE:
                raise Refused(EINVAL, "large pages are not for paravirtual guests")
            self.use_table(frame, level - 1)
        elif entry & WRITABLE:
            self.use_writable(frame)
        else:
            self.frames.refer(frame, self.domain)

    def _put(self, entry: int, level: int) -> None:
        frame = (entry & FRAME_MASK) >> FRAME_SHIFT
        if level > 1:
            self.end_table(frame)
        else:
            if entry & WRITABLE:
                self.frames.uses[frame] -= 1
            self.frames.release(frame)

    def write(self, address: int, entry: int, *, preserve: bool = False) -> None:
        """Store an entry at a physical address inside of a frame of the domain's; raises Refused.

        In a table in use the entry is checked; elsewhere it is plain memory. `preserve` keeps accessed and dirty bits.
        """
        frame = address >> FRAME_SHIFT
        if address & 7:
            raise Refused(EINVAL, "an entry that is not aligned")
        self.frames.check(frame, self.domain)
        kind = self.frames.kind[frame] if self.frames.uses[frame] else Kind.NONE
        if Kind.L1 <= kind <= Kind.L4:
            self._write_entry(address, entry, kind, preserve)
        elif kind in (Kind.NONE, Kind.WRITABLE):
            at = address >> 3
            old, self._words[at] = self._words[at], entry
            if frame in self._ever:
                self.translations.entry_changed(address, old, entry)
        else:
            raise Refused(EPERM, f"frame {frame:#x} holds segment descriptors")

    def _write_entry(self, address: int, entry: int, level: int, preserve: bool) -> None:
        words, at = self._words, address >> 3
        if level == Kind.L4 and FIRST_OURS <= (address & PAGE - 1) >> 3 <= LAST_OURS:
            raise Refused(EINVAL, "a slot of the hypervisor's")
        old = words[at]
        if entry & PRESENT:
            entry = (entry | USER) & ~GLOBAL
            if preserve:
                entry |= old & IGNORED_CHANGES
        if address in self.granted:
            raise Refused(EPERM, "a granted frame is unmapped through the grant table")
        same = FRAME_MASK | PRESENT | (WRITABLE if level == 1 else LARGE)
        if (old ^ entry) & same or (entry & LARGE and level > 1):
            if entry & PRESENT:
                self._take(entry, level)
            words[at] = entry
            self.translations.entry_changed(address, old, entry)
            if old & PRESENT:
                self._put(old, level)
        elif old != entry:
            words[at] = entry
            self.translations.entry_changed(address, old, entry)

    def map_granted(self, address: int, entry: int) -> None:
        """Map a frame of another domain's, for which the caller holds a reference; raises Refused.

        The entry must be in an L1 table in use and not present; only `unmap_granted` takes it away again.
        """
        frame = address >> FRAME_SHIFT
        self.frames.check(frame, self.domain)
        if address & 7 or not self.frames.uses[frame] or self.frames.kind[frame] != Kind.L1:
            raise Refused(EINVAL, "a grant is mapped by an entry of an L1 table in use")
        if self._words[address >> 3] & PRESENT:
            raise Refused(EBUSY, "a grant is mapped where nothing is")
        self._words[address >> 3] = self._fit(entry)
        self.granted.add(address)

    def unmap_granted(self, address: int) -> int:
        """Take a granted mapping away; the entry that was there. Raises Refused."""
        if address not in self.granted:
            raise Refused(EINVAL, "no granted mapping")
        self.granted.discard(address)
        old: int = self._words[address >> 3]
        self._words[address >> 3] = 0
        self.translations.entry_changed(address, old, 0)
        self.translations.flush()
        return old

    # pins

    def pin(self, frame: int, level: int) -> None:
        """Keep a table in use although nothing points to it yet; raises Refused."""
        if frame in self.pinned:
            raise Refused(EINVAL, f"frame {frame:#x} is pinned already")
        self.use_table(frame, level)
        self.pinned[frame] = level

    def unpin(self, frame: int) -> None:
        """End a pin; raises Refused."""
        if frame not in self.pinned:
            raise Refused(EINVAL, f"frame {frame:#x} is not pinned")
        del self.pinned[frame]
        self.end_table(frame)
