"""Kernel images: a bzImage's payload is unpacked, an ELF kernel's segments and Xen notes are read, all strictly.

Sources: Documentation/arch/x86/boot.rst (bzImage), System V ABI "Object Files" (ELF, notes),
xen/include/public/elfnote.h.
The bytes come from whoever made the image: every offset is checked, and an unpacked kernel has a largest size.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Final, Protocol

from virtus.guests import elf
from virtus.guests.elf import NotLoadable
from virtus.records import dataclass

LARGEST: Final = 512 << 20
"""No kernel is larger unpacked; a payload that grows beyond is refused."""
# the setup header (boot.rst, "Details of header fields")
SETUP_SECTORS_AT, MAGIC_AT, VERSION_AT, PAYLOAD_AT = 0x1F1, 0x202, 0x206, 0x248
BOOT_MAGIC: Final = b"HdrS"
PAYLOAD_PROTOCOL: Final = 0x208  # payload_offset and payload_length exist from this boot protocol on
SECTOR: Final = 512
SIZE_APPENDED: Final = 4  # the build appends the unpacked size (scripts/Makefile.lib, size_append)

GZIP, XZ, LZMA, BZIP2 = b"\x1f\x8b", b"\xfd7zXZ\0", b"\x5d\0\0", b"BZh"
ZSTANDARD, LZ4_LEGACY = b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18"
LZ4_BLOCK: Final = 8 << 20  # lz4_Frame_format.md, "Legacy frame": blocks of at most 8 MiB unpacked

PT_NOTE: Final = 4
EV_NOTE: Final = struct.Struct("<III")  # name size, descriptor size, type
XEN_NAME: Final = b"Xen\0"
# elfnote.h
NOTE_ENTRY, NOTE_HYPERCALL_PAGE, NOTE_VIRTUAL_BASE, NOTE_PHYSICAL_OFFSET = 1, 2, 3, 4
NOTE_INITIAL_P2M, NOTE_MODULE_FRAME = 15, 16
MOST_NOTE_BYTES: Final = 1 << 20
CANONICAL_HALF: Final = 1 << 47
ADDRESS_END: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class KernelSegment:
    """A PT_LOAD of a kernel: bytes for pseudo-physical memory, followed by zeros up to `memory_size`."""

    physical: int
    data: memoryview
    memory_size: int


@dataclass(frozen=True, slots=True)
class XenEntry:
    """What a paravirtual kernel says of itself in its Xen notes."""

    entry: int  # virtual address of the first instruction
    virtual_base: int  # where pseudo-physical address 0 is mapped
    p2m_address: int | None  # where it wants its list of machine frames, None: anywhere after the kernel
    hypercall_page: int | None  # virtual address of a page to be filled with calls, None: it makes its own
    module_by_frame: bool  # takes the initial ramdisk unmapped, by frame number


@dataclass(frozen=True, slots=True)
class KernelImage:
    """An ELF kernel for x86-64."""

    entry: int
    segments: tuple[KernelSegment, ...]
    notes: dict[int, bytes]  # of the owner "Xen"

    @property
    def end(self) -> int:
        """The pseudo-physical address behind the last segment."""
        return max(segment.physical + segment.memory_size for segment in self.segments)

    def xen(self) -> XenEntry:
        """How it is entered as a paravirtual domain; raises NotLoadable where it cannot be one."""
        if NOTE_ENTRY not in self.notes or NOTE_VIRTUAL_BASE not in self.notes:
            raise NotLoadable("a kernel without Xen PV support (no Xen ELF notes; CONFIG_XEN_PV)")
        if _number(self.notes, NOTE_PHYSICAL_OFFSET) not in (0, None):
            raise NotLoadable("a kernel with a physical offset of its own")
        entry, base = _number(self.notes, NOTE_ENTRY), _number(self.notes, NOTE_VIRTUAL_BASE)
        p2m, page = _number(self.notes, NOTE_INITIAL_P2M), _number(self.notes, NOTE_HYPERCALL_PAGE)
        assert entry is not None and base is not None
        for address in (entry, base, p2m, page):
            if address is not None and CANONICAL_HALF <= address < ADDRESS_END - CANONICAL_HALF:
                raise NotLoadable("a Xen note with an address that no processor has")
        if not base <= entry < base + self.end:
            raise NotLoadable("an entry point outside of the kernel")
        return XenEntry(entry, base, p2m, page, bool(_number(self.notes, NOTE_MODULE_FRAME)))


def read(image: bytes) -> KernelImage:
    """A kernel from a bzImage or an ELF file; raises NotLoadable."""
    return parse_elf(image if image.startswith(elf.MAGIC) else unpack(image))


def unpack(image: bytes) -> bytes:
    """The ELF kernel inside of a bzImage; raises NotLoadable."""
    if len(image) < PAYLOAD_AT + 8 or image[MAGIC_AT : MAGIC_AT + 4] != BOOT_MAGIC:
        raise NotLoadable("neither a bzImage nor an ELF kernel")
    version = struct.unpack_from("<H", image, VERSION_AT)[0]
    if version < PAYLOAD_PROTOCOL:
        raise NotLoadable(f"a bzImage of the old boot protocol {version >> 8}.{version & 255:02}")
    offset, length = struct.unpack_from("<II", image, PAYLOAD_AT)
    start = ((image[SETUP_SECTORS_AT] or 4) + 1) * SECTOR + offset
    payload = memoryview(image)[start : start + length]
    if len(payload) != length or length < SIZE_APPENDED + 8:
        raise NotLoadable("a truncated bzImage")
    head = bytes(payload[:6])
    for magic, unpacker in _UNPACKERS.items():
        if head.startswith(magic):
            kernel = unpacker(payload)
            if not kernel.startswith(elf.MAGIC):
                raise NotLoadable("a bzImage whose payload is no ELF kernel")
            return kernel
    raise NotLoadable(f"a bzImage packed in an unknown way ({head.hex()})")


class _Decompressor(Protocol):
    def decompress(self, data: memoryview, max_length: int = ...) -> bytes: ...


def _bounded(make: Callable[[], _Decompressor]) -> Callable[[memoryview], bytes]:
    """An unpacker that stops at LARGEST."""

    def unpacker(payload: memoryview) -> bytes:
        try:
            kernel = make().decompress(payload, LARGEST + 1)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise NotLoadable(f"a damaged bzImage: {error}") from error
        _check_size(len(kernel))
        return kernel

    return unpacker


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise NotLoadable(f"a kernel of more than {LARGEST >> 20} MiB")


def _zstandard(payload: memoryview) -> bytes:
    import zstandard  # only such kernels need it

    size = struct.unpack_from("<I", payload, len(payload) - SIZE_APPENDED)[0]
    _check_size(size)
    try:
        return zstandard.ZstdDecompressor().decompress(
            payload[:-SIZE_APPENDED], max_output_size=size, allow_extra_data=True
        )
    except (zstandard.ZstdError, MemoryError) as error:
        raise NotLoadable(f"a damaged bzImage: {error}") from error


def _lz4(payload: memoryview) -> bytes:
    import lz4.block  # type: ignore[import-untyped]  # has no types; only such kernels need it

    kernel, at, end = bytearray(), len(LZ4_LEGACY), len(payload) - SIZE_APPENDED
    while at + 4 <= end:
        size = struct.unpack_from("<I", payload, at)[0]
        at += 4
        if not 0 < size <= end - at:
            raise NotLoadable("a damaged bzImage: an LZ4 block beyond the end")
        try:
            kernel += lz4.block.decompress(payload[at : at + size], uncompressed_size=LZ4_BLOCK)
        except (lz4.block.LZ4BlockError, ValueError, MemoryError) as error:
            raise NotLoadable(f"a damaged bzImage: {error}") from error
        _check_size(len(kernel))
        at += size
    return bytes(kernel)


_UNPACKERS: Final[dict[bytes, Callable[[memoryview], bytes]]] = {
    GZIP: _bounded(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)),
    XZ: _bounded(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    LZMA: _bounded(lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE)),
    BZIP2: _bounded(bz2.BZ2Decompressor),
    ZSTANDARD: _zstandard,
    LZ4_LEGACY: _lz4,
}


def parse_elf(image: bytes) -> KernelImage:
    """Segments and Xen notes of an ELF kernel; raises NotLoadable."""
    if len(image) < elf.HEADER.size or image[4] != elf.ELFCLASS64 or image[5] != elf.ELFDATA2LSB:
        raise NotLoadable("not a little-endian 64-bit ELF file")
    _, kind, machine, _, entry, header_at, _, _, _, entry_size, count, *_ = elf.HEADER.unpack_from(image)
    if machine != elf.EM_X86_64 or kind not in (elf.ET_EXEC, elf.ET_DYN):
        raise NotLoadable("not a kernel for x86-64")
    if entry_size != elf.PROGRAM_HEADER.size or header_at + count * entry_size > len(image):
        raise NotLoadable("truncated in the program headers")
    view, segments, notes = memoryview(image), list[KernelSegment](), dict[int, bytes]()
    for at in range(count):
        fields = elf.PROGRAM_HEADER.unpack_from(image, header_at + at * entry_size)
        type_, _, offset, _, physical, in_file, in_memory, _ = fields
        if type_ not in (elf.PT_LOAD, PT_NOTE):
            continue
        if offset + in_file > len(image):
            raise NotLoadable("truncated in a segment")
        if type_ == PT_NOTE:
            notes |= _notes(view[offset : offset + in_file])
        elif in_memory:
            if in_file > in_memory or physical + in_memory > LARGEST:
                raise NotLoadable("a segment with impossible sizes")
            segments.append(KernelSegment(physical, view[offset : offset + in_file], in_memory))
    if not segments:
        raise NotLoadable("nothing to load")
    return KernelImage(entry, tuple(segments), notes)


def _notes(section: memoryview) -> dict[int, bytes]:
    """The notes of the owner "Xen" in a PT_NOTE segment, by type."""
    notes, at = dict[int, bytes](), 0
    if len(section) > MOST_NOTE_BYTES:
        raise NotLoadable("notes of an impossible size")
    while at + EV_NOTE.size <= len(section):
        name_size, size, type_ = EV_NOTE.unpack_from(section, at)
        name_at = at + EV_NOTE.size
        value_at = name_at + (name_size + 3 & ~3)
        if value_at + size > len(section):
            raise NotLoadable("truncated in a note")
        if bytes(section[name_at : name_at + name_size]) == XEN_NAME:
            notes[type_] = bytes(section[value_at : value_at + size])
        at = value_at + (size + 3 & ~3)
    return notes


def _number(notes: dict[int, bytes], type_: int) -> int | None:
    """A note that is a number of 4 or 8 bytes; None where there is none."""
    value = notes.get(type_)
    if value is None:
        return None
    if len(value) not in (4, 8):
        raise NotLoadable(f"Xen note {type_} is no number")
    return int.from_bytes(value, "little")
