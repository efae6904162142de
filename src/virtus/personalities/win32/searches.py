"""Enumerations whose names lie in the guest's memory, where machine code goes on with them.

At the beginning of a search's buffer: where its next name is, the descriptor of its directory, and from NAMES on the
names as the host has them, each with a zero behind, the last an empty one. The word of its handle (`handles`) has
SEARCH and, in pages, where the buffer is.
"""

import os
import struct
import threading
from typing import Final

from virtus.personalities.win32 import handles, state
from virtus.personalities.win32.directory_entries import Search
from virtus.personalities.win32.guest import Memory
from virtus.personalities.win32.process import Process

PLACE, DESCRIPTOR, NAMES = 0x0, 0x8, 0x10
BUFFER: Final = 0x1_0000
"""Bytes of a buffer; directories with longer names all together have no such search."""
MOST_KEPT: Final = 64
PAGE_BITS: Final = 12
READ, WRITE = 1, 2


class Buffers:
    """Those of a process that no search uses, kept for the next ones."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._lock = threading.Lock()

    def take(self, memory: Memory) -> int:
        """One of them, or a new one; raises OSError."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return memory.map(0, BUFFER, READ | WRITE)

    def give(self, memory: Memory, buffer: int) -> None:
        """One that is not used any more."""
        with self._lock:
            if len(self._free) < MOST_KEPT:
                self._free.append(buffer)
                return
        memory.unmap(buffer, BUFFER)


class QuickSearch(Search):
    """An enumeration that machine code may go on with."""

    def __init__(self, process: Process, search: Search, names: bytes) -> None:
        """Of one that is still at its beginning; `names` are its names as they will lie there. Raises OSError."""
        super().__init__(search.directory, "", names=[])
        self._process, self._memory = process, process.memory
        self._fd = os.open(search.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._buffer = state.of(process, Buffers).take(self._memory)
        except OSError:
            os.close(self._fd)
            raise
        self._memory.write(self._buffer, struct.pack("<QQ", NAMES, self._fd) + names)

    def next(self) -> tuple[str, os.stat_result] | None:
        """The next name, and what it is."""
        memory = self._memory
        while True:
            place = memory.u64(self._buffer + PLACE) % BUFFER
            encoded = memory.read(self._buffer + place, min(BUFFER - place, 256)).partition(b"\0")[0]
            if not encoded:
                return None
            memory.set_u64(self._buffer + PLACE, place + len(encoded) + 1)
            name = os.fsdecode(encoded)
            try:
                return name, os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            except OSError:
                continue  # gone meanwhile

    def word(self) -> int:
        """What machine code may know of it."""
        return self._buffer >> PAGE_BITS | handles.SEARCH

    def closed(self) -> None:
        """It is not gone on with."""
        os.close(self._fd)
        state.of(self._process, Buffers).give(self._memory, self._buffer)


def quick(process: Process, search: Search) -> Search:
    """The same enumeration, by machine code where that can be."""
    names = os.fsencode("\0".join([*search.names, "", ""]))
    if process.engine.cooperative or len(names) > BUFFER - NAMES:
        return search
    try:
        return QuickSearch(process, search, names)
    except OSError:
        return search
