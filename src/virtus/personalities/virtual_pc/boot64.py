"""Starting a bzImage by its 64-bit entry: the kernel unpacks itself, which spares us that.

Source: Documentation/arch/x86/boot.rst (64-bit boot protocol), zero-page.rst.
"""

import struct
from typing import Final

from virtus.guests.elf import NotLoadable
from virtus.memory.guest_memory import PAGE, GuestMemory
from virtus.personalities.virtual_pc import acpi_tables
from virtus.personalities.virtual_pc.boot import (
    COMMAND_AT,
    HIGH_START,
    MOST_COMMAND,
    USABLE,
    lay_reset_vector,
    usable_ranges,
)

HEADER_AT, HEADER_SIZE = 0x1F1, 0x290 - 0x1F1  # the setup header, in the image and in the zero page
SETUP_SECTORS_AT, MAGIC_AT, VERSION_AT, LOAD_FLAGS_AT = 0x1F1, 0x202, 0x206, 0x236
MAGIC: Final = b"HdrS"
LEAST_VERSION: Final = 0x20C  # of the protocol: xloadflags
HAS_64_BIT_ENTRY: Final = 1
INIT_SIZE_AT, PREFERRED_AT = 0x260, 0x258
LOADER_AT, FLAGS_AT, RAMDISK_AT, COMMAND_POINTER_AT = 0x210, 0x211, 0x218, 0x228
ROOT_POINTER_AT, ENTRIES_AT, MAP_AT = 0x70, 0x1E8, 0x2D0  # zero page: acpi_rsdp_addr, e820_entries, e820_table
UNKNOWN_LOADER, LOADED_HIGH = 0xFF, 1
MAP_ENTRY: Final = struct.Struct("<QQI")
SECTOR, ENTRY_64 = 512, 0x200
ZERO_PAGE, TABLES, DESCRIPTORS, STACK = 0x10000, 0x9000, 0x5000, 0x8000
GIB_MAPPED: Final = 4
PRESENT_WRITABLE, LARGE = 3, 0x80
CODE, DATA = 0x00AF9B000000FFFF, 0x00CF93000000FFFF  # of the descriptors 0x10 and 0x18, as the protocol wants them


def can(image: bytes) -> bool:
    """Whether an image can be started so."""
    if len(image) < HEADER_AT + HEADER_SIZE or image[MAGIC_AT : MAGIC_AT + 4] != MAGIC:
        return False
    (version,) = struct.unpack_from("<H", image, VERSION_AT)
    (flags,) = struct.unpack_from("<H", image, LOAD_FLAGS_AT)
    return version >= LEAST_VERSION and bool(flags & HAS_64_BIT_ENTRY)


def load(memory: GuestMemory, image: bytes, ramdisk: bytes, command: str, tables: dict[int, bytes]) -> int:
    """Put all into memory; the entry, to be called with ZERO_PAGE in RSI. Raises NotLoadable."""
    start = ((image[SETUP_SECTORS_AT] or 4) + 1) * SECTOR
    room: int = struct.unpack_from("<I", image, INIT_SIZE_AT)[0]
    preferred: int = struct.unpack_from("<Q", image, PREFERRED_AT)[0]
    kernel = memoryview(image)[start:]
    end = preferred + max(room, len(kernel))
    ramdisk_at = (memory.low_size - len(ramdisk)) // PAGE * PAGE
    if preferred < HIGH_START or not kernel:
        raise NotLoadable("a kernel for the first megabyte, or a truncated one")
    if end > ramdisk_at:
        raise NotLoadable(f"kernel and ramdisk need more than {memory.size >> 20} MiB of memory")
    words = command.encode() + b"\0"
    if len(words) > MOST_COMMAND:
        raise NotLoadable(f"a command line of {len(words)} bytes; at most {MOST_COMMAND} fit")
    data = memory.bytes
    data[preferred : preferred + len(kernel)] = kernel
    data[ramdisk_at : ramdisk_at + len(ramdisk)] = ramdisk
    data[COMMAND_AT : COMMAND_AT + len(words)] = words
    page = memory.frame(ZERO_PAGE // PAGE)
    page[:] = bytes(PAGE)
    page[HEADER_AT : HEADER_AT + HEADER_SIZE] = image[HEADER_AT : HEADER_AT + HEADER_SIZE]
    page[LOADER_AT] = UNKNOWN_LOADER
    page[FLAGS_AT] |= LOADED_HIGH
    struct.pack_into("<II", page, RAMDISK_AT, ramdisk_at if ramdisk else 0, len(ramdisk))
    struct.pack_into("<I", page, COMMAND_POINTER_AT, COMMAND_AT)
    struct.pack_into("<Q", page, ROOT_POINTER_AT, acpi_tables.ACPI_AT)
    ranges = usable_ranges(memory)
    page[ENTRIES_AT] = len(ranges)
    for number, (first, size) in enumerate(ranges):
        MAP_ENTRY.pack_into(page, MAP_AT + MAP_ENTRY.size * number, first, size, USABLE)
    _map_identically(memory)
    struct.pack_into("<4Q", data, DESCRIPTORS, 0, 0, CODE, DATA)
    lay_reset_vector(memory)
    for at, table in tables.items():
        data[at : at + len(table)] = table
    return preferred + ENTRY_64


def _map_identically(memory: GuestMemory) -> None:
    """The first GIB_MAPPED GiB, in pages of 2 MiB."""
    directory, words = TABLES + PAGE, memory.words
    words[TABLES >> 3] = directory | PRESENT_WRITABLE
    for gib in range(GIB_MAPPED):
        level2 = directory + PAGE * (gib + 1)
        words[(directory >> 3) + gib] = level2 | PRESENT_WRITABLE
        for at in range(512):
            words[(level2 >> 3) + at] = gib << 30 | at << 21 | LARGE | PRESENT_WRITABLE
