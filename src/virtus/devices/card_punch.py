"""A card punch: each card becomes a line of a text file."""

from typing import Final, TextIO

COLUMNS: Final = 80


class CardPunch:
    """`cards` counts those punched."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.cards = 0

    def punch(self, columns: str) -> None:
        """Punch a card; blank columns at its end are not written. More than 80 are lost, as they are in the machine."""
        self._stream.write(columns[:COLUMNS].rstrip() + "\n")
        self.cards += 1
