"""Declarations of Autocoder: constants, areas and their fields, record definition words, equivalents, control.

DC    constants, in the operand and in the lines after it (whose operation is blank). `+RDW` or `-RDW` first puts a
      record definition word before them, which the label then names.
DA    an area, or several alike: how many, `RDW` for definition words before them (as for DC; the last is minus), and
      `0+Xn` where its fields are to be reached by an index word. The lines after it name fields: the first and
      last digit, counted from 00 through all words of the area; `A` before them marks characters. A field within one
      word is one for instructions, too.
DRDW  a record definition word: `first,last`, or one name for all of it; plus in front where more follow.
EQU   a label for a number, a location, or an index word (`5,X` or `X5`).
CNTRL with the label ORIGIN: where what follows goes; LITORIGIN: where literals go; END: where the program begins.
"""

import re
from typing import Final

from virtus.guests.autocoder.operands import Symbol, Symbols, constant
from virtus.guests.autocoder.source import SourceError, Statement, parts_of
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.layout import STORAGE
from virtus.records import dataclass, field

_FIELD: Final = re.compile(r"A?([0-9]{1,5}),([0-9]{1,5})")
_RDW: Final = re.compile(r"([+-]?)RDW")
_OWN_INDEX: Final = re.compile(r"0\+(X[0-9]{1,2}|[A-Z][A-Z0-9]*)")
MOST_AREAS: Final = 999


@dataclass(slots=True)
class Area:
    """A DA with its fields."""

    statement: Statement
    count: int
    sign: str | None  # of the last definition word; None without any
    index: int
    fields: list[tuple[Statement, int, int]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Words of one such area."""
        return max((last for _, _, last in self.fields), default=9) // words.DIGITS + 1

    @property
    def definitions(self) -> int:
        """Definition words before the areas."""
        return self.count if self.sign is not None else 0


def begin_area(statement: Statement, symbols: Symbols) -> Area:
    """The DA itself."""
    parts = parts_of(statement.operand)
    count = symbols.number(parts[0]) if parts[0] else 1
    if not 1 <= count <= MOST_AREAS:
        raise SourceError(f"1 to {MOST_AREAS} areas, not {count}")
    area = Area(statement, count, None, 0)
    for part in parts[1:]:
        definition, index = _RDW.fullmatch(part), _OWN_INDEX.fullmatch(part)
        if definition:
            area.sign = definition[1] or "-"
        elif index:
            area.index = symbols.index_word(index[1])
        elif part:
            raise SourceError(f"{part!r}: RDW and 0+Xn are what a DA may have")
    return area


def add_field(area: Area, statement: Statement) -> None:
    """A line under a DA."""
    found = _FIELD.fullmatch(statement.operand)
    if found is None:
        raise SourceError(f"{statement.operand!r} is no field of an area: its first and last digit are (00,04)")
    first, last = int(found[1]), int(found[2])
    if first > last or last >= STORAGE * words.DIGITS:
        raise SourceError(f"the field {statement.operand} ends before it begins, or beyond storage")
    area.fields.append((statement, first, last))


def place_area(area: Area, location: int, symbols: Symbols) -> tuple[dict[int, int], int]:
    """Define the names of an area that begins here; its definition words, and how many words it takes."""
    length, total = area.length, area.definitions + area.count * area.length
    _fits(location, total)
    begin = location + area.definitions
    if area.statement.label:
        symbols.define(
            area.statement.label,
            Symbol(location, length=total if area.definitions else area.count * length, line=area.statement.line),
        )
    base = 0 if area.index else begin
    for statement, first, last in area.fields:
        if not statement.label:
            continue
        start, end = divmod(first, words.DIGITS), divmod(last, words.DIGITS)
        inside = start[0] == end[0]
        symbol = Symbol(
            base + start[0],
            start[1] if inside else 0,
            end[1] if inside else 9,
            area.index,
            end[0] - start[0] + 1,
            line=statement.line,
        )
        symbols.define(statement.label, symbol)
    definitions = {
        location + number: definition_word(
            begin + number * length,
            begin + (number + 1) * length - 1,
            minus=area.sign == "-" and number == area.count - 1,
        )
        for number in range(area.definitions)
    }
    return definitions, total


def definition_word(first: int, last: int, *, minus: bool) -> int:
    """A record definition word."""
    return first * 10**4 + last | (words.MINUS if minus else 0)


def _fits(location: int, length: int) -> None:
    if location + length > STORAGE:
        raise SourceError(f"{length} words from {location:04d} on are more than storage has ({STORAGE})")


@dataclass(slots=True)
class Constants:
    """A DC with the lines under it."""

    statement: Statement
    sign: str | None
    words: list[int] = field(default_factory=list)
    labels: list[tuple[Statement, int, int]] = field(default_factory=list)  # statement, offset, length


def begin_constants(statement: Statement) -> Constants:
    """The DC itself."""
    constants = Constants(statement, None)
    parts = parts_of(statement.operand) if statement.operand else []
    for number, part in enumerate(parts):
        definition = _RDW.fullmatch(part) if number == 0 else None
        if definition:
            constants.sign = definition[1] or "-"
        else:
            constants.words += constant(part)
    return constants


def add_constants(constants: Constants, statement: Statement) -> None:
    """A line under a DC."""
    offset = len(constants.words)
    for part in parts_of(statement.operand):
        constants.words += constant(part)
    if statement.label:
        constants.labels.append((statement, offset, len(constants.words) - offset))


def place_constants(constants: Constants, location: int, symbols: Symbols) -> tuple[dict[int, int], int]:
    """Define the names of constants that begin here; the words by location, and how many."""
    begin = location + (constants.sign is not None)
    total = begin - location + len(constants.words)
    _fits(location, total)
    if constants.statement.label:
        symbols.define(constants.statement.label, Symbol(location, length=total, line=constants.statement.line))
    for statement, offset, length in constants.labels:
        symbols.define(statement.label, Symbol(begin + offset, length=length, line=statement.line))
    placed = dict(enumerate(constants.words, start=begin))
    if constants.sign is not None:
        placed[location] = definition_word(begin, begin + len(constants.words) - 1, minus=constants.sign == "-")
    return placed, total


def record_definition(operand: str, here: int, symbols: Symbols) -> int:
    """The word of a DRDW."""
    sign = operand[:1] if operand[:1] in ("+", "-") else ""
    parts = parts_of(operand.removeprefix(sign))
    if len(parts) not in (1, 2):
        raise SourceError("a record definition word has a first and a last location")
    first = symbols.address(parts[0], here)
    last = symbols.address(parts[1], here).location if len(parts) == 2 else first.location + first.length - 1
    if last >= 10_000:
        raise SourceError(f"it ends at {last}")
    return definition_word(first.location, last, minus=sign != "+")


def equivalent(statement: Statement, symbols: Symbols) -> Symbol:
    """The symbol of an EQU."""
    parts = parts_of(statement.operand)
    is_index = parts[1:] == ["X"]
    if len(parts) > 2 or (len(parts) == 2 and not is_index):
        raise SourceError("EQU has a value, and X after it for an index word")
    if is_index or re.fullmatch(r"X[0-9]{1,2}", parts[0]):
        return Symbol(symbols.index_word(parts[0]), is_index=True, line=statement.line)
    if parts[0].isdigit():
        return Symbol(int(parts[0]), line=statement.line)
    address = symbols.address(parts[0], 0)
    first, last = address.field or (0, 9)
    return Symbol(address.location, first, last, address.index, address.length, line=statement.line)
