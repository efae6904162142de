"""Readiness: what poll, select and epoll ask. All of it stands on the files' host descriptors (`File.poll_host`)."""

import errno
import os
import select
import weakref
from struct import Struct
from typing import TYPE_CHECKING, Final

from virtus.host import epoll
from virtus.personalities.linux.blocking import Wait
from virtus.personalities.linux.files import File

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

POLLIN, POLLPRI, POLLOUT, POLLERR, POLLHUP, POLLNVAL = 1, 2, 4, 8, 0x10, 0x20  # include/uapi/asm-generic/poll.h
POLLRDNORM, POLLRDBAND, POLLWRNORM, POLLWRBAND, POLLRDHUP = 0x40, 0x80, 0x100, 0x200, 0x2000
ALWAYS: Final = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM
"""What a file is that knows no waiting (DEFAULT_POLLMASK, include/linux/poll.h)."""
UNASKED: Final = POLLERR | POLLHUP
WATCHABLE: Final = 0x23FF
"""The poll bits that epoll has too, under the same numbers."""
EPOLLEXCLUSIVE: Final = 1 << 28  # include/uapi/linux/eventpoll.h
EVENT: Final = Struct("<IQ")
NEST_LIMIT: Final = 4
"""EP_MAX_NESTS (fs/eventpoll.c), less the level that the kernel's own set takes."""


class Question:
    """Some files and the events asked of each: what poll(2) and select(2) have in common."""

    def __init__(self) -> None:
        self._wanted: dict[int, int] = {}  # by host descriptor

    def ask(self, host: int, events: int) -> None:
        """Ask for events of a host descriptor as well."""
        self._wanted[host] = self._wanted.get(host, 0) | events

    def answer(self) -> dict[int, int]:
        """What is ready now, by host descriptor."""
        if not self._wanted:
            return {}
        poller = select.poll()
        for host, events in self._wanted.items():
            poller.register(host, events)
        return dict(poller.poll(0))

    def wait(self, deadline: int) -> Wait:
        """Sleep until one of them may be ready."""
        watched = tuple((host, events & WATCHABLE | UNASKED) for host, events in self._wanted.items())
        return Wait(watched=watched, deadline=deadline, restart=False)


class EpollFile(File):
    """epoll(7): a set of the host's own, over the host descriptors of the guest's files.

    The guest's data travels in the host's set. What is kept here is which host descriptor stands for a guest's
    descriptor: a second registration of one file under another number stands on a duplicate.
    """

    kind = "epoll"

    def __init__(self) -> None:
        super().__init__(epoll.create(), os.O_RDWR, "anon_inode:[eventpoll]")
        self._entries: dict[int, tuple[weakref.ref[File], int]] = {}  # by guest descriptor

    def _entry(self, fd: int, file: File) -> int:
        """The registered host descriptor, or -1."""
        entry = self._entries.get(fd)
        return entry[1] if entry is not None and entry[0]() is file and file.references else -1

    def control(self, operation: int, fd: int, file: File, event: bytes) -> None:
        """epoll_ctl(2)."""
        if file is self:
            raise OSError(errno.EINVAL, "")
        host = file.poll_host()
        if host < 0:
            raise OSError(errno.EPERM, "")
        registered = self._entry(fd, file)
        if operation == epoll.CTL_ADD:
            if registered >= 0:
                raise OSError(errno.EEXIST, "")
            if isinstance(file, EpollFile) and file.reaches(self, NEST_LIMIT):
                raise OSError(errno.ELOOP, "")
            try:
                epoll.control(self.host, operation, host, event)
            except FileExistsError:
                host = os.dup(host)
                weakref.finalize(file, os.close, host)
                epoll.control(self.host, operation, host, event)
            self._entries[fd] = (weakref.ref(file), host)
            return
        if operation not in (epoll.CTL_MOD, epoll.CTL_DEL):
            raise OSError(errno.EINVAL, "")
        if registered < 0:
            raise OSError(errno.ENOENT, "")
        epoll.control(self.host, operation, registered, event)
        if operation == epoll.CTL_DEL:
            del self._entries[fd]

    def reaches(self, other: "EpollFile", depth: int) -> bool:
        """Whether `other` is in this set, directly or through sets in it; also when they nest too deep."""
        for reference, _ in self._entries.values():
            file = reference()
            if not isinstance(file, EpollFile) or not file.references:
                continue
            if file is other or depth <= 1 or file.reaches(other, depth - 1):
                return True
        return False

    def collect(self, most: int) -> bytes:
        """The packed events that are ready now."""
        return epoll.collect(self.host, most)

    def stat(self) -> os.stat_result:
        """See File."""
        return os.fstat(self.host)

    def wait_readable(self) -> Wait:
        """See File."""
        return Wait(readable=self.host, restart=False)

    def poll_host(self) -> int:
        """See File."""
        return self.host


def readiness(task: "Task", fd: int) -> int:
    """The host descriptor to ask, -1 for a file that is always ready; raises EBADF."""
    return task.descriptors.get(fd).poll_host()
