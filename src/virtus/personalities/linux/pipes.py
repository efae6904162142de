"""Pipes and FIFOs: the host's own, non-blocking, one host descriptor for each end."""

import array
import errno
import fcntl
import os
from struct import pack
from typing import Final

from virtus.personalities.linux import delivery
from virtus.personalities.linux.blocking import Blocking
from virtus.personalities.linux.files import File
from virtus.personalities.linux.table import Int, Word, call
from virtus.personalities.linux.task import Task

SIGPIPE: Final = 13
FIONREAD: Final = 0x541B  # include/uapi/asm-generic/ioctls.h
PIECE: Final = 1 << 20
"""Bytes moved with one host call at most; /proc/sys/fs/pipe-max-size of ordinary users."""


def bytes_ready(host: int, request: int = FIONREAD) -> int:
    """The int that an ioctl of the FIONREAD kind stores."""
    count = array.array("i", [0])
    fcntl.ioctl(host, request, count)
    return count[0]


class PipeFile(File):
    """One end of a pipe, or a FIFO that was opened."""

    kind = "pipe"

    def read(self, task: Task, count: int) -> bytes:
        """See File."""
        return os.read(self.host, min(count, PIECE))

    def write(self, task: Task, data: bytes) -> int:
        """See File. Nobody to read it: SIGPIPE, and EPIPE."""
        try:
            done = os.write(self.host, data)
        except BrokenPipeError:
            delivery.post_thread(task, SIGPIPE)
            raise
        task.kernel.scheduler.look()
        return done

    def ioctl(self, task: Task, request: int, argument: int) -> "int | Blocking":
        """See File."""
        if request == FIONREAD:
            task.write(argument, pack("<i", bytes_ready(self.host)))
            return 0
        raise OSError(errno.ENOTTY, "")

    def poll_host(self) -> int:
        """See File."""
        return self.host


def make(task: Task, address: int, flags: int) -> int:
    """A new pipe; its two descriptors are stored at `address`."""
    if flags & ~(os.O_CLOEXEC | os.O_NONBLOCK | os.O_DIRECT):
        raise OSError(errno.EINVAL, "")
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK | flags & os.O_DIRECT)
    name = f"pipe:[{os.fstat(reading).st_ino}]"
    status = flags & (os.O_NONBLOCK | os.O_DIRECT)
    close_on_exec = bool(flags & os.O_CLOEXEC)
    first = PipeFile(reading, os.O_RDONLY | status, name)
    second = PipeFile(writing, os.O_WRONLY | status, name)
    opened: list[int] = []
    try:
        for file in (first, second):
            opened.append(task.open_descriptor(file, close_on_exec=close_on_exec))
        task.write(address, pack("<ii", *opened))
    except OSError:
        for fd in opened:
            task.descriptors.close(task, fd)
        if len(opened) == 0:
            second.released()
        raise
    return 0


@call("pipe")
def pipe(task: Task, address: Word) -> int:
    """pipe(2)."""
    return make(task, address, 0)


@call("pipe2")
def pipe2(task: Task, address: Word, flags: Int) -> int:
    """pipe2(2)."""
    return make(task, address, flags)
