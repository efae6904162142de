"""The quick translator's floating point: scalar SSE, with the guest's flags and rounding mode in MXCSR.

Results that are NaN are made the canonical one; what the host does otherwise than RISC-V (and what is rare) goes to the
interpreter, while running where only the operands can tell.
"""

import struct
from collections.abc import Callable
from typing import Final

from virtus.isa.builder import DYNAMIC, TOWARDS_ZERO, Format
from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler, host_has
from virtus.vcpus.translator.baseline_values import STATE, Condition, Temporary, Value, Values
from virtus.vcpus.translator.baseline_words import Interpret

CANONICAL: Final = {"s": (0x7FC00000).to_bytes(4, "little"), "d": (0x7FF8000000000000).to_bytes(8, "little")}
OPERATIONS: Final = {"add": 0x58, "mul": 0x59, "sub": 0x5C, "div": 0x5E}
SQUARE_ROOT, CONVERT, MINIMUM, MAXIMUM, ANDPS, ORPS = 0x51, 0x5A, 0x5D, 0x5F, 0x54, 0x56
FUSED: Final = {(False, False): 0xA9, (False, True): 0xAB, (True, False): 0xAD, (True, True): 0xAF}
"""By negated product and negated addend."""
HALF_LOWEST: Final = -(1 << 31)
WORD_LOWEST: Final = 1 << 63
WORD: Final = 8


class Vector:
    """A float in a vector register."""

    __slots__ = ("register",)

    def __init__(self, register: int) -> None:
        self.register = register


