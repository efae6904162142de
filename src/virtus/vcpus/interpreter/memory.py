"""Guest memory as the interpreter sees it."""

import signal
from typing import Final, Protocol


class MemoryFault(Exception):
    """An access that guest memory does not allow. `signal` is what Linux makes of it."""

    def __init__(self, address: int, number: int = signal.SIGSEGV) -> None:
        super().__init__(f"guest address {address:#x}")
        self.address = address
        self.signal = int(number)


class Memory(Protocol):
    """Little-endian memory; each method raises MemoryFault for a bad access, with nothing done."""

    def load(self, address: int, size: int) -> int:
        """`size` bytes (1, 2, 4 or 8), unsigned."""
        ...

    def store(self, address: int, value: int, size: int) -> None:
        """The low `size` bytes of `value`."""
        ...

    def compare_exchange(self, address: int, expected: int, value: int, size: int) -> bool:
        """Store `value` if `expected` is there; whether it was."""
        ...

    def fetch(self, address: int) -> bytes:
        """Code at an address: as much as an instruction can take, less where memory ends."""
        ...


class FlatMemory:
    """A plain piece of memory from `start` on."""

    FETCHED: Final = 8

    def __init__(self, start: int, data: bytearray) -> None:
        self.start, self.data = start, data

    def _at(self, address: int, size: int) -> int:
        offset = address - self.start
        if not 0 <= offset <= len(self.data) - size:
            raise MemoryFault(address)
        return offset

    def load(self, address: int, size: int) -> int:
        """See Memory."""
        offset = self._at(address, size)
        return int.from_bytes(self.data[offset : offset + size], "little")

    def store(self, address: int, value: int, size: int) -> None:
        """See Memory."""
        offset = self._at(address, size)
        self.data[offset : offset + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def compare_exchange(self, address: int, expected: int, value: int, size: int) -> bool:
        """See Memory."""
        if self.load(address, size) != expected:
            return False
        self.store(address, value, size)
        return True

    def fetch(self, address: int) -> bytes:
        """See Memory."""
        offset = address - self.start
        return bytes(self.data[offset : offset + self.FETCHED]) if 0 <= offset < len(self.data) else b""
