"""What values are while the quick translator works: host registers, and which guest registers they happen to equal.

A block is translated instruction by instruction. Guest registers live in the state; what has been loaded or stored is
remembered as long as its host register is not needed for something else, across instructions of a block; what is known
to be a constant is remembered to the end of the block. A value that must make room within its own instruction goes to
the red zone below the stack pointer (System V ABI, 3.2.2): nothing else writes there, since a stub gets no signals.
"""

from typing import Final

from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler

POOL: Final = (x86.RAX, x86.RCX, x86.RDX, x86.RSI, x86.R8, x86.R9, x86.R10, x86.R11)
"""What a C function may destroy, except the state's own register."""
STATE: Final = x86.RDI


class Temporary:
    """A word in a host register, or -1 while it is only in memory: at `slot` of the state, or spilled."""

    __slots__ = ("age", "register", "slot", "spilled")

    def __init__(self, register: int, age: int) -> None:
        self.register, self.age = register, age
        self.slot = -1
        self.spilled = -1


class Sum:
    """A temporary plus a constant, until somebody wants it in a register; memory operands take it as it is."""

    __slots__ = ("base", "displacement", "value")

    def __init__(self, base: Temporary, displacement: int) -> None:
        self.base, self.displacement = base, displacement
        self.value: Temporary | None = None


class Condition:
    """A comparison that has not been emitted yet: condition code, and what `cmp` compares."""

    __slots__ = ("code", "left", "right")

    def __init__(self, code: int, left: "Value", right: "Value") -> None:
        self.code, self.left, self.right = code, left, right


Value = int | Temporary | Sum
"""A constant (0 .. 2**64 - 1), or something computed."""


class Values:
    """Hands out host registers. `instruction` counts instructions: what is older is wanted for its slot only."""

    def __init__(self, assembler: Assembler) -> None:
        self._a = assembler
        self.instruction = 0
        self._holders: list[Temporary | None] = [None] * 16
        self._cached: dict[int, Temporary] = {}
        self._constants: dict[int, int] = {}
        self._turn = 0
        self._pinned: set[int] = set()
        self._spills = 0

    def begin(self) -> None:
        """The next instruction."""
        self.instruction += 1
        self._spills = 0
        self._pinned.clear()

    def forget(self) -> None:
        """Nothing is in registers (after a call, and where paths meet)."""
        self._holders = [None] * 16
        self._cached.clear()
        self._constants.clear()

    def pin(self, *registers: int) -> None:
        """Keep these registers until `unpin`."""
        self._pinned.update(registers)

    def unpin(self) -> None:
        """Any register may be taken."""
        self._pinned.clear()

    def new(self, only: int = -1) -> Temporary:
        """A fresh temporary in some register, or in that one."""
        register = only if only >= 0 else self._choose()
        self._evict(register)
        fresh = Temporary(register, self.instruction)
        self._holders[register] = fresh
        return fresh

    def _choose(self) -> int:
        holders, pinned = self._holders, self._pinned
        best, oldest = -1, self.instruction + 1
        for step in range(len(POOL)):
            register = POOL[(self._turn + step) % len(POOL)]
            if register in pinned:
                continue
            holder = holders[register]
            if holder is None:
                best = register
                break
            if holder.age < oldest:
                best, oldest = register, holder.age
        self._turn = (POOL.index(best) + 1) % len(POOL)
        return best

    def _evict(self, register: int) -> None:
        holder = self._holders[register]
        if holder is None:
            return
        if holder.slot >= 0:
            self._cached.pop(holder.slot, None)
        elif holder.age == self.instruction and holder.spilled < 0:
            self._spills += 1
            holder.spilled = self._spills
            self._a.store(x86.RSP, -8 * self._spills, register)
        holder.register = -1
        self._holders[register] = None

    def forget_register(self, register: int) -> None:
        """A host instruction has replaced what was in a register; whoever was there must have been released before."""
        holder = self._holders[register]
        if holder is not None:
            if holder.slot >= 0:
                self._cached.pop(holder.slot, None)
            holder.register = -1
            self._holders[register] = None

    def release(self, register: int) -> None:
        """Make a register free, moving what it holds to memory if that is still wanted."""
        self._evict(register)

    def register(self, value: Value) -> int:
        """The host register that holds a value now; it stays there until another one is asked for, or pinned."""
        if type(value) is Temporary:
            if value.register < 0:
                self._reload(value)
            value.age = self.instruction
            return value.register
        if type(value) is Sum:
            if value.value is None:
                base = self.register(value.base)
                self._pinned.add(base)
                value.value = self.new()
                self._pinned.discard(base)
                self._a.address(value.value.register, base, value.displacement)
            return self.register(value.value)
        assert type(value) is int
        fresh = self.new()
        self._a.constant(fresh.register, value)
        return fresh.register

    def _reload(self, value: Temporary) -> None:
        register = self._choose()
        self._evict(register)
        if value.spilled >= 0:
            self._a.load(register, x86.RSP, -8 * value.spilled)
        else:
            self._a.load(register, STATE, 8 * value.slot)
        value.register = register
        self._holders[register] = value
        if value.slot >= 0:
            self._cached.setdefault(value.slot, value)

    def copy(self, value: Value, only: int = -1) -> Temporary:
        """A fresh temporary with this value, to be changed in place."""
        if type(value) is int:
            fresh = self.new(only)
            self._a.constant(fresh.register, value)
            return fresh
        if type(value) is Sum and value.value is None:
            base = self.register(value.base)
            self._pinned.add(base)
            fresh = self.new(only)
            self._pinned.discard(base)
            if fresh.register == base:
                base = self.register(value.base)
            self._a.address(fresh.register, base, value.displacement)
            return fresh
        source = self.register(value)
        if source == only:
            # the holder moves away, its register is taken over
            holder = self._holders[source]
            self._evict(source)
            fresh = Temporary(source, self.instruction)
            self._holders[source] = fresh
            del holder
            return fresh
        self._pinned.add(source)
        fresh = self.new(only)
        self._pinned.discard(source)
        self._a.move(fresh.register, source)
        return fresh

    def get(self, slot: int) -> Value:
        """The guest register in a slot."""
        constant = self._constants.get(slot)
        if constant is not None:
            return constant
        found = self._cached.get(slot)
        if found is not None and found.register >= 0:
            found.age = self.instruction
            return found
        fresh = self.new()
        fresh.slot = slot
        self._a.load(fresh.register, STATE, 8 * slot)
        self._cached[slot] = fresh
        return fresh

    def set(self, slot: int, value: Value) -> None:
        """Store into a slot."""
        old = self._cached.pop(slot, None)
        if old is not None:
            self._detach(old)
        self._constants.pop(slot, None)
        if type(value) is int:
            self._constants[slot] = value
            if value < 1 << 31 or value >= (1 << 64) - (1 << 31):
                self._a.store_word(STATE, 8 * slot, value - (1 << 64) if value >> 63 else value)
                return
        register = self.register(value)
        self._a.store(STATE, 8 * slot, register)
        holder = self._holders[register]
        if holder is not None and holder.slot < 0 and type(value) is not int:
            holder.slot = slot
            self._cached[slot] = holder

    def _detach(self, old: Temporary) -> None:
        """Memory is about to hold something else than this temporary."""
        if old.register < 0:  # it was to be found in memory only: fetch it while it is there
            self._reload(old)
        old.slot = -1

    def lose(self, slot: int) -> None:
        """The slot in memory has been changed by other means."""
        self._constants.pop(slot, None)
        old = self._cached.pop(slot, None)
        if old is not None:
            old.slot = -1
