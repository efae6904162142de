"""The guest's memory as a hypercall sees it: through the domain's page tables, with the rights that they give.

A hypervisor that stored wherever it is told would write to page tables for the asking. So a store needs a writable
mapping, which by the frames' types is never one of a table; and the hypervisor's own slots are no place of a guest's.
"""

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory
from virtus.memory.x86_paging import FRAME_MASK, LARGE, PRESENT, WRITABLE, find_entry
from virtus.personalities.xen.abi import DWORD, EFAULT, QWORD, Refused
from virtus.personalities.xen.page_tables import FIRST_OURS, LAST_OURS, PageTables

MOST_BYTES = 1 << 20
"""No argument of a hypercall is larger; a guest that says so is refused before memory is taken for it."""


class GuestAccess:
    """Reads and writes at virtual addresses in the address space of the L4 table at `root`."""

    def __init__(self, memory: GuestMemory, tables: PageTables) -> None:
        self._memory, self._tables = memory, tables
        self.root = 0

    def _physical(self, address: int, *, write: bool) -> int:
        words, size = self._memory.words, self._memory.size
        slot = address >> 39 & 511
        if FIRST_OURS <= slot <= LAST_OURS or not -1 <= (address - (address >> 63 << 64)) >> 47 <= 0:
            raise Refused(EFAULT, f"{address:#x} is no address of a guest's")
        entry = words[(self.root >> 3) + slot]
        for shift in (30, 21, 12):
            if not entry & PRESENT or (entry & LARGE and shift < 30):
                raise Refused(EFAULT, f"nothing at {address:#x}")
            entry = words[((entry & FRAME_MASK) >> 3) + (address >> shift & 511)]
        if not entry & PRESENT or (write and not entry & WRITABLE):
            raise Refused(EFAULT, f"{address:#x} is not mapped {'writable' if write else ''}")
        physical: int = (entry & FRAME_MASK) + (address & PAGE - 1)
        if physical >= size:
            raise Refused(EFAULT)
        if write:
            self._tables.stored_into(physical >> FRAME_SHIFT)
        return physical

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a virtual address; raises Refused(EFAULT)."""
        if size > MOST_BYTES:
            raise Refused(EFAULT, f"{size} bytes at once")
        physical = self._physical(address, write=False)
        offset = address & PAGE - 1
        if offset + size <= PAGE:
            return bytes(self._memory.bytes[physical : physical + size])
        data = bytes(self._memory.bytes[physical : physical + PAGE - offset])
        while len(data) < size:
            physical = self._physical(address + len(data), write=False)
            data += self._memory.bytes[physical : physical + min(PAGE, size - len(data))]
        return data

    def write(self, address: int, data: bytes) -> None:
        """Store at a virtual address that is mapped writable; raises Refused(EFAULT)."""
        done = 0
        while done < len(data):
            physical = self._physical(address + done, write=True)
            piece = min(len(data) - done, PAGE - (physical & PAGE - 1))
            self._memory.bytes[physical : physical + piece] = data[done : done + piece]
            done += piece

    def read_dword(self, address: int) -> int:
        """A 32-bit number."""
        value: int = DWORD.unpack(self.read(address, 4))[0]
        return value

    def read_qword(self, address: int) -> int:
        """A 64-bit number."""
        value: int = QWORD.unpack(self.read(address, 8))[0]
        return value

    def write_dword(self, address: int, value: int) -> None:
        """Store a 32-bit number."""
        self.write(address, DWORD.pack(value & 0xFFFFFFFF))

    def entry_address(self, address: int) -> int:
        """The physical address of the L1 entry of a virtual address; raises Refused(EFAULT)."""
        if FIRST_OURS <= address >> 39 & 511 <= LAST_OURS:
            raise Refused(EFAULT, f"{address:#x} is no address of a guest's")
        at = find_entry(self._memory, self.root, address)
        if at is None:
            raise Refused(EFAULT, f"no table for {address:#x}")
        return at
