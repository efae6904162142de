"""Processor-time clocks of guest threads and processes: the host's clocks of their stubs.

Clock numbers as in include/linux/posix-timers_types.h: the complement of a pid above three bits, which say which of
the three clocks of the process or thread is meant.
"""

import errno
from time import clock_gettime_ns
from typing import Final

from virtus.personalities.linux.task import Process, Task

CPUCLOCK_SCHED: Final = 2
CPUCLOCK_PERTHREAD: Final = 4
CLOCK_PROCESS_CPUTIME_ID: Final = 2  # include/uapi/linux/time.h
CLOCK_THREAD_CPUTIME_ID: Final = 3


def thread_ns(task: Task) -> int:
    """What a living thread has used, in nanoseconds; 0 when its stub is gone."""
    try:
        return clock_gettime_ns(~task.context.ident << 3 | CPUCLOCK_SCHED)
    except OSError:
        return 0


def process_ns(process: Process) -> int:
    """What all threads of a process have used, those that have ended included."""
    used = sum(thread_ns(task) for task in process.tasks.values())
    return used + (process.user_us + process.system_us) * 1000


def owner(task: Task, clock: int) -> Task | Process:
    """Whose clock a negative clock number names, as `task` may use it; raises EINVAL."""
    pid, kind = ~clock >> 3, clock & 7
    if kind & 3 == 3:
        raise OSError(errno.EINVAL, "")  # CLOCKFD: a device's clock
    if kind & CPUCLOCK_PERTHREAD:
        found = task if not pid else task.process.tasks.get(pid)
        if found is None:
            raise OSError(errno.EINVAL, "")
        return found
    process = task.process if not pid else task.kernel.processes.get(pid)
    if process is None or not process.tasks:
        raise OSError(errno.EINVAL, "")
    return process


def read(task: Task, clock: int) -> int:
    """Nanoseconds of a processor-time clock; raises EINVAL."""
    if clock == CLOCK_PROCESS_CPUTIME_ID:
        return process_ns(task.process)
    if clock == CLOCK_THREAD_CPUTIME_ID:
        return thread_ns(task)
    whose = owner(task, clock)
    return thread_ns(whose) if isinstance(whose, Task) else process_ns(whose)
