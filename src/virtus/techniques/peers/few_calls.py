"""The few system calls that simple single-threaded Linux programs make, answered for a processor held in a library.

For a runner that measures somebody else's emulated processor, not a system to run programs on: no signals, processes or
threads. What it does not know ends the run with a clear word. Numbers: include/uapi/asm-generic/unistd.h of Linux.
"""

import os
import struct
import time
from collections.abc import Callable
from errno import EBADF, EFAULT, EINVAL, ENOENT, ENOMEM, ENOSYS, ENOTTY
from typing import Any, Final, Protocol

PAGE: Final = 4096
MAP_FIXED, MAP_ANONYMOUS = 0x10, 0x20  # include/uapi/asm-generic/mman-common.h
MREMAP_MAYMOVE: Final = 1  # include/uapi/linux/mman.h
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000  # include/uapi/linux/fcntl.h
STAT: Final = struct.Struct("<QQIIIIQQqiiqqQqQqQ8x")
"""struct stat of include/uapi/asm-generic/stat.h."""
UTSNAME_FIELD: Final = 65  # __NEW_UTS_LEN + 1 (include/uapi/linux/utsname.h)
MOST_PATH: Final = 4096  # PATH_MAX
MOST_TRANSFER: Final = 1 << 24  # one read or write moves no more than this; it may be partial
MOST_VECTORS: Final = 1024  # UIO_MAXIOV
OPEN_FLAGS: Final = os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_DIRECTORY | os.O_NOFOLLOW

ONE: Final = (96, 172, 178)  # set_tid_address, getpid, gettid
NOTHING: Final = (98, 99, 124, 132, 134, 135, 173, 174, 175, 176, 177, 226, 233, 259)
"""Done with when they have been asked: futex, set_robust_list, sched_yield, sigaltstack, rt_sigaction, rt_sigprocmask,
getppid, getuid ... getegid, mprotect, madvise, riscv_flush_icache."""
ABSENT: Final = (163, 258, 261, 293)  # getrlimit, riscv_hwprobe, prlimit64, rseq: programs do without


class Unanswered(Exception):
    """The guest asks for what is not here; the text says what."""


class Memory(Protocol):
    """A guest's address space."""

    def read(self, address: int, size: int) -> bytes:
        """Raises OSError(EFAULT)."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Raises OSError(EFAULT)."""
        ...

    def map(self, address: int, size: int) -> None:
        """New zeroed pages, in place of what is there; raises OSError(ENOMEM)."""
        ...

    def unmap(self, address: int, size: int) -> None:
        """Drop whole pages; those that are not there are no error."""
        ...


