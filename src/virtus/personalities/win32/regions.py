"""The address space as Windows accounts for it: regions reserved in units of 64 KiB, committed page by page.

A region keeps its pages' protections in runs, so that a reservation of terabytes costs nothing.
"""

import bisect
import threading
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from virtus.personalities.win32.commit_journal import CommitJournal
from virtus.records import dataclass, field

PAGE: Final = 4096
GRANULARITY: Final = 0x1_0000
LOWEST, HIGHEST = 0x1_0000, 0x7FFF_FFFE_FFFF
"""What GetSystemInfo tells of the addresses of applications on 64-bit Windows."""

PAGE_NOACCESS, PAGE_READONLY, PAGE_READWRITE, PAGE_WRITECOPY = 0x01, 0x02, 0x04, 0x08
PAGE_EXECUTE, PAGE_EXECUTE_READ, PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY = 0x10, 0x20, 0x40, 0x80
PAGE_GUARD, PAGE_NOCACHE, PAGE_WRITECOMBINE = 0x100, 0x200, 0x400
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
LINUX_RIGHTS: Final = {
    PAGE_NOACCESS: 0, PAGE_READONLY: PROT_READ, PAGE_READWRITE: PROT_READ | PROT_WRITE,
    PAGE_WRITECOPY: PROT_READ | PROT_WRITE, PAGE_EXECUTE: PROT_READ | PROT_EXEC,
    PAGE_EXECUTE_READ: PROT_READ | PROT_EXEC, PAGE_EXECUTE_READWRITE: PROT_READ | PROT_WRITE | PROT_EXEC,
    PAGE_EXECUTE_WRITECOPY: PROT_READ | PROT_WRITE | PROT_EXEC,
}  # fmt: skip
"""mmap(2)'s rights of Windows' protections. Private copies are the mapping's affair, not the protection's."""


class Kind(IntEnum):
    """What a region holds: MEM_PRIVATE, MEM_MAPPED, MEM_IMAGE."""

    PRIVATE = 0x2_0000
    MAPPED = 0x4_0000
    IMAGE = 0x100_0000


def rights(protection: int) -> int:
    """mmap(2)'s rights; of guard pages none, so that the first access is seen."""
    return 0 if protection & PAGE_GUARD else LINUX_RIGHTS[protection & 0xFF]


def valid(protection: int) -> bool:
    """Whether a protection is one, with modifiers that go with it (Microsoft: Memory Protection Constants)."""
    base, modifiers = protection & 0xFF, protection & ~0xFF
    if base not in LINUX_RIGHTS or modifiers & ~(PAGE_GUARD | PAGE_NOCACHE | PAGE_WRITECOMBINE):
        return False
    return not modifiers or base != PAGE_NOACCESS


@dataclass(slots=True)
class Region:
    """A reservation. `protection` is what it was allocated with; a page's 0 means: reserved, not committed."""

    base: int
    size: int
    kind: Kind
    protection: int
    starts: list[int] = field(default_factory=list)
    values: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.starts:
            self.starts, self.values = [self.base], [0]

    @property
    def end(self) -> int:
        """The first address behind."""
        return self.base + self.size

    def set(self, start: int, end: int, value: int) -> None:
        """Give the pages from `start` to `end` a protection, or 0."""
        low, high = bisect.bisect_left(self.starts, start), bisect.bisect_left(self.starts, end)
        fresh = [] if low and self.values[low - 1] == value else [(start, value)]
        if high < len(self.starts) and self.starts[high] == end:
            high += self.values[high] == value
        elif end < self.end and self.values[high - 1] != value:
            fresh.append((end, self.values[high - 1]))
        self.starts[low:high] = [place for place, _ in fresh]
        self.values[low:high] = [kept for _, kept in fresh]

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Runs of equal pages between two addresses: start, end, protection."""
        place = bisect.bisect_right(self.starts, start) - 1
        while start < end:
            following = self.starts[place + 1] if place + 1 < len(self.starts) else self.end
            yield start, min(end, following), self.values[place]
            start, place = following, place + 1

    def run(self, address: int) -> tuple[int, int, int]:
        """The whole run that an address is in."""
        place = bisect.bisect_right(self.starts, address) - 1
        following = self.starts[place + 1] if place + 1 < len(self.starts) else self.end
        return self.starts[place], following, self.values[place]


class Regions:
    """All regions of a process, by address. Callers hold `lock` over what belongs together."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._bases: list[int] = []
        self._regions: list[Region] = []
        self._journal: CommitJournal | None = None

    def publish(self, journal: CommitJournal) -> None:
        """From now on, machine code may commit pages of what is reserved."""
        with self.lock:
            self._journal = journal
            for region in self._regions:
                if region.kind is Kind.PRIVATE:
                    journal.add(region.base, region.end)

    def _catch_up(self) -> None:
        """Take note of what machine code has committed."""
        if self._journal is None:
            return
        for start, end in self._journal.take():
            place = max(bisect.bisect_right(self._bases, start) - 1, 0)
            for region in self._regions[place:]:  # what is in none has been released meanwhile
                if region.base >= end:
                    break
                low, high = max(start, region.base), min(end, region.end)
                if low < high:
                    region.set(low, high, PAGE_READWRITE)

    def add(self, region: Region) -> Region:
        """A new region, which overlaps none."""
        with self.lock:
            self._catch_up()
            if self._journal is not None and region.kind is Kind.PRIVATE:
                self._journal.add(region.base, region.end)
            place = bisect.bisect_left(self._bases, region.base)
            self._bases.insert(place, region.base)
            self._regions.insert(place, region)
        return region

    def remove(self, region: Region) -> None:
        """Forget a region."""
        with self.lock:
            self._catch_up()
            if self._journal is not None:
                self._journal.remove(region.base)
            place = bisect.bisect_left(self._bases, region.base)
            del self._bases[place], self._regions[place]

    def find(self, address: int) -> Region | None:
        """The region that an address is in."""
        with self.lock:
            self._catch_up()
            place = bisect.bisect_right(self._bases, address) - 1
            if place >= 0 and address < self._regions[place].end:
                return self._regions[place]
        return None

    def gap(self, address: int) -> int:
        """Where the free space that an address is in ends."""
        with self.lock:
            place = bisect.bisect_right(self._bases, address)
            return self._bases[place] if place < len(self._bases) else HIGHEST + 1

    def free(self, start: int, end: int) -> bool:
        """Whether no region is there."""
        return self.find(start) is None and self.gap(start) >= end

    def __iter__(self) -> Iterator[Region]:
        with self.lock:
            self._catch_up()
            return iter(list(self._regions))
