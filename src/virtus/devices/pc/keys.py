"""Characters as the keys of a US keyboard that make them, in scan code set 1 (IBM PS/2 technical reference, keyboard).

Codes of set 1 are what PC software expects; `SET_2` gives what the keyboard itself sends before the controller
translates.
"""

from collections.abc import Iterator
from typing import Final

SHIFT, CONTROL, RELEASED, EXTENDED = 0x2A, 0x1D, 0x80, 0xE0
_PLAIN: Final = {0x02: "1234567890-=", 0x10: "qwertyuiop[]", 0x1E: "asdfghjkl;'`", 0x2B: "\\zxcvbnm,./"}
_SHIFTED: Final = {0x02: "!@#$%^&*()_+", 0x10: "QWERTYUIOP{}", 0x1E: 'ASDFGHJKL:"~', 0x2B: "|ZXCVBNM<>?"}
_SPECIAL: Final = {0x1B: 0x01, 0x08: 0x0E, 0x7F: 0x0E, 0x09: 0x0F, 0x0D: 0x1C, 0x0A: 0x1C, 0x20: 0x39}
_SEQUENCES: Final = {
    b"\x1b[A": (EXTENDED, 0x48),
    b"\x1b[B": (EXTENDED, 0x50),
    b"\x1b[C": (EXTENDED, 0x4D),
    b"\x1b[D": (EXTENDED, 0x4B),
    b"\x1b[H": (EXTENDED, 0x47),
    b"\x1b[F": (EXTENDED, 0x4F),
    b"\x1b[2~": (EXTENDED, 0x52),
    b"\x1b[3~": (EXTENDED, 0x53),
    b"\x1b[5~": (EXTENDED, 0x49),
    b"\x1b[6~": (EXTENDED, 0x51),
    b"\x1bOP": (0x3B,),
    b"\x1bOQ": (0x3C,),
    b"\x1bOR": (0x3D,),
    b"\x1bOS": (0x3E,),
    b"\x1b[15~": (0x3F,),
    b"\x1b[17~": (0x40,),
    b"\x1b[18~": (0x41,),
    b"\x1b[19~": (0x42,),
    b"\x1b[20~": (0x43,),
    b"\x1b[21~": (0x44,),
    b"\x1b[23~": (0x57,),
    b"\x1b[24~": (0x58,),
}
"""What a terminal sends for keys that make no character (xterm's control sequences)."""

KEYS: Final = {ord(char): start + at for start, row in _PLAIN.items() for at, char in enumerate(row)} | _SPECIAL
SHIFTED: Final = {ord(char): start + at for start, row in _SHIFTED.items() for at, char in enumerate(row)}

# set 2, by set 1 code from 0 on
_SET_2: Final = bytes.fromhex(
    "0076161e262e25363d3e46454e55660d"  # to Tab
    "151d242d2c353c43444d54 5b5a14 1c1b".replace(" ", "")
    + "232b34333b424b4c520e125d1a22212a"
    + "32313a41494a597c1129 58 05060 4 0c03".replace(" ", "")
    + "0b83 0a01 0977 7e6c757d7b6b73 7479 69".replace(" ", "")
    + "727a70717f6061 7807".replace(" ", "")
)
SET_2: Final = dict(enumerate(_SET_2))


def strokes(data: bytes) -> Iterator[bytes]:
    """Each key pressed and released, as bytes of scan code set 1; what no key makes is left out."""
    while data:
        for sequence, codes in _SEQUENCES.items():
            if data.startswith(sequence):
                yield bytes(codes) + bytes((*codes[:-1], codes[-1] | RELEASED))
                data = data[len(sequence) :]
                break
        else:
            stroke = _stroke(data[0])
            if stroke:
                yield stroke
            data = data[1:]


def _stroke(char: int) -> bytes:
    if char in KEYS:
        return bytes((KEYS[char], KEYS[char] | RELEASED))
    if char in SHIFTED:
        key = SHIFTED[char]
        return bytes((SHIFT, key, key | RELEASED, SHIFT | RELEASED))
    if 1 <= char <= 26:
        key = KEYS[char + 0x60]
        return bytes((CONTROL, key, key | RELEASED, CONTROL | RELEASED))
    return b""


def as_set_2(code: bytes) -> bytes:
    """A stroke of set 1 as the keyboard sends it untranslated: releases are a prefix F0."""
    out = bytearray()
    for byte in code:
        if byte == EXTENDED:
            out.append(EXTENDED)
        elif byte & RELEASED:
            out += bytes((0xF0, SET_2.get(byte & 0x7F, 0)))
        else:
            out.append(SET_2.get(byte, 0))
    return bytes(out)
