"""Descriptions: shifts of one accumulator and of the coupled accumulators 1 and 2.

What is shifted, how, and by how much stands in the address. An address with an index word may therefore mean any shift:
such an instruction comes out to be carried out once its address is known. Signs: one accumulator keeps its own; the
coupled ones both get accumulator 1's when shifted to the right, accumulator 2's to the left.

Rounding adds 5 to the first digit that is shifted out. A shift and count brings the first digit that is not zero to
the left, and puts the number of places into an index word; nothing but zeros counts as no place.
"""

from virtus.isa.builder import ILLEGAL, Builder, Word
from virtus.isa.ibm7070.decode import Instruction
from virtus.isa.ibm7070.digits import carried, leading_zeros, magnitude, power, quotient, remainder, replaced, sign
from virtus.isa.ibm7070.layout import AC1, AC2, RESOLVE
from virtus.isa.ibm7070.meaning import Place, assigned, index_place, means, spend
from virtus.isa.ibm7070.word import LIMIT, SIGNS

ACCUMULATOR_PLACES = 10
COUPLED_PLACES = 20


@means("SR1", "SR2", "SR3", "SRR1", "SRR2", "SRR3", "SL1", "SL2", "SL3", "SLC1", "SLC2", "SLC3")
def shift(b: Builder, i: Instruction) -> None:
    """One accumulator, which the address names."""
    if i.index:
        assigned(b, i, RESOLVE)
        return
    slot, count = AC1 + i.address // 1000 - 1, i.address % 100
    word = b.get(slot)
    digits = magnitude(b, word)
    if i.name.startswith("SLC"):
        place = index_place(b, i).claim()
        zero = b.compare("eq", digits, b.const(0))
        places = b.select(zero, b.const(0), leading_zeros(b, digits, ACCUMULATOR_PLACES))
        spend(b, i)
        b.set(slot, b.or_(sign(b, word), b.mul(digits, power(b, places))))
        _note_count(b, place, places)
        return
    if count > ACCUMULATOR_PLACES:
        b.trap(ILLEGAL)
        return
    if i.name.startswith("SL"):
        result = b.mul(remainder(b, digits, 10 ** (10 - count)), b.const(10**count)) if count < 10 else b.const(0)
    else:
        result = quotient(b, digits, 10**count)
        if i.name.startswith("SRR") and count:
            result = _rounded(b, digits, count)
    spend(b, i)
    b.set(slot, b.or_(sign(b, word), result))


def _rounded(b: Builder, digits: Word, count: int) -> Word:
    return quotient(b, b.add(digits, b.const(5 * 10 ** (count - 1))), 10**count)


def _note_count(b: Builder, place: Place, places: Word) -> None:
    """Into the indexing portion of an index word, which becomes plus."""
    word = b.and_(place.read(), b.const(~SIGNS))
    place.write(replaced(b, word, 2, 5, places))


@means("SR", "SRR", "SL", "SLC", "SRS", "SLS")
def coupled_shift(b: Builder, i: Instruction) -> None:
    """Accumulators 1 and 2 as twenty places, or the part of them to one side of a point."""
    if i.index:
        assigned(b, i, RESOLVE)
        return
    count, kind, point = i.address % 100, i.address // 100 % 10, i.address // 1000
    one, two = b.get(AC1), b.get(AC2)
    high, low = magnitude(b, one), magnitude(b, two)
    if i.name == "SLC":
        _shift_and_count(b, i, high, low)
        return
    if count > COUPLED_PLACES:
        b.trap(ILLEGAL)
        return
    if kind in (0, 1):
        high, low = _right(b, high, low, count, rounded=kind == 1)
    elif kind == 2:
        high, low = _left(b, high, low, count)
    else:
        high, low = _beside_point(b, high, low, count, point + (10 if kind in (6, 7) else 0), left=kind in (5, 7))
    bits = sign(b, one if kind in (0, 1, 4) else two)
    spend(b, i)
    b.set(AC1, b.or_(bits, high))
    b.set(AC2, b.or_(bits, low))


