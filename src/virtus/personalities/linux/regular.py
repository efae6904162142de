"""Open files that stand on a file of the host: regular files, directories, devices, and places (O_PATH)."""

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final

from virtus.host import path_calls as host_calls
from virtus.personalities.linux import locks
from virtus.personalities.linux.files import File

if TYPE_CHECKING:
    from virtus.personalities.linux.blocking import Blocking
    from virtus.personalities.linux.task import Task

KEPT_BY_HOST: Final = os.O_APPEND | os.O_NOATIME
"""Status flags that the host description must have too."""
RLIMIT_FSIZE: Final = 1
RLIM_INFINITY: Final = 2**64 - 1
SIGXFSZ: Final = 25
FIONREAD: Final = 0x541B  # include/uapi/asm-generic/ioctls.h
FIGETBSZ: Final = 2  # include/uapi/linux/fs.h
FS_IOC_GETFLAGS: Final = 0x80086601
FS_IOC_SETFLAGS: Final = 0x40086602
FS_IOC_FSGETXATTR: Final = 0x801C581F
FS_IOC_FIEMAP: Final = 0xC020660B
FICLONE: Final = 0x40049409
FICLONERANGE: Final = 0x4020940D
RANDOM_MAJOR_MINORS: Final = frozenset({(1, 8), (1, 9)})  # Documentation/admin-guide/devices.txt
RNDGETENTCNT: Final = 0x80045200  # include/uapi/linux/random.h
_RECORDS: Final = host_calls.Buffer(1 << 16)


class HostFile(File):
    """A description whose host descriptor is one of the guest's files."""

    locked = False
    """A flock(2) or open-file-description lock was taken through it."""

    def __init__(self, host: int, flags: int, path: str = "") -> None:
        super().__init__(host, flags, path)

    def set_status(self, flags: int) -> None:
        """fcntl(F_SETFL): the host keeps what concerns its own file."""
        if (flags ^ self.flags) & KEPT_BY_HOST:
            fcntl.fcntl(self.host, fcntl.F_SETFL, flags & KEPT_BY_HOST | os.O_NONBLOCK)
        self.flags = flags

    def closing(self, task: "Task") -> None:
        """Any close of a file ends the process's POSIX locks on it (fcntl(2))."""
        if locks.held:
            locks.release(task.descriptors, os.fstat(self.host))

    def released(self) -> None:
        """Locks of the description end with it."""
        super().released()
        if self.locked:
            locks.released.wake()

    def ioctl(self, task: "Task", request: int, argument: int) -> "int | Blocking":
        """What file systems answer."""
        if request in (FS_IOC_GETFLAGS, FIGETBSZ):
            answer = bytearray(8 if request == FS_IOC_GETFLAGS else 4)
            fcntl.ioctl(self.host, request, answer)
            task.write(argument, answer[:4])
            return 0
        if request in (FS_IOC_SETFLAGS, FS_IOC_FIEMAP, FICLONERANGE, FS_IOC_FSGETXATTR):
            raise OSError(errno.EOPNOTSUPP, "")
        raise OSError(errno.ENOTTY, "")


class RegularFile(HostFile):
    """A regular file, or a memfd. The position is the host description's own."""

    kind = "regular"

    def read(self, task: "Task", count: int) -> bytes:
        """read(2)."""
        return os.read(self.host, count)

    def write(self, task: "Task", data: bytes) -> int:
        """write(2), within RLIMIT_FSIZE."""
        if task.process.limits.get(RLIMIT_FSIZE, _NO_LIMIT)[0] != RLIM_INFINITY:
            append = self.flags & os.O_APPEND
            data = within_limit(task, data, os.lseek(self.host, 0, os.SEEK_CUR) if not append else self.stat().st_size)
        return os.write(self.host, data)

    def pread(self, task: "Task", count: int, offset: int) -> bytes:
        """pread(2)."""
        return os.pread(self.host, count, offset)

    def pwrite(self, task: "Task", data: bytes, offset: int) -> int:
        """pwrite(2)."""
        if task.process.limits.get(RLIMIT_FSIZE, _NO_LIMIT)[0] != RLIM_INFINITY:
            data = within_limit(task, data, offset)
        return os.pwrite(self.host, data, offset)

    def seek(self, offset: int, whence: int) -> int:
        """lseek(2)."""
        return os.lseek(self.host, offset, whence)

    def truncate(self, size: int) -> None:
        """ftruncate(2)."""
        os.ftruncate(self.host, size)

    def map(self, task: "Task") -> int:
        """A file is mapped as it is."""
        return self.host

    def ioctl(self, task: "Task", request: int, argument: int) -> "int | Blocking":
        """FIONREAD, sharing of extents, and what every file answers."""
        if request == FIONREAD:
            left = os.fstat(self.host).st_size - os.lseek(self.host, 0, os.SEEK_CUR)
            task.write(argument, struct.pack("<i", max(-(2**31), min(left, 2**31 - 1))))
            return 0
        if request == FICLONE:
            source = task.descriptors.get(argument & 0xFFFFFFFF)
            return fcntl.ioctl(self.host, FICLONE, source.host)
        return super().ioctl(task, request, argument)


