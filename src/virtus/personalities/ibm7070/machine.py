"""What the parts of this personality share: the processor as they see it, time, and why a machine stops."""

import heapq
from collections.abc import Callable
from typing import Any, Final, Protocol

from virtus.isa.ibm7070.layout import CYCLES, DEADLINE

NEVER: Final = 2**63
"""A deadline that no machine lives to see."""
MILLISECOND: Final = 1000 / 6
"""In cycles."""


class Processor(Protocol):
    """What the vCPU gives: registers by slot (`isa.ibm7070.layout`), and words by location."""

    regs: Any
    pc: int
    """The location of the instruction that came out, or comes next."""

    def load(self, location: int) -> int:
        """The word at a location; raises IndexError where there is none."""
        ...

    def store(self, location: int, word: int) -> None:
        """Store a word; raises IndexError likewise."""
        ...


class Stopped(Exception):
    """The machine stops; the message says why."""


class Time:
    """The machine's time in cycles, and what is to happen when it has come to some point."""

    def __init__(self) -> None:
        self.processor: Processor | None = None
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    @property
    def now(self) -> int:
        """Cycles since the start."""
        return int(self.processor.regs[CYCLES]) if self.processor is not None else 0

    def wait_until(self, cycles: int) -> None:
        """The processor waits: the time is that point's, if it has not been already."""
        if self.processor is not None and cycles > self.now:
            self.processor.regs[CYCLES] = cycles

    def pass_(self, cycles: int) -> None:
        """Let so many cycles pass."""
        self.wait_until(self.now + cycles)

    def at(self, cycles: int, action: Callable[[], None]) -> None:
        """Do something at that time, before the instruction that would begin then."""
        self._count += 1
        heapq.heappush(self._events, (cycles, self._count, action))

    def run_due(self) -> None:
        """Do what is due."""
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()

    def set_deadline(self, *, at_once: bool) -> None:
        """Have the processor come out for the next event, or before its next instruction."""
        if self.processor is not None:
            following = self._events[0][0] if self._events else NEVER
            self.processor.regs[DEADLINE] = 0 if at_once else following
