"""Operands of Autocoder: addresses with adjustment, index word and field; constants; symbols."""

import re
from typing import Final

from virtus.guests.autocoder.source import SourceError
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.layout import LAST_INDEX_WORD, LOCATIONS
from virtus.records import dataclass, field

_LABEL: Final = re.compile(r"[A-Z][A-Z0-9]{0,9}")
_INDEX: Final = re.compile(r"X([0-9]{1,2})")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_SIGNED: Final = re.compile(r"([+-])([0-9]{1,10})")
_FLOATING: Final = re.compile(r"([+-])([0-9]*)(?:\.([0-9]*))?(?:E([+-]?[0-9]{1,3}))?")
_TERM: Final = re.compile(r"([+-]?)(\*|[A-Z][A-Z0-9]*|[0-9]+)")
_FIELD: Final = re.compile(r"\(([0-9])(?:,([0-9]))?\)")
_LITERAL: Final = re.compile(r"[+-][0-9.]+(E[+-]?[0-9]+)?(\([0-9](,[0-9])?\))?")
FRACTION_DIGITS: Final = 8
EXPONENT_BIAS: Final = 50


@dataclass(frozen=True, slots=True)
class Symbol:
    """What a label stands for: a location or number, perhaps with a field, an index word, and a length in words."""

    value: int
    first: int = 0
    last: int = 9
    index: int = 0
    length: int = 1
    is_index: bool = False
    """It is the number of an index word."""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """An operand that has been worked out."""

    location: int
    index: int = 0
    field: tuple[int, int] | None = None
    length: int = 1


@dataclass(slots=True)
class Symbols:
    """The labels, and the literals in the order in which they were met."""

    table: dict[str, Symbol] = field(default_factory=dict)
    literals: dict[str, int] = field(default_factory=dict)
    """Locations by text; 0 until the pool has its place."""

    def define(self, label: str, symbol: Symbol) -> None:
        """A label; raises SourceError for one that is none or is there already."""
        if not _LABEL.fullmatch(label) or _INDEX.fullmatch(label):
            raise SourceError(
                f"{label!r} is no label: a letter and up to nine letters or digits are, and not X1 to X99"
            )
        if label in self.table:
            raise SourceError(f"{label} is defined in line {self.table[label].line} already")
        self.table[label] = symbol

    def find(self, label: str) -> Symbol:
        """Raises SourceError for one that is not defined."""
        found = self.table.get(label)
        if found is None:
            raise SourceError(f"{label} is not defined")
        return found

    def number(self, text: str) -> int:
        """A number, or a label that stands for one."""
        if _NUMBER.fullmatch(text):
            return int(text)
        if _LABEL.fullmatch(text):
            return self.find(text).value
        raise SourceError(f"{text!r} is no number")

    def index_word(self, text: str) -> int:
        """X1 to X99, a number, or a label that stands for one."""
        found = _INDEX.fullmatch(text)
        number = int(found[1]) if found else self.number(text)
        if not 0 < number <= LAST_INDEX_WORD:
            raise SourceError(f"{text}: index words are 1 to {LAST_INDEX_WORD}")
        return number

    def address(self, text: str, here: int) -> Address:
        """A literal, or a sum of labels, numbers, * (the location of this very word) and one index word, and a
        field."""
        if is_literal(text):
            literal, literal_field = _literal_parts(text)
            return Address(self.literals.get(literal, 0), 0, _field(literal_field))
        rest = text
        total = index = 0
        length = 1
        found: tuple[int, int] | None = None
        of_symbol: tuple[int, int] | None = None
        first = True
        while rest:
            fields = _FIELD.match(rest)
            if fields:
                if found is not None:
                    raise SourceError(f"two fields in {text!r}")
                found, rest = _field(fields[0]), rest[fields.end() :]
                continue
            term = _TERM.match(rest)
            if term is None or (not term[1] and not first):
                raise SourceError(f"{rest!r} in {text!r} is no address")
            rest = rest[term.end() :]
            sign, name = (-1 if term[1] == "-" else 1), term[2]
            tag = self._tag(name)
            if tag and (not first or term[1]):
                if sign < 0 or index:
                    raise SourceError(f"{text!r}: one index word is added at most")
                index = tag
            elif name == "*":
                total += sign * here
            elif name.isdigit():
                total += sign * int(name)
            else:
                symbol = self.find(name)
                total += sign * symbol.value
                if symbol.index:
                    if index:
                        raise SourceError(f"{text!r}: {name} has an index word of its own")
                    index = symbol.index
                length = symbol.length
                if (symbol.first, symbol.last) != (0, 9):
                    of_symbol = symbol.first, symbol.last
            first = False
        if first:
            raise SourceError("an address is missing")
        if not 0 <= total < LOCATIONS:
            raise SourceError(f"{text!r} is {total}, and addresses are 0 to {LOCATIONS - 1}")
        return Address(total, index, found or of_symbol, length)

    def _tag(self, name: str) -> int:
        """The index word that a name stands for; 0 for none."""
        found = _INDEX.fullmatch(name)
        if found:
            return self.index_word(name)
        symbol = self.table.get(name)
        return symbol.value if symbol is not None and symbol.is_index else 0


