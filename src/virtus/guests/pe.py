"""Windows programs and libraries for x86-64 as files: PE32+ (Microsoft, PE Format).

An own reader of headers and tables: a program starts in a few milliseconds, and the libraries for Python take a hundred
to read one of 30 MB. Every number of the file is checked before it is used; what is damaged is a `GuestNotRunnable`.
"""

import itertools
import mmap
import struct
from collections.abc import Iterator
from typing import Final

from virtus.errors import GuestNotRunnable
from virtus.records import dataclass, field

MACHINE_AMD64: Final = 0x8664
PE32_PLUS, PE32 = 0x20B, 0x10B
OPTIONAL_SIZE: Final = 112
"""Bytes of the optional header before its data directories."""
LARGEST_IMAGE: Final = 1 << 31
PAGE: Final = 4096
FILE_EXECUTABLE, FILE_DLL = 0x0002, 0x2000
SUBSYSTEM_GUI, SUBSYSTEM_CONSOLE = 2, 3
EXPORT, IMPORT, RESOURCE, EXCEPTION, _SECURITY, RELOCATION = range(6)
TLS, LOAD_CONFIG, DELAY_IMPORT, CLR = 9, 10, 13, 14
DIRECTORIES: Final = 16
SECTION_EXECUTE, SECTION_READ, SECTION_WRITE = 0x2000_0000, 0x4000_0000, 0x8000_0000
RELOCATION_ABSOLUTE, RELOCATION_DIR64 = 0, 10
BY_ORDINAL: Final = 1 << 63
MOST_SECTIONS: Final = 96
"""The loader's own limit (PE Format, COFF File Header)."""
MOST_ENTRIES: Final = 1 << 20
"""Of one table: real ones have a few thousand; a damaged count must not keep us busy."""
LONGEST_NAME: Final = 4096


@dataclass(frozen=True, slots=True)
class Section:
    """A section: `size` bytes at `address` of the image, of which `file_size` come from the file's `offset`."""

    name: str
    address: int
    size: int
    offset: int
    file_size: int
    flags: int

    @property
    def rights(self) -> int:
        """As Linux's PROT_*."""
        read = mmap.PROT_READ if self.flags & (SECTION_READ | SECTION_EXECUTE) else 0
        write = mmap.PROT_WRITE | mmap.PROT_READ if self.flags & SECTION_WRITE else 0
        return read | write | (mmap.PROT_EXEC if self.flags & SECTION_EXECUTE else 0)


@dataclass(frozen=True, slots=True)
class Import:
    """A function that the image wants: where its address is to be stored, counted from the image's base."""

    dll: str  # in lower case, as the file has it, with ".dll"
    name: str  # "#12" for one by ordinal
    slot: int


@dataclass(frozen=True, slots=True)
class Tls:
    """Thread-local storage, as addresses in an image at its preferred base (IMAGE_TLS_DIRECTORY64)."""

    start: int
    end: int
    index: int
    callbacks: int
    zeros: int


