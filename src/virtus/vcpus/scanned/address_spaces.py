"""The guest's linear address spaces, shadowed in children: which host process has what of the guest mapped where.

Supervisor code runs in one child, user code in one a CR3, which holds nothing but pages that user code may touch. A
child is a translation lookaside buffer in software: pages come in by faults, and after a CR3 is loaded those that the
guest's page tables still say the same of are kept (global ones unseen).
"""

import mmap
from collections import OrderedDict
from typing import Final, NamedTuple

from virtus.errors import MachineBroken
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.vcpus.scanned.child import LINEAR_SPACE, MAP_FIXED, MAP_SHARED, Call, Child, Children

READ: Final = mmap.PROT_READ
WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE
MOST_USERS: Final = 24
"""User address spaces kept: that of the CR3 not loaded for longest goes first."""


class Mapping(NamedTuple):
    """Pages of one of a child's two files, by numbers."""

    page: int
    pages: int
    protection: int
    descriptor: int
    frame: int


class Shadowed(NamedTuple):
    """A page of a child: what is mapped there, and the page directory and table entries that said so."""

    frame: int
    protection: int
    code: bool
    key: int
    source: int
    """The guest's own linear page, by number: code may be mapped elsewhere (`AddressSpace.bias`)."""


class AddressSpace:
    """One child and what is mapped in it."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.pages: dict[int, Shadowed] = {}
        self.flushable: set[int] = set()
        """Pages that are not global."""
        self.by_frame: dict[int, set[int]] = {}
        self.bias = 0
        """Code is mapped this far, in units of 256 MiB, above where the guest has it, and its segment's base makes up
        for it: so who reads code reads the guest's own bytes. 0 where execute-only pages hide the copies."""
        self.flat = False
        """Whether the guest is running in a flat code segment, in open pages (`open_pages.py`)."""
        self.returning = False
        """Whether it goes on there when it comes back to one."""
        self.ticks, self.patience, self.flips = 0, 1, 0
        self.epoch = 0
        """Counts how often everything was unmapped, or code went elsewhere."""
        self.code_tables: set[int] = set()
        """The page tables, by number, that code was mapped in the range of."""
        self.checked = -1
        """The number of the last flush it has seen."""

    def note(self, page: int, shadowed: Shadowed, *, flushable: bool) -> None:
        """Remember what was mapped at a linear page, by number."""
        old = self.pages.get(page)
        if old is not None and old.frame != shadowed.frame:
            self._forget_frame(page, old.frame)
        self.pages[page] = shadowed
        self.by_frame.setdefault(shadowed.frame, set()).add(page)
        if flushable:
            self.flushable.add(page)
        else:
            self.flushable.discard(page)

    def _forget_frame(self, page: int, frame: int) -> None:
        users = self.by_frame[frame]
        users.discard(page)
        if not users:
            del self.by_frame[frame]

    def show(self, mappings: list[Mapping]) -> int:
        """Map several at once; how many there were before one that the host forbids."""
        return self.child.call_all([_mapped(mapping) for mapping in mappings])

    def unmap(self, page: int) -> None:
        """Take one page out, if it is there."""
        if page in self.pages:
            self.child.unmap(page << FRAME_SHIFT, PAGE)
            self.forget(page)

    def forget(self, page: int) -> None:
        """It is no longer mapped."""
        old = self.pages.pop(page)
        self.flushable.discard(page)
        self._forget_frame(page, old.frame)

    def unmap_all(self) -> None:
        """Take everything out."""
        self.epoch += 1
        if self.pages:
            self.child.unmap(0, LINEAR_SPACE)
            self.pages.clear()
            self.code_tables.clear()
            self.flushable.clear()
            self.by_frame.clear()

    def unmap_many(self, stale: list[int]) -> None:
        """Take pages out, those beside each other at once."""
        self.exchange(stale, [])

    def exchange(self, stale: list[int], mappings: list[Mapping]) -> int:
        """Take pages out, and map others, which may be the same; how many of these there were before one that the host
        forbids. All that is to be `note`d is forgotten first."""
        shown = {page for mapping in mappings for page in range(mapping.page, mapping.page + mapping.pages)}
        calls: list[Call] = []
        first = following = -1
        for page in [*sorted(page for page in stale if page not in shown), LINEAR_SPACE]:
            if page != following:
                if first >= 0:
                    size = following - first << FRAME_SHIFT
                    calls.append((NUMBERS["munmap"], first << FRAME_SHIFT, size, 0, 0, 0, 0))
                first = page
            following = page + 1
        for page in stale:
            self.forget(page)
        out = len(calls)
        done = self.child.call_all(calls + [_mapped(mapping) for mapping in mappings])
        if done < out:
            raise MachineBroken("running the guest", "the host does not take pages of its process back")
        return done - out


def _mapped(mapping: Mapping) -> Call:
    page, pages, protection, descriptor, frame = mapping
    size, offset = pages << FRAME_SHIFT, frame << FRAME_SHIFT
    return NUMBERS["mmap"], page << FRAME_SHIFT, size, protection, MAP_SHARED | MAP_FIXED, descriptor, offset


class AddressSpaces:
    """All of a machine's."""

    def __init__(self, memory_fd: int, code_fd: int) -> None:
        self.children = Children(memory_fd, code_fd)
        self.supervisor = AddressSpace(self.children.fresh())
        self._users: OrderedDict[int, AddressSpace] = OrderedDict()
        self.owner = self.supervisor
        """Whose child holds the floating-point and vector registers."""

    def all(self) -> list[AddressSpace]:
        """Every address space there is."""
        return [self.supervisor, *self._users.values()]

    def under(self, root: int) -> list[AddressSpace]:
        """The supervisor's, and that of users under a CR3 if there is one."""
        user = self._users.get(root)
        return [self.supervisor] if user is None else [self.supervisor, user]

    def user(self, root: int) -> AddressSpace:
        """The one for user code under a CR3."""
        space = self._users.get(root)
        if space is None:
            if len(self._users) >= MOST_USERS:
                space = self._oldest()
                space.unmap_all()
            else:
                space = AddressSpace(self.children.fresh())
            self._users[root] = space
        self._users.move_to_end(root)
        return space

    def _oldest(self) -> AddressSpace:
        return self._users.popitem(last=False)[1]

    def close(self) -> None:
        """End all children. May be called twice."""
        for space in self.all():
            space.child.kill()
        self.children.close()
