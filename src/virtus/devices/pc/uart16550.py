"""A serial port (National Semiconductor PC16550D data sheet, 8.0): FIFOs, interrupts by reason, loop-back, no speed."""

from collections import deque
from collections.abc import Callable
from typing import Final

from virtus.devices.pc.bus import Line

ENABLE_RECEIVED, ENABLE_EMPTY, ENABLE_LINE, ENABLE_MODEM = 1, 2, 4, 8
REASON_NONE, REASON_EMPTY, REASON_RECEIVED, REASON_MODEM = 1, 2, 4, 0
FIFO_ENABLE, FIFO_CLEAR_RECEIVED = 1, 2
LATCH: Final = 0x80
LOOP, OUT2 = 0x10, 0x08
DATA_READY, IDLE = 1, 0x60
MODEM_READY: Final = 0xB0  # carrier, data set ready, clear to send
MOST_TYPED: Final = 4096


class Uart16550:
    """Registers 0 to 7. What is sent goes to `show`. The line goes through OUT2, as a PC is wired."""

    def __init__(self, show: Callable[[bytes], None], line: Line) -> None:
        self._show, self._line = show, line
        self._received: deque[int] = deque()
        self._enabled = self._format = self._modem = self._scratch = 0
        self._fifo = False
        self._divisor = [12, 0]
        self._empty_pending = False
        self._modem_changes = 0
        self._calm: tuple[bool, int] | None = None
        self.calm: Callable[[bool, int], None] = lambda calm, status: None
        """Called when it changes: whether nothing but what is sent comes of sending a byte, and the line status."""

    @property
    def wants_more(self) -> bool:
        """Whether there is room for what is typed."""
        return len(self._received) < MOST_TYPED

    def type(self, data: bytes) -> None:
        """Bytes come in over the wire; what does not fit is lost."""
        self._received.extend(data[: MOST_TYPED - len(self._received)])
        self._update()

    def _reason(self) -> int:
        if self._enabled & ENABLE_RECEIVED and self._received:
            return REASON_RECEIVED
        if self._enabled & ENABLE_EMPTY and self._empty_pending:
            return REASON_EMPTY
        if self._enabled & ENABLE_MODEM and self._modem_changes:
            return REASON_MODEM
        return REASON_NONE

    def _update(self) -> None:
        self._line(self._reason() != REASON_NONE and bool(self._modem & OUT2) and not self._modem & LOOP)
        loud = self._format & LATCH or self._modem & LOOP or self._enabled & ENABLE_EMPTY
        calm = not loud, self._line_status()
        if calm != self._calm:
            self._calm = calm
            self.calm(*calm)

    def _line_status(self) -> int:
        return IDLE | (DATA_READY if self._received else 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        if offset < 2 and self._format & LATCH:
            self._divisor[offset] = value
        elif offset == 0:
            if not self._modem & LOOP:
                self._show(bytes((value,)))
            elif self.wants_more:
                self._received.append(value)
            self._line(False)  # a new reason is a new edge
            self._empty_pending = True
        elif offset == 1:
            if value & ENABLE_EMPTY and not self._enabled & ENABLE_EMPTY:
                self._empty_pending = True
            self._enabled = value & 15
        elif offset == 2:
            self._fifo = bool(value & FIFO_ENABLE)
            if value & FIFO_CLEAR_RECEIVED:
                self._received.clear()
        elif offset == 3:
            self._format = value
        elif offset == 4:
            self._modem_changes = (self._modem_status() >> 4) ^ (self._modem_status(value) >> 4)
            self._modem = value & 0x1F
        elif offset == 7:
            self._scratch = value
        self._update()

    def _modem_status(self, control: int | None = None) -> int:
        """Looped back, DTR, RTS, OUT1, OUT2 are DSR, CTS, RI, DCD."""
        control = self._modem if control is None else control
        if not control & LOOP:
            return MODEM_READY
        return (control & 1) << 5 | (control & 2) << 3 | (control & 0xC) << 4

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        if offset < 2 and self._format & LATCH:
            return self._divisor[offset]
        if offset == 0:
            value = self._received.popleft() if self._received else 0
        elif offset == 1:
            value = self._enabled
        elif offset == 2:
            value = self._reason()
            if value == REASON_EMPTY:
                self._empty_pending = False
            value |= 0xC0 if self._fifo else 0
        elif offset == 3:
            value = self._format
        elif offset == 4:
            value = self._modem
        elif offset == 5:
            value = self._line_status()
        elif offset == 6:
            value, self._modem_changes = self._modem_status() | self._modem_changes, 0
        else:
            value = self._scratch
        self._update()
        return value
