"""A machine in a file: what is known of it as JSON, and the contents of its memory, compressed with Zstandard.

The file appears whole or not at all, and is on the disk before the machine that it was made of ends.
"""

import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from virtus.errors import GuestNotFound, GuestNotRunnable, VirtusError
from virtus.memory.guest_memory import FRAME_SHIFT

if TYPE_CHECKING:
    from virtus.memory.guest_memory import GuestMemory

MAGIC: Final = b"a machine of virtus, saved\n"
LENGTH: Final = struct.Struct("<Q")
MOST_KNOWN: Final = 256 << 20
"""Bytes of JSON: mostly a few for each page of memory."""
PIECE: Final = 1 << 20
LEVEL: Final = 1  # of compression: memory is mostly zeros, and somebody is waiting


def write(path: Path, known: Mapping[str, Any], memory: "GuestMemory", pieces: Sequence[tuple[int, int]]) -> None:
    """Save what is `known` and these frames (first, count) of the memory; raises VirtusError."""
    from zstandard import ZstdCompressor

    doing, beside = f"saving to {path}", path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps({**known, "pieces": list(pieces)}).encode()
    try:
        with beside.open("wb") as file:
            file.write(MAGIC)
            with ZstdCompressor(level=LEVEL).stream_writer(file, closefd=False) as out:
                out.write(LENGTH.pack(len(text)) + text)
                for first, count in pieces:
                    for at in range(first << FRAME_SHIFT, first + count << FRAME_SHIFT, PIECE):
                        out.write(memory.bytes[at : min(at + PIECE, first + count << FRAME_SHIFT)])
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise VirtusError(doing, error.strerror or str(error), "give a place that can be written to") from error


class SavedMachine:
    """A file made by `write`, open: `known` first, then `fill`, once. Raises GuestNotFound, GuestNotRunnable."""

    def __init__(self, path: Path) -> None:
        from zstandard import ZstdDecompressor

        self._doing = f"restoring from {path}"
        try:
            self._file = path.open("rb")
        except FileNotFoundError as error:
            raise GuestNotFound(self._doing, "no such file") from error
        except OSError as error:
            raise GuestNotRunnable(self._doing, error.strerror or str(error)) from error
        if self._file.read(len(MAGIC)) != MAGIC:
            self._file.close()
            raise GuestNotRunnable(self._doing, "not a saved machine", "make one with `virtus domain save`")
        self._data = ZstdDecompressor().stream_reader(self._file)
        try:
            (size,) = LENGTH.unpack(self._exactly(LENGTH.size))
            if size > MOST_KNOWN:
                raise self._damaged(f"{size} bytes of description")
            known = json.loads(self._exactly(size))
        except (ValueError, RecursionError) as error:
            raise self._damaged(str(error)) from error
        if not isinstance(known, dict):
            raise self._damaged("no description")
        self.known: dict[str, Any] = known

    def _damaged(self, how: str) -> GuestNotRunnable:
        self.close()
        return GuestNotRunnable(self._doing, f"a damaged file: {how}")

    def _exactly(self, size: int) -> bytes:
        from zstandard import ZstdError

        parts, left = [], size
        try:
            while left and (part := self._data.read(min(left, PIECE))):
                parts.append(part)
                left -= len(part)
        except ZstdError as error:
            raise self._damaged(str(error)) from error
        if left:
            raise self._damaged("it ends too early")
        return b"".join(parts)

    def fill(self, memory: "GuestMemory", pieces: Sequence[tuple[int, int]]) -> None:
        """Memory as it was. `pieces` are those that belong to the machine; a file that names others is refused."""
        if [list(piece) for piece in pieces] != self.known.get("pieces"):
            raise self._damaged("memory of another machine")
        for first, count in pieces:
            for at in range(first << FRAME_SHIFT, first + count << FRAME_SHIFT, PIECE):
                end = min(at + PIECE, first + count << FRAME_SHIFT)
                memory.bytes[at:end] = self._exactly(end - at)

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        self._data.close()  # type: ignore[no-untyped-call] # zstandard says of its readers less than it knows
        self._file.close()
