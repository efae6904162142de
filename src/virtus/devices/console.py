"""A machine's console on the user's terminal: raw while the machine runs, with a way out (Ctrl-])."""

import os
import select
import socket
import termios
from typing import Final

from virtus.devices.raw_mode import RawMode

ESCAPE: Final = b"\x1d"
"""Ctrl-]: as in telnet, virsh and xl; ends the machine at once."""
MOST_AT_ONCE: Final = 1024
KEPT: Final = 8192
"""Bytes of what was shown last that whoever attaches later gets to see."""


class Console:
    """Bytes between the machine and two descriptors. `escaped` is set when the user wants out.

    Either may be -1: nothing is typed, or nothing is shown.
    """

    def __init__(self, user_in: int, user_out: int) -> None:
        self._in, self._out = user_in, user_out
        self._raw: RawMode | None = None
        self._ended = user_in < 0
        self._others: list[socket.socket] = []
        self._shown = bytearray()
        self.escaped = False

    def start(self) -> None:
        """Raw mode where a terminal is there to be read from by us."""
        if not self._ended and os.isatty(self._in):
            try:
                self._raw = RawMode(self._in)
            except termios.error:
                pass  # in the background

    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal where it is shown, (0, 0) where that is none."""
        try:
            columns, rows = os.get_terminal_size(self._out)
        except OSError:
            return 0, 0
        return columns, rows

    def descriptors(self) -> list[int]:
        """What becomes readable when something is typed."""
        own = [] if self._ended else [self._in]
        return own + [other.fileno() for other in self._others]

    def attach(self, other: socket.socket) -> None:
        """Somebody else takes part, from a terminal of their own, until they close the socket."""
        other.setblocking(False)
        self._others.append(other)
        self._show(other, bytes(self._shown))

    def read(self) -> bytes:
        """What was typed, b"" for nothing; never waits."""
        return self._read_own() + b"".join([self._read_from(other) for other in list(self._others)])

    def _read_from(self, other: socket.socket) -> bytes:
        try:
            data = other.recv(MOST_AT_ONCE)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._others.remove(other)
            other.close()
        return data

    def _read_own(self) -> bytes:
        if self._ended or not select.select([self._in], [], [], 0)[0]:
            return b""
        try:
            data = os.read(self._in, MOST_AT_ONCE)
        except OSError:
            data = b""
        if not data:
            self._ended = True
        elif self._raw is not None and ESCAPE in data:
            self.escaped = True
            data = data[: data.index(ESCAPE)]
        return data

    def write(self, data: bytes) -> None:
        """Show bytes. A reader that has gone away is not waited for, nor is one from elsewhere that is slow."""
        self._shown += data
        del self._shown[:-KEPT]
        for other in self._others:
            self._show(other, data)
        view = memoryview(data)
        while view and self._out >= 0:
            try:
                view = view[os.write(self._out, view) :]
            except BlockingIOError:
                select.select([], [self._out], [])
            except OSError:
                self._out = -1

    @staticmethod
    def _show(other: socket.socket, data: bytes) -> None:
        try:
            other.send(data)
        except OSError:
            pass  # its buffer is full, or `read` finds it gone

    def stop(self) -> None:
        """The terminal is as it was. May be called twice."""
        for other in self._others:
            other.close()
        self._others.clear()
        if self._raw is not None:
            self._raw.leave()
            self._raw = None
