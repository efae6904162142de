"""Pages that machine code has committed: it notes them in a journal in the guest's memory, for the regions' account.

At its beginning is how many reservations machine code may commit pages of, and how many notes were begun; from 0x10 on
the reservations, each its first address and the one behind; from 0x800 on the notes, in the same form. A note is whole
once its first address is there. (A program that spoils these words spoils its own address space, as it could anyway.)
"""

import struct
import time
from typing import Final

from virtus.personalities.win32.guest import Memory

COUNT, BEGUN, RESERVATIONS, NOTES = 0x0, 0x8, 0x10, 0x800
MOST_RESERVATIONS, MOST_NOTES = 64, 2048
NOTE: Final = struct.Struct("<QQ")
SIZE: Final = NOTES + NOTE.size * MOST_NOTES
SMALLEST: Final = 1 << 20
"""Smaller reservations are not worth a place."""
NOWHERE: Final = 0xFFFF_FFFF_FFFF_FFFF


class CommitJournal:
    """The journal of a process. Callers hold the regions' lock."""

    def __init__(self, memory: Memory, place: int) -> None:
        self._memory, self._place = memory, place
        self._known: list[int] = []

    def add(self, base: int, end: int) -> None:
        """Pages of this reservation may be committed by machine code from now on, where there is room for it."""
        if end - base < SMALLEST or len(self._known) == MOST_RESERVATIONS:
            return
        self._put(len(self._known), base, end)
        self._known.append(base)
        self._memory.set_u64(self._place + COUNT, len(self._known))

    def remove(self, base: int) -> None:
        """It may not any more."""
        if base not in self._known:
            return
        index, last = self._known.index(base), len(self._known) - 1
        self._put(index, NOWHERE, 0)
        if index != last:
            place = self._place + RESERVATIONS + 16 * last
            self._put(index, self._memory.u64(place), self._memory.u64(place + 8))
            self._known[index] = self._known[last]
        self._known.pop()
        self._memory.set_u64(self._place + COUNT, last)

    def _put(self, index: int, base: int, end: int) -> None:
        """Change a reservation while others may look at it."""
        place = self._place + RESERVATIONS + 16 * index
        self._memory.set_u64(place, NOWHERE)
        self._memory.set_u64(place + 8, end)
        self._memory.set_u64(place, base)

    def take(self) -> list[tuple[int, int]]:
        """What has been committed since the last time, in order, what touches in one: first address and the one
        behind."""
        memory, taken = self._memory, 0
        notes: list[tuple[int, int]] = []
        while begun := memory.u64(self._place + BEGUN):
            place, count = self._place + NOTES + NOTE.size * taken, min(begun, MOST_NOTES) - taken
            while True:
                found = list(NOTE.iter_unpack(memory.read(place, NOTE.size * count)))
                if all(start for start, _ in found):
                    break
                time.sleep(0)  # a thread is just writing it
            memory.write(place, bytes(NOTE.size * count))
            notes += found
            taken += count
            if memory.compare_exchange(self._place + BEGUN, 8, begun, 0) == begun:
                break
        notes.sort()
        joined: list[tuple[int, int]] = []
        for start, end in notes:
            if joined and start <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            else:
                joined.append((start, end))
        return joined
