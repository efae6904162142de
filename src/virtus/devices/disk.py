"""A disk image in a file: raw, read-only if so wished, or with changes kept aside and thrown away (a snapshot)."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SECTOR: Final = 512
CLUSTER: Final = 64 << 10
"""What a snapshot copies at a time."""
MOST_PIECES: Final = 1024  # IOV_MAX


class Disk:
    """Reads and writes whole sectors of a raw image. OSError is the host's: no space, a truncated file."""

    def __init__(self, path: Path, *, read_only: bool = False, snapshot: bool = False) -> None:
        self.path, self.read_only = path, read_only
        self._file = os.open(path, (os.O_RDONLY if read_only or snapshot else os.O_RDWR) | os.O_CLOEXEC)
        try:
            status = os.fstat(self._file)
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISBLK(status.st_mode):
                raise OSError(0, "neither a file nor a block device")
            self.size = os.lseek(self._file, 0, os.SEEK_END) // SECTOR * SECTOR
            self._aside = _Aside() if snapshot and not read_only else None
        except OSError:
            os.close(self._file)
            raise

    def read(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """Fill the pieces, one after the other, from the disk."""
        if self._aside is None:
            _whole(os.preadv, self._file, offset, pieces)
        else:
            for at, piece in _placed(offset, pieces):
                self._read_layered(at, piece)

    def write(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """Store the pieces, one after the other."""
        if self._aside is None:
            _whole(os.pwritev, self._file, offset, pieces)
        else:
            for at, piece in _placed(offset, pieces):
                self._write_layered(at, piece)

    def flush(self) -> None:
        """What was written before survives a loss of power."""
        if self._aside is None and not self.read_only:
            os.fdatasync(self._file)

    def _read_layered(self, offset: int, piece: memoryview) -> None:
        assert self._aside is not None
        while piece:
            count = min(len(piece), CLUSTER - offset % CLUSTER)
            kept = offset // CLUSTER in self._aside.clusters
            _whole(os.preadv, self._aside.fd if kept else self._file, offset, [piece[:count]])
            offset, piece = offset + count, piece[count:]

    def _write_layered(self, offset: int, piece: memoryview) -> None:
        assert self._aside is not None
        while piece:
            count, cluster = min(len(piece), CLUSTER - offset % CLUSTER), offset // CLUSTER
            if cluster not in self._aside.clusters:
                start = cluster * CLUSTER
                if count < CLUSTER:
                    before = bytearray(min(CLUSTER, self.size - start))
                    _whole(os.preadv, self._file, start, [memoryview(before)])
                    _whole(os.pwritev, self._aside.fd, start, [memoryview(before)])
                self._aside.clusters.add(cluster)
            _whole(os.pwritev, self._aside.fd, offset, [piece[:count]])
            offset, piece = offset + count, piece[count:]

    def close(self) -> None:
        """Close the files. May be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if self._aside is not None:
                os.close(self._aside.fd)


class _Aside:
    """A nameless file with the changed clusters, each at its own place; it is gone with its descriptor."""

    def __init__(self) -> None:
        directory = os.environ.get("TMPDIR", "/var/tmp")
        try:
            self.fd = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError:
            self.fd = os.memfd_create("virtus-snapshot", os.MFD_CLOEXEC)  # no such file system there: in memory
        self.clusters: set[int] = set()


def _placed(offset: int, pieces: Sequence[memoryview]) -> list[tuple[int, memoryview]]:
    placed = []
    for piece in pieces:
        placed.append((offset, piece))
        offset += len(piece)
    return placed


def _whole(does: object, fd: int, offset: int, pieces: Sequence[memoryview]) -> None:
    """preadv(2) or pwritev(2) until everything is done; OSError where the file ends before."""
    assert callable(does)
    left = [piece for piece in pieces if piece]
    while left:
        done = does(fd, left[:MOST_PIECES], offset)
        if not done:
            raise OSError(0, "the disk image ends too early")
        offset += done
        while left and done >= len(left[0]):
            done -= len(left.pop(0))
        if done:
            left[0] = left[0][done:]
