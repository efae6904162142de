"""Guest memory for the interpreter, as long as it executes single instructions of a thread that is stopped."""

import errno
from typing import TYPE_CHECKING

from virtus.vcpus.interpreter.memory import MemoryFault
from virtus.vcpus.translator.layout import PAGE

if TYPE_CHECKING:
    from virtus.vcpus.translator.context import TranslatedContext


class RemoteMemory:
    """The memory of a stopped context, access by access. See `virtus.vcpus.interpreter.memory`."""

    def __init__(self, context: "TranslatedContext") -> None:
        self._context = context

    def load(self, address: int, size: int) -> int:
        """`size` bytes, little-endian; raises MemoryFault."""
        try:
            return int.from_bytes(self._context.read(address, size), "little")
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            raise self._fault(address, size) from error

    def store(self, address: int, value: int, size: int) -> None:
        """The low `size` bytes of `value`; raises MemoryFault."""
        if (address ^ (address + size - 1)) & -PAGE and not self._context.read_partial(address + size - 1, 1):
            raise self._fault(address, size)  # before anything is stored on the first page
        try:
            self._context.write(address, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            raise self._fault(address, size) from error

    def _fault(self, address: int, size: int) -> MemoryFault:
        """What an access is refused for: its first byte, or the second page that it reaches into."""
        second = address + size - 1 & -PAGE
        if second > address and self._context.read_partial(address, 1):
            return MemoryFault(second)
        return MemoryFault(address)

    def compare_exchange(self, address: int, expected: int, value: int, size: int) -> bool:
        """Store if `expected` is there; not in one with regard to other threads that run."""
        if self.load(address, size) != expected:
            return False
        self.store(address, value, size)
        return True

    def fetch(self, address: int) -> bytes:
        """Code at `address`."""
        return self._context.space.fetch(self._context.ident, address, 8)
