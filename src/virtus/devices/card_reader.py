"""A reader of punched cards: lines of a text file, a column a character."""

from collections.abc import Iterable, Iterator
from typing import Final

COLUMNS: Final = 80


class BadCard(Exception):
    """A line that is no card; the message says why."""


def card(line: str) -> str:
    """The 80 columns of a line, blank where it is shorter. Raises BadCard for a longer one."""
    columns = line.rstrip("\r\n")
    if len(columns) > COLUMNS:
        columns = columns.rstrip()
    if len(columns) > COLUMNS:
        raise BadCard(f"{len(columns)} columns, and a card has {COLUMNS}")
    return columns.ljust(COLUMNS)


class CardReader:
    """Cards in the order of the lines; `cards` counts those read."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines: Iterator[str] = iter(lines)
        self.cards = 0

    def read(self) -> str | None:
        """The next card's columns, None when the hopper is empty. Raises BadCard; the card after that can be read."""
        line = next(self._lines, None)
        if line is None:
            return None
        self.cards += 1
        return card(line)
