"""The builder's integers and memory as LLVM's language. A value is a number, or the name of an i64."""

from collections.abc import Callable
from typing import Any, Final, Literal

from virtus.vcpus.translator import layout

MASK: Final = 2**64 - 1
Value = int | str
ATOMIC: Final = {
    "add": "add", "swap": "xchg", "xor": "xor", "or": "or", "and": "and", "min": "min", "max": "max",
    "minu": "umin", "maxu": "umax",
}  # fmt: skip
GUEST_MEMORY: Final = "!alias.scope !1"


class Interpret(Exception):
    """This instruction is left to the interpreter."""


def operand(value: Value) -> str:
    """As it stands in the text."""
    if type(value) is int:
        return str(value - (1 << 64) if value >> 63 else value)
    return str(value)


class WordText:
    """The builder's methods for constants, words, bits and memory."""

    pc: int
    next: int
    precise: bool
    _lines: list[Any]
    _new: Callable[[str], str]
    _state: Callable[[int], str]
    _put: Callable[[int, Value], None]
    interpret_if: Callable[[str], None]
    before_access: Callable[[], None]

    def const(self, value: int) -> int:
        """See Builder."""
        return value & MASK

    # Integers

    def _binary(self, operation: str, a: Value, b: Value) -> str:
        return self._new(f"{operation} i64 {operand(a)}, {operand(b)}")

    def add(self, a: Value, b: Value) -> Value:
        """See Builder."""
        if type(a) is int and type(b) is int:
            return (a + b) & MASK
        if a == 0:
            return b
        return a if b == 0 else self._binary("add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """See Builder."""
        return self._binary("sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """See Builder."""
        return self._binary("mul", a, b)

    def and_(self, a: Value, b: Value) -> Value:
        """See Builder."""
        if type(a) is int and type(b) is int:
            return a & b
        return self._binary("and", a, b)

    def or_(self, a: Value, b: Value) -> Value:
        """See Builder."""
        return self._binary("or", a, b)

    def xor(self, a: Value, b: Value) -> Value:
        """See Builder."""
        return self._binary("xor", a, b)

    def multiply_high(self, a: Value, b: Value, *, signed_a: bool, signed_b: bool) -> Value:
        """See Builder."""
        wide_a = self._new(f"{'sext' if signed_a else 'zext'} i64 {operand(a)} to i128")
        wide_b = self._new(f"{'sext' if signed_b else 'zext'} i64 {operand(b)} to i128")
        high = self._new(f"lshr i128 {self._new(f'mul i128 {wide_a}, {wide_b}')}, 64")
        return self._new(f"trunc i128 {high} to i64")

    def shift_left(self, a: Value, count: Value) -> Value:
        """See Builder."""
        return self._binary("shl", a, count)

    def shift_right(self, a: Value, count: Value) -> Value:
        """See Builder."""
        return self._binary("lshr", a, count)

    def shift_right_signed(self, a: Value, count: Value) -> Value:
        """See Builder."""
        return self._binary("ashr", a, count)

    def divide(self, a: Value, b: Value, *, signed: bool) -> Value:
        """See Builder."""
        return self._binary("sdiv" if signed else "udiv", a, b)

    def remainder(self, a: Value, b: Value, *, signed: bool) -> Value:
        """See Builder."""
        return self._binary("srem" if signed else "urem", a, b)

    def _extend(self, kind: str, a: Value, bits: int) -> Value:
        narrow = self._new(f"trunc i64 {operand(a)} to i{bits}")
        return self._new(f"{kind} i{bits} {narrow} to i64")

    def sign_extend(self, a: Value, bits: int) -> Value:
        """See Builder."""
        return self._extend("sext", a, bits)

    def zero_extend(self, a: Value, bits: int) -> Value:
        """See Builder."""
        return self._extend("zext", a, bits)

    def _count_zeros(self, name: str, a: Value, bits: int) -> Value:
        if bits == 64:
            return self._new(f"call i64 @llvm.{name}.i64(i64 {operand(a)}, i1 false)")
        narrow = self._new(f"trunc i64 {operand(a)} to i32")
        found = self._new(f"call i32 @llvm.{name}.i32(i32 {narrow}, i1 false)")
        return self._new(f"zext i32 {found} to i64")

    def leading_zeros(self, a: Value, bits: int) -> Value:
        """See Builder."""
        return self._count_zeros("ctlz", a, bits)

    def trailing_zeros(self, a: Value, bits: int) -> Value:
        """See Builder."""
        return self._count_zeros("cttz", a, bits)

    def population(self, a: Value) -> Value:
        """See Builder."""
        return self._new(f"call i64 @llvm.ctpop.i64(i64 {operand(a)})")

    def swap_bytes(self, a: Value) -> Value:
        """See Builder."""
        return self._new(f"call i64 @llvm.bswap.i64(i64 {operand(a)})")

    # Bits

    def compare(self, predicate: str, a: Value, b: Value) -> str:
        """See Builder."""
        return self._new(f"icmp {predicate} i64 {operand(a)}, {operand(b)}")

    def both(self, a: str, b: str) -> str:
        """See Builder."""
        return self._new(f"and i1 {a}, {b}")

    def either(self, a: str, b: str) -> str:
        """See Builder."""
        return self._new(f"or i1 {a}, {b}")

    def word(self, a: str) -> Value:
        """See Builder."""
        return self._new(f"zext i1 {a} to i64")

    def select(self, condition: str, then: Value, otherwise: Value) -> Value:
        """See Builder."""
        return self._new(f"select i1 {condition}, i64 {operand(then)}, i64 {operand(otherwise)}")

    # Memory

    def _pointer(self, address: Value) -> str:
        return self._new(f"inttoptr i64 {operand(address)} to ptr")

    def load(self, address: Value, size: int, *, signed: bool = False) -> Value:
        """See Builder."""
        pointer = self._pointer(address)
        self.before_access()
        kind = "load volatile" if self.precise else "load"
        value = self._new(f"{kind} i{8 * size}, ptr {pointer}, align 1, {GUEST_MEMORY}")
        if size == 8:
            return value
        return self._new(f"{'sext' if signed else 'zext'} i{8 * size} {value} to i64")

    def store(self, address: Value, value: Value, size: int) -> None:
        """See Builder."""
        pointer = self._pointer(address)
        text = self._narrow(value, size)
        self.before_access()
        kind = "store volatile" if self.precise else "store"
        self._lines.append(f"{kind} i{8 * size} {text}, ptr {pointer}, align 1, {GUEST_MEMORY}")

    def _narrow(self, value: Value, size: int) -> str:
        return operand(value) if size == 8 else self._new(f"trunc i64 {operand(value)} to i{8 * size}")

    def fence(self) -> None:
        """See Builder."""
        self._lines.append("fence seq_cst")

    def _check_alignment(self, address: Value, size: int) -> str:
        """Misaligned atomic accesses are the interpreter's to refuse."""
        low = self._new(f"and i64 {operand(address)}, {size - 1}")
        self.interpret_if(self._new(f"icmp ne i64 {low}, 0"))
        return self._pointer(address)

    def load_reserved(self, address: Value, size: int) -> Value:
        """See Builder."""
        pointer = self._check_alignment(address, size)
        self.before_access()
        value: Value = self._new(f"load atomic i{8 * size}, ptr {pointer} seq_cst, align {size}")
        if size != 8:
            value = self._new(f"sext i32 {value} to i64")
        self._put(layout.RESERVED_ADDRESS, address)
        self._put(layout.RESERVED_VALUE, value)
        return value

    def store_conditional(self, address: Value, value: Value, size: int) -> Value:
        """See Builder."""
        pointer = self._check_alignment(address, size)
        reserved = self._new(f"load i64, ptr {self._state(layout.RESERVED_ADDRESS)}")
        expected: Value = self._new(f"load i64, ptr {self._state(layout.RESERVED_VALUE)}")
        held = self._new(f"icmp eq i64 {reserved}, {operand(address)}")
        nowhere = self._state(layout.EXIT)  # written instead where the reservation is another's
        where = self._new(f"select i1 {held}, ptr {pointer}, ptr {nowhere}")
        kind, stored = f"i{8 * size}", self._narrow(value, size)
        if size != 8:
            expected = self._new(f"trunc i64 {expected} to i32")
        self.before_access()
        pair = self._new(
            f"cmpxchg ptr {where}, {kind} {operand(expected)}, {kind} {stored} seq_cst seq_cst, align {size}"
        )
        done = self._new(f"and i1 {self._new(f'extractvalue {{{kind}, i1}} {pair}, 1')}, {held}")
        self._put(layout.RESERVED_ADDRESS, MASK)
        return self._new(f"zext i1 {self._new(f'xor i1 {done}, true')} to i64")

    def atomic(self, operation: str, address: Value, value: Value, size: int) -> Value:
        """See Builder."""
        pointer = self._check_alignment(address, size)
        kind, text = f"i{8 * size}", self._narrow(value, size)
        self.before_access()
        old = self._new(f"atomicrmw {ATOMIC[operation]} ptr {pointer}, {kind} {text} seq_cst, align {size}")
        return old if size == 8 else self._new(f"sext i32 {old} to i64")

    def counter(self, name: Literal["cycle", "time", "instructions"]) -> Value:
        """See Builder."""
        raise Interpret
