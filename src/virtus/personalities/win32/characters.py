"""What Windows knows of characters: classes, case, and the order of strings.

All of it is computed from Python's Unicode data base. Case is mapped a UTF-16 unit at a time, as Windows does: a
mapping that would change the length ("ß") is none.
"""

import unicodedata
from functools import cache, lru_cache
from typing import Final

# CT_CTYPE1 (Microsoft: GetStringTypeW)
C1_UPPER, C1_LOWER, C1_DIGIT, C1_SPACE, C1_PUNCT = 0x1, 0x2, 0x4, 0x8, 0x10
C1_CNTRL, C1_BLANK, C1_XDIGIT, C1_ALPHA, C1_DEFINED = 0x20, 0x40, 0x80, 0x100, 0x200
# CT_CTYPE2
BIDIRECTIONAL: Final = {
    "L": 1, "R": 2, "AL": 2, "EN": 3, "ES": 4, "ET": 5, "AN": 6, "CS": 7, "B": 8, "S": 9, "WS": 10, "ON": 11,
}  # fmt: skip
# CT_CTYPE3
C3_NONSPACING, C3_DIACRITIC, C3_SYMBOL, C3_KATAKANA, C3_HIRAGANA = 0x1, 0x2, 0x8, 0x10, 0x20
C3_HALFWIDTH, C3_FULLWIDTH, C3_IDEOGRAPH, C3_LEXICAL = 0x40, 0x80, 0x100, 0x400
C3_HIGHSURROGATE, C3_LOWSURROGATE, C3_ALPHA = 0x800, 0x1000, 0x8000
CT_CTYPE1, CT_CTYPE2, CT_CTYPE3 = 1, 2, 4

LINGUISTIC_IGNORECASE, LINGUISTIC_IGNOREDIACRITIC = 0x10, 0x20
NORM_IGNORECASE, NORM_IGNORENONSPACE, NORM_IGNORESYMBOLS = 0x1, 0x2, 0x4
NORM_LINGUISTIC_CASING = 0x0800_0000
NORM_IGNOREKANATYPE, NORM_IGNOREWIDTH, SORT_STRINGSORT = 0x1_0000, 0x2_0000, 0x1000
SORT_DIGITSASNUMBERS: Final = 0x8
COMPARE_FLAGS: Final = 0x0803_103F
"""All flags that CompareStringEx knows."""
IGNORE_CASE: Final = NORM_IGNORECASE | LINGUISTIC_IGNORECASE
IGNORE_MARKS: Final = NORM_IGNORENONSPACE | LINGUISTIC_IGNOREDIACRITIC
KEEPS_CASE: Final = frozenset("\u00b5\u0131\u017f\u0130\u212a\u212b\u2126\u1e9e\u03f4\u1fbe\u0345")
"""Characters that Unicode maps to another's case, and Windows' table does not (Microsoft: l_intl.nls)."""


@cache
def upper(character: str) -> str:
    """One character in upper case, or itself."""
    made = character.upper()
    if len(made) != 1 or character in KEEPS_CASE or (made > "\uffff") != (character > "\uffff"):
        return character
    return made


@cache
def lower(character: str) -> str:
    """One character in lower case, or itself."""
    made = character.lower()
    if len(made) != 1 or character in KEEPS_CASE or (made > "\uffff") != (character > "\uffff"):
        return character
    return made


def to_upper(text: str) -> str:
    """A string in upper case; its length in UTF-16 stays."""
    return text.upper() if text.isascii() else "".join(map(upper, text))


def to_lower(text: str) -> str:
    """A string in lower case; its length in UTF-16 stays."""
    return text.lower() if text.isascii() else "".join(map(lower, text))


def to_title(text: str) -> str:
    """The first letter of each word in upper case, the others in lower case."""
    inside, made = False, []
    for character in text:
        made.append(lower(character) if inside else upper(character))
        inside = character.isalnum() or character == "'"
    return "".join(made)


@cache
def ctype1(unit: int) -> int:
    """CT_CTYPE1 of a UTF-16 unit."""
    character = chr(unit)
    category = unicodedata.category(character)
    if unit == 0x0:
        return C1_CNTRL | C1_DEFINED
    if category == "Cn":
        return 0
    found = C1_DEFINED
    if category[0] in "PS":
        found |= C1_PUNCT
    if category[0] == "L" or category == "Nl":
        found |= C1_ALPHA
    if category == "Lu" or (category == "So" and "\u24b6" <= character <= "\u24cf"):
        found |= C1_UPPER
    if category == "Ll":
        found |= C1_LOWER
    if category == "Nd" or character in "\u00b2\u00b3\u00b9":
        found |= C1_DIGIT
    if character in "0123456789ABCDEFabcdef":
        found |= C1_XDIGIT
    if category == "Zs" or 0x9 <= unit <= 0xD or unit in (0x85, 0x2028, 0x2029):
        found |= C1_SPACE
    if category == "Zs" or unit == 0x9:
        found |= C1_BLANK
    if category == "Cc" or category == "Cf":
        found |= C1_CNTRL
    return found


