"""Boots a Linux bzImage for i386 without a BIOS, by the 32-bit boot protocol (Documentation/arch/x86/boot.rst)."""

import struct
from typing import Final

from virtus.guests.elf import NotLoadable
from virtus.memory.guest_memory import PAGE, GuestMemory
from virtus.personalities.pc import video
from virtus.personalities.pc.start import Start, memory_map, write_table

SECTOR: Final = 512
# the setup header, "Details of header fields"
SETUP_SECTORS, MAGIC, VERSION, LOADER, FLAGS = 0x1F1, 0x202, 0x206, 0x210, 0x211
CODE32_START, RAMDISK, RAMDISK_SIZE, COMMAND_LINE = 0x214, 0x218, 0x21C, 0x228
RAMDISK_MAX, ALIGNMENT, RELOCATABLE, COMMAND_LINE_SIZE = 0x22C, 0x230, 0x234, 0x238
PREFERRED, INIT_SIZE = 0x258, 0x260
HEADER_AT, HEADER_END_AT = 0x1F1, 0x201
# the zero page (Documentation/arch/x86/zero-page.rst)
ZERO_PAGE, SCREEN_INFO, E820_COUNT, E820_TABLE = 0x10000, 0x00, 0x1E8, 0x2D0
COMMAND_LINE_AT: Final = 0x20000
STACK: Final = 0x9000
LOADED_HIGH: Final = 1
UNKNOWN_LOADER: Final = 0xFF
LEAST_VERSION: Final = 0x20A  # 2.10 and Linux 2.6.31 on: how much memory the kernel needs is told


def is_bzimage(head: bytes) -> bool:
    """Whether a file that begins so is one."""
    return head[MAGIC : MAGIC + 4] == b"HdrS" and head[510:512] == b"\x55\xaa"


def load(
    memory: GuestMemory, image: bytes, ramdisk: bytes, command_line: str, screen: bytes = video.TEXT_SCREEN
) -> Start:
    """Lay everything out in memory; raises NotLoadable where the image is none, or memory is too small.

    `screen` is what the kernel is told of it (`video.screen_info`).
    """
    if not is_bzimage(image[:PAGE]) or len(image) < PAGE:
        raise NotLoadable("no Linux bzImage")
    (version,) = struct.unpack_from("<H", image, VERSION)
    if version < LEAST_VERSION:
        raise NotLoadable(f"a kernel of boot protocol {version >> 8}.{version & 0xFF:02}; needs 2.10")
    if not image[FLAGS] & LOADED_HIGH:
        raise NotLoadable("a zImage, which must lie below 1 MiB; make a bzImage")
    setup_size = ((image[SETUP_SECTORS] or 4) + 1) * SECTOR
    preferred, init_size = struct.unpack_from("<QI", image, PREFERRED)
    kernel = image[setup_size:]
    if not kernel or preferred + max(init_size, len(kernel)) > memory.size:
        raise NotLoadable(f"the kernel needs {(preferred + init_size >> 20) + 1} MiB of memory at least")
    (most,) = struct.unpack_from("<I", image, COMMAND_LINE_SIZE)
    words = command_line.encode()
    if len(words) > min(most, PAGE - 1):
        raise NotLoadable(f"a command line of {len(words)} bytes; the kernel takes {min(most, PAGE - 1)}")
    zero = bytearray(PAGE)
    end = HEADER_END_AT + 1 + image[HEADER_END_AT]
    zero[HEADER_AT:end] = image[HEADER_AT:end]
    at = _place_ramdisk(memory, image, ramdisk, preferred + init_size)
    zero[SCREEN_INFO : SCREEN_INFO + len(screen)] = screen
    zero[LOADER] = UNKNOWN_LOADER
    struct.pack_into("<I", zero, CODE32_START, preferred)
    struct.pack_into("<II", zero, RAMDISK, at, len(ramdisk))
    struct.pack_into("<I", zero, COMMAND_LINE, COMMAND_LINE_AT)
    ranges = memory_map(memory.size)
    zero[E820_COUNT] = len(ranges)
    for number, entry in enumerate(ranges):
        struct.pack_into("<QQI", zero, E820_TABLE + 20 * number, *entry)
    memory.bytes[preferred : preferred + len(kernel)] = kernel
    memory.bytes[ZERO_PAGE : ZERO_PAGE + PAGE] = zero
    memory.bytes[COMMAND_LINE_AT : COMMAND_LINE_AT + len(words) + 1] = words + b"\0"
    write_table(memory)
    return Start(eip=preferred, esi=ZERO_PAGE, esp=STACK)


def _place_ramdisk(memory: GuestMemory, image: bytes, ramdisk: bytes, lowest: int) -> int:
    """As high as the kernel allows."""
    if not ramdisk:
        return 0
    highest = int.from_bytes(image[RAMDISK_MAX : RAMDISK_MAX + 4], "little")
    at = (min(highest + 1, memory.size) - len(ramdisk)) & ~(PAGE - 1)
    if at < lowest:
        raise NotLoadable(f"the initial ramdisk of {len(ramdisk) >> 20} MiB does not fit into memory")
    memory.bytes[at : at + len(ramdisk)] = ramdisk
    return at