_NO_LIMIT: Final = (RLIM_INFINITY, RLIM_INFINITY)


def within_limit(task: "Task", data: bytes, offset: int) -> bytes:
    """What RLIMIT_FSIZE lets be written there; EFBIG and SIGXFSZ for nothing (setrlimit(2))."""
    from virtus.personalities.linux import delivery

    room = task.process.limits[RLIMIT_FSIZE][0] - offset
    if room <= 0 and data:
        delivery.post_thread(task, SIGXFSZ)
        raise OSError(errno.EFBIG, "")
    return data[:room]


class DirectoryFile(HostFile):
    """A directory. Its rows are the host's own records: names, inodes and positions fit each other."""

    kind = "directory"

    def read(self, task: "Task", count: int) -> bytes:
        """Not as bytes."""
        raise OSError(errno.EISDIR, "")

    def pread(self, task: "Task", count: int, offset: int) -> bytes:
        """Not as bytes."""
        raise OSError(errno.EISDIR, "")

    def write(self, task: "Task", data: bytes) -> int:
        """Never open for writing."""
        raise OSError(errno.EBADF, "")

    def seek(self, offset: int, whence: int) -> int:
        """lseek(2): to the start, or to a position that a record gave."""
        return os.lseek(self.host, offset, whence)

    def records(self, count: int) -> bytes:
        """The next `struct linux_dirent64` records that fit into `count` bytes."""
        size = host_calls.getdents64(self.host, _RECORDS.address, min(count, _RECORDS.size))
        if size < 0:
            raise OSError(-size, "")
        return _RECORDS.take(size)

    def entries(self, task: "Task") -> list[tuple[str, int, int]]:
        """All rows, from the start."""
        with os.scandir(self.host) as found:
            return [(entry.name, entry.inode(), 0) for entry in found]


class PathOnly(HostFile):
    """A place in the tree (O_PATH): for *at calls, fstat and execveat; nothing can be read through it."""

    kind = "path"

    def closing(self, task: "Task") -> None:
        """No lock can be held through it."""

    def _refuse(self) -> OSError:
        return OSError(errno.EBADF, "")

    def read(self, task: "Task", count: int) -> bytes:
        """EBADF."""
        raise self._refuse()

    def write(self, task: "Task", data: bytes) -> int:
        """EBADF."""
        raise self._refuse()

    def pread(self, task: "Task", count: int, offset: int) -> bytes:
        """EBADF."""
        raise self._refuse()

    def pwrite(self, task: "Task", data: bytes, offset: int) -> int:
        """EBADF."""
        raise self._refuse()

    def seek(self, offset: int, whence: int) -> int:
        """EBADF."""
        raise self._refuse()

    def truncate(self, size: int) -> None:
        """EBADF."""
        raise self._refuse()

    def ioctl(self, task: "Task", request: int, argument: int) -> "int | Blocking":
        """EBADF."""
        raise self._refuse()

    def map(self, task: "Task") -> int:
        """EBADF."""
        raise self._refuse()


class DeviceFile(HostFile):
    """A character device that is no terminal: null, zero, full, random, urandom."""

    kind = "device"

    def read(self, task: "Task", count: int) -> bytes:
        """read(2)."""
        return os.read(self.host, count)

    def write(self, task: "Task", data: bytes) -> int:
        """write(2)."""
        return os.write(self.host, data)

    def pread(self, task: "Task", count: int, offset: int) -> bytes:
        """pread(2); these devices have no position."""
        return os.pread(self.host, count, offset)

    def pwrite(self, task: "Task", data: bytes, offset: int) -> int:
        """pwrite(2)."""
        return os.pwrite(self.host, data, offset)

    def seek(self, offset: int, whence: int) -> int:
        """lseek(2): succeeds and means nothing."""
        return os.lseek(self.host, offset, whence)

    def map(self, task: "Task") -> int:
        """/dev/zero maps; the host refuses the rest."""
        return self.host

    def poll_host(self) -> int:
        """Random devices can be polled; the others are always ready."""
        return self.host if self._is_random() else -1

    def ioctl(self, task: "Task", request: int, argument: int) -> "int | Blocking":
        """The entropy count; the random devices' own error for the rest."""
        if self._is_random():
            if request == RNDGETENTCNT:
                task.write(argument, struct.pack("<i", 256))
                return 0
            raise OSError(errno.EINVAL, "")
        raise OSError(errno.ENOTTY, "")

    def _is_random(self) -> bool:
        device = os.fstat(self.host).st_rdev
        return (os.major(device), os.minor(device)) in RANDOM_MAJOR_MINORS
