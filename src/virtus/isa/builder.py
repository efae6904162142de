"""What the meaning of an instruction is written in: a small builder, evaluated in more than one way.

An instruction set states each instruction once, as calls of these methods. Evaluated on integers they are the
interpreter; evaluated to machine code or to LLVM's language they are the translators. So a value is whatever the
evaluator makes of it, and a description only passes values on.

Three kinds of values: a `word` is 64 bits (arithmetic wraps), a `bit` is the outcome of a comparison, and a `float`
has a format, `"s"` (IEEE 754 binary32) or `"d"` (binary64). Registers are 64-bit slots numbered by the instruction set.

An instruction ends its block by exactly one of the methods under "Where it goes on", or by none of them: then the next
instruction follows. Everything before that one call has happened when it is made.
"""

from typing import Any, Final, Literal, Protocol

Word = Any
Bit = Any
Float = Any
Format = Literal["s", "d"]
Predicate = Literal["eq", "ne", "slt", "sge", "ult", "uge"]
AtomicOperation = Literal["add", "swap", "xor", "or", "and", "min", "max", "minu", "maxu"]
FloatOperation = Literal["add", "sub", "mul", "div"]
FloatPredicate = Literal["eq", "lt", "le"]

# How a floating-point result is rounded. The numbers are RISC-V's (unprivileged ISA, table "Rounding mode encoding"),
# the only instruction set so far that has them as numbers.
NEAREST_EVEN, TOWARDS_ZERO, DOWN, UP, NEAREST_AWAY, DYNAMIC = 0, 1, 2, 3, 4, 7
"""DYNAMIC: as the thread's current mode says."""

# Exception flags, accrued in the thread's state (IEEE 754-2019, 7; the bits are RISC-V's fflags).
INEXACT, UNDERFLOW, OVERFLOW, DIVIDE_BY_ZERO, INVALID = 1, 2, 4, 8, 16

ILLEGAL: Final = "illegal"
BREAKPOINT: Final = "breakpoint"


