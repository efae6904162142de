"""The part of the evaluator on integers that computes words and bits, and knows no thread."""

from typing import Final

from virtus.isa.builder import Predicate

ONES: Final = 2**64 - 1
SIGN: Final = 1 << 63
ALL: Final = 1 << 64


class Words:
    """See `virtus.isa.builder.Builder` for what is not documented here."""

    def const(self, value: int) -> int:  # noqa: D102 # see Builder; likewise below
        return value & ONES

    # Integers

    def add(self, a: int, b: int) -> int:  # noqa: D102
        return a + b & ONES

    def sub(self, a: int, b: int) -> int:  # noqa: D102
        return a - b & ONES

    def mul(self, a: int, b: int) -> int:  # noqa: D102
        return a * b & ONES

    def and_(self, a: int, b: int) -> int:  # noqa: D102
        return a & b

    def or_(self, a: int, b: int) -> int:  # noqa: D102
        return a | b

    def xor(self, a: int, b: int) -> int:  # noqa: D102
        return a ^ b

    def multiply_high(self, a: int, b: int, *, signed_a: bool, signed_b: bool) -> int:  # noqa: D102
        if signed_a and a & SIGN:
            a -= ALL
        if signed_b and b & SIGN:
            b -= ALL
        return a * b >> 64 & ONES

    def shift_left(self, a: int, count: int) -> int:  # noqa: D102
        return a << count & ONES

    def shift_right(self, a: int, count: int) -> int:  # noqa: D102
        return a >> count

    def shift_right_signed(self, a: int, count: int) -> int:  # noqa: D102
        return (a ^ SIGN) - SIGN >> count & ONES

    def divide(self, a: int, b: int, *, signed: bool) -> int:  # noqa: D102
        if signed:
            a, b = (a ^ SIGN) - SIGN, (b ^ SIGN) - SIGN
            quotient = abs(a) // abs(b)
            return (quotient if (a < 0) == (b < 0) else -quotient) & ONES
        return a // b

    def remainder(self, a: int, b: int, *, signed: bool) -> int:  # noqa: D102
        if signed:
            a, b = (a ^ SIGN) - SIGN, (b ^ SIGN) - SIGN
            rest = abs(a) % abs(b)
            return (rest if a >= 0 else -rest) & ONES
        return a % b

    def sign_extend(self, a: int, bits: int) -> int:  # noqa: D102
        sign = 1 << bits - 1
        return (a & (sign << 1) - 1 ^ sign) - sign & ONES

    def zero_extend(self, a: int, bits: int) -> int:  # noqa: D102
        return a & (1 << bits) - 1

    def leading_zeros(self, a: int, bits: int) -> int:  # noqa: D102
        return bits - (a & (1 << bits) - 1).bit_length()

    def trailing_zeros(self, a: int, bits: int) -> int:  # noqa: D102
        a |= 1 << bits
        return (a & -a).bit_length() - 1

    def population(self, a: int) -> int:  # noqa: D102
        return a.bit_count()

    def swap_bytes(self, a: int) -> int:  # noqa: D102
        return int.from_bytes(a.to_bytes(8, "little"), "big")

    # Bits

    def compare(self, predicate: Predicate, a: int, b: int) -> bool:  # noqa: D102
        if predicate == "eq":
            return a == b
        if predicate == "ne":
            return a != b
        if predicate == "ult":
            return a < b
        if predicate == "uge":
            return a >= b
        if predicate == "slt":
            return a ^ SIGN < b ^ SIGN
        return a ^ SIGN >= b ^ SIGN

    def both(self, a: bool, b: bool) -> bool:  # noqa: D102
        return a and b

    def either(self, a: bool, b: bool) -> bool:  # noqa: D102
        return a or b

    def word(self, a: bool) -> int:  # noqa: D102
        return 1 if a else 0

    def select(self, condition: bool, then: int, otherwise: int) -> int:  # noqa: D102
        return then if condition else otherwise