@dataclass(slots=True)
class Exports:
    """What a library offers: by name or "#ordinal", an address counted from the base, or a forwarder "DLL.NAME"."""

    addresses: dict[str, int] = field(default_factory=dict)
    forwarders: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Image:
    """A checked image. Addresses are counted from its base unless they are said to be others."""

    name: str
    data: bytes | mmap.mmap
    base: int
    size: int
    entry: int
    headers_size: int
    is_dll: bool
    subsystem: int
    stack_reserve: int
    stack_commit: int
    sections: list[Section]
    directories: list[tuple[int, int]]
    characteristics: int
    version: tuple[int, int] = (0, 0)
    all_exports: Exports | None = None

    # Reading -----------------------------------------------------------------------------------------------------

    def damaged(self, found: str) -> GuestNotRunnable:
        """The error for what the file has wrong."""
        return GuestNotRunnable(f"reading {self.name}", f"a damaged Windows program: {found}")

    def offset(self, address: int) -> int:
        """Where in the file a place of the image is; raises GuestNotRunnable where it is in none."""
        if 0 <= address < self.headers_size:
            return address
        for section in self.sections:
            if section.address <= address < section.address + section.file_size:
                return section.offset + address - section.address
        raise self.damaged(f"address {address:#x} is in no section")

    def bytes_at(self, address: int, size: int) -> bytes:
        """`size` bytes of the image; what the file does not hold of a section is zero."""
        for section in self.sections:
            extent = max(section.size, section.file_size)
            if section.address <= address and address + size <= section.address + extent:
                first = address - section.address
                held = min(max(section.file_size - first, 0), size)
                start = section.offset + first
                return self.data[start : start + held].ljust(size, b"\0")
        if address >= 0 and address + size <= self.headers_size:
            return self.data[address : address + size]
        raise self.damaged(f"address {address:#x} is in no section")

    def word(self, address: int) -> int:
        """Four bytes."""
        return int.from_bytes(self.bytes_at(address, 4), "little")

    def long(self, address: int) -> int:
        """Eight bytes."""
        return int.from_bytes(self.bytes_at(address, 8), "little")

    def text(self, address: int) -> str:
        """A name, up to its zero."""
        start = self.offset(address)
        end = self.data.find(b"\0", start, start + LONGEST_NAME)
        if end < 0:
            raise self.damaged(f"the name at {address:#x} has no end")
        return self.data[start:end].decode("latin-1")

    # Tables ------------------------------------------------------------------------------------------------------

    def imports(self) -> Iterator[Import]:
        """Functions that are needed before the image starts."""
        place, _ = self.directories[IMPORT]
        if not place:
            return
        for _ in range(MOST_ENTRIES):
            lookup, _, _, name, slots = struct.unpack("<5I", self.bytes_at(place, 20))
            if not name or not slots:
                return
            yield from self._functions(self.text(name).lower(), lookup or slots, slots)
            place += 20
        raise self.damaged("its import table has no end")

    def delay_imports(self) -> Iterator[Import]:
        """Functions that the image looks up itself when it first calls one (ImgDelayDescr)."""
        place, _ = self.directories[DELAY_IMPORT]
        if not place:
            return
        for _ in range(MOST_ENTRIES):
            attributes, name, _, slots, lookup = struct.unpack("<5I", self.bytes_at(place, 20))
            if not name:
                return
            if attributes & 1:  # addresses are counted from the base, as all linkers for x86-64 have it
                yield from self._functions(self.text(name).lower(), lookup, slots)
            place += 32
        raise self.damaged("its table of delayed imports has no end")

    def _functions(self, dll: str, lookup: int, slots: int) -> Iterator[Import]:
        for index in range(MOST_ENTRIES):
            entry = self.long(lookup + 8 * index)
            if not entry:
                return
            if slots + 8 * index + 8 > self.size:
                raise self.damaged(f"its imports from {dll} lie outside")
            name = f"#{entry & 0xFFFF}" if entry & BY_ORDINAL else self.text((entry & 0x7FFF_FFFF) + 2)
            yield Import(dll, name, slots + 8 * index)
        raise self.damaged(f"its imports from {dll} have no end")

    def exports(self) -> Exports:
        """What it offers; empty for most programs."""
        place, size = self.directories[EXPORT]
        result = Exports()
        if not place:
            return result
        header = struct.unpack("<IIHHIIIIIII", self.bytes_at(place, 40))
        ordinal_base, functions, names, addresses, name_table, ordinal_table = header[5:11]
        if max(functions, names) > MOST_ENTRIES:
            raise self.damaged(f"it claims to export {max(functions, names)} functions")
        where = struct.unpack(f"<{functions}I", self.bytes_at(addresses, 4 * functions)) if functions else ()

        def add(key: str, target: int) -> None:
            if place <= target < place + size:
                result.forwarders[key] = self.text(target)
            elif target:
                result.addresses[key] = target

        for index, target in enumerate(where):
            add(f"#{ordinal_base + index}", target)
        if names:
            name_places = struct.unpack(f"<{names}I", self.bytes_at(name_table, 4 * names))
            ordinals = struct.unpack(f"<{names}H", self.bytes_at(ordinal_table, 2 * names))
            for name_place, ordinal in zip(name_places, ordinals, strict=True):
                if ordinal >= functions:
                    raise self.damaged("an exported name has no function")
                add(self.text(name_place), where[ordinal])
        return result

    def export(self, name: str) -> int | str | None:
        """One of `exports`: an address, a forwarder, or None. Names are sorted, or else all are read once."""
        if self.all_exports is None and not name.startswith("#"):
            found = self._searched(name)
            if found is not None:
                return found
        if self.all_exports is None:
            self.all_exports = self.exports()
        return self.all_exports.addresses.get(name, self.all_exports.forwarders.get(name))

    def _searched(self, name: str) -> int | str | None:
        place, size = self.directories[EXPORT]
        if not place:
            return None
        functions, names, addresses, name_table, ordinal_table = struct.unpack("<5I", self.bytes_at(place + 20, 20))
        if not 0 < max(functions, names) <= MOST_ENTRIES:
            return None
        low, high = 0, names
        while low < high:
            middle = (low + high) // 2
            candidate = self.text(self.word(name_table + 4 * middle))
            if candidate == name:
                ordinal = int.from_bytes(self.bytes_at(ordinal_table + 2 * middle, 2), "little")
                if ordinal >= functions:
                    raise self.damaged("an exported name has no function")
                target = self.word(addresses + 4 * ordinal)
                return self.text(target) if place <= target < place + size else target or None
            if candidate < name:
                low = middle + 1
            else:
                high = middle
        return None

    def relocations(self) -> Iterator[int]:
        """Places that hold an address, for when the image cannot be where it prefers."""
        place, size = self.directories[RELOCATION]
        end = place + size
        while place and place + 8 <= end:
            page, length = struct.unpack("<II", self.bytes_at(place, 8))
            if length == 0:
                return
            if length < 8 or length % 2 or place + length > end:
                raise self.damaged("its relocations do not fit")
            for (entry,) in struct.iter_unpack("<H", self.bytes_at(place + 8, length - 8)):
                if entry >> 12 == RELOCATION_DIR64:
                    target = page + (entry & 0xFFF)
                    if target + 8 > self.size:
                        raise self.damaged("a relocation lies outside")
                    yield target
                elif entry >> 12 != RELOCATION_ABSOLUTE:
                    raise self.damaged(f"a relocation of kind {entry >> 12}")
            place += length

    def tls(self) -> Tls | None:
        """Thread-local storage, which lies in the image and whose callbacks have an end; None for an image without."""
        place, _ = self.directories[TLS]
        if not place:
            return None
        start, end, index, callbacks, zeros = struct.unpack("<QQQQI", self.bytes_at(place, 36))
        if not start <= end <= start + self.size or zeros > LARGEST_IMAGE:
            raise self.damaged("its thread-local storage has no sensible size")
        for address, size in ((start, end - start), (index, 4)):
            if not self.base <= address <= self.base + self.size - size:
                raise self.damaged("its thread-local storage lies outside")
        place = callbacks - self.base
        while callbacks and self.long(place):
            place += 8
        return Tls(start, end, index, callbacks, zeros)

    @property
    def is_managed(self) -> bool:
        """Whether it is a program for .NET."""
        return self.directories[CLR][0] != 0


