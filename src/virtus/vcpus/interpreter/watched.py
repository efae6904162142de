"""Memory that a debugger watches: accesses happen as ever, and it is remembered that there was one."""

from virtus.records import dataclass
from virtus.vcpus.interpreter.pages import PageMemory


@dataclass(frozen=True, slots=True)
class Watchpoint:
    """Bytes to watch. `kind` is GDB's word for the accesses: `watch` for stores, `rwatch` for loads, `awatch` both."""

    kind: str
    address: int
    size: int


class WatchedMemory:
    """See `virtus.vcpus.interpreter.memory.Memory`; `hit` is the first watched access since it was last set to None."""

    def __init__(self, memory: PageMemory, watchpoints: frozenset[Watchpoint]) -> None:
        self.memory = memory
        self.hit: tuple[int, str] | None = None
        self._watchpoints = watchpoints
        self.fetch = memory.fetch

    def load(self, address: int, size: int) -> int:
        """See Memory."""
        value = self.memory.load(address, size)
        self._look(address, size, "rwatch")
        return value

    def store(self, address: int, value: int, size: int) -> None:
        """See Memory."""
        self.memory.store(address, value, size)
        self._look(address, size, "watch")

    def compare_exchange(self, address: int, expected: int, value: int, size: int) -> bool:
        """See Memory."""
        self._look(address, size, "rwatch")
        if not self.memory.compare_exchange(address, expected, value, size):
            return False
        self._look(address, size, "watch")
        return True

    def _look(self, address: int, size: int, kind: str) -> None:
        for point in self._watchpoints:
            if (
                point.kind in (kind, "awatch")
                and point.address < address + size
                and address < point.address + point.size
            ):
                self.hit = self.hit or (max(address, point.address), point.kind)
