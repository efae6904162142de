"""Signals as GDB numbers them in its protocol, whatever system it talks to (include/gdb/signals.def)."""

import signal
from typing import Final

UNKNOWN: Final = 143
"""Of GDB's: stands for the one signal of Linux's that it has no number for."""
# What differs; the numbers of all others up to 15 are the same.
_TO_GDB: Final = {
    signal.SIGBUS: 10, signal.SIGUSR1: 30, signal.SIGUSR2: 31, signal.SIGCHLD: 20, signal.SIGCONT: 19,
    signal.SIGSTOP: 17, signal.SIGTSTP: 18, signal.SIGTTIN: 21, signal.SIGTTOU: 22, signal.SIGURG: 16,
    signal.SIGXCPU: 24, signal.SIGXFSZ: 25, signal.SIGVTALRM: 26, signal.SIGPROF: 27, signal.SIGWINCH: 28,
    signal.SIGIO: 23, signal.SIGPWR: 32, signal.SIGSYS: 12, signal.SIGSTKFLT: UNKNOWN,
}  # fmt: skip
_SAME: Final = (1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 14, 15)
_REALTIME: Final = {32: 77, 64: 78, **{number: number + 12 for number in range(33, 64)}}
"""GDB_SIGNAL_REALTIME_33 is 45."""
TO_GDB: Final[dict[int, int]] = {**{int(key): value for key, value in _TO_GDB.items()}, **_REALTIME} | {
    number: number for number in _SAME
}
FROM_GDB: Final = {value: key for key, value in TO_GDB.items()}


def to_gdb(number: int) -> int:
    """GDB's number of a signal of Linux's. 0 is none."""
    return TO_GDB.get(number, UNKNOWN) if number else 0


def from_gdb(number: int) -> int:
    """Linux's number of a signal of GDB's; raises ValueError for one that Linux does not have. 0 is none."""
    if not number:
        return 0
    if number not in FROM_GDB:
        raise ValueError(f"no signal {number}")
    return FROM_GDB[number]
