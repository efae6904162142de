"""What directories have, and their names in upper case: Windows finds a name whatever its case, the host only as it is.

A directory is read once, and again when its time of change is another one. That time is as coarse as the host's clock
ticks: what has just been changed may change again unnoticed, and is not kept.
"""

import os
import time
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32.characters import to_upper

SETTLED_NS: Final = 50_000_000
"""How long a directory must have been as it is for its names to be kept."""
MOST_DIRECTORIES: Final = 1024

Stamp = tuple[int, int, int]
"""Of a directory: its device, its number, and when it has changed, in nanoseconds."""


class Listing:
    """The names of a directory, in the order of their upper case."""

    __slots__ = ("_by_upper", "names", "settled", "stamp", "uppers")

    def __init__(self, stamp: Stamp, names: list[str], *, settled: bool) -> None:
        together = "/".join(names)
        uppers = together.upper().split("/") if together.isascii() else [to_upper(name) for name in names]
        pairs = sorted(zip(uppers, names, strict=True)) if names else []
        self.stamp, self.settled = stamp, settled
        self.names = [name for _, name in pairs]
        self.uppers = [upper for upper, _ in pairs]
        self._by_upper: dict[str, str] | None = None

    def has(self, name: str) -> str | None:
        """The name that is there, whatever its case; of several the first."""
        if self._by_upper is None:
            self._by_upper = dict(zip(reversed(self.uppers), reversed(self.names), strict=True))
        return self._by_upper.get(to_upper(name))


class Listings:
    """Those of the directories that were looked through."""

    def __init__(self) -> None:
        self._kept: dict[str, Listing] = {}
        self.tell: Callable[[Listing], None] | None = None
        """Told of directories in which more may be looked for that is not there."""

    def of(self, directory: str) -> Listing:
        """A directory's; raises OSError."""
        status = os.stat(directory)
        stamp = status.st_dev, status.st_ino, status.st_mtime_ns
        kept = self._kept.get(directory)
        if kept is None or kept.stamp != stamp:
            settled = time.time_ns() - status.st_mtime_ns > SETTLED_NS
            kept = Listing(stamp, os.listdir(directory), settled=settled)
            if settled:
                if len(self._kept) >= MOST_DIRECTORIES:
                    self._kept.clear()
                self._kept[directory] = kept
            else:
                self._kept.pop(directory, None)
        return kept

    def match(self, directory: str, name: str) -> str | None:
        """A name in a directory that differs in case alone; None where there is none."""
        try:
            found = self.of(directory)
        except OSError:
            return None
        there = found.has(name)
        if there is None:
            self.expect(found)
        return there

    def expect(self, listing: Listing) -> None:
        """More may be looked for in this directory that is not there."""
        if self.tell is not None and listing.settled:
            self.tell(listing)


LISTINGS: Final = Listings()
"""This process's."""
