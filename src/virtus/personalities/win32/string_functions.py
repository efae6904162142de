"""kernel32's lstr* and user32's Char* and IsChar* functions."""

from collections.abc import Callable

from virtus.personalities.win32 import characters
from virtus.personalities.win32.code_pages import (
    code_page,
    utf16,
)
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.strings import is_dbcs_lead_byte_ex
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text


@api("int lstrlenW(LPCWSTR text)", "kernel32", "kernelbase")
def lstrlen_w(thread: Thread, text: int) -> int:
    """0 for a null pointer."""
    return len(utf16(thread.memory.wide(text))) // 2 if text else 0


@api("int lstrlenA(LPCSTR text)", "kernel32", "kernelbase")
def lstrlen_a(thread: Thread, text: int) -> int:
    """0 for a null pointer."""
    return len(thread.memory.string(text)) if text else 0


def _lstrcmp(thread: Thread, text: Text, one: int, other: int, flags: int) -> int:
    if not one or not other:
        return bool(one) - bool(other)
    return characters.compare(text.read(thread.memory, one), text.read(thread.memory, other), flags)


@api("int lstrcmpW(LPCWSTR one, LPCWSTR other)", "kernel32", "kernelbase")
def lstrcmp_w(thread: Thread, one: int, other: int) -> int:
    """In the order of words; a null pointer is less than any string."""
    return _lstrcmp(thread, WIDE, one, other, 0)


@api("int lstrcmpA(LPCSTR one, LPCSTR other)", "kernel32", "kernelbase")
def lstrcmp_a(thread: Thread, one: int, other: int) -> int:
    """In the order of words."""
    return _lstrcmp(thread, ANSI, one, other, 0)


@api("int lstrcmpiW(LPCWSTR one, LPCWSTR other)", "kernel32", "kernelbase")
def lstrcmpi_w(thread: Thread, one: int, other: int) -> int:
    """Without case."""
    return _lstrcmp(thread, WIDE, one, other, characters.NORM_IGNORECASE)


@api("int lstrcmpiA(LPCSTR one, LPCSTR other)", "kernel32", "kernelbase")
def lstrcmpi_a(thread: Thread, one: int, other: int) -> int:
    """Without case."""
    return _lstrcmp(thread, ANSI, one, other, characters.NORM_IGNORECASE)


@api("LPWSTR lstrcpyW(LPWSTR target, LPCWSTR source)", "kernel32")
def lstrcpy_w(thread: Thread, target: int, source: int) -> int:
    """The target."""
    thread.memory.write(target, utf16(thread.memory.wide(source)) + b"\0\0")
    return target


@api("LPSTR lstrcpyA(LPSTR target, LPCSTR source)", "kernel32")
def lstrcpy_a(thread: Thread, target: int, source: int) -> int:
    """The target."""
    thread.memory.write(target, thread.memory.string(source) + b"\0")
    return target


@api("LPWSTR lstrcpynW(LPWSTR target, LPCWSTR source, int capacity)", "kernel32", "kernelbase")
def lstrcpyn_w(thread: Thread, target: int, source: int, capacity: int) -> int:
    """At most `capacity` - 1 characters and a zero."""
    if capacity > 0:
        thread.memory.write(target, utf16(thread.memory.wide(source))[: 2 * (capacity - 1)] + b"\0\0")
    return target


@api("LPSTR lstrcpynA(LPSTR target, LPCSTR source, int capacity)", "kernel32", "kernelbase")
def lstrcpyn_a(thread: Thread, target: int, source: int, capacity: int) -> int:
    """At most `capacity` - 1 characters and a zero."""
    if capacity > 0:
        thread.memory.write(target, thread.memory.string(source)[: capacity - 1] + b"\0")
    return target


@api("LPWSTR lstrcatW(LPWSTR target, LPCWSTR source)", "kernel32")
def lstrcat_w(thread: Thread, target: int, source: int) -> int:
    """The target."""
    end = target + len(utf16(thread.memory.wide(target)))
    thread.memory.write(end, utf16(thread.memory.wide(source)) + b"\0\0")
    return target


@api("LPSTR lstrcatA(LPSTR target, LPCSTR source)", "kernel32")
def lstrcat_a(thread: Thread, target: int, source: int) -> int:
    """The target."""
    thread.memory.write(target + len(thread.memory.string(target)), thread.memory.string(source) + b"\0")
    return target


def _case(thread: Thread, text: Text, argument: int, change: Callable[[str], str]) -> int:
    """CharUpper and CharLower: of a string in place, or of one character passed as a pointer."""
    if argument >> 16:
        data = text.encode(change(text.read(thread.memory, argument)))
        thread.memory.write(argument, data)
        return argument
    if text.unit == 1 and argument > 0x7F:
        return argument
    return ord(change(chr(argument)))


def _case_buffer(thread: Thread, text: Text, address: int, count: int, change: Callable[[str], str]) -> int:
    thread.memory.write(address, text.encode(change(text.read(thread.memory, address, count))))
    return count


@api("LPWSTR CharUpperW(LPWSTR text)", "user32")
def char_upper_w(thread: Thread, text: int) -> int:
    """In place, or of one character."""
    return _case(thread, WIDE, text, characters.to_upper)


