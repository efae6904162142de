"""What values are while the quick translator works on an instruction: constants, host registers, pending comparisons.

Between instructions nothing is in host registers: guest registers live in the state. So the code for an instruction
does not depend on what comes before it. A value that must make room within its instruction goes to the red zone below
the stack pointer (System V ABI, 3.2.2): nothing else writes there, since a stub gets no signals.
"""

from typing import Final

from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler

POOL: Final = (x86.RAX, x86.RCX, x86.RDX, x86.RSI, x86.R8, x86.R9, x86.R10, x86.R11)
"""What a C function may destroy, except the state's own register."""
STATE: Final = x86.RDI
RED_ZONE_WORDS: Final = 16
FLOATS: Final = 16
"""Vector registers."""
MASK: Final = (1 << 64) - 1


class Interpret(Exception):
    """This instruction is left to the interpreter."""


class Temporary:
    """A word in a host register, or -1 while it is spilled. Its value never changes."""

    __slots__ = ("register", "spilled", "used")

    def __init__(self, register: int) -> None:
        self.register = register
        self.spilled = 0
        self.used = 0


class Sum:
    """A temporary plus a constant, until somebody wants it in a register; memory operands take it as it is."""

    __slots__ = ("base", "displacement", "value")

    def __init__(self, base: Temporary, displacement: int) -> None:
        self.base, self.displacement = base, displacement
        self.value: Temporary | None = None


Value = int | Temporary | Sum
"""A word: a constant (0 .. 2**64 - 1), or something computed."""


class Condition:
    """A comparison that is not made before it is used: a condition code of the host's, and what `cmp` compares."""

    __slots__ = ("code", "left", "right")

    def __init__(self, code: int, left: Value, right: Value) -> None:
        self.code, self.left, self.right = code, left, right


Truth = Condition | Value
"""A bit: a comparison, or a word that is 0 or 1."""


def signed(value: int) -> int:
    """A word as a signed number."""
    return value - (1 << 64) if value >> 63 else value


def is_short(value: int) -> bool:
    """Whether a word fits an operand of 32 bits that the host extends with its sign."""
    return value < 1 << 31 or value >= (1 << 64) - (1 << 31)


class Values:
    """Hands out host registers, the least recently used first. So of what has been asked for, the last seven registers
    are still where they were."""

    def __init__(self, assembler: Assembler) -> None:
        self._a = assembler
        self._holders: list[Temporary | None] = [None] * 16
        self._clock = 0
        self._spills = 0
        self._floats = 0

    def begin(self) -> None:
        """The next instruction: everything is free."""
        self._holders = [None] * 16
        self._spills = self._floats = 0

    def new(self) -> Temporary:
        """A fresh temporary in some register."""
        holders = self._holders
        oldest: Temporary | None = None
        for register in POOL:
            holder = holders[register]
            if holder is None:
                break
            if oldest is None or holder.used < oldest.used:
                oldest = holder
        else:
            assert oldest is not None
            register = oldest.register
            self._spill(oldest)
        return self._hold(Temporary(register))

    def _hold(self, temporary: Temporary) -> Temporary:
        self._clock += 1
        temporary.used = self._clock
        self._holders[temporary.register] = temporary
        return temporary

    def _spill(self, holder: Temporary) -> None:
        if not holder.spilled:
            self._spills += 1
            if self._spills > RED_ZONE_WORDS:
                raise Interpret
            holder.spilled = self._spills
            self._a.store(x86.RSP, -8 * holder.spilled, holder.register)
        self._holders[holder.register] = None
        holder.register = -1

    def take(self, register: int) -> Temporary:
        """A fresh temporary in this very register; what was there moves away. To be called before `register`."""
        holder = self._holders[register]
        if holder is not None:
            free = next((other for other in POOL if self._holders[other] is None), -1)
            if free < 0:
                self._spill(holder)
            else:
                self._a.move(free, register)
                holder.register = free
                self._holders[free] = holder
        return self._hold(Temporary(register))

    def free(self, temporary: Temporary) -> None:
        """Nobody will ask for this one any more."""
        self._holders[temporary.register] = None

    def register(self, value: Value) -> int:
        """The host register that holds a value now."""
        if type(value) is Temporary:
            if value.register < 0:
                value.register = self.new_register()
                self._a.load(value.register, x86.RSP, -8 * value.spilled)
            self._hold(value)
            return value.register
        if type(value) is Sum:
            if value.value is None:
                base = self.register(value.base)
                value.value = self.new()
                self._a.address(value.value.register, base, value.displacement)
            return self.register(value.value)
        assert type(value) is int
        fresh = self.new().register
        self._a.constant(fresh, value)
        return fresh

    def new_register(self) -> int:
        """A register for the time being: the next one asked for may be the same."""
        fresh = self.new()
        self._holders[fresh.register] = None
        return fresh.register

    def copy(self, value: Value) -> Temporary:
        """A fresh temporary with this value, to be changed in place by whoever asks."""
        if type(value) is Sum and value.value is None:
            base = self.register(value.base)
            fresh = self.new()
            self._a.address(fresh.register, base, value.displacement)
            return fresh
        if type(value) is int:
            fresh = self.new()
            self._a.constant(fresh.register, value)
            return fresh
        source = self.register(value)
        fresh = self.new()
        self._a.move(fresh.register, source)
        return fresh

    def put(self, register: int, value: Value) -> None:
        """Move a value into a register that `take` gave."""
        if type(value) is int:
            self._a.constant(register, value)
        else:
            self._a.move(register, self.register(value))

    def operand(self, value: Value) -> tuple[int, int]:
        """A memory operand: base register and displacement."""
        if type(value) is Sum and value.value is None:
            return self.register(value.base), value.displacement
        return self.register(value), 0

    def new_float(self) -> int:
        """A vector register that has not been used in this instruction."""
        if self._floats == FLOATS:
            raise Interpret
        self._floats += 1
        return self._floats - 1
