"""Strings between code pages, in case and in order; kernel32's lstr* and user32's Char* functions."""

import unicodedata
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32 import characters, errors
from virtus.personalities.win32.code_pages import (
    CP_UTF7,
    CodePage,
    Untranslatable,
    code_page,
    decode,
    encode,
    from_utf16,
    utf16,
)
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

MB_PRECOMPOSED, MB_COMPOSITE, MB_USEGLYPHCHARS, MB_ERR_INVALID_CHARS = 0x1, 0x2, 0x4, 0x8
WC_ERR_INVALID_CHARS, WC_NO_BEST_FIT_CHARS = 0x80, 0x400
MAX_DEFAULTCHAR, MAX_LEADBYTES, MAX_PATH = 2, 12, 260
LCMAP_LOWERCASE, LCMAP_UPPERCASE, LCMAP_TITLECASE, LCMAP_SORTKEY = 0x100, 0x200, 0x300, 0x400
LCMAP_BYTEREV, LCMAP_HIRAGANA, LCMAP_KATAKANA, LCMAP_HALFWIDTH, LCMAP_FULLWIDTH = (
    0x800,
    0x10_0000,
    0x20_0000,
    0x40_0000,
    0x80_0000,
)
CSTR_EQUAL: Final = 2
"""CompareString* return 1, 2 or 3 for less, equal and greater."""
LONGEST: Final = 1 << 31


SYSTEM_PAGES: Final = (0, 1, 2, 3)
"""CP_ACP, CP_OEMCP, CP_MACCP, CP_THREAD_ACP: C runtimes pass flags with these, whatever page they stand for."""


def _source(thread: Thread, address: int, count: int, unit: int) -> bytes | None:
    """`count` characters, or with a negative count up to and including the zero; None for what makes no sense."""
    if not address or count == 0:
        return None
    memory = thread.memory
    if count > 0:
        return memory.read(address, count * unit)
    return memory.string(address) + b"\0" if unit == 1 else utf16(memory.wide(address)) + b"\0\0"


def _stored(thread: Thread, data: bytes, unit: int, buffer: int, capacity: int) -> int:
    """Characters stored, or needed for a capacity of 0; fails with what fits stored, as documented."""
    count = len(data) // unit
    if capacity == 0:
        return count
    if capacity < 0 or not buffer:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.memory.write(buffer, data[: capacity * unit])
    return count if count <= capacity else thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)


@api("int MultiByteToWideChar(UINT page, DWORD flags, LPCCH source, int count, LPWSTR buffer, int capacity)",
     "kernel32", "kernelbase")  # fmt: skip
def multi_byte_to_wide_char(
    thread: Thread, page: int, flags: int, source: int, count: int, buffer: int, capacity: int
) -> int:
    """Bytes of a code page as UTF-16."""
    found = code_page(page)
    data = _source(thread, source, count, 1)
    if data is None or capacity < 0 or (capacity and source == buffer) or found is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    known = MB_ERR_INVALID_CHARS if found.unicode and page not in SYSTEM_PAGES else 0xF
    if flags & ~known or (found.number == CP_UTF7 and flags):
        return thread.fail(errors.ERROR_INVALID_FLAGS)
    try:
        text = decode(found, data, strict=bool(flags & MB_ERR_INVALID_CHARS))
    except Untranslatable:
        return thread.fail(errors.ERROR_NO_UNICODE_TRANSLATION)
    if flags & MB_COMPOSITE:
        text = unicodedata.normalize("NFD", text)
    return _stored(thread, utf16(text), 2, buffer, capacity)


@api("int WideCharToMultiByte(UINT page, DWORD flags, LPCWCH source, int count, LPSTR buffer, int capacity,"
     " LPCCH default, LPBOOL used)", "kernel32", "kernelbase")  # fmt: skip
