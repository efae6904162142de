"""Four-level paging of 64-bit x86 (Intel SDM volume 3A, 4.5): entries, and the walk from an address to its entry."""

from typing import Final

from virtus.memory.guest_memory import FRAME_SHIFT, GuestMemory

PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE, GLOBAL = 1, 2, 4, 0x20, 0x40, 0x80, 0x100
NO_EXECUTE: Final = 1 << 63
FRAME_MASK: Final = 0x000F_FFFF_FFFF_F000
ENTRIES: Final = 512
LEVELS: Final = 4


def frame_of(entry: int) -> int:
    """The page frame that an entry names."""
    return (entry & FRAME_MASK) >> FRAME_SHIFT


def slot_of(address: int, level: int) -> int:
    """Which entry of a table of this level (1 to 4) an address goes through."""
    return address >> FRAME_SHIFT + 9 * (level - 1) & ENTRIES - 1


def is_canonical(address: int) -> bool:
    """Whether the upper 17 bits are alike, as the processor demands of every address."""
    return address < 1 << 47 or address >= (1 << 64) - (1 << 47)


def find_entry(memory: GuestMemory, root: int, address: int, level: int = 1) -> int | None:
    """The physical address of an address's entry in the table of a level; None where there is no such table.

    `root` is the physical address of the L4 table. Large pages on the way end the walk: None.
    """
    table, words = root & FRAME_MASK, memory.words
    for above in range(LEVELS, level, -1):
        if table >= memory.size:
            return None
        entry = words[(table >> 3) + slot_of(address, above)]
        if not entry & PRESENT or (entry & LARGE and above < LEVELS):
            return None
        table = entry & FRAME_MASK
    if table >= memory.size:
        return None
    return table + 8 * slot_of(address, level)


def translate(memory: GuestMemory, root: int, address: int) -> int | None:
    """The physical address behind a virtual one in 4 KiB pages; None where nothing is mapped."""
    at = find_entry(memory, root, address)
    if at is None:
        return None
    entry = memory.words[at >> 3]
    physical: int = (entry & FRAME_MASK) + (address & 0xFFF)
    return physical if entry & PRESENT and physical < memory.size else None
