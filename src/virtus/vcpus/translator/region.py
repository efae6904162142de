"""The memory that every address space of a translated machine shares: code, counters, and the threads' states.

They are memfds, mapped here to be written and in the stubs where `layout` says. A guest may execute code and not write
it. Counters are writable to every guest: at worst a guest has a block translated too often or never. Of the states an
address space sees only the pages of its own threads.
"""

import mmap
import os
from typing import Final

from virtus.errors import MachineBroken
from virtus.vcpus.translator import layout

STATE_WORDS: Final = 128
"""What is used of a state page, in words."""
_ALIGNMENT: Final = 64
"""What the constants beside optimised code may need: a whole vector register of the host."""
COUNTER_BYTES: Final = 4
_COUNTERS_A_PAGE: Final = layout.PAGE // COUNTER_BYTES
_NO_COUNTERS: Final = STATE_WORDS * 8 // COUNTER_BYTES
"""At the beginning of each page; see `Region.counter`."""
_RESTED: Final = 1 << 30
"""What a counter gets when its block is not to be heard of again for long."""


def counter_number(number: int) -> int:
    """Where the counter of that number is, among those that `Region.counters` gives."""
    page, place = divmod(number, _COUNTERS_A_PAGE - _NO_COUNTERS)
    return page * _COUNTERS_A_PAGE + _NO_COUNTERS + place


class Region:
    """The shared memory of one machine."""

    def __init__(self) -> None:
        self.code_descriptor, self._code = _make("virtus-code", layout.CODE_BYTES)
        self.counters_descriptor, counters = _make("virtus-counters", layout.COUNTERS_BYTES)
        self.states_descriptor, states = _make("virtus-states", layout.MOST_THREADS * layout.STATE_BYTES)
        self._counters = memoryview(counters).cast("I")
        self._states = memoryview(states).cast("Q")
        self._used = 0
        self._counted = 0
        self._free_states: list[int] = []
        self._states_made = 0

    @property
    def place(self) -> int:
        """The address that the next `put` will have."""
        return layout.CODE + self._used

    def put(self, code: bytes) -> int:
        """Add code; its address in every address space. Raises MachineBroken when there is no room left."""
        at = self._used
        if at + len(code) > layout.CODE_BYTES:
            what = f"translated code has filled its {layout.CODE_BYTES >> 20} MiB"
            raise MachineBroken("translating the guest", what)
        self._code[at : at + len(code)] = code
        self._used = (at + len(code) + _ALIGNMENT - 1) & -_ALIGNMENT
        return layout.CODE + at

    def counter(self, first: int) -> int:
        """A new counter's index; it starts at `first`. When all are taken, one that nobody reaches again soon.

        None lies where in its page a state has its words: processors that compare the low 12 bits of addresses first
        would take a register that is loaded for the counter just stored, and find out late (Intel optimization manual,
        "4-KByte aliasing"; such loops run up to six times slower).
        """
        if self._counted % _COUNTERS_A_PAGE < _NO_COUNTERS:
            self._counted += _NO_COUNTERS - self._counted % _COUNTERS_A_PAGE
        if self._counted >= len(self._counters):
            return len(self._counters) - 1
        self._counters[self._counted] = first
        self._counted += 1
        return self._counted - 1

    def counters(self, count: int, first: int) -> int | None:
        """Pages of new counters: the index from which `counter_number` counts; None when there are not so many left."""
        start = -(-self._counted // _COUNTERS_A_PAGE) * _COUNTERS_A_PAGE
        end = start + counter_number(count)
        if end > len(self._counters):
            return None
        self._counters[start:end] = memoryview(first.to_bytes(COUNTER_BYTES, "little") * (end - start)).cast("I")
        self._counted = end
        return start

    def code(self, start: int, end: int) -> bytes:
        """What stands at addresses that `put` gave."""
        return self._code[start - layout.CODE : end - layout.CODE]

    @property
    def room(self) -> int:
        """Bytes of code that there is room for."""
        return layout.CODE_BYTES - self._used

    def rest(self, counter: int, count: int = 0) -> None:
        """Have a counter run `count` times before it runs out again, by default for long."""
        self._counters[counter] = count or _RESTED

    def expire(self, counter: int) -> None:
        """Have a counter run out the next time its block is entered, and from then on each time."""
        self._counters[counter] = 0

    def take_state(self) -> int:
        """The number of a state page, zeroed. Raises MachineBroken when there are no more."""
        if self._free_states:
            page = self._free_states.pop()
        elif self._states_made < layout.MOST_THREADS:
            page = self._states_made
            self._states_made += 1
        else:
            raise MachineBroken("starting a thread", f"{layout.MOST_THREADS} threads are there already")
        start = page * layout.STATE_BYTES // 8
        self._states.cast("B")[start * 8 : start * 8 + layout.STATE_BYTES] = bytes(layout.STATE_BYTES)
        return page

    def give_state(self, page: int) -> None:
        """A state page that no address space maps any more."""
        self._free_states.append(page)

    def state(self, page: int) -> "memoryview[int]":
        """The words of a state page."""
        start = page * layout.STATE_BYTES // 8
        return self._states[start : start + STATE_WORDS]

    def close(self) -> None:
        """Give the memory back."""
        for descriptor in (self.code_descriptor, self.counters_descriptor, self.states_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self.code_descriptor = self.counters_descriptor = self.states_descriptor = -1


def _make(name: str, size: int) -> tuple[int, mmap.mmap]:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor, mmap.mmap(descriptor, size)
