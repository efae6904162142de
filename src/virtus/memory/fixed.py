"""Memory of this process at an address of one's own choice, as code needs it that has addresses in it."""

import ctypes
import errno
import mmap
import os
from typing import Final

from virtus.errors import MachineBroken

_MAP_FIXED_NOREPLACE: Final = 0x100000  # include/uapi/asm-generic/mman-common.h
_MAP_NORESERVE: Final = 0x4000
_FAILED: Final = 2**64 - 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_uint64
_libc.mmap.argtypes = [ctypes.c_uint64, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_uint64, ctypes.c_size_t]


class FixedMemory:
    """`size` bytes at `address`, a multiple of the page size: private, zeroed and writable, or shared with a file.

    Raises MachineBroken where something is already, such as another machine's memory.
    """

    def __init__(self, address: int, size: int, *, descriptor: int = -1, executable: bool = False) -> None:
        """With a descriptor it is not writable here, and executable if asked for."""
        if descriptor >= 0:
            protection, flags = mmap.PROT_READ | (mmap.PROT_EXEC if executable else 0), mmap.MAP_SHARED
        else:
            protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        found = _libc.mmap(address, size, protection, flags | _MAP_FIXED_NOREPLACE, descriptor, 0)
        if found != address:
            number = ctypes.get_errno() if found == _FAILED else errno.EEXIST
            if found != _FAILED:  # a kernel that takes the address for a hint only
                _libc.munmap(found, size)
            what = "there is something already" if number == errno.EEXIST else os.strerror(number)
            remedy = "run one such machine at a time in a process" if number == errno.EEXIST else ""
            raise MachineBroken(f"mapping memory at {address:#x}", what, remedy)
        self.address, self.size = address, size
        self.bytes: memoryview = memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")
        """Its contents; must not be used after `close`."""

    def close(self) -> None:
        """Give it back; may be called twice."""
        if self.size:
            _libc.munmap(self.address, self.size)
            self.size = 0
