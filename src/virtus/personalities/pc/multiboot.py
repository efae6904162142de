"""Loads multiboot kernels, versions 1 and 2: ELF-32, or by the addresses in their header; with modules.

Sources: Multiboot Specification 0.6.96, 3.1 to 3.3; Multiboot2 Specification 2.0, 3.1 to 3.6. Every number in an image
is checked before it is used.
"""

import struct
from collections.abc import Sequence
from typing import Final

from virtus.guests.elf import NotLoadable
from virtus.memory.guest_memory import PAGE, GuestMemory
from virtus.personalities.pc.start import HIGH, LOW_END, Start, memory_map, write_table
from virtus.records import dataclass

MAGIC_1, MAGIC_2 = 0x1BADB002, 0xE85250D6
SEARCH_1, SEARCH_2 = 8192, 32768
LOADED_1, LOADED_2 = 0x2BADB002, 0x36D76289
ALIGN_MODULES, WANT_MEMORY, WANT_VIDEO, WITH_ADDRESSES = 1, 2, 4, 1 << 16
KNOWN_REQUIREMENTS: Final = ALIGN_MODULES | WANT_MEMORY | WANT_VIDEO
I386: Final = 0
# tags of the second version's header
TAG_END, TAG_REQUEST, TAG_ADDRESS, TAG_ENTRY, TAG_ALIGN = 0, 1, 2, 3, 6
INFO_COMMAND, INFO_LOADER, INFO_MODULE, INFO_BASIC, INFO_MAP = 1, 2, 3, 4, 6
ANSWERED: Final = {INFO_COMMAND, INFO_LOADER, INFO_MODULE, INFO_BASIC, INFO_MAP}
OPTIONAL: Final = 1
# flags of the first version's information
HAS_MEMORY, HAS_COMMAND, HAS_MODULES, HAS_MAP, HAS_LOADER = 1, 4, 8, 0x40, 0x200
INFORMATION_AT: Final = 0x2000
INFORMATION_END: Final = 0x80000
STACK: Final = 0x9F000
LOADER_NAME: Final = b"virtus\0"
ELF32: Final = b"\x7fELF\x01\x01\x01"
PT_LOAD: Final = 1
MOST_SEGMENTS: Final = 64


@dataclass(frozen=True, slots=True)
class Module:
    """A file that is handed to the kernel, with its command line."""

    data: bytes
    command_line: str = ""


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    at: int
    addresses: tuple[int, int, int, int] | None  # header, load start, load end, end of zeroed memory
    entry: int | None


