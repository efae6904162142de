"""The front of a PC: its screen and keyboard, or its first serial port, on the user's terminal."""

from collections.abc import Callable
from enum import Enum
from typing import Final

from virtus.devices.console import Console
from virtus.devices.pc.ps2 import Ps2Controller
from virtus.devices.pc.screen import Screen
from virtus.devices.pc.uart16550 import Uart16550

SCREEN_EVERY_NS: Final = 50_000_000
CLEAR: Final = "\x1b[0m\x1b[2J\x1b[H"


class Front(Enum):
    """What the terminal shows, and what is typed goes to."""

    SCREEN = "screen"
    SERIAL = "serial"
    FIRST = "first"
    """Whichever of the two the guest writes to first, from `Terminal.begin` on."""


class Terminal:
    """Shows a screen or a serial port on a console, and passes on what is typed. It never waits."""

    def __init__(
        self, console: Console, screen: Screen, keyboard: Ps2Controller, front: Front, clock: Callable[[], int]
    ) -> None:
        self.front = front
        self.serial: Uart16550 | None = None  # set by the board: the port is made with `serial_out`
        self._console, self._screen, self._keyboard, self._clock = console, screen, keyboard, clock
        self._show_at = 0
        self._picture = (0, 0)
        self._before: str | None = None

    @property
    def escaped(self) -> bool:
        """Whether the user wants out."""
        return self._console.escaped

    def serial_out(self, data: bytes) -> None:
        """The guest writes to its serial port."""
        if self.front is Front.FIRST and self._before is not None:
            self.front = Front.SERIAL
        if self.front is Front.SERIAL:
            self._console.write(data)

    def begin(self) -> None:
        """The guest itself begins: what is on the screen is not its own."""
        self._before = self._screen.text()

    def poll(self) -> None:
        """Pass on what was typed; bring the terminal up to date, at most every SCREEN_EVERY_NS."""
        self._type()
        now = self._clock()
        if self.front is not Front.SERIAL and now >= self._show_at:
            self._show_at = now + SCREEN_EVERY_NS
            self.show()

    def show(self) -> None:
        """Bring the terminal up to date with the screen, if that is what it shows."""
        if self.front is Front.FIRST and self._before is not None and self._screen.text() != self._before:
            self.front = Front.SCREEN
        if self.front is Front.SCREEN:
            if self._screen.is_text:
                self._picture, data = (0, 0), self._screen.changes()
            else:
                data = self._notice()
            if data:
                self._console.write(data)

    def _notice(self) -> bytes:
        """A terminal shows no pixels: it is told how to see them, once a mode."""
        size = self._screen.pixels
        if size == self._picture:
            return b""
        self._picture = size
        self._screen.forget()
        words = f"{size[0]} x {size[1]} pixels: `virtus domain screenshot` makes a picture of them"
        return f"{CLEAR}({words})\r\n".encode()

    def _type(self) -> None:
        if self.front is not Front.SERIAL:
            typed = self._console.read()
            if typed:
                self._keyboard.type(typed)
        elif self.serial is not None and self.serial.wants_more:
            typed = self._console.read()
            if typed:
                self.serial.type(typed)

    def descriptors(self) -> list[int]:
        """What becomes readable when something is typed that the guest takes."""
        takes = self.front is not Front.SERIAL or (self.serial is not None and self.serial.wants_more)
        return self._console.descriptors() if takes else []
