"""Descriptions: loading, adding, storing and comparing (A22-7003, "Operations involving accumulators", "Logic codes").

An accumulator with an alpha sign counts as plus, and any sum with an alpha word is alpha. A sum of zero keeps the sign
of what was added to. A field takes the low digits of the accumulator; where the others are not all zero, that is field
overflow; a carry out of ten digits is accumulator overflow instead. Where a store gives a word another sign, and it
has digits beyond the field that are not zero, that is sign change. Either halts the machine before the store, or is
noted, as the program has said.
"""

from virtus.isa.builder import Bit, Builder, Word
from virtus.isa.ibm7070.decode import Instruction
from virtus.isa.ibm7070.digits import (
    carried,
    field,
    is_alpha,
    is_minus,
    magnitude,
    minus_sign,
    remainder,
    replaced,
    sign,
    signed,
)
from virtus.isa.ibm7070.layout import (
    AC1,
    COMPARED,
    EQUAL,
    FIELD_OVERFLOW,
    FIELD_OVERFLOWS,
    HALTS,
    HIGH,
    LOW,
    OVERFLOW1,
    SENSED,
    SIGN_CHANGE,
    SIGN_CHANGES,
)
from virtus.isa.ibm7070.meaning import accumulator, means, operand, spend
from virtus.isa.ibm7070.word import ALPHA, MINUS, SIGNS

THREE = (1, 2, 3)


