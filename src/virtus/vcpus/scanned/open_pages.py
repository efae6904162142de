"""Open pages: code in which nothing must be stopped runs where the guest has it, from the guest's own memory.

Where copies cannot be hidden they lie elsewhere, behind a code segment with a base, and on many processors branches are
several times slower in such a segment. A page is open when it has no breakpoint and none is found between the
instructions that were scanned either; those for floating-point registers go, since who runs in open pages has these. A
guest that computes (a whole tick goes by without a stop) and is in such a page goes on in a flat segment, until it
leaves for a page that is not open; where it comes back, it stops again.
"""

import mmap
from typing import Final

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.vcpus.scanned.address_spaces import AddressSpace, Shadowed
from virtus.vcpus.scanned.breakpoints import SUPERVISOR, USER, CodePage, CodePages
from virtus.vcpus.scanned.child import MEMORY_AT
from virtus.vcpus.scanned.cpu_state import MASK32, CpuState
from virtus.vcpus.scanned.scanner import Scanner
from virtus.vcpus.scanned.shadow import Shadow

READ_EXECUTE: Final = mmap.PROT_READ | mmap.PROT_EXEC
MOST_PATIENCE: Final = 16
"""Ticks that a guest which left open pages too often has to compute for before the next try."""
MOST_FLIPS: Final = 12
"""Times that a guest may leave open pages in a tick: each costs two stops."""


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
        space.flips = 0
        if space.flat:
            space.patience = 1
        elif space.bias and space.ticks >= space.patience and self.show(space, eip):
            space.flat = space.returning = True
            space.ticks = 0
            self.entered += 1

    def left(self, space: AddressSpace) -> None:
        """The guest goes on in a page that is not open; where it does so too often, in none that is for a while."""
        space.flat = False
        space.flips += 1
        if space.flips > MOST_FLIPS:
            space.patience = min(2 * space.patience, MOST_PATIENCE)
            space.flips = space.ticks = 0
            space.returning = False

    def choose(self, space: AddressSpace, eip: int) -> None:
        """Before the guest goes on, which costs nothing then: the segment that suits the page it is in."""
        if space.flat or space.returning:
            space.flat = self.runs(space, eip)

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
        if page is None or not self._scanner.clean(page, user=user) or not self._joined(page, linear, user):
            return False
        if not space.child.map(number << FRAME_SHIFT, PAGE, READ_EXECUTE, MEMORY_AT, frame << FRAME_SHIFT):
            return False
        key, global_ = self._shadow.entry(number)
        self._shadow.note(space, number, Shadowed(frame, READ_EXECUTE, False, key, number), global_=global_)
        self.pages.add(page)
        space.unmap(self._shadow.code_page(space, linear))  # who comes back there is to be seen
        return True

    def _joined(self, page: CodePage, linear: int, user: bool) -> bool:
        """Whether instructions over the ends of a page go on where they did when they were scanned."""
        start = linear & ~(PAGE - 1)
        if page.tail is not None:
            following = self._shadow.peek(start + PAGE & MASK32, user=user)
            if following is None or following >> FRAME_SHIFT != page.tail.frame:
                return False
        before = self._shadow.peek(start - 1 & MASK32, user=user)
        head = None if before is None else self._codes.pages[USER if user else SUPERVISOR].get(before >> FRAME_SHIFT)
        return head is None or head.tail is None or head.tail is page

    def spoilt(self) -> list[int]:
        """The frames of open pages that have got a breakpoint: they must go."""
        found = [page for page in self.pages if page.hard]
        self.pages.difference_update(found)
        return [page.frame for page in found]

    def is_open(self, frame: int) -> bool:
        """Whether a frame is an open page: then any change of it counts."""
        return any(pages.get(frame) in self.pages for pages in self._codes.pages if frame in pages)
