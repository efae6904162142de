"""What threads and processes have used, by the host's own accounting of their stubs."""

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Credentials, Process, Task

TICKS_PER_SECOND: Final = 100  # USER_HZ, include/asm-generic/param.h
CPUCLOCK_SCHED: Final = 2  # include/linux/posix-timers_types.h: the clock of a process's scheduled time


def ticks(microseconds: int) -> int:
    """In the unit of times(2) and siginfo_t."""
    return microseconds * TICKS_PER_SECOND // 1_000_000


def times_of(task: "Task") -> tuple[int, int]:
    """User and system time of a living thread, in microseconds.

    The host's processor clock of the stub is exact, its /proc row has only 10 ms steps: the row gives the proportion.
    """
    ident = task.context.ident
    try:
        total = time.clock_gettime_ns(~ident << 3 | CPUCLOCK_SCHED) // 1000
        row = os.open(f"{ident}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=task.kernel.procfs)
    except OSError:
        return 0, 0  # the stub is gone already
    try:
        fields = os.read(row, 1024).rpartition(b")")[2].split()
    except OSError:
        return total, 0
    finally:
        os.close(row)
    user, system = int(fields[11]), int(fields[12])
    if user + system == 0:
        return total, 0
    share = total * user // (user + system)
    return share, total - share


def peak_kib(task: "Task") -> int:
    """The most memory that the task's address space had resident, in KiB; 0 when the stub is gone."""
    try:
        status = os.open(f"{task.context.ident}/status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=task.kernel.procfs)
    except OSError:
        return 0
    try:
        text = os.read(status, 4096)
    except OSError:
        return 0
    finally:
        os.close(status)
    at = text.find(b"VmHWM:")
    return int(text[at + 6 :].split(None, 1)[0]) if at >= 0 else 0


def settle(task: "Task") -> None:
    """Add what an ending thread has used to its process."""
    process = task.process
    user, system = times_of(task)
    process.user_us += user
    process.system_us += system
    process.max_rss_kib = max(process.max_rss_kib, peak_kib(task))


def inherit(parent: "Process", child: "Process") -> None:
    """Add what a waited-for child has used to its parent."""
    parent.children_user_us += child.user_us + child.children_user_us
    parent.children_system_us += child.system_us + child.children_system_us
    parent.children_max_rss_kib = max(parent.children_max_rss_kib, child.max_rss_kib, child.children_max_rss_kib)


def credentials_of(process: "Process") -> "Credentials | None":
    """The identity of a process: its leader's, or of whoever is left of it."""
    for task in (process.leader, *process.tasks.values()):
        if task is not None:
            return task.credentials
    return process.last_credentials
