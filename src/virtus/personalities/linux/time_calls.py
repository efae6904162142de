"""Clocks, sleeping and the accounting of processor time. Guests read the host's clocks and can set none."""

import ctypes
import errno
from struct import Struct
from time import clock_getres, clock_gettime_ns, monotonic_ns, time, time_ns
from typing import Final

from virtus.host.direct_call import direct_call
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux import accounting, cpu_clocks, posix_timers  # noqa: F401 - registers its calls
from virtus.personalities.linux.blocking import Blocking, Interrupted, Wait
from virtus.personalities.linux.table import Int, Word, call
from virtus.personalities.linux.task import Process, Task
from virtus.personalities.linux.timespec import (
    PAIR,
    SECOND,
    monotonic_deadline,
    read_timespec,
    write_timespec,
    write_timeval,
)

# include/uapi/linux/time.h
CLOCK_REALTIME: Final = 0
CLOCK_MONOTONIC: Final = 1
CLOCK_THREAD_CPUTIME_ID: Final = 3
CLOCK_BOOTTIME: Final = 7
CLOCK_REALTIME_ALARM: Final = 8
CLOCK_BOOTTIME_ALARM: Final = 9
CLOCK_TAI: Final = 11
HOST_CLOCKS: Final = frozenset({0, 1, 4, 5, 6, 7, 8, 9, 11})
SLEEP_CLOCKS: Final = frozenset({CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI})
ALARM_CLOCKS: Final = frozenset({CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM})
TIMER_ABSTIME: Final = 1
SLICE: Final = 10_000_000  # how often a sleep on a processor-time clock looks again, ns

# include/uapi/linux/resource.h
RUSAGE_SELF: Final = 0
RUSAGE_CHILDREN: Final = -1
RUSAGE_THREAD: Final = 1
RUSAGE: Final = Struct("<18q")

TIMEX_SIZE: Final = 208  # struct __kernel_timex, include/uapi/linux/timex.h
TICKS: Final = Struct("<4q")
_timex = ctypes.create_string_buffer(TIMEX_SIZE)


def _now(task: Task, clock: int) -> int:
    if clock in HOST_CLOCKS:
        return clock_gettime_ns(clock)
    return cpu_clocks.read(task, clock)


