"""The quick translator's memory: guest addresses are the host's, and the host orders its accesses strictly enough."""

from collections.abc import Callable
from typing import Final

from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.baseline_values import STATE, WORD, Interpret, Temporary, Value, Values

LOGIC: Final = {"and": x86.AND, "or": x86.OR, "xor": x86.XOR}
REPLACES: Final = {"min": x86.LESS, "max": x86.GREATER_EQUAL, "minu": x86.BELOW, "maxu": x86.ABOVE_EQUAL}
"""When the new value takes the old one's place."""


class Memory:
    """The builder's methods for memory."""

    a: Assembler
    values: Values
    changed: bool
    faults: bool
    """Whether an access to memory may fault at all."""
    interpret_if: Callable[[int], None]

    def _may_fault(self) -> None:
        """A fault must find the state as it was before the instruction."""
        if self.changed and self.faults:
            raise Interpret

    def load(self, address: Value, size: int, *, signed: bool = False) -> Value:
        """See Builder."""
        self._may_fault()
        base, displacement = self.values.operand(address)
        result = self.values.new()
        self.a.load_sized(result.register, base, displacement, size, signed=signed)
        return result

    def store(self, address: Value, value: Value, size: int) -> None:
        """See Builder."""
        self._may_fault()
        register = self.values.register(value)
        base, displacement = self.values.operand(address)
        self.a.store_sized(base, displacement, register, size)
        self.changed = True

    def fence(self) -> None:
        """See Builder."""
        self.a.fence()

    def _aligned(self, address: Value, size: int) -> int:
        """The register of an address; a misaligned one is the interpreter's to refuse."""
        self._may_fault()
        register = self.values.register(address)
        self.a.test_immediate(register, size - 1)
        self.interpret_if(x86.NOT_EQUAL)
        return register

    def load_reserved(self, address: Value, size: int) -> Value:
        """See Builder."""
        base = self._aligned(address, size)
        result = self.values.new()
        self.a.load_sized(result.register, base, 0, size, signed=True)
        self.a.store(STATE, WORD * layout.RESERVED_ADDRESS, base)
        self.a.store(STATE, WORD * layout.RESERVED_VALUE, result.register)
        self.changed = True
        return result

    def store_conditional(self, address: Value, value: Value, size: int) -> Value:
        """See Builder."""
        a, values = self.a, self.values
        values.take(x86.RAX)
        base, source = self._aligned(address, size), values.register(value)
        result = values.new()
        a.constant(result.register, 1)
        a.arithmetic_memory(x86.CMP, base, STATE, WORD * layout.RESERVED_ADDRESS)
        elsewhere = a.skip_if(x86.NOT_EQUAL)
        a.load(x86.RAX, STATE, WORD * layout.RESERVED_VALUE)
        a.compare_exchange(base, source, size)
        a.set_if(x86.NOT_EQUAL, result.register)
        a.land(elsewhere)
        a.store_word(STATE, WORD * layout.RESERVED_ADDRESS, -1)
        self.changed = True
        return result

    def atomic(self, operation: str, address: Value, value: Value, size: int) -> Value:
        """See Builder."""
        a, values = self.a, self.values
        if operation in ("add", "swap"):
            base = self._aligned(address, size)
            old = values.copy(value)
            (a.exchange_add if operation == "add" else a.exchange)(base, old.register, size)
        else:
            old = values.take(x86.RAX)
            base = self._aligned(address, size)
            self._exchange_until_unchanged(operation, base, value, size)
        self.changed = True
        if size == 4:
            a.extend(old.register, old.register, 32, signed=True)
        return old

    def _exchange_until_unchanged(self, operation: str, base: int, value: Value, size: int) -> None:
        """Leaves the old value in RAX. Extending the sign keeps the order of unsigned halves, too."""
        a, values = self.a, self.values
        source = self._extended(value, size)
        new = values.new().register
        a.load_sized(x86.RAX, base, 0, size, signed=True)
        again = len(a.code)
        if size == 4:
            a.extend(x86.RAX, x86.RAX, 32, signed=True)  # a failed exchange leaves zeros above
        a.move(new, x86.RAX)
        if operation in LOGIC:
            a.arithmetic(LOGIC[operation], new, source)
        else:
            a.arithmetic(x86.CMP, source, x86.RAX)
            a.move_if(REPLACES[operation], new, source)
        a.compare_exchange(base, new, size)
        a.back_if(x86.NOT_EQUAL, again)

    def _extended(self, value: Value, size: int) -> int:
        source = self.values.register(value)
        if size == 8:
            return source
        extended: Temporary = self.values.new()
        self.a.extend(extended.register, source, 32, signed=True)
        return extended.register
