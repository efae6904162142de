"""An allocator of guest memory: what the Heap*, Local* and Global* functions and our own results for guests live in.

The account of blocks is ours, not the guest's: a guest that writes beyond a block spoils its own data and nothing here.
Blocks are cut from chunks by size classes, of which there are four to a power of two; large ones are mappings.
"""

import threading
from collections.abc import Callable
from typing import Final

ALIGNMENT: Final = 16
"""MEMORY_ALLOCATION_ALIGNMENT on 64-bit Windows (Microsoft: HeapAlloc)."""
CHUNK: Final = 0x10_0000
LARGE: Final = 0x4_0000
"""From this size on a block is a mapping of its own, which goes back to the host when freed."""
PAGE: Final = 4096
LONGEST: Final = 0x7FFF_FFFF_0000


def class_of(size: int) -> int:
    """The size of the block that holds `size` bytes."""
    if size <= 128:
        return max(ALIGNMENT, (size + 15) & ~15)
    if size >= LARGE:
        return (size + PAGE - 1) & ~(PAGE - 1)
    step = 1 << ((size - 1).bit_length() - 3)
    return (size + step - 1) & ~(step - 1)


class Blocks:
    """The blocks of one heap. Raises MemoryError when the host has no more, KeyError for what is no block."""

    def __init__(
        self, map: Callable[[int], int], unmap: Callable[[int, int], None], clear: Callable[[int, int], None]
    ) -> None:
        """`map` gives fresh zeroed memory (OSError for none), `unmap` takes it back, `clear` zeroes."""
        self._map, self._unmap, self._clear = map, unmap, clear
        self.lock = threading.RLock()
        self.sizes: dict[int, int] = {}
        """What was asked for, by address."""
        self._free: dict[int, list[int]] = {}
        self._chunks: list[int] = []
        self._next = self._end = 0

    def allocate(self, size: int, *, zero: bool = False) -> int:
        """A block of at least one byte; `zero`: its `size` bytes are zero."""
        if size > LONGEST:
            raise MemoryError
        with self.lock:
            block = class_of(size)
            free = self._free.get(block)
            if free:
                address = free.pop()
                if zero:
                    self._clear(address, size)
            elif block >= LARGE:
                address = self._mapped(block)
            else:
                address = self._cut(block)
            self.sizes[address] = size
            return address

    def _mapped(self, size: int) -> int:
        try:
            return self._map(size)
        except OSError:
            raise MemoryError from None

    def _cut(self, block: int) -> int:
        if self._next + block > self._end:
            self._next = self._mapped(CHUNK)
            self._end = self._next + CHUNK
            self._chunks.append(self._next)
        self._next += block
        return self._next - block

    def release(self, address: int) -> None:
        """Give a block back."""
        with self.lock:
            block = class_of(self.sizes.pop(address))
            if block >= LARGE:
                self._unmap(address, block)
            else:
                self._free.setdefault(block, []).append(address)

    def resize(self, address: int, size: int) -> bool:
        """Change a block's size in place; whether that is possible."""
        with self.lock:
            if size > LONGEST or class_of(self.sizes[address]) != class_of(size):
                return False
            self.sizes[address] = size
            return True

    def destroy(self) -> None:
        """Give back everything."""
        with self.lock:
            for address, size in self.sizes.items():
                if class_of(size) >= LARGE:
                    self._unmap(address, class_of(size))
            for chunk in self._chunks:
                self._unmap(chunk, CHUNK)
            self.sizes.clear()
            self._free.clear()
            self._chunks.clear()
            self._next = self._end = 0
