"""A split virtqueue (virtio 1.2, 2.7): descriptors of the driver's, rings of what is available and what was used.

The driver is the guest's: every index and address is checked, and what it changes while we look is read once.
"""

import struct
import threading
from collections.abc import Iterator
from typing import Final

from virtus.devices.virtio.exclusion import DeviceMemory, Excluded
from virtus.records import dataclass

DESCRIPTOR: Final = struct.Struct("<QIHH")  # address, length, flags, next
NEXT, WRITE, INDIRECT = 1, 2, 4  # VIRTQ_DESC_F_*
NO_INTERRUPT: Final = 1  # VIRTQ_AVAIL_F_NO_INTERRUPT
USED: Final = struct.Struct("<II")  # id, length
MOST: Final = 256
"""Descriptors of a queue."""
MOST_BYTES: Final = 16 << 20
"""Of one request; more is no sane driver's."""


class BadRing(Exception):
    """The driver's rings make no sense; the device needs to be reset."""


@dataclass(slots=True)
class Chain:
    """One request: what the device reads, and where it writes to."""

    head: int
    readable: list[memoryview]
    writable: list[memoryview]

    def read(self) -> bytes:
        """All that is to be read."""
        return b"".join(self.readable)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Fill what is to be written, as far as it goes; how many bytes."""
        view, done = memoryview(data), 0
        for piece in self.writable:
            count = min(len(piece), len(view) - done)
            piece[:count] = view[done : done + count]
            done += count
            if done == len(view):
                break
        return done


class Queue:
    """One queue of a device. `size` and the three addresses are the driver's to set until it is `ready`.

    With `event_index` each side says how far the other may go on before it wants to be told (2.7.7, 2.7.10).
    """

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory, self._barrier = memory, threading.Lock()
        self.reset()

    def reset(self) -> None:
        """As after power-on."""
        self._memory.release_rings(self)
        self.size = MOST
        self.ready = self.event_index = False
        self.descriptors = self.available = self.used = 0
        self._next = self._done = self._told = 0

    def start(self) -> None:
        """The driver says that it is ready; raises BadRing for rings that cannot be."""
        if not 0 < self.size <= MOST or self.size & (self.size - 1):
            raise BadRing(f"a queue of {self.size}")
        self._memory.release_rings(self)
        try:
            self._table = self._memory.ring(self.descriptors, DESCRIPTOR.size * self.size, self)
            self._available = self._memory.ring(self.available, 6 + 2 * self.size, self)
            self._used = self._memory.ring(self.used, 6 + USED.size * self.size, self)
        except Excluded as error:
            self._memory.release_rings(self)
            raise BadRing(str(error)) from error
        # indices are read and written as a whole, while the driver runs: `struct` goes byte by byte
        self._produced, self._served = self._available.cast("H"), self._used.cast("H")
        self._told = self._done
        self.ready = True

    def save(self) -> list[int]:
        """All there is to know of it."""
        return [self.size, int(self.ready), self.descriptors, self.available, self.used, self._next, self._done]

    def load(self, saved: list[int]) -> None:
        """What `save` gave; raises BadRing."""
        self.size, ready, self.descriptors, self.available, self.used, self._next, self._done = saved
        if ready:
            self.start()

    def __iter__(self) -> Iterator[Chain]:
        """The requests that wait, each once. Raises BadRing."""
        while (chain := self.take()) is not None:
            yield chain

    def take(self) -> Chain | None:
        """The next request, None when there is none; raises BadRing."""
        if not self.ready:
            return None
        produced = self._produced[1]
        if produced == self._next and self.event_index:
            self._served[2 + 4 * self.size] = self._next  # avail_event: tell us of the next one
            self._settle()
            produced = self._produced[1]
        if produced == self._next:
            return None
        if produced - self._next & 0xFFFF > self.size:
            raise BadRing("more is available than there is room for")
        (head,) = struct.unpack_from("<H", self._available, 4 + 2 * (self._next % self.size))
        chain = self._chain(head)
        self._next = self._next + 1 & 0xFFFF
        return chain

    def put_back(self) -> None:
        """The request that was taken last is not served now."""
        self._next = self._next - 1 & 0xFFFF

    def _chain(self, head: int) -> Chain:
        chain, at, total = Chain(head, [], []), head, 0
        for _ in range(self.size):
            if at >= self.size:
                raise BadRing(f"descriptor {at} of {self.size}")
            address, length, flags, following = DESCRIPTOR.unpack_from(self._table, DESCRIPTOR.size * at)
            total += length
            if flags & INDIRECT or total > MOST_BYTES:
                raise BadRing("an indirect descriptor, which was not offered" if flags & INDIRECT else "too long")
            if not flags & WRITE and chain.writable:
                raise BadRing("something to read behind something to write")
            try:
                piece = self._memory.view(address, length)
            except Excluded as error:
                raise BadRing(str(error)) from error
            (chain.writable if flags & WRITE else chain.readable).append(piece)
            if not flags & NEXT:
                return chain
            at = following
        raise BadRing("descriptors in a circle")

    def give(self, chain: Chain, written: int) -> None:
        """A request has been served, and so many bytes been written."""
        USED.pack_into(self._used, 4 + USED.size * (self._done % self.size), chain.head, written)
        self._done = self._done + 1 & 0xFFFF
        self._served[1] = self._done

    def wants_interrupt(self) -> bool:
        """Whether the driver wants to be told of what was given since it was last asked."""
        self._settle()
        if not self.event_index:
            return not self._produced[0] & NO_INTERRUPT
        before, self._told = self._told, self._done
        used_event = self._produced[2 + self.size]
        return self._done - used_event - 1 & 0xFFFF < self._done - before & 0xFFFF

    def _settle(self) -> None:
        """The driver's processor sees what we have stored before we load what it stores: a lock is a full barrier."""
        with self._barrier:
            pass
