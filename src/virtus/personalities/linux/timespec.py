"""struct timespec and struct timeval (include/uapi/linux/time.h) in guest memory, as nanoseconds."""

import errno
from struct import Struct
from time import clock_gettime_ns, monotonic_ns
from typing import Final

from virtus.personalities.linux.task import Task

SECOND: Final = 1_000_000_000
PAIR: Final = Struct("<qq")
CLOCK_REALTIME: Final = 0
FAR: Final = 1 << 62
"""About 146 years: later deadlines are as good as none, and sums with them stay in 64 bits."""


def read_timespec(task: Task, address: int) -> int:
    """Nanoseconds; raises EINVAL for what is no duration, EFAULT."""
    seconds: int
    nanoseconds: int
    seconds, nanoseconds = PAIR.unpack(task.read(address, 16))
    if seconds < 0 or not 0 <= nanoseconds < SECOND:
        raise OSError(errno.EINVAL, "")
    return min(seconds * SECOND + nanoseconds, FAR)


def write_timespec(task: Task, address: int, nanoseconds: int) -> None:
    """Store nanoseconds; raises EFAULT."""
    task.write(address, PAIR.pack(*divmod(nanoseconds, SECOND)))


def write_timeval(task: Task, address: int, nanoseconds: int) -> None:
    """Store nanoseconds as seconds and microseconds; raises EFAULT."""
    seconds, rest = divmod(nanoseconds, SECOND)
    task.write(address, PAIR.pack(seconds, rest // 1000))


def monotonic_deadline(clock: int, when: int) -> int:
    """The deadline for `Wait` (monotonic nanoseconds) of an absolute time of a clock; never 0, which is for ever."""
    if clock == 1:  # CLOCK_MONOTONIC itself
        return max(when, 1)
    return max(monotonic_ns() + when - clock_gettime_ns(clock), 1)
