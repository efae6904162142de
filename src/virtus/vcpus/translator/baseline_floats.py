"""The quick translator's floating point: scalar SSE, with the guest's flags and rounding mode in MXCSR.

A float is the number of a vector register. Results that are NaN are made the canonical one. What the host does
otherwise than RISC-V, and what is rare, is left to the interpreter, while running where only the operands can tell.
"""

from collections.abc import Callable
from typing import Final

from virtus.isa.builder import DOWN, DYNAMIC, NEAREST_AWAY, NEAREST_EVEN, TOWARDS_ZERO, UP, Format
from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import host_has
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.baseline_values import STATE, WORD, Condition, Interpret, Value
from virtus.vcpus.translator.baseline_words import Words

CANONICAL: Final = {"s": 0x7FC00000, "d": 0x7FF8000000000000}
OPERATIONS: Final = {"add": 0x58, "mul": 0x59, "sub": 0x5C, "div": 0x5E}
SQUARE_ROOT, CONVERT, MINIMUM, MAXIMUM, ADD, ANDPS, ORPS = 0x51, 0x5A, 0x5D, 0x5F, 0x58, 0x54, 0x56
FUSED: Final = {(False, False): 0xA9, (False, True): 0xAB, (True, False): 0xAD, (True, True): 0xAF}
"""By negated product and negated addend."""
ROUNDS: Final = {NEAREST_EVEN: 0, DOWN: 1, UP: 2, TOWARDS_ZERO: 3, DYNAMIC: 4}
"""Operands of roundsd (Intel SDM volume 2, ROUNDPD, table 4-23)."""
QUIETLY: Final = 8
"""Added to them: inexact is not flagged."""
TWO_TO_63: Final = {"s": 0x5F000000, "d": 0x43E0000000000000}
INDEFINITE: Final = 1 << 63
"""What the host makes of a number that does not fit; for 32 bits, the upper half of this."""

GUEST_BITS: Final = (4, -1, 3, 2, 1, 0)
"""For each of MXCSR's flags IE, DE, ZE, OE, UE, PE the guest's bit (`isa.builder`)."""
ALL_FLAGS: Final = 0x3F
CONTROLS: Final = 0b10_01_11_00
"""MXCSR's rounding control for the modes 3, 2, 1, 0."""
CONTROL_SHIFT: Final = 13


