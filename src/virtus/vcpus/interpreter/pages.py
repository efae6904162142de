"""Guest memory for the interpreter: pages of another process, kept here while one of its threads is interpreted.

A page is read when it is first looked at. The first store to it tries a store in the other process, so that pages which
must not be written fault exactly; after that stores change the copy. `settle` writes back the words that have
changed, and forgets all copies: it is called before anybody else may look at that memory, or change it.
"""

from typing import Final, Literal, Protocol

from virtus.host import process_memory
from virtus.vcpus.interpreter.memory import MemoryFault
from virtus.vcpus.translator.layout import GUEST_END, PAGE

SHIFT: Final = PAGE.bit_length() - 1
WORD: Final = 8
STRIDE: Final = 256
"""Bytes compared at a time."""
FETCHED: Final = 8
"""Bytes of code that are given at a time: more than any instruction has."""
FORMATS: Final[dict[int, Literal["B", "H", "I", "Q"]]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
_MASKS: Final = tuple((1 << 8 * size) - 1 for size in range(9))
_Views = dict[int, "memoryview[int]"]


class Addresses(Protocol):
    """A set of addresses."""

    def __contains__(self, value: int, /) -> bool: ...


class StoreFault(MemoryFault):
    """It was a store that is not allowed."""


class PageMemory:
    """See the module, and `virtus.vcpus.interpreter.memory.Memory`.

    `ident` is a process whose memory it is; `executable` holds the addresses of pages that may be executed.
    """

    def __init__(self, ident: int, executable: Addresses) -> None:
        self.ident = ident
        self.executable = executable
        self._pages: dict[int, bytearray] = {}
        self._originals: dict[int, bytes] = {}  # of pages that may be stored to
        self._loads: list[_Views] = [{} for _ in range(9)]  # by size, then by page number: the page as such numbers
        self._stores: list[_Views] = [{} for _ in range(9)]

    def load(self, address: int, size: int) -> int:
        """See Memory."""
        if not address % size:
            try:
                return self._loads[size][address >> SHIFT][(address & PAGE - 1) // size]
            except KeyError:
                pass  # not looked at yet
        return int.from_bytes(self.read(address, size), "little")

    def store(self, address: int, value: int, size: int) -> None:
        """See Memory."""
        value &= _MASKS[size]
        if not address % size:
            try:
                self._stores[size][address >> SHIFT][(address & PAGE - 1) // size] = value
                return
            except KeyError:
                pass  # not stored to yet
        self.write(address, value.to_bytes(size, "little"))

    def compare_exchange(self, address: int, expected: int, value: int, size: int) -> bool:
        """See Memory. Nobody else runs meanwhile."""
        if self.load(address, size) != expected:
            return False
        self.store(address, value, size)
        return True

    def fetch(self, address: int) -> bytes:
        """See Memory. Only from pages that may be executed."""
        code = b""
        while len(code) < FETCHED:
            at = address + len(code)
            if at not in self.executable:
                break
            try:
                page = self._page(at >> SHIFT, at)
            except MemoryFault:
                break
            code += page[at & PAGE - 1 : (at & PAGE - 1) + FETCHED - len(code)]
        return code

    def read(self, address: int, size: int) -> bytes:
        """Bytes wherever they lie; raises MemoryFault at the first that cannot be read."""
        offset = address & PAGE - 1
        found = self._page(address >> SHIFT, address)[offset : offset + size]
        if len(found) < size:
            found += self.read(address + len(found), size - len(found))
        return bytes(found)

    def write(self, address: int, data: bytes) -> None:
        """Store bytes wherever they go; raises MemoryFault, with nothing stored, where any of them must not."""
        size = min(len(data), PAGE - (address & PAGE - 1))
        page = self._writable(address >> SHIFT, address)
        if size < len(data):
            self.write(address + size, data[size:])
        page[address & PAGE - 1 : (address & PAGE - 1) + size] = data[:size]

    def settle(self) -> None:
        """Write back what has changed and forget everything; raises OSError when the process is gone."""
        if not self._pages:
            return
        changed = [
            (number << SHIFT, self._pages[number], original)
            for number, original in self._originals.items()
            if self._pages[number] != original
        ]
        self._forget()
        for address, page, original in changed:
            for start, end in _differences(page, original):
                process_memory.write(self.ident, address + start, page[start:end])

    def _forget(self) -> None:
        self._originals.clear()
        for views in (*self._loads, *self._stores):
            views.clear()
        self._pages.clear()

    def _page(self, number: int, address: int) -> bytearray:
        page = self._pages.get(number)
        if page is None:
            if not 0 <= address < GUEST_END:
                raise MemoryFault(address)
            try:
                page = bytearray(process_memory.read(self.ident, number << SHIFT, PAGE))
            except OSError as error:
                raise MemoryFault(address) from error
            self._pages[number] = page
            self._show(self._loads, number, page)
        return page

    def _writable(self, number: int, address: int) -> bytearray:
        try:
            page = self._page(number, address)
        except MemoryFault as fault:
            raise StoreFault(address) from fault
        if number not in self._originals:
            offset = address & PAGE - 1
            try:
                process_memory.write(self.ident, address, page[offset : offset + 1])
            except OSError as error:
                raise StoreFault(address) from error
            self._originals[number] = bytes(page)
            self._show(self._stores, number, page)
        return page

    @staticmethod
    def _show(views: list[_Views], number: int, page: bytearray) -> None:
        for size, format in FORMATS.items():
            views[size][number] = memoryview(page).cast(format)


def _differences(page: bytearray, original: bytes) -> list[tuple[int, int]]:
    """Where a page has changed, as half-open intervals of whole words."""
    found: list[tuple[int, int]] = []
    start = -1  # of the interval that goes on
    for stride in range(0, PAGE, STRIDE):
        if page[stride : stride + STRIDE] == original[stride : stride + STRIDE]:
            if start >= 0:
                found.append((start, stride))
                start = -1
            continue
        for at in range(stride, stride + STRIDE, WORD):
            if page[at : at + WORD] != original[at : at + WORD]:
                start = at if start < 0 else start
            elif start >= 0:
                found.append((start, at))
                start = -1
    return [*found, (start, PAGE)] if start >= 0 else found