def load(
    memory: GuestMemory,
    image: bytes,
    command_line: str = "",
    modules: Sequence[Module] = (),
    ranges: Sequence[tuple[int, int, int]] | None = None,
) -> Start:
    """Lay out the kernel, its modules and what it is told; raises NotLoadable.

    `ranges` is the memory map if there is a BIOS that has told one.
    """
    map_ = memory_map(memory.size) if ranges is None else ranges
    header = _find(image)
    if header is None:
        raise NotLoadable("no multiboot header")
    if header.addresses is not None:
        entry, end = _load_by_addresses(memory, image, header)
    else:
        entry, end = _load_elf(memory, image)
    placed = list[tuple[int, Module]]()
    for module in modules:
        at = -(-end // PAGE) * PAGE
        _store(memory, at, module.data, len(module.data), "a module")
        placed.append((at, module))
        end = at + len(module.data)
    write_table(memory)
    if header.version == 1:
        _inform_1(memory, command_line, placed, map_)
        return Start(eip=header.entry or entry, eax=LOADED_1, ebx=INFORMATION_AT, esp=STACK)
    _inform_2(memory, command_line, placed, map_)
    return Start(eip=header.entry or entry, eax=LOADED_2, ebx=INFORMATION_AT, esp=STACK)


def _find(image: bytes) -> _Header | None:
    for at in range(0, min(len(image), SEARCH_2) - 15, 8):
        magic, architecture, size, check = struct.unpack_from("<4I", image, at)
        if magic == MAGIC_2 and not (magic + architecture + size + check) & 0xFFFF_FFFF:
            return _header_2(image, at, architecture, size)
    for at in range(0, min(len(image), SEARCH_1) - 11, 4):
        magic, flags, check = struct.unpack_from("<3I", image, at)
        if magic == MAGIC_1 and not (magic + flags + check) & 0xFFFF_FFFF:
            return _header_1(image, at, flags)
    return None


def _header_1(image: bytes, at: int, flags: int) -> _Header:
    if flags & 0xFFFF & ~KNOWN_REQUIREMENTS:
        raise NotLoadable(f"a multiboot kernel that requires unknown features ({flags & 0xFFFF:#x})")
    if not flags & WITH_ADDRESSES:
        return _Header(1, at, None, None)
    if at + 32 > len(image):
        raise NotLoadable("truncated in the multiboot header")
    header, start, end, zeroed, entry = struct.unpack_from("<5I", image, at + 12)
    return _Header(1, at, (header, start, end, zeroed), entry)


def _header_2(image: bytes, at: int, architecture: int, size: int) -> _Header:
    if architecture != I386:
        raise NotLoadable("a multiboot kernel for another processor")
    if at + size > len(image):
        raise NotLoadable("truncated in the multiboot header")
    addresses, entry, tag, end = None, None, at + 16, at + size
    while tag + 8 <= end:
        kind, flags, length = struct.unpack_from("<HHI", image, tag)
        if kind == TAG_END:
            break
        if length < 8 or tag + length > end:
            raise NotLoadable("a multiboot header with a tag of an impossible size")
        if kind == TAG_REQUEST:
            wanted = set(struct.unpack_from(f"<{(length - 8) // 4}I", image, tag + 8))
            if wanted - ANSWERED and not flags & OPTIONAL:
                raise NotLoadable(f"a multiboot kernel that requires information {sorted(wanted - ANSWERED)}")
        elif kind == TAG_ADDRESS and length >= 24:
            addresses = struct.unpack_from("<4I", image, tag + 8)
        elif kind == TAG_ENTRY and length >= 12:
            (entry,) = struct.unpack_from("<I", image, tag + 8)
        elif kind not in (TAG_ALIGN, 4, 5, 10) and not flags & OPTIONAL:
            raise NotLoadable(f"a multiboot kernel that requires tag {kind}")
        tag += -(-length // 8) * 8
    return _Header(2, at, addresses, entry)


def _store(memory: GuestMemory, at: int, data: bytes, size: int, what: str) -> None:
    """Bytes, followed by zeros up to `size`. Below 1 MiB nothing is loaded: there are the tables, and devices."""
    if at < HIGH or at + size > memory.size or size < len(data):
        raise NotLoadable(f"{what} at {at:#x} of {size:#x} bytes does not fit into memory above 1 MiB")
    memory.bytes[at : at + len(data)] = data


def _load_by_addresses(memory: GuestMemory, image: bytes, header: _Header) -> tuple[int, int]:
    assert header.addresses is not None
    address, start, end, zeroed = header.addresses
    offset = header.at - (address - start)
    if start > address or offset < 0:
        raise NotLoadable("a multiboot header with impossible addresses")
    size = end - start if end else len(image) - offset
    if size <= 0 or offset + size > len(image):
        raise NotLoadable("truncated: the multiboot header tells of more than there is")
    whole = max(zeroed - start, size)
    _store(memory, start, image[offset : offset + size], whole, "the kernel")
    return start, start + whole


def _load_elf(memory: GuestMemory, image: bytes) -> tuple[int, int]:
    if image[:7] != ELF32 or len(image) < 52:
        raise NotLoadable("a multiboot kernel that is neither ELF-32 nor tells its addresses")
    entry, headers = struct.unpack_from("<II", image, 24)
    size, count = struct.unpack_from("<HH", image, 42)
    if size != 32 or not 0 < count <= MOST_SEGMENTS or headers + size * count > len(image):
        raise NotLoadable("program headers of an unknown size")
    end = HIGH
    physical_entry = entry
    for number in range(count):
        kind, offset, virtual, physical, in_file, in_memory, _, _ = struct.unpack_from(
            "<8I", image, headers + 32 * number
        )
        if kind != PT_LOAD or not in_memory:
            continue
        if offset + in_file > len(image):
            raise NotLoadable("truncated in a segment")
        _store(memory, physical, image[offset : offset + in_file], in_memory, "a segment")
        if virtual <= entry < virtual + in_memory:
            physical_entry = entry - virtual + physical
        end = max(end, physical + in_memory)
    if end == HIGH:
        raise NotLoadable("nothing to load")
    return physical_entry, end


def _upper(map_: Sequence[tuple[int, int, int]]) -> int:
    """KiB of memory from 1 MiB up to the first hole (3.3: mem_upper)."""
    return next((at + size - HIGH for at, size, kind in map_ if kind == 1 and at <= HIGH < at + size), 0) >> 10


def _inform_1(
    memory: GuestMemory, command_line: str, modules: list[tuple[int, Module]], map_: Sequence[tuple[int, int, int]]
) -> None:
    """The information structure (3.3) and what it points to, behind each other."""
    strings = INFORMATION_AT + 128
    data = bytearray(128)
    command = strings
    extra = bytearray(command_line.encode() + b"\0")
    names = list[int]()
    for _, module in modules:
        names.append(strings + len(extra))
        extra += module.command_line.encode() + b"\0"
    loader = strings + len(extra)
    extra += LOADER_NAME
    extra += bytes(-len(extra) % 8)
    table = strings + len(extra)
    for (at, module), name in zip(modules, names, strict=True):
        extra += struct.pack("<4I", at, at + len(module.data), name, 0)
    ranges = strings + len(extra)
    for entry in map_:
        extra += struct.pack("<IQQI", 20, *entry)
    flags = HAS_MEMORY | HAS_COMMAND | HAS_MODULES | HAS_MAP | HAS_LOADER
    struct.pack_into("<III", data, 0, flags, LOW_END >> 10, _upper(map_))
    struct.pack_into("<III", data, 16, command, len(modules), table)
    struct.pack_into("<II", data, 44, 24 * len(map_), ranges)
    struct.pack_into("<I", data, 64, loader)
    _put(memory, bytes(data) + bytes(extra))


def _put(memory: GuestMemory, data: bytes) -> None:
    if INFORMATION_AT + len(data) > INFORMATION_END:
        raise NotLoadable("the command lines of the kernel and its modules are too long")
    memory.bytes[INFORMATION_AT : INFORMATION_AT + len(data)] = data


def _inform_2(
    memory: GuestMemory, command_line: str, modules: list[tuple[int, Module]], map_: Sequence[tuple[int, int, int]]
) -> None:
    """Tags (3.6), each at a multiple of 8 bytes."""
    tags = [
        (INFO_COMMAND, command_line.encode() + b"\0"),
        (INFO_LOADER, LOADER_NAME),
        (INFO_BASIC, struct.pack("<II", LOW_END >> 10, _upper(map_))),
        (INFO_MAP, struct.pack("<II", 24, 0) + b"".join(struct.pack("<QQII", *e, 0) for e in map_)),
    ]
    tags += [
        (INFO_MODULE, struct.pack("<II", at, at + len(module.data)) + module.command_line.encode() + b"\0")
        for at, module in modules
    ]
    tags.append((TAG_END, b""))
    body = bytearray()
    for kind, data in tags:
        body += struct.pack("<II", kind, 8 + len(data)) + data
        body += bytes(-len(body) % 8)
    _put(memory, struct.pack("<II", 8 + len(body), 0) + bytes(body))
