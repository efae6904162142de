"""Which clusters of an image are in use: reference counts, and where new clusters come from.

A count goes up before anything refers to its cluster, and down only when nothing does any more, on the disk as well. So
whatever is interrupted, by a kill or a loss of power, leaves at worst clusters that nobody uses.
"""

import os
import struct
import sys
from array import array
from collections import OrderedDict
from collections.abc import Set as AbstractSet
from typing import Final

from virtus.devices.image import whole
from virtus.devices.qcow2.header import (
    MOST_REFCOUNT_TABLE_BYTES,
    REFCOUNT_TABLE_AT,
    Damaged,
    Header,
)

OFFSET: Final = (1 << 64) - (1 << 9)  # of an entry of the table: bits 9 to 63
KEPT_BYTES: Final = 2 << 20
"""Of blocks of counts that are kept in memory."""
CODES: Final = {1: "B", 2: "B", 4: "B", 8: "B", 16: "H", 32: "I", 64: "Q"}


def swapped(values: "array[int]") -> "array[int]":
    """Big-endian to the host's order, or back: a copy."""
    made = array(values.typecode, values)
    if sys.byteorder == "little":
        made.byteswap()
    return made


class Refcounts:
    """The counts of one image that is open for writing. `metadata` are clusters known to hold tables."""

    def __init__(self, fd: int, header: Header, file_end: int, metadata: AbstractSet[int]) -> None:
        self._fd, self._bits, self._cluster_bits = fd, header.refcount_bits, header.cluster_bits
        self._cluster = header.cluster
        self._per_block = self._cluster * 8 // self._bits
        self._table_at = header.refcount_table_offset
        data = os.pread(fd, header.refcount_table_clusters << header.cluster_bits, self._table_at)
        self._table = swapped(array("Q", data))
        for number, entry in enumerate(self._table):
            if entry & ~OFFSET or entry % self._cluster or entry >= file_end:
                raise Damaged(f"entry {number} of the refcount table is {entry:#x}")
        self._blocks: OrderedDict[int, array[int]] = OrderedDict()
        self._hint = 0
        self._metadata = metadata

    # blocks of counts

    def _load(self, number: int) -> "array[int] | None":
        """The counts of a block, None where there is none yet."""
        found = self._blocks.get(number)
        if found is not None:
            self._blocks.move_to_end(number)
            return found
        if number >= len(self._table) or not self._table[number]:
            return None
        data = os.pread(self._fd, self._cluster, self._table[number])
        if len(data) < self._cluster:
            raise Damaged("a block of reference counts ends too early")
        return self._keep(number, self._decode(data))

    def _keep(self, number: int, block: "array[int]") -> "array[int]":
        self._blocks[number] = block
        while len(self._blocks) > max(KEPT_BYTES // self._cluster, 2):
            self._blocks.popitem(last=False)
        return block

    def _decode(self, data: bytes) -> "array[int]":
        if self._bits >= 8:
            return swapped(array(CODES[self._bits], data))
        mask, shifts = (1 << self._bits) - 1, range(0, 8, self._bits)
        return array("B", (byte >> shift & mask for byte in data for shift in shifts))

    def _encode(self, counts: "array[int]") -> bytes:
        if self._bits >= 8:
            return swapped(counts).tobytes()
        per_byte = 8 // self._bits
        return bytes(
            sum(counts[at + number] << self._bits * number for number in range(per_byte))
            for at in range(0, len(counts), per_byte)
        )

    def _store(self, number: int, block: "array[int]", first: int, count: int) -> None:
        """Write these counts of a block, and what shares their bytes."""
        per_byte = max(8 // self._bits, 1)
        first, end = first // per_byte * per_byte, -(-(first + count) // per_byte) * per_byte
        place = self._table[number] + first * self._bits // 8
        whole(os.pwritev, self._fd, place, [memoryview(self._encode(block[first:end]))])

    # the two things one does with clusters

    def allocate(self, wanted: int) -> tuple[int, int]:
        """Up to `wanted` clusters side by side, at least one, that nobody else is given: the first, and how many.

        Raises OSError where the host has no space.
        """
        at = self._hint
        while True:
            number, index = divmod(at, self._per_block)
            block = self._load(number)
            if block is None:
                self._make_block(number)
                continue
            try:
                index = block.index(0, index)
            except ValueError:
                at = (number + 1) * self._per_block
                continue
            end = index + 1
            while end < min(index + wanted, self._per_block) and not block[end]:
                end += 1
            first = number * self._per_block + index
            self._check(first, end - index)
            block[index:end] = array(block.typecode, [1]) * (end - index)
            try:
                self._store(number, block, index, end - index)
            except OSError:
                block[index:end] = array(block.typecode, [0]) * (end - index)
                raise
            self._hint = first + end - index
            return first, end - index

    def release(self, first: int, count: int) -> None:
        """One reference less to each of these clusters. Raises Damaged where there was none."""
        for cluster in range(first, first + count):
            number, index = divmod(cluster, self._per_block)
            block = self._load(number)
            if block is None or not block[index]:
                raise Damaged(f"cluster {cluster:#x} is in use, and not counted")
            block[index] -= 1
            self._store(number, block, index, 1)
            if not block[index]:
                self._hint = min(self._hint, cluster)

    def _check(self, first: int, count: int) -> None:
        if not self._metadata.isdisjoint(range(first, first + count)):
            raise Damaged("a table in a cluster that is counted as free; repair it with `qemu-img check -r all`")

    # more counts

    def _make_block(self, number: int) -> None:
        """A block for clusters that have no counts yet, at the first of them."""
        if number >= len(self._table):
            self._grow(number)
            return
        self._check(number * self._per_block, 1)
        block = array(CODES[self._bits], [0]) * self._per_block
        block[0] = 1
        at = number * self._per_block << self._cluster_bits
        whole(os.pwritev, self._fd, at, [memoryview(self._encode(block))])
        os.fdatasync(self._fd)
        whole(os.pwritev, self._fd, self._table_at + 8 * number, [memoryview(struct.pack(">Q", at))])
        self._table[number] = at
        self._keep(number, block)

    def _grow(self, needed: int) -> None:
        """A longer table, behind everything that the present one counts, with blocks for itself."""
        start = len(self._table) * self._per_block  # in clusters
        entries = max(needed + 1, len(self._table) * 3 // 2)
        blocks = 1
        while True:
            entries = max(entries, len(self._table) + blocks)
            clusters = -(-8 * entries // self._cluster)
            if -(-(blocks + clusters) // self._per_block) <= blocks:
                break
            blocks += 1
        if clusters * self._cluster > MOST_REFCOUNT_TABLE_BYTES:
            raise OSError(0, "the qcow2 image cannot grow any more")
        used = blocks + clusters
        self._check(start, used)
        table = array("Q", self._table)
        table.extend([0] * (clusters * self._cluster // 8 - len(table)))
        for block in range(blocks):
            counts = array(CODES[self._bits], [0]) * self._per_block
            count = min(max(used - block * self._per_block, 0), self._per_block)
            counts[:count] = array(CODES[self._bits], [1]) * count
            at = start + block << self._cluster_bits
            whole(os.pwritev, self._fd, at, [memoryview(self._encode(counts))])
            table[len(self._table) + block] = at
        at = start + blocks << self._cluster_bits
        whole(os.pwritev, self._fd, at, [memoryview(swapped(table).tobytes())])
        os.fdatasync(self._fd)
        whole(os.pwritev, self._fd, REFCOUNT_TABLE_AT, [memoryview(struct.pack(">QI", at, clusters))])
        os.fdatasync(self._fd)
        old, old_clusters = self._table_at >> self._cluster_bits, len(self._table) * 8 // self._cluster
        self._table, self._table_at = table, at
        self.release(old, old_clusters)
