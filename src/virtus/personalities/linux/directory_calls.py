"""System calls that read directories."""

import errno
import struct
from typing import Final

from virtus.personalities.linux.proc.files import ProcDirectory
from virtus.personalities.linux.regular import DirectoryFile
from virtus.personalities.linux.table import Int, Uint, Word, call
from virtus.personalities.linux.task import Task

LARGEST: Final = 1 << 16
_NEW: Final = struct.Struct("<QqHB")  # struct linux_dirent64: inode, next position, length, type; then the name
_OLD: Final = struct.Struct("<QQH")  # struct linux_dirent: inode, next position, length; the type is its last byte


def _records(task: Task, fd: int, count: int) -> bytes:
    file = task.descriptors.get(fd)
    if isinstance(file, DirectoryFile):
        return file.records(count)
    if isinstance(file, ProcDirectory):
        return file.records(task, min(count, LARGEST))
    raise OSError(errno.EBADF if not file.readable else errno.ENOTDIR, "")


@call("getdents64")
def getdents64(task: Task, fd: Int, buffer: Word, count: Uint) -> int:
    """getdents64(2)."""
    records = _records(task, fd, count)
    task.write(buffer, records)
    return len(records)


@call("getdents")
def getdents(task: Task, fd: Int, buffer: Word, count: Uint) -> int:
    """getdents(2): the older records are no longer than the newer ones."""
    old = bytearray()
    records = _records(task, fd, count)
    at = 0
    while at < len(records):
        inode, following, length, kind = _NEW.unpack_from(records, at)
        name = records[at + _NEW.size : at + length].split(b"\0", 1)[0]
        size = -(-(_OLD.size + len(name) + 2) // 8) * 8
        row = (_OLD.pack(inode, following & 2**64 - 1, size) + name + b"\0").ljust(size - 1, b"\0")
        old += row + bytes([kind])
        at += length
    task.write(buffer, old)
    return len(old)