@call("clock_gettime")
def clock_gettime(task: Task, clock: Int, address: Word) -> int:
    """clock_gettime(2)."""
    now = clock_gettime_ns(clock) if clock in HOST_CLOCKS else cpu_clocks.read(task, clock)
    task.write(address, PAIR.pack(now // SECOND, now % SECOND))
    return 0


@call("clock_getres")
def clock_getres_(task: Task, clock: Int, address: Word) -> int:
    """clock_getres(2)."""
    resolution = round(clock_getres(clock) * SECOND) if clock in HOST_CLOCKS else 1
    if clock not in HOST_CLOCKS:
        cpu_clocks.read(task, clock)
    if address:
        write_timespec(task, address, resolution)
    return 0


@call("clock_settime", note="EPERM: the clocks are the host's")
def clock_settime(task: Task, clock: Int, address: Word) -> int:
    """clock_settime(2)."""
    if clock != CLOCK_REALTIME:
        raise OSError(errno.EINVAL, "")
    read_timespec(task, address)
    raise OSError(errno.EPERM, "")


@call("gettimeofday")
def gettimeofday(task: Task, address: Word, zone: Word) -> int:
    """gettimeofday(2)."""
    if address:
        write_timeval(task, address, time_ns())
    if zone:
        task.write(zone, bytes(8))  # struct timezone: Greenwich, no daylight saving
    return 0


@call("settimeofday", note="EPERM: the clock is the host's")
def settimeofday(task: Task, address: Word, zone: Word) -> int:
    """settimeofday(2)."""
    raise OSError(errno.EPERM, "")


@call("time")
def time_(task: Task, address: Word) -> int:
    """time(2)."""
    now = int(time())
    if address:
        task.write(address, now.to_bytes(8, "little"))
    return now


def _process_times(process: Process) -> tuple[int, int]:
    """User and system microseconds of a process, its living threads included."""
    user, system = process.user_us, process.system_us
    for task in process.tasks.values():
        more_user, more_system = accounting.times_of(task)
        user += more_user
        system += more_system
    return user, system


@call("times")
def times(task: Task, address: Word) -> int:
    """times(2)."""
    process = task.process
    user, system = _process_times(process)
    if address:
        task.write(
            address,
            TICKS.pack(
                accounting.ticks(user),
                accounting.ticks(system),
                accounting.ticks(process.children_user_us),
                accounting.ticks(process.children_system_us),
            ),
        )
    return accounting.ticks(clock_gettime_ns(CLOCK_BOOTTIME) // 1000)


def pack_usage(user_us: int, system_us: int, peak_kib: int) -> bytes:
    """struct rusage; what the kernel does not count is 0."""
    return RUSAGE.pack(*divmod(user_us, 1_000_000), *divmod(system_us, 1_000_000), peak_kib, *(0,) * 13)


@call("getrusage", note="times and peak memory; page faults, block transfers and context switches are 0")
def getrusage(task: Task, who: Int, address: Word) -> int:
    """getrusage(2)."""
    process = task.process
    if who == RUSAGE_SELF:
        user, system = _process_times(process)
        peak = max(process.max_rss_kib, accounting.peak_kib(task))
    elif who == RUSAGE_CHILDREN:
        user, system = process.children_user_us, process.children_system_us
        peak = process.children_max_rss_kib
    elif who == RUSAGE_THREAD:
        user, system = accounting.times_of(task)
        peak = max(process.max_rss_kib, accounting.peak_kib(task))
    else:
        raise OSError(errno.EINVAL, "")
    task.write(address, pack_usage(user, system, peak))
    return 0


def _sleep(task: Task, deadline: int, remaining: int) -> Blocking:
    """Sleep to a deadline; a signal ends it with EINTR and, at `remaining`, what was left."""
    try:
        yield Wait(deadline=deadline, restart=False)
    except Interrupted:
        if remaining:
            write_timespec(task, remaining, max(deadline - monotonic_ns(), 0))
        raise
    return 0


def _sleep_cpu(task: Task, clock: int, until: int) -> Blocking:
    """Sleep until a processor-time clock has come so far, looking at it now and then."""
    while (left := until - cpu_clocks.read(task, clock)) > 0:
        yield Wait(deadline=monotonic_ns() + max(left, SLICE), restart=False)
    return 0


@call("nanosleep")
def nanosleep(task: Task, wanted: Word, remaining: Word) -> Blocking:
    """nanosleep(2)."""
    return _sleep(task, monotonic_ns() + read_timespec(task, wanted), remaining)


@call("clock_nanosleep")
def clock_nanosleep(task: Task, clock: Int, flags: Int, wanted: Word, remaining: Word) -> int | Blocking:
    """clock_nanosleep(2)."""
    if clock in ALARM_CLOCKS:
        raise OSError(errno.EPERM, "")  # waking the machine from suspend is CAP_WAKE_ALARM's
    if clock in SLEEP_CLOCKS:
        when = read_timespec(task, wanted)
        if flags & TIMER_ABSTIME:
            return _sleep(task, monotonic_deadline(clock, when), 0)
        return _sleep(task, monotonic_ns() + when, remaining)
    if clock in HOST_CLOCKS:
        raise OSError(errno.EOPNOTSUPP, "")
    if clock == CLOCK_THREAD_CPUTIME_ID:
        raise OSError(errno.EINVAL, "")  # a thread that sleeps uses none
    now = cpu_clocks.read(task, clock)
    when = read_timespec(task, wanted)
    return _sleep_cpu(task, clock, when if flags & TIMER_ABSTIME else now + when)


def _adjtimex(task: Task, address: int) -> int:
    if Struct("<I").unpack(task.read(address, 4))[0]:
        raise OSError(errno.EPERM, "")
    ctypes.memset(_timex, 0, TIMEX_SIZE)
    state = direct_call(NUMBERS["adjtimex"], ctypes.addressof(_timex))
    task.write(address, _timex.raw)
    return state


@call("adjtimex", note="reads only: the clock is the host's")
def adjtimex(task: Task, address: Word) -> int:
    """adjtimex(2)."""
    return _adjtimex(task, address)


@call("clock_adjtime", note="reads only: the clock is the host's")
def clock_adjtime(task: Task, clock: Int, address: Word) -> int:
    """clock_adjtime(2)."""
    if clock != CLOCK_REALTIME:
        raise OSError(errno.EOPNOTSUPP, "")
    return _adjtimex(task, address)