@api("LPSTR CharUpperA(LPSTR text)", "user32")
def char_upper_a(thread: Thread, text: int) -> int:
    """In place, or of one character; letters of ASCII, since others' lengths in bytes may change."""
    return _case(thread, ANSI, text, _ascii_upper)


@api("LPWSTR CharLowerW(LPWSTR text)", "user32")
def char_lower_w(thread: Thread, text: int) -> int:
    """In place, or of one character."""
    return _case(thread, WIDE, text, characters.to_lower)


@api("LPSTR CharLowerA(LPSTR text)", "user32")
def char_lower_a(thread: Thread, text: int) -> int:
    """In place, or of one character; letters of ASCII."""
    return _case(thread, ANSI, text, _ascii_lower)


@api("DWORD CharUpperBuffW(LPWSTR text, DWORD count)", "user32")
def char_upper_buff_w(thread: Thread, text: int, count: int) -> int:
    """`count` characters in place."""
    return _case_buffer(thread, WIDE, text, count, characters.to_upper)


@api("DWORD CharLowerBuffW(LPWSTR text, DWORD count)", "user32")
def char_lower_buff_w(thread: Thread, text: int, count: int) -> int:
    """`count` characters in place."""
    return _case_buffer(thread, WIDE, text, count, characters.to_lower)


@api("DWORD CharUpperBuffA(LPSTR text, DWORD count)", "user32")
def char_upper_buff_a(thread: Thread, text: int, count: int) -> int:
    """`count` bytes in place; letters of ASCII."""
    thread.memory.write(text, thread.memory.read(text, count).upper())
    return count


@api("DWORD CharLowerBuffA(LPSTR text, DWORD count)", "user32")
def char_lower_buff_a(thread: Thread, text: int, count: int) -> int:
    """`count` bytes in place; letters of ASCII."""
    thread.memory.write(text, thread.memory.read(text, count).lower())
    return count


def _ascii_upper(text: str) -> str:
    return "".join(character.upper() if character.isascii() else character for character in text)


def _ascii_lower(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)


@api("LPWSTR CharNextW(LPCWSTR text)", "user32", "kernelbase")
def char_next_w(thread: Thread, text: int) -> int:
    """The next unit; the end stays the end."""
    return text + 2 if thread.memory.u16(text) else text


@api("LPWSTR CharPrevW(LPCWSTR start, LPCWSTR text)", "user32", "kernelbase")
def char_prev_w(thread: Thread, start: int, text: int) -> int:
    """The unit before, not before the start."""
    return max(start, text - 2)


@api("LPSTR CharNextA(LPCSTR text)", "user32", "kernelbase")
def char_next_a(thread: Thread, text: int) -> int:
    """The next byte, as UTF-8 is no page of pairs."""
    return text + 1 if thread.memory.read(text, 1) != b"\0" else text


@api("LPSTR CharPrevA(LPCSTR start, LPCSTR text)", "user32", "kernelbase")
def char_prev_a(thread: Thread, start: int, text: int) -> int:
    """The byte before."""
    return max(start, text - 1)


@api("LPSTR CharNextExA(WORD page, LPCSTR text, DWORD flags)", "user32", "kernelbase")
def char_next_ex_a(thread: Thread, page: int, text: int, flags: int) -> int:
    """The next character of a code page, which is of one byte or a pair."""
    first = thread.memory.read(text, 1)[0]
    if not first:
        return text
    pair = is_dbcs_lead_byte_ex(thread, page, first) and thread.memory.read(text + 1, 1) != b"\0"
    return text + 1 + pair


@api("LPSTR CharPrevExA(WORD page, LPCSTR start, LPCSTR text, DWORD flags)", "user32", "kernelbase")
def char_prev_ex_a(thread: Thread, page: int, start: int, text: int, flags: int) -> int:
    """The character before, found from the start on in a page of pairs."""
    found = code_page(page)
    if found is None or not found.lead_bytes:
        return max(start, text - 1)
    place = previous = start
    while place < text:
        previous = place
        place = char_next_ex_a(thread, page, place, 0)
        if place == previous:
            break
    return previous


def _is(mask: int, unit: int) -> int:
    return bool(characters.ctype1(unit) & mask)


@api("BOOL IsCharAlphaW(WCHAR unit)", "user32", "kernelbase")
def is_char_alpha_w(thread: Thread, unit: int) -> int:
    """A letter."""
    return _is(characters.C1_ALPHA, unit)


@api("BOOL IsCharAlphaNumericW(WCHAR unit)", "user32", "kernelbase")
def is_char_alpha_numeric_w(thread: Thread, unit: int) -> int:
    """A letter or digit."""
    return _is(characters.C1_ALPHA | characters.C1_DIGIT, unit)


@api("BOOL IsCharUpperW(WCHAR unit)", "user32", "kernelbase")
def is_char_upper_w(thread: Thread, unit: int) -> int:
    """A capital."""
    return _is(characters.C1_UPPER, unit)


@api("BOOL IsCharLowerW(WCHAR unit)", "user32", "kernelbase")
def is_char_lower_w(thread: Thread, unit: int) -> int:
    """A small letter."""
    return _is(characters.C1_LOWER, unit)
