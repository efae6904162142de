"""open(2): from a path to an open file of the right kind.

The kernel process never waits for an open: FIFOs are opened without blocking, and the guest's wait for the other end is
a wait of the kernel's own.
"""

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from virtus.host import path_calls as host_calls
from virtus.personalities.linux import known, pipes, sysroot
from virtus.personalities.linux.blocking import Blocking, Wait, WaitQueue, after
from virtus.personalities.linux.files import File
from virtus.personalities.linux.names import name_of_host
from virtus.personalities.linux.paths import at, proc_device, slowly
from virtus.personalities.linux.proc.files import open_node
from virtus.personalities.linux.proc.tree import Node
from virtus.personalities.linux.regular import DeviceFile, DirectoryFile, PathOnly, RegularFile

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

O_LARGEFILE: Final = 0o100000  # include/uapi/asm-generic/fcntl.h; set on every open by a 64-bit process
O_TMPFILE: Final = 0o20000000
PASSED: Final = (
    os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME
    | os.O_SYNC | os.O_DSYNC | O_TMPFILE
)  # fmt: skip
"""What the host is told of an open."""
PASSED_FOR_PATH: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
ALWAYS: Final = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
NOT_KEPT: Final = os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_TRUNC | os.O_CLOEXEC
CONTROLLING_TERMINAL: Final = os.makedev(5, 0)  # /dev/tty, Documentation/admin-guide/devices.txt
FIONREAD: Final = 0x541B  # include/uapi/asm-generic/ioctls.h
FIFO_RETRY_NS: Final = 100_000_000
"""How soon to look again for the other end of a FIFO that somebody outside may open (a volume)."""

_status = host_calls.Buffer(host_calls.STATUS_SIZE)
_words = _status.view.cast("Q")  # struct stat: st_dev, st_ino, st_nlink, st_mode and st_uid, ..., st_rdev at 5
_S_IFMT: Final = 0o170000


def open_file(task: "Task", dirfd: int, path: bytes, flags: int, mode: int) -> int | Blocking:
    """open(2) with a descriptor of the guest's table as its result; a generator where a FIFO has to be waited for."""
    if flags & os.O_PATH:
        host_flags = flags & PASSED_FOR_PATH | os.O_CLOEXEC
    else:
        host_flags = flags & PASSED | ALWAYS
    if task.kernel.sysroots and not flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC):
        path = sysroot.redirected(task, path)
    follow = not flags & os.O_NOFOLLOW and flags & (os.O_CREAT | os.O_EXCL) != os.O_CREAT | os.O_EXCL
    if path in (known.absent_beyond if follow else known.absent) and not flags & os.O_CREAT and known.holds(task):
        return -errno.ENOENT
    mode &= 0o7777

    def act(start: int, name: bytes) -> int:
        return host_calls.openat(start, name, host_flags, mode)

    def inside(node: Node) -> File | int:
        return open_node(task, node, flags)

    host: Any = at(task, dirfd, path, act, follow=follow, inside=inside, learn=True)
    if flags & os.O_CREAT:
        known.made()
    if isinstance(host, File):
        return task.open_descriptor(host, close_on_exec=bool(flags & os.O_CLOEXEC))
    if host < 0:
        return _failed(task, dirfd, path, flags, host) if host == -errno.ENXIO else host
    return opened(task, host, flags, dirfd, path)


def opened(task: "Task", host: int, flags: int, dirfd: int = host_calls.AT_FDCWD, path: bytes = b"") -> int | Blocking:
    """A descriptor of the guest's for a host descriptor that was just opened for it."""
    host_calls.fstat(host, _status.address)
    kind = _words[3] & _S_IFMT
    kept = flags & ~NOT_KEPT | O_LARGEFILE
    file: File
    if flags & os.O_PATH:
        if _words[0] == proc_device():
            os.close(host)
            return _in_proc(task, dirfd, path, flags)
        file = PathOnly(host, flags & PASSED_FOR_PATH)
    elif kind == stat.S_IFREG:
        file = RegularFile(host, kept)
    elif kind == stat.S_IFDIR:
        if _words[0] == proc_device():  # /proc itself, through a link
            os.close(host)
            return _in_proc(task, dirfd, path, flags)
        file = DirectoryFile(host, kept)
    elif kind == stat.S_IFCHR:
        file = _device(task, host, flags, _words[5])
    elif kind == stat.S_IFIFO:
        return _fifo(task, host, flags)
    else:
        os.close(host)
        return -errno.EACCES
    return task.open_descriptor(file, close_on_exec=bool(flags & os.O_CLOEXEC))


def _in_proc(task: "Task", dirfd: int, path: bytes, flags: int) -> int:
    file = slowly(task, dirfd, path, lambda *_: -errno.ENOENT, inside=lambda node: open_node(task, node, flags))
    if isinstance(file, int):
        return file
    return task.open_descriptor(file, close_on_exec=bool(flags & os.O_CLOEXEC))