def wide_char_to_multi_byte(
    thread: Thread, page: int, flags: int, source: int, count: int, buffer: int, capacity: int, default: int, used: int
) -> int:
    """UTF-16 as bytes of a code page."""
    found = code_page(page)
    data = _source(thread, source, count, 2)
    if data is None or capacity < 0 or (capacity and source == buffer) or found is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if found.unicode and page not in SYSTEM_PAGES:
        if default or used:
            return thread.fail(errors.ERROR_INVALID_PARAMETER)
        if flags & ~WC_ERR_INVALID_CHARS:
            return thread.fail(errors.ERROR_INVALID_FLAGS)
    substitute = b"?"
    if default:
        substitute = thread.memory.read(default, 1)
        if not found.single and any(low <= substitute[0] <= high for low, high in found.lead_bytes):
            substitute = thread.memory.read(default, 2)
    try:
        made, missing = encode(
            found, from_utf16(data), strict=bool(flags & WC_ERR_INVALID_CHARS),
            best_fit=not flags & WC_NO_BEST_FIT_CHARS, default=substitute,
        )  # fmt: skip
    except Untranslatable:
        return thread.fail(errors.ERROR_NO_UNICODE_TRANSLATION)
    if used:
        thread.memory.set_u32(used, missing)
    return _stored(thread, made, 1, buffer, capacity)


@api("UINT GetACP(void)", "kernel32", "kernelbase")
def get_acp(thread: Thread) -> int:
    """UTF-8."""
    return 65001


@api("UINT GetOEMCP(void)", "kernel32", "kernelbase")
def get_oemcp(thread: Thread) -> int:
    """UTF-8."""
    return 65001


@api("BOOL IsValidCodePage(UINT page)", "kernel32", "kernelbase")
def is_valid_code_page(thread: Thread, page: int) -> int:
    """Of the numbers themselves; CP_ACP and its like name none."""
    return page > 3 and code_page(page) is not None


def _lead_bytes(page: CodePage) -> bytes:
    return bytes(bound for pair in page.lead_bytes for bound in pair).ljust(MAX_LEADBYTES, b"\0")


def _information(page: CodePage) -> bytes:
    """CPINFO up to its lead bytes."""
    return page.longest.to_bytes(4, "little") + b"?\0" + _lead_bytes(page)


@api("BOOL GetCPInfo(UINT page, LPVOID result)", "kernel32", "kernelbase")
def get_cp_info(thread: Thread, page: int, result: int) -> int:
    """Longest character, default character and lead bytes."""
    found = code_page(page)
    if found is None or not result:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.memory.write(result, _information(found) + bytes(2))
    return 1


def _cp_info_ex(thread: Thread, text: Text, page: int, result: int) -> int:
    found = code_page(page)
    if found is None or not result:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    name = text.encode(f"{found.number:<5} ({found.codec})")
    data = _information(found) + b"?\0" + found.number.to_bytes(4, "little") + name.ljust(MAX_PATH * text.unit, b"\0")
    thread.memory.write(result, data)
    return 1


@api("BOOL GetCPInfoExW(UINT page, DWORD flags, LPVOID result)", "kernel32", "kernelbase")
def get_cp_info_ex_w(thread: Thread, page: int, flags: int, result: int) -> int:
    """The same with the page's number and name."""
    return _cp_info_ex(thread, WIDE, page, result)


@api("BOOL GetCPInfoExA(UINT page, DWORD flags, LPVOID result)", "kernel32")
def get_cp_info_ex_a(thread: Thread, page: int, flags: int, result: int) -> int:
    """The same with the page's number and name."""
    return _cp_info_ex(thread, ANSI, page, result)


@api("BOOL IsDBCSLeadByteEx(UINT page, BYTE byte)", "kernel32", "kernelbase")
def is_dbcs_lead_byte_ex(thread: Thread, page: int, byte: int) -> int:
    """Whether a byte begins a pair, in a page of pairs."""
    found = code_page(page)
    return found is not None and any(low <= byte <= high for low, high in found.lead_bytes)


@api("BOOL IsDBCSLeadByte(BYTE byte)", "kernel32", "kernelbase")
def is_dbcs_lead_byte(thread: Thread, byte: int) -> int:
    """Never: UTF-8 is no page of pairs."""
    return 0


def _types(thread: Thread, kind: int, units: bytes, result: int) -> int:
    """A 16-bit class for each UTF-16 unit."""
    tables: dict[int, Callable[[int], int]] = {1: characters.ctype1, 2: characters.ctype2, 4: characters.ctype3}
    if kind not in tables:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    classes = (tables[kind](unit) for unit in memoryview(units).cast("H"))
    thread.memory.write(result, b"".join(found.to_bytes(2, "little") for found in classes))
    return 1


