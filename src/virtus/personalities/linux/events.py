"""Descriptors that tell of something: eventfd, timerfd, signalfd, pidfd, inotify."""

import errno
import os
from struct import Struct, pack, unpack
from typing import Final

from virtus.host import inotify, timerfd
from virtus.personalities.linux import delivery, siginfo
from virtus.personalities.linux.blocking import Blocking
from virtus.personalities.linux.files import File
from virtus.personalities.linux.pipes import FIONREAD, bytes_ready
from virtus.personalities.linux.signals import UNBLOCKABLE
from virtus.personalities.linux.table import Int, Uint, Word, call, refuse
from virtus.personalities.linux.task import Process, Task

EFD_SEMAPHORE: Final = 1  # include/uapi/linux/eventfd.h
COMMON: Final = os.O_CLOEXEC | os.O_NONBLOCK
"""EFD_, TFD_, SFD_, IN_CLOEXEC and _NONBLOCK are O_CLOEXEC and O_NONBLOCK."""
WORD: Final = Struct("<Q")
TFD_TIMER_FLAGS: Final = 3  # TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET
ALARM_CLOCKS: Final = frozenset({8, 9})  # CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM: they wake the machine up
ITIMERSPEC_SIZE: Final = 32
NANOSECONDS: Final = 1_000_000_000


def _checked_flags(flags: int, allowed: int) -> None:
    if flags & ~allowed:
        raise OSError(errno.EINVAL, "")


def _install(task: Task, file: File, flags: int) -> int:
    return task.open_descriptor(file, close_on_exec=bool(flags & os.O_CLOEXEC))


class HostEventFile(File):
    """A descriptor that the host implements as it is: read, written and polled there."""

    def __init__(self, host: int, flags: int, name: str) -> None:
        super().__init__(host, os.O_RDWR | flags & os.O_NONBLOCK, f"anon_inode:{name}")
        self.kind = name.strip("[]")

    def read(self, task: Task, count: int) -> bytes:
        """See File."""
        return os.read(self.host, min(count, 1 << 20))

    def poll_host(self) -> int:
        """See File."""
        return self.host


class EventFile(HostEventFile):
    """eventfd(2)."""

    def read(self, task: Task, count: int) -> bytes:
        """See File."""
        return os.read(self.host, count if count < WORD.size else WORD.size)

    def write(self, task: Task, data: bytes) -> int:
        """See File."""
        return os.write(self.host, data)


class InotifyFile(HostEventFile):
    """inotify(7)."""

    def ioctl(self, task: Task, request: int, argument: int) -> "int | Blocking":
        """See File."""
        if request != FIONREAD:
            raise OSError(errno.ENOTTY, "")
        task.write(argument, pack("<i", bytes_ready(self.host)))
        return 0


class TimerFile(HostEventFile):
    """timerfd_create(2)."""

    def read(self, task: Task, count: int) -> bytes:
        """See File."""
        return os.read(self.host, count if count < WORD.size else WORD.size)


@call("eventfd")
def eventfd(task: Task, initial: Uint) -> int:
    """eventfd(2), without flags."""
    return eventfd2(task, initial, 0)


@call("eventfd2")
def eventfd2(task: Task, initial: Uint, flags: Int) -> int:
    """eventfd(2)."""
    _checked_flags(flags, COMMON | EFD_SEMAPHORE)
    host = os.eventfd(initial, COMMON | flags & EFD_SEMAPHORE)
    return _install(task, EventFile(host, flags, "[eventfd]"), flags)


@call("timerfd_create", note="no alarm clocks")
def timerfd_create(task: Task, clock: Int, flags: Int) -> int:
    """timerfd_create(2)."""
    _checked_flags(flags, COMMON)
    if clock in ALARM_CLOCKS:
        raise OSError(errno.EPERM, "")
    return _install(task, TimerFile(timerfd.create(clock), flags, "[timerfd]"), flags)


@call("timerfd_settime")
def timerfd_settime(task: Task, fd: Int, flags: Int, new: Word, old: Word) -> int:
    """timerfd_settime(2)."""
    value = task.read(new, ITIMERSPEC_SIZE)
    _checked_flags(flags, TFD_TIMER_FLAGS)
    interval_seconds, interval, seconds, nanoseconds = unpack("<qqqq", value)
    if min(interval_seconds, seconds) < 0 or not (0 <= interval < NANOSECONDS and 0 <= nanoseconds < NANOSECONDS):
        raise OSError(errno.EINVAL, "")
    before = timerfd.set_time(task.descriptors.of_kind(fd, TimerFile).host, flags, value)
    if old:
        task.write(old, before)
    return 0


