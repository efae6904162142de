"""A program: waits for a process to end and sets the terminal of standard input back, if it is as that process left it.

usage: raw_mode_guard.py PID STATES; STATES: what `raw_mode` marshals, the whole state before and the modes since.
Imports nothing of virtus, so that it starts at once.
"""

import marshal
import os
import select
import sys
import termios


def main() -> None:
    """See the module."""
    pid, (before, since) = int(sys.argv[1]), marshal.loads(bytes.fromhex(sys.argv[2]))
    try:
        descriptor = os.pidfd_open(pid)
        if os.getppid() == pid:
            select.select([descriptor], [], [])
    except ProcessLookupError:
        pass  # it has ended already
    try:
        # a shell may have been quicker: then the terminal is as that wants it
        if termios.tcgetattr(0)[: len(since)] == since:
            termios.tcsetattr(0, termios.TCSANOW, before)
    except termios.error:
        pass  # the terminal is gone as well


if __name__ == "__main__":
    main()