class FewCalls:
    """`answer` gives a system call's result. `status` is the exit status once the guest has ended, before that None."""

    def __init__(self, memory: Memory, heap: int, mappings: int) -> None:
        """`heap`: where brk(2) starts. `mappings`: below this address mmap(2) places, downwards."""
        self.memory = memory
        self.status: int | None = None
        self._break = self._heap = heap
        self._mapped_to = -(-heap // PAGE) * PAGE
        self._mappings = mappings
        self._open = {0, 1, 2}
        self._calls: dict[int, Callable[..., int]] = {
            17: self._getcwd, 25: self._fcntl, 29: self._ioctl, 46: self._ftruncate, 48: self._faccessat,
            56: self._openat, 57: self._close, 62: self._lseek, 63: self._read, 64: self._write, 65: self._readv,
            66: self._writev, 78: self._readlinkat, 79: self._newfstatat, 80: self._fstat, 93: self._exit,
            94: self._exit, 101: self._nanosleep, 113: self._clock_gettime, 115: self._clock_nanosleep,
            123: self._sched_getaffinity, 160: self._uname, 169: self._gettimeofday, 214: self._brk,
            215: self._munmap, 216: self._mremap, 222: self._mmap, 278: self._getrandom,
            **dict.fromkeys(ONE, self._constant(1)),
            **dict.fromkeys(NOTHING, self._constant(0)),
            **dict.fromkeys(ABSENT, self._constant(-ENOSYS)),
        }  # fmt: skip

    def answer(self, number: int, arguments: list[int]) -> int:
        """The result, -errno included. Raises Unanswered for a call that is not here."""
        call = self._calls.get(number)
        if call is None:
            raise Unanswered(f"system call {number}")
        try:
            return call(*arguments)
        except OSError as error:
            return -(error.errno or EINVAL)

    @staticmethod
    def _constant(result: int) -> Callable[..., int]:
        return lambda *arguments: result

    # Files: the host's, by the host's descriptors

    def _descriptor(self, number: int) -> int:
        if number not in self._open:
            raise OSError(EBADF, "")
        return number

    def _path(self, directory: int, address: int) -> bytes:
        path = b""
        while b"\0" not in path:
            if len(path) >= MOST_PATH:
                raise OSError(ENOENT, "")
            path += self.memory.read(address + len(path), min(64, PAGE - (address + len(path)) % PAGE))
        path = path.partition(b"\0")[0]
        if _signed(directory) != AT_FDCWD and not path.startswith(b"/"):
            raise Unanswered("a path relative to a directory's descriptor")
        return path

    def _openat(self, directory: int, path: int, flags: int, mode: int, *_: int) -> int:
        number = os.open(self._path(directory, path), flags & OPEN_FLAGS, mode & 0o7777)
        self._open.add(number)
        return number

    def _close(self, number: int, *_: int) -> int:
        self._open.remove(self._descriptor(number))
        os.close(number)
        return 0

    def _read(self, number: int, address: int, size: int, *_: int) -> int:
        data = os.read(self._descriptor(number), min(size, MOST_TRANSFER))
        self.memory.write(address, data)
        return len(data)

    def _write(self, number: int, address: int, size: int, *_: int) -> int:
        return os.write(self._descriptor(number), self.memory.read(address, min(size, MOST_TRANSFER)))

    def _vectors(self, address: int, count: int) -> list[tuple[int, int]]:
        if count > MOST_VECTORS:
            raise OSError(EINVAL, "")
        return list(struct.iter_unpack("<QQ", self.memory.read(address, 16 * count)))

    def _readv(self, number: int, address: int, count: int, *_: int) -> int:
        total = 0
        for start, size in self._vectors(address, count):
            done = self._read(number, start, size)
            total += done
            if done < size:
                break
        return total

    def _writev(self, number: int, address: int, count: int, *_: int) -> int:
        pieces = [self.memory.read(start, min(size, MOST_TRANSFER)) for start, size in self._vectors(address, count)]
        return os.write(self._descriptor(number), b"".join(pieces))

    def _lseek(self, number: int, offset: int, whence: int, *_: int) -> int:
        return os.lseek(self._descriptor(number), _signed(offset), whence & 0xFF)

    def _ftruncate(self, number: int, size: int, *_: int) -> int:
        os.ftruncate(self._descriptor(number), size)
        return 0

    def _faccessat(self, directory: int, path: int, mode: int, *_: int) -> int:
        os.stat(name := self._path(directory, path))
        return 0 if os.access(name, mode & 7) else -13  # EACCES

    def _readlinkat(self, directory: int, path: int, address: int, size: int, *_: int) -> int:
        target = os.readlink(self._path(directory, path))[: min(size, MOST_PATH)]
        self.memory.write(address, target)
        return len(target)

    def _getcwd(self, address: int, size: int, *_: int) -> int:
        name = os.getcwdb() + b"\0"
        if len(name) > size:
            return -34  # ERANGE
        self.memory.write(address, name)
        return len(name)

    def _fcntl(self, number: int, command: int, *_: int) -> int:
        self._descriptor(number)
        if command in (1, 2):  # F_GETFD, F_SETFD: nothing is ever executed from here
            return 0
        if command == 3:  # F_GETFL
            return os.O_RDWR
        raise Unanswered(f"fcntl({command})")

    def _ioctl(self, number: int, *_: int) -> int:
        self._descriptor(number)
        return -ENOTTY  # to a program here, nothing is a terminal

    def _newfstatat(self, directory: int, path: int, address: int, flags: int, *_: int) -> int:
        if flags & AT_EMPTY_PATH and self.memory.read(path, 1) == b"\0":
            return self._fstat(directory, address)
        follow = not flags & 0x100  # AT_SYMLINK_NOFOLLOW
        return self._put_status(os.stat(self._path(directory, path), follow_symlinks=follow), address)

    def _fstat(self, number: int, address: int, *_: int) -> int:
        return self._put_status(os.fstat(self._descriptor(number)), address)

    def _put_status(self, found: os.stat_result, address: int) -> int:
        times = [part for ns in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns) for part in divmod(ns, 10**9)]
        sizes = (found.st_size, found.st_blksize, 0, found.st_blocks)
        owner = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_rdev, 0)
        self.memory.write(address, STAT.pack(found.st_dev, found.st_ino, *owner, *sizes, *times))
        return 0

    # Memory

    def _brk(self, address: int, *_: int) -> int:
        if not self._heap <= address < self._mappings:
            return self._break
        end = -(-address // PAGE) * PAGE
        if end > self._mapped_to:
            self.memory.map(self._mapped_to, end - self._mapped_to)
            self._mapped_to = end
        self._break = address
        return address

    def _mmap(self, address: int, size: int, protection: int, flags: int, descriptor: int, offset: int) -> int:
        size = -(-size // PAGE) * PAGE
        if not size or address % PAGE or size > self._mappings:
            return -EINVAL if not size or address % PAGE else -ENOMEM
        if not flags & MAP_FIXED:
            if self._mappings - size <= self._mapped_to:
                return -ENOMEM
            self._mappings -= size
            address = self._mappings
        self.memory.map(address, size)
        if not flags & MAP_ANONYMOUS:
            self.memory.write(address, os.pread(self._descriptor(descriptor), size, offset))
        return address

    def _munmap(self, address: int, size: int, *_: int) -> int:
        if address % PAGE or not size:
            return -EINVAL
        self.memory.unmap(address, -(-size // PAGE) * PAGE)
        return 0

    def _mremap(self, address: int, size: int, wanted: int, flags: int, *_: int) -> int:
        if flags != MREMAP_MAYMOVE:
            raise Unanswered(f"mremap with flags {flags}")
        if wanted <= size:
            kept, whole = (-(-count // PAGE) * PAGE for count in (wanted, size))
            self.memory.unmap(address + kept, whole - kept)
            return address
        content = self.memory.read(address, size)
        place = self._mmap(0, wanted, 0, MAP_ANONYMOUS, 0, 0)
        if place > 0:
            self.memory.write(place, content)
            self.memory.unmap(address, -(-size // PAGE) * PAGE)
        return place

    # Time and the rest

    def _clock_gettime(self, clock: int, address: int, *_: int) -> int:
        self.memory.write(address, struct.pack("<qq", *divmod(time.clock_gettime_ns(_signed(clock)), 10**9)))
        return 0

    def _gettimeofday(self, address: int, *_: int) -> int:
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        self.memory.write(address, struct.pack("<qq", seconds, nanoseconds // 1000))
        return 0

    def _nanosleep(self, request: int, *_: int) -> int:
        seconds, nanoseconds = struct.unpack("<qq", self.memory.read(request, 16))
        if seconds < 0 or not 0 <= nanoseconds < 10**9:
            return -EINVAL
        time.sleep(seconds + nanoseconds / 1e9)
        return 0

    def _clock_nanosleep(self, clock: int, flags: int, request: int, *_: int) -> int:
        if flags:
            raise Unanswered("clock_nanosleep until a point of time")
        return self._nanosleep(request)

    def _sched_getaffinity(self, task: int, size: int, address: int, *_: int) -> int:
        if task or size < 8:
            return -EINVAL
        self.memory.write(address, struct.pack("<Q", 1))  # one processor
        return 8

    def _getrandom(self, address: int, size: int, *_: int) -> int:
        size = min(size, 256)  # what is given at once without fail (getrandom(2))
        self.memory.write(address, os.urandom(size))
        return size

    def _uname(self, address: int, *_: int) -> int:
        host = os.uname()
        words = ("Linux", host.nodename, host.release, host.version, "riscv64", "(none)")
        fields = [word.encode()[: UTSNAME_FIELD - 1].ljust(UTSNAME_FIELD, b"\0") for word in words]
        self.memory.write(address, b"".join(fields))
        return 0

    def _exit(self, status: int, *_: int) -> int:
        self.status = status & 0xFF
        return 0


def fault() -> OSError:
    """What a Memory raises for an address that is not there."""
    return OSError(EFAULT, "bad address")


def _signed(word: Any) -> int:
    """An argument as the int (32 bits) or long that it is."""
    value = int(word)
    if value >= 1 << 63:
        return value - (1 << 64)
    return value - (1 << 32) if 1 << 31 <= value < 1 << 32 else value
