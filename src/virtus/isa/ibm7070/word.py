"""A word of the IBM 7070, ten decimal digits and a sign, as 64 bits.

The digits are kept as the binary number they spell (34 bits), the sign as two bits far above. So an addition of the
7070's is one of the host's, a whole word is loaded or compared without any conversion, and plus zero is 0. What costs
is a field of digits: a multiplication by the reciprocal of a power of ten (`digits.quotient`). Digits of four bits each
would have it the other way round: cheap fields, but a correction after each addition, and no product or quotient
without a loop, of which a description over the builder has none.

Signs are as the machine has them (Reference Manual A22-7003): plus, minus and alpha, the latter
saying that the digits are five characters of two digits each. In a word that shows signs as digits, they are 9, 6 and
3.
"""

import re
from typing import Final

from virtus.isa.ibm7070 import characters

DIGITS: Final = 10
LIMIT: Final = 10**DIGITS
"""One more than the greatest number in a word."""
MAGNITUDE: Final = (1 << 34) - 1
"""Of the 64 bits, those of the number."""
SIGN_SHIFT: Final = 40
MINUS: Final = 1 << SIGN_SHIFT
ALPHA: Final = 2 << SIGN_SHIFT
SIGNS: Final = MINUS | ALPHA
CHARACTERS: Final = 5
"""In an alpha word."""

PLUS_DIGIT, MINUS_DIGIT, ALPHA_DIGIT = 9, 6, 3
_SIGN_OF_DIGIT: Final = {PLUS_DIGIT: 0, MINUS_DIGIT: MINUS, ALPHA_DIGIT: ALPHA}
_WORD: Final = re.compile(r"([+\-@])([0-9]{10})")


def valid(word: int) -> bool:
    """Whether 64 bits are a word."""
    return word & MAGNITUDE < LIMIT and word & ~MAGNITUDE in (0, MINUS, ALPHA)


def number(value: int) -> int:
    """The word of a number with at most ten digits; raises ValueError for more."""
    if abs(value) >= LIMIT:
        raise ValueError(f"{value} has more than ten digits")
    return -value | MINUS if value < 0 else value


def value(word: int) -> int:
    """The number in a word; alpha counts as plus."""
    return -(word & MAGNITUDE) if word & MINUS else word & MAGNITUDE


def sign_digit(word: int) -> int:
    """9, 6 or 3."""
    return MINUS_DIGIT if word & MINUS else ALPHA_DIGIT if word & ALPHA else PLUS_DIGIT


def with_sign(digit: int, magnitude: int) -> int:
    """A word from a sign's digit; raises KeyError for one that is no sign's."""
    return magnitude | _SIGN_OF_DIGIT[digit]


def field(word: int, first: int, last: int) -> int:
    """The digits from position `first` to `last` (0 to 9 from the left), as a number."""
    digits: int = (word & MAGNITUDE) // 10 ** (9 - last) % 10 ** (last - first + 1)
    return digits


def replaced(word: int, first: int, last: int, digits: int) -> int:
    """The word with other digits from position `first` to `last`."""
    changed: int = word + (digits - field(word, first, last)) * 10 ** (9 - last)
    return changed


def alpha(text: str) -> int:
    """The alpha word of up to five characters, filled up with blanks; raises ValueError for one the 7070 has not."""
    magnitude = 0
    for character in text.ljust(CHARACTERS):
        magnitude = magnitude * 100 + characters.code_of(character)
    return ALPHA | magnitude


def show(word: int) -> str:
    """A sign (`+`, `-`, or `@` for alpha) and ten digits."""
    sign = "-" if word & MINUS else "@" if word & ALPHA else "+"
    return f"{sign}{word & MAGNITUDE:010d}"


def parse(text: str) -> int:
    """What `show` writes; raises ValueError for anything else."""
    found = _WORD.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no word: a sign (+, - or @) and ten digits are")
    sign, digits = found.groups()
    return int(digits) | {"+": 0, "-": MINUS, "@": ALPHA}[sign]
