"""The keyboard controller 8042 with keyboard and mouse (IBM PS/2 technical reference, keyboard/auxiliary device)."""

from collections import deque
from collections.abc import Callable
from typing import Final

from virtus.devices.pc import keys
from virtus.devices.pc.bus import Line

OUTPUT_FULL, SYSTEM, COMMAND, UNLOCKED, FROM_MOUSE = 1, 4, 8, 0x10, 0x20  # of the status register
KEYBOARD_INTERRUPT, MOUSE_INTERRUPT, KEYBOARD_OFF, MOUSE_OFF, TRANSLATE = 1, 2, 0x10, 0x20, 0x40  # command byte
ACKNOWLEDGE, RESEND, PASSED, ECHO = 0xFA, 0xFE, 0xAA, 0xEE
A20: Final = 2
"""Of the output port. The line itself is always on: nothing wraps at 1 MiB."""
MOST_KEYS: Final = 256
WITH_PARAMETER: Final = {0xED, 0xF0, 0xF3}


class Keyboard:
    """What hangs on the first connector. `send` takes bytes of scan code set 1, or answers to commands."""

    def __init__(self) -> None:
        self.queue: deque[tuple[int, bool]] = deque()
        """Bytes, and whether each is part of a scan code, which the controller translates."""
        self.scanning = True
        self._parameter_of = 0
        self.set = 2

    def answer(self, *values: int) -> None:
        """Bytes that are no keys."""
        self.queue.extend((value, False) for value in values)

    def stroke(self, codes: bytes) -> None:
        """A key goes down and up; dropped when the buffer is full, or the keyboard is off."""
        if self.scanning and len(self.queue) + len(codes) <= MOST_KEYS:
            self.queue.extend((code, True) for code in codes)

    def command(self, value: int) -> None:
        """A byte from the host."""
        command, self._parameter_of = self._parameter_of, 0
        if command and value < 0x80:
            if command == 0xF0 and value == 0:
                self.answer(ACKNOWLEDGE, self.set)
            else:
                self.answer(ACKNOWLEDGE)
                if command == 0xF0 and 1 <= value <= 3:
                    self.set = value
        elif value in WITH_PARAMETER:
            self._parameter_of = value
            self.answer(ACKNOWLEDGE)
        elif value == 0xFF:
            self.queue.clear()
            self.scanning, self.set = True, 2
            self.answer(ACKNOWLEDGE, PASSED)
        elif value == 0xF2:
            self.answer(ACKNOWLEDGE, 0xAB, 0x83)
        elif value == ECHO:
            self.answer(ECHO)
        elif value in (0xF4, 0xF5, 0xF6):
            self.scanning = value != 0xF5
            self.answer(ACKNOWLEDGE)
        else:
            self.answer(RESEND)


class Mouse:
    """A mouse with three buttons that nobody moves but `move`."""

    def __init__(self) -> None:
        self.queue: deque[tuple[int, bool]] = deque()
        self._reporting = False
        self._parameter_of = 0
        self._rate, self._resolution, self._scaling = 100, 2, 0

    def _answer(self, *values: int) -> None:
        self.queue.extend((value, False) for value in values)

    def move(self, right: int, up: int, buttons: int) -> None:
        """It was moved by -255 to 255 each way; dropped when nobody listens."""
        if self._reporting and len(self.queue) + 3 <= MOST_KEYS:
            first = buttons & 7 | 8 | (right < 0) << 4 | (up < 0) << 5
            self._answer(first, right & 0xFF, up & 0xFF)

    def command(self, value: int) -> None:
        """A byte from the host."""
        command, self._parameter_of = self._parameter_of, 0
        if command:
            if command == 0xF3:
                self._rate = value
            else:
                self._resolution = value & 3
            self._answer(ACKNOWLEDGE)
        elif value == 0xFF:
            self.__init__()  # type: ignore[misc]  # a reset is a new mouse
            self._answer(ACKNOWLEDGE, PASSED, 0)
        elif value == 0xF2:
            self._answer(ACKNOWLEDGE, 0)
        elif value == 0xE9:
            self._answer(ACKNOWLEDGE, self._reporting << 5 | self._scaling << 4, self._resolution, self._rate)
        elif value == 0xEB:
            self._answer(ACKNOWLEDGE, 8, 0, 0)
        elif value in (0xF3, 0xE8):
            self._parameter_of = value
            self._answer(ACKNOWLEDGE)
        elif value in (0xE6, 0xE7, 0xEA, 0xF0, 0xF4, 0xF5, 0xF6):
            if value in (0xE6, 0xE7):
                self._scaling = value & 1
            self._reporting = value == 0xF4 or (self._reporting and value not in (0xF5, 0xF6))
            self._answer(ACKNOWLEDGE)
        else:
            self._answer(RESEND)