def _terminal(task: "Task", path: str, host: int, flags: int) -> File:
    from virtus.personalities.linux import terminals  # it opens files itself

    file: File = terminals.open_terminal(task, path, host, flags)
    return file


def _device(task: "Task", host: int, flags: int, device: int) -> File:
    kept = flags & ~NOT_KEPT | O_LARGEFILE
    if device == CONTROLLING_TERMINAL:
        os.close(host)
        return _terminal(task, "/dev/tty", -1, flags)
    if os.isatty(host):
        return _terminal(task, os.fsdecode(name_of_host(task.kernel, host)), host, flags)
    return DeviceFile(host, kept)


def _failed(task: "Task", dirfd: int, path: bytes, flags: int, error: int) -> int | Blocking:
    """ENXIO: a FIFO without a reader, /dev/tty without a terminal of the kernel's own, or a socket."""

    def act(start: int, name: bytes) -> int:
        return host_calls.newfstatat(start, name, _status.address, 0)

    if at(task, dirfd, path, act) != 0:
        return error
    kind = _words[3] & _S_IFMT
    if kind == stat.S_IFCHR and _words[5] == CONTROLLING_TERMINAL:
        file = _terminal(task, "/dev/tty", -1, flags)
        return task.open_descriptor(file, close_on_exec=bool(flags & os.O_CLOEXEC))
    if kind == stat.S_IFIFO and not flags & os.O_NONBLOCK:
        return _wait_for_reader(task, dirfd, path, flags, (_words[0], _words[1]))
    return error


class _Fifo:
    """Who waits for the other end of a FIFO, and how often each end was opened."""

    def __init__(self) -> None:
        self.queue = WaitQueue()
        self.writers = 0


_fifos: dict[tuple[int, int], _Fifo] = {}  # only while somebody waits


def _fifo(task: "Task", host: int, flags: int) -> int | Blocking:
    """A FIFO was opened on the host; a reader may have to wait for a writer."""
    identity = (_words[0], _words[1])
    waiting = _fifos.get(identity)
    access = flags & os.O_ACCMODE
    if waiting is not None:
        waiting.writers += access != os.O_RDONLY
        waiting.queue.wake()
    if access != os.O_RDONLY or flags & os.O_NONBLOCK or _has_writer(host):
        return _finish_fifo(task, host, flags)
    if name_of_host(task.kernel, host)[:5] == b"pipe:":  # pipe(2) opened again through /proc never waits
        return _finish_fifo(task, host, flags)
    return _wait_for_writer(task, host, flags, identity)


def _finish_fifo(task: "Task", host: int, flags: int) -> int:
    file = pipes.PipeFile(host, flags & ~NOT_KEPT | O_LARGEFILE)
    return task.open_descriptor(file, close_on_exec=bool(flags & os.O_CLOEXEC))


def _has_writer(host: int) -> bool:
    """A non-blocking FIFO without a writer is at its end; with one, it would wait. Looks without taking."""
    waiting = bytearray(4)
    fcntl.ioctl(host, FIONREAD, waiting)
    if any(waiting):
        return True
    try:
        return os.read(host, 1) != b""
    except BlockingIOError:
        return True


def _wait_for_writer(task: "Task", host: int, flags: int, identity: tuple[int, int]) -> Blocking:
    fifo = _fifos.setdefault(identity, _Fifo())
    before = fifo.writers
    try:
        while fifo.writers == before and not _has_writer(host):
            yield Wait(queues=(fifo.queue,), deadline=after(FIFO_RETRY_NS))
    except BaseException:
        os.close(host)
        raise
    finally:
        if not fifo.queue.waits:
            _fifos.pop(identity, None)
    return _finish_fifo(task, host, flags)


def _wait_for_reader(task: "Task", dirfd: int, path: bytes, flags: int, identity: tuple[int, int]) -> Blocking:
    fifo = _fifos.setdefault(identity, _Fifo())
    host_flags = flags & PASSED | ALWAYS

    def act(start: int, name: bytes) -> int:
        return host_calls.openat(start, name, host_flags, 0)

    try:
        while (host := at(task, dirfd, path, act)) == -errno.ENXIO:
            yield Wait(queues=(fifo.queue,), deadline=after(FIFO_RETRY_NS))
    finally:
        if not fifo.queue.waits:
            _fifos.pop(identity, None)
    return host if host < 0 else _finish_after_wait(task, host, flags, identity)


def _finish_after_wait(task: "Task", host: int, flags: int, identity: tuple[int, int]) -> int:
    fifo = _fifos.get(identity)
    if fifo is not None:
        fifo.writers += 1
        fifo.queue.wake()
    return _finish_fifo(task, host, flags)
