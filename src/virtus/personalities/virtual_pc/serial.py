"""A serial port: enough of a 16550 for a console (National Semiconductor PC16550D, 8.0)."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

RECEIVE_READY, TRANSMIT_READY = 1, 2  # of the interrupt enable register
LATCH: Final = 0x80  # of the line control register: the divisor is at 0 and 1
NO_INTERRUPT, TRANSMIT_EMPTY, RECEIVED, FIFOS = 1, 2, 4, 0xC0  # of the interrupt identification register
DATA_READY, EMPTY = 1, 0x60  # of the line status register
MODEM_READY: Final = 0xB0  # carrier, data set ready, clear to send
MOST_TYPED: Final = 4096


class SerialPort:
    """Registers 0 to 7. What is sent goes to `show`; `interrupt` is called when there is a new reason for one."""

    def __init__(self, show: Callable[[bytes], None], interrupt: Callable[[], None]) -> None:
        self._show, self._interrupt = show, interrupt
        self._typed: deque[int] = deque()
        self._enabled = self._line = self._modem = self._scratch = 0
        self._divisor = [12, 0]
        self._sent = False
        self._was = NO_INTERRUPT

    def save(self) -> dict[str, Any]:
        """All there is to know of it."""
        registers = [self._enabled, self._line, self._modem, self._scratch, int(self._sent), self._was, *self._divisor]
        return {"registers": registers, "typed": list(self._typed)}

    def load(self, saved: Mapping[str, Any]) -> None:
        """What `save` gave; raises KeyError, TypeError or ValueError."""
        registers = [int(one) & 0xFF for one in saved["registers"]]
        self._enabled, self._line, self._modem, self._scratch, sent, self._was, *self._divisor = registers
        if len(self._divisor) != 2:
            raise ValueError("a divisor of other than two bytes")
        self._sent = bool(sent)
        self._typed = deque(int(one) & 0xFF for one in saved["typed"])

    @property
    def wants_more(self) -> bool:
        """Whether there is room for what is typed."""
        return len(self._typed) < MOST_TYPED

    def type(self, data: bytes) -> None:
        """Somebody types."""
        self._typed.extend(data)
        self._update()

    def _reason(self) -> int:
        if self._enabled & RECEIVE_READY and self._typed:
            return RECEIVED
        if self._enabled & TRANSMIT_READY and self._sent:
            return TRANSMIT_EMPTY
        return NO_INTERRUPT

    def _update(self) -> None:
        reason = self._reason()
        if reason not in (NO_INTERRUPT, self._was):
            self._interrupt()
        self._was = reason

    def write(self, register: int, value: int) -> None:
        """The guest writes a register."""
        value &= 0xFF
        if register < 2 and self._line & LATCH:
            self._divisor[register] = value
        elif register == 0:
            self._show(bytes((value,)))
            self._sent, self._was = True, NO_INTERRUPT
            self._update()
        elif register == 1:
            if value & TRANSMIT_READY and not self._enabled & TRANSMIT_READY:
                self._sent, self._was = True, NO_INTERRUPT
            self._enabled = value & 15
            self._update()
        elif register == 3:
            self._line = value
        elif register == 4:
            self._modem = value
        elif register == 7:
            self._scratch = value

    def read(self, register: int) -> int:
        """The guest reads a register."""
        if register < 2 and self._line & LATCH:
            return self._divisor[register]
        if register == 0:
            typed = self._typed.popleft() if self._typed else 0
            self._was = NO_INTERRUPT
            self._update()
            return typed
        if register == 2:
            reason = self._reason()
            if reason == TRANSMIT_EMPTY:
                self._sent = False
            self._was = NO_INTERRUPT if reason == TRANSMIT_EMPTY else self._was
            return FIFOS | reason
        if register == 5:
            return EMPTY | (DATA_READY if self._typed else 0)
        return {1: self._enabled, 3: self._line, 4: self._modem, 6: MODEM_READY, 7: self._scratch}[register]
