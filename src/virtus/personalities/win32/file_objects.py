"""What a file's handle means: a descriptor of the host, what it was opened for, and what its closing does."""

import errno
import os
import select
import stat
from collections.abc import Callable
from typing import Any, Final

from virtus.personalities.win32 import descriptors, errors, handles
from virtus.personalities.win32.descriptors import ready as ready
from virtus.personalities.win32.guest import Memory
from virtus.personalities.win32.process import Thread
from virtus.records import dataclass, field

READ_DATA, WRITE_DATA, APPEND_DATA = 0x1, 0x2, 0x4
GENERIC_READ, GENERIC_WRITE, GENERIC_ALL = 0x8000_0000, 0x4000_0000, 0x1000_0000
DELETE: Final = 0x1_0000
TYPE_UNKNOWN, TYPE_DISK, TYPE_CHAR, TYPE_PIPE = 0, 1, 2, 3
STDIN, STDOUT, STDERR = -10, -11, -12
CURRENT_PROCESS: Final = 0xFFFF_FFFF_FFFF_FFFF
MOST_AT_ONCE: Final = 0x7FFF_F000
"""What the host reads or writes in one call at most (read(2))."""
LARGEST_OFFSET: Final = (1 << 63) - 1
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
    busy: int = 0
    """Overlapped operations that have not ended."""
    messages: bool = False
    """Of a pipe: what is written at once is read at once."""
    rest: bytes = b""
    """Of a message that was longer than the buffer it was read into."""
    known_kind: int = 0
    """Its `kind`, once somebody has asked."""
    mode: int = 0
    """What kind of file it is for the host (st_mode), once somebody has asked."""
    ended: Callable[[], None] | None = None
    """Called when it is closed."""

    @property
    def kind(self) -> int:
        """FILE_TYPE_*; what a descriptor stands for does not change."""
        if not self.known_kind:
            self.known_kind = self._kind()
        return self.known_kind

    def _kind(self) -> int:
        mode = self.mode = self.mode or os.fstat(self.fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
            return TYPE_DISK
        return TYPE_CHAR if stat.S_ISCHR(mode) else TYPE_PIPE

    def word(self) -> int:
        """What machine code may know of its handles: see `handles`."""
        try:
            kind = self.kind
        except OSError:
            return 0
        word = self.fd | kind << handles.WORD_KIND | handles.KNOWN
        if type(self) is not File or self.overlapped:
            return word if stat.S_ISCHR(self.mode) else word | handles.NO_TERMINAL
        if stat.S_ISREG(self.mode):
            word |= handles.PLAIN
        if stat.S_ISCHR(self.mode) and self.is_console:
            return word
        word |= handles.NO_TERMINAL
        direct = stat.S_ISREG(self.mode) or stat.S_ISFIFO(self.mode) or stat.S_ISCHR(self.mode)
        return word | handles.WRITABLE if direct and not self.append else word

    @property
    def is_console(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self.fd)

    def signalled(self, thread: Thread) -> bool:
        """Whether a wait for it would end: no overlapped operation goes on; of a console, that input is there."""
        return not self.busy if self.overlapped else ready(self.fd, write=False)

    def acquire(self, thread: Thread) -> bool | None:
        """A file stays as it is."""
        return None

    def prepare(self) -> int:
        """Whatever must come before data is waited for; 0 or Windows' error."""
        return 0

    def receive(self, size: int, offset: int | None) -> bytes | int:
        """Up to `size` bytes, or Windows' error. `offset` None: from where the file stands."""
        kind = self.kind
        if offset is not None and offset > LARGEST_OFFSET and kind == TYPE_DISK:
            return errors.ERROR_INVALID_PARAMETER
        try:
            if kind == TYPE_DISK and offset is not None:
                return os.pread(self.fd, size, offset)
            data = os.read(self.fd, size)
        except OSError as error:
            return error_of(error, write=False)
        return errors.ERROR_BROKEN_PIPE if not data and size and kind == TYPE_PIPE else data

    def fill(self, memory: Memory, buffer: int, size: int, offset: int | None) -> tuple[int, int]:
        """The same into guest memory: bytes and Windows' error. Of a disk's file the host reads to where it belongs."""
        if self.kind == TYPE_DISK and (offset is None or offset <= LARGEST_OFFSET):
            try:
                return memory.receive(self.fd, buffer, size, offset), 0
            except OSError as error:
                return 0, error_of(error, write=False)
        data = self.receive(size, offset)
        if isinstance(data, int):
            return 0, data
        memory.write(buffer, data)
        return len(data), 0

    def send(self, data: bytes, offset: int | None) -> int:
        """All of the bytes; 0 or Windows' error."""
        view, disk = memoryview(data), self.kind == TYPE_DISK
        if disk and offset is not None and offset + len(data) > LARGEST_OFFSET:
            return errors.ERROR_INVALID_PARAMETER
        try:
            if self.append and disk:
                os.lseek(self.fd, 0, os.SEEK_END)
                offset = None
            while view:
                if offset is not None and disk:
                    count = os.pwrite(self.fd, view, offset)
                    offset += count
                else:
                    count = os.write(self.fd, view)
                view = view[count:]
        except OSError as error:
            return error_of(error, write=True)
        return 0

    def opened(self) -> None:
        """Another handle."""
        self.handles += 1

    def discard(self) -> None:
        """Close one that has got no handle."""
        if self.ended is not None:
            self.ended()
        os.close(self.fd)

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
        stop = getattr(self.listing, "close", None)  # of a directory whose changes are watched
        if stop is not None:
            stop()
        if self.ended is not None:
            self.ended()
        if not self.standard:
            os.close(self.fd)


def of(thread: Thread, handle: int) -> File | None:
    """The file of a handle; None where it is none."""
    found = thread.process.handles.get(handle & ~3 if handle < 1 << 32 else handle)
    return found if isinstance(found, File) else None


def add(thread: Thread, file: File, *, inheritable: bool = False) -> int:
    """A new handle of a file."""
    file.opened()
    return thread.process.handles.add(file, inheritable=inheritable)


def until_ready(thread: Thread, file: File, *, write: bool, always: bool = False) -> None:
    """Let other guest threads run while a pipe or terminal is not ready; `always` even where nobody else is."""
    if file.kind != TYPE_DISK and (always or (thread.engine.cooperative and len(thread.process.threads) > 1)):
        descriptors.wait(thread, file.fd, write=write)


def error_of(error: OSError, *, write: bool) -> int:
    """Windows' error for what the host said of reading or writing."""
    if error.errno in (errno.EPIPE, errno.ECONNRESET):
        return errors.ERROR_NO_DATA if write else errors.ERROR_BROKEN_PIPE
    if error.errno == errno.EBADF:  # it is open, but not for this
        return errors.ERROR_ACCESS_DENIED
    return errors.of_errno(error.errno or 0)


def read(thread: Thread, file: File, size: int, offset: int | None) -> bytes | int:
    """Up to `size` bytes, waiting for the first; or Windows' error."""
    error = _await_data(thread, file)
    return error if error else file.receive(min(size, MOST_AT_ONCE), offset)


def fill(thread: Thread, file: File, buffer: int, size: int, offset: int | None) -> tuple[int, int]:
    """The same into guest memory: bytes and Windows' error."""
    error = _await_data(thread, file)
    return (0, error) if error else file.fill(thread.memory, buffer, min(size, MOST_AT_ONCE), offset)


def _await_data(thread: Thread, file: File) -> int:
    error = file.prepare()
    if not error and file.kind != TYPE_DISK and not file.rest:
        until_ready(thread, file, write=False)
    return error


def write(thread: Thread, file: File, data: bytes, offset: int | None) -> int:
    """All of the bytes; 0 or Windows' error."""
    if file.kind == TYPE_DISK or file.messages or not thread.engine.cooperative or len(thread.process.threads) <= 1:
        return file.send(data, offset)
    for place in range(0, len(data), select.PIPE_BUF):
        until_ready(thread, file, write=True)
        error = file.send(data[place : place + select.PIPE_BUF], None)
        if error:
            return error
    return 0
