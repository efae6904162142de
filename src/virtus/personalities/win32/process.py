"""A Windows process and its threads, as functions of the API see them."""

from typing import Final

from virtus.personalities.win32.guest import Engine, Memory
from virtus.personalities.win32.handles import HandleTable

TEB_LAST_ERROR: Final = 0x68


class Process:
    """One process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.memory: Memory = engine.memory
        self.handles = HandleTable()
        self.environment: dict[str, str] = {}
        self.command_line = ""
        self.ident = 4


class Thread:
    """One thread of it."""

    def __init__(self, process: Process, teb: int, ident: int) -> None:
        self.process, self.teb, self.ident = process, teb, ident
        self.engine, self.memory = process.engine, process.memory

    @property
    def last_error(self) -> int:
        """GetLastError."""
        return self.memory.u32(self.teb + TEB_LAST_ERROR)

    @last_error.setter
    def last_error(self, value: int) -> None:
        self.memory.set_u32(self.teb + TEB_LAST_ERROR, value)

    def fail(self, error: int, value: int = 0) -> int:
        """Set the last error, and give `value`."""
        self.last_error = error
        return value
