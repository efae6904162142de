"""Descriptions: editing numbers to characters and back, a word at a time as in `blocks`.

A word of ten digits is two alpha words of five characters. ENA makes each digit a character; ENB does with blanks for
zeros before the first other digit; ENS puts the sign over the last digit (A to I and ? for plus, J to R and ! for
minus). EAN takes the digits of characters, and minus from the last one's.
"""

from virtus.isa.builder import Builder, Word
from virtus.isa.ibm7070.blocks import Areas, other_side
from virtus.isa.ibm7070.decode import Instruction
from virtus.isa.ibm7070.digits import is_alpha, is_minus, magnitude, minus_sign, quotient
from virtus.isa.ibm7070.layout import OTHER, WORD
from virtus.isa.ibm7070.meaning import byte_address, effective, means_in_steps
from virtus.isa.ibm7070.timing import WORD_MOVED
from virtus.isa.ibm7070.word import ALPHA

PLUS_ZONE, MINUS_ZONE, NO_ZONE = 60, 70, 90


@means_in_steps("ENA", "ENB", "ENS")
def to_characters(b: Builder, i: Instruction) -> None:
    """Numbers at an index word's location to characters in the areas of a list."""
    areas = Areas(b, i, effective(b, i))
    numbers = other_side(b, i, areas)
    source = byte_address(b, areas.location(numbers))
    first = areas.claimed(areas.now)
    second = areas.claimed(b.add(areas.now, b.const(1)))
    word = b.load(source, WORD)
    prefixes = [quotient(b, magnitude(b, word), 10**place) for place in range(9, -1, -1)]
    halves: list[Word] = []
    before: Word = b.const(0)
    codes: list[Word] = []
    for position, prefix in enumerate(prefixes):
        digit = b.sub(prefix, b.mul(before, b.const(10))) if position else prefix
        code = b.add(digit, b.const(NO_ZONE))
        if i.name == "ENB":
            code = b.select(b.compare("eq", prefix, b.const(0)), b.const(0), code)
        elif i.name == "ENS" and position == 9:
            zone = b.select(is_minus(b, word), b.const(MINUS_ZONE), b.const(PLUS_ZONE))
            code = b.add(digit, b.select(is_alpha(b, word), b.const(NO_ZONE), zone))
        codes.append(code)
        before = prefix
    for half in (codes[:5], codes[5:]):
        total = half[0]
        for code in half[1:]:
            total = b.add(b.mul(total, b.const(100)), code)
        halves.append(b.or_(total, b.const(ALPHA)))
    areas.spend(2 * WORD_MOVED)
    b.store(first, halves[0], WORD)
    b.store(second, halves[1], WORD)
    b.set(OTHER, b.add(numbers, b.word(areas.inside)))
    b.branch(areas.advance(b.const(2)), b.pc)


@means_in_steps("EAN")
def to_number(b: Builder, i: Instruction) -> None:
    """Characters in the areas of a list to numbers at an index word's location."""
    areas = Areas(b, i, effective(b, i))
    numbers = other_side(b, i, areas)
    first = byte_address(b, areas.location(areas.now))
    second = byte_address(b, areas.location(b.add(areas.now, b.const(1))))
    target = areas.claimed(numbers)
    total: Word = b.const(0)
    last: Word = b.const(0)
    for address in (first, second):
        characters = magnitude(b, b.load(address, WORD))
        before: Word = b.const(0)
        for place in range(4, -1, -1):
            prefix = quotient(b, characters, 100**place)
            last = b.sub(prefix, b.mul(before, b.const(100)))
            zone = quotient(b, last, 10)
            total = b.add(b.mul(total, b.const(10)), b.sub(last, b.mul(zone, b.const(10))))
            before = prefix
    minus = b.compare("eq", quotient(b, last, 10), b.const(MINUS_ZONE // 10))
    areas.spend(2 * WORD_MOVED)
    b.store(target, b.or_(minus_sign(b, minus), total), WORD)
    b.set(OTHER, b.add(numbers, b.word(areas.inside)))
    b.branch(areas.advance(b.const(2)), b.pc)
