"""Open pages: code in which nothing must be stopped runs where the guest has it, from the guest's own memory.

Where copies cannot be hidden they lie elsewhere, behind a code segment with a base, and on many processors branches are
several times slower in such a segment. A page is open when it has no breakpoint and none is found between the
instructions that were scanned either. A guest that computes (a whole tick goes by without a stop) and is in such a page
goes on in a flat segment, until it leaves for a page that is not open.
"""

import mmap
from typing import Final

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.vcpus.scanned.address_spaces import AddressSpace, Shadowed
from virtus.vcpus.scanned.breakpoints import SUPERVISOR, USER, CodePage, CodePages
from virtus.vcpus.scanned.child import MEMORY_AT
from virtus.vcpus.scanned.cpu_state import CpuState
from virtus.vcpus.scanned.scanner import Scanner
from virtus.vcpus.scanned.shadow import Shadow

READ_EXECUTE: Final = mmap.PROT_READ | mmap.PROT_EXEC
MOST_PATIENCE: Final = 64
"""Ticks that a guest which left open pages soon has to compute for before the next try."""


class OpenPages:
    """Decides which segment a processor's guest runs in, and maps its open pages."""

    def __init__(self, state: CpuState, codes: CodePages, scanner: Scanner, shadow: Shadow) -> None:
        self._state, self._codes, self._scanner, self._shadow = state, codes, scanner, shadow
        self.pages: set[CodePage] = set()
        self.entered = 0
        """How often the guest changed to the flat segment."""

    def ticked(self, space: AddressSpace, eip: int) -> None:
        """The guest has run for a tick: perhaps it computes in an open page."""
        space.ticks += 1
        if not space.flat and space.bias and space.ticks >= space.patience and self.show(space, eip):
            space.flat, space.ticks = True, 0
            self.entered += 1

    def left(self, space: AddressSpace) -> None:
        """The guest goes on in a page that is not open."""
        space.flat = False
        space.patience = 1 if space.ticks else min(2 * space.patience, MOST_PATIENCE)
        space.ticks = 0

    def runs(self, space: AddressSpace, linear: int) -> bool:
        """Whether code at a linear address is mapped to run in the flat segment."""
        seen = space.pages.get(linear >> FRAME_SHIFT)
        return seen is not None and not seen.code and seen.protection & mmap.PROT_EXEC != 0

    def show(self, space: AddressSpace, linear: int) -> bool:
        """Map the page of code at a linear address, if it is open."""
        user = self._state.cpl == 3
        physical = self._shadow.peek(linear, user=user)
        number = linear >> FRAME_SHIFT
        seen = space.pages.get(number)
        if physical is None or (seen is not None and seen.code):
            return False
        frame = physical >> FRAME_SHIFT
        page = self._codes.pages[USER if user else SUPERVISOR].get(frame)
        if page is None or not self._scanner.clean(page, user=user):
            return False
        if not space.child.map(number << FRAME_SHIFT, PAGE, READ_EXECUTE, MEMORY_AT, frame << FRAME_SHIFT):
            return False
        key, global_ = self._shadow.entry(number)
        self._shadow.note(space, number, Shadowed(frame, READ_EXECUTE, False, key, number), global_=global_)
        self.pages.add(page)
        return True

    def spoilt(self) -> list[int]:
        """The frames of open pages that have got a breakpoint: they must go."""
        found = [page for page in self.pages if page.hard or page.numeric]
        self.pages.difference_update(found)
        return [page.frame for page in found]

    def is_open(self, frame: int) -> bool:
        """Whether a frame is an open page: then any change of it counts."""
        return any(pages.get(frame) in self.pages for pages in self._codes.pages if frame in pages)
