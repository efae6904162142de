"""The user's terminal, lent to a guest that has a pty of its own: bytes both ways, size changes, raw mode restored."""

import fcntl
import os
import select
import signal
import struct
import termios
import threading
from typing import Any

from virtus.devices.raw_mode import RawMode


def terminals_among(fds: tuple[int, ...] = (0, 1, 2)) -> list[int]:
    """The standard streams that are terminals."""
    return [fd for fd in fds if os.isatty(fd)]


class Proxy:
    """Copies between the user's terminal and a pty master, from `start` to `stop`."""

    def __init__(self, master: int, user_in: int, user_out: int) -> None:
        self._master, self._in, self._out = master, user_in, user_out
        self._raw: RawMode | None = None
        self._stop_out, self._stop_in = os.pipe()
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._before: Any = signal.SIG_DFL

    def start(self) -> None:
        """Raw mode on the user's side; the first size."""
        self.resize()
        self._before = signal.signal(signal.SIGWINCH, lambda *_: self.resize())
        try:
            self._raw = RawMode(self._in)
        except termios.error:
            pass  # no terminal to read from, or one in the background
        self._thread.start()

    def resize(self) -> None:
        """Give the guest's terminal the user's size."""
        size = fcntl.ioctl(self._out, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def _copy(self) -> None:
        sources = [self._master, self._stop_out] + ([self._in] if self._raw is not None else [])
        stopping = False
        while True:
            ready, _, _ = select.select(sources, [], [], 0 if stopping else None)
            if stopping and self._master not in ready:
                return
            if self._stop_out in ready and not stopping:
                stopping = True
                sources = [self._master]
            if self._master in ready:
                try:
                    data = os.read(self._master, 65536)
                except OSError:
                    return  # EIO: the last slave is closed
                if not data:
                    return
                _write_all(self._out, data)
            if self._in in ready and not stopping:
                data = os.read(self._in, 65536)
                if data:
                    _write_all(self._master, data)
                else:
                    sources.remove(self._in)

    def stop(self) -> None:
        """Everything the guest has written is shown; the terminal is as it was."""
        os.write(self._stop_in, b"x")
        self._thread.join(timeout=5)
        if self._raw is not None:
            self._raw.leave()
        signal.signal(signal.SIGWINCH, self._before)
        for fd in (self._stop_out, self._stop_in, self._master):
            os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
