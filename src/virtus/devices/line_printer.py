"""A line printer with a tape-controlled carriage: lines of a text file, pages divided by form feeds.

The carriage tape has a hole in channel 1 for the first line of a page and one in channel 9 near its end. Whoever prints
is told when a line passes channel 9; the line after that begins a new page. So a program that prints its headings then
has them where they belong, and one that does not care gets pages all the same.
"""

from typing import Final, TextIO

POSITIONS: Final = 120
LINES_A_PAGE: Final = 57
"""From channel 1 to channel 9, on forms of 66 lines."""
FORM_FEED: Final = "\f"


class LinePrinter:
    """`lines` and `pages` count those printed."""

    def __init__(self, stream: TextIO, lines_a_page: int = LINES_A_PAGE) -> None:
        self._stream = stream
        self._length = lines_a_page
        self._on_page = 0
        self.lines = self.pages = 0

    def print(self, text: str) -> bool:
        """Print a line; whether it passed channel 9. What is beyond the last position is lost."""
        if self._on_page == self._length:
            self._stream.write(FORM_FEED)
            self._on_page = 0
        if not self._on_page:
            self.pages += 1
        self._stream.write(text[:POSITIONS].rstrip() + "\n")
        self._on_page += 1
        self.lines += 1
        return self._on_page == self._length
