"""Modes of the screen as a BIOS and a boot loader set them, and what of a PC is on the terminal."""

import struct

import pytest

from tests.pc.boards import board
from virtus.devices.console import Console
from virtus.devices.pc.ps2 import Ps2Controller
from virtus.devices.pc.vga import TEXT_AT, Vga
from virtus.guests.elf import NotLoadable
from virtus.personalities.pc import video
from virtus.personalities.pc.front import Front, Terminal

FONT = bytes(range(256)) * 16


def test_text_mode_3_has_80_columns_and_25_rows_with_a_font() -> None:
    pc, _, ram = board()
    font = bytearray(FONT)
    font[16 * ord("A") : 16 * ord("B")] = video.LETTER_A
    found = video.find_font(b"before" + font)
    assert found == bytes(font)
    video.set_text_mode(pc.vga, found)
    assert pc.screen.size == (80, 25)
    assert pc.screen.is_text
    ram.bytes[TEXT_AT : TEXT_AT + 4] = b"A\x4e\x01\x07"
    assert pc.screen.text() == "A☺" + "\n" * 24
    width, height, pixels = pc.screen.picture()
    assert (width, height) == (640, 400)
    red, yellow = bytes((0xAA, 0, 0)), bytes((0xFF, 0xFF, 0x55))
    assert pixels[:24] == red * 8
    line = 640 * 3 * 2  # of the A: 00010000
    assert pixels[line : line + 24] == red * 3 + yellow + red * 4
    ram.close()


def test_a_display_bios_without_a_font_has_none() -> None:
    assert video.find_font(b"") is None
    assert video.find_font(video.LETTER_A) is None


@pytest.mark.parametrize(("words", "mode"), [
    ("", None), ("quiet vga=normal", None), ("vga=785", video.Mode(640, 480, 16)),
    ("vga=0x314 quiet", video.Mode(800, 600, 16)), ("vga=ask vga=0x318", video.Mode(1024, 768, 32)),
    ("vga=0x307", video.Mode(1280, 1024, 8)), ("novga=0x314", None),
])  # fmt: skip
def test_a_loader_reads_vga_from_the_command_line(words: str, mode: video.Mode | None) -> None:
    assert video.asked_for(words) == mode


@pytest.mark.parametrize("word", ["vga=0x999", "vga=large", "vga=800x600"])
def test_a_mode_that_there_is_not_is_refused_with_those_there_are(word: str) -> None:
    with pytest.raises(NotLoadable, match=r"0x314 \(800x600x16\)"):
        video.asked_for(word)


@pytest.mark.parametrize("mode", [video.Mode(800, 600, 16), video.Mode(1024, 768, 32), video.Mode(640, 480, 8)])
def test_linux_is_told_of_the_frame_buffer_that_the_screen_shows(mode: video.Mode) -> None:
    pc, _, ram = board()
    video.set_mode(pc.vga, mode)
    assert pc.screen.pixels == (mode.width, mode.height)
    info = video.screen_info(mode, 0xFD00_0000)
    kind, _, width, height, depth, base, size = struct.unpack_from("<BHHHHII", info, 0x0F)
    assert (kind, width, height, depth, base) == (0x23, mode.width, mode.height, mode.depth, 0xFD00_0000)
    (pitch,) = struct.unpack_from("<H", info, 0x24)
    assert pitch * height <= size << 16
    colour = sum((1 << count) - 1 << at for count, at in ((info[0x26], info[0x27]),))  # the reddest
    bytes_ = mode.depth // 8
    pc.vga.write_memory(pitch, bytes_, colour)
    if bytes_ > 1:
        _, _, pixels = pc.screen.picture()
        assert pixels[3 * mode.width : 3 * mode.width + 6] == b"\xff\0\0\0\0\0"
    ram.close()


class Shown(Console):
    """A console that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(-1, -1)
        self.bytes = b""
        self.typed = b""

    def write(self, data: bytes) -> None:
        self.bytes += data

    def read(self) -> bytes:
        typed, self.typed = self.typed, b""
        return typed


def terminal(front: Front) -> tuple[Terminal, Shown, Vga, memoryview]:
    pc, _, ram = board()
    video.set_text_mode(pc.vga, None)
    console = Shown()
    made = Terminal(console, pc.screen, pc.keyboard, front, lambda: 0)
    return made, console, pc.vga, ram.bytes


@pytest.mark.parametrize("first", ["screen", "serial"])
def test_the_terminal_shows_what_a_kernel_writes_to_first(first: str) -> None:
    made, console, _, memory = terminal(Front.FIRST)
    memory[TEXT_AT : TEXT_AT + 2] = b"b\x07"  # the BIOS
    made.serial_out(b"before")
    made.show()
    assert console.bytes == b""
    made.begin()
    made.show()
    assert made.front is Front.FIRST
    if first == "serial":
        made.serial_out(b"hello")
    memory[TEXT_AT : TEXT_AT + 2] = b"k\x07"
    made.show()
    made.serial_out(b"more")
    assert made.front.value == first
    assert console.bytes.startswith(b"hellomore" if first == "serial" else b"\x1b[0m\x1b[2J")


def test_a_terminal_is_told_of_pixels_and_gets_text_again_afterwards() -> None:
    made, console, vga, memory = terminal(Front.SCREEN)
    memory[TEXT_AT : TEXT_AT + 2] = b"T\x07"
    video.set_mode(vga, video.Mode(800, 600, 16))
    made.show()
    made.show()
    assert console.bytes.count(b"800 x 600 pixels") == 1
    vga.dispi[4] = 0
    console.bytes = b""
    made.show()
    assert b"\x1b[2J" in console.bytes
    assert b"T" in console.bytes


def test_what_is_typed_goes_to_the_keyboard_of_a_screen() -> None:
    made, console, _, _ = terminal(Front.SCREEN)
    console.typed = b"a"
    made.poll()
    keyboard = made._keyboard
    assert isinstance(keyboard, Ps2Controller)
    assert keyboard.read(4, 1) & 1
    assert keyboard.read(0, 1) == 0x1E
