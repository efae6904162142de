"""A disk image in a file: raw, read-only if so wished, or with changes kept aside and thrown away (a snapshot)."""

import os
import stat
from collections.abc import Iterator, Sequence
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
        if self._aside is None or not self._aside.clusters:
            _whole(os.preadv, self._file, offset, pieces)
            return
        for fd, start, run in self._runs(self._aside, offset, pieces):
            _whole(os.preadv, fd, start, run)

    def write(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """Store the pieces, one after the other."""
        if self._aside is None:
            _whole(os.pwritev, self._file, offset, pieces)
            return
        size = sum(map(len, pieces))
        for cluster in range(offset // CLUSTER, -(-(offset + size) // CLUSTER)):
            self._set_aside(self._aside, cluster)
        _whole(os.pwritev, self._aside.fd, offset, pieces)

    def flush(self) -> None:
        """What was written before survives a loss of power."""
        if self._aside is None and not self.read_only:
            os.fdatasync(self._file)

    def _runs(
        self, aside: "_Aside", offset: int, pieces: Sequence[memoryview]
    ) -> Iterator[tuple[int, int, list[memoryview]]]:
        """The pieces cut at the borders between what was changed and what was not: file, offset, and pieces in it."""
        run, run_fd, run_at = list[memoryview](), -1, offset
        for piece in pieces:
            while piece:
                fd = aside.fd if offset // CLUSTER in aside.clusters else self._file
                if fd != run_fd:
                    if run:
                        yield run_fd, run_at, run
                    run, run_fd, run_at = [], fd, offset
                count = min(len(piece), CLUSTER - offset % CLUSTER)
                run.append(piece[:count])
                offset, piece = offset + count, piece[count:]
        if run:
            yield run_fd, run_at, run

    def _set_aside(self, aside: "_Aside", cluster: int) -> None:
        """Copy a cluster that is to be changed, unless it has been."""
        if cluster in aside.clusters:
            return
        start = cluster * CLUSTER
        before = memoryview(bytearray(min(CLUSTER, self.size - start)))
        _whole(os.preadv, self._file, start, [before])
        _whole(os.pwritev, aside.fd, start, [before])
        aside.clusters.add(cluster)

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
