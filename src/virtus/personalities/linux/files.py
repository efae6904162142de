"""Open files as a guest sees them: descriptions (`File`), and the table of descriptors that refer to them.

A `File` is what Linux calls an open file description: shared by dup(2) and fork(2), closed with its last reference.
Almost every kind stands on one host descriptor, `host`, held by the kernel process and always close-on-exec there;
where reading may wait it is non-blocking on the host, and O_NONBLOCK as the guest sees it lives in `flags`.
"""

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from virtus.personalities.linux.blocking import Blocking, Wait

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

STATUS_FLAGS = os.O_APPEND | os.O_NONBLOCK | os.O_ASYNC | os.O_DIRECT | os.O_NOATIME
"""What fcntl(F_SETFL) may change."""


class File:
    """An open file description. Kinds override what they do; every default is the error Linux gives.

    `read` and `write` never wait: they raise BlockingIOError, and `wait_readable`/`wait_writable` say for what to wait.
    """

    kind = "file"

    def __init__(self, host: int, flags: int, path: str = "") -> None:
        self.host = host  # host descriptor, -1 for none
        self.flags = flags  # access mode and status flags, as the guest opened it
        self.path = path  # the guest's name for it, as /proc/PID/fd shows it
        self.references = 0  # descriptors that refer to it

    @property
    def readable(self) -> bool:
        """Opened for reading."""
        return self.flags & os.O_ACCMODE != os.O_WRONLY and not self.flags & os.O_PATH

    @property
    def writable(self) -> bool:
        """Opened for writing."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY and not self.flags & os.O_PATH

    @property
    def nonblocking(self) -> bool:
        """The guest's own O_NONBLOCK."""
        return bool(self.flags & os.O_NONBLOCK)

    def read(self, task: "Task", count: int) -> bytes:
        """Up to `count` bytes from the current position; b"" at the end. Raises BlockingIOError when it would wait."""
        raise OSError(errno.EINVAL, "")

    def write(self, task: "Task", data: bytes) -> int:
        """Write at the current position; how many bytes were taken. Raises BlockingIOError when it would wait."""
        raise OSError(errno.EINVAL, "")

    def pread(self, task: "Task", count: int, offset: int) -> bytes:
        """Read at an offset, where the kind can seek."""
        raise OSError(errno.ESPIPE, "")

    def pwrite(self, task: "Task", data: bytes, offset: int) -> int:
        """Write at an offset, where the kind can seek."""
        raise OSError(errno.ESPIPE, "")

    def seek(self, offset: int, whence: int) -> int:
        """lseek(2)."""
        raise OSError(errno.ESPIPE, "")

    def stat(self) -> os.stat_result:
        """fstat(2)."""
        return os.fstat(self.host)

    def truncate(self, size: int) -> None:
        """ftruncate(2)."""
        raise OSError(errno.EINVAL, "")

    def ioctl(self, task: "Task", request: int, argument: int) -> "int | Blocking":
        """ioctl(2); kinds answer what they know and refuse the rest with ENOTTY."""
        raise OSError(errno.ENOTTY, "")

    def entries(self, task: "Task") -> list[tuple[str, int, int]]:
        """A directory's (name, inode, d_type) rows, `.` and `..` included."""
        raise OSError(errno.ENOTDIR, "")

    def map(self, task: "Task") -> int:
        """The host descriptor that mmap(2) is to map."""
        raise OSError(errno.ENODEV, "")

    def wait_readable(self) -> Wait:
        """What to wait for after `read` would have waited."""
        return Wait(readable=self.host)

    def wait_writable(self) -> Wait:
        """What to wait for after `write` would have waited."""
        return Wait(writable=self.host)

    def poll_host(self) -> int:
        """The host descriptor whose readiness is this file's, for poll, select and epoll; -1: always ready."""
        return -1

    def closing(self, task: "Task") -> None:
        """A descriptor that refers to it is being closed (each one: POSIX locks end here)."""

    def released(self) -> None:
        """The last reference is gone."""
        if self.host >= 0:
            os.close(self.host)
            self.host = -1

    def hold(self) -> "File":
        """One more reference."""
        self.references += 1
        return self

    def drop(self) -> None:
        """One reference less; the last one releases the file."""
        self.references -= 1
        if self.references == 0:
            self.released()


_File = TypeVar("_File", bound=File)


class Descriptors:
    """A process's table of descriptors (shared by threads: CLONE_FILES)."""

    __slots__ = ("close_on_exec", "files", "sharers")

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.close_on_exec: set[int] = set()
        self.sharers = 0  # tasks that use this table

    def get(self, fd: int) -> File:
        """The file behind a descriptor; raises EBADF."""
        file = self.files.get(fd)
        if file is None:
            raise OSError(errno.EBADF, "")
        return file

    def of_kind(self, fd: int, kind: type[_File]) -> _File:
        """The file behind a descriptor that must be of this kind; raises EBADF, EINVAL."""
        file = self.get(fd)
        if not isinstance(file, kind):
            raise OSError(errno.EINVAL, "")
        return file

    def lowest(self, start: int, limit: int) -> int:
        """The lowest free descriptor from `start` on; raises EMFILE at the limit (RLIMIT_NOFILE)."""
        fd = start
        files = self.files
        while fd in files:
            fd += 1
        if fd >= limit:
            raise OSError(errno.EMFILE, "")
        return fd

    def add(self, file: File, limit: int, *, close_on_exec: bool = False, start: int = 0) -> int:
        """Put a file at the lowest free descriptor."""
        fd = self.lowest(start, limit)
        self.put(fd, file, close_on_exec=close_on_exec)
        return fd

    def put(self, fd: int, file: File, *, close_on_exec: bool = False) -> None:
        """Put a file at this very descriptor, which must be free."""
        self.files[fd] = file.hold()
        if close_on_exec:
            self.close_on_exec.add(fd)

    def close(self, task: "Task", fd: int) -> None:
        """close(2); raises EBADF."""
        file = self.files.pop(fd, None)
        if file is None:
            raise OSError(errno.EBADF, "")
        self.close_on_exec.discard(fd)
        file.closing(task)
        file.drop()

    def copy(self) -> "Descriptors":
        """A table of its own with the same files (fork)."""
        other = Descriptors()
        other.files = {fd: file.hold() for fd, file in self.files.items()}
        other.close_on_exec = set(self.close_on_exec)
        return other

    def close_for_exec(self, task: "Task") -> None:
        """Close what execve(2) closes."""
        for fd in sorted(self.close_on_exec):
            self.close(task, fd)

    def close_all(self, task: "Task") -> None:
        """Close everything (the last task that used the table is gone)."""
        for fd in sorted(self.files):
            self.close(task, fd)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.files))
