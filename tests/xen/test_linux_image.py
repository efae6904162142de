"""Kernel images: every packing is unpacked, and what is damaged is refused and never crashes."""

import bz2
import gzip
import lzma
import struct

import lz4.block  # type: ignore[import-untyped]  # has no types
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from virtus.guests import elf, linux_image
from virtus.guests.elf import NotLoadable
from virtus.guests.linux_image import KernelImage

BASE = 0xFFFF_FFFF_8000_0000
CODE = b"\xf4" * 64


def note(kind: int, value: bytes, name: bytes = b"Xen\0") -> bytes:
    return (
        struct.pack("<III", len(name), len(value), kind)
        + name.ljust(len(name) + 3 & ~3, b"\0")
        + value.ljust(len(value) + 3 & ~3, b"\0")
    )


NOTES = (
    note(1, struct.pack("<Q", BASE + 0x100_0000))
    + note(3, struct.pack("<Q", BASE))
    + note(15, struct.pack("<Q", 1 << 39))
    + note(16, struct.pack("<I", 1))
    + note(3, b"ignored", b"GNU\0")
)


def kernel(notes: bytes = NOTES, machine: int = elf.EM_X86_64, physical: int = 0x100_0000) -> bytes:
    ident = elf.MAGIC + bytes([2, 1, 1]) + bytes(9)
    at = 64 + 2 * 56
    header = elf.HEADER.pack(ident, 2, machine, 1, BASE + 0x100_0000, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = elf.PROGRAM_HEADER.pack(1, 5, at, BASE, physical, len(CODE), 4096, 4096)
    noted = elf.PROGRAM_HEADER.pack(4, 4, at + len(CODE), 0, 0, len(notes), len(notes), 4)
    return header + load + noted + CODE + notes


def boot_image(payload: bytes, version: int = 0x20F) -> bytes:
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload


def packed_lz4(data: bytes) -> bytes:
    blocks = [data[at : at + linux_image.LZ4_BLOCK] for at in range(0, len(data), linux_image.LZ4_BLOCK)]
    packed = [lz4.block.compress(block, store_size=False) for block in blocks]
    return linux_image.LZ4_LEGACY + b"".join(struct.pack("<I", len(one)) + one for one in packed)


PACKERS = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": packed_lz4,
}


@pytest.mark.parametrize("packing", PACKERS)
def test_every_packing_gives_the_kernel(packing: str) -> None:
    inside = kernel()
    appended = b"" if packing == "gzip" else struct.pack("<I", len(inside))
    image = linux_image.read(boot_image(PACKERS[packing](inside) + appended))
    assert [(one.physical, bytes(one.data), one.memory_size) for one in image.segments] == [(0x100_0000, CODE, 4096)]
    xen = image.xen()
    assert (xen.entry, xen.virtual_base, xen.p2m_address) == (BASE + 0x100_0000, BASE, 1 << 39)
    assert xen.module_by_frame and xen.hypercall_page is None


def test_an_elf_kernel_is_taken_as_it_is() -> None:
    assert linux_image.read(kernel()).end == 0x100_1000


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "neither"),
        (b"MZ" * 600, "neither"),
        (boot_image(b"nonsense" * 9), "unknown way"),
        (boot_image(gzip.compress(kernel()))[:-60], "truncated"),
        (boot_image(gzip.compress(kernel()), version=0x207), "old boot protocol 2.07"),
        (boot_image(gzip.compress(b"x" * 999)), "no ELF"),
        (boot_image(linux_image.LZ4_LEGACY + b"\xff" * 40), "beyond the end"),
        (boot_image(linux_image.XZ + b"\xff" * 40), "damaged"),
        (boot_image(linux_image.ZSTANDARD + b"\xff" * 40), "more than"),
        (kernel(machine=elf.EM_RISCV), "not a kernel for x86-64"),
        (kernel(physical=1 << 40), "impossible sizes"),
        (kernel()[:100], "truncated in the program headers"),
        (kernel()[:-1], "truncated in a segment"),
    ],
)
def test_what_is_no_kernel_is_refused_with_the_reason(image: bytes, words: str) -> None:
    with pytest.raises(NotLoadable, match=words):
        linux_image.read(image)


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        (b"", "without Xen PV support"),
        (note(1, b"\1\2\3") + note(3, bytes(8)), "no number"),
        (note(1, struct.pack("<Q", 1 << 50)) + note(3, bytes(8)), "no processor has"),
        (note(1, struct.pack("<Q", 1 << 40)) + note(3, bytes(8)), "outside of the kernel"),
        (NOTES + note(4, struct.pack("<Q", 4096)), "physical offset"),
    ],
)
def test_what_is_no_paravirtual_kernel_is_refused(notes: bytes, words: str) -> None:
    with pytest.raises(NotLoadable, match=words):
        linux_image.read(kernel(notes)).xen()


def test_no_payload_grows_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_image, "LARGEST", 1 << 20)
    for packing in ("gzip", "xz", "bzip2", "zstd"):
        payload = PACKERS[packing](bytes(3 << 20)) + struct.pack("<I", 3 << 20)
        with pytest.raises(NotLoadable, match="more than 1 MiB"):
            linux_image.read(boot_image(payload))


def whole(image: bytes) -> KernelImage | None:
    try:
        read = linux_image.read(image)
        read.xen()
    except NotLoadable:
        return None
    return read


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(kernel()) - 1), st.integers(0, 255)), max_size=6))
def test_a_damaged_elf_kernel_is_read_or_refused(damages: list[tuple[int, int]]) -> None:
    image = bytearray(kernel())
    for at, byte in damages:
        image[at] = byte
    read = whole(bytes(image))
    if read is not None:
        assert all(len(one.data) <= one.memory_size and one.physical >= 0 for one in read.segments)
        assert read.end <= linux_image.LARGEST


@pytest.mark.slow
@given(st.sampled_from(sorted(PACKERS)), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4))
def test_a_damaged_payload_is_read_or_refused(packing: str, damages: list[tuple[int, int]]) -> None:
    image = bytearray(boot_image(PACKERS[packing](kernel()) + struct.pack("<I", len(kernel()))))
    for at, byte in damages:
        image[at % len(image)] = byte
    whole(bytes(image))
