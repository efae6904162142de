"""Code pages: how the bytes of Windows' narrow strings become characters, and back.

Python's codecs do the work; what differs in Windows is added: bytes without a character become control characters of
the same number, characters without a byte become a similar one ("best fit") or the page's default.

The system's code page is UTF-8 here, for the narrow functions and for the console alike: so every file name of the
host can be said in every function. (Windows: "Use UTF-8 code pages in Windows apps".)
"""

import codecs
import unicodedata
from functools import cache
from typing import Final

from virtus.records import dataclass

CP_ACP: Final = 0
CP_OEMCP: Final = 1
CP_MACCP: Final = 2
CP_THREAD_ACP: Final = 3
CP_UTF7: Final = 65000
CP_UTF8: Final = 65001
SYSTEM_CODE_PAGE: Final = CP_UTF8

_SINGLE_BYTE: Final = {
    **{number: f"cp{number:03}" for number in (37, 437, 500, 737, 775, 850, 852, 855, 857, 858, 860, 861, 862, 863)},
    **{number: f"cp{number:03}" for number in (864, 865, 866, 869, 874, 1026, 1140)},
    **{number: f"cp{number}" for number in range(1250, 1259)},
    **{28590 + part: f"iso8859-{part}" for part in (*range(1, 10), 13, 15)},
    10000: "mac_roman", 10006: "mac_greek", 10007: "mac_cyrillic", 10029: "mac_latin2", 10081: "mac_turkish",
    20127: "ascii", 20866: "koi8_r", 21866: "koi8_u", 20273: "cp273",
}  # fmt: skip
_DOUBLE_BYTE: Final = {932: "cp932", 936: "gbk", 949: "cp949", 950: "cp950", 1361: "johab"}
_OTHERS: Final = {
    20932: "euc_jp", 50220: "iso2022_jp", 50221: "iso2022_jp_1", 50222: "iso2022_jp", 50225: "iso2022_kr",
    51932: "euc_jp", 51949: "euc_kr", 52936: "hz", 54936: "gb18030", CP_UTF7: "utf-7", CP_UTF8: "utf-8",
}  # fmt: skip
_LEAD_BYTES: Final = {
    932: ((0x81, 0x9F), (0xE0, 0xFC)), 936: ((0x81, 0xFE),), 949: ((0x81, 0xFE),), 950: ((0x81, 0xFE),),
    1361: ((0x84, 0xD3), (0xD8, 0xDE), (0xE0, 0xF9)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CodePage:
    """A code page: its number, Python's codec, the most bytes a character takes, and the ranges of its lead bytes."""

    number: int
    codec: str
    longest: int
    lead_bytes: tuple[tuple[int, int], ...] = ()

    @property
    def single(self) -> bool:
        """Whether every character is one byte."""
        return self.longest == 1

    @property
    def unicode(self) -> bool:
        """UTF-7, UTF-8 or GB 18030: no character is without bytes, and there is no default character."""
        return self.number in (CP_UTF7, CP_UTF8, 54936)


@cache
def code_page(number: int) -> CodePage | None:
    """The code page of a number, of which 0 to 3 name the system's; None where Windows or Python has none."""
    if number in (CP_ACP, CP_OEMCP, CP_MACCP, CP_THREAD_ACP):
        number = SYSTEM_CODE_PAGE
    if number in _SINGLE_BYTE:
        return CodePage(number, _SINGLE_BYTE[number], 1)
    if number in _DOUBLE_BYTE:
        return CodePage(number, _DOUBLE_BYTE[number], 2, _LEAD_BYTES[number])
    if number in _OTHERS:
        return CodePage(number, _OTHERS[number], 5 if number == CP_UTF7 else 4)
    return None


class Untranslatable(ValueError):
    """Bytes or characters have no counterpart, and the caller wants to know."""


def decode(page: CodePage, data: bytes, *, strict: bool = False) -> str:
    """Bytes as characters; what is none becomes U+FFFD, or raises Untranslatable when `strict`."""
    try:
        return data.decode(page.codec)
    except UnicodeDecodeError as error:
        if page.single:
            return "".join(_single(page, byte) for byte in data)
        if strict:
            raise Untranslatable(str(error)) from None
    return data.decode(page.codec, "replace")


@cache
def _single(page: CodePage, byte: int) -> str:
    """A byte's character. Where the page defines none, Windows has the control character of the same number."""
    try:
        return bytes([byte]).decode(page.codec)
    except UnicodeDecodeError:
        return chr(byte)


def encode(
    page: CodePage, text: str, *, strict: bool = False, best_fit: bool = True, default: bytes = b"?"
) -> tuple[bytes, bool]:
    """Characters as bytes, and whether `default` had to be used.

    `strict` raises Untranslatable for an unpaired surrogate in UTF-8 (WC_ERR_INVALID_CHARS), which otherwise becomes
    U+FFFD.
    """
    try:
        return text.encode(page.codec), False
    except UnicodeEncodeError as error:
        if page.unicode:
            if strict:
                raise Untranslatable(str(error)) from None
            clean = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
            return clean.encode(page.codec), False
    parts, used = [], False
    for unit in _units(text):
        made = _encode_one(page, unit, best_fit=best_fit)
        used |= made is None
        parts.append(default if made is None else made)
    return b"".join(parts), used


def _units(text: str) -> str:
    """Characters as UTF-16 has them: one beyond the first plane is two, and takes two default characters."""
    return "".join(character if character < "\U00010000" else "\ud800\udc00" for character in text)


@cache
def _encode_one(page: CodePage, character: str, *, best_fit: bool) -> bytes | None:
    """A character's bytes, or those of a similar one; None where there is none."""
    try:
        return character.encode(page.codec)
    except UnicodeEncodeError:
        if page.single and "\x80" <= character <= "\xff" and _single(page, ord(character)) == character:
            return bytes([ord(character)])
    if best_fit:
        base = unicodedata.normalize("NFKD", character)[0]
        if base != character:
            try:
                return base.encode(page.codec)
            except UnicodeEncodeError:
                return None
    return None


def system_decode(data: bytes) -> str:
    """A narrow string of a guest: UTF-8."""
    return data.decode("utf-8", "replace")


def system_encode(text: str) -> bytes:
    """The same for a guest; unpaired surrogates become U+FFFD."""
    return encode(_SYSTEM, text)[0]


def utf16(text: str) -> bytes:
    """A wide string's bytes, without a zero; unpaired surrogates stay."""
    return codecs.encode(text, "utf-16-le", "surrogatepass")


def from_utf16(data: bytes) -> str:
    """A wide string of bytes, of which an odd one at the end is dropped; unpaired surrogates stay."""
    return data[: len(data) & ~1].decode("utf-16-le", "surrogatepass")


_SYSTEM: Final = CodePage(CP_UTF8, "utf-8", 4)
