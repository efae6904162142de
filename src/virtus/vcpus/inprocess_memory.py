"""The address space of a Windows program in our process: what it may use is what the host's kernel lets it use.

Every access on the guest's behalf is guarded: an address that may not be used raises what `violation` makes, and harms
nobody. (An access to memory of ours harms the guest's own process, which is boxed.)
"""

import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from virtus.vcpus import inprocess_code as code

PAGE: Final = 4096
GRANULARITY: Final = 0x10000
"""Windows' allocation granularity (Microsoft: SYSTEM_INFO)."""
FIRST: Final = 0x2_0000_0000
END: Final = 0x7FFF_0000_0000
"""Where mappings without an address of their own go: above images' preferred bases, below Windows' user space's end."""
MAP_FIXED: Final = 0x10
MAP_FIXED_NOREPLACE: Final = 0x100000  # include/uapi/asm-generic/mman-common.h
MAP_NORESERVE: Final = 0x4000
WORD_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF

_word = ctypes.c_uint64
FUNCTIONS: Final = [ctypes.PYFUNCTYPE(_word, *[_word] * count) for count in range(4)]
"""Types of functions of words, by how many they take."""
COPY_IN: Final = ctypes.PYFUNCTYPE(_word, _word, ctypes.c_char_p, _word)
COPY_OUT: Final = ctypes.PYFUNCTYPE(_word, ctypes.c_void_p, _word, _word)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.read.restype = _libc.pread.restype = ctypes.c_ssize_t
_libc.read.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
_libc.pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def host_map(address: int, size: int, protection: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    """mmap(2); raises OSError."""
    result: int | None = _libc.mmap(address or None, size, protection, flags, fd, offset)
    if result is None or result == WORD_MASK:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class HostMemory:
    """See `Memory` of the personality win32. `base` is where the guarded code of `inprocess_code` has been put."""

    def __init__(self, base: int, violation: Callable[[int, bool], Exception]) -> None:
        self._violation = violation
        self._lock = threading.Lock()
        self._next = FIRST

        def function(name: str, arguments: int) -> Callable[..., int]:
            made: Callable[..., int] = FUNCTIONS[arguments](base + code.OFFSETS[name])
            return made

        self._copy_in = COPY_IN(base + code.OFFSETS["copy"])
        self._copy_out = COPY_OUT(base + code.OFFSETS["copy"])
        self._load8, self._load4, self._load2 = function("load8", 1), function("load4", 1), function("load2", 1)
        self._store8, self._store4, self._store2 = function("store8", 2), function("store4", 2), function("store2", 2)
        self._length1, self._length2 = function("length1", 1), function("length2", 1)
        self._exchange = {8: function("exchange8", 3), 4: function("exchange4", 3)}

    # Access ----------------------------------------------------------------------------------------------------------

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes."""
        if size <= 0:
            return b""
        if not 0 <= address <= END or size > END:
            raise self._violation(address, False)
        buffer = ctypes.create_string_buffer(size)
        if self._copy_out(buffer, address, size):
            raise self._violation(self._bad(address, size), False)
        return buffer.raw

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store bytes."""
        data = bytes(data)
        if not 0 <= address <= END or self._copy_in(address, data, len(data)):
            raise self._violation(address, True)

    def _bad(self, address: int, size: int) -> int:
        """The first address of a range that cannot be read."""
        probe = ctypes.create_string_buffer(1)
        place = address
        while place < address + size and not self._copy_out(probe, place, 1):
            place = (place & -PAGE) + PAGE
        return place

    def u16(self, address: int) -> int:
        """An unsigned 16-bit word."""
        value = self._load2(address & WORD_MASK)
        if value == code.REFUSED:
            raise self._violation(address, False)
        return value

    def u32(self, address: int) -> int:
        """An unsigned 32-bit word."""
        value = self._load4(address & WORD_MASK)
        if value == code.REFUSED:
            raise self._violation(address, False)
        return value

    def u64(self, address: int) -> int:
        """An unsigned 64-bit word."""
        value = self._load8(address & WORD_MASK)
        if value == code.REFUSED:
            return int.from_bytes(self.read(address, 8), "little")  # it may be just what is there
        return value

    def set_u16(self, address: int, value: int) -> None:
        """Store the low 16 bits."""
        if self._store2(address & WORD_MASK, value & 0xFFFF):
            raise self._violation(address, True)

    def set_u32(self, address: int, value: int) -> None:
        """Store the low 32 bits."""
        if self._store4(address & WORD_MASK, value & 0xFFFF_FFFF):
            raise self._violation(address, True)

    def set_u64(self, address: int, value: int) -> None:
        """Store the low 64 bits."""
        if self._store8(address & WORD_MASK, value & WORD_MASK):
            raise self._violation(address, True)

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> int:
        """Store an aligned unsigned number of 4 or 8 bytes if `expected` is there; give what was there."""
        found = self._exchange[size](address & WORD_MASK, expected & WORD_MASK, new & WORD_MASK)
        if found == code.REFUSED:
            raise self._violation(address, True)
        return found

    def string(self, address: int) -> bytes:
        """The bytes up to the first zero byte."""
        return ctypes.string_at(address, self._length(self._length1, 1, address))

    def wide(self, address: int) -> str:
        """A UTF-16 string up to its zero; unpaired surrogates stay as they are."""
        data = ctypes.string_at(address, 2 * self._length(self._length2, 2, address))
        return data.decode("utf-16-le", "surrogatepass")

    def _length(self, count: Callable[[int], int], unit: int, address: int) -> int:
        """Units before the first that is 0."""
        if not 0 <= address <= END:
            raise self._violation(address, False)
        length = count(address)
        if length == code.REFUSED:  # find out where: pages are readable or not as a whole
            while self._copy_out(ctypes.create_string_buffer(unit), address, unit) == 0:
                address = (address & -PAGE) + PAGE
            raise self._violation(self._bad(address, unit), False)
        return length

    def host_view(self, address: int, size: int, *, write: bool) -> memoryview:
        """Guest memory itself, for the host to read a file into or write one from; must not be kept."""
        for place in range(address & -PAGE, address + size, PAGE):
            word = max(place, address) & -4
            value = self.u32(word)
            if write:
                self.compare_exchange(word, 4, value, value)  # a store that changes nothing, whoever else stores
        view: Any = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
        whole: memoryview = view
        return whole

    # Mappings --------------------------------------------------------------------------------------------------------

    def map(self, address: int, size: int, protection: int) -> int:
        """Fresh zeroed pages of Linux's PROT_* rights, at `address` or, for 0, anywhere aligned to 64 KiB.

        Returns the address. Raises OSError(EEXIST) where something is, OSError(ENOMEM).
        """
        return self._map(address, size, protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)

    def map_file(self, address: int, size: int, protection: int, fd: int, offset: int, *, private: bool) -> int:
        """The same with a file's contents; a shared mapping's stores reach the file."""
        return self._map(address, size, protection, mmap.MAP_PRIVATE if private else mmap.MAP_SHARED, fd, offset)

    def _map(self, address: int, size: int, protection: int, flags: int, fd: int, offset: int) -> int:
        size = -(-size // PAGE) * PAGE
        if size <= 0:
            raise OSError(errno.EINVAL, "nothing to map")
        flags |= MAP_FIXED_NOREPLACE
        if address:
            if not GRANULARITY <= address <= END - size:
                raise OSError(errno.ENOMEM, "outside of the address space")
            return host_map(address & -PAGE, size, protection, flags, fd, offset)
        while True:
            with self._lock:
                place = self._next
                self._next += -(-size // GRANULARITY) * GRANULARITY
            if place + size > END:
                raise OSError(errno.ENOMEM, "the address space is full")
            try:
                return host_map(place, size, protection, flags, fd, offset)
            except FileExistsError:
                continue  # something of ours, or of the guest's at an address of its choice

    def receive(self, fd: int, address: int, size: int, offset: int | None) -> int:
        """read(2) or, with an offset, pread(2) straight to the guest: how many bytes. Raises OSError too."""
        if not 0 <= address <= END:
            raise self._violation(address, True)
        while True:
            count: int = _libc.read(fd, address, size) if offset is None else _libc.pread(fd, address, size, offset)
            if count >= 0:
                return count
            number = ctypes.get_errno()
            if number == errno.EFAULT:
                raise self._violation(address, True)
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number))

    def load_file(self, address: int, size: int, fd: int, offset: int) -> int:
        """Put a file's bytes into writable fresh pages that are mapped already; how many there were.

        Where file and memory have the same pages, they become the file's own until they are stored to, as Windows has
        it: most of a library is never used. (A file that becomes shorter meanwhile harms the guest's process alone.)
        """
        size = max(0, min(size, os.fstat(fd).st_size - offset))
        whole = size & -PAGE if not (address | offset) & (PAGE - 1) else 0
        if whole:
            flags = mmap.MAP_PRIVATE | MAP_FIXED
            host_map(address, whole, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, offset)
        done = whole
        while done < size:
            room = (ctypes.c_char * (size - done)).from_address(address + done)
            count = os.preadv(fd, [room], offset + done)
            if count <= 0:
                break
            done += count
        return done

    def protect(self, address: int, size: int, protection: int) -> None:
        """Change rights; code may have been stored there before. Raises OSError."""
        start, end = address & -PAGE, -(-(address + size) // PAGE) * PAGE
        if _libc.mprotect(start, end - start, protection):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def unmap(self, address: int, size: int) -> None:
        """Give pages back."""
        start, end = address & -PAGE, -(-(address + size) // PAGE) * PAGE
        if _libc.munmap(start, end - start):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
