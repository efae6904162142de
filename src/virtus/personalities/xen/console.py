"""The console ring: one page shared with the guest, bytes both ways (xen/include/public/io/console.h)."""

import struct
from typing import TYPE_CHECKING, Final

from virtus.personalities.xen.table import operation

if TYPE_CHECKING:
    from virtus.devices.console import Console
    from virtus.personalities.xen.domain import Domain

INPUT, INPUT_SIZE = 0, 1024  # of struct xencons_interface
OUTPUT, OUTPUT_SIZE = 1024, 2048
INPUT_INDICES, OUTPUT_INDICES = 3072, 3080  # consumer, producer
INDICES: Final = struct.Struct("<II")
MASK32: Final = 0xFFFFFFFF
MOST_AT_ONCE: Final = 4096


class ConsoleRing:
    """Our end of a domain's console, in the frame `frame`."""

    def __init__(self, domain: "Domain", frame: int, console: "Console", port: int = 0) -> None:
        """`port` is the event channel where there is one already."""
        self._domain, self._console, self.frame = domain, console, frame
        self._page = domain.memory.frame(frame)
        self.port = port or domain.events.open_back_end(self.notified)
        self._typed = b""

    def notified(self) -> None:
        """The guest has written, or has made room."""
        consumer, producer = INDICES.unpack_from(self._page, OUTPUT_INDICES)
        count = producer - consumer & MASK32
        if count > OUTPUT_SIZE:  # no ring of a sane guest's: what is in it once
            count = OUTPUT_SIZE
        if count:
            start = consumer % OUTPUT_SIZE
            ring = self._page[OUTPUT : OUTPUT + OUTPUT_SIZE]
            self._console.write(bytes(ring[start : start + count]) + bytes(ring[: max(0, start + count - OUTPUT_SIZE)]))
            struct.pack_into("<I", self._page, OUTPUT_INDICES, producer)
            self._domain.events.raise_event(self.port)
        if self._typed:
            self._give()

    def poll(self) -> None:
        """Give the guest what has been typed."""
        if len(self._typed) < INPUT_SIZE:
            self._typed += self._console.read()
        if self._typed:
            self._give()

    def _give(self) -> None:
        consumer, producer = INDICES.unpack_from(self._page, INPUT_INDICES)
        room = INPUT_SIZE - (producer - consumer & MASK32)
        if not 0 < room <= INPUT_SIZE:
            return
        piece, self._typed = self._typed[:room], self._typed[room:]
        for at, byte in enumerate(piece):
            self._page[INPUT + (producer + at) % INPUT_SIZE] = byte
        struct.pack_into("<I", self._page, INPUT_INDICES + 4, producer + len(piece) & MASK32)
        self._domain.events.raise_event(self.port)

    def write(self, data: bytes) -> None:
        """Show bytes that came by hypercall."""
        self._console.write(data)

    def close(self) -> None:
        """Show what is left in the ring."""
        self.notified()


@operation("console_io", 0, "write")
def console_write(domain: "Domain", count: int, at: int) -> int:
    """Early messages, before the ring is used."""
    count = min(count, MOST_AT_ONCE)
    domain.console.write(domain.access.read(at, count))
    return count


@operation("console_io", 1, "read", note="the ring is the way in")
def console_read(domain: "Domain", count: int, at: int) -> int:
    """Nothing typed."""
    return 0
