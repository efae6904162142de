"""Memory of an i386 guest by linear address: its page tables walked, rights checked, devices told apart from memory.

Paging is that of 32-bit processors without PAE: two levels, pages of 4 KiB and, with CR4.PSE, of 4 MiB (Intel SDM
volume 3A, 4.3). Nothing here knows instructions.
"""

import struct
from typing import Final, NamedTuple, Protocol

from virtus.memory.guest_memory import PAGE, GuestMemory
from virtus.vcpus.scanned.cpu_state import CR0_PG, CR0_WP, CR4_PSE, MASK32, CpuState
from virtus.vcpus.scanned.faults import PF, PF_PRESENT, PF_USER, PF_WRITE, GuestFault

# entries of page directories and page tables (Intel SDM volume 3A, tables 4-4 to 4-6)
PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE, GLOBAL = 1, 2, 4, 0x20, 0x40, 0x80, 0x100
FRAME: Final = 0xFFFF_F000
LARGE_FRAME: Final = 0xFFC0_0000
LARGE_OFFSET: Final = 0x003F_FFFF
OFFSET: Final = 0xFFF

_UNPACK: Final = {1: struct.Struct("<B").unpack_from, 2: struct.Struct("<H").unpack_from}
_UNPACK[4], _UNPACK[8] = struct.Struct("<I").unpack_from, struct.Struct("<Q").unpack_from
_PACK: Final = {1: struct.Struct("<B").pack_into, 2: struct.Struct("<H").pack_into}
_PACK[4], _PACK[8] = struct.Struct("<I").pack_into, struct.Struct("<Q").pack_into

WINDOW: Final = 15
"""Bytes of an instruction at most (Intel SDM volume 2A, 2.3.11), and so what is fetched at once."""
_UNPACK_WINDOW: Final = struct.Struct(f"{WINDOW}s").unpack_from


class Devices(Protocol):
    """Who answers at physical addresses (or ports) behind which there is no memory. Sizes are 1, 2, 4 or 8."""

    def read(self, address: int, size: int) -> int:
        """What the guest reads; may raise IoNeeded."""
        ...

    def write(self, address: int, size: int, value: int) -> None:
        """What the guest writes; may raise IoNeeded."""
        ...


class LinearMemory(Protocol):
    """What the evaluator asks of memory. Addresses have 32 bits; all methods raise GuestFault for a page fault.

    Accesses have the rights of the processor's current privilege level, the `system` ones those of a supervisor.
    """

    def read(self, linear: int, size: int) -> int:
        """A little-endian number of `size` bytes."""
        ...

    def read_to_change(self, linear: int, size: int) -> int:
        """The same of what will be written: faults as the write would."""
        ...

    def write(self, linear: int, size: int, value: int) -> None:
        """Store a number of `size` bytes; all of it or nothing."""
        ...

    def fetch(self, linear: int, size: int) -> bytes:
        """Up to `size` bytes of instructions: fewer where the next page is not there; the first must be."""
        ...

    def read_system(self, linear: int, size: int) -> int:
        """Read of a descriptor table or a task state segment."""
        ...

    def write_block(self, linear: int, size: int, value: int) -> None:
        """`write` of a number of any size within one page."""
        ...

    def write_system(self, linear: int, size: int, value: int) -> None:
        """Write to one."""
        ...

    def check_write(self, linear: int, size: int) -> None:
        """Fault where `write` would."""
        ...

    def flush(self) -> None:
        """Forget all translations: CR0, CR3 or CR4 changed."""
        ...

    def flush_page(self, linear: int) -> None:
        """Forget one: INVLPG."""
        ...


