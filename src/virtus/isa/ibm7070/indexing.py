"""Descriptions: index words (A22-7003, "Index-word codes").

An index word is a word of storage: its sign and positions 2 to 5 are the indexing portion, which is a signed number of
four digits, positions 6 to 9 the non-indexing portion, often a limit. Sums are taken modulo 10,000; one of zero keeps
the sign. The branches that compare go while the indexing portion is neither zero nor greater than the non-indexing
portion.
"""

from virtus.isa.builder import Bit, Builder, Word
from virtus.isa.ibm7070.accumulators import absolute, signed_result
from virtus.isa.ibm7070.decode import Instruction
from virtus.isa.ibm7070.digits import field, is_minus, magnitude, replaced, sign, signed
from virtus.isa.ibm7070.layout import LOCATIONS, address_of
from virtus.isa.ibm7070.meaning import (
    branch_target,
    effective,
    index_place,
    means,
    next_location,
    operand,
    spend,
    wrapped,
)
from virtus.isa.ibm7070.word import ALPHA, MINUS, SIGNS


def with_indexing(b: Builder, word: Word, portion: Word, bits: Word) -> Word:
    """An index word with another indexing portion and sign."""
    return b.or_(bits, replaced(b, magnitude(b, word), 2, 5, portion))


@means("XL", "XLIN")
def load(b: Builder, i: Instruction) -> None:
    """An index word from storage, as it is or with its portions interchanged."""
    word = operand(b, i).read()
    place = index_place(b, i).claim()
    if i.name == "XLIN":
        digits = magnitude(b, word)
        portion, rest = field(b, digits, 2, 5), field(b, digits, 6, 9)
        word = b.or_(sign(b, word), replaced(b, replaced(b, digits, 2, 5, rest), 6, 9, portion))
    spend(b, i)
    place.write(word)


@means("XU")
def unload(b: Builder, i: Instruction) -> None:
    """An index word to storage."""
    place = operand(b, i).claim()
    word = index_place(b, i).read()
    spend(b, i)
    place.write(word)


@means("XZA", "XZS")
def set_portion(b: Builder, i: Instruction) -> None:
    """The effective address becomes the indexing portion, plus (XZA) or minus (XZS)."""
    location = effective(b, i)
    place = index_place(b, i).claim()
    bits = b.const(MINUS if i.name == "XZS" else 0)
    word = with_indexing(b, place.read(), location, bits)
    spend(b, i)
    place.write(word)


@means("XA", "XS")
def add_to_portion(b: Builder, i: Instruction) -> None:
    """The effective address is added to the indexing portion, or subtracted from it."""
    location = effective(b, i)
    place = index_place(b, i).claim()
    word = place.read()
    minus = is_minus(b, word)
    portion = signed(b, field(b, magnitude(b, word), 2, 5), minus)
    total = b.add(portion, location) if i.name == "XA" else b.sub(portion, location)
    bits = signed_result(b, total, minus, b.and_(word, b.const(ALPHA)))
    word = with_indexing(b, word, wrapped(b, absolute(b, total)), bits)
    spend(b, i)
    place.write(word)


@means("XSN")
def set_other_portion(b: Builder, i: Instruction) -> None:
    """The effective address becomes the non-indexing portion."""
    location = effective(b, i)
    place = index_place(b, i).claim()
    word = place.read()
    new = b.or_(sign(b, word), replaced(b, magnitude(b, word), 6, 9, location))
    spend(b, i)
    place.write(new)


@means("BLX")
def branch_and_load(b: Builder, i: Instruction) -> None:
    """Branch, and keep the next location in an index word's indexing portion, plus."""
    target = branch_target(b, i)
    place = index_place(b, i).claim()
    word = with_indexing(b, place.read(), b.const(next_location(b)), b.const(0))
    spend(b, i)
    place.write(word)
    _go(b, i, target)


def _go(b: Builder, i: Instruction, target: Word) -> None:
    if i.index:
        b.jump_to(target)
    else:
        b.jump(known_target(i))


def known_target(i: Instruction) -> int:
    """Where a branch without index word goes."""
    return address_of(i.address)


@means("BXN", "BXM")
def branch_on_portion(b: Builder, i: Instruction) -> None:
    """Branch when the indexing portion is not zero (BXN), or minus (BXM)."""
    word = index_place(b, i).read()
    if i.name == "BXM":
        condition = is_minus(b, word)
    else:
        condition = b.compare("ne", field(b, magnitude(b, word), 2, 5), b.const(0))
    branch_if(b, i, condition)


@means("BIX", "BDX", "BCX")
def branch_compared(b: Builder, i: Instruction) -> None:
    """Add one to the indexing portion (BIX), subtract one (BDX) or neither (BCX); branch while it is within the
    limit."""
    target = branch_target(b, i)
    place = index_place(b, i)
    if i.name != "BCX":
        place.claim()
    word = place.read()
    digits = magnitude(b, word)
    portion, limit = field(b, digits, 2, 5), field(b, digits, 6, 9)
    if i.name != "BCX":
        step = 1 if i.name == "BIX" else LOCATIONS - 1
        portion = wrapped(b, b.add(portion, b.const(step)))
        place_word = b.or_(b.and_(word, b.const(SIGNS)), replaced(b, digits, 2, 5, portion))
    within = b.both(b.compare("ne", portion, b.const(0)), b.compare("uge", limit, portion))
    spend(b, i)
    if i.name != "BCX":
        place.write(place_word)
    _branch(b, i, within, target)


def branch_if(b: Builder, i: Instruction, condition: Bit) -> None:
    """The time, and a branch to the effective address."""
    target = branch_target(b, i)
    spend(b, i)
    _branch(b, i, condition, target)


def _branch(b: Builder, i: Instruction, condition: Bit, target: Word) -> None:
    if i.index:
        b.jump_to(b.select(condition, target, b.const(b.pc + i.size)))
    else:
        b.branch(condition, known_target(i))
