"""bcryptprimitives.dll, which Wine 8 lacks and which programs of Rust and of Go cannot start without.

It has the one function they call, `BOOL ProcessPrng(PBYTE data, SIZE_T size)`, which asks Wine's own RtlGenRandom
(advapi32's SystemFunction036). Written here byte by byte, since no compiler for Windows need be installed.
Source: Microsoft, PE Format.
"""

import struct
from typing import Final

NAME: Final = b"bcryptprimitives.dll"
BASE: Final = 0x1_C8A0_0000
SECTION: Final = 0x1000
"""Where the only section begins in memory; everything that follows counts from the image's base."""
FILE_ALIGNMENT: Final = 0x200
MACHINE_AMD64, DLL_FLAGS = 0x8664, 0x2022  # executable, large addresses, DLL
PE32_PLUS, CONSOLE = 0x20B, 3
SECTION_FLAGS: Final = 0xE0000060  # code and data; execute, read, write: the loader stores into the import table
EXPORTS, IMPORTS, RELOCATIONS = 0, 1, 5  # data directories
DIRECTORIES: Final = 16

# Offsets in the section
_CODE, _EXPORT, _IMPORT, _LOOKUP, _ADDRESSES, _STRINGS, _RELOCATIONS, _SIZE = 0, 64, 128, 192, 208, 224, 344, 360


def image() -> bytes:
    """The DLL's file."""
    strings, places = b"", {}
    for text in (NAME, b"ProcessPrng", b"advapi32.dll", b"\0\0SystemFunction036"):
        places[text] = SECTION + _STRINGS + len(strings)
        strings += text + bytes(2 - len(text) % 2)
    to_address = _ADDRESSES - (_CODE + 10)
    code = b"\x48\x83\xec\x28"  # sub rsp, 28h
    code += b"\xff\x15" + struct.pack("<i", to_address)  # call [SystemFunction036]
    code += b"\xb8\1\0\0\0" + b"\x48\x83\xc4\x28" + b"\xc3"  # mov eax, 1; add rsp, 28h; ret
    start = code.ljust(48, b"\xcc") + b"\xb8\1\0\0\0\xc3"  # DllMain: mov eax, 1; ret
    tables = SECTION + _EXPORT + 40
    export = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, places[NAME], 1, 1, 1, tables, tables + 4, tables + 8)
    export += struct.pack("<IIH", SECTION + _CODE, places[b"ProcessPrng"], 0)
    imports = struct.pack("<5I", SECTION + _LOOKUP, 0, 0, places[b"advapi32.dll"], SECTION + _ADDRESSES)
    thunk = struct.pack("<QQ", places[b"\0\0SystemFunction036"], 0)
    relocations = struct.pack("<IIHH", SECTION, 12, 0, 0)
    section = bytearray(_SIZE)
    for place, part in (
        (_CODE, start), (_EXPORT, export), (_IMPORT, imports), (_LOOKUP, thunk), (_ADDRESSES, thunk),
        (_STRINGS, strings), (_RELOCATIONS, relocations),
    ):  # fmt: skip
        section[place : place + len(part)] = part
    return _headers() + bytes(section).ljust(-(-_SIZE // FILE_ALIGNMENT) * FILE_ALIGNMENT, b"\0")


def _headers() -> bytes:
    directories = [(0, 0)] * DIRECTORIES
    directories[EXPORTS] = SECTION + _EXPORT, 64
    directories[IMPORTS] = SECTION + _IMPORT, 40
    directories[RELOCATIONS] = SECTION + _RELOCATIONS, 12
    size = -(-_SIZE // FILE_ALIGNMENT) * FILE_ALIGNMENT
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    optional_size = 112 + 8 * DIRECTORIES
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", MACHINE_AMD64, 1, 0, 0, 0, optional_size, DLL_FLAGS)
    optional = struct.pack("<HBBIIIII", PE32_PLUS, 1, 0, size, 0, 0, SECTION + _CODE + 48, SECTION)
    optional += struct.pack("<QII", BASE, SECTION, FILE_ALIGNMENT) + struct.pack("<6H", 6, 0, 0, 0, 6, 0)
    optional += struct.pack("<IIIIHH", 0, 2 * SECTION, FILE_ALIGNMENT, 0, CONSOLE, 0)
    optional += struct.pack("<4QII", 1 << 20, 1 << 12, 1 << 20, 1 << 12, 0, DIRECTORIES)
    optional += b"".join(struct.pack("<II", *entry) for entry in directories)
    header = b".text\0\0\0" + struct.pack("<6IHHI", _SIZE, SECTION, size, FILE_ALIGNMENT, 0, 0, 0, 0, SECTION_FLAGS)
    return (dos + coff + optional + header).ljust(FILE_ALIGNMENT, b"\0")