def parse(data: bytes | mmap.mmap, name: str) -> Image:
    """Check an image; raises GuestNotRunnable in words, whatever the bytes are."""
    doing = f"reading {name}"

    def refused(found: str, remedy: str = "") -> GuestNotRunnable:
        return GuestNotRunnable(doing, found, remedy)

    if len(data) < 0x40 or data[:2] != b"MZ":
        raise refused("no Windows program")
    at = struct.unpack_from("<I", data, 0x3C)[0]
    if at + 24 > len(data) or data[at : at + 4] != b"PE\0\0":
        raise refused("a DOS program, or a damaged Windows program")
    machine, count, _, _, _, optional_size, characteristics = struct.unpack_from("<HHIIIHH", data, at + 4)
    optional = at + 24
    if optional + max(optional_size, 2) > len(data):
        raise refused("a truncated Windows program")
    magic = struct.unpack_from("<H", data, optional)[0]
    if magic == PE32:
        raise refused("a Windows program of 32 bits", "wine runs it, where its 32-bit half is installed")
    if magic != PE32_PLUS or optional_size < OPTIONAL_SIZE:
        raise refused("a damaged Windows program: its optional header is none")
    if machine != MACHINE_AMD64:
        raise refused(f"a Windows program for another processor ({machine:#x})")
    if count > MOST_SECTIONS:
        raise refused(f"a damaged Windows program: it claims {count} sections")
    entry = struct.unpack_from("<I", data, optional + 16)[0]
    (base,) = struct.unpack_from("<Q", data, optional + 24)
    version = struct.unpack_from("<HH", data, optional + 48)
    size, headers_size = struct.unpack_from("<II", data, optional + 56)
    subsystem = struct.unpack_from("<H", data, optional + 68)[0]
    stack_reserve, stack_commit = struct.unpack_from("<QQ", data, optional + 72)
    listed = min(struct.unpack_from("<I", data, optional + 108)[0], DIRECTORIES, (optional_size - OPTIONAL_SIZE) // 8)
    directories = [struct.unpack_from("<II", data, optional + OPTIONAL_SIZE + 8 * index) for index in range(listed)]
    directories += [(0, 0)] * (DIRECTORIES - listed)
    if not 0 < size <= LARGEST_IMAGE or headers_size > min(size, len(data)) or entry >= size or base % 0x10000:
        raise refused("a damaged Windows program: its sizes do not fit")
    sections = []
    for index in range(count):
        place = optional + optional_size + 40 * index
        if place + 40 > len(data):
            raise refused("a truncated Windows program")
        sections.append(_section(data, place, size, name))
    sections.sort(key=lambda section: section.address)
    for before, after in itertools.pairwise(sections):
        if before.address + max(before.size, before.file_size) > after.address:
            raise refused("a damaged Windows program: its sections overlap")
    if sections and sections[0].address < headers_size:
        raise refused("a damaged Windows program: a section overlaps its headers")
    is_dll = bool(characteristics & FILE_DLL)
    return Image(
        name, data, base, size, entry, headers_size, is_dll, subsystem, stack_reserve, stack_commit, sections,
        directories, characteristics, (version[0], version[1]),
    )  # fmt: skip


def _section(data: bytes | mmap.mmap, place: int, image_size: int, image: str) -> Section:
    label, size, address, file_size, offset = struct.unpack_from("<8s4I", data, place)
    flags = struct.unpack_from("<I", data, place + 36)[0]
    name = label.rstrip(b"\0").decode("latin-1")
    size = size or file_size
    file_size = min(file_size, size)  # what is longer is alignment
    if file_size == 0:
        offset = 0
    if address + size > -(-image_size // PAGE) * PAGE or offset + file_size > len(data) or address % PAGE:
        raise GuestNotRunnable(f"reading {image}", f"a damaged Windows program: section {name!r} does not fit")
    return Section(name, address, size, offset, file_size, flags)