@cache
def ctype2(unit: int) -> int:
    """CT_CTYPE2, the direction in bidirectional text."""
    return BIDIRECTIONAL.get(unicodedata.bidirectional(chr(unit)), 0)


@cache
def ctype3(unit: int) -> int:
    """CT_CTYPE3, for the processing of text."""
    if 0xD800 <= unit <= 0xDBFF:
        return C3_HIGHSURROGATE
    if 0xDC00 <= unit <= 0xDFFF:
        return C3_LOWSURROGATE
    character = chr(unit)
    category, name = unicodedata.category(character), unicodedata.name(character, "")
    found = 0
    if category[0] == "M":
        found |= C3_NONSPACING
    if category in ("Sk", "Lm") or category == "Mn":
        found |= C3_DIACRITIC
    if category[0] in "PS" or unit == 0x20:
        found |= C3_SYMBOL
    if category[0] == "L":
        found |= C3_ALPHA
    if "KATAKANA" in name:
        found |= C3_KATAKANA
    if "HIRAGANA" in name:
        found |= C3_HIRAGANA
    if name.startswith("HALFWIDTH") or 0x20 <= unit <= 0x7E:
        found |= C3_HALFWIDTH
    if unicodedata.east_asian_width(character) in "FW" and not name.startswith("HALFWIDTH"):
        found |= C3_FULLWIDTH
    if "IDEOGRAPH" in name:
        found |= C3_IDEOGRAPH
    if category[0] == "P":
        found |= C3_LEXICAL
    return found


@cache
def _weight(character: str) -> tuple[int, int]:
    """Where a base character stands: blanks, then punctuation, symbols, digits, letters; code order in each."""
    category = unicodedata.category(character)[0]
    kind = {"C": 0, "Z": 1, "P": 2, "S": 3, "N": 4, "L": 5}.get(category, 6)
    if kind == 4:
        return kind, int(unicodedata.numeric(character, 0) * 1000)
    return kind, ord(character)


SortKey = tuple[tuple[tuple[int, int], ...], tuple[str, ...], tuple[int, ...], tuple[tuple[int, str], ...]]


@lru_cache(maxsize=4096)
def sort_key(text: str, flags: int) -> SortKey:
    """What strings are ordered by: letters, then marks, then case (small before capital), then hyphens and apostrophes.

    Hyphen and apostrophe count last ("word sort") unless SORT_STRINGSORT is set.
    """
    letters: list[tuple[int, int]] = []
    marks: list[str] = []
    cases: list[int] = []
    minor: list[tuple[int, str]] = []
    wide = flags & NORM_IGNOREWIDTH
    for character in unicodedata.normalize("NFKD", text) if wide else unicodedata.normalize("NFD", text):
        category = unicodedata.category(character)
        if category == "Cc" and character not in "\t\n\v\f\r":
            continue  # control characters weigh nothing
        if category[0] == "M":
            if marks and not flags & IGNORE_MARKS:
                marks[-1] += character
            continue
        if flags & NORM_IGNORESYMBOLS and category[0] in "PSZ":
            continue
        if character in "-'" and not flags & SORT_STRINGSORT:
            minor.append((len(letters), character))
            continue
        if flags & NORM_IGNOREKANATYPE and "\u30a1" <= character <= "\u30f6":
            character = chr(ord(character) - 0x60)  # Katakana as Hiragana
        small = lower(character)
        digit = flags & SORT_DIGITSASNUMBERS and small.isdecimal()
        if digit and letters and letters[-1][0] == 4 and marks[-1] == "#":
            letters[-1] = (4, letters[-1][1] * 10 + int(small) * 1000)
            continue
        letters.append((4, int(small) * 1000) if digit else _weight(small))
        marks.append("#" if digit else "")
        cases.append(0 if flags & IGNORE_CASE else int(small != character))
    return tuple(letters), tuple(marks), tuple(cases), tuple(minor)


def compare(one: str, other: str, flags: int) -> int:
    """-1, 0 or 1 in the order of a language's words, by NORM_* and SORT_* flags."""
    if one == other:
        return 0
    first, second = sort_key(one, flags), sort_key(other, flags)
    return (first > second) - (first < second)
