"""What a BIOS and a boot loader do about the screen: text mode 3, or one of VESA's modes, and telling Linux of it.

Sources: IBM VGA technical reference (mode 3); Documentation/fb/vesafb.rst (numbers of modes); Documentation/arch/x86/
boot.rst (the loader's option ``vga=``); include/uapi/linux/screen_info.h.
"""

import re
import struct
from typing import Final

from virtus.devices.pc import vga as chip
from virtus.devices.pc.vga import BochsExtension, Vga
from virtus.guests.elf import NotLoadable
from virtus.records import dataclass

# mode 3, 80 columns of 25 rows, as the BIOS sets it
MISCELLANEOUS: Final = 0x67
SEQUENCER: Final = bytes.fromhex("0300030002")
CRTC: Final = bytes.fromhex("5f4f50825581bf1f004f0d0e00000000 9c8e8f281f96b9a3ff")
GRAPHICS: Final = bytes.fromhex("0000000000100e00ff")
ATTRIBUTE: Final = bytes.fromhex("000102030405140738393a3b3c3d3e3f0c000f0800")
COLOURS: Final = 64
STRONG, WEAK = 42, 21  # of 63: the two bits of a colour (blue, green, red from the lowest) in the default palette
LETTER_A: Final = bytes.fromhex("000010386cc6c6fec6c6c6c600000000")
"""Its shape in the VGA's font of 16 lines: by it the font is found in a display BIOS."""
FONT_LINES: Final = 16
FONT_BYTES: Final = 256 * FONT_LINES

TEXT_WORDS: Final = {"normal", "ext", "ask", "0xffff", "65535"}
"""What ``vga=`` may say for a text mode, which it then stays in."""
WIDTHS: Final = {0: (640, 480), 2: (800, 600), 4: (1024, 768), 6: (1280, 1024)}
LOW_MODES, HIGH_MODES = 0x301, 0x310  # 256 colours; 15, 16 and 24 bits of colour by turns
TEXT_SCREEN: Final = struct.pack("<BBHHBBHHHBBH", 0, 0, 0, 0, 3, 80, 0, 0, 0, 25, 1, 16)
"""Text mode 3 with 80 columns and 25 lines on a VGA."""
LINEAR: Final = 0x23  # VIDEO_TYPE_VLFB
FIELDS: Final = {8: (8, 0, 8, 0, 8, 0, 0, 0), 15: (5, 10, 5, 5, 5, 0, 1, 15), 16: (5, 11, 6, 5, 5, 0, 0, 0)}
FIELDS[32] = (8, 16, 8, 8, 8, 0, 8, 24)
"""Size and position of red, green, blue and the rest, by bits of a pixel."""


@dataclass(frozen=True, slots=True)
class Mode:
    """A mode with a linear frame buffer: pixels, and bits of each."""

    width: int
    height: int
    depth: int


def vesa_modes() -> dict[int, Mode]:
    """The modes that ``vga=`` can name. Those of 24 bits have 32 a pixel, as on other cards of today."""
    found = {}
    for step, (width, height) in WIDTHS.items():
        found[LOW_MODES + step] = Mode(width, height, 8)
        for number, depth in enumerate((15, 16, 32)):
            found[HIGH_MODES + step // 2 * 3 + number] = Mode(width, height, depth)
    return found


def asked_for(command_line: str) -> Mode | None:
    """The mode that the option ``vga=`` of a command line asks for; None for text. Raises NotLoadable."""
    words = re.findall(r"(?:^|\s)vga=(\S+)", command_line)
    if not words or words[-1] in TEXT_WORDS:
        return None
    try:
        mode = vesa_modes().get(int(words[-1], 0))
    except ValueError:
        mode = None
    if mode is None:
        known = ", ".join(f"{number:#x} ({it.width}x{it.height}x{it.depth})" for number, it in vesa_modes().items())
        raise NotLoadable(f"vga={words[-1]} is no mode of the screen; there are normal, {known}")
    return mode


def set_text_mode(vga: Vga, font: bytes | None) -> None:
    """Leave the VGA as a BIOS does: mode 3, with these shapes of characters (FONT_BYTES), if any."""
    vga.misc = MISCELLANEOUS
    vga.sequencer[: len(SEQUENCER)] = SEQUENCER
    vga.crtc[: len(CRTC)] = CRTC
    vga.graphics[: len(GRAPHICS)] = GRAPHICS
    vga.attribute[: len(ATTRIBUTE)] = ATTRIBUTE
    for colour in range(COLOURS):
        for part, bit in enumerate((2, 1, 0)):  # red, green, blue
            vga.palette[3 * colour + part] = STRONG * (colour >> bit & 1) + WEAK * (colour >> bit + 3 & 1)
    if font is not None:
        for character in range(256):
            at = chip.PLANES * chip.FONT_STRIDE * character + chip.FONT_PLANE
            shape = font[FONT_LINES * character : FONT_LINES * (character + 1)]
            vga.memory[at : at + chip.PLANES * FONT_LINES : chip.PLANES] = shape


def find_font(display_bios: bytes) -> bytes | None:
    """The font of 16 lines in a display BIOS."""
    start = display_bios.find(LETTER_A) - FONT_LINES * ord("A")
    font = display_bios[start : start + FONT_BYTES] if start >= 0 else b""
    return font if len(font) == FONT_BYTES else None


def set_mode(vga: Vga, mode: Mode) -> None:
    """Have the screen show its linear frame buffer."""
    ports = BochsExtension(vga)
    values = {
        chip.DISPI_X: mode.width, chip.DISPI_Y: mode.height, chip.DISPI_BPP: mode.depth,
        chip.DISPI_ENABLE: chip.DISPI_ENABLED,
    }  # fmt: skip
    for index, value in values.items():
        ports.write(0, 2, index)
        ports.write(1, 2, value)


def screen_info(mode: Mode | None, base: int) -> bytes:
    """What Linux is told: text mode 3, or a linear frame buffer at the physical address `base`."""
    if mode is None:
        return TEXT_SCREEN
    info = bytearray(0x40)
    size = (mode.depth + 7) // 8
    memory = chip.VIDEO_MEMORY >> 16
    struct.pack_into("<BHHHHII", info, 0x0F, LINEAR, 0, mode.width, mode.height, mode.depth, base, memory)
    struct.pack_into("<H8B", info, 0x24, mode.width * size, *FIELDS[mode.depth])
    return bytes(info)
