"""Object decks for the IBM 7070: programs as punched cards, in a text file with a card a line.

A card has eight words of ten columns. A word is ten digits, with the sign as a zone over the last: none for alpha, the
12 zone for plus (? and A to I), the 11 zone for minus (! and J to R). The first word says what the card is:

* plus, a load card: how many words follow (01 to 07) in its first two digits, the location of the first of them in the
  next four, the card's number in the last four. Cards are numbered from 1.
* minus, the transfer card: where the program begins, in the same four digits, and its number. It is the last of the
  program; cards behind it are for the program to read.
"""

import re
from collections.abc import Iterable
from typing import Final

from virtus.errors import GuestNotRunnable
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.layout import STORAGE
from virtus.records import dataclass, field

COLUMNS: Final = 80
WORD_COLUMNS: Final = 10
MOST_WORDS: Final = 7
MOST_CARDS: Final = 9999
_PLUS, _MINUS = "?ABCDEFGHI", "!JKLMNOPQR"
_LOAD_CARD: Final = re.compile(r"0[1-7][0-9]{7}[?A-I]([0-9]{9}[0-9?!A-R]){1,7} *")
_TRANSFER_CARD: Final = re.compile(r"00[0-9]{7}[!J-R] *")


@dataclass(slots=True)
class Program:
    """What is loaded into storage, where it begins, and the cards that follow it."""

    words: dict[int, int] = field(default_factory=dict)
    """By location."""
    start: int = 0
    data: list[str] = field(default_factory=list)


def punch(word: int) -> str:
    """The ten columns of a word."""
    digits = f"{word & words.MAGNITUDE:010d}"
    if word & words.ALPHA:
        return digits
    return digits[:-1] + (_MINUS if word & words.MINUS else _PLUS)[int(digits[-1])]


def unpunch(columns: str) -> int:
    """The word in ten columns; raises ValueError where they are none."""
    last = columns[-1:]
    if len(columns) != WORD_COLUMNS or not columns[:-1].isascii() or not columns[:-1].isdigit():
        raise ValueError(f"{columns!r} is no word")
    for zone, sign in ((_PLUS, 0), (_MINUS, words.MINUS), ("0123456789", words.ALPHA)):
        if last in zone:
            return int(columns[:-1]) * 10 + zone.index(last) | sign
    raise ValueError(f"{columns!r} is no word")


def write(program: Program) -> str:
    """The deck of a program: load cards in the order of locations, the transfer card, and its data."""
    cards: list[str] = []
    locations = sorted(program.words)
    at = 0
    while at < len(locations):
        end = at + 1
        while end < len(locations) and end - at < MOST_WORDS and locations[end] == locations[end - 1] + 1:
            end += 1
        first = punch((end - at) * 10**8 + locations[at] * 10**4 + (len(cards) + 1) % 10**4)
        cards.append(first + "".join(punch(program.words[location]) for location in locations[at:end]))
        at = end
    cards.append(punch(program.start * 10**4 + (len(cards) + 1) % 10**4 | words.MINUS))
    return "".join(f"{card}\n" for card in [*cards, *program.data])


def is_deck(first_line: str) -> bool:
    """Whether a file that begins with this line is an object deck."""
    line = first_line.rstrip("\r\n")
    return len(line.rstrip()) <= COLUMNS and bool(_LOAD_CARD.fullmatch(line) or _TRANSFER_CARD.fullmatch(line))


def read(lines: Iterable[str], name: str = "deck") -> Program:
    """The program of a deck. Raises GuestNotRunnable for a card that is none, is out of order, or lies beyond
    storage."""
    program = Program()
    number = 0
    cards = iter(lines)
    for number, line in enumerate(cards, start=1):
        columns = line.rstrip("\r\n").rstrip()
        doing = f"loading {name}, card {number}"
        if number > MOST_CARDS or len(columns) > COLUMNS:
            raise GuestNotRunnable(doing, "more cards or columns than a deck has")
        try:
            control, *content = (
                unpunch(columns[at : at + WORD_COLUMNS]) for at in range(0, len(columns), WORD_COLUMNS)
            )
        except ValueError as error:
            raise GuestNotRunnable(
                doing, str(error) if columns else "a blank card", "assemble the program again"
            ) from None
        if control & words.ALPHA:
            raise GuestNotRunnable(doing, "its first word has no sign", "assemble the program again")
        count, location = words.field(control, 0, 1), words.field(control, 2, 5)
        if words.field(control, 6, 9) != number:
            raise GuestNotRunnable(doing, f"it is card {words.field(control, 6, 9)}", "put the deck in order")
        if count != len(content) or bool(control & words.MINUS) != (count == 0):
            raise GuestNotRunnable(doing, f"{len(content)} words, and {count} were announced")
        if location + count > STORAGE:
            raise GuestNotRunnable(doing, f"location {location + count - 1} is not in storage")
        if not count:
            program.start = location
            program.data = [rest.rstrip("\r\n") for rest in cards]
            return program
        program.words.update(enumerate(content, start=location))
    raise GuestNotRunnable(f"loading {name}", f"{number} cards and no transfer card", "add what is missing")
