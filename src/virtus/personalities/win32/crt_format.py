"""printf's formats, as msvcrt has them: a template and arguments of 64 bits become bytes.

Exponents have three digits, and what is no number is written as that runtime does: 1.#INF, 1.#QNAN.
"""

import re
import struct
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32.code_pages import system_encode
from virtus.personalities.win32.guest import Memory

CONVERSION: Final = re.compile(
    rb"%([-+ #0]*)(\*|\d+)?(?:\.(\*|\d+)?)?(I64|I32|I|ll|hh|h|l|w|L|z|t|j)?([diouxXcCsSpeEfFgGaAn%])|%", re.DOTALL
)
PRECISION: Final = re.compile(rb"\.(\*|\d*)")
SHORT_EXPONENT: Final = re.compile(r"([eE][+-])(\d\d)$")
BITS: Final = {b"I64": 64, b"ll": 64, b"I": 64, b"j": 64, b"z": 64, b"t": 64, b"h": 16, b"hh": 8}
WIDEST: Final = 1 << 16
NULL: Final = b"(null)"


def format(memory: Memory, template: bytes, take: Callable[[], int]) -> bytes:
    """The bytes of a formatted text; `take` gives the next argument. %n stores nothing, as msvcrt has it by default."""

    def count(word: bytes | None) -> int:
        if word == b"*":
            value = take() & 0xFFFF_FFFF
            return value - (1 << 32) if value >> 31 else value
        return int(word or 0)

    def convert(match: "re.Match[bytes]") -> bytes:
        flags, width, precision, size, kind = match.groups()
        if kind is None or kind == b"%":
            return b"%"
        wide = max(-WIDEST, min(WIDEST, count(width)))
        exact: int | None = None
        if b"." in match[0]:
            exact = min(WIDEST, count(precision))
            exact = exact if exact >= 0 else None
        left = b"-" in flags or wide < 0
        value = take()
        if kind == b"n":
            return b""
        zero = b"0" in flags and not left
        if kind in b"sS":
            body, zero = _string(memory, value, exact, wide=(kind == b"S") != (size in (b"l", b"w"))), False
        elif kind in b"cC":
            plain = kind == b"c" and size not in (b"l", b"w")
            body, zero = bytes([value & 0xFF]) if plain else system_encode(chr(value & 0xFFFF)), False
        elif kind == b"p":
            body, zero = b"%016X" % value, False
        elif kind in b"eEfFgGaA":
            body = _float(value, flags, exact, kind)
        else:
            body = _integer(value, flags, exact, kind, BITS.get(size, 32))
            zero = zero and exact is None
        return _padded(body, abs(wide), left=left, zero=zero)

    return CONVERSION.sub(convert, template)


def _string(memory: Memory, address: int, exact: int | None, *, wide: bool) -> bytes:
    if not address:
        body = NULL
    elif wide:
        body = system_encode(memory.wide(address))
    elif exact is None:
        body = memory.string(address)
    else:  # it need not have a zero within the precision
        found = bytearray()
        while len(found) < exact and (byte := memory.read(address + len(found), 1)) != b"\0":
            found += byte
        body = bytes(found)
    return body if exact is None else body[:exact]


def _sign(flags: bytes, *, negative: bool) -> bytes:
    return b"-" if negative else b"+" if b"+" in flags else b" " if b" " in flags else b""


def _integer(value: int, flags: bytes, exact: int | None, kind: bytes, bits: int) -> bytes:
    value &= (1 << bits) - 1
    prefix = b""
    if kind in b"di":
        signed = value - (1 << bits) if value >> (bits - 1) else value
        prefix, value = _sign(flags, negative=signed < 0), abs(signed)
    digits = {b"o": b"%o", b"x": b"%x", b"X": b"%X"}.get(kind, b"%d") % value
    if exact is not None:
        digits = b"" if exact == 0 and value == 0 else digits.rjust(exact, b"0")
    if b"#" in flags and value:
        prefix += {b"x": b"0x", b"X": b"0X", b"o": b"" if digits.startswith(b"0") else b"0"}.get(kind, b"")
    return prefix + digits


def _float(value: int, flags: bytes, exact: int | None, kind: bytes) -> bytes:
    number: float = struct.unpack("<d", struct.pack("<Q", value))[0]
    sign = _sign(flags, negative=bool(value >> 63))
    number = abs(number)
    digits = 6 if exact is None else min(exact, 1000)
    if number != number or number == float("inf"):
        word = b"#INF" if number == number else b"#QNAN"
        if kind in b"fFeE":
            word = word.ljust(digits, b"0")[: max(digits, 1)]
        return sign + b"1." + word + (b"e+000" if kind in b"eE" else b"")
    if kind in b"aA":
        text = number.hex()
        return sign + (text.upper() if kind == b"A" else text).encode()
    alternate = "#" if b"#" in flags else ""
    made = f"{number:{alternate}.{digits}{kind.decode()}}"
    return sign + SHORT_EXPONENT.sub(r"\g<1>0\2", made).encode()


def _padded(body: bytes, width: int, *, left: bool, zero: bool) -> bytes:
    if left:
        return body.ljust(width)
    if zero and len(body) < width:
        head = re.match(rb"[-+ ]?(?:0[xX])?", body)
        lead = head[0] if head and len(head[0]) < len(body) else b""
        return lead + body[len(lead) :].rjust(width - len(lead), b"0")
    return body.rjust(width)
