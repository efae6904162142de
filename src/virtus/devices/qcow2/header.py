"""The head of a qcow2 image: geometry, features, and what lies below it (docs/interop/qcow2.txt, "Header")."""

import os
import struct
from typing import Final

from virtus.devices.image import QCOW_MAGIC, SECTOR
from virtus.records import dataclass

HEAD: Final = struct.Struct(">4sIQIIQIIQQIIQ")  # magic to snapshots_offset: all of version 2
MORE: Final = struct.Struct(">QQQII")  # of version 3: features (incompatible, compatible, autoclear), order, length
COMPRESSION_AT: Final = 104
LEAST_CLUSTER_BITS, MOST_CLUSTER_BITS = 9, 21
MOST_L1_BYTES: Final = 32 << 20
MOST_REFCOUNT_TABLE_BYTES: Final = 8 << 20  # as QEMU has it (QCOW_MAX_REFTABLE_SIZE)
MOST_NAME: Final = 1023
REFCOUNT_TABLE_AT: Final = 48  # offset (64 bits) and clusters (32 bits)
AUTOCLEAR_AT: Final = 88
DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = 1, 2, 4, 8, 16  # incompatible features
DEFLATE, ZSTANDARD = 0, 1
EXTENSION: Final = struct.Struct(">II")
END_OF_EXTENSIONS, BACKING_FORMAT = 0, 0xE2792ACA
MOST_FORMAT: Final = 16


class Damaged(OSError):
    """The image contradicts its format."""

    def __init__(self, how: str) -> None:
        super().__init__(0, f"a damaged qcow2 image: {how}")


@dataclass(frozen=True, slots=True)
class Header:
    """What the head says, checked against the format and the file's size; offsets and sizes in bytes."""

    version: int
    size: int
    cluster_bits: int
    l1_entries: int
    l1_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    refcount_bits: int
    snapshots: int
    compression: int
    autoclear: int
    unsafe: str  # why it must not be written to, "" where it may
    backing_file: str
    backing_format: str

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits


def read(fd: int) -> Header:
    """The head of an open file; raises Damaged, and OSError for what is not supported."""
    end = os.fstat(fd).st_size or os.lseek(fd, 0, os.SEEK_END)
    start = os.pread(fd, 1 << LEAST_CLUSTER_BITS, 0)
    if len(start) < HEAD.size or not start.startswith(QCOW_MAGIC):
        raise OSError(0, "not a qcow2 image")
    (_, version, name_at, name_size, bits, size, encrypted, l1_entries, l1_at, counts_at, counts_clusters, snapshots,
     _) = HEAD.unpack_from(start)  # fmt: skip
    if version not in (2, 3):
        raise OSError(0, f"a qcow2 image of version {version}; 2 and 3 are known")
    if not LEAST_CLUSTER_BITS <= bits <= MOST_CLUSTER_BITS:
        raise Damaged(f"clusters of 2^{bits} bytes")
    if encrypted:
        raise OSError(0, "an encrypted qcow2 image, which is not supported")
    incompatible = autoclear = 0
    order, length, compression = 4, HEAD.size, DEFLATE
    if version == 3:
        incompatible, _, autoclear, order, length = MORE.unpack_from(start, HEAD.size)
        if not HEAD.size + MORE.size <= length <= 1 << bits or length % 8:
            raise Damaged(f"a head of {length} bytes")
        if length > COMPRESSION_AT:
            compression = start[COMPRESSION_AT]
    unsafe = _features(incompatible, compression)
    if order > 6:
        raise Damaged(f"reference counts of 2^{order} bits")
    if size % SECTOR:
        raise OSError(0, f"a qcow2 image of {size} bytes, no whole sectors")
    _check_tables(bits, size, l1_entries, l1_at, counts_at, counts_clusters, end)
    name = _backing_name(fd, name_at, name_size, 1 << bits)
    form = _backing_format(fd, length, name_at or 1 << bits)
    return Header(
        version, size, bits, l1_entries, l1_at, counts_at, counts_clusters, 1 << order, snapshots, compression,
        autoclear, unsafe, name, form,
    )  # fmt: skip


def _features(incompatible: int, compression: int) -> str:
    """Why an image with these features must not be written to; raises OSError where it cannot even be read."""
    known = DIRTY | CORRUPT | COMPRESSION_TYPE
    for bit, what in ((EXTERNAL_DATA, "its data in another file"), (EXTENDED_L2, "subclusters")):
        if incompatible & bit:
            raise OSError(0, f"a qcow2 image with {what}, which is not supported")
    if incompatible & ~known:
        raise OSError(0, f"a qcow2 image with the unknown features {incompatible & ~known:#x}")
    if compression not in (DEFLATE, ZSTANDARD) or bool(compression) != bool(incompatible & COMPRESSION_TYPE):
        raise Damaged(f"compression {compression}")
    if incompatible & (DIRTY | CORRUPT):
        return "it was not closed in order or is damaged: repair it with `qemu-img check -r all`, or use it with ,ro"
    return ""


def _check_tables(
    bits: int, size: int, l1_entries: int, l1_at: int, counts_at: int, counts_clusters: int, end: int
) -> None:
    """Raises Damaged unless the tables are where a whole file can have them, and L1 is long enough for the disk."""
    cluster = 1 << bits
    needed = -(-size // (cluster * (cluster >> 3)))
    if l1_entries < needed or 8 * l1_entries > MOST_L1_BYTES:
        raise Damaged(f"an L1 table of {l1_entries} entries for {size} bytes")
    table_bytes = counts_clusters << bits
    if not 0 < table_bytes <= MOST_REFCOUNT_TABLE_BYTES:
        raise Damaged(f"a table of reference counts of {counts_clusters} clusters")
    for what, at, length in (("L1", l1_at, 8 * l1_entries), ("refcount", counts_at, table_bytes)):
        if at % cluster or (length and not at):
            raise Damaged(f"its {what} table at {at:#x}")
        if at + length > end:
            raise Damaged(f"its {what} table ends at {at + length}, and the file at {end}: it was truncated")


def _backing_name(fd: int, at: int, size: int, cluster: int) -> str:
    if not at:
        return ""
    if not 0 < size <= MOST_NAME or at + size > cluster:
        raise Damaged(f"a backing file's name of {size} bytes at {at:#x}")
    try:
        name = os.pread(fd, size, at).decode()
    except UnicodeDecodeError as error:
        raise Damaged("a backing file's name that is no text") from error
    if "\0" in name or len(name.encode()) != size:
        raise Damaged("a backing file's name that is none")
    scheme = name.partition(":")[0]
    if ":" in name and "/" not in scheme and scheme != "file":
        raise OSError(0, f"a qcow2 image on top of {name!r}, which is no file")
    return name.removeprefix("file:")


def _backing_format(fd: int, at: int, end: int) -> str:
    """What the header extensions say of the backing file, "" for nothing; raises Damaged."""
    while at + EXTENSION.size <= end:
        head = os.pread(fd, EXTENSION.size, at)
        if len(head) < EXTENSION.size:
            return ""
        kind, size = EXTENSION.unpack(head)
        if kind == END_OF_EXTENSIONS:
            return ""
        at += EXTENSION.size
        if size > end - at:
            raise Damaged(f"a header extension of {size} bytes")
        if kind == BACKING_FORMAT:
            if size > MOST_FORMAT:
                raise Damaged(f"a format's name of {size} bytes")
            return os.pread(fd, size, at).decode(errors="replace")
        at += size + 7 & ~7
    return ""
