"""A user's terminal in raw mode (termios(3), cfmakeraw), and as it was afterwards, whatever ends this process.

Who is killed with SIGKILL restores nothing; a guard, a process of its own, does it for us.
"""

import marshal
import os
import termios
import tty
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import subprocess

MODES: Final = 4
"""Words of a termios list that are modes: input, output, control and local ones."""


class RawMode:
    """From `RawMode(fd)` to `leave`. Raises termios.error where `fd` is no terminal that we may change."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved = termios.tcgetattr(fd)
        tty.setraw(fd, termios.TCSADRAIN)
        self._guard = _guard(fd, marshal.dumps((self._saved, termios.tcgetattr(fd)[:MODES])))

    def leave(self) -> None:
        """The terminal as it was."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)


def _guard(fd: int, states: bytes) -> "subprocess.Popen[bytes] | None":
    import subprocess
    import sys

    from virtus.devices import raw_mode_guard

    command = [sys.executable, "-I", "-S", raw_mode_guard.__file__, str(os.getpid()), states.hex()]
    try:
        return subprocess.Popen(
            command, stdin=fd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:
        return None  # no process to be had: as without a guard
