"""The board under a hostile guest, and what it shows."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pc.boards import board, image
from virtus.devices.disk import Disk
from virtus.exits import Exit, Reason
from virtus.personalities.pc.board import Media

PORTS = [
    *range(0x10),
    *range(0x20, 0x22),
    *range(0x40, 0x44),
    *range(0x60, 0x65),
    0x70,
    0x71,
    *range(0x80, 0x90),
    0x92,
    0xA0,
    0xA1,
    0xB2,
    *range(0xC0, 0xE0),
    *range(0x170, 0x178),
    *range(0x1CE, 0x1D0),
    *range(0x1F0, 0x1F8),
    0x376,
    *range(0x3B0, 0x3E0),
    *range(0x3F0, 0x400),
    0x402,
    0x4D0,
    0x4D1,
    *range(0x510, 0x51C),
    *range(0xCF8, 0xD00),
    *range(0xAFE0, 0xAFE4),
    *range(0xB000, 0xB010),
    *range(0xC000, 0xC020),
    *range(0xC040, 0xC050),
    0xFFFF,
]
ACCESSES = st.lists(
    st.tuples(
        st.sampled_from(PORTS),
        st.sampled_from((1, 2, 4)),
        st.booleans(),
        st.one_of(st.integers(0, 255), st.integers(0, 0xFFFF_FFFF)),
    ),
    max_size=200,
)


def access(reason: Reason, number: int, size: int, write: bool, value: int) -> Exit:
    found = Exit()
    found.reason, found.number, found.size, found.write, found.value = reason, number, size, write, value
    return found


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACCESSES)
def test_no_port_traffic_upsets_the_board(tmp_path: Path, accesses: list[tuple[int, int, bool, int]]) -> None:
    disk = Disk(image(tmp_path / "disk", 1 << 18), snapshot=True)
    cdrom = Disk(image(tmp_path / "iso", 1 << 16), read_only=True)
    floppy = Disk(image(tmp_path / "floppy", 163840), snapshot=True)
    pc, time, ram = board(Media(disks=[disk], cdrom=cdrom, floppy=floppy, files={"bootorder": b"x"}))
    try:
        pc.ports.write(0xCF8, 4, 0x8000_1804)  # the card at C000h, the bus master at C040h
        pc.ports.write(0xCFC, 2, 7)
        pc.ports.write(0xCF8, 4, 0x8000_1810)
        pc.ports.write(0xCFC, 4, 0xC000)
        pc.ports.write(0xCF8, 4, 0x8000_0904)
        pc.ports.write(0xCFC, 2, 7)
        pc.ports.write(0xCF8, 4, 0x8000_0920)
        pc.ports.write(0xCFC, 4, 0xC040)
        for port, size, write, value in accesses:
            exit = access(Reason.PORT_IO, port, size, write, value)
            pc.handle(exit)
            assert write or 0 <= exit.value < 1 << 8 * size
            time.pass_ns(100_000)
            if pc.pending():
                assert 0 <= pc.acknowledge() < 256
        pc.screen.text()
        pc.screen.changes()
    finally:
        for each in (disk, cdrom, floppy):
            each.close()
        ram.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0xFFFF_FFFF), st.sampled_from((1, 2, 4, 8)), st.booleans()), max_size=20))
def test_no_memory_traffic_upsets_the_board(accesses: list[tuple[int, int, bool]]) -> None:
    pc, _, ram = board()
    for address, size, write in accesses:
        for at in (address, 0xA0000 + address % 0x10000):
            exit = access(Reason.MEMORY_IO, at, size, write, (1 << 8 * size) - 1)
            pc.handle(exit)
            assert 0 <= exit.value < 1 << 8 * size
    ram.close()


def test_the_text_screen_is_read_from_memory_and_sent_as_it_changes() -> None:
    pc, _, ram = board()
    crtc = pc.vga.crtc
    crtc[1], crtc[9], crtc[0x12], crtc[7] = 79, 15, 0x8F, 0x1F
    ram.bytes[0xB8000 : 0xB8000 + 4000] = b" \x07" * 2000
    ram.bytes[0xB8000 : 0xB8000 + 10] = b"h\x07i\x07\xe9\x1f!\x07\x01\x07"
    assert pc.screen.size == (80, 25)
    assert pc.screen.text().splitlines()[0] == "hiΘ!☺"
    first = pc.screen.changes().decode()
    assert "hi" in first
    assert "\x1b[37" not in pc.screen.changes().decode()
    ram.bytes[0xB8000 + 160 : 0xB8000 + 162] = b"x\x07"
    changed = pc.screen.changes().decode()
    assert "\x1b[2;1H" in changed
    assert "hi" not in changed
    ram.close()


def test_a_screenshot_has_the_characters_of_the_loaded_font(tmp_path: Path) -> None:
    from PIL import Image

    pc, _, ram = board()
    crtc = pc.vga.crtc
    crtc[1], crtc[9], crtc[0x12], crtc[7] = 79, 15, 0x8F, 0x1F
    pc.vga.attribute[7] = 7
    pc.vga.palette[21:24] = bytes((63, 0, 63))
    pc.vga.memory[2 + 4 * 32 * ord("h")] = 0x81  # the first line of its shape
    ram.bytes[0xB8000 : 0xB8000 + 2] = b"h\x07"
    pc.screen.screenshot(tmp_path / "screen.png")
    with Image.open(tmp_path / "screen.png") as picture:
        assert picture.size == (640, 400)
        row = [picture.getpixel((x, 0)) for x in range(8)]
    ink, paper = (255, 0, 255), (0, 0, 0)
    assert row == [ink, *[paper] * 6, ink]
    ram.close()


def test_dma_outside_of_memory_is_dropped_and_noted() -> None:
    pc, _, ram = board()
    pc.dma.write(ram.size - 2, b"abcd")
    assert bytes(ram.bytes[-2:]) == b"ab"
    assert pc.dma.read(1 << 40, 4) == b"\xff" * 4
    assert pc.dma.outside == 2
    ram.close()


def test_a_timer_reaches_the_processor_through_the_board() -> None:
    pc, time, ram = board()
    for port, value in (
        (0x20, 0x11),
        (0x21, 8),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xFE),
        (0x43, 0x34),
        (0x40, 0),
        (0x40, 4),
    ):
        pc.ports.write(port, 1, value)
    assert not pc.pending() or pc.acknowledge() == 8
    pc.ports.write(0x20, 1, 0x20)
    deadline = pc.deadline_ns()
    assert deadline is not None
    time.now = deadline
    assert pc.pending()
    assert pc.acknowledge() == 8
    ram.close()


def test_the_machine_ends_by_reset_and_by_a_triple_fault() -> None:
    pc, _, ram = board()
    pc.handle(access(Reason.PORT_IO, 0x64, 1, True, 0xFE))
    assert (pc.running, pc.ended, pc.status) == (False, "reboot", 0)
    pc, _, _ = board(memory=ram)
    pc.handle(access(Reason.ENDED, 0, 0, False, 0))
    assert pc.status == 1
    ram.close()
