"""Translated code that runs in this process: where it is kept, how it is entered and left, what it was made from.

`translator.layout` says what translated code expects. Here ENTER is called like a function; whatever comes out
(LEAVE, MISS, HOT) gives up the calls in between, and ENTER returns. So code needs no stack of its own.
"""

import ctypes
import mmap
import os
from collections.abc import Callable
from typing import Final

from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler
from virtus.memory.fixed import FixedMemory
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.baseline import Unit
from virtus.vcpus.translator.baseline_values import STATE, WORD

CODE_BYTES: Final = 32 << 20
COUNTER_COUNT: Final = 1 << 18
_HOST_STACK: Final = 96
"""The word of the state where ENTER keeps its caller's stack pointer; what it must preserve follows."""
_SAVED: Final = (x86.RBX, x86.RBP, 12, 13, 14, 15)
"""What a function must preserve (System V ABI, AMD64 supplement, 3.2.1)."""
_ALIGNMENT: Final = 16


def _entry() -> tuple[bytes, dict[int, int]]:
    """ENTER, and the offsets of what the state's words say of LEAVE, MISS, UNWIND and HOT."""
    a = Assembler()
    a.store(STATE, WORD * _HOST_STACK, x86.RSP)
    for place, register in enumerate(_SAVED, start=_HOST_STACK + 1):
        a.store(STATE, WORD * place, register)
    a.move(x86.RBX, STATE)
    following = len(a.code)
    a.move(STATE, x86.RBX)
    a.load(x86.RAX, x86.RBX, WORD * layout.PC)
    a.constant(x86.RDX, layout.TABLE)
    a.load_indexed_by_four(x86.RDX, x86.RDX, x86.RAX)
    a.test(x86.RDX, x86.RDX)
    nothing = a.skip_if(x86.EQUAL)
    a.call(x86.RDX)
    a.store(x86.RBX, WORD * layout.PC, x86.RAX)
    a.aim(a.jump(), following)
    a.land(nothing)
    offsets = {layout.MISS_AT: len(a.code), layout.JUMP_MISS_AT: len(a.code)}
    a.store_word(STATE, WORD * layout.EXIT, layout.EXIT_MISS)
    out = a.skip()
    offsets[layout.HOT_AT] = offsets[layout.UNWIND_AT] = len(a.code)
    a.store_word(STATE, WORD * layout.EXIT, layout.EXIT_HOT)
    a.land(out)
    offsets[layout.LEAVE_AT] = len(a.code)
    a.load(x86.RSP, STATE, WORD * _HOST_STACK)
    for place, register in enumerate(_SAVED, start=_HOST_STACK + 1):
        a.load(register, STATE, WORD * place)
    a.back()
    return bytes(a.code), offsets


class _Placed:
    """A unit where it stands."""

    __slots__ = ("entries", "locations")

    def __init__(self, entries: dict[int, int], locations: list[int]) -> None:
        self.entries, self.locations = entries, locations


class CodeRoom:
    """The room for translations of `size` bytes of guest memory from `start` on; one at a time in a process."""

    def __init__(self, start: int, size: int) -> None:
        self._start = start
        self._mapped: list[FixedMemory] = []
        self._descriptor = os.memfd_create("virtus-resident", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self._descriptor, CODE_BYTES)
            self._writable = mmap.mmap(self._descriptor, CODE_BYTES)
            self._map(FixedMemory(layout.CODE, CODE_BYTES, descriptor=self._descriptor, executable=True))
            self._counters: memoryview[int] = self._map(FixedMemory(layout.COUNTERS, 4 * COUNTER_COUNT)).cast("I")
            self._table_start = layout.table_entry(start) & -mmap.PAGESIZE
            length = layout.table_entry(start + size) - self._table_start + mmap.PAGESIZE - 1 & -mmap.PAGESIZE
            self._table: memoryview[int] = self._map(FixedMemory(self._table_start, length)).cast("Q")
        except BaseException:
            self.close()
            raise
        self._page = mmap.mmap(-1, layout.STATE_BYTES)
        self._state_at = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self.state: memoryview[int] = memoryview(self._page).cast("Q")
        """The words of the machine's state (see `layout`)."""
        entry, offsets = _entry()
        self._entry_bytes = len(entry)
        self._writable[: len(entry)] = entry
        for word, offset in offsets.items():
            self.state[word] = layout.CODE + offset
        self._enter: Callable[[int], int] = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(layout.CODE)
        self._placed: dict[int, set[_Placed]] = {}  # by location
        self._counted: dict[int, list[int]] = {}  # counters by the address of their block
        self._used = self._counter_count = 0
        self._start_anew()

    def _map(self, memory: FixedMemory) -> memoryview:
        self._mapped.append(memory)
        return memory.bytes

    def close(self) -> None:
        """Give everything back; may be called twice."""
        for memory in self._mapped:
            memory.close()
        self._mapped.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _start_anew(self) -> None:
        self._used = self._entry_bytes + _ALIGNMENT - 1 & -_ALIGNMENT
        self._counter_count = 0
        self._placed.clear()
        self._counted.clear()

    def enter(self) -> int:
        """Run from the state's PC on; why it came out (an exit of `layout`'s)."""
        self._enter(self._state_at)
        return self.state[layout.EXIT]

    @property
    def place(self) -> int:
        """Where the next unit will stand."""
        return layout.CODE + self._used

    def counter(self, first: int) -> int:
        """A new counter's index."""
        index = min(self._counter_count, COUNTER_COUNT - 1)
        self._counters[index] = first
        self._counter_count += 1
        return index

    def go_on_counting(self, pc: int, count: int) -> None:
        """Let the counters of a block begin again."""
        for index in self._counted.get(pc, ()):
            self._counters[index] = count

    def put(self, unit: Unit, covered: "memoryview[int]") -> bool:
        """Add a unit, which was made for `place`, and mark what it was made from in `covered`, by location. Where there
        is no more room everything is forgotten, this one too, and False returned."""
        if self._used + len(unit.code) > CODE_BYTES or self._counter_count > COUNTER_COUNT:
            self._table.cast("B")[:] = bytes(self._table.nbytes)
            for location in self._placed:
                covered[location] = 0
            self._start_anew()
            return False
        at = self._used
        self._writable[at : at + len(unit.code)] = unit.code
        self._used = at + len(unit.code) + _ALIGNMENT - 1 & -_ALIGNMENT
        locations = [
            location
            for low, high in unit.covers
            for location in range((low - self._start) // WORD, (high - self._start) // WORD)
        ]
        placed = _Placed({pc: layout.CODE + at + offset for pc, offset in unit.entries.items()}, locations)
        for location in locations:
            self._placed.setdefault(location, set()).add(placed)
            covered[location] = 1
        for pc, address in placed.entries.items():
            self._table[self._slot(pc)] = address
        for pc, index in unit.counters.items():
            self._counted.setdefault(pc, []).append(index)
        return True

    def drop(self, location: int, covered: "memoryview[int]") -> int:
        """Forget every unit that was made from this location; how many they were."""
        dropped = self._placed.pop(location, set())
        for placed in dropped:
            for pc, address in placed.entries.items():
                if self._table[self._slot(pc)] == address:
                    self._table[self._slot(pc)] = 0
            for other in placed.locations:
                units = self._placed.get(other)
                if units is not None:
                    units.discard(placed)
                    if not units:
                        del self._placed[other]
                        covered[other] = 0
        return len(dropped)

    def _slot(self, pc: int) -> int:
        return (layout.table_entry(pc) - self._table_start) // WORD
