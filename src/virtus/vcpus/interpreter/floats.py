"""The floating-point part of the evaluator on integers: exact arithmetic, and the thread's flags and rounding mode.

Programs spend their time on results that are rounded to nearest and are neither tiny, nor huge, nor special; and once
the sticky inexact flag is set these change no flag. Those are left to the host's arithmetic, which rounds them alike.
"""

import struct
from collections.abc import Callable, MutableSequence
from math import sqrt
from typing import Final

from virtus.isa.builder import DYNAMIC, INEXACT, NEAREST_AWAY, NEAREST_EVEN, FloatOperation, FloatPredicate, Format
from virtus.vcpus.interpreter import softfloat
from virtus.vcpus.interpreter.outcome import CameOut
from virtus.vcpus.interpreter.softfloat import DOUBLE, SINGLE, FloatFormat
from virtus.vcpus.translator import float_state
from virtus.vcpus.translator.layout import EXIT_ILLEGAL, MXCSR, ROUNDING

ONES: Final = 2**64 - 1
BOX: Final = 0xFFFFFFFF00000000
FORMATS: Final[dict[str, FloatFormat]] = {"s": SINGLE, "d": DOUBLE}
OPERATIONS: Final = {
    "add": softfloat.add,
    "sub": softfloat.subtract,
    "mul": softfloat.multiply,
    "div": softfloat.divide,
}
COMPARISONS: Final = {"eq": softfloat.equal, "lt": softfloat.less, "le": softfloat.less_equal}
HOST: Final[dict[str, Callable[[float, float], float]]] = {
    "add": float.__add__,
    "sub": float.__sub__,
    "mul": float.__mul__,
    "div": float.__truediv__,
}
_BITS: Final = {"s": struct.Struct("<I"), "d": struct.Struct("<Q")}
_VALUE: Final = {"s": struct.Struct("<f"), "d": struct.Struct("<d")}
_INEXACT: Final = float_state.accrued(INEXACT)


def _plain(value: float, format: Format) -> int | None:
    """A result of the host's as bits, if it is normal and not the smallest: rounded from neither tiny nor huge."""
    try:
        bits: int = _BITS[format].unpack(_VALUE[format].pack(value))[0]
    except OverflowError:
        return None
    form = FORMATS[format]
    return bits if form.hidden << 1 <= bits & ~form.sign < form.infinity else None


class Floats:
    """See `virtus.isa.builder.Builder` for what is not documented here."""

    registers: MutableSequence[int] | memoryview

    def _mode(self, rounding: int) -> int:
        """The rounding mode of an instruction; without a valid one it is illegal."""
        if rounding == DYNAMIC:
            rounding = self.registers[ROUNDING]
        if rounding > NEAREST_AWAY:
            raise CameOut(EXIT_ILLEGAL)
        return rounding

    def _raise(self, flags: int) -> None:
        if flags:
            self.registers[MXCSR] |= float_state.accrued(flags)

    def _of_host(self, mode: int) -> bool:
        """Whether the host's result will do, if it is a plain one."""
        return mode == NEAREST_EVEN and bool(self.registers[MXCSR] & _INEXACT)

    def get_float(self, register: int, format: Format) -> int:  # noqa: D102 # see Builder; likewise below
        bits = self.registers[register]
        if format == "d":
            return bits
        return bits ^ BOX if bits >= BOX else SINGLE.nan

    float_bits = get_float

    def set_float(self, register: int, value: int, format: Format) -> None:  # noqa: D102
        self.registers[register] = value if format == "d" else value | BOX

    def float_operation(self, operation: FloatOperation, a: int, b: int, format: Format, rounding: int) -> int:  # noqa: D102
        mode = self._mode(rounding)
        if self._of_host(mode):
            bits, value = _BITS[format], _VALUE[format]
            (x,), (y,) = value.unpack(bits.pack(a)), value.unpack(bits.pack(b))
            # A double's precision is more than twice a single's: rounding to both is rounding to the single at once.
            if y or operation != "div":
                plain = _plain(HOST[operation](x, y), format)
                if plain is not None:
                    return plain
        result, flags = OPERATIONS[operation](a, b, FORMATS[format], mode)
        self._raise(flags)
        return result

    def square_root(self, a: int, format: Format, rounding: int) -> int:  # noqa: D102
        mode = self._mode(rounding)
        if self._of_host(mode) and a < FORMATS[format].sign:
            plain = _plain(sqrt(_VALUE[format].unpack(_BITS[format].pack(a))[0]), format)
            if plain is not None:
                return plain
        result, flags = softfloat.square_root(a, FORMATS[format], mode)
        self._raise(flags)
        return result

    def multiply_add(  # noqa: D102
        self, a: int, b: int, c: int, format: Format, rounding: int, *, negate_product: bool, negate_addend: bool
    ) -> int:
        form = FORMATS[format]
        if negate_product:
            a ^= form.sign
        if negate_addend:
            c ^= form.sign
        result, flags = softfloat.multiply_add(a, b, c, form, self._mode(rounding))
        self._raise(flags)
        return result

    def float_minimum(self, a: int, b: int, format: Format) -> int:  # noqa: D102
        result, flags = softfloat.minimum(a, b, FORMATS[format])
        self._raise(flags)
        return result

    def float_maximum(self, a: int, b: int, format: Format) -> int:  # noqa: D102
        result, flags = softfloat.maximum(a, b, FORMATS[format])
        self._raise(flags)
        return result

    def float_compare(self, predicate: FloatPredicate, a: int, b: int, format: Format) -> bool:  # noqa: D102
        result, flags = COMPARISONS[predicate](a, b, FORMATS[format])
        self._raise(flags)
        return result

    def float_class(self, a: int, format: Format) -> int:  # noqa: D102
        return softfloat.classify(a, FORMATS[format])

    def float_to_integer(self, a: int, format: Format, bits: int, *, signed: bool, rounding: int) -> int:  # noqa: D102
        result, flags = softfloat.to_integer(a, FORMATS[format], bits, self._mode(rounding), signed=signed)
        self._raise(flags)
        sign = 1 << bits - 1
        return (result & (sign << 1) - 1 ^ sign) - sign & ONES

    def integer_to_float(self, a: int, bits: int, *, signed: bool, format: Format, rounding: int) -> int:  # noqa: D102
        value, sign = a & (1 << bits) - 1, 1 << bits - 1
        if signed:
            value = (value ^ sign) - sign
        result, flags = softfloat.from_integer(value, FORMATS[format], self._mode(rounding))
        self._raise(flags)
        return result

    def convert(self, a: int, source: Format, target: Format, rounding: int) -> int:  # noqa: D102
        result, flags = softfloat.convert(a, FORMATS[source], FORMATS[target], self._mode(rounding))
        self._raise(flags)
        return result

    def get_float_flags(self) -> int:  # noqa: D102
        return float_state.flags(self.registers[MXCSR])

    def set_float_flags(self, value: int) -> None:  # noqa: D102
        self.registers[MXCSR] = float_state.with_flags(self.registers[MXCSR], value)

    def get_rounding(self) -> int:  # noqa: D102
        return self.registers[ROUNDING]

    def set_rounding(self, value: int) -> None:  # noqa: D102
        self.registers[ROUNDING] = value & 7
        self.registers[MXCSR] = float_state.with_rounding(self.registers[MXCSR], value & 7)