def _field(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    found = _FIELD.fullmatch(text)
    if found is None:
        raise SourceError(f"{text!r} is no field: (first,last) is, or (digit)")
    first = int(found[1])
    last = int(found[2]) if found[2] is not None else first
    if first > last:
        raise SourceError(f"the field {text} ends before it begins")
    return first, last


def is_literal(text: str) -> bool:
    """Whether an operand is a constant rather than the address of one."""
    return text.startswith("@") or bool(_LITERAL.fullmatch(text))


def _literal_parts(text: str) -> tuple[str, str]:
    """The constant and the field."""
    if text.startswith("@"):
        literal, quote, fields = text.rpartition("@")
        return literal + quote, fields
    literal, bracket, fields = text.partition("(")
    return literal, bracket + fields


def literal_of(text: str) -> str:
    """The constant of a literal, without a field."""
    return _literal_parts(text)[0]


def constant(text: str) -> list[int]:
    """The words of a constant: `@characters@`, a signed number, or a signed floating number (with a point or E)."""
    if text.startswith("@"):
        if len(text) < 3 or not text.endswith("@"):
            raise SourceError(f"{text}: characters stand between two at-signs")
        characters = text[1:-1]
        try:
            return [
                words.alpha(characters[at : at + words.CHARACTERS])
                for at in range(0, len(characters), words.CHARACTERS)
            ]
        except ValueError as error:
            raise SourceError(str(error)) from None
    signed = text if text[:1] in ("+", "-") else f"+{text}"
    plain = _SIGNED.fullmatch(signed)
    if plain:
        return [int(plain[2]) | (words.MINUS if plain[1] == "-" else 0)]
    floating = _FLOATING.fullmatch(signed)
    if floating and (floating[2] or floating[3]) and (floating[3] is not None or floating[4]):
        return [_floating(floating)]
    raise SourceError(f"{text!r} is no constant: a number, or characters between at-signs")


def _floating(found: "re.Match[str]") -> int:
    """Normalized, cut off after eight digits."""
    whole, fraction = found[2].lstrip("0"), found[3] or ""
    exponent = len(whole) + int(found[4] or 0)
    digits = whole + fraction
    stripped = digits.lstrip("0")
    exponent -= len(digits) - len(stripped)
    if not stripped:
        return 0
    if not -EXPONENT_BIAS <= exponent < 100 - EXPONENT_BIAS:
        raise SourceError(f"{found[0]}: the exponent is beyond -50 to 49")
    magnitude = (exponent + EXPONENT_BIAS) * 10**FRACTION_DIGITS + int(
        stripped[:FRACTION_DIGITS].ljust(FRACTION_DIGITS, "0")
    )
    return magnitude | (words.MINUS if found[1] == "-" else 0)
