"""Segments that the supervisor's fragments may load into FS and GS by themselves: those that were loaded before.

A record holds what a selector's descriptor was then, and which segment of the host's does the same. A fragment compares
the record with the guest's table at every load, so that a descriptor that was changed is the evaluator's. Segments with
a base are entries of the child's local descriptor table: code in compatibility mode sets no base otherwise.
"""

import struct
from collections import Counter
from collections.abc import Callable
from typing import Final

from virtus.vcpus.scanned.child import DATA_SELECTOR
from virtus.vcpus.scanned.cpu_state import (
    CODE,
    CODE_OR_DATA,
    DOWN_OR_CONFORMING,
    DPL,
    DPL_SHIFT,
    FS,
    GRANULAR,
    GS,
    MASK32,
    PRESENT,
    WRITABLE_OR_READABLE,
    CpuState,
    Segment,
    TableRegister,
)

SELECTOR_AT, LOW_AT, HIGH_AT, POINTER_AT, HOST_AT = 0, 4, 8, 12, 16
"""Of a record: the selector, both words of its descriptor and the linear address of that, and the host's selector."""
RECORD: Final = 32
RECORDS: Final = 256
"""Selectors from here on have none: fragments look records up by the lower byte."""
SIZE: Final = RECORD * RECORDS
NO_SELECTOR: Final = 1 << 16
NULL_SELECTORS: Final = range(4)
RPL, LOCAL = 3, 4
PATIENCE: Final = 8
"""A base has an entry made when it was found so often: those of threads come and go."""
MOST_SEEN: Final = 1024
MOST_BASES: Final = 64
_RECORD: Final = struct.Struct("<5I12x")
assert _RECORD.size == RECORD


class KnownSegments:
    """The records, in memory that the supervisor's child shares; what counts is kept here, too: that is the guest's."""

    def __init__(self, area: memoryview) -> None:
        """`area` is `SIZE` bytes."""
        self._area = area
        self._values: dict[int, tuple[int, int, int, int]] = {}
        self._hosts: dict[int, int] = {}
        self._seen: Counter[int] = Counter()
        self._table = 0, 0
        self._null = 0
        self.with_base: Callable[[int, int], int | None] = lambda number, base: None
        """Makes entry `number` of the child's table a segment with a base; its selector, None where that cannot be."""

    def close(self) -> None:
        """Let go of the view."""
        self._area.release()

    def settle(self, null: int) -> None:
        """Nothing is known any longer. At the linear address `null` eight zero bytes can be read."""
        self._null = null
        self.forget()

    def forget(self) -> None:
        """The descriptor table is another one."""
        self._values.clear()
        self._area[:] = _RECORD.pack(NO_SELECTOR, 0, 0, self._null, 0) * RECORDS
        for selector in NULL_SELECTORS:
            self._put(selector, (selector, 0, 0, 0), (0, 0), self._null, 0)

    def _put(
        self, selector: int, values: tuple[int, int, int, int], words: tuple[int, int], at: int, host: int
    ) -> None:
        self._values[selector] = values
        _RECORD.pack_into(self._area, RECORD * selector, selector, *words, at, host)

    def learn(self, segment: Segment, table: TableRegister) -> None:
        """A segment is loaded in FS or GS: it may be loaded again."""
        if (table.base, table.limit) != self._table:
            self._table = table.base, table.limit
            self.forget()
        selector = segment.selector
        values = segment.values()
        if selector >= RECORDS or selector in NULL_SELECTORS or self._values.get(selector) == values:
            return
        if selector & LOCAL or selector | 7 > table.limit or not _loadable(segment):
            return
        host = self._host(segment)
        if host is not None:
            self._put(selector, values, descriptor_of(segment), table.base + (selector & ~7) & MASK32, host)

    def _host(self, segment: Segment) -> int | None:
        """The selector of a host's segment with the same base: limits are not checked (nor are they otherwise)."""
        base = segment.base
        if not base:
            return DATA_SELECTOR
        found = self._hosts.get(base)
        if found is None:
            self._seen[base] += 1
            if self._seen[base] < PATIENCE:
                if len(self._seen) > MOST_SEEN:
                    self._seen.clear()
                return None
            if len(self._hosts) >= MOST_BASES:
                self._hosts.clear()
                self.forget()
            found = self.with_base(len(self._hosts), base)
            if found is not None:
                self._hosts[base] = found
        return found

    def loaded(self, state: CpuState, number: int, selector: int) -> None:
        """A fragment has loaded FS or GS, it says: of what it could."""
        values = self._values.get(selector)
        if values is not None and number in (FS, GS):
            state.segments[number].load(*values)


def _loadable(segment: Segment) -> bool:
    """Whether level 0 may load such a segment for data (Intel SDM volume 2, MOV)."""
    attributes = segment.attributes
    if attributes & (PRESENT | CODE_OR_DATA) != PRESENT | CODE_OR_DATA:
        return False
    if attributes & CODE:
        if not attributes & WRITABLE_OR_READABLE:
            return False
        if attributes & DOWN_OR_CONFORMING:
            return True
    return (attributes & DPL) >> DPL_SHIFT >= segment.selector & RPL


def descriptor_of(segment: Segment) -> tuple[int, int]:
    """The two words of the descriptor that a segment was loaded from (Intel SDM volume 3A, figure 3-8)."""
    attributes, base = segment.attributes, segment.base
    limit = segment.limit >> 12 if attributes & GRANULAR else segment.limit
    low = limit & 0xFFFF | (base & 0xFFFF) << 16
    high = base >> 16 & 0xFF | (attributes & 0xF0FF) << 8 | limit & 0xF_0000 | base & 0xFF00_0000
    return low, high
