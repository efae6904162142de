"""Areas of storage as instructions name them: lists of record definition words (A22-7003, "Block Transmission").

A word has an area's first location in positions 2 to 5 and its last in 6 to 9; the last word of a list is minus.
"""

from collections.abc import Iterator
from typing import Final

from virtus.isa.ibm7070 import characters
from virtus.isa.ibm7070.layout import LOCATIONS
from virtus.isa.ibm7070.word import ALPHA, MAGNITUDE, MINUS, field
from virtus.personalities.ibm7070.machine import Processor, Stopped

LONGEST_LIST: Final = LOCATIONS
MOST_WORDS: Final = 10 * LOCATIONS
"""That one operation moves between storage and a device; a list that asks for more is the program's mistake."""
MINUS_ZONE: Final = 70


def definition(word: int) -> tuple[int, int, bool]:
    """First and last location, and whether it is the last of its list."""
    return field(word, 2, 5), field(word, 6, 9), bool(word & MINUS)


def areas(processor: Processor, location: int) -> Iterator[tuple[int, int, int]]:
    """(first, last, location of the next definition) for each area of the list at a location."""
    for following in range(location + 1, location + 1 + LONGEST_LIST):
        first, last, end = definition(fetch(processor, following - 1))
        yield first, last, following
        if end:
            return


def locations(processor: Processor, location: int) -> Iterator[int]:
    """All locations of the areas of a list, in order."""
    left = MOST_WORDS
    for first, last, _ in areas(processor, location):
        left -= max(last - first + 1, 0)
        if left < 0:
            raise Stopped(f"the areas listed at {location:04d} have more than {MOST_WORDS} words")
        yield from range(first, last + 1)


def fetch(processor: Processor, location: int) -> int:
    """The word at a location that an instruction names; the machine stops where there is none."""
    try:
        return processor.load(location)
    except IndexError:
        raise Stopped(f"no storage has location {location:04d}") from None


def put(processor: Processor, location: int, word: int) -> None:
    """Store likewise."""
    try:
        processor.store(location, word)
    except IndexError:
        raise Stopped(f"no storage has location {location:04d}") from None


def columns_of(word: int) -> list[int]:
    """The codes that a word is sent to a card, a line or the typewriter as: five of an alpha word; the digits of a
    number, a minus over the last."""
    if word & ALPHA:
        return characters.codes_of_word(word & MAGNITUDE)
    codes = [characters.ZERO + int(digit) for digit in f"{word & MAGNITUDE:010d}"]
    if word & MINUS:
        codes[-1] -= characters.ZERO - MINUS_ZONE
    return codes
