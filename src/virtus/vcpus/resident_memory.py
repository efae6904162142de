"""The memory of a machine whose words live in this process, for who interprets it and for who answers it.

Some processors number their registers among the locations of storage. Translated code knows only storage, and comes out
for a computed address beyond it; here such an address is the register.
"""

from collections.abc import Callable, Mapping
from typing import Final

from virtus.memory.fixed import FixedMemory
from virtus.records import dataclass
from virtus.vcpus.interpreter.memory import MemoryFault

WORD: Final = 8


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Where a machine keeps things, in the words of its instruction set's descriptions.

    Storage begins at `start`: `locations` words of eight bytes, of which the first `storage` are plain. From `covered`
    on there is a byte for each, not 0 where code has been made from it. `size` is that of everything.
    """

    start: int
    size: int
    locations: int
    storage: int
    covered: int
    registers: Mapping[int, int]
    """The slots of the registers that are locations."""
    register_addressed: int
    """Reasons to come out, which the vCPU deals with: a computed address beyond plain storage ..."""
    modified: int
    """... a store to where code has been made from ..."""
    resolve: int
    """... an instruction that depends on its own effective address, which is in the slot `operand`."""
    operand: int
    illegal: int
    """Reasons that the vCPU gives others: an instruction that means nothing ..."""
    no_such_location: int
    """... and an address that has nothing."""


class ResidentMemory:
    """See `virtus.vcpus.interpreter.memory.Memory`; addresses are those of the mapping."""

    def __init__(self, arrangement: Arrangement, registers: "memoryview[int]", modified: Callable[[int], None]) -> None:
        """`modified` is told a location when a store changes what code has been made from."""
        self.arrangement = arrangement
        self._mapping = FixedMemory(arrangement.start, arrangement.size)
        self.bytes = self._mapping.bytes
        self.words: memoryview[int] = self.bytes.cast("Q")
        self._halves: memoryview[int] = self.bytes.cast("H")
        self._registers = registers
        self._modified = modified
        self._start = arrangement.start
        covered = arrangement.covered - arrangement.start
        self.covered: memoryview[int] = self.bytes[covered : covered + arrangement.locations]
        """By location (see Arrangement)."""

    def load(self, address: int, size: int) -> int:
        """See Memory."""
        offset = address - self._start
        if size == WORD:
            index = offset >> 3
            if self.arrangement.storage <= index < self.arrangement.locations:
                return self._registers[self._register(index)]
            return self.words[index]
        return self.bytes[offset] if size == 1 else self._halves[offset >> 1]

    def store(self, address: int, value: int, size: int) -> None:
        """See Memory; words only."""
        index = address - self._start >> 3
        if index < self.arrangement.storage:
            self.words[index] = value
            if self.covered[index]:
                self._modified(index)
        elif index < self.arrangement.locations:
            self._registers[self._register(index)] = value
        else:
            self.words[index] = value

    def _register(self, location: int) -> int:
        slot = self.arrangement.registers.get(location)
        if slot is None:
            raise MemoryFault(self._start + WORD * location)
        return slot

    def compare_exchange(self, address: int, expected: int, value: int, size: int) -> bool:
        """See Memory."""
        if self.load(address, size) != expected:
            return False
        self.store(address, value, size)
        return True

    def fetch(self, address: int) -> bytes:
        """See Memory: the word there, in storage or a register."""
        index, rest = divmod(address - self._start, WORD)
        if rest or not 0 <= index < self.arrangement.locations:
            return b""
        if index < self.arrangement.storage:
            return self.words[index].to_bytes(WORD, "little")
        slot = self.arrangement.registers.get(index)
        return b"" if slot is None else self._registers[slot].to_bytes(WORD, "little")

    def close(self) -> None:
        """Give the mapping back."""
        self._mapping.close()
