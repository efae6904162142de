"""The two structures of an ELF-64 file that a program loader needs, read strictly: the bytes come from guests.

Source: System V ABI, "Object Files" (ELF header, program header). A general ELF library would parse far more of a
hostile file than is wanted here.
"""

import struct
from typing import Final

from virtus.records import dataclass

MAGIC: Final = b"\x7fELF"
ELFCLASS64, ELFDATA2LSB = 2, 1
EM_X86_64, EM_RISCV = 62, 243
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_INTERP, PT_GNU_STACK = 1, 3, 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4
HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
MOST_HEADERS: Final = 0xFFFF // PROGRAM_HEADER.size
USER_END: Final = 1 << 47


class NotLoadable(Exception):
    """Not a file that can be loaded; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A PT_LOAD program header."""

    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int


@dataclass(frozen=True, slots=True)
class Program:
    """What the loader needs of an executable or of its interpreter."""

    type: int
    machine: int
    entry: int
    header_offset: int
    header_count: int
    segments: tuple[Segment, ...]
    interpreter: tuple[int, int] | None  # file offset and size of the interpreter's path
    executable_stack: bool

    @property
    def span(self) -> tuple[int, int]:
        """Lowest and highest address, page-aligned, of all segments."""
        low = min(segment.address for segment in self.segments) & ~0xFFF
        high = max(segment.address + segment.memory_size for segment in self.segments)
        return low, (high + 0xFFF) & ~0xFFF

    def headers_at(self) -> int:
        """The address at which the program headers are mapped, 0 when they are in no segment."""
        for segment in self.segments:
            if segment.offset <= self.header_offset < segment.offset + segment.file_size:
                return self.header_offset - segment.offset + segment.address
        return 0


def parse(head: bytes, file_size: int) -> Program:
    """Read the headers from the first bytes of a file (4 KiB do for every real program).

    Raises NotLoadable for anything that is not a complete little-endian ELF-64 program.
    """
    if head[:4] != MAGIC:
        raise NotLoadable("no ELF file")
    if len(head) < HEADER.size:
        raise NotLoadable("truncated in the ELF header")
    if head[4] != ELFCLASS64 or head[5] != ELFDATA2LSB:
        raise NotLoadable("not a little-endian 64-bit ELF file")
    _, kind, machine, _, entry, header_offset, _, _, _, entry_size, count, *_ = HEADER.unpack_from(head)
    if kind not in (ET_EXEC, ET_DYN):
        raise NotLoadable("an ELF file, but not a program")
    if entry_size != PROGRAM_HEADER.size or not 0 < count <= MOST_HEADERS:
        raise NotLoadable("program headers of an unknown size")
    if header_offset + count * entry_size > len(head):
        raise NotLoadable("truncated in the program headers")
    segments: list[Segment] = []
    interpreter, executable_stack = None, False
    for at in range(count):
        fields = PROGRAM_HEADER.unpack_from(head, header_offset + at * entry_size)
        type_, flags, offset, address, _, in_file, in_memory, _ = fields
        if type_ == PT_LOAD and in_memory:
            segment = Segment(flags, offset, address, in_file, in_memory)
            _check(segment, file_size, segments)
            segments.append(segment)
        elif type_ == PT_INTERP:
            if not 1 < in_file <= 4096 or offset + in_file > file_size:
                raise NotLoadable("the interpreter's path is out of bounds")
            interpreter = (offset, in_file)
        elif type_ == PT_GNU_STACK:
            executable_stack = bool(flags & PF_X)
    if not segments:
        raise NotLoadable("nothing to load")
    return Program(kind, machine, entry, header_offset, count, tuple(segments), interpreter, executable_stack)


def _check(segment: Segment, file_size: int, before: list[Segment]) -> None:
    if segment.file_size > segment.memory_size or segment.address + segment.memory_size > USER_END:
        raise NotLoadable("a segment with impossible sizes")
    if segment.offset + segment.file_size > file_size:
        raise NotLoadable("truncated in a segment")
    if (segment.offset - segment.address) % 4096:
        raise NotLoadable("a segment that is not aligned to pages")
    if before and segment.address < before[-1].address:
        raise NotLoadable("segments out of order")
