"""Entries of directories in the forms that native functions give them ([MS-FSCC] 2.4), chained one after another."""

import os
import struct
from typing import Final

from virtus.personalities.win32.code_pages import utf16
from virtus.personalities.win32.file_information import TAG_SYMLINK, attributes_at, times
from virtus.personalities.win32.listings import LISTINGS
from virtus.personalities.win32.wildcards import matches

DIRECTORY, FULL, BOTH, NAMES, ID_BOTH, ID_FULL, ID_EXTENDED = 1, 2, 3, 12, 37, 38, 60
"""FILE_INFORMATION_CLASS of directories (wdm.h)."""
REPARSE: Final = 0x400
SHORT_NAME: Final = 26
"""Bytes of an empty short name: its length, and room for 8.3 characters."""
ALIGNMENT: Final = 8


class Search:
    """An enumeration: names that fit an expression and are still to be given, "." and ".." first."""

    def __init__(self, directory: str, expression: str, *, names: list[str] | None = None) -> None:
        """Raises OSError. `names` are given instead of all that there are."""
        self.directory = directory
        if names is None:
            dots = [".", ".."] if directory != "/" else []
            found = LISTINGS.of(directory)
            names = [name for name in (*dots, *found.names) if expression == "*" or matches(expression, name)]
            LISTINGS.expect(found)
        self.names, self.place = names, 0

    def next(self) -> tuple[str, os.stat_result] | None:
        """The next name, and what it is; those that have gone meanwhile are left out."""
        while self.place < len(self.names):
            name = self.names[self.place]
            self.place += 1
            try:
                return name, os.lstat(f"{self.directory}/{name}")
            except OSError:
                continue
        return None

    def closed(self) -> None:
        """It is not gone on with."""

    def attributes(self, name: str, status: os.stat_result) -> int:
        """FILE_ATTRIBUTE_* of a name that `next` has given."""
        return attributes_at(f"{self.directory}/{name}", status)


def entry(kind: int, directory: str, name: str, status: os.stat_result) -> bytes:
    """One entry, with nothing after it."""
    encoded, value = utf16(name), attributes_at(f"{directory}/{name}", status)
    if kind == NAMES:
        return struct.pack("<III", 0, 0, len(encoded)) + encoded
    size = 0 if value & 0x10 else status.st_size
    head = struct.pack("<II6QII", 0, 0, *times(status), size, status.st_blocks * 512, value, len(encoded))
    tag = TAG_SYMLINK if value & REPARSE else 0  # of a link, the size of attributes is its tag
    if kind == FULL:
        head += struct.pack("<I", tag)
    elif kind == ID_FULL:
        head += struct.pack("<I4xQ", tag, status.st_ino)
    elif kind == ID_EXTENDED:
        head += struct.pack("<IIQQ", 0, tag, status.st_ino, 0)
    elif kind in (BOTH, ID_BOTH):
        head += struct.pack("<I", tag) + bytes(SHORT_NAME)
        if kind == ID_BOTH:
            head += struct.pack("<2xQ", status.st_ino)
    return head + encoded


def pack(search: Search, kind: int, size: int, *, single: bool = False) -> bytes | None:
    """As many entries as fit into `size` bytes; b"" at the end, None where not even one fits."""
    result, last = bytearray(), -1
    while not (single and result):
        place = search.place
        found = search.next()
        if found is None:
            break
        made = entry(kind, search.directory, *found)
        start = -(-len(result) // ALIGNMENT) * ALIGNMENT
        if start + len(made) > size:
            search.place = place
            if last < 0:
                return None
            break
        if last >= 0:
            struct.pack_into("<I", result, last, start - last)
        result += bytes(start - len(result)) + made
        last = start
    return bytes(result)
