"""Starting a kernel by the PVH entry: 32-bit, flat, with a structure that says what the machine has.

Source: xen/include/public/arch-x86/hvm/start_info.h. Linux has the entry since 4.21 (CONFIG_PVH).
"""

import struct
from typing import TYPE_CHECKING, Final

from virtus.guests.elf import NotLoadable
from virtus.memory.guest_memory import PAGE, GuestMemory
from virtus.personalities.virtual_pc import acpi_tables

if TYPE_CHECKING:
    from virtus.guests.linux_image import KernelImage

NOTE_PVH: Final = 18  # XEN_ELFNOTE_PHYS32_ENTRY
MAGIC: Final = 0x336EC578
START_INFO: Final = struct.Struct("<IIIIQQQQII")
MODULE: Final = struct.Struct("<QQQQ")
RANGE: Final = struct.Struct("<QQII")
USABLE: Final = 1  # E820
START_AT, MODULES_AT, RANGES_AT, COMMAND_AT = 0x6000, 0x6100, 0x7000, 0x20000
LOW_END, HIGH_START = 0x9FC00, 0x100000
MOST_COMMAND: Final = 2048
RESET_VECTOR: Final = 0xFFFF0  # where a PC's BIOS begins, and kernels jump to that restart by way of it
RESET_CODE: Final = bytes((0xB0, acpi_tables.RESET_VALUE, 0xE6, acpi_tables.RESET_PORT, 0xF4))  # mov al; out; hlt


def lay_reset_vector(memory: GuestMemory) -> None:
    """What a kernel finds that restarts by way of the BIOS."""
    memory.bytes[RESET_VECTOR : RESET_VECTOR + len(RESET_CODE)] = RESET_CODE


def usable_ranges(memory: GuestMemory) -> list[tuple[int, int]]:
    """What of the memory is the kernel's, by address and size: not the tables and the rest of a PC below HIGH_START."""
    return [(0, LOW_END), (HIGH_START, memory.low_size - HIGH_START), *memory.ranges[1:]]


def load(memory: GuestMemory, kernel: "KernelImage", ramdisk: bytes, command: str, tables: dict[int, bytes]) -> int:
    """Put all into memory; the entry, to be called with START_AT in EBX. Raises NotLoadable."""
    note = kernel.notes.get(NOTE_PVH)
    if note is None:
        raise NotLoadable("a kernel without an entry for virtual machines (CONFIG_PVH, Linux 4.21)")
    entry = int.from_bytes(note, "little")
    if kernel.end > memory.low_size or entry >= memory.low_size:
        raise NotLoadable(f"it needs more than {memory.size >> 20} MiB of memory")
    for segment in kernel.segments:
        if segment.physical < HIGH_START:
            raise NotLoadable("a kernel for the first megabyte")
        memory.bytes[segment.physical : segment.physical + len(segment.data)] = segment.data
    ramdisk_at = (memory.low_size - len(ramdisk)) // PAGE * PAGE
    if ramdisk_at < kernel.end:
        raise NotLoadable(f"kernel and ramdisk need more than {memory.size >> 20} MiB of memory")
    memory.bytes[ramdisk_at : ramdisk_at + len(ramdisk)] = ramdisk
    words = command.encode() + b"\0"
    if len(words) > MOST_COMMAND:
        raise NotLoadable(f"a command line of {len(words)} bytes; at most {MOST_COMMAND} fit")
    memory.bytes[COMMAND_AT : COMMAND_AT + len(words)] = words
    ranges = usable_ranges(memory)
    for number, (start, size) in enumerate(ranges):
        RANGE.pack_into(memory.bytes, RANGES_AT + RANGE.size * number, start, size, USABLE, 0)
    MODULE.pack_into(memory.bytes, MODULES_AT, ramdisk_at, len(ramdisk), 0, 0)
    modules = 1 if ramdisk else 0
    START_INFO.pack_into(
        memory.bytes, START_AT, MAGIC, 1, 0, modules, MODULES_AT, COMMAND_AT, acpi_tables.ACPI_AT, RANGES_AT,
        len(ranges), 0,
    )  # fmt: skip
    lay_reset_vector(memory)
    for at, data in tables.items():
        memory.bytes[at : at + len(data)] = data
    return entry
