"""A qcow2 image as a disk: reading through its tables and backing files, writing by allocation and copying.

The order of writes, which makes a kill or a loss of power at any moment leave a valid image:

1. reference counts of new clusters, their data, new tables that nothing refers to yet; then the disk is waited for
2. entries of L2 and L1, which refer to them; then it is waited for again
3. reference counts of what was replaced

The second is done when the guest flushes, or when much has changed; what was written since is lost with the process, as
a disk with a cache loses it.
"""

import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from virtus.devices.image import Cursor, Image, fill_with_zeros, open_file, open_image, whole
from virtus.devices.qcow2 import header
from virtus.devices.qcow2.header import AUTOCLEAR_AT, ZSTANDARD, Damaged
from virtus.devices.qcow2.locks import lock
from virtus.devices.qcow2.refcounts import Refcounts
from virtus.devices.qcow2.tables import COMPRESSED, COPIED, OFFSET, ZERO, Tables

MOST_DEPTH: Final = 16
"""Images on top of each other."""
KEPT_BYTES: Final = 2 << 20
"""Of what was decompressed last."""
RAW_DEFLATE: Final = -15
DATA, ZEROS, BELOW, PACKED = range(4)


class Qcow2Image:
    """See Image. Raises OSError for what is no such image, is damaged, or is in use."""

    def __init__(self, path: Path, *, read_only: bool, depth: int = 0) -> None:
        if depth >= MOST_DEPTH:
            raise OSError(0, f"more than {MOST_DEPTH} images on top of each other")
        self._file = open_file(path, read_only=read_only)
        self._below: Image | None = None
        self._refcounts: Refcounts | None = None
        try:
            lock(self._file, writing=not read_only)
            self._header = header.read(self._file)
            cluster = self._header.cluster
            self._end = -(-os.lseek(self._file, 0, os.SEEK_END) // cluster) * cluster
            self._tables = Tables(self._file, self._header, self._end)
            if not read_only:
                if self._header.unsafe:
                    raise OSError(0, self._header.unsafe)
                self._refcounts = Refcounts(self._file, self._header, self._end, self._metadata())
            if self._header.backing_file:
                self._below = _open_below(path, self._header, depth + 1)
        except BaseException:
            os.close(self._file)
            raise
        self.size = self._header.size
        self._freed: list[tuple[int, int]] = []
        self._unpacked: OrderedDict[int, bytes] = OrderedDict()
        self._touched = False

    def _metadata(self) -> set[int]:
        bits, known = self._header.cluster_bits, self._tables.metadata()
        first = self._header.refcount_table_offset >> bits
        return known | set(range(first, first + self._header.refcount_table_clusters))

    # reading

    def read(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """See Image."""
        cursor = Cursor(pieces)
        for kind, place, start, size in self._runs(offset, sum(map(len, pieces))):
            wanted = cursor.take(size)
            if kind == DATA:
                self._read_data(place, size, wanted)
            elif kind == PACKED:
                at = start % self._header.cluster
                data, done = memoryview(self._unpack(place))[at : at + size], 0
                for piece in wanted:
                    piece[:] = data[done : done + len(piece)]
                    done += len(piece)
            elif kind == ZEROS or self._below is None:
                fill_with_zeros(wanted)
            else:
                _read_below(self._below, start, size, wanted)

    def _runs(self, offset: int, size: int) -> Iterator[tuple[int, int, int, int]]:
        """What a range of the disk consists of: the kind, the place in the file or the entry, where, how much."""
        if offset < 0 or offset + size > self.size:
            raise OSError(0, "beyond the end of the disk")
        cluster, bits, end = self._header.cluster, self._header.cluster_bits, offset + size
        kind = place = start = -1
        while offset < end:
            entry, within = self._tables.entry(offset >> bits), offset & cluster - 1
            if entry & COMPRESSED:
                here, at = PACKED, entry
            elif entry & ZERO:
                here, at = ZEROS, 0
            elif entry & OFFSET:
                here, at = DATA, (entry & OFFSET) + within
            else:
                here, at = BELOW, 0
            joins = here == kind and here != PACKED and (here != DATA or at == place + offset - start)
            if not joins:
                if start >= 0:
                    yield kind, place, start, offset - start
                kind, place, start = here, at, offset
            offset = min(offset - within + cluster, end)
        if start >= 0:
            yield kind, place, start, offset - start

    def _read_data(self, place: int, size: int, pieces: list[memoryview]) -> None:
        if place + size > self._end:
            raise Damaged(f"data at {place:#x}, and the file ends at {self._end:#x}: it was truncated")
        there = os.lseek(self._file, 0, os.SEEK_END) - place
        if there >= size:
            whole(os.preadv, self._file, place, pieces)
            return
        cursor = Cursor(pieces)  # the last cluster need not be written to its end
        whole(os.preadv, self._file, place, cursor.take(max(there, 0)))
        fill_with_zeros(cursor.take(size - max(there, 0)))

    def _unpack(self, entry: int) -> bytes:
        """The bytes of a compressed cluster."""
        found = self._unpacked.get(entry)
        if found is not None:
            self._unpacked.move_to_end(entry)
            return found
        place, most = self._tables.compressed(entry)
        data = os.pread(self._file, most, place)
        found = _inflate(data, self._header.cluster, self._header.compression)
        if len(found) != self._header.cluster:
            raise Damaged(f"a compressed cluster of {len(found)} bytes at {place:#x}")
        self._unpacked[entry] = found
        while len(self._unpacked) > max(KEPT_BYTES >> self._header.cluster_bits, 1):
            self._unpacked.popitem(last=False)
        return found

    # writing

    def write(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """See Image."""
        refcounts, size = self._refcounts, sum(map(len, pieces))
        if refcounts is None:
            raise OSError(0, "the image is read-only")
        if offset < 0 or offset + size > self.size:
            raise OSError(0, "beyond the end of the disk")
        self._touch()
        cursor, cluster, end = Cursor(pieces), self._header.cluster, offset + size
        while offset < end:
            start, place = offset, self._place(offset)
            while offset < end and self._place(offset) == (None if place is None else place + offset - start):
                offset = min(offset - offset % cluster + cluster, end)
            if place is not None:
                whole(os.pwritev, self._file, place, cursor.take(offset - start))
            else:
                self._write_new(refcounts, start, offset - start, cursor)
        if self._tables.full:
            self._commit()

    def _place(self, offset: int) -> int | None:
        """Where in the file this byte of the disk can be written in place, None where it cannot."""
        entry = self._tables.entry(offset >> self._header.cluster_bits)
        if entry & COPIED and entry & OFFSET and not entry & (COMPRESSED | ZERO):
            return (entry & OFFSET) + offset % self._header.cluster
        return None

    def _write_new(self, refcounts: Refcounts, offset: int, size: int, cursor: Cursor) -> None:
        """Write a range that needs new clusters, with what is around it in its first and last."""
        cluster, bits, end = self._header.cluster, self._header.cluster_bits, offset + size
        while offset < end:
            first = offset >> bits
            number, index = self._tables.index(first)
            table, freed = self._tables.own(number, refcounts)
            if freed is not None:
                self._freed.append(freed)
            wanted = min(-(-end // cluster) - first, len(table.entries) - index)
            at, count = refcounts.allocate(wanted)
            begin, stop = first << bits, first + count << bits
            until = min(end, stop)
            try:
                data = [*self._copy(begin, offset), *cursor.take(until - offset), *self._copy(until, stop)]
                whole(os.pwritev, self._file, at << bits, data)
            except OSError:
                refcounts.release(at, count)
                raise
            self._end = max(self._end, at + count << bits)
            for step in range(count):
                self._replaced(table.entries[index + step])
                table.set(index + step, at + step << bits | COPIED)
            offset = until

    def _copy(self, start: int, stop: int) -> list[memoryview]:
        """What the disk has there now; zeros beyond its end."""
        if start == stop:
            return []
        made = memoryview(bytearray(stop - start))
        here = min(stop, self.size) - start
        if here > 0:
            self.read(start, [made[:here]])
        return [made]

    def _replaced(self, entry: int) -> None:
        """What an entry referred to is free of it once the new one is stored."""
        bits = self._header.cluster_bits
        if entry & COMPRESSED:
            place, most = self._tables.compressed(entry)
            first = place >> bits
            self._freed.append((first, (place + most - 1 >> bits) - first + 1))
        elif entry & OFFSET:
            self._freed.append(((entry & OFFSET) >> bits, 1))

    def _touch(self) -> None:
        """Before the first write: what others keep beside the data, and we do not, is not up to date any more."""
        if not self._touched and self._header.autoclear:
            whole(os.pwritev, self._file, AUTOCLEAR_AT, [memoryview(bytes(8))])
            os.fdatasync(self._file)
        self._touched = True

    def _commit(self) -> None:
        """Store the tables, and let go of what was replaced."""
        if not self._tables.changed and not self._freed:
            return
        assert self._refcounts is not None
        os.fdatasync(self._file)
        self._tables.store()
        if self._freed:
            os.fdatasync(self._file)
            while self._freed:
                self._refcounts.release(*self._freed.pop())
            self._unpacked.clear()  # the places of compressed data are given to others

    def flush(self) -> None:
        """See Image."""
        if self._refcounts is not None:
            self._commit()
            os.fdatasync(self._file)

    def close(self) -> None:
        """See Image. Raises OSError where the tables cannot be stored."""
        if self._file < 0:
            return
        try:
            if self._refcounts is not None:
                self._commit()
        finally:
            os.close(self._file)
            self._file = -1
            if self._below is not None:
                self._below.close()


def _open_below(path: Path, head: header.Header, depth: int) -> Image:
    name = Path(head.backing_file)
    below = name if name.is_absolute() else path.parent / name
    try:
        return open_image(below, read_only=True, form=head.backing_format, depth=depth)
    except OSError as error:
        raise OSError(0, f"its backing file {below}: {error.strerror or error}") from error


def _read_below(below: Image, start: int, size: int, pieces: list[memoryview]) -> None:
    """A backing file may be shorter than what lies on it: zeros behind its end."""
    cursor, here = Cursor(pieces), min(max(below.size - start, 0), size)
    if here:
        below.read(start, cursor.take(here))
    fill_with_zeros(cursor.take(size - here))


def _inflate(data: bytes, size: int, compression: int) -> bytes:
    """At most `size` bytes; raises Damaged."""
    if compression == ZSTANDARD:
        from zstandard import ZstdDecompressor, ZstdError

        try:
            with ZstdDecompressor().stream_reader(data) as reader:
                return reader.read(size)
        except ZstdError as error:
            raise Damaged(f"a compressed cluster: {error}") from error
    try:
        return zlib.decompressobj(RAW_DEFLATE).decompress(data, size)
    except zlib.error as error:
        raise Damaged(f"a compressed cluster: {error}") from error
