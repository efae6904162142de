"""What is on the screen: as text for a terminal, and as a picture.

Characters are those of code page 437, the font of the VGA's text modes.
"""

from pathlib import Path
from typing import Final

from virtus.devices.pc.bus import DmaMemory
from virtus.devices.pc.vga import (
    DISPI_BPP,
    DISPI_VIRTUAL_X,
    DISPI_X,
    DISPI_X_OFFSET,
    DISPI_Y,
    DISPI_Y_OFFSET,
    FONT_STRIDE,
    Vga,
    text_memory,
)
from virtus.errors import VirtusError

LOW_SHAPES: Final = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
CHARACTERS: Final = LOW_SHAPES + bytes(range(0x20, 0x100)).decode("cp437").replace("\x7f", "⌂")
TO_ANSI: Final = (0, 4, 2, 6, 1, 5, 3, 7)
"""A VGA colour's number of three bits, blue lowest, as ANSI numbers it, red lowest."""
FONT_WIDTH: Final = 8


class Screen:
    """The screen of a VGA over a machine's memory."""

    def __init__(self, memory: DmaMemory, vga: Vga) -> None:
        self._memory, self._vga = memory, vga
        self._shown: list[bytes] = []
        self._cursor = -1

    @property
    def is_text(self) -> bool:
        """Whether the screen shows characters."""
        return self._vga.text_mode

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height in graphics modes."""
        vga = self._vga
        if vga.linear_mode:
            return max(vga.dispi[DISPI_X], 8), max(vga.dispi[DISPI_Y], 1)
        lines = (vga.crtc[0x12] | (vga.crtc[7] & 2) << 7 | (vga.crtc[7] & 0x40) << 3) + 1
        lines //= 2 if vga.crtc[9] & 0x9F else 1
        return self.size[0] * (4 if vga.sequencer[4] & 8 else 8), lines

    def forget(self) -> None:
        """The terminal shows something else: all of the screen is to be sent again."""
        self._shown, self._cursor = [], -1

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows in text mode."""
        crtc = self._vga.crtc
        height = (crtc[9] & 31) + 1
        lines = (crtc[0x12] | (crtc[7] & 2) << 7 | (crtc[7] & 0x40) << 3) + 1
        columns = crtc[1] + 1
        return min(max(columns, 40), 132), min(max(lines // height, 1), 60)

    def rows(self) -> list[bytes]:
        """Characters and attributes of each row."""
        columns, rows = self.size
        data = text_memory(self._memory, self._vga, columns, rows)
        return [data[at : at + 2 * columns] for at in range(0, 2 * columns * rows, 2 * columns)]

    def text(self) -> str:
        """What is to be read on the screen; empty in graphics modes."""
        if not self._vga.text_mode:
            return ""
        return "\n".join("".join(CHARACTERS[char] for char in row[::2]).rstrip() for row in self.rows())

    def cursor(self) -> int:
        """Where the cursor is, counted in characters from the upper left; -1: it is not shown."""
        crtc = self._vga.crtc
        start = crtc[0x0C] << 8 | crtc[0x0D]
        at = (crtc[0x0E] << 8 | crtc[0x0F]) - start
        columns, rows = self.size
        return at if 0 <= at < columns * rows and not crtc[0x0A] & 0x20 else -1

    def changes(self) -> bytes:
        """What a terminal has to be sent to show the screen: rows that have changed, and the cursor."""
        if not self._vga.text_mode:
            return b""
        rows, out = self.rows(), list[str]()
        if len(rows) != len(self._shown):
            self._shown = [b""] * len(rows)
            out.append("\x1b[0m\x1b[2J")
        for number, row in enumerate(rows):
            if row != self._shown[number]:
                out.append(f"\x1b[{number + 1};1H{_ansi(row)}")
        self._shown = rows
        cursor = self.cursor()
        if out or cursor != self._cursor:
            line, column = divmod(max(cursor, 0), self.size[0])
            out.append(f"\x1b[0m\x1b[{line + 1};{column + 1}H\x1b[?25{'h' if cursor >= 0 else 'l'}")
            self._cursor = cursor
        return "".join(out).encode()

    def picture(self) -> tuple[int, int, bytes]:
        """Width, height, and red, green and blue of every pixel."""
        vga = self._vga
        if vga.linear_mode:
            return self._linear_picture()
        return self._text_picture() if vga.text_mode else self._planar_picture()

    def _colour(self, index: int) -> bytes:
        palette = self._vga.palette
        return bytes(value << 2 | value >> 4 for value in palette[3 * index : 3 * index + 3])

    def _text_picture(self) -> tuple[int, int, bytes]:
        vga, (columns, rows) = self._vga, self.size
        height = (vga.crtc[9] & 31) + 1
        font = vga.font()
        colours = [self._colour(vga.attribute[number] & 0x3F) for number in range(16)]
        lines = list[bytes]()
        for row in self.rows():
            for line in range(height):
                pixels = bytearray()
                for char, attribute in zip(row[::2], row[1::2], strict=True):
                    shape = font[FONT_STRIDE * char + line]
                    ink, paper = colours[attribute & 15], colours[attribute >> 4 & 7]
                    for bit in range(FONT_WIDTH - 1, -1, -1):
                        pixels += ink if shape >> bit & 1 else paper
                lines.append(bytes(pixels))
        return columns * FONT_WIDTH, rows * height, b"".join(lines)

    def _planar_picture(self) -> tuple[int, int, bytes]:
        vga = self._vga
        width, height = self.pixels
        start, stride = vga.crtc[0x0C] << 8 | vga.crtc[0x0D], vga.crtc[0x13] * 2
        pixels = bytearray()
        if vga.sequencer[4] & 8:  # 256 colours
            colours = [self._colour(index) for index in range(256)]
            for line in range(height):
                at = 4 * (start + line * stride)
                row = bytes(vga.memory[at : at + width]).ljust(width, b"\0")
                pixels += b"".join([colours[value] for value in row])
            return width, height, bytes(pixels)
        colours = [self._colour(vga.attribute[number] & 0x3F) for number in range(16)]
        for line in range(height):
            for column in range(width // 8):
                at = 4 * (start + line * stride + column & 0xFFFF)
                planes = vga.memory[at : at + 4]
                for bit in range(7, -1, -1):
                    index = sum((planes[number] >> bit & 1) << number for number in range(4))
                    pixels += colours[index]
        return width, height, bytes(pixels)

    def _linear_picture(self) -> tuple[int, int, bytes]:
        vga, dispi = self._vga, self._vga.dispi
        (width, height), depth = self.pixels, dispi[DISPI_BPP]
        size = (depth + 7) // 8
        pitch = dispi[DISPI_VIRTUAL_X] * size
        start = dispi[DISPI_Y_OFFSET] * pitch + dispi[DISPI_X_OFFSET] * size
        colours = [self._colour(index) for index in range(256)] if size == 1 else []
        pixels = bytearray()
        for line in range(height):
            at = start + line * pitch
            row = bytes(vga.memory[at : at + width * size]).ljust(width * size, b"\0")
            if size == 1:
                pixels += b"".join([colours[value] for value in row])
            elif size == 2:
                pixels += _high_colour(row, green=6 if depth == 16 else 5)
            else:
                rgb = bytearray(3 * width)
                rgb[0::3], rgb[1::3], rgb[2::3] = row[2::size], row[1::size], row[0::size]
                pixels += rgb
        return width, height, bytes(pixels)

    def screenshot(self, path: Path) -> None:
        """Write the picture as PNG; raises VirtusError where the file cannot be written."""
        from PIL import Image  # heavy, and seldom wanted

        width, height, pixels = self.picture()
        try:
            Image.frombytes("RGB", (width, height), pixels).save(path, format="PNG")
        except OSError as error:
            raise VirtusError("writing a screenshot", f"{path}: {error.strerror or error}") from error


def _high_colour(row: bytes | bytearray, *, green: int) -> bytes:
    out = bytearray()
    for at in range(0, len(row), 2):
        value = row[at] | row[at + 1] << 8
        red = value >> 5 + green & 31
        middle = value >> 5 & (1 << green) - 1
        out += bytes((red << 3 | red >> 2, middle << 8 - green & 0xFF, (value & 31) << 3 | (value & 31) >> 2))
    return bytes(out)


def _ansi(row: bytes) -> str:
    """A row with its colours as a terminal wants them."""
    out, last = ["\x1b[0m"], -1
    for char, attribute in zip(row[::2], row[1::2], strict=True):
        if attribute != last:
            ink = (90 if attribute & 8 else 30) + TO_ANSI[attribute & 7]
            out.append(f"\x1b[{ink};{40 + TO_ANSI[attribute >> 4 & 7]}m")
            last = attribute
        out.append(CHARACTERS[char])
    return "".join(out)
