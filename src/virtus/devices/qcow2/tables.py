"""Where an image has each cluster of its disk: the tables L1 and L2, of which some are kept in memory.

What changes stays in memory until `store`, which the image calls when everything that the entries refer to is on the
disk: so no entry there ever refers to what is not.
"""

import os
from array import array
from collections import OrderedDict
from typing import Final

from virtus.devices.image import whole
from virtus.devices.qcow2.header import Damaged, Header
from virtus.devices.qcow2.refcounts import Refcounts, swapped
from virtus.records import dataclass

COPIED, COMPRESSED = 1 << 63, 1 << 62
OFFSET: Final = ((1 << 56) - 1) & ~((1 << 9) - 1)  # bits 9 to 55
ZERO: Final = 1  # version 3: reads as zeros, whatever is at the offset
SECTOR: Final = 512
KEPT_BYTES: Final = 4 << 20
LEAST_KEPT: Final = 4


@dataclass(slots=True, eq=False)
class Table:
    """An L2 table in memory; `dirty` are the first changed entry and the end of them."""

    at: int
    entries: "array[int]"
    dirty: tuple[int, int] | None = None

    def set(self, index: int, entry: int) -> None:
        """Change an entry."""
        self.entries[index] = entry
        first, end = self.dirty or (index, index + 1)
        self.dirty = min(first, index), max(end, index + 1)


class Tables:
    """The mapping of one image. `full` says that `store` should come soon, lest memory grow."""

    def __init__(self, fd: int, header: Header, file_end: int) -> None:
        self._fd, self._header = fd, header
        self._bits = header.cluster_bits - 3  # of an index into an L2 table
        self._compressed_shift = 62 - (header.cluster_bits - 8)
        data = os.pread(fd, 8 * header.l1_entries, header.l1_offset)
        self._l1 = swapped(array("Q", data))
        for number, entry in enumerate(self._l1):
            if entry & ~(OFFSET | COPIED) or entry % header.cluster & OFFSET:
                raise Damaged(f"entry {number} of the L1 table is {entry:#x}")
            if (entry & OFFSET) + header.cluster > file_end and entry & OFFSET:
                raise Damaged(f"an L2 table at {entry & OFFSET:#x}, and the file ends at {file_end:#x}")
        self._l2: OrderedDict[int, Table] = OrderedDict()
        self._changed_l1: set[int] = set()
        self._most = max(KEPT_BYTES >> header.cluster_bits, LEAST_KEPT)

    def metadata(self) -> set[int]:
        """The clusters of tables: the head, L1, L2."""
        header = self._header
        first, end = header.l1_offset, header.l1_offset + 8 * header.l1_entries
        found = {0, *range(first >> header.cluster_bits, -(-end // header.cluster))}
        return found | {(entry & OFFSET) >> header.cluster_bits for entry in self._l1 if entry & OFFSET}

    def entry(self, cluster: int) -> int:
        """The entry of a cluster of the disk, 0 where it has none; raises Damaged for one that cannot be."""
        table = self._table(cluster >> self._bits)
        if table is None:
            return 0
        found = table.entries[cluster & (1 << self._bits) - 1]
        if found and not found & COMPRESSED:
            zero = ZERO if self._header.version == 3 else 0
            if found & ~(OFFSET | COPIED | zero) or (found & OFFSET) % self._header.cluster:
                raise Damaged(f"the entry of cluster {cluster:#x} is {found:#x}")
        return found

    def compressed(self, entry: int) -> tuple[int, int]:
        """Where the compressed data of an entry lie, and how many bytes at most."""
        offset = entry & (1 << self._compressed_shift) - 1
        sectors = (entry & COMPRESSED - 1) >> self._compressed_shift
        return offset, (sectors + 1) * SECTOR - offset % SECTOR

    def _table(self, number: int) -> Table | None:
        found = self._l2.get(number)
        if found is not None:
            self._l2.move_to_end(number)
            return found
        at = self._l1[number] & OFFSET
        if not at:
            return None
        data = os.pread(self._fd, self._header.cluster, at)
        if len(data) < self._header.cluster:
            raise Damaged("an L2 table ends too early")
        return self._keep(number, Table(at, swapped(array("Q", data))))

    def _keep(self, number: int, table: Table) -> Table:
        self._l2[number] = table
        if len(self._l2) > self._most:
            for old in [old for old, kept in self._l2.items() if kept.dirty is None][: len(self._l2) - self._most]:
                if old != number:
                    del self._l2[old]
        return table

    # writing

    def own(self, number: int, refcounts: Refcounts) -> tuple[Table, tuple[int, int] | None]:
        """The L2 table with this number, nobody else's, so that it may be changed: made or copied if need be; and the
        clusters that are free once this is stored."""
        entry = self._l1[number]
        table = self._table(number)
        if table is not None and (entry & COPIED or number in self._changed_l1):
            return table, None
        bits = self._header.cluster_bits
        entries = array("Q", [0]) * (1 << self._bits) if table is None else array("Q", table.entries)
        first, _ = refcounts.allocate(1)
        at = first << bits
        try:
            whole(os.pwritev, self._fd, at, [memoryview(swapped(entries).tobytes())])
        except OSError:
            refcounts.release(first, 1)
            raise
        freed = None if table is None else (table.at >> bits, 1)
        made = self._keep(number, Table(at, entries))
        self._l1[number] = at | COPIED
        self._changed_l1.add(number)
        return made, freed

    def index(self, cluster: int) -> tuple[int, int]:
        """The number of a cluster's L2 table, and the index in there."""
        return cluster >> self._bits, cluster & (1 << self._bits) - 1

    @property
    def changed(self) -> bool:
        """Whether there is something to `store`."""
        return bool(self._changed_l1) or any(table.dirty for table in self._l2.values())

    @property
    def full(self) -> bool:
        """Whether more is kept than should be."""
        return len(self._l2) > self._most

    def store(self) -> None:
        """Write what has changed, L2 before L1. May be called again where the host has refused."""
        for table in self._l2.values():
            if table.dirty is not None:
                first, end = table.dirty
                data = swapped(table.entries[first:end]).tobytes()
                whole(os.pwritev, self._fd, table.at + 8 * first, [memoryview(data)])
                table.dirty = None
        for number in sorted(self._changed_l1):
            data = swapped(self._l1[number : number + 1]).tobytes()
            whole(os.pwritev, self._fd, self._header.l1_offset + 8 * number, [memoryview(data)])
        self._changed_l1.clear()
