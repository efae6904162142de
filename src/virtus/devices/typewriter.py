"""A console typewriter: types what the machine says, and passes on what is typed, a line at a time."""

from collections.abc import Iterable, Iterator
from typing import TextIO


class Typewriter:
    """`keyboard` has the lines that are typed, if anybody does."""

    def __init__(self, paper: TextIO, keyboard: Iterable[str] = ()) -> None:
        self._paper = paper
        self._keyboard: Iterator[str] = iter(keyboard)
        self._waiting: str | None = None

    def type(self, text: str) -> None:
        """Type a line."""
        self._paper.write(text.rstrip() + "\n")
        self._paper.flush()

    @property
    def has_line(self) -> bool:
        """Whether there is something typed that has not been read; waits until that is known."""
        if self._waiting is None:
            self._waiting = next(self._keyboard, None)
        return self._waiting is not None

    def read(self) -> str | None:
        """The next line typed, without its end; None when there will be none."""
        if not self.has_line:
            return None
        line, self._waiting = self._waiting, None
        assert line is not None
        return line.rstrip("\r\n")
