"""How a processor begins when a boot loader has done its work: flat protected mode, interrupts off."""

from typing import Final

from virtus.memory.guest_memory import GuestMemory
from virtus.records import dataclass

GDT_AT: Final = 0x1000
CODE, DATA = 0x10, 0x18  # Documentation/arch/x86/boot.rst: __BOOT_CS and __BOOT_DS
GDT: Final = b"".join(entry.to_bytes(8, "little") for entry in (0, 0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF))
"""Flat code and data segments of 4 GiB (Intel SDM volume 3A, 3.4.5)."""
LOW_END: Final = 0x9FC00
"""Where the BIOS's data area would begin: low memory ends."""
HIGH: Final = 0x100000


@dataclass(frozen=True, slots=True)
class Start:
    """Registers; what is not named is 0. Segments are the flat ones of the table at GDT_AT."""

    eip: int
    eax: int = 0
    ebx: int = 0
    esi: int = 0
    esp: int = 0


def write_table(memory: GuestMemory) -> None:
    """Store the descriptor table where `Start` says it is."""
    memory.bytes[GDT_AT : GDT_AT + len(GDT)] = GDT


def memory_map(size: int) -> list[tuple[int, int, int]]:
    """Address, size and type (1 memory, 2 reserved) of each range, as a BIOS tells them."""
    return [(0, LOW_END, 1), (LOW_END, HIGH - LOW_END, 2), (HIGH, size - HIGH, 1)]
