"""The address space of an emulated program: one reservation of the host's address space, with rights by page.

A guest address is an offset into it. So host and guest never share an address, our process reads and writes guest
memory without a call, and whatever the guest computes stays inside. No page of it is ever executable for the host.
"""

import bisect
import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any, Final

PAGE: Final = 4096
SPACE: Final = 1 << 42
"""Bytes of address space. Windows gives a program 2**47; everything that a program is given here lies below 2**42."""
LOWEST: Final = 0x10000
"""The lowest address of a mapping: Windows gives no program the first 64 KiB (Microsoft: VirtualAlloc)."""
GRANULARITY: Final = 0x10000
DEFAULT_START: Final = 0x1_0000_0000
NO_ACCESS: Final = 0
READ, WRITE, EXECUTE = mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC
_MAP_FIXED: Final = 0x10
_MAP_NORESERVE: Final = 0x4000
_LIMIT: Final = SPACE - GRANULARITY

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_u16, _u32, _u64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")


def _host_map(address: int | None, size: int, protection: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    result: int | None = _libc.mmap(address, size, protection, flags, fd, offset)
    if result is None or result == ctypes.c_void_p(-1).value:
        found = ctypes.get_errno()
        raise OSError(found, os.strerror(found))
    return result


class AddressSpace:
    """Memory of one program. `violation(address, write)` makes the exception for an address that may not be used."""

    def __init__(self, violation: Callable[[int, bool], Exception]) -> None:
        self._violation = violation
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self.base = _host_map(None, SPACE, NO_ACCESS, flags)
        self.rights_address = _host_map(None, SPACE // PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flags)
        self._view: Any = memoryview((ctypes.c_char * SPACE).from_address(self.base)).cast("B")
        self._rights: Any = memoryview((ctypes.c_char * (SPACE // PAGE)).from_address(self.rights_address)).cast("B")
        self._starts: list[int] = []
        self._ends: dict[int, int] = {}
        self.code_changed: Callable[[int, int], None] = lambda start, end: None
        """Told before pages of code lose that right or are stored to by the host: whoever keeps translations."""
        self.shared = False
        """Whether some of it is shared with other processes and writable: they see the order of stores."""
        self.rights_reduced: Callable[[], None] = lambda: None
        """Told when a page lost a right."""

    def close(self) -> None:
        """Give the reservations back. Nothing may use them any more."""
        if self.base:
            self._view.release()
            self._rights.release()
            _libc.munmap(self.base, SPACE)
            _libc.munmap(self.rights_address, SPACE // PAGE)
            self.base = 0

    # Access ----------------------------------------------------------------------------------------------------------

    def _check(self, address: int, size: int, right: int) -> None:
        """Raises what `violation` makes, with the first address that lacks the right."""
        first, last = address >> 12, (address + max(size, 1) - 1) >> 12
        if not 0 <= address < SPACE or last >= SPACE // PAGE:
            raise self._violation(address, right == WRITE)
        rights = self._rights
        if rights[first] & right and (first == last or all(have & right for have in rights[first + 1 : last + 1])):
            return
        bad = next(page for page in range(first, last + 1) if not rights[page] & right)
        raise self._violation(max(address, bad * PAGE), right == WRITE)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes."""
        if size <= 0:
            return b""
        self._check(address, size, READ)
        return bytes(self._view[address : address + size])

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store bytes."""
        data = bytes(data)
        if data:
            self._check(address, len(data), WRITE)
            self._view[address : address + len(data)] = data

    def host_view(self, address: int, size: int, *, write: bool) -> memoryview:
        """Guest memory itself, for the host to read a file into or write one from; must not be kept."""
        self._check(address, size, WRITE if write else READ)
        view: memoryview = self._view[address : address + size]
        return view

    def u16(self, address: int) -> int:
        """An unsigned 16-bit word."""
        self._check(address, 2, READ)
        value: int = _u16.unpack_from(self._view, address)[0]
        return value

    def u32(self, address: int) -> int:
        """An unsigned 32-bit word."""
        self._check(address, 4, READ)
        value: int = _u32.unpack_from(self._view, address)[0]
        return value

    def u64(self, address: int) -> int:
        """An unsigned 64-bit word."""
        self._check(address, 8, READ)
        value: int = _u64.unpack_from(self._view, address)[0]
        return value

    def set_u16(self, address: int, value: int) -> None:
        """Store the low 16 bits."""
        self._check(address, 2, WRITE)
        _u16.pack_into(self._view, address, value & 0xFFFF)

    def set_u32(self, address: int, value: int) -> None:
        """Store the low 32 bits."""
        self._check(address, 4, WRITE)
        _u32.pack_into(self._view, address, value & 0xFFFFFFFF)

    def set_u64(self, address: int, value: int) -> None:
        """Store the low 64 bits."""
        self._check(address, 8, WRITE)
        _u64.pack_into(self._view, address, value & 0xFFFFFFFFFFFFFFFF)

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> int:
        """Store an unsigned number of 4 or 8 bytes if `expected` is there; give what was there.

        One step, since guest threads take turns and none has its turn meanwhile.
        """
        old = self.u32(address) if size == 4 else self.u64(address)
        self._check(address, size, WRITE)
        if old == expected:
            (self.set_u32 if size == 4 else self.set_u64)(address, new)
        return old

    def string(self, address: int) -> bytes:
        """The bytes up to the first zero byte."""
        parts = []
        while True:
            room = PAGE - (address & (PAGE - 1))
            piece = self.read(address, room)
            end = piece.find(0)
            if end >= 0:
                parts.append(piece[:end])
                return b"".join(parts)
            parts.append(piece)
            address += room

    def wide(self, address: int) -> str:
        """A UTF-16 string up to its zero; unpaired surrogates stay as they are."""
        parts = []
        if address & 1:  # a character may lie in two pages
            while unit := self.read(address, 2).replace(b"\0\0", b""):
                parts.append(unit)
                address += 2
            return b"".join(parts).decode("utf-16-le", "surrogatepass")
        while True:
            room = PAGE - (address & (PAGE - 1))
            piece = self.read(address, room)
            end = piece.find(b"\0\0")
            while end >= 0 and end & 1:
                end = piece.find(b"\0\0", end + 1)
            parts.append(piece if end < 0 else piece[:end])
            if end >= 0:
                return b"".join(parts).decode("utf-16-le", "surrogatepass")
            address += room

    # Mappings --------------------------------------------------------------------------------------------------------

    def map(self, address: int, size: int, protection: int) -> int:
        """Fresh zeroed pages of Linux's PROT_* rights, at `address` or, for 0, anywhere aligned to 64 KiB.

        Returns the address. Raises OSError(EEXIST) where something is, OSError(ENOMEM).
        """
        address, size = self._place(address, size)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
        _host_map(self.base + address, size, READ | WRITE, flags)
        self._enter(address, size, protection)
        return address

    def map_file(self, address: int, size: int, protection: int, fd: int, offset: int, *, private: bool) -> int:
        """The same with a file's contents; a shared mapping's stores reach the file.

        Pages behind the file's end stay inaccessible. A private mapping is a copy: a file that becomes shorter
        cannot take pages away from under us.
        """
        file_size = os.fstat(fd).st_size
        backed = max(0, min(size, file_size - offset))
        if private:
            address = self.map(address, size, protection)
            self._read_file(address, backed, fd, offset)
            return address
        address, size = self._place(address, size)
        whole = -(-backed // PAGE) * PAGE
        if whole:
            flags = mmap.MAP_SHARED | _MAP_FIXED
            _host_map(self.base + address, whole, protection & (READ | WRITE), flags, fd, offset)
            if protection & WRITE and not self.shared:
                self.shared = True
                self.code_changed(0, SPACE)
        self._enter(address, size, 0)
        self._set_rights(address, whole, protection)
        return address

    def receive(self, fd: int, address: int, size: int, offset: int | None) -> int:
        """read(2) or, with an offset, pread(2) straight to the guest: how many bytes. Raises OSError too."""
        if not size:
            return 0
        self._check(address, size, WRITE)
        view = self._view[address : address + size]
        return os.readv(fd, [view]) if offset is None else os.preadv(fd, [view], offset)

    def load_file(self, address: int, size: int, fd: int, offset: int) -> int:
        """Put a file's bytes into writable fresh pages that are mapped already; how many there were."""
        self._check(address, size, WRITE)
        return self._read_file(address, size, fd, offset)

    def _read_file(self, address: int, size: int, fd: int, offset: int) -> int:
        view, done = self._view[address : address + size], 0
        while done < size:
            count = os.preadv(fd, [view[done:]], offset + done)
            if count <= 0:
                break
            done += count
        return done

    def protect(self, address: int, size: int, protection: int) -> None:
        """Change rights; code may have been stored there before. Raises OSError."""
        start, end = address & -PAGE, -(-(address + size) // PAGE) * PAGE
        if not 0 <= start <= end <= SPACE:
            raise OSError(errno.ENOMEM, "no such addresses")
        have = bytes(self._rights[start // PAGE : end // PAGE])
        if not self._whole(start, end):
            raise OSError(errno.ENOMEM, "nothing is mapped there")
        if any(right & EXECUTE for right in set(have)):
            self.code_changed(start, end)
        self._set_rights(start, end - start, protection)
        if any(right & ~protection for right in set(have)):
            self.rights_reduced()

    def unmap(self, address: int, size: int) -> None:
        """Give pages back."""
        start, end = address & -PAGE, -(-(address + size) // PAGE) * PAGE
        if not 0 <= start < end <= SPACE:
            raise OSError(errno.EINVAL, "no such addresses")
        if any(right & EXECUTE for right in set(bytes(self._rights[start // PAGE : end // PAGE]))):
            self.code_changed(start, end)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
        _host_map(self.base + start, end - start, NO_ACCESS, flags)
        self._rights[start // PAGE : end // PAGE] = bytes((end - start) // PAGE)
        self._leave(start, end)
        self.rights_reduced()

    def code(self, address: int, size: int) -> bytes:
        """Bytes of pages that may be executed: see `executable`."""
        return bytes(self._view[address : address + size])

    def rights_of(self, page: int) -> int:
        """What is in the map of rights for a page, by its number."""
        rights: int = self._rights[page]
        return rights

    def executable(self, address: int) -> bool:
        """Whether the guest may run what is there."""
        return 0 <= address < SPACE and bool(self._rights[address >> 12] & EXECUTE)

    def _place(self, address: int, size: int) -> tuple[int, int]:
        """Where a mapping goes, and its size in whole pages; raises OSError."""
        size = -(-size // PAGE) * PAGE
        if size <= 0:
            raise OSError(errno.EINVAL, "nothing to map")
        if address:
            address &= -PAGE
            if address < LOWEST or address + size > _LIMIT:
                raise OSError(errno.ENOMEM, "outside of the address space")
            if self._taken(address, address + size):
                raise OSError(errno.EEXIST, "something is mapped there")
            return address, size
        for start in (DEFAULT_START, LOWEST):
            found = self._free(start, size)
            if found:
                return found, size
        raise OSError(errno.ENOMEM, "the address space is full")

    def _taken(self, start: int, end: int) -> bool:
        index = bisect.bisect_left(self._starts, end) - 1
        return index >= 0 and self._ends[self._starts[index]] > start

    def _whole(self, start: int, end: int) -> bool:
        """Whether mappings cover it all."""
        index = bisect.bisect_right(self._starts, start) - 1
        while start < end:
            if not 0 <= index < len(self._starts) or not self._starts[index] <= start < self._ends[self._starts[index]]:
                return False
            start = self._ends[self._starts[index]]
            index += 1
        return True

    def _free(self, start: int, size: int) -> int:
        """The first gap of that size from `start` on; 0 for none."""
        index = max(bisect.bisect_right(self._starts, start) - 1, 0)
        candidate = start
        for position in range(index, len(self._starts)):
            other = self._starts[position]
            if candidate + size <= other:
                return candidate
            candidate = max(candidate, -(-self._ends[other] // GRANULARITY) * GRANULARITY)
        return candidate if candidate + size <= _LIMIT else 0

    def _enter(self, address: int, size: int, protection: int) -> None:
        index = bisect.bisect_left(self._starts, address)
        self._starts.insert(index, address)
        self._ends[address] = address + size
        if protection:  # a reservation of a terabyte must not cost a page of the map for each of its own
            self._set_rights(address, size, protection)

    def _leave(self, start: int, end: int) -> None:
        """Take [start, end) out of the list of mappings; what is left of one on either side stays."""
        index = max(bisect.bisect_right(self._starts, start) - 1, 0)
        while index < len(self._starts) and self._starts[index] < end:
            low = self._starts[index]
            high = self._ends[low]
            if high <= start:
                index += 1
                continue
            del self._starts[index], self._ends[low]
            for piece_low, piece_high in ((low, start), (end, high)):
                if piece_low < piece_high:
                    position = bisect.bisect_left(self._starts, piece_low)
                    self._starts.insert(position, piece_low)
                    self._ends[piece_low] = piece_high
                    if position <= index:
                        index += 1

    def _set_rights(self, address: int, size: int, protection: int) -> None:
        pages = size // PAGE
        self._rights[address // PAGE : address // PAGE + pages] = bytes((protection & 7,)) * pages