class Floats(Words):
    """The builder's methods for floats."""

    interpret_if: Callable[[int], None]

    def _rounds(self, rounding: int) -> None:
        """The host rounds as the thread says; an instruction's own mode must happen to be that one."""
        if rounding == NEAREST_AWAY:
            raise Interpret
        if rounding != DYNAMIC:
            self.a.compare_half(STATE, WORD * layout.ROUNDING, rounding)
            self.interpret_if(x86.NOT_EQUAL)

    def get_float(self, register: int, format: Format) -> int:
        """See Builder."""
        a, found = self.a, self.values.vector()
        a.vector_load(found, STATE, WORD * register, double=format == "d")
        if format == "s":
            bits = self.values.scratch()
            a.compare_half(STATE, WORD * register + 4, -1)
            boxed = a.skip_if(x86.EQUAL)
            self._load_bits(found, CANONICAL["s"], bits)
            a.land(boxed)
        return found

    def _load_bits(self, vector: int, bits: int, scratch: int) -> None:
        self.a.constant(scratch, bits)
        self.a.vector_from_bits(vector, scratch)

    def float_bits(self, register: int, format: Format) -> Value:
        """See Builder."""
        a, bits = self.a, self.values.new()
        a.load_sized(bits.register, STATE, WORD * register, 8 if format == "d" else 4, signed=False)
        if format == "s":
            a.compare_half(STATE, WORD * register + 4, -1)
            boxed = a.skip_if(x86.EQUAL)
            a.constant(bits.register, CANONICAL["s"])
            a.land(boxed)
        return bits

    def set_float(self, register: int, value: int, format: Format) -> None:
        """See Builder."""
        self.a.vector_store(STATE, WORD * register, value, double=format == "d")
        if format == "s":
            self.a.store_half(STATE, WORD * register + 4, -1)
        self.changed = True

    def _is_nan(self, value: int, format: Format, condition: int) -> int:
        """Compare it with itself, and skip what follows on PARITY (it is NaN) or NO_PARITY."""
        self.a.vector_compare(value, value, double=format == "d", signals=False)
        return self.a.skip_if(condition)

    def _canonical(self, value: int, format: Format) -> int:
        """A result of arithmetic, any NaN made the canonical one."""
        scratch = self.values.scratch()
        number = self._is_nan(value, format, x86.NO_PARITY)
        self._load_bits(value, CANONICAL[format], scratch)
        self.a.land(number)
        return value

    def _copy(self, value: int) -> int:
        copied = self.values.vector()
        self.a.vector_move(copied, value)
        return copied

    def float_operation(self, operation: str, x: int, y: int, format: Format, rounding: int) -> int:
        """See Builder."""
        self._rounds(rounding)
        result = self._copy(x)
        self.a.vector_scalar(OPERATIONS[operation], result, y, double=format == "d")
        return self._canonical(result, format)

    def square_root(self, x: int, format: Format, rounding: int) -> int:
        """See Builder."""
        self._rounds(rounding)
        result = self._copy(x)
        self.a.vector_scalar(SQUARE_ROOT, result, x, double=format == "d")
        return self._canonical(result, format)

    def multiply_add(
        self, x: int, y: int, z: int, format: Format, rounding: int, *, negate_product: bool, negate_addend: bool
    ) -> int:
        """See Builder. A NaN is left to the interpreter: the host does not flag 0·∞ beside a quiet NaN."""
        if not host_has("fma"):
            raise Interpret
        self._rounds(rounding)
        double = format == "d"
        result = self._copy(x)
        self.a.vector_fused(FUSED[negate_product, negate_addend], result, y, z, double=double)
        self.a.vector_compare(result, result, double=double, signals=False)
        self.interpret_if(x86.PARITY)
        return result

    def _extreme(self, x: int, y: int, format: Format, *, greater: bool) -> int:
        """Equal operands may be zeros of different signs: their bits decide."""
        a, double, scratch = self.a, format == "d", self.values.scratch()
        result = self._copy(x)
        a.vector_compare(x, y, double=double, signals=False)
        unordered = a.skip_if(x86.PARITY)
        differ = a.skip_if(x86.NOT_EQUAL)
        a.vector_logic(ANDPS if greater else ORPS, result, y)
        equal = a.skip()
        a.land(differ)
        a.vector_scalar(MAXIMUM if greater else MINIMUM, result, y, double=double)
        chosen = a.skip()
        a.land(unordered)
        left = self._is_nan(result, format, x86.NO_PARITY)
        a.vector_move(result, y)
        right = self._is_nan(result, format, x86.NO_PARITY)
        self._load_bits(result, CANONICAL[format], scratch)
        for skipped in (equal, chosen, left, right):
            a.land(skipped)
        return result

    def float_minimum(self, x: int, y: int, format: Format) -> int:
        """See Builder."""
        return self._extreme(x, y, format, greater=False)

    def float_maximum(self, x: int, y: int, format: Format) -> int:
        """See Builder."""
        return self._extreme(x, y, format, greater=True)

    def float_compare(self, predicate: str, x: int, y: int, format: Format) -> Condition:
        """See Builder."""
        a, double, result = self.a, format == "d", self.values.new()
        if predicate == "eq":
            a.constant(result.register, 0)
            a.vector_compare(x, y, double=double, signals=False)
            unordered = a.skip_if(x86.PARITY)
            a.set_if(x86.EQUAL, result.register)
            a.land(unordered)
        else:
            a.vector_compare(y, x, double=double, signals=True)
            a.set_if(x86.ABOVE if predicate == "lt" else x86.ABOVE_EQUAL, result.register)
        return Condition(x86.NOT_EQUAL, result, 0)

    def float_class(self, x: int, format: Format) -> Value:
        """See Builder. Rare, and long in host instructions."""
        raise Interpret

    def float_to_integer(self, x: int, format: Format, bits: int, *, signed: bool, rounding: int) -> Value:
        """See Builder. What does not fit is left to the interpreter, before anything is flagged that is not to be."""
        if rounding == NEAREST_AWAY or not host_has("sse4_1"):
            raise Interpret
        a, values, double = self.a, self.values, format == "d"
        wide = bits == 64 or not signed
        found = values.new()
        result = found.register
        if bits == 64 and not signed:
            self._interpret_from_two_to_63(x, format, result)
        whole = x
        if rounding != TOWARDS_ZERO or not signed:
            whole = values.vector()
            a.vector_round(whole, x, ROUNDS[rounding] + QUIETLY, double=double)
        a.vector_to_integer(result, whole, double=double, wide=wide, truncate=True)
        self._interpret_if_it_does_not_fit(result, bits, signed=signed)
        if whole != x:  # now that it fits, have it flagged as inexact if it is
            a.vector_to_integer(values.scratch(), x, double=double, wide=True, truncate=True)
        if bits == 32:
            a.extend(result, result, 32, signed=True)
        return found

    def _interpret_from_two_to_63(self, x: int, format: Format, scratch: int) -> None:
        limit = self.values.vector()
        self._load_bits(limit, TWO_TO_63[format], scratch)
        self.a.vector_compare(x, limit, double=format == "d", signals=False)
        self.interpret_if(x86.ABOVE_EQUAL)
        self.interpret_if(x86.PARITY)

    def _interpret_if_it_does_not_fit(self, result: int, bits: int, *, signed: bool) -> None:
        a, other = self.a, self.values.scratch()
        if not signed:
            a.move(other, result)
            a.shift(x86.SHR, other, 63 if bits == 64 else 32)
            self.interpret_if(x86.NOT_EQUAL)
            return
        if bits == 32:
            a.extend(other, result, 32, signed=True)
            a.arithmetic_immediate(x86.CMP, other, -(1 << 31))
        else:
            a.constant(other, INDEFINITE)
            a.arithmetic(x86.CMP, result, other)
        self.interpret_if(x86.EQUAL)

    def integer_to_float(self, x: Value, bits: int, *, signed: bool, format: Format, rounding: int) -> int:
        """See Builder."""
        if bits == 64 or format == "s":  # else it is exact
            self._rounds(rounding)
        a, values, double = self.a, self.values, format == "d"
        source, result = values.register(x), values.vector()
        a.vector_zero(result)  # the conversion keeps the upper half, and would wait for what was there
        if signed:
            a.vector_from_integer(result, source, double=double, wide=bits == 64)
            return result
        half = values.new().register
        if bits == 32:
            a.extend(half, source, 32, signed=False)
            a.vector_from_integer(result, half, double=double, wide=True)
            return result
        low = values.new().register
        a.test(source, source)
        large = a.skip_if(x86.SIGN)
        a.vector_from_integer(result, source, double=double, wide=True)
        done = a.skip()
        a.land(large)  # twice its half, where the bit that is lost still tells which way to round
        a.move(half, source)
        a.shift(x86.SHR, half, 1)
        a.move(low, source)
        a.arithmetic_immediate(x86.AND, low, 1)
        a.arithmetic(x86.OR, half, low)
        a.vector_from_integer(result, half, double=double, wide=True)
        a.vector_scalar(ADD, result, result, double=double)
        a.land(done)
        return result

    def convert(self, x: int, source: Format, target: Format, rounding: int) -> int:
        """See Builder."""
        if source == "d":  # the other way it is exact
            self._rounds(rounding)
        result = self.values.vector()
        self.a.vector_zero(result)
        self.a.vector_scalar(CONVERT, result, x, double=source == "d")
        return self._canonical(result, target)

    # The thread's flags and mode. MXCSR has the flags in another order (Intel SDM volume 1, figure 10-3).

    def _control(self) -> Value:
        """MXCSR."""
        found = self.values.new()
        self.a.store_control(STATE, WORD * layout.MXCSR)
        self.a.load_sized(found.register, STATE, WORD * layout.MXCSR, 4, signed=False)
        return found

    def _set_control(self, value: Value) -> None:
        self.a.store_sized(STATE, WORD * layout.MXCSR, self.values.register(value), 4)
        self.a.load_control(STATE, WORD * layout.MXCSR)
        self.changed = True

    def get_float_flags(self) -> Value:
        """See Builder."""
        control = self._control()
        found: Value = 0
        for host, guest in enumerate(GUEST_BITS):
            if guest >= 0:
                bit = self._moved(self.and_(control, 1 << host), guest - host)
                found = self.or_(found, bit)
        return found

    def _moved(self, value: Value, by: int) -> Value:
        return self.shift_left(value, by) if by >= 0 else self.shift_right(value, -by)

    def set_float_flags(self, value: Value) -> None:
        """See Builder."""
        control = self.and_(self._control(), ~ALL_FLAGS & 0xFFFFFFFF)
        for host, guest in enumerate(GUEST_BITS):
            if guest >= 0:
                bit = self._moved(self.and_(value, 1 << guest), host - guest)
                control = self.or_(control, bit)
        self._set_control(control)

    def get_rounding(self) -> Value:
        """See Builder."""
        found = self.values.new()
        self.a.load(found.register, STATE, WORD * layout.ROUNDING)
        return found

    def set_rounding(self, value: Value) -> None:
        """See Builder. A mode that the host lacks is the interpreter's, which keeps the thread while it is set."""
        if self.changed:
            raise Interpret
        mode = self.and_(value, 7)
        if type(mode) is int:
            if mode > UP:
                raise Interpret
        else:
            self.a.arithmetic_immediate(x86.CMP, self.values.register(mode), UP)
            self.interpret_if(x86.ABOVE)
        bits = self.and_(self.shift_right(CONTROLS, self.shift_left(mode, 1)), 3)
        control = self.and_(self._control(), ~(3 << CONTROL_SHIFT) & 0xFFFFFFFF)
        self._set_control(self.or_(control, self.shift_left(bits, CONTROL_SHIFT)))
        self.a.store(STATE, WORD * layout.ROUNDING, self.values.register(mode))
