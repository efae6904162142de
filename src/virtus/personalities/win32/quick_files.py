"""Files that machine code opens without us, and what it must know for that.

In the guest's memory, at PEB_FILES: how many handles it has given (at NEXT), a table of CRC-32 (ISO 3309), for each of
its handles the access and the share modes it was opened with, for files by their number how many are open in a way that
a reader may have to heed, and of directories that were looked through which names they have: a bit for each name's
CRC-32, in upper case, while the directory's time of change stays. (A program that spoils these words spoils its own
files' names and handles; it has the host's calls anyway.)

The host's descriptor, and that nobody has made an object for the handle, its word says (`handles`).
"""

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from typing import Final

from virtus.personalities.win32 import handles
from virtus.personalities.win32.file_objects import File
from virtus.personalities.win32.guest import Memory
from virtus.personalities.win32.handles import QUICK_FIRST, QUICK_HANDLES
from virtus.personalities.win32.listings import Listing

NEXT, CRC_TABLE, ACCESS, SHARES, DIRECTORIES, NAMES = 0x0, 0x400, 0x1000, 0x3000, 0x4000, 0x2_4000
MOST_DIRECTORIES, BITS, MOST_SHARES = 4096, 2048, 4096
SIZE: Final = NAMES + MOST_DIRECTORIES * BITS // 8
MOST_NAMES: Final = 400
"""Of a directory with more names, too many bits are set to say of any that it is not there."""
DIRECTORY: Final = struct.Struct("<QQqQ")
"""Device, number, and time of change of a directory, in seconds and nanoseconds."""
DESCRIPTOR: Final = 0xFFFF_FFFF


def _crc_table() -> bytes:
    """What each byte does to a CRC-32: that of one byte, without what the start value and the last inversion add."""
    words = [0] * 256
    for byte in range(256):
        words[byte ^ 0xFF] = zlib.crc32(bytes([byte])) ^ 0xFF00_0000
    return struct.pack("<256I", *words)


TABLE: Final = _crc_table()


class QuickFiles:
    """Those of a process. Until `attach`, there are none."""

    def __init__(self) -> None:
        self._memory: Memory | None = None
        self._place = self._words = 0
        self._restricted: dict[int, int] = {}
        self._lock = threading.Lock()

    def attach(self, memory: Memory, place: int, words: int) -> None:
        """From now on machine code may open files: `place` is of the words above, `words` of the handles'."""
        memory.write(place + CRC_TABLE, TABLE)
        self._memory, self._place, self._words = memory, place, words

    def _opened(self) -> Iterator[tuple[int, int]]:
        """Handles that have no object, and their words."""
        if self._memory is None:
            return
        data = self._memory.read(self._words + 2 * QUICK_FIRST, 8 * QUICK_HANDLES)
        if data.count(0) == len(data):
            return
        for index, (word,) in enumerate(struct.iter_unpack("<Q", data)):
            if word & handles.QUICK:
                yield QUICK_FIRST + 4 * index, word

    def count(self) -> int:
        """How many handles have no object."""
        return sum(1 for _ in self._opened())

    def _modes(self, handle: int) -> tuple[int, int]:
        assert self._memory is not None
        place = self._place + ACCESS + 2 * (handle - QUICK_FIRST)
        return self._memory.u32(place), self._memory.u32(place + 4)

    def adopt(self, handle: int) -> tuple[File, int] | None:
        """The object of a handle that machine code has given, and the share modes; None for any other handle."""
        if self._memory is None:
            return None
        place = self._words + 2 * handle
        word = self._memory.u64(place)
        if not word & handles.QUICK:
            return None
        access, share = self._modes(handle)
        fd = word & DESCRIPTOR
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            path = ""
        if self._memory.compare_exchange(place, 8, word, word & ~handles.QUICK) != word:
            return None  # closed meanwhile
        return File(fd, path, access), share

    def elsewhere(self, status: os.stat_result) -> Iterator[tuple[int, int]]:
        """Access and share modes of handles without an object that are open for this file."""
        for handle, word in self._opened():
            try:
                found = os.fstat(word & DESCRIPTOR)
            except OSError:
                continue  # closed meanwhile
            if (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
                yield self._modes(handle)

    def restrict(self, number: int, change: int) -> None:
        """One more or less open file of this number that does not let everybody read, or that a reader must let write:
        machine code leaves the file to us."""
        if self._memory is None:
            return
        index = number % MOST_SHARES
        with self._lock:
            count = self._restricted[index] = self._restricted.get(index, 0) + change
            self._memory.write(self._place + SHARES + index, bytes([min(count, 255)]))

    def looked_through(self, listing: Listing) -> None:
        """Write down which names a directory has, in upper case. Its device, number and time of change, in nanoseconds,
        tell when it has changed."""
        if self._memory is None or len(listing.names) > MOST_NAMES:
            return
        device, number, changed = listing.stamp
        key = DIRECTORY.pack(device, number, *divmod(changed, 1_000_000_000))
        index, memory = number % MOST_DIRECTORIES, self._memory
        place = self._place + DIRECTORIES + DIRECTORY.size * index
        if memory.read(place, DIRECTORY.size) == key:
            return
        bits = bytearray(BITS // 8)
        for crc in map(zlib.crc32, os.fsencode("/".join(listing.uppers)).split(b"/")):
            bit = crc % BITS
            bits[bit // 8] |= 1 << bit % 8
        memory.write(place, bytes(DIRECTORY.size))  # others may look at it meanwhile, and look twice
        memory.write(self._place + NAMES + BITS // 8 * index, bits)
        memory.write(place + 8, key[8:])
        memory.set_u64(place, device)
