"""The quick translator's integers and memory: each method of the builder as a few host instructions."""

from collections.abc import Callable
from typing import Any, Final, Literal

from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler, host_has
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.baseline_values import STATE, Condition, Sum, Temporary, Value, Values

MASK: Final = 2**64 - 1
CODES: Final = {
    "eq": x86.EQUAL, "ne": x86.NOT_EQUAL, "slt": x86.LESS, "sge": x86.GREATER_EQUAL,
    "ult": x86.BELOW, "uge": x86.ABOVE_EQUAL,
}  # fmt: skip
POPCNT, TZCNT, LZCNT = 0xB8, 0xBC, 0xBD
WORD: Final = 8


class Interpret(Exception):
    """This instruction is left to the interpreter."""


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _is_immediate(value: Any) -> bool:
    return type(value) is int and (value < 1 << 31 or value >= (1 << 64) - (1 << 31))


class Words:
    """The builder's methods for registers, words, bits and memory."""

    a: Assembler
    values: Values
    pc: int
    next: int
    _forgets = False
    _after = 0
    interpret_cold: Callable[[int], None]

    # Registers and constants

    def const(self, value: int) -> int:
        """See Builder."""
        return value & MASK

    def get(self, register: int) -> Value:
        """See Builder."""
        return self.values.get(register)

    def set(self, register: int, value: Value) -> None:
        """See Builder."""
        self.values.set(register, value)

    # Integers

    def _binary(self, operation: int, x: Value, y: Value) -> Temporary:
        """x86 arithmetic on a copy of `x`."""
        values = self.values
        if _is_immediate(y):
            result = values.copy(x)
            self.a.arithmetic_immediate(operation, result.register, _signed(y))  # type: ignore[arg-type] # an int
            return result
        other = values.register(y)
        values.pin(other)
        result = values.copy(x)
        values.unpin()
        self.a.arithmetic(operation, result.register, other)
        return result

    def add(self, x: Value, y: Value) -> Value:
        """See Builder."""
        if type(x) is int:
            x, y = y, x
        if type(y) is int:
            if type(x) is int:
                return (x + y) & MASK
            if y == 0:
                return x
            total = _signed(y)
            if type(x) is Sum:
                total += x.displacement
                x = x.base
            if -(1 << 31) <= total < 1 << 31:
                return Sum(x, total)  # type: ignore[arg-type] # a temporary: constants and sums have been dealt with
            return self._binary(x86.ADD, x, total & MASK)
        values = self.values
        one = values.register(x)
        values.pin(one)
        other = values.register(y)
        values.pin(other)
        result = values.new()
        values.unpin()
        self.a.address_of_sum(result.register, one, other)
        return result

    def sub(self, x: Value, y: Value) -> Value:
        """See Builder."""
        if type(y) is int:
            return self.add(x, -y & MASK)
        return self._binary(x86.SUB, x, y)

    def mul(self, x: Value, y: Value) -> Value:
        """See Builder."""
        values = self.values
        other = values.register(y)
        values.pin(other)
        result = values.copy(x)
        values.unpin()
        self.a.multiply(result.register, other)
        return result

    def and_(self, x: Value, y: Value) -> Value:
        """See Builder."""
        if type(x) is int:
            x, y = y, x
        if type(x) is int and type(y) is int:
            return x & y
        return self._binary(x86.AND, x, y)

    def or_(self, x: Value, y: Value) -> Value:
        """See Builder."""
        if type(x) is int:
            x, y = y, x
        if type(x) is int and type(y) is int:
            return x | y
        return self._binary(x86.OR, x, y)

    def xor(self, x: Value, y: Value) -> Value:
        """See Builder."""
        if type(x) is int:
            x, y = y, x
        if type(x) is int and type(y) is int:
            return x ^ y
        return self._binary(x86.XOR, x, y)

    def _wide(self, x: Value, y: Value) -> int:
        """RAX = x, RDX free; the register of `y`."""
        values = self.values
        other = values.register(y)
        if other in (x86.RAX, x86.RDX):
            values.pin(x86.RAX, x86.RDX)
            other = values.copy(y).register
            values.unpin()
        values.pin(other, x86.RAX, x86.RDX)
        values.copy(x, x86.RAX)
        values.release(x86.RDX)
        values.unpin()
        return other

    def _result(self, register: int) -> Temporary:
        """A temporary for what a host instruction has left in RAX or RDX."""
        values = self.values
        values.forget_register(x86.RAX)
        values.forget_register(x86.RDX)
        return values.new(register)

    def multiply_high(self, x: Value, y: Value, *, signed_a: bool, signed_b: bool) -> Value:
        """See Builder."""
        if signed_a == signed_b:
            self.a.multiply_wide(self._wide(x, y), signed=signed_a)
            return self._result(x86.RDX)
        if signed_b:
            x, y = y, x
        high = self.multiply_high(x, y, signed_a=False, signed_b=False)
        return self.sub(high, self.and_(self.shift_right_signed(x, 63), y))  # a negative x counts 2**64 too much

    def divide(self, x: Value, y: Value, *, signed: bool) -> Value:
        """See Builder."""
        self._divide(x, y, signed=signed)
        return self._result(x86.RAX)

    def remainder(self, x: Value, y: Value, *, signed: bool) -> Value:
        """See Builder."""
        self._divide(x, y, signed=signed)
        return self._result(x86.RDX)

    def _divide(self, x: Value, y: Value, *, signed: bool) -> None:
        other = self._wide(x, y)
        if signed:
            self.a.spread_sign()
        else:
            self.a.constant(x86.RDX, 0)
        self.a.divide(other, signed=signed)

    def _shift(self, kind: int, x: Value, count: Value) -> Value:
        values = self.values
        if type(count) is int:
            result = values.copy(x)
            if count:
                self.a.shift(kind, result.register, count)
            return result
        by = values.register(count)
        values.pin(by)
        if host_has("bmi2"):
            source = values.register(x)
            values.pin(source)
            result = values.new()
            values.unpin()
            self.a.shift_by(kind, result.register, source, by)
            return result
        values.unpin()
        values.copy(count, x86.RCX)
        values.pin(x86.RCX)
        result = values.copy(x)
        values.unpin()
        self.a.shift_by_cl(kind, result.register)
        return result

    def shift_left(self, x: Value, count: Value) -> Value:
        """See Builder."""
        return self._shift(x86.SHL, x, count)

    def shift_right(self, x: Value, count: Value) -> Value:
        """See Builder."""
        return self._shift(x86.SHR, x, count)

    def shift_right_signed(self, x: Value, count: Value) -> Value:
        """See Builder."""
        return self._shift(x86.SAR, x, count)

    def sign_extend(self, x: Value, bits: int) -> Value:
        """See Builder."""
        return self._extend(x, bits, signed=True)

    def zero_extend(self, x: Value, bits: int) -> Value:
        """See Builder."""
        return self._extend(x, bits, signed=False)

    def _extend(self, x: Value, bits: int, *, signed: bool) -> Value:
        if type(x) is int:
            low = x & (1 << bits) - 1
            return (low - (1 << bits)) & MASK if signed and low >> bits - 1 else low
        values = self.values
        source = values.register(x)
        values.pin(source)
        result = values.new()
        values.unpin()
        self.a.extend(result.register, source, bits, signed=signed)
        return result

    def _count_bits(self, opcode: int, feature: str, x: Value, bits: int) -> Value:
        if not host_has(feature):
            raise Interpret
        values = self.values
        source = values.register(x)
        values.pin(source)
        result = values.new()
        values.unpin()
        self.a.count(opcode, result.register, source, wide=bits == 64)
        return result

    def leading_zeros(self, x: Value, bits: int) -> Value:
        """See Builder."""
        return self._count_bits(LZCNT, "abm", x, bits)

    def trailing_zeros(self, x: Value, bits: int) -> Value:
        """See Builder."""
        return self._count_bits(TZCNT, "bmi1", x, bits)

    def population(self, x: Value) -> Value:
        """See Builder."""
        return self._count_bits(POPCNT, "popcnt", x, 64)

    def swap_bytes(self, x: Value) -> Value:
        """See Builder."""
        result = self.values.copy(x)
        self.a.swap_bytes(result.register)
        return result

    # Bits

    def compare(self, predicate: str, x: Value, y: Value) -> Condition:
        """See Builder."""
        return Condition(CODES[predicate], x, y)

    def emit_condition(self, condition: Condition) -> int:
        """Compare, and say which condition code it is."""
        values, left, right = self.values, condition.left, condition.right
        one = values.register(left)
        if type(right) is int and right == 0 and condition.code in (x86.EQUAL, x86.NOT_EQUAL):
            self.a.test(one, one)
        elif _is_immediate(right):
            self.a.arithmetic_immediate(x86.CMP, one, _signed(right))  # type: ignore[arg-type] # an int
        else:
            values.pin(one)
            other = values.register(right)
            values.unpin()
            self.a.arithmetic(x86.CMP, one, other)
        return condition.code

    def _combine(self, operation: int, one: Condition, other: Condition) -> Condition:
        return Condition(x86.NOT_EQUAL, self._binary(operation, self.word(one), self.word(other)), 0)

    def both(self, one: Condition, other: Condition) -> Condition:
        """See Builder."""
        return self._combine(x86.AND, one, other)

    def either(self, one: Condition, other: Condition) -> Condition:
        """See Builder."""
        return self._combine(x86.OR, one, other)

    def word(self, bit: Condition) -> Temporary:
        """See Builder."""
        result = self.values.new()
        self.values.pin(result.register)
        kept = result.register
        code = self._condition_beside(bit, kept)
        self.a.set_if(code, kept)
        return result

    def _condition_beside(self, bit: Condition, kept: int) -> int:
        """Compare with a register kept out of it."""
        values, left, right = self.values, bit.left, bit.right
        values.pin(kept)
        one = values.register(left)
        values.pin(one)
        if _is_immediate(right):
            self.a.arithmetic_immediate(x86.CMP, one, _signed(right))  # type: ignore[arg-type] # an int
        else:
            self.a.arithmetic(x86.CMP, one, values.register(right))
        values.unpin()
        return bit.code

    def select(self, condition: Condition, then: Value, otherwise: Value) -> Value:
        """See Builder."""
        values = self.values
        result = values.copy(otherwise)
        values.pin(result.register)
        chosen = values.register(then)
        values.pin(chosen)
        one = values.register(condition.left)
        values.pin(one)
        right = condition.right
        if _is_immediate(right):
            self.a.arithmetic_immediate(x86.CMP, one, _signed(right))  # type: ignore[arg-type] # an int
        else:
            self.a.arithmetic(x86.CMP, one, values.register(right))
        values.unpin()
        self.a.move_if(condition.code, result.register, chosen)
        return result

    # Memory

    def _operand(self, address: Value) -> tuple[int, int]:
        """An address as base register and displacement."""
        if type(address) is Sum:
            return self.values.register(address.base), address.displacement
        return self.values.register(address), 0

    def load(self, address: Value, size: int, *, signed: bool = False) -> Value:
        """See Builder."""
        base, displacement = self._operand(address)
        self.values.pin(base)
        result = self.values.new()
        self.values.unpin()
        self.a.load_sized(result.register, base, displacement, size, signed=signed)
        return result

    def store(self, address: Value, value: Value, size: int) -> None:
        """See Builder."""
        base, displacement = self._operand(address)
        self.values.pin(base)
        register = self.values.register(value)
        self.values.unpin()
        self.a.store_sized(base, displacement, register, size)

    def fence(self) -> None:
        """See Builder."""
        self.a.fence()

    def _aligned(self, address: Value, size: int) -> int:
        """The register of an address; a misaligned one is the interpreter's to refuse."""
        register = self.values.register(address)
        label = self.a.label()
        self.a.test_immediate(register, size - 1)
        self.a.jump_if(x86.NOT_EQUAL, label)
        self.interpret_cold(label)
        return register

    def load_reserved(self, address: Value, size: int) -> Value:
        """See Builder."""
        base = self._aligned(address, size)
        self.values.pin(base)
        result = self.values.new()
        self.values.unpin()
        self.a.load_sized(result.register, base, 0, size, signed=True)
        self.a.store(STATE, WORD * layout.RESERVED_ADDRESS, base)
        self.a.store(STATE, WORD * layout.RESERVED_VALUE, result.register)
        return result

    def store_conditional(self, address: Value, value: Value, size: int) -> Value:
        """See Builder."""
        a, values = self.a, self.values
        values.release(x86.RAX)
        values.pin(x86.RAX)
        base = self._aligned(address, size)
        values.pin(base, x86.RAX)
        source = values.register(value)
        values.pin(source)
        result = values.new()
        values.unpin()
        done = a.label()
        a.constant(result.register, 1)
        a.arithmetic_memory(x86.CMP, base, STATE, WORD * layout.RESERVED_ADDRESS)
        a.jump_if(x86.NOT_EQUAL, done)
        a.load(x86.RAX, STATE, WORD * layout.RESERVED_VALUE)
        a.compare_exchange(base, source, size)
        a.set_if(x86.NOT_EQUAL, result.register)
        a.place(done)
        a.store_word(STATE, WORD * layout.RESERVED_ADDRESS, -1)
        return result

    def atomic(self, operation: str, address: Value, value: Value, size: int) -> Value:
        """See Builder."""
        a, values = self.a, self.values
        if operation in ("add", "swap"):
            base = self._aligned(address, size)
            values.pin(base)
            result = values.copy(value)
            values.unpin()
            (a.exchange_add if operation == "add" else a.exchange)(base, result.register, size)
            return self._old(result.register, result, size)
        values.release(x86.RAX)
        values.pin(x86.RAX)
        base = self._aligned(address, size)
        values.pin(base, x86.RAX)
        source = values.register(value)
        if operation.startswith(("min", "max")) and size == 4:
            values.pin(source)
            extended = values.new().register
            a.extend(extended, source, 32, signed=not operation.endswith("u"))
            source = extended
        values.pin(source)
        changed = values.new().register
        values.unpin()
        again = a.label()
        a.load_sized(x86.RAX, base, 0, size, signed=not operation.endswith("u"))
        a.place(again)
        self._combined(operation, changed, source, size)
        a.compare_exchange(base, changed, size)
        a.jump_if(x86.NOT_EQUAL, again)
        values.forget_register(x86.RAX)
        result = values.new(x86.RAX)
        return self._old(x86.RAX, result, size)

    def _combined(self, operation: str, changed: int, source: int, size: int) -> None:
        """`changed` = what is to be stored, from RAX and `source`."""
        a = self.a
        if operation in ("and", "or", "xor"):
            a.move(changed, x86.RAX)
            a.arithmetic({"and": x86.AND, "or": x86.OR, "xor": x86.XOR}[operation], changed, source)
            return
        unsigned = operation.endswith("u")
        if size == 4:  # RAX is 32 bits wide after a failed exchange
            a.extend(x86.RAX, x86.RAX, 32, signed=not unsigned)
        a.move(changed, x86.RAX)
        a.arithmetic(x86.CMP, source, x86.RAX)
        if operation.startswith("min"):
            code = x86.BELOW if unsigned else x86.LESS
        else:
            code = x86.ABOVE_EQUAL if unsigned else x86.GREATER_EQUAL
        a.move_if(code, changed, source)

    def _old(self, register: int, result: Temporary, size: int) -> Temporary:
        if size == 4:
            self.a.extend(register, register, 32, signed=True)
        return result

    def counter(self, name: Literal["cycle", "time", "instructions"]) -> Value:
        """See Builder."""
        raise Interpret
