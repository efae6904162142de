"""Kernels are laid out as their boot protocols say, and what cannot be booted is refused."""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pc.boards import MIB, board
from virtus.errors import HostLacks
from virtus.guests.elf import NotLoadable
from virtus.memory.guest_memory import GuestMemory
from virtus.personalities.pc import bios, direct_boot, multiboot, start, without_bios


@contextlib.contextmanager
def memory(size: int = 16 * MIB) -> Iterator[GuestMemory]:
    ram = GuestMemory(size)
    try:
        yield ram
    finally:
        ram.close()


def bzimage(kernel: bytes = b"\x90" * 600, version: int = 0x20F, init_size: int = 2 * MIB) -> bytes:
    image = bytearray(4096)
    image[0x1F1], image[0x201] = 7, 0x66
    image[510:512], image[0x202:0x206] = b"\x55\xaa", b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    image[0x211] = 1
    struct.pack_into("<I", image, 0x22C, 0x37FF_FFFF)
    struct.pack_into("<I", image, 0x238, 2047)
    struct.pack_into("<QI", image, 0x258, MIB, init_size)
    return bytes(image) + kernel


def test_a_linux_kernel_finds_its_zero_page() -> None:
    with memory() as ram:
        began = direct_boot.load(ram, bzimage(), b"ramdisk", "console=ttyS0")
        zero = ram.bytes[began.esi : began.esi + 4096]
        assert began.eip == MIB
        assert bytes(ram.bytes[MIB : MIB + 600]) == b"\x90" * 600
        at, size = struct.unpack_from("<II", zero, 0x218)
        assert bytes(ram.bytes[at : at + size]) == b"ramdisk"
        (line,) = struct.unpack_from("<I", zero, 0x228)
        assert bytes(ram.bytes[line : line + 14]) == b"console=ttyS0\0"
        entries = [struct.unpack_from("<QQI", zero, 0x2D0 + 20 * number) for number in range(zero[0x1E8])]
        assert sum(length for _, length, kind in entries if kind == 1) == 16 * MIB - (MIB - start.LOW_END)
        assert bytes(ram.bytes[start.GDT_AT + 16 : start.GDT_AT + 24]) == bytes.fromhex("ffff0000009bcf00")


@pytest.mark.parametrize(
    ("image", "ramdisk", "line", "said"),
    [
        (b"MZ" + bytes(5000), b"", "", "no Linux bzImage"),
        (bzimage(version=0x202), b"", "", "boot protocol 2.02"),
        (bzimage(init_size=32 * MIB), b"", "", "MiB of memory"),
        (bzimage(), bytes(14 * MIB), "", "does not fit"),
        (bzimage(), b"", "x" * 3000, "command line"),
    ],
)
def test_what_cannot_be_booted_is_told(image: bytes, ramdisk: bytes, line: str, said: str) -> None:
    with memory() as ram, pytest.raises(NotLoadable, match=said):
        direct_boot.load(ram, image, ramdisk, line)