class Ps2Controller:
    """Ports 60h (offset 0) and 64h (offset 4). `reset` is called when the guest pulses the processor's reset line."""

    def __init__(self, keyboard_line: Line, mouse_line: Line, reset: Callable[[], None]) -> None:
        self._lines = keyboard_line, mouse_line
        self._reset = reset
        self.keyboard, self.mouse = Keyboard(), Mouse()
        self._own: deque[tuple[int, bool]] = deque()
        self._mode = KEYBOARD_INTERRUPT | MOUSE_INTERRUPT | SYSTEM | TRANSLATE
        self._output = self._last = 0
        self._full = self._from_mouse = False
        self._data_for = 0
        self._command_last = False
        self._port = 1 | A20

    def type(self, data: bytes) -> None:
        """The user types; see `virtus.devices.pc.keys`."""
        for codes in keys.strokes(data):
            self.keyboard.stroke(codes)
        self._fill()

    def _fill(self) -> None:
        """Move a waiting byte to the output buffer when that is empty, and tell."""
        while not self._full:
            if self._own:
                (value, mouse) = self._own.popleft()
                self._full, self._from_mouse, self._output = True, mouse, value
            elif self.keyboard.queue and not self._mode & KEYBOARD_OFF:
                value, key = self.keyboard.queue.popleft()
                if key and not self._mode & TRANSLATE:
                    several = keys.as_set_2(bytes((value,)))
                    self.keyboard.queue.extendleft((each, False) for each in reversed(several[1:]))
                    value = several[0]
                self._full, self._from_mouse, self._output = True, False, value
            elif self.mouse.queue and not self._mode & MOUSE_OFF:
                self._full, self._from_mouse, self._output = True, True, self.mouse.queue.popleft()[0]
            else:
                break
        self._lines[0](self._full and not self._from_mouse and bool(self._mode & KEYBOARD_INTERRUPT))
        self._lines[1](self._full and self._from_mouse and bool(self._mode & MOUSE_INTERRUPT))

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        if offset:
            status = UNLOCKED | self._mode & SYSTEM | (COMMAND if self._command_last else 0)
            return status | (OUTPUT_FULL if self._full else 0) | (FROM_MOUSE if self._full and self._from_mouse else 0)
        if self._full:
            self._last, self._full = self._output, False
            self._lines[self._from_mouse](False)
            self._fill()
        return self._last

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        self._command_last = bool(offset)
        if offset:
            self._command(value)
        else:
            self._data(value)
        self._fill()

    def _command(self, value: int) -> None:
        self._data_for = 0
        if 0x20 <= value < 0x40:
            self._own.append((self._mode if value == 0x20 else 0, False))
        elif 0x60 <= value < 0x80 or 0xD1 <= value <= 0xD4:
            self._data_for = value
        elif value in (0xA7, 0xA8):
            self._mode = self._mode & ~MOUSE_OFF | (MOUSE_OFF if value == 0xA7 else 0)
        elif value in (0xAD, 0xAE):
            self._mode = self._mode & ~KEYBOARD_OFF | (KEYBOARD_OFF if value == 0xAD else 0)
        elif value == 0xAA:
            self._own.append((0x55, False))
        elif value in (0xA9, 0xAB, 0xC0):
            self._own.append((0x80 if value == 0xC0 else 0, False))
        elif value == 0xD0:
            self._own.append((self._port | (0x10 if self._full else 0), False))
        elif value >= 0xF0 and not value & 1:
            self._reset()
        while len(self._own) > MOST_KEYS:
            self._own.popleft()

    def _data(self, value: int) -> None:
        command, self._data_for = self._data_for, 0
        if command == 0x60:
            self._mode = value
        elif command == 0xD1:
            self._port = value | A20
            if not value & 1:
                self._reset()
        elif command in (0xD2, 0xD3):
            self._own.append((value, command == 0xD3))
        elif command == 0xD4:
            _bounded(self.mouse.queue)
            self.mouse.command(value)
        elif not command:
            self._mode &= ~KEYBOARD_OFF
            _bounded(self.keyboard.queue)
            self.keyboard.command(value)


def _bounded(queue: deque[tuple[int, bool]]) -> None:
    """A guest that never reads its answers loses the oldest."""
    while len(queue) > MOST_KEYS:
        queue.popleft()


class FastA20:
    """Port 92h: A20, which stays on, and a fast reset."""

    def __init__(self, reset: Callable[[], None]) -> None:
        self._reset = reset

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return A20

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        if value & 1:
            self._reset()