def _right(b: Builder, high: Word, low: Word, count: int, *, rounded: bool) -> tuple[Word, Word]:
    if not count:
        return high, low
    if count <= 10:
        out = b.add(low, b.const(5 * 10 ** (count - 1))) if rounded else low
        carry = b.const(0)
        if rounded:
            out, carry = carried(b, out)
        high, carry = carried(b, b.add(high, carry))
        top = quotient(b, high, 10**count)
        moved = b.mul(b.sub(high, b.mul(top, b.const(10**count))), b.const(10 ** (10 - count)))
        low = b.add(moved, quotient(b, out, 10**count))
        return b.add(top, b.mul(carry, b.const(10 ** (10 - count)))), low
    if rounded:
        high = b.add(high, b.const(5 * 10 ** (count - 11)))
    return b.const(0), quotient(b, high, 10 ** (count - 10))


def _left(b: Builder, high: Word, low: Word, count: int) -> tuple[Word, Word]:
    if count >= 20:
        return b.const(0), b.const(0)
    if count >= 10:
        return b.mul(remainder(b, low, 10 ** (20 - count)), b.const(10 ** (count - 10))), b.const(0)
    kept = b.mul(remainder(b, high, 10 ** (10 - count)), b.const(10**count))
    top = quotient(b, low, 10 ** (10 - count))
    rest = b.sub(low, b.mul(top, b.const(10 ** (10 - count))))
    return b.add(kept, top), b.mul(rest, b.const(10**count))


def _beside_point(b: Builder, high: Word, low: Word, count: int, point: int, *, left: bool) -> tuple[Word, Word]:
    """Right: the places from the point on, to the end of accumulator 2. Left: those before it, from the beginning of
    the accumulator that the point is in, or of accumulator 1 for one in accumulator 2. Others stay."""
    if left:
        if point <= 10:  # within accumulator 1
            after = 10 ** (10 - point)
            rest = remainder(b, high, after)
            before = quotient(b, high, after)
            if count >= point:
                return rest, low
            moved = b.mul(remainder(b, before, 10 ** (point - count)), b.const(10**count))
            return b.add(b.mul(moved, b.const(after)), rest), low
        width = point - 10
        after = 10 ** (10 - width)
        before, rest = quotient(b, low, after), remainder(b, low, after)
        # the places before the point as a number of 10 + width digits would need more than 64 bits: in two parts
        over, kept = _left_of(b, high, before, count, width)
        return over, b.add(b.mul(kept, b.const(after)), rest)
    if point >= 10:  # within accumulator 2
        after = 10 ** (20 - point)
        before = b.sub(low, remainder(b, low, after))
        return high, b.add(
            before, quotient(b, remainder(b, low, after), 10**count) if count < 20 - point else b.const(0)
        )
    after = 10 ** (10 - point)
    part = remainder(b, high, after)
    shifted_high, shifted_low = _right(b, part, low, count, rounded=False)
    return b.add(b.sub(high, part), shifted_high), shifted_low


def _left_of(b: Builder, high: Word, before: Word, count: int, width: int) -> tuple[Word, Word]:
    """Ten digits and `width` more, to the left by `count`; in the same two parts."""
    if count >= 10 + width:
        return b.const(0), b.const(0)
    if count >= width:
        into = b.mul(before, b.const(10 ** (count - width)))
        kept = b.mul(remainder(b, high, 10 ** (10 - count)), b.const(10**count)) if count < 10 else b.const(0)
        return remainder(b, b.add(kept, into), LIMIT), b.const(0)
    top = quotient(b, before, 10 ** (width - count))
    rest = b.sub(before, b.mul(top, b.const(10 ** (width - count))))
    kept = b.mul(remainder(b, high, 10 ** (10 - count)), b.const(10**count))
    return b.add(kept, top), b.mul(rest, b.const(10**count))


def _shift_and_count(b: Builder, i: Instruction, high: Word, low: Word) -> None:
    place = index_place(b, i).claim()
    bits = sign(b, b.get(AC2))
    empty = b.compare("eq", high, b.const(0))
    top, rest = b.select(empty, low, high), b.select(empty, b.const(0), low)
    nothing = b.compare("eq", top, b.const(0))
    places = b.select(nothing, b.const(0), leading_zeros(b, top, 10))
    factor = power(b, places)
    divisor = power(b, b.sub(b.const(10), places))
    into = b.divide(rest, divisor, signed=False)
    new_high = b.add(b.mul(top, factor), into)
    new_low = b.mul(b.sub(rest, b.mul(into, divisor)), factor)
    counted = b.add(places, b.select(b.both(empty, b.compare("ne", top, b.const(0))), b.const(10), b.const(0)))
    spend(b, i)
    b.set(AC1, b.or_(bits, new_high))
    b.set(AC2, b.or_(bits, new_low))
    _note_count(b, place, counted)