@api("BOOL GetStringTypeW(DWORD kind, LPCWCH source, int count, LPWORD result)", "kernel32", "kernelbase")
def get_string_type_w(thread: Thread, kind: int, source: int, count: int, result: int) -> int:
    """Classes of characters."""
    data = _source(thread, source, count, 2)
    if data is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return _types(thread, kind, data, result)


@api("BOOL GetStringTypeExW(LCID locale, DWORD kind, LPCWCH source, int count, LPWORD result)", "kernel32",
     "kernelbase")  # fmt: skip
def get_string_type_ex_w(thread: Thread, locale: int, kind: int, source: int, count: int, result: int) -> int:
    """The same: classes depend on no locale."""
    return get_string_type_w(thread, kind, source, count, result)


@api("BOOL GetStringTypeA(LCID locale, DWORD kind, LPCSTR source, int count, LPWORD result)", "kernel32")
def get_string_type_a(thread: Thread, locale: int, kind: int, source: int, count: int, result: int) -> int:
    """Classes of the characters that the bytes are."""
    data = _source(thread, source, count, 1)
    if data is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return _types(thread, kind, utf16(data.decode("utf-8", "replace")), result)


@api("BOOL GetStringTypeExA(LCID locale, DWORD kind, LPCSTR source, int count, LPWORD result)", "kernel32")
def get_string_type_ex_a(thread: Thread, locale: int, kind: int, source: int, count: int, result: int) -> int:
    """The same."""
    return get_string_type_a(thread, locale, kind, source, count, result)


def _operand(thread: Thread, text: Text, address: int, count: int) -> str:
    """A string to compare: counted, or up to its zero."""
    return text.read(thread.memory, address, count if count >= 0 else -1)


def _compare(thread: Thread, text: Text, flags: int, one: int, one_count: int, other: int, other_count: int) -> int:
    if not one or not other:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if flags & ~(characters.COMPARE_FLAGS | 0x4000_0000):  # LOCALE_USE_CP_ACP, which changes nothing
        return thread.fail(errors.ERROR_INVALID_FLAGS)
    first, second = _operand(thread, text, one, one_count), _operand(thread, text, other, other_count)
    return CSTR_EQUAL + characters.compare(first, second, flags)


ORDER_NOTE: Final = "order of words in English; other languages' rules are not known"


@api("int CompareStringW(LCID locale, DWORD flags, LPCWCH one, int one_count, LPCWCH other, int other_count)",
     "kernel32", "kernelbase", note=ORDER_NOTE)  # fmt: skip
def compare_string_w(
    thread: Thread, locale: int, flags: int, one: int, one_count: int, other: int, other_count: int
) -> int:
    """1, 2 or 3 in the order of words."""
    return _compare(thread, WIDE, flags, one, one_count, other, other_count)


@api("int CompareStringA(LCID locale, DWORD flags, LPCSTR one, int one_count, LPCSTR other, int other_count)",
     "kernel32", "kernelbase", note=ORDER_NOTE)  # fmt: skip
def compare_string_a(
    thread: Thread, locale: int, flags: int, one: int, one_count: int, other: int, other_count: int
) -> int:
    """1, 2 or 3 in the order of words."""
    return _compare(thread, ANSI, flags, one, one_count, other, other_count)


@api("int CompareStringEx(LPCWSTR locale, DWORD flags, LPCWCH one, int one_count, LPCWCH other, int other_count,"
     " LPVOID version, LPVOID reserved, LPARAM parameter)", "kernel32", "kernelbase", note=ORDER_NOTE)  # fmt: skip
def compare_string_ex(
    thread: Thread, locale: int, flags: int, one: int, one_count: int, other: int, other_count: int,
    version: int, reserved: int, parameter: int,
) -> int:  # fmt: skip
    """1, 2 or 3 in the order of words."""
    return _compare(thread, WIDE, flags, one, one_count, other, other_count)