@call("timerfd_gettime")
def timerfd_gettime(task: Task, fd: Int, current: Word) -> int:
    """timerfd_gettime(2)."""
    task.write(current, timerfd.get_time(task.descriptors.of_kind(fd, TimerFile).host))
    return 0


# signalfd

# struct signalfd_siginfo (include/uapi/linux/signalfd.h): signo, errno, code, pid, uid, fd, tid, band, overrun, trapno,
# status, int, ptr, utime, stime, addr, and room to 128 bytes
_SIGNAL_INFO = Struct("<IiiIIiIIIIiiQQQQ48x")


def signal_info(number: int, info: bytes) -> bytes:
    """A siginfo_t as signalfd(2) gives it."""
    _, error, code = unpack("<iii", info[:12])
    pid, uid, descriptor, timer, band, overrun, status, value = (0,) * 8
    pointer = user_time = system_time = address = 0
    if code == siginfo.SI_TIMER:
        timer, overrun, pointer = unpack("<IIQ", info[16:32])
    elif code > 0 and code != siginfo.SI_KERNEL:
        if number == delivery.SIGCHLD:
            pid, uid, status, user_time, system_time = unpack("<IIi4xQQ", info[16:48])
        elif number in (4, 5, 7, 8, 11):
            address = unpack("<Q", info[16:24])[0]
        elif number == 29:  # SIGIO
            band, descriptor = unpack("<I4xi", info[16:28])
    else:
        pid, uid, pointer = unpack("<IIQ", info[16:32])
        if code in (siginfo.SI_USER, siginfo.SI_TKILL, siginfo.SI_KERNEL):
            pointer = 0
    if pointer:
        value = unpack("<i", pack("<Q", pointer)[:4])[0]
    return _SIGNAL_INFO.pack(
        number, error, code, pid, uid, descriptor, timer, band, overrun, 0, status, value, pointer,
        user_time, system_time, address,
    )  # fmt: skip


class SignalFile(File):
    """signalfd(2). A host eventfd stands for "something is pending": of the process that last read, or made it."""

    kind = "signalfd"

    def __init__(self, process: Process, flags: int, mask: int) -> None:
        host = os.eventfd(0, COMMON)
        super().__init__(host, os.O_RDWR | flags & os.O_NONBLOCK, "anon_inode:[signalfd]")
        self.reader = process
        self._kernel = process.kernel
        self.mask = mask
        self._shown = False
        self._kernel.signal_files.append(self)
        self.update(process)

    def update(self, process: Process) -> None:
        """The process's pending signals have changed."""
        if process is not self.reader or self.host < 0:
            return
        pending = process.pending.bits
        for task in process.tasks.values():
            pending |= task.pending.bits
        if bool(pending & self.mask) != self._shown:
            self._shown = not self._shown
            if self._shown:
                os.eventfd_write(self.host, 1)
            else:
                os.eventfd_read(self.host)

    def read(self, task: Task, count: int) -> bytes:
        """See File."""
        if count < _SIGNAL_INFO.size:
            raise OSError(errno.EINVAL, "")
        self.reader = task.process
        rows: list[bytes] = []
        while len(rows) < count // _SIGNAL_INFO.size:
            taken = delivery.take(task, self.mask)
            if taken is None:
                break
            rows.append(signal_info(*taken))
        self.update(task.process)
        if not rows:
            raise BlockingIOError(errno.EAGAIN, "")
        return b"".join(rows)

    def poll_host(self) -> int:
        """See File."""
        return self.host

    def released(self) -> None:
        """See File."""
        self._kernel.signal_files.remove(self)
        super().released()


def _signalfd(task: Task, fd: int, mask_at: int, size: int, flags: int) -> int:
    _checked_flags(flags, COMMON)
    if size != WORD.size:
        raise OSError(errno.EINVAL, "")
    mask = WORD.unpack(task.read(mask_at, size))[0] & ~UNBLOCKABLE
    if fd == -1:
        return _install(task, SignalFile(task.process, flags, mask), flags)
    file = task.descriptors.of_kind(fd, SignalFile)
    file.mask = mask
    file.update(file.reader)
    return fd


@call("signalfd", note="readiness is that of the process which last read from it")
def signalfd(task: Task, fd: Int, mask: Word, size: Word) -> int:
    """signalfd(2), without flags."""
    return _signalfd(task, fd, mask, size, 0)