def _each(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{number}" for name in names for number in THREE)


def letters(i: Instruction) -> str:
    """The mnemonic without the accumulator's number."""
    return i.name.rstrip("123")


@means(*_each("ZA", "ZS"), "ZAA", "ZSA")
def load(b: Builder, i: Instruction) -> None:
    """Zero accumulator and add, subtract, or with the sign made plus or minus."""
    word = operand(b, i).read()
    kind = letters(i)
    if kind == "ZA":
        new_sign = sign(b, word)
    elif kind == "ZS":
        numeric = b.compare("eq", b.and_(word, b.const(ALPHA)), b.const(0))
        new_sign = b.xor(sign(b, word), minus_sign(b, numeric))
    else:
        new_sign = b.const(MINUS if kind == "ZSA" else 0)
    if kind == "ZA" and (i.first, i.last) == (0, 9):
        result = word
    else:
        result = b.or_(new_sign, field(b, magnitude(b, word), i.first, i.last))
    spend(b, i)
    b.set(accumulator(i), result)


@means(*_each("A", "S"), "AA", "SA")
def add(b: Builder, i: Instruction) -> None:
    """Add to or subtract from an accumulator, or the digits alone."""
    word = operand(b, i).read()
    slot = accumulator(i)
    old = b.get(slot)
    kind = letters(i)
    digits = field(b, magnitude(b, word), i.first, i.last)
    addend = digits if kind in ("AA", "SA") else signed(b, digits, is_minus(b, word))
    if kind in ("S", "SA"):
        addend = b.sub(b.const(0), addend)
    minus = is_minus(b, old)
    total = b.add(signed(b, magnitude(b, old), minus), addend)
    digits, overflow = carried(b, absolute(b, total))
    alpha = b.and_(old if kind in ("AA", "SA") else b.or_(old, word), b.const(ALPHA))
    spend(b, i)
    b.set(slot, b.or_(signed_result(b, total, minus, alpha), digits))
    flag = OVERFLOW1 + slot - AC1
    b.set(flag, b.or_(b.get(flag), overflow))


def absolute(b: Builder, number: Word) -> Word:
    """Of a two's complement number."""
    return b.select(b.compare("slt", number, b.const(0)), b.sub(b.const(0), number), number)


def signed_result(b: Builder, total: Word, minus: Bit, alpha: Word) -> Word:
    """The sign of a sum: `minus` says what zero gets, `alpha` are the bits of an alpha sign or 0, which come first."""
    negative = b.word(b.compare("slt", total, b.const(0)))
    zero = b.compare("eq", total, b.const(0))
    bit = b.shift_left(b.select(zero, b.word(minus), negative), b.const(40))
    return b.select(b.compare("ne", alpha, b.const(0)), alpha, bit)


@means(*_each("AS", "AAS", "SS"))
def add_to_storage(b: Builder, i: Instruction) -> None:
    """A field plus the accumulator (AS), its digits alone plus the accumulator (AAS), or minus it (SS)."""
    place = operand(b, i).claim()
    word = place.read()
    slot = accumulator(i)
    added = b.get(slot)
    digits = magnitude(b, word)
    old = field(b, digits, i.first, i.last)
    minus = is_minus(b, word)
    amount = signed(b, magnitude(b, added), is_minus(b, added))
    kind = letters(i)
    if kind == "AAS":
        total = b.add(old, amount)
    elif kind == "AS":
        total = b.add(signed(b, old, minus), amount)
    else:
        total = b.sub(signed(b, old, minus), amount)
    ten, overflow = carried(b, absolute(b, total))
    limit = 10 ** (i.last - i.first + 1)
    too_long = b.compare("uge", ten, b.const(limit))
    if kind == "AAS":
        new_sign = sign(b, word)
    else:
        new_sign = signed_result(b, total, minus, b.and_(b.or_(word, added), b.const(ALPHA)))
    kept = remainder(b, ten, limit)
    changed = _sign_changed(b, i, digits, word, new_sign)
    _halt(b, too_long, changed)
    spend(b, i)
    place.write(b.or_(new_sign, replaced(b, digits, i.first, i.last, kept)))
    _note(b, too_long, changed)
    flag = OVERFLOW1 + slot - AC1
    b.set(flag, b.or_(b.get(flag), overflow))


def _sign_changed(b: Builder, i: Instruction, digits: Word, word: Word, new_sign: Word) -> Bit:
    """Whether digits beyond the field get another sign."""
    beyond = b.sub(digits, b.mul(field(b, digits, i.first, i.last), b.const(10 ** (9 - i.last))))
    differs = b.compare("ne", sign(b, word), new_sign)
    return b.both(differs, b.compare("ne", beyond, b.const(0)))


def _halt(b: Builder, too_long: Bit, changed: Bit | None) -> None:
    """Come out where the program wants overflow or sign change to halt the machine."""
    b.leave_if(b.both(too_long, b.compare("eq", b.get(FIELD_OVERFLOW), b.const(HALTS))), FIELD_OVERFLOWS)
    if changed is not None:
        b.leave_if(b.both(changed, b.compare("eq", b.get(SIGN_CHANGE), b.const(HALTS))), SIGN_CHANGES)


def _note(b: Builder, too_long: Bit, changed: Bit | None) -> None:
    """Turn indicators on."""
    b.set(FIELD_OVERFLOW, b.select(too_long, b.const(SENSED), b.get(FIELD_OVERFLOW)))
    if changed is not None:
        b.set(SIGN_CHANGE, b.select(changed, b.const(SENSED), b.get(SIGN_CHANGE)))


@means(*_each("ST", "STD", "ZST"))
def store(b: Builder, i: Instruction) -> None:
    """Store a field with the sign (ST), the digits alone (STD), or zeros around it (ZST)."""
    place = operand(b, i).claim()
    source = b.get(accumulator(i))
    kind = letters(i)
    whole = (i.first, i.last) == (0, 9)
    if whole and kind != "STD":
        spend(b, i)
        place.write(source)
        return
    word = b.const(0) if kind == "ZST" else place.read()
    digits = magnitude(b, word)
    new = magnitude(b, source)
    limit = 10 ** (i.last - i.first + 1)
    too_long = b.compare("uge", new, b.const(limit))
    new_sign = sign(b, word if kind == "STD" else source)
    changed = _sign_changed(b, i, digits, word, new_sign) if kind == "ST" else None
    _halt(b, too_long, changed)
    if not whole:
        new = remainder(b, new, limit)
    spend(b, i)
    place.write(b.or_(new_sign, replaced(b, digits, i.first, i.last, new)))
    _note(b, too_long, changed)


# Comparing


def comparable(b: Builder, word: Word) -> Word:
    """A number that is in the order of words: alpha words by their digits, then numbers by their value, -0 before
    +0."""
    digits = magnitude(b, word)
    middle = b.const(1 << 35)
    below = b.sub(b.const((1 << 35) - 1), digits)
    number = b.select(is_minus(b, word), below, b.add(middle, digits))
    return b.select(is_alpha(b, word), digits, number)


def set_compared(b: Builder, one: Word, other: Word) -> None:
    """Note how `one` compares with `other`."""
    low = b.compare("ult", one, other)
    not_equal = b.select(low, b.const(LOW), b.const(HIGH))
    b.set(COMPARED, b.select(b.compare("eq", one, other), b.const(EQUAL), not_equal))


@means(*_each("C"), "CA")
def compare(b: Builder, i: Instruction) -> None:
    """How an accumulator compares with a field: high when the accumulator is greater. CA looks at the digits alone."""
    word = operand(b, i).read()
    old = b.get(accumulator(i))
    digits = field(b, magnitude(b, word), i.first, i.last)
    spend(b, i)
    if i.name == "CA":
        set_compared(b, magnitude(b, old), digits)
    else:
        set_compared(b, comparable(b, old), comparable(b, b.or_(b.and_(word, b.const(SIGNS)), digits)))


@means("CD")
def compare_digit(b: Builder, i: Instruction) -> None:
    """How one digit in storage compares with the instruction's: high when that in storage is greater."""
    digit = field(b, magnitude(b, operand(b, i).read()), i.last, i.last)
    spend(b, i)
    set_compared(b, digit, b.const(i.first))
