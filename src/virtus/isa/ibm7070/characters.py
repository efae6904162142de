"""The characters of the IBM 7070: two digits each, in the machine's collating sequence.

A pair of digits is a card column: the letters are 61 to 69, 71 to 79 and 82 to 89, the digits 90 to 99, a blank 00.
Eight codes are printed as one of two characters: business printers had the commercial arrangement (& % # @ ⌑), others
the scientific one (+ ( = ' )). Both are read alike.
"""

from typing import Final, Literal

Arrangement = Literal["commercial", "scientific"]

_SPECIAL: Final = {
    0: " ", 15: ".", 16: "⌑", 20: "&", 25: "$", 26: "*", 30: "-", 31: "/", 35: ",", 36: "%", 45: "#", 46: "@",
    60: "?", 70: "!", 80: "|",  # plus zero, minus zero and record mark, as card files write them
    17: "[", 18: "<", 19: "{", 27: "]", 28: ";", 29: "^", 37: "~", 38: "\\", 39: "_", 47: ":", 48: ">", 49: "}",
}  # fmt: skip
_LETTERS: Final = {61: "ABCDEFGHI", 71: "JKLMNOPQR", 82: "STUVWXYZ", 90: "0123456789"}
SCIENTIFIC: Final = {16: ")", 20: "+", 36: "(", 45: "=", 46: "'"}

BLANK: Final = 0
RECORD_MARK: Final = 80
SEGMENT_MARK: Final = 39
ZERO: Final = 90

COMMERCIAL_TEXT: Final[dict[int, str]] = _SPECIAL | {
    first + offset: letter for first, letters in _LETTERS.items() for offset, letter in enumerate(letters)
}
"""By code; other pairs of digits are no character."""
SCIENTIFIC_TEXT: Final = COMMERCIAL_TEXT | SCIENTIFIC
_CODES: Final = {character: code for text in (COMMERCIAL_TEXT, SCIENTIFIC_TEXT) for code, character in text.items()}


def code_of(character: str) -> int:
    """The two digits of a character, small letters as capitals; raises ValueError for one the 7070 has not."""
    code = _CODES.get(character.upper())
    if code is None:
        raise ValueError(f"the 7070 has no character {character!r}")
    return code


def character_of(code: int, arrangement: Arrangement = "commercial") -> str:
    """The character of two digits; raises ValueError where they are none."""
    text = COMMERCIAL_TEXT if arrangement == "commercial" else SCIENTIFIC_TEXT
    if code not in text:
        raise ValueError(f"the digits {code:02d} are no character")
    return text[code]


def codes_of_word(magnitude: int) -> list[int]:
    """The five pairs of digits of an alpha word, from the left."""
    return [magnitude // 100**place % 100 for place in (4, 3, 2, 1, 0)]
