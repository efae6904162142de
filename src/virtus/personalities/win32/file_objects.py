"""What a file's handle means: a descriptor of the host, what it was opened for, and what its closing does."""

import os
import select
import stat
from dataclasses import dataclass, field
from typing import Any, Final

from virtus.personalities.win32 import errors
from virtus.personalities.win32.process import Thread

READ_DATA, WRITE_DATA, APPEND_DATA = 0x1, 0x2, 0x4
GENERIC_READ, GENERIC_WRITE, GENERIC_ALL = 0x8000_0000, 0x4000_0000, 0x1000_0000
DELETE: Final = 0x1_0000
TYPE_UNKNOWN, TYPE_DISK, TYPE_CHAR, TYPE_PIPE = 0, 1, 2, 3
STDIN, STDOUT, STDERR = -10, -11, -12
CURRENT_PROCESS: Final = 0xFFFF_FFFF_FFFF_FFFF
INVALID: Final = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(eq=False)
class File:
    """An open file, directory, device or pipe end. Several handles may share it."""

    fd: int
    path: str = ""
    access: int = GENERIC_READ | GENERIC_WRITE
    append: bool = False
    overlapped: bool = False
    delete_on_close: bool = False
    handles: int = 0
    listing: Any = None
    """Where an enumeration of a directory stands."""
    port: Any = None
    key: int = 0
    skip_success: bool = False
    """A completion that was immediate is not queued (FILE_SKIP_COMPLETION_PORT_ON_SUCCESS)."""
    locks: list[tuple[int, int, bool]] = field(default_factory=list)
    standard: bool = False

    @property
    def kind(self) -> int:
        """FILE_TYPE_*."""
        mode = os.fstat(self.fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
            return TYPE_DISK
        return TYPE_CHAR if stat.S_ISCHR(mode) else TYPE_PIPE

    @property
    def is_console(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self.fd)

    def signalled(self, thread: Thread) -> bool:
        """Whether a wait for it would end: input is there."""
        return ready(self.fd, write=False)

    def acquire(self, thread: Thread) -> bool | None:
        """A file stays as it is."""
        return None

    def opened(self) -> None:
        """Another handle."""
        self.handles += 1

    def closed(self) -> None:
        """One handle less; with the last the file is closed, and deleted where that was asked for."""
        self.handles -= 1
        if self.handles > 0:
            return
        if self.delete_on_close and self.path:
            try:
                (os.rmdir if os.path.isdir(self.path) and not os.path.islink(self.path) else os.unlink)(self.path)
            except OSError:
                pass  # somebody else was faster, or it is not empty: Windows says nothing at this point either
        if not self.standard:
            os.close(self.fd)


def ready(fd: int, *, write: bool) -> bool:
    """Whether reading or writing would not wait."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT if write else select.POLLIN)
    return bool(poll.poll(0))


def of(thread: Thread, handle: int) -> File | None:
    """The file of a handle; None where it is none."""
    found = thread.process.handles.get(handle & ~3 if handle < 1 << 32 else handle)
    return found if isinstance(found, File) else None


def add(thread: Thread, file: File, *, inheritable: bool = False) -> int:
    """A new handle of a file."""
    file.opened()
    return thread.process.handles.add(file, inheritable=inheritable)


def until_ready(thread: Thread, file: File, *, write: bool) -> None:
    """Let other guest threads run while a pipe or terminal is not ready."""
    if thread.engine.cooperative and len(thread.process.threads) > 1 and file.kind != TYPE_DISK:
        thread.engine.wait(lambda: ready(file.fd, write=write), None)


def read(thread: Thread, file: File, size: int, offset: int | None) -> bytes | int:
    """Up to `size` bytes, or Windows' error. `offset` None: from where the file stands."""
    try:
        if offset is not None and file.kind == TYPE_DISK:
            return os.pread(file.fd, size, offset)
        until_ready(thread, file, write=False)
        data = os.read(file.fd, size)
    except OSError as error:
        return errors.of_errno(error.errno or 0)
    if not data and size and file.kind == TYPE_PIPE:
        return errors.ERROR_BROKEN_PIPE
    return data


def write(thread: Thread, file: File, data: bytes, offset: int | None) -> int:
    """All of the bytes; 0 or Windows' error."""
    try:
        view = memoryview(data)
        if file.append and file.kind == TYPE_DISK:
            os.lseek(file.fd, 0, os.SEEK_END)
            offset = None
        while view:
            if offset is not None and file.kind == TYPE_DISK:
                count = os.pwrite(file.fd, view, offset)
                offset += count
            else:
                until_ready(thread, file, write=True)
                count = os.write(file.fd, view)
            view = view[count:]
    except OSError as error:
        number = errors.of_errno(error.errno or 0)
        return errors.ERROR_NO_DATA if number == errors.ERROR_BROKEN_PIPE else number
    return 0
