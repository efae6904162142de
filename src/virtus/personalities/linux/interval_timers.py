"""setitimer(2), getitimer(2) and alarm(2): one timer of each kind for a process."""

import errno
from struct import Struct
from time import monotonic_ns
from typing import Final

from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux import delivery
from virtus.personalities.linux.lifecycle import REAL_TIMER
from virtus.personalities.linux.scheduler import Timer
from virtus.personalities.linux.table import Int, Uint, Word, call
from virtus.personalities.linux.task import Process, Task

NANOSECONDS: Final = 1_000_000_000
ITIMER_REAL: Final = 0  # include/uapi/linux/time.h
ITIMER_VIRTUAL: Final = 1
ITIMER_PROF: Final = 2

_ITIMER = Struct("<qqqq")  # struct itimerval: interval, value


class RealTimer:
    """setitimer(2)'s ITIMER_REAL of one process: SIGALRM by the clock on the wall."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.deadline = 0
        self.interval = 0
        self._expired_at = 0  # 0: not expired since it was armed
        self._timer: Timer | None = None

    def cancel(self) -> None:
        """Disarm."""
        if self._timer is not None:
            self.process.kernel.scheduler.cancel(self._timer)
        self._timer, self.deadline, self._expired_at = None, 0, 0

    def left(self) -> int:
        """Nanoseconds to go; 0 when disarmed."""
        return max(1000, self.deadline - monotonic_ns()) if self.deadline else 0

    def arm(self, value: int, interval: int) -> None:
        """Expire after `value` nanoseconds, then every `interval`; a value of 0 disarms."""
        self.cancel()
        self.interval = interval
        if value:
            self.deadline = monotonic_ns() + value
            self._timer = self.process.kernel.scheduler.at(self.deadline, self._expired)

    def _expired(self) -> None:
        self._timer = None
        self._expired_at, self.deadline = self.deadline, 0
        delivery.post(self.process, delivery.SIGALRM)

    def repeat(self) -> None:
        """The signal was taken: count the next interval. A timer is never faster than who takes its signals."""
        if self._timer is None and self._expired_at and self.interval:
            missed = max(0, monotonic_ns() - self._expired_at) // self.interval
            self.deadline = self._expired_at + (missed + 1) * self.interval
            self._expired_at = 0
            self._timer = self.process.kernel.scheduler.at(self.deadline, self._expired)


def _real_timer(process: Process) -> RealTimer:
    timer: RealTimer | None = process.timers.get(REAL_TIMER)
    if timer is None:
        timer = process.timers[REAL_TIMER] = RealTimer(process)
    return timer


@call("alarm")
def alarm(task: Task, seconds: Uint) -> int:
    """alarm(2)."""
    timer = _real_timer(task.process)
    left = timer.left()
    timer.arm(seconds * NANOSECONDS, 0)
    return max(1, (left + NANOSECONDS // 2) // NANOSECONDS) if left else 0


def _check_address(task: Task, address: int) -> None:
    """The host is told no address for a struct itimerval that is not the guest's; raises EFAULT."""
    if address + _ITIMER.size > task.kernel.abi.user_end:
        raise OSError(errno.EFAULT, "")


def _timeval(nanoseconds: int) -> tuple[int, int]:
    return nanoseconds // NANOSECONDS, nanoseconds % NANOSECONDS // 1000


@call("getitimer", note="ITIMER_VIRTUAL and ITIMER_PROF count the calling thread only")
def getitimer(task: Task, which: Int, address: Word) -> int:
    """getitimer(2)."""
    if which in (ITIMER_VIRTUAL, ITIMER_PROF):
        _check_address(task, address)
        return task.context.inject(NUMBERS["getitimer"], which, address)
    if which != ITIMER_REAL:
        raise OSError(errno.EINVAL, "")
    timer = _real_timer(task.process)
    task.write(address, _ITIMER.pack(*_timeval(timer.interval if timer.deadline else 0), *_timeval(timer.left())))
    return 0


@call("setitimer", note="ITIMER_VIRTUAL and ITIMER_PROF count the calling thread only")
def setitimer(task: Task, which: Int, new: Word, old: Word) -> int:
    """setitimer(2). The host keeps the timers that count a stub's processor time; its signals come back as exits."""
    if which in (ITIMER_VIRTUAL, ITIMER_PROF):
        _check_address(task, new)
        _check_address(task, old)
        return task.context.inject(NUMBERS["setitimer"], which, new, old)
    if which != ITIMER_REAL:
        raise OSError(errno.EINVAL, "")
    interval_s = interval_us = value_s = value_us = 0
    if new:
        interval_s, interval_us, value_s, value_us = _ITIMER.unpack(task.read(new, _ITIMER.size))
        if min(interval_s, value_s) < 0 or not (0 <= interval_us < 1_000_000 and 0 <= value_us < 1_000_000):
            raise OSError(errno.EINVAL, "")
    if old:
        getitimer(task, which, old)
    value, interval = value_s * NANOSECONDS + value_us * 1000, interval_s * NANOSECONDS + interval_us * 1000
    _real_timer(task.process).arm(value, interval)
    return 0