@call("signalfd4", note="as signalfd")
def signalfd4(task: Task, fd: Int, mask: Word, size: Word, flags: Int) -> int:
    """signalfd(2)."""
    return _signalfd(task, fd, mask, size, flags)


# pidfd


class PidFile(File):
    """pidfd_open(2): readable once the process has ended."""

    kind = "pidfd"

    def __init__(self, process: Process, flags: int) -> None:
        host = os.eventfd(0, COMMON)
        super().__init__(host, os.O_RDWR | flags & os.O_NONBLOCK, "anon_inode:[pidfd]")
        self.process = process
        if process.alive:
            process.watchers.append(self._ended)
        else:
            self._ended()

    def _ended(self) -> None:
        os.eventfd_write(self.host, 1)

    def poll_host(self) -> int:
        """See File."""
        return self.host

    def released(self) -> None:
        """See File."""
        if self._ended in self.process.watchers:
            self.process.watchers.remove(self._ended)
        super().released()


@call("pidfd_open")
def pidfd_open(task: Task, pid: Int, flags: Uint) -> int:
    """pidfd_open(2)."""
    _checked_flags(flags, os.O_NONBLOCK)
    if pid <= 0:
        raise OSError(errno.EINVAL, "")
    process = task.kernel.processes.get(pid)
    if process is None:
        raise OSError(errno.EINVAL if pid in task.kernel.tasks else errno.ESRCH, "")
    return task.open_descriptor(PidFile(process, flags), close_on_exec=True)


def _meant(task: Task, file: File) -> Process:
    """The process that a pidfd, or a directory /proc/PID, stands for; raises EBADF, ESRCH."""
    if isinstance(file, PidFile):
        return file.process
    directory, _, name = file.path.rpartition("/")
    if directory != "/proc" or file.kind != "proc" or not name.isdecimal():
        raise OSError(errno.EBADF, "")
    process = task.kernel.processes.get(int(name))
    if process is None:
        raise OSError(errno.ESRCH, "")
    return process


@call("pidfd_send_signal")
def pidfd_send_signal(task: Task, fd: Int, number: Int, info: Word, flags: Uint) -> int:
    """pidfd_send_signal(2)."""
    _checked_flags(flags, 0)
    file = task.descriptors.get(fd)
    if not 0 <= number <= 64:
        raise OSError(errno.EINVAL, "")
    process = _meant(task, file)
    if task.kernel.processes.get(process.pid) is not process:
        raise OSError(errno.ESRCH, "")
    if not delivery.may_signal(task, process, number):
        raise OSError(errno.EPERM, "")
    if info:
        told = bytearray(task.read(info, siginfo.SIZE))
        stated, _, code = unpack("<iii", told[:12])
        if stated != number:
            raise OSError(errno.EINVAL, "")
        if process is not task.process and (code >= 0 or code == siginfo.SI_TKILL):
            raise OSError(errno.EPERM, "")
        delivery.post(process, number, bytes(told))
    else:
        delivery.post(process, number, siginfo.sent(number, task))
    return 0


# inotify


@call("inotify_init")
def inotify_init(task: Task) -> int:
    """inotify_init(2)."""
    return inotify_init1(task, 0)


@call("inotify_init1")
def inotify_init1(task: Task, flags: Int) -> int:
    """inotify_init(2)."""
    _checked_flags(flags, COMMON)
    return _install(task, InotifyFile(inotify.create(), flags, "inotify"), flags)


@call("inotify_add_watch", note="nothing happens in /proc")
def inotify_add_watch(task: Task, fd: Int, path_at: Word, mask: Uint) -> int:
    """inotify_add_watch(2)."""
    file = task.descriptors.of_kind(fd, InotifyFile)
    path = task.read_string(path_at)
    if not path:
        raise OSError(errno.ENOENT, "")
    task.kernel.assume(task)
    if task.place.root != "/" and path.startswith(b"/"):
        path = os.fsencode(task.place.root) + path
    return inotify.add_watch(file.host, path, mask)


@call("inotify_rm_watch")
def inotify_rm_watch(task: Task, fd: Int, watch: Int) -> int:
    """inotify_rm_watch(2)."""
    inotify.remove_watch(task.descriptors.of_kind(fd, InotifyFile).host, watch)
    return 0


refuse(errno.EPERM, "descriptors of other processes are theirs", "pidfd_getfd")
refuse(errno.ENOSYS, "page faults of guests belong to the vCPU", "userfaultfd")
refuse(errno.ENOSYS, "it watches whole file systems", "fanotify_init", "fanotify_mark")