@api("int CompareStringOrdinal(LPCWCH one, int one_count, LPCWCH other, int other_count, BOOL ignore_case)",
     "kernel32", "kernelbase")  # fmt: skip
def compare_string_ordinal(
    thread: Thread, one: int, one_count: int, other: int, other_count: int, ignore_case: int
) -> int:
    """By UTF-16 units, in upper case if case does not count."""
    if not one or not other or one_count < -1 or other_count < -1:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    first, second = _operand(thread, WIDE, one, one_count), _operand(thread, WIDE, other, other_count)
    if ignore_case:
        first, second = characters.to_upper(first), characters.to_upper(second)
    one_key, other_key = first.encode("utf-16-be", "surrogatepass"), second.encode("utf-16-be", "surrogatepass")
    return CSTR_EQUAL + (one_key > other_key) - (one_key < other_key)


WIDTHS: Final = {code: 0xFF00 + code - 0x20 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
KANA: Final = {code: code + 0x60 for code in range(0x3041, 0x3097)}


def map_string(flags: int, text: str) -> str:
    """A string by LCMAP_* flags."""
    if flags & LCMAP_TITLECASE == LCMAP_TITLECASE:
        text = characters.to_title(text)
    elif flags & LCMAP_UPPERCASE:
        text = characters.to_upper(text)
    elif flags & LCMAP_LOWERCASE:
        text = characters.to_lower(text)
    if flags & LCMAP_FULLWIDTH:
        text = text.translate(WIDTHS)
    elif flags & LCMAP_HALFWIDTH:
        text = text.translate({wide: narrow for narrow, wide in WIDTHS.items()})
    if flags & LCMAP_KATAKANA:
        text = text.translate(KANA)
    elif flags & LCMAP_HIRAGANA:
        text = text.translate({to: code for code, to in KANA.items()})
    if flags & characters.NORM_IGNORENONSPACE:
        decomposed = unicodedata.normalize("NFD", text)
        text = "".join(character for character in decomposed if unicodedata.category(character) != "Mn")
    if flags & characters.NORM_IGNORESYMBOLS:
        text = "".join(character for character in text if unicodedata.category(character)[0] not in "PS")
    return text


def pack_sort_key(key: characters.SortKey) -> bytes:
    """A sort key as bytes whose order, by memcmp(3), is that of the strings."""
    letters, marks, cases, minor = key
    parts = [
        b"".join(bytes([2 + kind]) + (weight + 1).to_bytes(4, "big") for kind, weight in letters),
        b"".join(b"\x02" + mark.encode("utf-8", "surrogatepass") for mark in marks).rstrip(b"\x02"),
        bytes(2 + case for case in cases).rstrip(b"\x02"),
        b"".join(b"\x02" + (0x10000 + place).to_bytes(4, "big") + character.encode() for place, character in minor),
    ]
    return b"\x01".join(parts) + b"\x01\x00"


def _map(thread: Thread, text: Text, flags: int, source: int, count: int, buffer: int, capacity: int) -> int:
    data = _source(thread, source, count, text.unit)
    if data is None or capacity < 0:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    string = from_utf16(data) if text.unit == 2 else data.decode("utf-8", "replace")
    if flags & LCMAP_SORTKEY:
        key = pack_sort_key(characters.sort_key(string.rstrip("\0") if count < 0 else string, flags & 0x0803_103F))
        return _stored(thread, key, 1, buffer, capacity)
    made = map_string(flags, string)
    if flags & LCMAP_BYTEREV:
        return _stored(thread, made.encode("utf-16-be", "surrogatepass"), 2, buffer, capacity)
    return _stored(thread, text.encode(made), text.unit, buffer, capacity)


@api("int LCMapStringW(LCID locale, DWORD flags, LPCWSTR source, int count, LPWSTR buffer, int capacity)",
     "kernel32", "kernelbase")  # fmt: skip
def lc_map_string_w(
    thread: Thread, locale: int, flags: int, source: int, count: int, buffer: int, capacity: int
) -> int:
    """Case, width, kana, or a sort key."""
    return _map(thread, WIDE, flags, source, count, buffer, capacity)


@api("int LCMapStringA(LCID locale, DWORD flags, LPCSTR source, int count, LPSTR buffer, int capacity)", "kernel32",
     "kernelbase")  # fmt: skip
def lc_map_string_a(
    thread: Thread, locale: int, flags: int, source: int, count: int, buffer: int, capacity: int
) -> int:
    """Case, width, kana, or a sort key."""
    return _map(thread, ANSI, flags, source, count, buffer, capacity)


@api("int LCMapStringEx(LPCWSTR locale, DWORD flags, LPCWSTR source, int count, LPWSTR buffer, int capacity,"
     " LPVOID version, LPVOID reserved, LPARAM handle)", "kernel32", "kernelbase")  # fmt: skip
def lc_map_string_ex(
    thread: Thread, locale: int, flags: int, source: int, count: int, buffer: int, capacity: int,
    version: int, reserved: int, handle: int,
) -> int:  # fmt: skip
    """Case, width, kana, or a sort key."""
    return _map(thread, WIDE, flags, source, count, buffer, capacity)


@api("int FoldStringW(DWORD flags, LPCWCH source, int count, LPWSTR buffer, int capacity)", "kernel32", "kernelbase")
def fold_string_w(thread: Thread, flags: int, source: int, count: int, buffer: int, capacity: int) -> int:
    """MAP_PRECOMPOSED, MAP_COMPOSITE, MAP_FOLDDIGITS and MAP_FOLDCZONE."""
    data = _source(thread, source, count, 2)
    if data is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    text = from_utf16(data)
    if flags & 0x10:
        text = unicodedata.normalize("NFKC", text)
    if flags & 0x80:
        text = "".join(str(unicodedata.decimal(character, character)) for character in text)
    text = unicodedata.normalize("NFD", text) if flags & 0x40 else text
    text = unicodedata.normalize("NFC", text) if flags & 0x20 else text
    return _stored(thread, utf16(text), 2, buffer, capacity)


NORMAL_FORMS: Final = {1: "NFC", 2: "NFD", 5: "NFKC", 6: "NFKD"}
"""NORM_FORM (Microsoft: normalization.h)."""


@api("int NormalizeString(int form, LPCWSTR source, int count, LPWSTR buffer, int capacity)", "kernel32", "kernelbase",
     "normaliz")  # fmt: skip
def normalize_string(thread: Thread, form: int, source: int, count: int, buffer: int, capacity: int) -> int:
    """One of Unicode's normal forms."""
    data = _source(thread, source, count, 2)
    if data is None or form not in NORMAL_FORMS:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    # Python takes form names of a literal type only in its annotations
    made = unicodedata.normalize(NORMAL_FORMS[form], from_utf16(data))  # type: ignore[arg-type, unused-ignore]
    return _stored(thread, utf16(made), 2, buffer, capacity)


@api("BOOL IsNormalizedString(int form, LPCWSTR source, int count)", "kernel32", "kernelbase", "normaliz")
def is_normalized_string(thread: Thread, form: int, source: int, count: int) -> int:
    """Whether a string is in a normal form."""
    data = _source(thread, source, count, 2)
    if data is None or form not in NORMAL_FORMS:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    text = from_utf16(data)
    return unicodedata.normalize(NORMAL_FORMS[form], text) == text  # type: ignore[arg-type, unused-ignore]


@api("int FindStringOrdinal(DWORD flags, LPCWSTR source, int count, LPCWSTR value, int value_count,"
     " BOOL ignore_case)", "kernel32", "kernelbase")  # fmt: skip
def find_string_ordinal(
    thread: Thread, flags: int, source: int, count: int, value: int, value_count: int, ignore_case: int
) -> int:
    """Where a string is in another, -1 for nowhere."""
    text, wanted = _operand(thread, WIDE, source, count), _operand(thread, WIDE, value, value_count)
    if ignore_case:
        text, wanted = characters.to_upper(text), characters.to_upper(wanted)
    kind = flags & 0xF0_0000
    if kind == 0x10_0000:  # FIND_STARTSWITH
        return 0 if text.startswith(wanted) else -1
    if kind == 0x20_0000:  # FIND_ENDSWITH
        return len(text) - len(wanted) if text.endswith(wanted) else -1
    return text.rfind(wanted) if kind == 0x80_0000 else text.find(wanted)
