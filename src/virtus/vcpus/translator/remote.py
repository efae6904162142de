"""Guest memory for the interpreter, as long as it executes single instructions of a thread that is stopped."""

import errno
from typing import TYPE_CHECKING

from virtus.vcpus.interpreter.memory import MemoryFault

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
            raise MemoryFault(address) from error

    def store(self, address: int, value: int, size: int) -> None:
        """The low `size` bytes of `value`; raises MemoryFault."""
        try:
            self._context.write(address, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            raise MemoryFault(address) from error

    def compare_exchange(self, address: int, expected: int, value: int, size: int) -> bool:
        """Store if `expected` is there; not in one with regard to other threads that run."""
        if self.load(address, size) != expected:
            return False
        self.store(address, value, size)
        return True

    def fetch(self, address: int) -> bytes:
        """Code at `address`."""
        return self._context.space.fetch(self._context.ident, address, 8)
