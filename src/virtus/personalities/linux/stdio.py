"""Descriptors that the machine was started with, as open files of the guest."""

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, Final

from virtus.host import sockets as host_sockets
from virtus.personalities.linux import sockets, terminals
from virtus.personalities.linux.events import HostEventFile
from virtus.personalities.linux.files import STATUS_FLAGS, File
from virtus.personalities.linux.names import name_of_host
from virtus.personalities.linux.pipes import PIECE, PipeFile
from virtus.personalities.linux.regular import DeviceFile, DirectoryFile, PathOnly, RegularFile

if TYPE_CHECKING:
    from virtus.personalities.linux.kernel import Kernel
    from virtus.personalities.linux.task import Process, Task

KEPT: Final = os.O_ACCMODE | STATUS_FLAGS | os.O_PATH


class _OutsideSocket(sockets.SocketFile):
    """A socket whose description somebody outside shares: it may block, so that each call says not to."""

    def read(self, task: "Task", count: int) -> bytes:
        """See File."""
        return host_sockets.receive(self.host, min(count, PIECE), 0).data

    def outside_peer(self) -> bool:
        """See SocketFile."""
        return True


def standard_file(kernel: "Kernel", host: int, process: "Process | None" = None) -> File:
    """An open file for an inherited descriptor, on a host descriptor of its own; raises EBADF for a closed one.

    `process` is who is to have it, so that a terminal can become its controlling one.
    """
    flags = fcntl.fcntl(host, fcntl.F_GETFL) & KEPT
    status = os.fstat(host)
    kind = stat.S_IFMT(status.st_mode)
    if flags & os.O_PATH:
        return PathOnly(_same_place(kernel, host, flags), flags)
    if kind == stat.S_IFIFO:
        return PipeFile(_reopened(kernel, host, flags), flags, f"pipe:[{status.st_ino}]")
    if kind == stat.S_IFSOCK:
        wrapped = sockets.wrap(os.dup(host), flags)
        return _OutsideSocket(wrapped.host, flags, wrapped.family, wrapped.type, wrapped.protocol)
    if kind == stat.S_IFREG:
        return RegularFile(os.dup(host), flags)
    if kind == stat.S_IFDIR:
        return DirectoryFile(_same_place(kernel, host, flags), flags)
    if kind == stat.S_IFCHR:
        if os.isatty(host):
            return terminals.inherited_terminal(kernel, host, flags, process)
        return DeviceFile(os.dup(host), flags)
    return HostEventFile(os.dup(host), flags, os.fsdecode(name_of_host(kernel, host)).removeprefix("anon_inode:"))


def _same_place(kernel: "Kernel", host: int, flags: int) -> int:
    """The guest's own directory of the same name: from one outside its root, paths would lead outside too."""
    name = name_of_host(kernel, host)
    how = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags & os.O_PATH
    try:
        return os.open(name, how)
    except OSError as error:
        raise OSError(errno.EBADF, "") from error  # not there: as if it had been closed


def outside_file(kernel: "Kernel", host: int) -> File:
    """An open file for a descriptor that a socket brought from outside; the descriptor is taken over."""
    try:
        return standard_file(kernel, host)
    finally:
        os.close(host)


def _reopened(kernel: "Kernel", host: int, flags: int) -> int:
    """A description of our own for a pipe, so that it can be non-blocking without the others noticing."""
    how = flags & os.O_ACCMODE | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(f"self/fd/{host}", how, dir_fd=kernel.procfs)
    except OSError:
        return os.dup(host)  # a pipe that nobody reads: a write ends at once