class Builder(Protocol):
    """See the module. `pc` is the address of the instruction that is being described."""

    pc: int

    # Registers and constants

    def const(self, value: int) -> Word:
        """A number; taken modulo 2**64."""
        ...

    def get(self, register: int) -> Word:
        """A register slot's 64 bits."""
        ...

    def set(self, register: int, value: Word) -> None:
        """Store into a register slot."""
        ...

    # Integers

    def add(self, a: Word, b: Word) -> Word: ...  # noqa: D102 # the usual meaning, modulo 2**64

    def sub(self, a: Word, b: Word) -> Word: ...  # noqa: D102 # likewise

    def mul(self, a: Word, b: Word) -> Word: ...  # noqa: D102 # likewise

    def and_(self, a: Word, b: Word) -> Word: ...  # noqa: D102 # likewise

    def or_(self, a: Word, b: Word) -> Word: ...  # noqa: D102 # likewise

    def xor(self, a: Word, b: Word) -> Word: ...  # noqa: D102 # likewise

    def multiply_high(self, a: Word, b: Word, *, signed_a: bool, signed_b: bool) -> Word:
        """The upper 64 bits of the 128-bit product."""
        ...

    def shift_left(self, a: Word, count: Word) -> Word:
        """`count` must be 0..63; so for the other shifts."""
        ...

    def shift_right(self, a: Word, count: Word) -> Word:
        """Zeros come in."""
        ...

    def shift_right_signed(self, a: Word, count: Word) -> Word:
        """Copies of the sign come in."""
        ...

    def divide(self, a: Word, b: Word, *, signed: bool) -> Word:
        """Towards zero. The description sees to it that `b` is not 0, and the quotient fits."""
        ...

    def remainder(self, a: Word, b: Word, *, signed: bool) -> Word:
        """With the sign of `a`. The same conditions."""
        ...

    def sign_extend(self, a: Word, bits: int) -> Word:
        """The low 8, 16 or 32 bits, signed."""
        ...

    def zero_extend(self, a: Word, bits: int) -> Word:
        """The low 8, 16 or 32 bits, unsigned."""
        ...

    def leading_zeros(self, a: Word, bits: int) -> Word:
        """Of the low 32 or all 64 bits; `bits` when they are all 0."""
        ...

    def trailing_zeros(self, a: Word, bits: int) -> Word:
        """Likewise from the other end."""
        ...

    def population(self, a: Word) -> Word:
        """How many of the 64 bits are set."""
        ...

    def swap_bytes(self, a: Word) -> Word:
        """The eight bytes in reverse."""
        ...

    # Bits

    def compare(self, predicate: Predicate, a: Word, b: Word) -> Bit:
        """`s` predicates take the words as signed, `u` as unsigned."""
        ...

    def both(self, a: Bit, b: Bit) -> Bit: ...  # noqa: D102 # and

    def either(self, a: Bit, b: Bit) -> Bit: ...  # noqa: D102 # or

    def word(self, a: Bit) -> Word:
        """1 or 0."""
        ...

    def select(self, condition: Bit, then: Word, otherwise: Word) -> Word:
        """One of two words; both have been computed."""
        ...

    # Memory. A bad access is the guest's fault at `pc`, with nothing of the instruction done.

    def load(self, address: Word, size: int, *, signed: bool = False) -> Word:
        """1, 2, 4 or 8 bytes, little-endian, aligned or not."""
        ...

    def store(self, address: Word, value: Word, size: int) -> None:
        """The low `size` bytes."""
        ...

    def fence(self) -> None:
        """Order all memory accesses before against all after."""
        ...

    def atomic(self, operation: AtomicOperation, address: Word, value: Word, size: int) -> Word:
        """Read, combine, write, in one (sequentially consistent); the old value, sign-extended. Size 4 or 8."""
        ...

    def load_reserved(self, address: Word, size: int) -> Word:
        """Load, sign-extended, and remember address and value for `store_conditional`."""
        ...

    def store_conditional(self, address: Word, value: Word, size: int) -> Word:
        """0 when stored, 1 when not. Succeeds only at the remembered address, where the value is still the same."""
        ...

    # Floating point. Results that are not a number are the canonical quiet NaN; flags accrue in the thread's state.

    def get_float(self, register: int, format: Format) -> Float:
        """A register slot as a float; an `"s"` that is not boxed in ones (NaN boxing) reads as the canonical NaN."""
        ...

    def float_bits(self, register: int, format: Format) -> Word:
        """The bits of such a float: the slot's for `"d"`, for `"s"` the low 32 bits, or the canonical NaN's."""
        ...

    def set_float(self, register: int, value: Float, format: Format) -> None:
        """Store a float, `"s"` boxed in ones."""
        ...

    def float_operation(self, operation: FloatOperation, a: Float, b: Float, format: Format, rounding: int) -> Float:
        """Sum, difference, product, quotient."""
        ...

    def square_root(self, a: Float, format: Format, rounding: int) -> Float: ...  # noqa: D102 # as it says

    def multiply_add(
        self, a: Float, b: Float, c: Float, format: Format, rounding: int, *, negate_product: bool, negate_addend: bool
    ) -> Float:
        """±(a·b) ± c with a single rounding. 0·∞ is invalid, even with a quiet NaN to add."""
        ...

    def float_minimum(self, a: Float, b: Float, format: Format) -> Float:
        """IEEE 754-2019 minimumNumber: a number beats a quiet NaN, -0 is less than +0; signalling NaN is invalid."""
        ...

    def float_maximum(self, a: Float, b: Float, format: Format) -> Float:
        """Likewise maximumNumber."""
        ...

    def float_compare(self, predicate: FloatPredicate, a: Float, b: Float, format: Format) -> Bit:
        """False for NaN. `eq` is quiet (invalid for signalling NaN only), `lt` and `le` signal for every NaN."""
        ...

    def float_class(self, a: Float, format: Format) -> Word:
        """RISC-V's fclass mask: bits -∞, -normal, -subnormal, -0, +0, +subnormal, +normal, +∞, sNaN, qNaN."""
        ...

    def float_to_integer(self, a: Float, format: Format, bits: int, *, signed: bool, rounding: int) -> Word:
        """To 32 or 64 bits; out of range saturates and NaN is the greatest, both invalid. 32 bits: sign-extended."""
        ...

    def integer_to_float(self, a: Word, bits: int, *, signed: bool, format: Format, rounding: int) -> Float:
        """From the low 32 or all 64 bits."""
        ...

    def convert(self, a: Float, source: Format, target: Format, rounding: int) -> Float:
        """From one format to the other."""
        ...

    def get_float_flags(self) -> Word:
        """The accrued exception flags (INEXACT ... INVALID)."""
        ...

    def set_float_flags(self, value: Word) -> None:
        """Replace the accrued flags; higher bits are ignored."""
        ...

    def get_rounding(self) -> Word:
        """The thread's rounding mode, 0..7 (5 and up are invalid: an operation that rounds by them is illegal)."""
        ...

    def set_rounding(self, value: Word) -> None:
        """Set it from the low three bits."""
        ...

    # Counters

    def counter(self, name: Literal["cycle", "time", "instructions"]) -> Word:
        """A counter of the processor's: it only grows. `time` is in units of 100 ns."""
        ...

    # Where it goes on

    def jump(self, target: int) -> None:
        """To a known address."""
        ...

    def branch(self, condition: Bit, target: int) -> None:
        """To `target` when the bit is set, else on to the next instruction."""
        ...

    def jump_to(self, target: Word, *, is_return: bool = False) -> None:
        """To a computed address; `is_return` is a hint that it ends a called function."""
        ...

    def call(self, target: int, link: int) -> None:
        """To a known function that is expected to come back to `link` (a hint: it is a jump)."""
        ...

    def call_to(self, target: Word, link: int) -> None:
        """Likewise to a computed address."""
        ...

    def system_call(self) -> None:
        """Ask the system; it goes on at the next instruction, unless the system says otherwise."""
        ...

    def flush_instructions(self) -> None:
        """Instructions fetched from here on see the stores made before (RISC-V's fence.i)."""
        ...

    def trap(self, kind: Literal["illegal", "breakpoint"]) -> None:
        """The instruction is a fault of this kind, at its own address."""
        ...

    def leave_if(self, condition: Bit, reason: int) -> None:
        """When the bit is set, come out with `reason` (a number of the instruction set's own; the personality knows
        it), and go on where the personality says; else the rest of the instruction follows. Not an end of a block.
        Registers set before are set; `pc` is this instruction's."""
        ...
