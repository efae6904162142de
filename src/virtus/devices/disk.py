"""A disk: an image, read-only if so wished, or with changes kept aside and thrown away (a snapshot)."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from virtus.devices.image import SECTOR, Cursor, open_image, whole

__all__ = ["CLUSTER", "SECTOR", "Disk"]

CLUSTER: Final = 64 << 10
"""What a snapshot copies at a time."""


class Disk:
    """Reads and writes whole sectors. OSError is the host's (no space, a truncated file), or the image is damaged.

    `form` is the image's format (`virtus.devices.image.open_image`).
    """

    def __init__(self, path: Path, *, read_only: bool = False, snapshot: bool = False, form: str = "") -> None:
        self.path, self.read_only = path, read_only
        self._image = open_image(path, read_only=read_only or snapshot, form=form)
        self.size = self._image.size
        self._aside = _Aside() if snapshot and not read_only else None

    def read(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """Fill the pieces, one after the other, from the disk."""
        if self._aside is None or not self._aside.clusters:
            self._image.read(offset, pieces)
            return
        cursor = Cursor(pieces)
        for changed, start, size in self._runs(self._aside, offset, sum(map(len, pieces))):
            if changed:
                whole(os.preadv, self._aside.fd, start, cursor.take(size))
            else:
                self._image.read(start, cursor.take(size))

    def write(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """Store the pieces, one after the other."""
        if self._aside is None:
            self._image.write(offset, pieces)
            return
        size = sum(map(len, pieces))
        for cluster in range(offset // CLUSTER, -(-(offset + size) // CLUSTER)):
            self._set_aside(self._aside, cluster)
        whole(os.pwritev, self._aside.fd, offset, pieces)

    def flush(self) -> None:
        """What was written before survives a loss of power."""
        if self._aside is None and not self.read_only:
            self._image.flush()

    def _runs(self, aside: "_Aside", offset: int, size: int) -> Iterator[tuple[bool, int, int]]:
        """What was changed and what was not, in turn: which, where, and how many bytes."""
        end = offset + size
        while offset < end:
            start, changed = offset, offset // CLUSTER in aside.clusters
            while offset < end and (offset // CLUSTER in aside.clusters) == changed:
                offset = min((offset // CLUSTER + 1) * CLUSTER, end)
            yield changed, start, offset - start

    def _set_aside(self, aside: "_Aside", cluster: int) -> None:
        """Copy a cluster that is to be changed, unless it has been."""
        if cluster in aside.clusters:
            return
        start = cluster * CLUSTER
        before = memoryview(bytearray(min(CLUSTER, self.size - start)))
        self._image.read(start, [before])
        whole(os.pwritev, aside.fd, start, [before])
        aside.clusters.add(cluster)

    def close(self) -> None:
        """Close the files. May be called twice; raises OSError where what was written could not be stored."""
        if self._aside is not None:
            self._aside.close()
        self._image.close()


class _Aside:
    """A nameless file with the changed clusters, each at its own place; it is gone with its descriptor."""

    def __init__(self) -> None:
        directory = os.environ.get("TMPDIR", "/var/tmp")
        try:
            self.fd = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError:
            self.fd = os.memfd_create("virtus-snapshot", os.MFD_CLOEXEC)  # no such file system there: in memory
        self.clusters: set[int] = set()

    def close(self) -> None:
        """Let go of it. May be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