class PhysicalSpace:
    """Where memory is: from address 0 but for holes, and read-only memories elsewhere. All else are devices."""

    def __init__(self, memory: GuestMemory, holes: tuple[range, ...] = ()) -> None:
        """`holes` are ranges of whole pages of `memory` that belong to devices, such as a PC's video memory."""
        self.memory = memory
        self.holes = holes
        self.roms: list[tuple[int, GuestMemory]] = []
        self._holes = frozenset(page for hole in holes for page in range(hole.start // PAGE, -(-hole.stop // PAGE)))
        self._rom_pages: dict[int, tuple[GuestMemory, int]] = {}
        self.device_pages = range(0)
        """Page frames, by number, where the guest sees `GuestMemory.devices`: devices, that need not be asked."""

    def add_rom(self, address: int, rom: GuestMemory) -> None:
        """Have a memory readable at a physical address; what is written there goes to devices."""
        if address % PAGE:
            raise ValueError("a read-only memory begins at a page")
        self.roms.append((address, rom))
        for offset in range(0, rom.size, PAGE):
            self._rom_pages[(address + offset) // PAGE] = (rom, offset)

    def is_memory(self, page: int) -> bool:
        """Whether a page frame, by number, is memory that can be written."""
        return page < self.memory.frames and page not in self._holes

    def in_file(self, page: int) -> int | None:
        """Which page of the memory file a guest may see at a page frame, by number: memory, or that of devices."""
        if self.is_memory(page):
            return page
        return self.memory.frames + page - self.device_pages.start if page in self.device_pages else None

    def rom(self, page: int) -> tuple[GuestMemory, int] | None:
        """The read-only memory at a page frame, and the offset in it."""
        return self._rom_pages.get(page)


class Translation(NamedTuple):
    """What the page tables say of a linear address: rights are those of both levels together."""

    physical: int
    writable: bool
    user: bool
    global_: bool
    large: bool
    dirty: bool


IDENTITY_RIGHTS: Final = (True, True, False, False, True)


def walk(state: CpuState, memory: GuestMemory, linear: int, *, write: bool, user: bool) -> Translation:
    """Translate as the processor does, accessed and dirty bits set; raises GuestFault(#PF).

    A page table beyond the end of memory reads as not present: there, nothing answers.
    """
    if not state.cr0 & CR0_PG:
        return Translation(linear, *IDENTITY_RIGHTS)
    ram, size = memory.bytes, memory.size
    reason = (PF_WRITE if write else 0) | (PF_USER if user else 0)
    at = (state.cr3 & FRAME) + (linear >> 22 << 2)
    upper = _UNPACK[4](ram, at)[0] if at < size else 0
    if not upper & PRESENT:
        raise GuestFault(PF, reason, linear)
    large = upper & LARGE != 0 and state.cr4 & CR4_PSE != 0
    if large:
        entry, rights = upper, upper
        physical = upper & LARGE_FRAME | linear & LARGE_OFFSET
    else:
        above, at = at, (upper & FRAME) + (linear >> 12 & 0x3FF) * 4
        entry = _UNPACK[4](ram, at)[0] if at < size else 0
        if not entry & PRESENT:
            raise GuestFault(PF, reason, linear)
        rights = entry & upper
        physical = entry & FRAME | linear & OFFSET
    if user and not rights & USER:
        raise GuestFault(PF, reason | PF_PRESENT, linear)
    if write and not rights & WRITABLE and (user or state.cr0 & CR0_WP):
        raise GuestFault(PF, reason | PF_PRESENT, linear)
    if not large and not upper & ACCESSED:
        ram[above] |= ACCESSED
    marked = entry | ACCESSED | (DIRTY if write else 0)
    if marked != entry:
        ram[at] = marked & 0xFF
    return Translation(
        physical, rights & WRITABLE != 0, rights & USER != 0, entry & GLOBAL != 0, large, marked & DIRTY != 0
    )


class PagedMemory:
    """A LinearMemory over a machine's physical memory, with translations cached until they are flushed."""

    def __init__(self, state: CpuState, space: PhysicalSpace, devices: Devices) -> None:
        self.state, self.space, self.devices = state, space, devices
        self._ram = space.memory.bytes
        # linear page to the offset of its frame in memory, for supervisor and user
        self._readable: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._writable: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.written: set[int] = set()
        """Page frames written through here, for whoever keeps something made of their contents: it
        clears the set and calls `forget`, since writes through cached translations are not noted again."""
        self.flushes = 0
        """How often translations were flushed: whoever caches translations of its own compares."""

    def read(self, linear: int, size: int) -> int:
        """See LinearMemory."""
        base = self._readable[self.state.cpl == 3].get(linear >> 12)
        if base is not None and (linear & OFFSET) + size <= PAGE:
            value: int = _UNPACK[size](self._ram, base + (linear & OFFSET))[0]
            return value
        return self._read(linear, size, self.state.cpl == 3)

    def read_system(self, linear: int, size: int) -> int:
        """See LinearMemory."""
        base = self._readable[False].get(linear >> 12)
        if base is not None and (linear & OFFSET) + size <= PAGE:
            value: int = _UNPACK[size](self._ram, base + (linear & OFFSET))[0]
            return value
        return self._read(linear & MASK32, size, False)

    def read_to_change(self, linear: int, size: int) -> int:
        """See LinearMemory."""
        base = self._writable[self.state.cpl == 3].get(linear >> 12)
        if base is not None and (linear & OFFSET) + size <= PAGE:
            value: int = _UNPACK[size](self._ram, base + (linear & OFFSET))[0]
            return value
        self.check_write(linear, size)
        return self._read(linear, size, self.state.cpl == 3)

    def write(self, linear: int, size: int, value: int) -> None:
        """See LinearMemory."""
        base = self._writable[self.state.cpl == 3].get(linear >> 12)
        if base is not None and (linear & OFFSET) + size <= PAGE:
            _PACK[size](self._ram, base + (linear & OFFSET), value)
        else:
            self._write(linear, size, value, self.state.cpl == 3)

    def write_block(self, linear: int, size: int, value: int) -> None:
        """See LinearMemory."""
        self._write(linear, size, value, self.state.cpl == 3)

    def write_system(self, linear: int, size: int, value: int) -> None:
        """See LinearMemory."""
        self._write(linear & MASK32, size, value, False)

    def fetch(self, linear: int, size: int) -> bytes:
        """See LinearMemory."""
        user = self.state.cpl == 3
        base, offset = self._readable[user].get(linear >> 12), linear & OFFSET
        if size == WINDOW and base is not None and offset <= PAGE - WINDOW:
            window: bytes = _UNPACK_WINDOW(self._ram, base + offset)[0]
            return window
        first = min(size, PAGE - offset)
        found = self._bytes(linear, first, user)
        if first < size:
            try:
                found += self._bytes(linear + first & MASK32, size - first, user)
            except GuestFault:
                pass  # only if the instruction goes on there; `missing_code` says what fault that is
        return found

    def check_write(self, linear: int, size: int) -> None:
        """See LinearMemory."""
        user = self.state.cpl == 3
        self._translate(linear, True, user)
        if (linear & OFFSET) + size > PAGE:
            self._translate((linear | OFFSET) + 1 & MASK32, True, user)

    def flush(self) -> None:
        """See LinearMemory."""
        self.flushes += 1
        self.forget()

    def flush_page(self, linear: int) -> None:
        """See LinearMemory."""
        self.flush()

    def forget(self) -> None:
        """Forget the translations kept here alone: the guest ran elsewhere, and may have flushed."""
        for cached in (*self._readable, *self._writable):
            cached.clear()

    def _translate(self, linear: int, write: bool, user: bool) -> int:
        """The physical address; remembers pages that are memory."""
        found = walk(self.state, self.space.memory, linear, write=write, user=user)
        page = linear >> 12
        if self.space.is_memory(found.physical >> 12):
            base = found.physical & FRAME
            self._readable[user][page] = base
            if write:
                self._writable[user][page] = base
                self.written.add(found.physical >> 12)
        return found.physical

    def _bytes(self, linear: int, size: int, user: bool) -> bytes:
        """Bytes of one page."""
        physical = self._translate(linear, False, user)
        page = physical >> 12
        if self.space.is_memory(page):
            return bytes(self._ram[physical : physical + size])
        rom = self.space.rom(page)
        if rom is not None:
            at = rom[1] + (physical & OFFSET)
            return bytes(rom[0].bytes[at : at + size])
        return b"\xff" * size  # nobody executes from devices; what is there reads as the bus does

    def _read(self, linear: int, size: int, user: bool) -> int:
        first = PAGE - (linear & OFFSET)
        if size > first:
            beyond = linear + first & MASK32
            self._translate(linear, False, user)
            self._translate(beyond, False, user)
            return self._read_parts(linear, first, user) | self._read_parts(beyond, size - first, user) << 8 * first
        return self._read_parts(linear, size, user)

    def _read_parts(self, linear: int, size: int, user: bool) -> int:
        physical = self._translate(linear, False, user)
        page = physical >> 12
        if self.space.is_memory(page):
            return int.from_bytes(self._ram[physical : physical + size], "little")
        rom = self.space.rom(page)
        if rom is not None:
            at = rom[1] + (physical & OFFSET)
            return int.from_bytes(rom[0].bytes[at : at + size], "little")
        value = 0
        for offset, part in _bus_cycles(size):
            value |= (self.devices.read(physical + offset, part) & (1 << 8 * part) - 1) << 8 * offset
        return value

    def _write(self, linear: int, size: int, value: int, user: bool) -> None:
        first = PAGE - (linear & OFFSET)
        if size > first:
            beyond = linear + first & MASK32
            self._translate(linear, True, user)
            self._translate(beyond, True, user)
            self._write_parts(linear, first, value & (1 << 8 * first) - 1, user)
            self._write_parts(beyond, size - first, value >> 8 * first, user)
        else:
            self._write_parts(linear, size, value, user)

    def _write_parts(self, linear: int, size: int, value: int, user: bool) -> None:
        physical = self._translate(linear, True, user)
        if self.space.is_memory(physical >> 12):
            self._ram[physical : physical + size] = value.to_bytes(size, "little")
            return
        for offset, part in _bus_cycles(size):
            self.devices.write(physical + offset, part, value >> 8 * offset & (1 << 8 * part) - 1)


def _bus_cycles(size: int) -> list[tuple[int, int]]:
    """The accesses that devices see of one of `size` bytes: offset and size, a power of two."""
    if size in (1, 2, 4):
        return [(0, size)]
    if size == 8:
        return [(0, 4), (4, 4)]
    return [(offset, 1) for offset in range(size)]
