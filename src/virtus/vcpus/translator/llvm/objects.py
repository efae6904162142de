"""From a relocatable object file to one piece of code that runs wherever it is put.

LLVM leaves distances between sections open; here the sections get fixed places one behind the other, and the distances
are filled in. Source: System V ABI, "Object Files", and its AMD64 supplement, 4.4 (relocation types).
"""

import struct
from typing import Final

from virtus.records import dataclass

HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION: Final = struct.Struct("<IIQQQQIIQQ")
SYMBOL: Final = struct.Struct("<IBBHQQ")
RELOCATION: Final = struct.Struct("<QQq")
SHT_PROGBITS, SHT_SYMTAB, SHT_RELA, SHT_NOBITS = 1, 2, 4, 8
SHF_ALLOC: Final = 2
R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_PC64 = 2, 4, 24
DISTANCES: Final = {R_X86_64_PC32: "<i", R_X86_64_PLT32: "<i", R_X86_64_PC64: "<q"}


class NotSelfContained(Exception):
    """The object needs something that is not in it."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Code and its constants; `symbols` are offsets of functions."""

    code: bytes
    symbols: dict[str, int]


def blob_of(data: bytes) -> Blob:
    """The object's loaded sections as one piece; raises NotSelfContained."""
    header = HEADER.unpack_from(data)
    sections = [SECTION.unpack_from(data, header[6] + index * SECTION.size) for index in range(header[12])]
    names = sections[header[13]][4]
    places: dict[int, int] = {}
    code = bytearray()
    for index, (name, kind, flags, _, offset, size, _, _, alignment, _) in enumerate(sections):
        if not flags & SHF_ALLOC or not size or _text(data, names + name).startswith(".eh_frame"):
            continue
        if kind == SHT_NOBITS:
            raise NotSelfContained("variables in an object of translated code")
        code += bytes(-len(code) % max(alignment, 1))
        places[index] = len(code)
        code += data[offset : offset + size]
    symbols: list[tuple[str, int | None]] = []
    for _, kind, _, _, offset, size, link, *_ in sections:
        if kind == SHT_SYMTAB:
            for at in range(offset, offset + size, SYMBOL.size):
                name, _, _, section, value, _ = SYMBOL.unpack_from(data, at)
                place = places.get(section)
                symbols.append((_text(data, sections[link][4] + name), None if place is None else place + value))
    for _, kind, _, _, offset, size, _, target, _, _ in sections:
        if kind == SHT_RELA and target in places:
            for at in range(offset, offset + size, RELOCATION.size):
                _relocate(code, places[target], RELOCATION.unpack_from(data, at), symbols)
    return Blob(bytes(code), {name: value for name, value in symbols if name and value is not None})


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _relocate(
    code: bytearray, section: int, relocation: tuple[int, int, int], symbols: list[tuple[str, int | None]]
) -> None:
    offset, info, addend = relocation
    format = DISTANCES.get(info & 0xFFFFFFFF)
    name, value = symbols[info >> 32]
    if format is None:
        raise NotSelfContained(f"a relocation of type {info & 0xFFFFFFFF}")
    if value is None:
        raise NotSelfContained(f"a reference to {name or 'a section that is not loaded'}")
    place = section + offset
    struct.pack_into(format, code, place, value + addend - place)
