"""Linux's calls on paths and on the status of files, with the results Linux gives: a number, or -errno.

Python's own functions say the same things with exceptions and result objects; a kernel that passes raw structures on to
a guest a hundred thousand times wants neither. Paths are `bytes`; addresses are those of ctypes buffers.
"""

import ctypes
from collections.abc import Callable
from typing import Final

AT_FDCWD: Final = -100  # include/uapi/linux/fcntl.h
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_REMOVEDIR: Final = 0x200
AT_EACCESS: Final = 0x200
AT_SYMLINK_FOLLOW: Final = 0x400
AT_EMPTY_PATH: Final = 0x1000
RESOLVE_NO_XDEV: Final = 0x01  # include/uapi/linux/openat2.h
STATUS_SIZE: Final = 144  # struct stat, arch/x86/include/uapi/asm/stat.h
STATX_SIZE: Final = 256  # struct statx, include/uapi/linux/stat.h
STATFS_SIZE: Final = 120  # struct statfs, include/uapi/asm-generic/statfs.h

_libc = ctypes.PyDLL(None, use_errno=True)  # the calls do not block: the interpreter's lock may stay held
_errno = ctypes.get_errno
_INT, _PATH, _ADDRESS, _SIZE = ctypes.c_long, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t


def _call(number: int, *types: type) -> Callable[..., int]:
    """A host system call by its x86-64 number (arch/x86/entry/syscalls/syscall_64.tbl)."""
    function = _libc["syscall"]
    function.argtypes = (ctypes.c_long, *types)
    function.restype = ctypes.c_long

    def host_call(*arguments: int | bytes) -> int:
        result: int = function(number, *arguments)
        return result if result >= 0 else -_errno()

    return host_call


openat = _call(257, _INT, _PATH, _INT, _INT)
openat2 = _call(437, _INT, _PATH, _ADDRESS, _SIZE)
newfstatat = _call(262, _INT, _PATH, _ADDRESS, _INT)
fstat = _call(5, _INT, _ADDRESS)
statx = _call(332, _INT, _PATH, _INT, _INT, _ADDRESS)
readlinkat = _call(267, _INT, _PATH, _ADDRESS, _SIZE)
faccessat = _call(269, _INT, _PATH, _INT)
faccessat2 = _call(439, _INT, _PATH, _INT, _INT)
mkdirat = _call(258, _INT, _PATH, _INT)
mknodat = _call(259, _INT, _PATH, _INT, _INT)
unlinkat = _call(263, _INT, _PATH, _INT)
renameat2 = _call(316, _INT, _PATH, _INT, _PATH, _INT)
linkat = _call(265, _INT, _PATH, _INT, _PATH, _INT)
symlinkat = _call(266, _PATH, _INT, _PATH)
fchmodat = _call(268, _INT, _PATH, _INT)
fchmodat2 = _call(452, _INT, _PATH, _INT, _INT)
fchownat = _call(260, _INT, _PATH, _INT, _INT, _INT)
utimensat = _call(280, _INT, _PATH, _ADDRESS, _INT)
fstatfs = _call(138, _INT, _ADDRESS)
getdents64 = _call(217, _INT, _ADDRESS, _SIZE)
memfd_create = _call(319, _PATH, _INT)
fallocate = _call(285, _INT, _INT, _INT, _INT)
tee = _call(276, _INT, _INT, _SIZE, _INT)
getxattr = _call(191, _PATH, _PATH, _ADDRESS, _SIZE)
lgetxattr = _call(192, _PATH, _PATH, _ADDRESS, _SIZE)
fgetxattr = _call(193, _INT, _PATH, _ADDRESS, _SIZE)
listxattr = _call(194, _PATH, _ADDRESS, _SIZE)
llistxattr = _call(195, _PATH, _ADDRESS, _SIZE)
flistxattr = _call(196, _INT, _ADDRESS, _SIZE)
setxattr = _call(188, _PATH, _PATH, _PATH, _SIZE, _INT)
lsetxattr = _call(189, _PATH, _PATH, _PATH, _SIZE, _INT)
fsetxattr = _call(190, _INT, _PATH, _PATH, _SIZE, _INT)
removexattr = _call(197, _PATH, _PATH)
lremovexattr = _call(198, _PATH, _PATH)
fremovexattr = _call(199, _INT, _PATH)


class OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class Buffer:
    """Memory that host calls fill: `address` for them, `view` for us."""

    def __init__(self, size: int) -> None:
        self._memory = bytearray(size)
        self._held = (ctypes.c_char * size).from_buffer(self._memory)
        self.size = size
        self.view = memoryview(self._memory)
        self.address = ctypes.addressof(self._held)

    def take(self, size: int) -> bytes:
        """A copy of the first bytes."""
        return bytes(self.view[:size])
