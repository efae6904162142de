"""Reels of magnetic tape as files in the format of SIMH (.tap).

Source: "SIMH Magtape Representation and Handling" (R. Supnik). A record is its length (four bytes, little-endian), its
bytes, one more where that makes them even, and the length again. A length of 0 is a tape mark, 0xFFFFFFFE a gap, and
0xFFFFFFFF the end of what was written; bit 31 marks a record that was written with errors.
"""

import os
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Final

from virtus.errors import GuestNotRunnable

TAPE_MARK: Final = 0
END: Final = 0xFFFFFFFF
GAP: Final = 0xFFFFFFFE
ERROR: Final = 0x80000000
MOST: Final = 0xFFFFFF
"""Bytes of a record, as the format has it."""
_WORD: Final = 4


class Found(Enum):
    """What a reel had to read."""

    RECORD = "record"
    MARK = "tape mark"
    NOTHING = "nothing written here"
    BAD = "unreadable"
    BEGINNING = "beginning of tape"


class Reel:
    """One mounted reel; its position is between records. The file is made if there is none, when it may be written."""

    def __init__(self, path: str | os.PathLike[str], *, writable: bool = True) -> None:
        """Raises GuestNotRunnable where the file cannot be opened."""
        self.path = Path(path)
        self.writable = writable
        try:
            self._file: BinaryIO = self._open()
        except OSError as error:
            raise GuestNotRunnable(f"mounting tape {path}", error.strerror or str(error)) from error
        self._size = self._file.seek(0, os.SEEK_END)
        self._position = 0

    def _open(self) -> BinaryIO:
        if not self.writable:
            return self.path.open("rb")
        try:
            return self.path.open("r+b")
        except FileNotFoundError:
            return self.path.open("w+b")
        except PermissionError:
            self.writable = False
            return self.path.open("rb")

    def close(self) -> None:
        """Unmount it."""
        self._file.close()

    @property
    def position(self) -> int:
        """How many bytes of the file lie before the heads."""
        return self._position

    def rewind_to(self, position: int) -> None:
        """To a position that it has had."""
        self._position = position

    def rewind(self) -> None:
        """To the beginning."""
        self._position = 0

    def _word(self, position: int) -> int:
        """A length; END where the file ends or is cut off."""
        if position < 0 or position + _WORD > self._size:
            return END
        self._file.seek(position)
        return int.from_bytes(self._file.read(_WORD), "little")

    def read(self) -> tuple[Found, bytes]:
        """The next record. At the end of what was written the reel stays where it is."""
        while True:
            length = self._word(self._position)
            if length == GAP:
                self._position += _WORD
                continue
            break
        if length == END:
            return Found.NOTHING, b""
        if length == TAPE_MARK:
            self._position += _WORD
            return Found.MARK, b""
        size = length & ~ERROR
        following = self._position + _WORD + size + size % 2 + _WORD
        if size > MOST or following > self._size or self._word(following - _WORD) != length:
            return Found.BAD, b""  # nothing is known of what comes after it
        self._file.seek(self._position + _WORD)
        data = self._file.read(size)
        self._position = following
        return (Found.BAD if length & ERROR else Found.RECORD), data

    def back(self) -> Found:
        """Over the record before, or the tape mark."""
        while self._position >= _WORD and self._word(self._position - _WORD) == GAP:
            self._position -= _WORD
        if self._position < _WORD:
            self._position = 0
            return Found.BEGINNING
        length = self._word(self._position - _WORD)
        if length == TAPE_MARK:
            self._position -= _WORD
            return Found.MARK
        size = length & ~ERROR
        before = self._position - 2 * _WORD - size - size % 2
        if length == END or size > MOST or before < 0 or self._word(before) != length:
            return Found.BAD
        self._position = before
        return Found.RECORD

    def write(self, data: bytes) -> None:
        """A record here; what was behind it is lost. At most MOST bytes, at least one."""
        if not 0 < len(data) <= MOST:
            raise ValueError(f"a record of {len(data)} bytes")
        length = len(data).to_bytes(_WORD, "little")
        self._append(length + data + bytes(len(data) % 2) + length)

    def mark(self) -> None:
        """A tape mark here."""
        self._append(TAPE_MARK.to_bytes(_WORD, "little"))

    def _append(self, content: bytes) -> None:
        self._file.seek(self._position)
        self._file.write(content)
        self._file.truncate()
        self._file.flush()
        self._size = self._position = self._position + len(content)
