"""Autocoder source: the columns of a card, and what can be wrong with it.

Columns 6 to 15 have the label, 16 to 20 the operation, 21 to 75 the operand; remarks follow the operand after two
blanks. 1 to 5 (page and line) and 76 to 80 (identification) are ignored. An asterisk in column 6 makes the card a
comment. In a line with tabs, each goes on to the next of these fields.
"""

from collections.abc import Iterator
from typing import Final

from virtus.records import dataclass

LABEL, OPERATION, OPERAND, IDENTIFICATION = 5, 15, 20, 75
"""Where the fields begin, counted from 0."""
COLUMNS: Final = 80
MOST_ERRORS: Final = 25


@dataclass(frozen=True, slots=True)
class Statement:
    """A card: its line number, fields, and text."""

    line: int
    label: str
    operation: str
    operand: str
    text: str

    @property
    def is_comment(self) -> bool:
        """Whether there is nothing to assemble."""
        return not (self.label or self.operation or self.operand)


class SourceError(Exception):
    """Something is wrong with a statement."""


def columns_of(line: str) -> str:
    """The columns of a line, in capitals."""
    text = line.rstrip("\r\n")
    if "\t" in text:
        label, operation, operand, *remarks = [*text.split("\t"), "", ""]
        text = "  ".join([" " * LABEL + f"{label:10}{operation:5}{operand}", *filter(None, remarks)])
    return text.upper()


def statement(line: str, number: int) -> Statement:
    """The fields of a line."""
    text = columns_of(line)
    if text[LABEL : LABEL + 1] == "*" or not text.strip():
        return Statement(number, "", "", "", text)
    return Statement(
        number,
        text[LABEL:OPERATION].strip(),
        text[OPERATION:OPERAND].strip(),
        operand_of(text[OPERAND:IDENTIFICATION]),
        text,
    )


def operand_of(text: str) -> str:
    """The operand without remarks: up to two blanks that are not between at-signs."""
    quoted = False
    for place, character in enumerate(text):
        if character == "@":
            quoted = not quoted
        elif not quoted and character == " " and text[place : place + 2].strip() == "":
            return text[:place]
    return text.rstrip()


def statements(text: str) -> Iterator[Statement]:
    """Every line that is no comment."""
    for number, line in enumerate(text.splitlines(), start=1):
        found = statement(line, number)
        if not found.is_comment:
            yield found


def parts_of(operand: str) -> list[str]:
    """The operand's parts between commas that are neither in parentheses nor between at-signs."""
    parts: list[str] = [""]
    depth, quoted = 0, False
    for character in operand:
        if character == "@":
            quoted = not quoted
        elif not quoted:
            depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not quoted and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
