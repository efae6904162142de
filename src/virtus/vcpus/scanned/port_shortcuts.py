"""Ports that need not stop the guest at every access: what it writes is posted, and what it reads is known beforehand.

Whoever answers for a port says so, and for how long. Posted writes come out in order, before anything else of the
guest does, and at the next tick at the latest (Linux's KVM has the same: KVM_CAP_COALESCED_PIO).
"""

from typing import Final

from virtus.memory.guest_memory import PAGE

POSTED, KNOWN = 1, 2
"""What is set for a port: its writes of one byte are posted, its reads of one byte are known. Of a port that has both,
what is written is what is read from then on."""
PORTS: Final = 1 << 16
FLAGS_AT, VALUES_AT, QUEUE_AT, COUNT_AT = 0, PORTS, 2 * PORTS, 2 * PORTS + PAGE - 4
MOST: Final = PAGE // 4 - 1
"""Writes that the queue holds; one more stops the guest."""
SIZE: Final = 2 * PORTS + PAGE


class PortShortcuts:
    """What the supervisor's child and the monitor know of ports, in the memory that they share."""

    def __init__(self, area: memoryview) -> None:
        """`area` is `SIZE` bytes."""
        self._area = area
        self._queue = area[QUEUE_AT:].cast("I")

    def close(self) -> None:
        """Let go of the views."""
        self._queue.release()
        self._area.release()

    def set(self, port: int, *, posted: bool, value: int | None) -> None:
        """From now on: whether writes may be posted, and what reads give (None: they must be asked for)."""
        self._area[FLAGS_AT + port] = (POSTED if posted else 0) | (KNOWN if value is not None else 0)
        self._area[VALUES_AT + port] = value or 0

    @property
    def waiting(self) -> bool:
        """Whether writes were posted."""
        return self._queue[MOST] != 0

    def take(self) -> list[tuple[int, int]]:
        """Ports and values in the order in which they were written. The count is the guest's: it may be anything."""
        count = min(self._queue[MOST], MOST)
        self._queue[MOST] = 0
        return [(word >> 8 & PORTS - 1, word & 0xFF) for word in self._queue[:count]]
