"""What the supervisor had of users' pages under each CR3: that is what it will likely want of them again.

A supervisor copies from and to its programs' buffers. Where two of them take turns, as at the ends of a pipe, each load
of CR3 takes pages out that the next one but one brings back, a fault each.
"""

from collections import OrderedDict
from typing import Final

MOST_ROOTS: Final = 16
MOST_PAGES: Final = 24
"""Of one CR3: who has more goes through them."""
AFRESH: Final = 16
"""Every so many times nothing comes back by itself, so that what is no longer wanted stays away."""


class WorkingSets:
    """Remembers sets of linear pages, by number, by the CR3 under which they were in use."""

    def __init__(self) -> None:
        self._sets: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        self._root = -1
        self._changes = 0

    def change(self, root: int, pages: set[int]) -> tuple[int, ...]:
        """Another CR3 was loaded, while `pages` were in; those that may come back with it, in order."""
        if root == self._root:
            return ()
        self._sets[self._root] = tuple(sorted(pages)) if len(pages) <= MOST_PAGES else ()
        self._sets.move_to_end(self._root)
        if len(self._sets) > MOST_ROOTS:
            self._sets.popitem(last=False)
        self._root = root
        self._changes += 1
        return self._sets.get(root, ()) if self._changes % AFRESH else ()
