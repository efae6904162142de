"""The quick translator's integers and bits: each method of the builder as a few host instructions."""

from typing import Any, Final

from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler, host_has
from virtus.vcpus.translator.baseline_values import (
    MASK,
    STATE,
    WORD,
    Condition,
    Interpret,
    Sum,
    Temporary,
    Value,
    Values,
    is_short,
    signed,
)

CODES: Final = {
    "eq": x86.EQUAL, "ne": x86.NOT_EQUAL, "slt": x86.LESS, "sge": x86.GREATER_EQUAL,
    "ult": x86.BELOW, "uge": x86.ABOVE_EQUAL,
}  # fmt: skip
POPCNT, TZCNT, LZCNT = 0xB8, 0xBC, 0xBD


class Words:
    """The builder's methods for registers, words and bits."""

    a: Assembler
    values: Values
    changed: bool
    """Whether the instruction has changed the state: it may not fault any more, nor be left to the interpreter."""

    # Registers and constants

    def const(self, value: int) -> int:
        """See Builder."""
        return value & MASK

    def get(self, register: int) -> Value:
        """See Builder."""
        found = self.values.new()
        self.a.load(found.register, STATE, WORD * register)
        return found

    def set(self, register: int, value: Value) -> None:
        """See Builder."""
        self.changed = True
        if type(value) is int and is_short(value):
            self.a.store_word(STATE, WORD * register, signed(value))
        else:
            self.a.store(STATE, WORD * register, self.values.register(value))

    # Integers

    def _binary(self, operation: int, x: Value, y: Value) -> Temporary:
        """x86 arithmetic on a copy of `x`."""
        values = self.values
        if type(y) is int and is_short(y):
            result = values.copy(x)
            self.a.arithmetic_immediate(operation, result.register, signed(y))
            return result
        other = values.register(y)
        result = values.copy(x)
        self.a.arithmetic(operation, result.register, other)
        return result

    def add(self, x: Value, y: Value) -> Value:
        """See Builder."""
        if type(x) is int:
            x, y = y, x
        if type(y) is int:
            if type(x) is int:
                return (x + y) & MASK
            total = signed(y)
            base = x
            if type(x) is Sum:
                total += x.displacement
                base = x.base
            if type(base) is Temporary and -(1 << 31) <= total < 1 << 31:
                return Sum(base, total) if total else base
        values = self.values
        one, other = values.register(x), values.register(y)
        result = values.new()
        self.a.address_of_sum(result.register, one, other)
        return result

    def sub(self, x: Value, y: Value) -> Value:
        """See Builder."""
        if type(y) is int:
            return self.add(x, -y & MASK)
        return self._binary(x86.SUB, x, y)

    def mul(self, x: Value, y: Value) -> Value:
        """See Builder."""
        other = self.values.register(y)
        result = self.values.copy(x)
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
        if type(y) is int and not y:
            return x
        return self._binary(x86.OR, x, y)

    def xor(self, x: Value, y: Value) -> Value:
        """See Builder."""
        if type(x) is int:
            x, y = y, x
            if type(x) is int and type(y) is int:
                return x ^ y
        if type(y) is int and not y:
            return x
        return self._binary(x86.XOR, x, y)

    def multiply_high(self, x: Value, y: Value, *, signed_a: bool, signed_b: bool) -> Value:
        """See Builder."""
        if signed_a == signed_b:
            return self._wide(x, y, signed=signed_a, divides=False)[1]
        if signed_b:
            x, y = y, x
        high = self._wide(x, y, signed=False, divides=False)[1]
        return self.sub(high, self.and_(self.shift_right_signed(x, 63), y))  # a negative x counts 2**64 too much

    def divide(self, x: Value, y: Value, *, signed: bool) -> Value:
        """See Builder."""
        return self._wide(x, y, signed=signed, divides=True)[0]

    def remainder(self, x: Value, y: Value, *, signed: bool) -> Value:
        """See Builder."""
        return self._wide(x, y, signed=signed, divides=True)[1]

    def _wide(self, x: Value, y: Value, *, signed: bool, divides: bool) -> tuple[Temporary, Temporary]:
        """What the host multiplies or divides in RAX and RDX."""
        a, values = self.a, self.values
        low, high = values.take(x86.RAX), values.take(x86.RDX)
        values.put(x86.RAX, x)
        other = values.register(y)
        if not divides:
            a.multiply_wide(other, signed=signed)
            return low, high
        if signed:
            a.spread_sign()
        else:
            a.constant(x86.RDX, 0)
        a.divide(other, signed=signed)
        return low, high

    def _shift(self, kind: int, x: Value, count: Value) -> Value:
        a, values = self.a, self.values
        if type(count) is int:
            result = values.copy(x)
            if count:
                a.shift(kind, result.register, count)
        elif host_has("bmi2"):
            by, source = values.register(count), values.register(x)
            result = values.new()
            a.shift_by(kind, result.register, source, by)
        else:
            taken = values.take(x86.RCX)
            values.put(x86.RCX, count)
            result = values.copy(x)
            a.shift_by_cl(kind, result.register)
            values.free(taken)
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
            return low | (MASK << bits & MASK) if signed and low >> bits - 1 else low
        source = self.values.register(x)
        result = self.values.new()
        self.a.extend(result.register, source, bits, signed=signed)
        return result

    def _count_bits(self, opcode: int, feature: str, x: Value, bits: int) -> Value:
        if not host_has(feature):
            raise Interpret
        source = self.values.register(x)
        result = self.values.new()
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

    def holds(self, condition: Condition) -> int:
        """Compare, and say which condition code is to be looked at; up to there nothing else may be emitted."""
        values, left, right = self.values, condition.left, condition.right
        one = values.register(left)
        if type(right) is int and is_short(right):
            if right:
                self.a.arithmetic_immediate(x86.CMP, one, signed(right))
            else:
                self.a.test(one, one)
        else:
            self.a.arithmetic(x86.CMP, one, values.register(right))
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
        self.a.set_if(self.holds(bit), result.register)
        return result

    def select(self, condition: Condition, then: Value, otherwise: Value) -> Value:
        """See Builder."""
        result = self.values.copy(otherwise)
        chosen = self.values.register(then)
        self.a.move_if(self.holds(condition), result.register, chosen)
        return result

    # Counters

    def counter(self, name: Any) -> Value:
        """See Builder."""
        raise Interpret
