"""The names of functions in ELF-64 files, and where they lie once a file is mapped.

Source: System V ABI, "Object Files" (section header, symbol table). The bytes come from guests: a table that makes no
sense is no table, and never more than that.
"""

import os
import struct
from bisect import bisect_right, insort
from typing import Final

from virtus.guests import elf
from virtus.records import dataclass

SECTION_HEADER: Final = struct.Struct("<IIQQQQIIQQ")
SYMBOL: Final = struct.Struct("<IBBHQQ")
SHT_SYMTAB, SHT_DYNSYM = 2, 11
SHF_EXECINSTR: Final = 4
STT_NOTYPE, STT_FUNC, STT_GNU_IFUNC = 0, 2, 10
STB_GLOBAL: Final = 1
HEADERS_AT: Final = 4096
"""Bytes in which the program headers of every real program lie."""
MOST_BYTES: Final = 64 << 20
"""Of a table, of symbols or of strings."""
MOST_SECTIONS: Final = 4096
LONGEST_NAME: Final = 512
_SECTIONS: Final = struct.Struct("<40xQ10xHH")  # e_shoff, e_shentsize, e_shnum
PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Function:
    """A function, at its address in the file."""

    address: int
    size: int
    name: str


def functions(descriptor: int) -> list[Function]:
    """The functions that an ELF file names, by address; of a stripped one those it exports. Never raises."""
    try:
        return _functions(descriptor)
    except (OSError, struct.error, OverflowError):
        return []


def _functions(descriptor: int) -> list[Function]:
    head = os.pread(descriptor, elf.HEADER.size, 0)
    if head[:4] != elf.MAGIC or head[4:6] != bytes((elf.ELFCLASS64, elf.ELFDATA2LSB)):
        return []
    table, entry, count = _SECTIONS.unpack_from(head)
    if entry != SECTION_HEADER.size or count > MOST_SECTIONS:
        return []
    data = os.pread(descriptor, entry * count, table)
    sections = list(SECTION_HEADER.iter_unpack(data[: len(data) // entry * entry]))
    code = {number for number, section in enumerate(sections) if section[2] & SHF_EXECINSTR}
    for kind in (SHT_SYMTAB, SHT_DYNSYM):
        for _, type_, _, _, offset, size, link, _, _, _ in sections:
            if type_ == kind and link < len(sections):
                strings_at, strings_size = sections[link][4:6]
                if max(size, strings_size) <= MOST_BYTES:
                    strings = os.pread(descriptor, strings_size, strings_at)
                    return _named(os.pread(descriptor, size, offset), strings, code)
    return []


def _named(symbols: bytes, strings: bytes, code: set[int]) -> list[Function]:
    found: dict[int, Function] = {}
    whole = symbols[: len(symbols) // SYMBOL.size * SYMBOL.size]
    for name_at, info, _, section, value, size in SYMBOL.iter_unpack(whole):
        kind, binding = info & 15, info >> 4
        is_function = kind in (STT_FUNC, STT_GNU_IFUNC) or (kind == STT_NOTYPE and binding == STB_GLOBAL and not size)
        if not is_function or section not in code:
            continue
        end = strings.find(b"\0", name_at, name_at + LONGEST_NAME)
        name = strings[name_at:end].decode(errors="backslashreplace") if end > name_at else ""
        before = found.get(value)
        if name.isprintable() and name and (before is None or (binding == STB_GLOBAL and kind == STT_FUNC)):
            found[value] = Function(value, size, name)
    return [found[address] for address in sorted(found)]


def bias(descriptor: int, start: int, offset: int) -> int | None:
    """What is added to addresses of a file whose part at `offset` has been mapped at `start` to be executed."""
    try:
        program = elf.parse(os.pread(descriptor, HEADERS_AT, 0), os.fstat(descriptor).st_size)
    except (OSError, elf.NotLoadable):
        return None
    for segment in program.segments:
        first = segment.offset & -PAGE
        if segment.flags & elf.PF_X and first <= offset < segment.offset + segment.file_size:
            return start - (segment.address & -PAGE) - (offset - first)
    return None


class Map:
    """The functions of an address space."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._images: dict[int, tuple[int, int, list[int], list[Function]]] = {}  # by start: end, bias, functions

    def add(self, start: int, end: int, descriptor: int, offset: int) -> None:
        """A part of a file has been mapped to be executed."""
        moved = bias(descriptor, start, offset)
        named = [] if moved is None else functions(descriptor)
        for before in [at for at, image in self._images.items() if at < end and image[0] > start]:
            del self._images[before]
            self._starts.remove(before)
        insort(self._starts, start)
        self._images[start] = end, moved or 0, [function.address for function in named], named

    def clear(self) -> None:
        """Nothing is mapped any more."""
        self._starts.clear()
        self._images.clear()

    def copy(self) -> "Map":
        """A map of its own with the same functions."""
        other = Map()
        other._starts, other._images = list(self._starts), dict(self._images)
        return other

    def find(self, address: int) -> tuple[str, int] | None:
        """The function that an address belongs to, and how far it is into it."""
        at = bisect_right(self._starts, address) - 1
        if at < 0:
            return None
        end, moved, addresses, named = self._images[self._starts[at]]
        index = bisect_right(addresses, address - moved) - 1
        if address >= end or index < 0:
            return None
        function = named[index]
        distance = address - moved - function.address
        return None if function.size and distance >= function.size else (function.name, distance)

    def show(self, address: int) -> str:
        """`name+offset`, or the address alone."""
        found = self.find(address)
        if found is None:
            return f"{address:#x}"
        name, distance = found
        return f"{name}+{distance:#x}" if distance else name
