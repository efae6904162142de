"""Files of the guest's root, which GDB reads by itself: the program, and its libraries.

Source: Debugging with GDB, "Host I/O Packets"; for the layout of a file's status "File-I/O Remote Protocol Extension".
"""

import errno
import os
import stat
import struct
from collections.abc import Callable
from typing import Final

from virtus.machine.debug.packets import binary, number

MOST_OPEN: Final = 16
MOST_READ: Final = 0x3000
_ACCESS: Final = 3
_STATUS: Final = struct.Struct(">7IQQQ3I")
_ERRORS: Final = {
    errno.EPERM: 1, errno.ENOENT: 2, errno.EINTR: 4, errno.EBADF: 9, errno.EACCES: 13, errno.EFAULT: 14,
    errno.EBUSY: 16, errno.EEXIST: 17, errno.ENODEV: 19, errno.ENOTDIR: 20, errno.EISDIR: 21, errno.EINVAL: 22,
    errno.ENFILE: 23, errno.EMFILE: 24, errno.EFBIG: 27, errno.ENOSPC: 28, errno.ESPIPE: 29, errno.EROFS: 30,
    errno.ENAMETOOLONG: 91,
}  # fmt: skip
_UNKNOWN: Final = 9999
_MASK32: Final = 0xFFFFFFFF


class Files:
    """The files that GDB has open; it may read regular files, and nothing else."""

    def __init__(self, open: Callable[[str], int]) -> None:
        self._open = open
        self._descriptors: dict[int, int] = {}
        self._operations: dict[bytes, Callable[[list[bytes]], bytes]] = {
            b"setfs": self._setfs,
            b"open": self._open_file,
            b"close": self._close,
            b"pread": self._pread,
            b"fstat": self._fstat,
        }

    def answer(self, request: bytes) -> bytes:
        """The reply to what follows `vFile:`; empty for an operation there is not. Raises ValueError."""
        name, _, rest = request.partition(b":")
        operation = self._operations.get(name)
        if operation is None:
            return b""
        try:
            return operation(rest.split(b","))
        except OSError as error:
            return b"F-1,%x" % _ERRORS.get(error.errno or 0, _UNKNOWN)

    def close(self) -> None:
        """Close them all."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def _setfs(self, words: list[bytes]) -> bytes:
        return b"F0"  # there is one tree of files, whatever process asks

    def _open_file(self, words: list[bytes]) -> bytes:
        path, flags, _mode = words
        if number(flags) & _ACCESS != os.O_RDONLY:
            raise OSError(errno.EROFS, "")
        if len(self._descriptors) >= MOST_OPEN:
            raise OSError(errno.EMFILE, "")
        name = os.fsdecode(binary(path))
        if "\0" in name:
            raise OSError(errno.EINVAL, "")
        descriptor = self._open(name)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EACCES, "")
        handle = next(handle for handle in range(MOST_OPEN) if handle not in self._descriptors)
        self._descriptors[handle] = descriptor
        return b"F%x" % handle

    def _at(self, word: bytes) -> int:
        handle = number(word)
        if handle not in self._descriptors:
            raise OSError(errno.EBADF, "")
        return handle

    def _close(self, words: list[bytes]) -> bytes:
        (word,) = words
        os.close(self._descriptors.pop(self._at(word)))
        return b"F0"

    def _pread(self, words: list[bytes]) -> bytes:
        word, size, offset = words
        place = number(offset)
        if place >= 1 << 63:
            raise OSError(errno.EINVAL, "")
        data = os.pread(self._descriptors[self._at(word)], min(number(size), MOST_READ), place)
        return b"F%x;%b" % (len(data), data)

    def _fstat(self, words: list[bytes]) -> bytes:
        (word,) = words
        found = os.fstat(self._descriptors[self._at(word)])
        data = _STATUS.pack(
            *(
                value & _MASK32
                for value in (found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid, 0)
            ),
            found.st_size,
            found.st_blksize,
            found.st_blocks,
            *(int(when) & _MASK32 for when in (found.st_atime, found.st_mtime, found.st_ctime)),
        )
        return b"F%x;%b" % (len(data), data)
