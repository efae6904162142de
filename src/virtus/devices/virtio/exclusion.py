"""A device's view of memory: which frames it may reach, as AMD's Device Exclusion Vector has it (APM volume 2, 15.24).

Every device reads and writes guest memory through a view of its own; what is not allowed fails, is counted, and does
not touch memory.
"""

from virtus.memory.guest_memory import FRAME_SHIFT, GuestMemory


class Excluded(Exception):
    """A device was told to use memory that it may not."""


class DeviceMemory:
    """One device's view. In the beginning it may reach all memory."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._bytes = memory.bytes
        self._excluded = bytearray(memory.frames)
        self._restricted = False
        self.violations = 0

    def exclude(self, first: int, count: int = 1) -> None:
        """These frames are not the device's; frames beyond the memory never are."""
        self._set(first, count, 1)

    def admit(self, first: int, count: int = 1) -> None:
        """These frames are the device's again."""
        self._set(first, count, 0)

    def _set(self, first: int, count: int, excluded: int) -> None:
        end = min(first + count, len(self._excluded))
        for frame in range(max(first, 0), end):
            self._excluded[frame] = excluded
        self._restricted = any(self._excluded)

    def view(self, address: int, size: int) -> memoryview:
        """`size` bytes of memory at a guest physical address; raises Excluded."""
        if size < 0 or address < 0 or address + size > self._memory.size:
            self.violations += 1
            raise Excluded(f"{size} bytes at {address:#x}, beyond memory")
        if self._restricted and size:
            first, last = address >> FRAME_SHIFT, address + size - 1 >> FRAME_SHIFT
            if any(self._excluded[first : last + 1]):
                self.violations += 1
                raise Excluded(f"{size} bytes at {address:#x}, which are not the device's")
        return self._bytes[address : address + size]
