"""The physical memory of a machine: a memory file, mapped here, and shown to the guest by whoever runs it."""

import ctypes
import mmap
import os

from virtus.errors import HostLacks

PAGE = 4096
FRAME_SHIFT = 12


class GuestMemory:
    """`size` bytes of zeroed physical memory. Bounds are checked by the views themselves: IndexError beyond the end.

    `bytes` and `words` (64-bit) are writable views of the same memory; the host gives it page by page as it is touched.
    `devices` is a view of what lies behind it in the same file: memory of devices that a guest may see, too. Physical
    addresses may have a `hole` (its start and end) for devices: what does not fit below it has its addresses behind it,
    and `place` says where in the views an address is.
    """

    def __init__(
        self, size: int, name: str = "guest", *, devices: int = 0, hole: tuple[int, int] | None = None
    ) -> None:
        if size <= 0 or size % PAGE or devices < 0 or devices % PAGE:
            raise ValueError("guest memory is a positive number of pages")
        self.size = size
        self.low_size, self._high_start = hole if hole is not None and hole[0] < size else (size, size)
        self.fd = os.memfd_create(f"virtus-{name}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, size + devices)
            self._mapping = mmap.mmap(self.fd, size + devices)
        except OSError as error:
            os.close(self.fd)
            raise HostLacks(
                "making guest memory", f"{size >> 20} MiB: {error.strerror}", "give --memory less"
            ) from error
        with memoryview(self._mapping) as whole:
            self.bytes, self.devices = whole[:size], whole[size:]
        self.words = self.bytes.cast("Q")
        pin = ctypes.c_char.from_buffer(self._mapping)
        self.address = ctypes.addressof(pin)
        del pin

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Where there is memory: physical addresses and sizes."""
        high = [(self._high_start, self.size - self.low_size)] if self.low_size < self.size else []
        return [(0, self.low_size), *high]

    def place(self, address: int, size: int) -> int:
        """The place of `size` bytes at a physical address; raises IndexError where there is no memory for them."""
        if address >= 0 and size >= 0 and address + size <= self.low_size:
            return address
        place = address - self._high_start + self.low_size
        if size < 0 or place < self.low_size or place + size > self.size:
            raise IndexError(f"{size} bytes at {address:#x}, where there is no memory")
        return place

    @property
    def frames(self) -> int:
        """How many page frames there are."""
        return self.size >> FRAME_SHIFT

    def frame(self, number: int) -> memoryview:
        """The bytes of one page frame; raises IndexError."""
        if not 0 <= number < self.frames:
            raise IndexError(f"frame {number:#x} of {self.frames:#x}")
        return self.bytes[number << FRAME_SHIFT : (number + 1) << FRAME_SHIFT]

    def entries(self, number: int) -> memoryview:
        """The 512 words of one page frame, for example of a page table; raises IndexError."""
        if not 0 <= number < self.frames:
            raise IndexError(f"frame {number:#x} of {self.frames:#x}")
        return self.words[number << 9 : (number + 1) << 9]

    def close(self) -> None:
        """Give the memory back. May be called twice; nobody may use a view of it afterwards."""
        if self.fd < 0:
            return
        self.words.release()
        self.bytes.release()
        self.devices.release()
        os.close(self.fd)
        self.fd = -1
        try:
            self._mapping.close()
        except BufferError:
            pass  # a frame's view is still held somewhere; the mapping goes with it