def multiboot_1(flags: int = 0, tail: bytes = b"") -> bytes:
    return struct.pack("<3I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFF_FFFF) + tail


def elf_kernel(header: bytes, physical: int = 0x200000, virtual: int = 0xC0200000) -> bytes:
    body = header.ljust(4096 - 84, b"\x90")
    elf = b"\x7fELF\x01\x01\x01" + bytes(9)
    elf += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, virtual + 8, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    return elf + struct.pack("<8I", 1, 84, virtual, physical, len(body), len(body) + 100, 7, 4) + body


def test_an_elf_kernel_is_entered_at_its_physical_address_and_told_of_modules() -> None:
    with memory() as ram:
        image = elf_kernel(multiboot_1(3))
        began = multiboot.load(ram, image, "root=x", [multiboot.Module(b"first", "one"), multiboot.Module(b"second")])
        assert (began.eax, began.eip) == (0x2BADB002, 0x200008)
        fields = struct.unpack_from("<17I", ram.bytes, began.ebx)
        assert fields[0] & 0x4D == 0x4D
        assert fields[2] == (16 * MIB - MIB) >> 10
        assert bytes(ram.bytes[fields[4] : fields[4] + 7]) == b"root=x\0"
        assert fields[5] == 2
        modules = [struct.unpack_from("<4I", ram.bytes, fields[6] + 16 * number) for number in range(2)]
        assert [bytes(ram.bytes[first:last]) for first, last, _, _ in modules] == [b"first", b"second"]
        assert modules[0][0] % 4096 == 0
        assert bytes(ram.bytes[modules[0][2] : modules[0][2] + 4]) == b"one\0"
        size, base, length, kind = struct.unpack_from("<IQQI", ram.bytes, fields[12])
        assert (size, base, length, kind) == (20, 0, start.LOW_END, 1)
        assert bytes(ram.bytes[fields[16] : fields[16] + 7]) == b"virtus\0"


def test_a_kernel_is_loaded_by_the_addresses_in_its_header() -> None:
    addresses = struct.pack("<5I", 0x100010, 0x100000, 0x100040, 0x100100, 0x100030)
    image = (bytes(16) + multiboot_1(1 << 16, addresses)).ljust(64, b"\xcc")
    with memory() as ram:
        began = multiboot.load(ram, image)
        assert began.eip == 0x100030
        assert bytes(ram.bytes[0x100000:0x100040]) == image


def multiboot_2(*tags: bytes) -> bytes:
    size = 16 + sum(map(len, tags))
    return struct.pack("<4I", 0xE85250D6, 0, size, -(0xE85250D6 + size) & 0xFFFF_FFFF) + b"".join(tags)


def test_the_second_version_is_told_by_tags() -> None:
    with memory() as ram:
        image = elf_kernel(bytes(4) + multiboot_2(struct.pack("<HHI", 0, 0, 8)))
        began = multiboot.load(ram, image, "line", [multiboot.Module(b"data", "name")])
        assert began.eax == 0x36D76289
        total, _ = struct.unpack_from("<II", ram.bytes, began.ebx)
        tags, at = dict[int, bytes](), 8
        while at < total:
            kind, size = struct.unpack_from("<II", ram.bytes, began.ebx + at)
            tags[kind] = bytes(ram.bytes[began.ebx + at + 8 : began.ebx + at + size])
            at += -(-size // 8) * 8
        assert set(tags) == {0, 1, 2, 3, 4, 6}
        assert tags[1] == b"line\0"
        first, last = struct.unpack_from("<II", tags[3])
        assert bytes(ram.bytes[first:last]) == b"data"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"nothing" * 100, "no multiboot header"),
        (elf_kernel(multiboot_1(8)), "unknown features"),
        (multiboot_1() + bytes(64), "neither ELF-32"),
        (elf_kernel(multiboot_1(), physical=0x1000), "above 1 MiB"),
        (elf_kernel(multiboot_1(), physical=0xFFFF_F000), "does not fit"),
        (elf_kernel(multiboot_1())[:2000], "truncated"),
        (bytes(16) + multiboot_1(1 << 16, struct.pack("<5I", 0, 0x100000, 0, 0, 0)), "impossible"),
        (multiboot_2(struct.pack("<HHI", 99, 0, 8)), "requires tag 99"),
        (multiboot_2(struct.pack("<HHI", 3, 0, 4)), "impossible size"),
    ],
)
def test_a_kernel_that_asks_for_too_much_is_refused(image: bytes, said: str) -> None:
    with memory() as ram, pytest.raises(NotLoadable, match=said):
        multiboot.load(ram, image)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_no_image_upsets_a_loader(data: st.DataObject) -> None:
    which = data.draw(st.sampled_from((bzimage(), elf_kernel(multiboot_1(3)), multiboot_2(b"\1" * 8) + bytes(200))))
    image = bytearray(which)
    for _ in range(data.draw(st.integers(0, 6))):
        image[data.draw(st.integers(0, min(len(image), 800) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(image[: data.draw(st.integers(0, len(image)))])
    with memory(2 * MIB) as ram:
        with contextlib.suppress(NotLoadable):
            multiboot.load(ram, cut)
        with contextlib.suppress(NotLoadable):
            direct_boot.load(ram, cut, b"", "")


def test_tables_sum_up_to_zero_and_point_at_each_other() -> None:
    pc, _, ram = board()
    without_bios.set_up(pc, ram)
    root = without_bios.TABLES_AT
    assert bytes(ram.bytes[root : root + 8]) == b"RSD PTR "
    assert sum(ram.bytes[root : root + 20]) & 0xFF == 0
    (rsdt,) = struct.unpack_from("<I", ram.bytes, root + 16)
    (fadt,) = struct.unpack_from("<I", ram.bytes, rsdt + 36)
    (dsdt,) = struct.unpack_from("<I", ram.bytes, fadt + 40)
    for at, name in ((rsdt, b"RSDT"), (fadt, b"FACP"), (dsdt, b"DSDT")):
        signature, size = struct.unpack_from("<4sI", ram.bytes, at)
        assert signature == name
        assert sum(ram.bytes[at : at + size]) & 0xFF == 0
    (length,) = struct.unpack_from("<I", ram.bytes, fadt + 4)
    assert length == 116
    pc.ports.write(without_bios.POWER_AT + 4, 2, 1 << 13)
    assert pc.ended == "power off"
    ram.close()


def test_a_bios_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostLacks, match="apt install seabios"):
        bios.find(tmp_path)


def test_the_boot_order_begins_with_what_was_asked_for() -> None:
    order = bios.boot_order(floppy=True, cdrom=True, disks=1, first="cdrom").splitlines()
    assert [line.split("/")[-2] for line in order] == ["drive@1", "fdc@03f0", "drive@0"]
