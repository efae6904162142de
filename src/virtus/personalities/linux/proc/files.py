"""Open files of /proc."""

import errno
import os
import struct
from typing import TYPE_CHECKING, Final

from virtus.personalities.linux.files import File
from virtus.personalities.linux.proc.tree import Directory, Link, MagicLink, Node, Text

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

O_LARGEFILE: Final = 0o100000
_RECORD: Final = struct.Struct("<QqHB")  # struct linux_dirent64 without its name


def proc_device_number() -> int:
    """The device number that nodes of /proc show."""
    try:
        return os.stat("/proc").st_dev
    except OSError:
        return 0


def pack_records(rows: list[tuple[str, int, int]], start: int, count: int) -> tuple[bytes, int]:
    """`struct linux_dirent64` records of the rows from `start` on that fit into `count` bytes, and the next row.

    Raises EINVAL when not even one fits.
    """
    packed: list[bytes] = []
    room = count
    at = start
    while at < len(rows):
        name, inode, kind = rows[at]
        text = os.fsencode(name) + b"\0"
        size = -(-(_RECORD.size + len(text)) // 8) * 8
        if size > room:
            break
        packed.append(_RECORD.pack(inode, at + 1, size, kind) + text.ljust(size - _RECORD.size, b"\0"))
        room -= size
        at += 1
    if not packed and start < len(rows):
        raise OSError(errno.EINVAL, "")
    return b"".join(packed), at


class _NodeFile(File):
    """A node of /proc that is open: its status, and a position in what it says."""

    kind = "proc"

    def __init__(self, node: Node, flags: int) -> None:
        super().__init__(-1, flags, node.path)
        self.node = node
        self.position = 0

    def stat(self) -> os.stat_result:
        """fstat(2)."""
        return self.node.status(proc_device_number())

    def seek(self, offset: int, whence: int) -> int:
        """lseek(2); there is no end to seek from, and rows of a directory are positions."""
        if whence == os.SEEK_CUR:
            offset += self.position
        elif whence != os.SEEK_SET:
            raise OSError(errno.EINVAL, "")
        if offset < 0:
            raise OSError(errno.EINVAL, "")
        self.position = offset
        return offset


class ProcFile(_NodeFile):
    """A text of /proc: made when it is read from its start, so that what is read fits together."""

    node: Text

    def __init__(self, node: Text, flags: int) -> None:
        super().__init__(node, flags)
        self._content: bytes | None = None

    def read(self, task: "Task", count: int) -> bytes:
        """read(2)."""
        data = self.pread(task, count, self.position)
        self.position += len(data)
        return data

    def pread(self, task: "Task", count: int, offset: int) -> bytes:
        """pread(2)."""
        if not self.readable:
            raise OSError(errno.EBADF, "")
        if offset == 0 or self._content is None:
            self._content = self.node.produce()
        return self._content[offset : offset + count]

    def write(self, task: "Task", data: bytes) -> int:
        """write(2), for what can be set."""
        if not self.writable:
            raise OSError(errno.EBADF, "")
        if self.node.accept is None:
            raise OSError(errno.EACCES, "")
        self.node.accept(data)
        return len(data)

    def pwrite(self, task: "Task", data: bytes, offset: int) -> int:
        """pwrite(2)."""
        return self.write(task, data)


class ProcDirectory(_NodeFile):
    """A directory of /proc."""

    node: Directory

    def __init__(self, node: Directory, flags: int) -> None:
        super().__init__(node, flags)
        self._rows: list[tuple[str, int, int]] | None = None

    def read(self, task: "Task", count: int) -> bytes:
        """Not as bytes."""
        raise OSError(errno.EISDIR, "")

    def entries(self, task: "Task") -> list[tuple[str, int, int]]:
        """All rows."""
        return self.node.rows(task)

    def records(self, task: "Task", count: int) -> bytes:
        """The next `struct linux_dirent64` records that fit."""
        if self._rows is None or self.position == 0:
            self._rows = self.node.rows(task)
        packed, self.position = pack_records(self._rows, self.position, count)
        return packed


class ProcPath(_NodeFile):
    """A place in /proc (O_PATH)."""

    def read(self, task: "Task", count: int) -> bytes:
        """EBADF."""
        raise OSError(errno.EBADF, "")

    def write(self, task: "Task", data: bytes) -> int:
        """EBADF."""
        raise OSError(errno.EBADF, "")

    def pread(self, task: "Task", count: int, offset: int) -> bytes:
        """EBADF."""
        raise OSError(errno.EBADF, "")

    def pwrite(self, task: "Task", data: bytes, offset: int) -> int:
        """EBADF."""
        raise OSError(errno.EBADF, "")

    def seek(self, offset: int, whence: int) -> int:
        """EBADF."""
        raise OSError(errno.EBADF, "")


def open_node(task: "Task", node: Node, flags: int) -> File | int:
    """open(2) of a node: the file, or -errno."""
    if flags & os.O_CREAT and flags & os.O_EXCL:
        return -errno.EEXIST
    if flags & os.O_DIRECTORY and not isinstance(node, Directory):
        return -errno.ENOTDIR
    if flags & os.O_PATH:
        return ProcPath(node, flags & (os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW))
    if isinstance(node, Link | MagicLink):
        return -errno.ELOOP  # reached with O_NOFOLLOW
    if not permitted(task, node, _wanted(flags)):
        return -errno.EACCES
    kept = flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_TRUNC | os.O_CLOEXEC) | O_LARGEFILE
    if isinstance(node, Directory):
        return -errno.EISDIR if flags & (os.O_ACCMODE | os.O_CREAT) else ProcDirectory(node, kept)
    if not isinstance(node, Text):
        return ProcPath(node, kept)
    return ProcFile(node, kept)


def _wanted(flags: int) -> int:
    return {os.O_RDONLY: 4, os.O_WRONLY: 2}.get(flags & os.O_ACCMODE, 6)


def permitted(task: "Task", node: Node, wanted: int) -> bool:
    """Whether a task may use a node: read 4, write 2, search 1. The superuser may, where it means anything."""
    credentials = task.credentials
    if credentials.fsuid == 0:
        return not (wanted & 2 and isinstance(node, Text) and node.accept is None and not node.mode & 0o222)
    uid, gid = node.owner
    if credentials.fsuid == uid:
        allowed = node.mode >> 6
    elif credentials.fsgid == gid or gid in credentials.groups:
        allowed = node.mode >> 3
    else:
        allowed = node.mode
    return allowed & wanted == wanted
