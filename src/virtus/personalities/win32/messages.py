"""FormatMessage: texts of errors, and texts with places for arguments."""

import re
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32 import errors, heaps
from virtus.personalities.win32.message_texts import TEXTS
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

ALLOCATE_BUFFER, IGNORE_INSERTS, FROM_STRING, FROM_HMODULE = 0x100, 0x200, 0x400, 0x800
FROM_SYSTEM, ARGUMENT_ARRAY = 0x1000, 0x2000
MAX_WIDTH_MASK: Final = 0xFF
LANGUAGES: Final = frozenset({0, 0x400, 0x409, 0x800, 9})
"""Of texts: neutral, the user's, the system's, and English."""
FACILITY_WIN32: Final = 0x8007
INSERT: Final = re.compile(r"%(?:([1-9][0-9]?)(?:!([^!]*)!)?|(.)|$)", re.DOTALL)
FORMAT: Final = re.compile(r"([-+ #0]*)(\*|\d*)(?:\.(\*|\d*))?(I64|I32|I|ll|l|h|w)?([diouxXcCsSpeEfgG])")
WIDEST: Final = 4096


class NoInsert(Exception):
    """A text asks for an argument that there is not."""


def format_insert(spec: str, take: Callable[[], int], text: Text, thread: Thread) -> str:
    """One argument by a format of printf; raises NoInsert for formats it does not know."""
    match = FORMAT.fullmatch(spec or "s")
    if match is None:
        raise NoInsert(spec)
    flags, width, precision, size, kind = match.groups()
    if width == "*":
        width = str(take() & 0xFFFF)
    if precision == "*":
        precision = str(take() & 0xFFFF)
    if max(int(width or 0), int(precision or 0)) > WIDEST:
        raise NoInsert(spec)
    value = take()
    layout = f"%{flags}{width}" + ("" if precision is None else f".{precision}")
    if kind in "sS":
        wide = text.unit == 2 if size is None else size in ("l", "w", "ll")
        if kind == "S":
            wide = not wide
        source = WIDE if wide else ANSI
        return f"{layout}s" % (source.read(thread.memory, value) if value else "(null)")
    if kind in "cC":
        return f"%{flags}{width}c" % chr(value & 0xFFFF)
    bits = 64 if size in ("I64", "ll", "I") or kind == "p" else 16 if size == "h" else 32
    value &= (1 << bits) - 1
    if kind in "di" and value >> (bits - 1):
        value -= 1 << bits
    if kind == "p":
        return f"{value:016X}"
    if kind in "eEfgG":
        raise NoInsert(spec)
    return f"{layout}{'d' if kind == 'u' else kind}" % value


def expand(source: str, arguments: Callable[[int], int], text: Text, thread: Thread) -> str:
    """A text with its inserts; raises NoInsert. `arguments` gives the n-th argument, from 0."""
    ended = False

    def replace(match: re.Match[str]) -> str:
        nonlocal ended
        if ended:
            return ""
        number, spec, other = match.groups()
        if number:
            place = int(number) - 1

            def take() -> int:
                nonlocal place
                place += 1
                return arguments(place - 1)

            return format_insert(spec or "", take, text, thread)
        if other == "0":
            ended = True
            return "\0"
        return {"n": "\r\n", "r": "\r", "t": "\t", "b": " "}.get(other, other or "")

    return INSERT.sub(replace, source).partition("\0")[0]


def wrap(text: str, width: int) -> str:
    """Line ends as blanks, or lines of at most a number of characters."""
    flat = re.sub(r"\s*\r?\n", " ", text)
    if width == MAX_WIDTH_MASK:
        return flat
    lines, line = [], ""
    for word in flat.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "\r\n".join([*lines, line])


def system_text(number: int) -> str | None:
    """The system's text of an error, with its line end; HRESULTs of an error have the error's."""
    if number >> 16 == FACILITY_WIN32:
        number &= 0xFFFF
    found = TEXTS.get(number)
    return None if found is None else found + "\r\n"


def _format(
    thread: Thread, text: Text, flags: int, source: int, number: int, language: int, buffer: int, capacity: int,
    arguments: int,
) -> int:  # fmt: skip
    if flags & FROM_STRING:
        template: str | None = text.read(thread.memory, source)
    elif flags & (FROM_SYSTEM | FROM_HMODULE):
        if language not in LANGUAGES:
            return thread.fail(errors.ERROR_RESOURCE_LANG_NOT_FOUND)
        template = system_text(number) if flags & FROM_SYSTEM else None
    else:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if template is None:
        return thread.fail(errors.ERROR_MR_MID_NOT_FOUND)
    if not flags & IGNORE_INSERTS:
        base = arguments
        if base and not flags & ARGUMENT_ARRAY:
            base = thread.memory.u64(arguments)  # a va_list is the address of the arguments; its own address is given

        def argument(place: int) -> int:
            if not base:
                raise NoInsert(place)
            return thread.memory.u64(base + 8 * place)

        try:
            template = expand(template, argument, text, thread)
        except NoInsert:
            return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if flags & MAX_WIDTH_MASK:
        template = wrap(template, flags & MAX_WIDTH_MASK)
    data = text.encode(template)
    count = len(data) // text.unit
    if flags & ALLOCATE_BUFFER:
        room = max(count + 1, capacity) * text.unit
        address = heaps.allocate(thread.process, data.ljust(room, b"\0"))
        thread.memory.set_u64(buffer, address)
        return count if address else thread.fail(errors.ERROR_NOT_ENOUGH_MEMORY)
    if count >= capacity:
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    thread.memory.write(buffer, data + bytes(text.unit))
    return count


MODULE_NOTE: Final = "no texts of modules"


@api("DWORD FormatMessageW(DWORD flags, LPCVOID source, DWORD number, DWORD language, LPWSTR buffer, DWORD capacity,"
     " LPVOID arguments)", "kernel32", "kernelbase", note=MODULE_NOTE)  # fmt: skip
def format_message_w(
    thread: Thread, flags: int, source: int, number: int, language: int, buffer: int, capacity: int, arguments: int
) -> int:
    """Characters stored, 0 for an error."""
    return _format(thread, WIDE, flags, source, number, language, buffer, capacity, arguments)


@api("DWORD FormatMessageA(DWORD flags, LPCVOID source, DWORD number, DWORD language, LPSTR buffer, DWORD capacity,"
     " LPVOID arguments)", "kernel32", "kernelbase", note=MODULE_NOTE)  # fmt: skip
def format_message_a(
    thread: Thread, flags: int, source: int, number: int, language: int, buffer: int, capacity: int, arguments: int
) -> int:
    """Characters stored, 0 for an error."""
    return _format(thread, ANSI, flags, source, number, language, buffer, capacity, arguments)
