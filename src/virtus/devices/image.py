"""Images of disks: what all formats promise, the raw one, and which format a file is read as.

A file's format is never guessed from what a guest could have written there: a guest that writes the head of another
format to its own raw disk, naming a file of the host's as what lies below, would read that file at the next start.
"""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

SECTOR: Final = 512
MOST_PIECES: Final = 1024  # IOV_MAX
RAW, QCOW2 = "raw", "qcow2"
FORMATS: Final = (RAW, QCOW2)
QCOW_MAGIC: Final = b"QFI\xfb"


class Image(Protocol):
    """Whole sectors of a disk. OSError is the host's, or says what is wrong with the image."""

    size: int  # in bytes, a multiple of SECTOR

    def read(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """Fill the pieces, one after the other."""
        ...

    def write(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """Store the pieces, one after the other."""
        ...

    def flush(self) -> None:
        """What was written before survives a loss of power."""
        ...

    def close(self) -> None:
        """Let go of it. May be called twice."""
        ...


class RawImage:
    """The disk's bytes as they are, in a file or on a block device. See Image."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._read_only = read_only
        self._file = open_file(path, read_only=read_only)
        self.size = os.lseek(self._file, 0, os.SEEK_END) // SECTOR * SECTOR

    def read(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """See Image."""
        whole(os.preadv, self._file, offset, pieces)

    def write(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """See Image."""
        whole(os.pwritev, self._file, offset, pieces)

    def flush(self) -> None:
        """See Image."""
        if not self._read_only:
            os.fdatasync(self._file)

    def close(self) -> None:
        """See Image."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def open_image(path: Path, *, read_only: bool, form: str = "", depth: int = 0) -> Image:
    """An image of the format `form`; where none is given, by the file's name: ``.qcow2`` is that, all else is raw.

    `depth` counts the images above of which this is the backing file. Raises OSError, also for a raw image that begins
    as a qcow2 does and of which nobody has said that it is raw.
    """
    chosen = form or (QCOW2 if path.suffix == f".{QCOW2}" else RAW)
    if chosen == QCOW2:
        from virtus.devices.qcow2.image import Qcow2Image

        return Qcow2Image(path, read_only=read_only, depth=depth)
    if chosen != RAW:
        raise OSError(0, f"an image of the format {chosen!r}; {' and '.join(FORMATS)} are known")
    image = RawImage(path, read_only=read_only)
    start = bytearray(min(SECTOR, image.size))
    if not form and start:
        image.read(0, [memoryview(start)])
        if start.startswith(QCOW_MAGIC):
            image.close()
            raise OSError(0, f"it begins as a qcow2 does, and is not called so: write {path},qcow2 or {path},raw")
    return image


def open_file(path: Path, *, read_only: bool) -> int:
    """A descriptor of a file or a block device; raises OSError."""
    fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        os.close(fd)
        raise OSError(0, "neither a file nor a block device")
    return fd


class Cursor:
    """Goes through pieces of memory, however they are cut."""

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        self._left = [piece for piece in pieces if piece]
        self._left.reverse()

    def take(self, size: int) -> list[memoryview]:
        """The next `size` bytes, of which there must be so many."""
        taken: list[memoryview] = []
        while size:
            piece = self._left.pop()
            if len(piece) > size:
                self._left.append(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
        return taken


def fill_with_zeros(pieces: Sequence[memoryview]) -> None:
    """Every byte of the pieces is 0."""
    for piece in pieces:
        piece[:] = bytes(len(piece))


def whole(does: Callable[[int, Any, int], int], fd: int, offset: int, pieces: Sequence[memoryview]) -> None:
    """preadv(2) or pwritev(2) until everything is done; OSError where the file ends before."""
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
