"""A Windows process and its threads, as functions of the API see them."""

import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from virtus.personalities.win32.guest import Engine, Memory
from virtus.personalities.win32.handles import HandleTable

if TYPE_CHECKING:
    from virtus.personalities.win32.modules import Modules

TEB_LAST_ERROR: Final = 0x68


class ProcessEnd(BaseException):
    """The process ends with a Windows exit code; unwinds the calling thread. No `except Exception` may hold it up."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Process:
    """One process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.parts: dict[type[Any], Any] = {}
        """What families of functions remember of it (`state.of`)."""
        self.memory: Memory = engine.memory
        self.handles = HandleTable()
        self.environment: dict[str, str] = {}
        self.command_line = ""
        self.ident = 4
        self.modules: Modules  # set by whoever starts the program
        self.peb = 0
        self.directory = "C:\\"
        """The current directory, as Windows writes it."""
        self.streams: tuple[int, ...] = (0, 0, 0)
        """Handles of standard input, output and error output."""
        self.threads: dict[int, Thread] = {}
        self.ending = False
        self.tell_exit: Callable[[int], None] | None = None
        """Tells the process that started this one how it ends: hosts keep only a byte of that."""
        self.at_exit: list[Callable[[], None]] = []
        """What must happen before the process ends, such as writing out what is buffered."""
        self._current = threading.local()
        self._idents = itertools.count(8, 4)

    def new_ident(self) -> int:
        """A number for a thread that no other has."""
        return next(self._idents)

    @property
    def current(self) -> "Thread":
        """The guest thread that the calling thread of the host is."""
        thread: Thread = self._current.thread
        return thread

    @current.setter
    def current(self, thread: "Thread") -> None:
        self._current.thread = thread
        self.threads[thread.ident] = thread

    def getter(self) -> "Callable[[], Thread]":
        """The same as a function, for whoever asks at every call."""
        local = self._current

        def get() -> Thread:
            thread: Thread = local.thread
            return thread

        return get


class Thread:
    """One thread of it."""

    def __init__(self, process: Process, teb: int, ident: int) -> None:
        self.process, self.teb, self.ident = process, teb, ident
        self.engine, self.memory = process.engine, process.memory
        self.parts: dict[type[Any], Any] = {}

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
