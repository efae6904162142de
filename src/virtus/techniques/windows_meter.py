"""Counts the calls of a Windows program that reach us, where the user asked for that, and writes them down at its end.

Calls that machine code serves are not among them: a meter that made them slow would measure itself.
"""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

METER: Final = "VIRTUS_API_METER"
"""Names the file that is written at the end; taken out of the environment before the program sees it."""


class CallMeter:
    """Counters by function."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.calls: Counter[str] = Counter()

    def counted(self, name: str, body: Callable[..., Any]) -> Callable[..., Any]:
        """A function that counts its calls. (Threads may lose a count to each other: the meter takes no lock.)"""
        calls = self.calls

        def call(*arguments: Any) -> Any:
            calls[name] += 1
            return body(*arguments)

        return call

    def write(self) -> None:
        """What `virtus.techniques.windows` reads; where it cannot be written, the program ends as ever."""
        import json

        try:
            with open(self._path, "w", encoding="utf-8") as stream:
                json.dump({"calls": dict(self.calls), "details": {}}, stream)
        except OSError as error:
            os.write(2, f"virtus: the meter cannot be written: {error}\n".encode())


def from_environment() -> CallMeter | None:
    """The meter that is asked for, None for none."""
    path = os.environ.pop(METER, None)
    return None if path is None else CallMeter(path)
