"""POSIX timers: timer_create(2) and its relatives, on the kernel's own clock queue."""

import errno
from struct import Struct
from time import clock_gettime_ns, monotonic_ns
from typing import Any, Final

from virtus.personalities.linux import cpu_clocks, delivery, siginfo
from virtus.personalities.linux.table import Int, Word, call
from virtus.personalities.linux.task import Task
from virtus.personalities.linux.timespec import PAIR, SECOND, read_timespec

SIGALRM: Final = 14
SIGNALS: Final = 64
# include/uapi/asm-generic/siginfo.h
SIGEV_SIGNAL: Final = 0
SIGEV_NONE: Final = 1
SIGEV_THREAD: Final = 2
SIGEV_THREAD_ID: Final = 4
SIGEVENT: Final = Struct("<Qiii")  # sigev_value, sigev_signo, sigev_notify, sigev_notify_thread_id
ITIMERSPEC: Final = Struct("<qqqq")
TIMER_ABSTIME: Final = 1
TIMER_CLOCKS: Final = frozenset({0, 1, 7, 11})  # CLOCK_REALTIME, MONOTONIC, BOOTTIME, TAI
ALARM_CLOCKS: Final = frozenset({8, 9})
DELAYTIMER_MAX: Final = 2**31 - 1
TIMERS_MAX: Final = 8192  # of one process; Linux charges them to RLIMIT_SIGPENDING
SLICE: Final = 4_000_000  # how often a timer on a processor-time clock looks at it, ns


class PosixTimer:
    """One timer: when it expires next by its own clock, and whom it tells."""

    def __init__(self, task: Task, ident: int, clock: int, notify: int, number: int, thread: int, value: int) -> None:
        self.process, self.kernel, self.creator = task.process, task.kernel, task
        self.ident, self.clock, self.notify, self.number = ident, clock, notify, number
        self.thread, self.value = thread, value
        self.due = self.interval = 0  # nanoseconds of its clock; 0: disarmed
        self.overrun = 0
        self.pending: Any = None  # the kernel's timer

    def now(self) -> int:
        """Its clock."""
        return clock_gettime_ns(self.clock) if self.clock in TIMER_CLOCKS else cpu_clocks.read(self.creator, self.clock)

    def arm(self, due: int, interval: int) -> None:
        """Expire at `due`, then every `interval`; 0 disarms."""
        if self.pending is not None:
            self.kernel.scheduler.cancel(self.pending)
            self.pending = None
        self.due, self.interval = due, interval
        if due:
            self._wait()

    def _wait(self) -> None:
        left = max(self.due - self.now(), 0)
        if self.clock not in TIMER_CLOCKS:
            left = max(left, SLICE)
        self.pending = self.kernel.scheduler.at(monotonic_ns() + left, self._look)

    def _look(self) -> None:
        self.pending = None
        if self.process.timers.get(key(self.ident)) is not self or not self.process.alive or not self.due:
            return
        late = self.now() - self.due
        if late < 0:
            self._wait()
            return
        missed = 0
        if self.interval:
            missed = late // self.interval
            self.due += (missed + 1) * self.interval
        else:
            self.due = 0
        self._tell(missed)
        if self.due:
            self._wait()

    def _tell(self, missed: int) -> None:
        if self.notify == SIGEV_NONE:
            return
        target = self.process.tasks.get(self.thread) if self.thread else None
        if self.thread and target is None:
            return
        queue = self.process.pending if target is None else target.pending
        if queue.bits >> (self.number - 1) & 1:
            self.overrun = min(self.overrun + missed + 1, DELAYTIMER_MAX)
            return
        self.overrun = min(missed, DELAYTIMER_MAX)
        info = siginfo.timer(self.number, self.ident, self.overrun, self.value)
        if target is None:
            delivery.post(self.process, self.number, info)
        else:
            delivery.post_thread(target, self.number, info)

    def left(self) -> int:
        """Nanoseconds to the next expiration; 0 when disarmed."""
        return max(self.due - self.now(), 1) if self.due else 0


def key(ident: int) -> tuple[str, int]:
    """Where a timer stands among the process's timers."""
    return ("posix", ident)


def _timer(task: Task, ident: int) -> PosixTimer:
    timer = task.process.timers.get(key(ident))
    if not isinstance(timer, PosixTimer):
        raise OSError(errno.EINVAL, "")
    return timer


@call("timer_create")
def timer_create(task: Task, clock: Int, event: Word, address: Word) -> int:
    """timer_create(2)."""
    if clock in ALARM_CLOCKS:
        raise OSError(errno.EPERM, "")
    if clock not in TIMER_CLOCKS:
        cpu_clocks.read(task, clock)
    process = task.process
    ident = 0
    while key(ident) in process.timers:
        ident += 1
    if ident >= TIMERS_MAX:
        raise OSError(errno.EAGAIN, "")
    value, number, notify, thread = ident, SIGALRM, SIGEV_SIGNAL, 0
    if event:
        value, number, notify, tid = SIGEVENT.unpack(task.read(event, SIGEVENT.size))
        if notify == SIGEV_THREAD_ID:
            thread = tid
            if tid not in process.tasks:
                raise OSError(errno.EINVAL, "")
        elif notify not in (SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD):
            raise OSError(errno.EINVAL, "")
        if notify != SIGEV_NONE and not 1 <= number <= SIGNALS:
            raise OSError(errno.EINVAL, "")
    task.write(address, ident.to_bytes(4, "little"))
    process.timers[key(ident)] = PosixTimer(task, ident, clock, notify, number, thread, value)
    return 0


def _write_setting(task: Task, address: int, timer: PosixTimer) -> None:
    task.write(address, ITIMERSPEC.pack(*divmod(timer.interval, SECOND), *divmod(timer.left(), SECOND)))


@call("timer_settime")
def timer_settime(task: Task, ident: Int, flags: Int, new: Word, old: Word) -> int:
    """timer_settime(2)."""
    timer = _timer(task, ident)
    if not new:
        raise OSError(errno.EINVAL, "")
    interval, value = read_timespec(task, new), read_timespec(task, new + PAIR.size)
    if old:
        _write_setting(task, old, timer)
    timer.overrun = 0
    if value and not flags & TIMER_ABSTIME:
        value += timer.now()
    timer.arm(value, interval)
    return 0


@call("timer_gettime")
def timer_gettime(task: Task, ident: Int, address: Word) -> int:
    """timer_gettime(2)."""
    _write_setting(task, address, _timer(task, ident))
    return 0


@call("timer_getoverrun")
def timer_getoverrun(task: Task, ident: Int) -> int:
    """timer_getoverrun(2)."""
    return _timer(task, ident).overrun


@call("timer_delete")
def timer_delete(task: Task, ident: Int) -> int:
    """timer_delete(2)."""
    timer = _timer(task, ident)
    timer.arm(0, 0)
    del task.process.timers[key(ident)]
    return 0