class Floats:
    """The builder's methods for floats."""

    a: Assembler
    values: Values
    interpret_cold: Callable[[int], None]
    out_of_line: Callable[[Callable[[], None]], None]
    data: Callable[[bytes], int]
    _vectors = 0

    def _vector(self) -> Vector:
        self._vectors = (self._vectors + 1) & 15
        return Vector(self._vectors)

    @staticmethod
    def _rounds(rounding: int, *, exact: bool = False) -> None:
        if rounding != DYNAMIC and not exact:
            raise Interpret

    def get_float(self, register: int, format: Format) -> Vector:
        """See Builder."""
        a, found = self.a, self._vector()
        a.vector_load(found.register, STATE, WORD * register, double=format == "d")
        if format == "s":
            unboxed, back = a.label(), a.label()
            a.compare_half(STATE, WORD * register + 4, -1)
            a.jump_if(x86.NOT_EQUAL, unboxed)
            a.place(back)
            canonical = self.data(CANONICAL["s"])

            def cold() -> None:
                a.place(unboxed)
                a.vector_constant(found.register, canonical, double=False)
                a.jump(back)

            self.out_of_line(cold)
        return found

    def float_bits(self, register: int, format: Format) -> Value:
        """See Builder."""
        a, values = self.a, self.values
        if format == "d":
            return values.get(register)
        bits = values.new()
        unboxed, back = a.label(), a.label()
        a.load_sized(bits.register, STATE, WORD * register, 4, signed=False)
        a.compare_half(STATE, WORD * register + 4, -1)
        a.jump_if(x86.NOT_EQUAL, unboxed)
        a.place(back)
        where = bits.register

        def cold() -> None:
            a.place(unboxed)
            a.constant(where, int.from_bytes(CANONICAL["s"], "little"))
            a.jump(back)

        self.out_of_line(cold)
        return bits

    def set_float(self, register: int, value: Vector, format: Format) -> None:
        """See Builder."""
        self.values.lose(register)
        self.a.vector_store(STATE, WORD * register, value.register, double=format == "d")
        if format == "s":
            self.a.store_half(STATE, WORD * register + 4, -1)

    def _canonical(self, value: Vector, format: Format) -> Vector:
        """A result of arithmetic, any NaN made the canonical one."""
        a = self.a
        odd, back = a.label(), a.label()
        a.vector_compare(value.register, value.register, double=format == "d", signals=False)
        a.jump_if(x86.PARITY, odd)
        a.place(back)
        constant = self.data(CANONICAL[format])

        def cold() -> None:
            a.place(odd)
            a.vector_constant(value.register, constant, double=format == "d")
            a.jump(back)

        self.out_of_line(cold)
        return value

    def _copy(self, value: Vector) -> Vector:
        copied = self._vector()
        self.a.vector_move(copied.register, value.register)
        return copied

    def float_operation(self, operation: str, x: Vector, y: Vector, format: Format, rounding: int) -> Vector:
        """See Builder."""
        self._rounds(rounding)
        result = self._copy(x)
        self.a.vector_scalar(OPERATIONS[operation], result.register, y.register, double=format == "d")
        return self._canonical(result, format)

    def square_root(self, x: Vector, format: Format, rounding: int) -> Vector:
        """See Builder."""
        self._rounds(rounding)
        result = self._copy(x)
        self.a.vector_scalar(SQUARE_ROOT, result.register, x.register, double=format == "d")
        return self._canonical(result, format)

    def multiply_add(
        self,
        x: Vector,
        y: Vector,
        z: Vector,
        format: Format,
        rounding: int,
        *,
        negate_product: bool,
        negate_addend: bool,
    ) -> Vector:
        """See Builder. A NaN is left to the interpreter: the host does not flag 0·∞ beside a quiet NaN."""
        self._rounds(rounding)
        if not host_has("fma"):
            raise Interpret
        a, double = self.a, format == "d"
        result = self._copy(x)
        a.vector_fused(FUSED[negate_product, negate_addend], result.register, y.register, z.register, double=double)
        odd = a.label()
        a.vector_compare(result.register, result.register, double=double, signals=False)
        a.jump_if(x86.PARITY, odd)
        self.interpret_cold(odd)
        return result

    def _extreme(self, x: Vector, y: Vector, format: Format, *, greater: bool) -> Vector:
        """Equal operands may be zeros of different signs: their bits decide. NaN goes to the interpreter."""
        a, double = self.a, format == "d"
        odd, differ, done = a.label(), a.label(), a.label()
        result = self._copy(x)
        a.vector_compare(x.register, y.register, double=double, signals=False)
        a.jump_if(x86.PARITY, odd)
        a.jump_if(x86.NOT_EQUAL, differ)
        a.vector_logic(ANDPS if greater else ORPS, result.register, y.register)
        a.jump(done)
        a.place(differ)
        a.vector_scalar(MAXIMUM if greater else MINIMUM, result.register, y.register, double=double)
        a.place(done)
        self.interpret_cold(odd)
        return result

    def float_minimum(self, x: Vector, y: Vector, format: Format) -> Vector:
        """See Builder."""
        return self._extreme(x, y, format, greater=False)

    def float_maximum(self, x: Vector, y: Vector, format: Format) -> Vector:
        """See Builder."""
        return self._extreme(x, y, format, greater=True)

    def float_compare(self, predicate: str, x: Vector, y: Vector, format: Format) -> Condition:
        """See Builder."""
        a, values, double = self.a, self.values, format == "d"
        result = values.new()
        if predicate == "eq":
            values.pin(result.register)
            ordered = values.new()
            values.unpin()
            a.vector_compare(x.register, y.register, double=double, signals=False)
            a.set_if(x86.EQUAL, result.register)
            a.vector_compare(x.register, y.register, double=double, signals=False)
            a.set_if(x86.NO_PARITY, ordered.register)
            a.arithmetic(x86.AND, result.register, ordered.register)
        else:
            a.vector_compare(y.register, x.register, double=double, signals=True)
            a.set_if(x86.ABOVE if predicate == "lt" else x86.ABOVE_EQUAL, result.register)
        return Condition(x86.NOT_EQUAL, result, 0)

    def float_class(self, x: Vector, format: Format) -> Value:
        """See Builder."""
        raise Interpret

    def float_to_integer(self, x: Vector, format: Format, bits: int, *, signed: bool, rounding: int) -> Value:
        """See Builder. What is out of range (and unsigned what is close to it) is left to the interpreter."""
        if rounding not in (TOWARDS_ZERO, DYNAMIC):
            raise Interpret
        a, values, double = self.a, self.values, format == "d"
        result = values.new()
        register, odd = result.register, a.label()
        wide = bits == 64 or not signed
        if not signed:
            if rounding != TOWARDS_ZERO:
                raise Interpret
            self._below(x, 2.0**bits if bits == 32 else 2.0**63, format, odd)
        a.vector_to_integer(register, x.register, double=double, wide=wide, truncate=rounding == TOWARDS_ZERO)
        if signed:
            if bits == 32:
                a.extend(register, register, 32, signed=True)
                a.arithmetic_immediate(x86.CMP, register, HALF_LOWEST)
            else:
                values.pin(register)
                lowest = values.register(WORD_LOWEST)
                values.unpin()
                a.arithmetic(x86.CMP, register, lowest)
            a.jump_if(x86.EQUAL, odd)
        elif bits == 32:
            a.extend(register, register, 32, signed=True)
        self.interpret_cold(odd)
        return result

    def _below(self, x: Vector, limit: float, format: Format, odd: int) -> None:
        """To `odd` unless 0 <= x < limit."""
        a, double = self.a, format == "d"
        kind = "<d" if double else "<f"
        bound = self._vector()
        a.vector_constant(bound.register, self.data(struct.pack(kind, limit)), double=double)
        a.vector_compare(x.register, bound.register, double=double, signals=False)
        a.jump_if(x86.ABOVE_EQUAL, odd)
        a.vector_zero(bound.register)
        a.vector_compare(x.register, bound.register, double=double, signals=False)
        a.jump_if(x86.BELOW, odd)
        a.jump_if(x86.PARITY, odd)

    def integer_to_float(self, x: Value, bits: int, *, signed: bool, format: Format, rounding: int) -> Vector:
        """See Builder."""
        self._rounds(rounding, exact=bits == 32 and format == "d")
        a, values = self.a, self.values
        source = values.register(x)
        result = self._vector()
        if bits == 32 and not signed:
            values.pin(source)
            extended = values.new().register
            values.unpin()
            a.extend(extended, source, 32, signed=False)
            source = extended
        elif bits == 64 and not signed:
            odd = a.label()
            a.test(source, source)
            a.jump_if(x86.SIGN, odd)
            self.interpret_cold(odd)
        a.vector_zero(result.register)
        wide = bits == 64 or not signed
        a.vector_from_integer(result.register, source, double=format == "d", wide=wide)
        return result

    def convert(self, x: Vector, source: Format, target: Format, rounding: int) -> Vector:
        """See Builder."""
        self._rounds(rounding, exact=source == "s")
        result = self._vector()
        self.a.vector_zero(result.register)
        self.a.vector_scalar(CONVERT, result.register, x.register, double=source == "d")
        return self._canonical(result, target)

    def get_float_flags(self) -> Temporary:
        """See Builder."""
        raise Interpret

    def set_float_flags(self, value: Value) -> None:
        """See Builder."""
        raise Interpret

    def get_rounding(self) -> Value:
        """See Builder."""
        raise Interpret

    def set_rounding(self, value: Value) -> None:
        """See Builder."""
        raise Interpret
