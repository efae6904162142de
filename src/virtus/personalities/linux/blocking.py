"""How a system call waits.

A handler that may have to wait is, or returns, a generator. It yields a `Wait`; the kernel lets the task sleep and
resumes the generator when something it named has happened, sending `True`, or `False` when the deadline passed. A
signal that the task must handle raises `Interrupted` at the yield: the handler either lets it through (the kernel then
restarts the call, or ends it with EINTR, as sigaction(2) SA_RESTART says), or catches it and returns what it has.

    def read_blocking(task, file, count):
        while True:
            try:
                return file.read(count)
            except BlockingIOError:
                yield Wait(readable=file.host)
"""

from collections.abc import Generator
from time import monotonic_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

FOREVER = 0
"""A deadline that never comes."""


class Interrupted(Exception):
    """A signal is to be handled by the waiting task."""


class WaitQueue:
    """Tasks that sleep until somebody says so: the end of a child, a futex, a lock, a state of a pipe of ours."""

    __slots__ = ("waits",)

    def __init__(self) -> None:
        self.waits: dict[Wait, None] = {}  # ordered: first come, first served

    def wake(self, count: int = -1) -> int:
        """Wake the first `count` sleepers (all by default); returns how many."""
        woken = 0
        for wait in list(self.waits):
            if woken == count:
                break
            if wait.task is not None:
                wait.task.kernel.wake(wait)
                woken += 1
        return woken


class Wait:
    """What a task sleeps for; any one of it wakes the task. Host descriptors are watched for one event each.

    `deadline` is in nanoseconds of the monotonic clock (see `after`); `restart` is False for calls that a handled
    signal always ends with EINTR, whatever SA_RESTART says (signal(7): sleeps, poll, select, epoll_wait ...).
    """

    __slots__ = ("deadline", "queues", "readable", "restart", "task", "watched", "writable")

    def __init__(
        self,
        *,
        readable: int = -1,
        writable: int = -1,
        watched: tuple[tuple[int, int], ...] = (),
        queues: tuple[WaitQueue, ...] = (),
        deadline: int = FOREVER,
        restart: bool = True,
    ) -> None:
        self.readable, self.writable = readable, writable
        self.watched = watched  # more host descriptors with their epoll event masks
        self.queues, self.deadline, self.restart = queues, deadline, restart
        self.task: Task | None = None  # set while asleep


Blocking = Generator[Wait, bool, int]
"""What a handler that waits returns."""


def after(nanoseconds: int) -> int:
    """The deadline this far from now."""
    return monotonic_ns() + max(0, nanoseconds) or 1
