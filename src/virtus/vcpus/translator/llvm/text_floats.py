"""The builder's floating point as LLVM's language.

The guest's flags and rounding mode are the thread's own MXCSR, which LLVM is told by constrained operations: it may
neither fold nor move them over each other, and they compile to the same host instructions. NaN is made canonical on a
path of its own, so that no result waits for the test.
"""

import struct
from collections.abc import Callable
from typing import Any, Final

from virtus.isa.builder import DYNAMIC, TOWARDS_ZERO, Format
from virtus.vcpus.translator.llvm.text_words import Interpret, Value, operand

TYPES: Final = {"s": "float", "d": "double"}
SUFFIXES: Final = {"s": "f32", "d": "f64"}
WIDTHS: Final = {"s": 32, "d": 64}
CANONICAL: Final = "0x7FF8000000000000"
BOX: Final = -(1 << 32)
STRICT: Final = 'metadata !"round.dynamic", metadata !"fpexcept.strict"'
QUIET: Final = 'metadata !"fpexcept.strict"'
HALF_LOWEST: Final = -(1 << 31)
WORD_LOWEST: Final = -(1 << 63)


class FloatText:
    """The builder's methods for floats; a float is the name of a float or double."""

    _lines: list[Any]
    _current: dict[int, Value]
    _new: Callable[[str], str]
    _name: Callable[[str], str]
    get: Callable[[int], Value]
    set: Callable[[int, Value], None]
    interpret_if: Callable[[str], None]

    _floats: dict[tuple[int, str], str]  # registers whose float is known, in this block

    def _floats_forget(self) -> None:
        self._floats = {}

    def _floats_lose(self, register: int) -> None:
        self._floats.pop((register, "s"), None)
        self._floats.pop((register, "d"), None)

    @staticmethod
    def _rounds(rounding: int, *, exact: bool = False) -> None:
        if rounding != DYNAMIC and not exact:
            raise Interpret

    def float_bits(self, register: int, format: Format) -> Value:
        """See Builder."""
        bits = self.get(register)
        if format == "d":
            return bits
        boxed = self._new(f"icmp uge i64 {operand(bits)}, {BOX}")
        low = self._new(f"and i64 {operand(bits)}, {(1 << 32) - 1}")
        return self._new(f"select i1 {boxed}, i64 {low}, i64 {0x7FC00000}")

    def get_float(self, register: int, format: Format) -> str:
        """See Builder."""
        known = self._floats.get((register, format))
        if known is not None:
            return known
        bits = self.float_bits(register, format)
        if format == "d":
            found = self._new(f"bitcast i64 {operand(bits)} to double")
        else:
            narrow = self._new(f"trunc i64 {operand(bits)} to i32")
            found = self._new(f"bitcast i32 {narrow} to float")
        self._floats[register, format] = found
        return found

    def set_float(self, register: int, value: str, format: Format) -> None:
        """See Builder."""
        if format == "d":
            bits = self._new(f"bitcast double {value} to i64")
        else:
            narrow = self._new(f"bitcast float {value} to i32")
            bits = self._new(f"or i64 {self._new(f'zext i32 {narrow} to i64')}, {BOX}")
        self.set(register, bits)
        self._floats[register, format] = value

    def _canonical(self, value: str, format: Format) -> str:
        kind = TYPES[format]
        odd = self._new(f"fcmp uno {kind} {value}, {value}")
        before, nan, after = self._name("cb"), self._name("cn"), self._name("ca")
        self._lines += [
            f"br label %{before}",
            f"{before}:",
            f"br i1 {odd}, label %{nan}, label %{after}, !prof !8",
            f"{nan}:",
            'call void asm sideeffect "", ""()',  # or LLVM makes a selection of it, for which all results wait
            f"br label %{after}",
            f"{after}:",
        ]
        return self._new(f"phi {kind} [ {value}, %{before} ], [ {CANONICAL}, %{nan} ]")

    def _constrained(self, name: str, format: Format, *values: str) -> str:
        kind = TYPES[format]
        arguments = ", ".join(f"{kind} {value}" for value in values)
        return self._new(f"call {kind} @llvm.experimental.constrained.{name}.{SUFFIXES[format]}({arguments}, {STRICT})")

    def float_operation(self, operation: str, a: str, b: str, format: Format, rounding: int) -> str:
        """See Builder."""
        self._rounds(rounding)
        return self._canonical(self._constrained(f"f{operation}", format, a, b), format)

    def square_root(self, a: str, format: Format, rounding: int) -> str:
        """See Builder."""
        self._rounds(rounding)
        return self._canonical(self._constrained("sqrt", format, a), format)

    def _negated(self, a: str, format: Format) -> str:
        return self._new(f"fneg {TYPES[format]} {a}")

    def multiply_add(
        self, a: str, b: str, c: str, format: Format, rounding: int, *, negate_product: bool, negate_addend: bool
    ) -> str:
        """See Builder. NaN is left to the interpreter: the host does not flag 0·∞ beside a quiet NaN."""
        self._rounds(rounding)
        if negate_product:
            a = self._negated(a, format)
        if negate_addend:
            c = self._negated(c, format)
        result = self._constrained("fma", format, a, b, c)
        self.interpret_if(self._new(f"fcmp uno {TYPES[format]} {result}, {result}"))
        return result

    def _extreme(self, a: str, b: str, format: Format, *, greater: bool) -> str:
        """Equal operands may be zeros of different signs: their bits decide."""
        kind, width = TYPES[format], WIDTHS[format]
        self.interpret_if(self._compared("fcmp", "uno", a, b, format))
        chosen = self._new(f"fcmp {'ogt' if greater else 'olt'} {kind} {a}, {b}")
        equal = self._new(f"fcmp oeq {kind} {a}, {b}")
        one = self._new(f"bitcast {kind} {a} to i{width}")
        other = self._new(f"bitcast {kind} {b} to i{width}")
        joined = self._new(f"{'and' if greater else 'or'} i{width} {one}, {other}")
        picked = self._new(f"select i1 {chosen}, i{width} {one}, i{width} {other}")
        bits = self._new(f"select i1 {equal}, i{width} {joined}, i{width} {picked}")
        return self._new(f"bitcast i{width} {bits} to {kind}")

    def float_minimum(self, a: str, b: str, format: Format) -> str:
        """See Builder."""
        return self._extreme(a, b, format, greater=False)

    def float_maximum(self, a: str, b: str, format: Format) -> str:
        """See Builder."""
        return self._extreme(a, b, format, greater=True)

    def _compared(self, name: str, predicate: str, a: str, b: str, format: Format) -> str:
        kind = TYPES[format]
        return self._new(
            f"call i1 @llvm.experimental.constrained.{name}.{SUFFIXES[format]}"
            f'({kind} {a}, {kind} {b}, metadata !"{predicate}", {QUIET})'
        )

    def float_compare(self, predicate: str, a: str, b: str, format: Format) -> str:
        """See Builder."""
        if predicate == "eq":
            return self._compared("fcmp", "oeq", a, b, format)
        return self._compared("fcmps", "olt" if predicate == "lt" else "ole", a, b, format)

    def float_class(self, a: str, format: Format) -> Value:
        """See Builder. The numbers are LLVM's test masks (`llvm.is.fpclass`) in the order of RISC-V's bits."""
        kind, result = TYPES[format], "0"
        for bit, mask in enumerate((4, 8, 16, 32, 64, 128, 256, 512, 1, 2)):
            found = self._new(f"call i1 @llvm.is.fpclass.{SUFFIXES[format]}({kind} {a}, i32 {mask})")
            result = self._new(f"select i1 {found}, i64 {1 << bit}, i64 {result}")
        return result

    def float_to_integer(self, a: str, format: Format, bits: int, *, signed: bool, rounding: int) -> Value:
        """See Builder. What is out of range (and unsigned what is close to it) is left to the interpreter."""
        if rounding not in (TOWARDS_ZERO, DYNAMIC) or (not signed and rounding == DYNAMIC):
            raise Interpret
        kind = TYPES[format]
        if not signed:
            limit = _constant(2.0**32 if bits == 32 else 2.0**63)
            high = self._compared("fcmp", "uge", a, limit, format)
            low = self._compared("fcmp", "ult", a, _constant(0.0), format)
            self.interpret_if(self._new(f"or i1 {high}, {low}"))
        lanes = 2 if format == "d" else 4
        vector = self._new(f"insertelement <{lanes} x {kind}> zeroinitializer, {kind} {a}, i32 0")
        wide = bits == 64 or not signed
        truncates = "cvtt" if rounding == TOWARDS_ZERO else "cvt"
        name = f"sse2.{truncates}sd2si" if format == "d" else f"sse.{truncates}ss2si"
        size = "i64" if wide else "i32"
        value = self._new(f"call {size} @llvm.x86.{name}{'64' if wide else ''}(<{lanes} x {kind}> {vector})")
        if signed:
            lowest = WORD_LOWEST if wide else HALF_LOWEST
            self.interpret_if(self._new(f"icmp eq {size} {value}, {lowest}"))
        if not wide:
            return self._new(f"sext i32 {value} to i64")
        if bits == 32:
            return self._new(f"sext i32 {self._new(f'trunc i64 {value} to i32')} to i64")
        return value

    def integer_to_float(self, a: Value, bits: int, *, signed: bool, format: Format, rounding: int) -> str:
        """See Builder."""
        self._rounds(rounding, exact=bits == 32 and format == "d")
        size, text = "i64", operand(a)
        if bits == 32:
            narrow = self._new(f"trunc i64 {text} to i32")
            if signed:
                size, text = "i32", narrow
            else:
                text = self._new(f"zext i32 {narrow} to i64")
        elif not signed:
            self.interpret_if(self._new(f"icmp slt i64 {text}, 0"))
        name = f"sitofp.{SUFFIXES[format]}.{size}"
        return self._new(f"call {TYPES[format]} @llvm.experimental.constrained.{name}({size} {text}, {STRICT})")

    def convert(self, a: str, source: Format, target: Format, rounding: int) -> str:
        """See Builder."""
        self._rounds(rounding, exact=source == "s")
        if source == "s":
            result = self._new(f"call double @llvm.experimental.constrained.fpext.f64.f32(float {a}, {QUIET})")
        else:
            result = self._new(f"call float @llvm.experimental.constrained.fptrunc.f32.f64(double {a}, {STRICT})")
        return self._canonical(result, target)

    def get_float_flags(self) -> Value:
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


def _constant(value: float) -> str:
    """A number as LLVM writes floats and doubles alike: the bits of the double."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
