"""What values are while the quick translator works on an instruction: constants, host registers, pending comparisons.

Between instructions nothing is in host registers: the guest's stand in the state. So what an instruction becomes does
not depend on what comes before it. (The processors of today forward a store to a load of the same place at no cost.)
A value that must make room within its instruction goes to the red zone below the stack pointer (System V ABI, 3.2.2):
nothing else writes there, since a stub gets no signals.
"""

from typing import Final

from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler

POOL: Final = (x86.RAX, x86.RCX, x86.RDX, x86.RSI, x86.R8, x86.R9, x86.R10, x86.R11)
"""What a C function may destroy, except the state's own register."""
STATE: Final = x86.RDI
WORD: Final = 8
RED_ZONE_WORDS: Final = 16
SPILLS: Final = 128
"""Where in the state, in words, what does not fit the red zone goes."""
MOST_SPILLS: Final = 256
VECTORS: Final = 16
MASK: Final = 2**64 - 1


class Interpret(Exception):
    """This instruction is left to the interpreter."""


class Temporary:
    """A word in a host register, or spilled (register -1). Its value never changes."""

    __slots__ = ("register", "spilled", "used")

    def __init__(self, register: int, used: int = 0) -> None:
        self.register, self.used, self.spilled = register, used, 0


class Sum:
    """A temporary plus a constant, until somebody wants it in a register; memory operands take it as it is."""

    __slots__ = ("base", "displacement", "value")

    def __init__(self, base: Temporary, displacement: int) -> None:
        self.base, self.displacement = base, displacement
        self.value: Temporary | None = None


Value = int | Temporary | Sum
"""A word: a constant (0 .. 2**64 - 1), or something computed."""


class Condition:
    """A bit: a comparison that is made where it is used. A condition code of the host's, and what `cmp` compares."""

    __slots__ = ("code", "left", "right")

    def __init__(self, code: int, left: Value, right: Value) -> None:
        self.code, self.left, self.right = code, left, right


def signed(value: int) -> int:
    """A word as a signed number."""
    return value - (1 << 64) if value >> 63 else value


def is_short(value: int) -> bool:
    """Whether a word is what the host makes of an operand of 32 bits by extending its sign."""
    return value < 1 << 31 or value >= (1 << 64) - (1 << 31)


def _home(spilled: int) -> tuple[int, int]:
    """Where the values spilled by an instruction go, numbered from 1: base register and displacement."""
    return (x86.RSP, -WORD * spilled) if spilled <= RED_ZONE_WORDS else (STATE, WORD * (SPILLS + spilled))


class Values:
    """Hands out host registers, the least recently used first: of those asked for, the last seven stay."""

    def __init__(self, assembler: Assembler) -> None:
        self._a = assembler
        self._holders: dict[int, Temporary] = {}
        self._clock = self._spills = self._vectors = 0

    def begin(self) -> None:
        """The next instruction: everything is free."""
        self._holders.clear()
        self._spills = self._vectors = 0

    def new(self) -> Temporary:
        """A fresh temporary in some register."""
        holders = self._holders
        for register in POOL:
            if register not in holders:
                break
        else:
            oldest = min(holders.values(), key=lambda holder: holder.used)
            register = oldest.register
            self._spill(oldest)
        self._clock += 1
        fresh = holders[register] = Temporary(register, self._clock)
        return fresh

    def _hold(self, temporary: Temporary) -> Temporary:
        self._clock += 1
        temporary.used = self._clock
        self._holders[temporary.register] = temporary
        return temporary

    def _spill(self, holder: Temporary) -> None:
        if not holder.spilled:
            self._spills += 1
            if self._spills > MOST_SPILLS:
                raise Interpret
            holder.spilled = self._spills
            self._a.store(*_home(holder.spilled), holder.register)
        del self._holders[holder.register]
        holder.register = -1

    def take(self, register: int) -> Temporary:
        """A fresh temporary in this very register; what was there moves away."""
        holder = self._holders.get(register)
        if holder is not None:
            free = next((other for other in POOL if other not in self._holders), -1)
            if free < 0:
                self._spill(holder)
            else:
                self._a.move(free, register)
                holder.register = free
                self._holders[free] = holder
        return self._hold(Temporary(register))

    def free(self, temporary: Temporary) -> None:
        """Nobody will ask for this one any more."""
        del self._holders[temporary.register]

    def scratch(self) -> int:
        """A register for the moment: the next one asked for may be the same."""
        fresh = self.new()
        del self._holders[fresh.register]
        return fresh.register

    def register(self, value: Value) -> int:
        """The host register that holds a value now."""
        if type(value) is Temporary:
            if value.register < 0:
                value.register = self.scratch()
                self._a.load(value.register, *_home(value.spilled))
            return self._hold(value).register
        if type(value) is Sum:
            if value.value is None:
                value.value = self.copy(value)
            return self.register(value.value)
        return self.copy(value).register

    def copy(self, value: Value) -> Temporary:
        """A fresh temporary with this value, to be changed by whoever asks."""
        if type(value) is int:
            fresh = self.new()
            self._a.constant(fresh.register, value)
        elif type(value) is Sum and value.value is None:
            base = self.register(value.base)
            fresh = self.new()
            self._a.address(fresh.register, base, value.displacement)
        else:
            source = self.register(value)
            fresh = self.new()
            self._a.move(fresh.register, source)
        return fresh

    def put(self, register: int, value: Value) -> None:
        """Move a value into a register that was taken."""
        if type(value) is int:
            self._a.constant(register, value)
        elif type(value) is Sum and value.value is None:
            self._a.address(register, self.register(value.base), value.displacement)
        else:
            self._a.move(register, self.register(value))

    def operand(self, address: Value) -> tuple[int, int]:
        """A memory operand: base register and displacement."""
        if type(address) is Sum and address.value is None:
            return self.register(address.base), address.displacement
        return self.register(address), 0

    def vector(self) -> int:
        """A vector register that this instruction has not used yet."""
        if self._vectors == VECTORS:
            raise Interpret
        self._vectors += 1
        return self._vectors - 1
