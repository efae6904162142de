"""A C runtime of our own, for where neither Wine's nor Microsoft's is installed: starting and ending, memory, strings.

It has what a C program built by mingw-w64 needs of msvcrt; one that needs more ends with the name of what it needs.
Streams are in `crt_streams.py`.
"""

import os
import struct
from functools import cmp_to_key
from typing import Final

from virtus.personalities.win32 import command_line, environment, heaps, process_functions, state
from virtus.personalities.win32.crt_streams import RUNTIME, streams
from virtus.personalities.win32.locks import enter_critical_section, leave_critical_section
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI

ABORTED, AMSG_EXIT = 3, 255
ERRNO_ERANGE: Final = 34
MOST_LOCKS: Final = 64
SECTION_SIZE: Final = 40
DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
UTF8: Final = 65001
LCONV: Final = struct.Struct("<10Q8b")
UNKNOWN: Final = 127
"""CHAR_MAX: of money nothing is known in the C locale."""


class Runtime:
    """What the runtime remembers of a process."""

    def __init__(self) -> None:
        self.at_exit: list[int] = []
        self.handlers: dict[int, int] = {}
        self.locks = self.lconv = 0
        self.texts: dict[str, int] = {}


class Errno:
    """Where a thread's errno lies."""

    def __init__(self) -> None:
        self.address = 0


def _runtime(thread: Thread) -> Runtime:
    return state.of(thread.process, Runtime)


def _kept(thread: Thread, text: str) -> int:
    """A text that stays where it is."""
    texts = _runtime(thread).texts
    if text not in texts:
        texts[text] = heaps.allocate(thread.process, ANSI.encode(text + "\0"))
    return texts[text]


def _vector(thread: Thread, texts: list[str]) -> int:
    """Pointers to texts, and a null pointer."""
    places = [_kept(thread, text) for text in texts]
    return heaps.allocate(thread.process, struct.pack(f"<{len(places) + 1}Q", *places, 0))


@api("int __getmainargs(int *argc, LPVOID *argv, LPVOID *envp, int expand, LPVOID start)", "msvcrt")
def getmainargs(thread: Thread, argc: int, argv: int, envp: int, expand: int, start: int) -> int:
    """main's arguments; wildcards stay."""
    words = command_line.split(thread.process.command_line)
    thread.memory.set_u32(argc, len(words))
    thread.memory.set_u64(argv, _vector(thread, words))
    variables = [f"{name}={value}" for name, value in thread.process.environment.items()]
    thread.memory.set_u64(envp, _vector(thread, variables))
    return 0


@api("void __set_app_type(int kind)", "msvcrt")
def set_app_type(thread: Thread, kind: int) -> None:
    """A console program: its streams, and the variable that its start looks at."""
    streams(thread.process)
    line = environment.command_line(thread.process, ANSI)
    thread.memory.set_u64(thread.process.modules.variable("_acmdln"), line)


@api("void __setusermatherr(FARPROC handler)", "msvcrt")
def setusermatherr(thread: Thread, handler: int) -> None:
    """Errors of mathematics are told by their results."""


@api("void _initterm(LPVOID first, LPVOID last)", *RUNTIME)
def initterm(thread: Thread, first: int, last: int) -> None:
    """Call a table of functions."""
    for place in range(first, last, 8):
        function = thread.memory.u64(place)
        if function:
            thread.engine.call(function)


@api("FARPROC _onexit(FARPROC function)", *RUNTIME)
def onexit(thread: Thread, function: int) -> int:
    """To be called at the end, the last one first."""
    _runtime(thread).at_exit.append(function)
    return function


@api("int atexit(FARPROC function)", *RUNTIME)
def atexit(thread: Thread, function: int) -> int:
    """To be called at the end, the last one first."""
    _runtime(thread).at_exit.append(function)
    return 0


@api("void _cexit(void)", *RUNTIME)
def cexit(thread: Thread) -> None:
    """Call what is to be called at the end."""
    functions = _runtime(thread).at_exit
    while functions:
        thread.engine.call(functions.pop())


@api("void exit(int status)", *RUNTIME)
def exit_(thread: Thread, status: int) -> None:
    """Does not return."""
    cexit(thread)
    process_functions.end(thread, status & 0xFFFF_FFFF)


@api("void _exit(int status)", *RUNTIME)
def exit_at_once(thread: Thread, status: int) -> None:
    """Without calling anything."""
    process_functions.end(thread, status & 0xFFFF_FFFF)


@api("void abort(void)", *RUNTIME)
def abort(thread: Thread) -> None:
    """Status 3."""
    process_functions.end(thread, ABORTED)


@api("void _amsg_exit(int number)", "msvcrt")
def amsg_exit(thread: Thread, number: int) -> None:
    """The runtime could not start."""
    process_functions.end(thread, AMSG_EXIT)


@api("FARPROC signal(int number, FARPROC handler)", *RUNTIME, note="handlers are kept and never called")
def signal(thread: Thread, number: int, handler: int) -> int:
    """The handler before."""
    handlers = _runtime(thread).handlers
    before, handlers[number] = handlers.get(number, 0), handler
    return before


def _section(thread: Thread, number: int) -> int:
    runtime = _runtime(thread)
    if not runtime.locks:
        free = struct.pack("<QiIQQQ", 0, -1, 0, 0, 0, 0)
        runtime.locks = heaps.allocate(thread.process, free * MOST_LOCKS)
    return runtime.locks + SECTION_SIZE * (number % MOST_LOCKS)


@api("void _lock(int number)", "msvcrt")
def lock(thread: Thread, number: int) -> None:
    """One of the runtime's own locks, which its caller may have already."""
    enter_critical_section(thread, _section(thread, number))


@api("void _unlock(int number)", "msvcrt")
def unlock(thread: Thread, number: int) -> None:
    """Give it back."""
    leave_critical_section(thread, _section(thread, number))


@api("int *_errno(void)", *RUNTIME)
def errno_(thread: Thread) -> int:
    """Where the thread's errno lies."""
    errno = state.of(thread, Errno)
    if not errno.address:
        errno.address = heaps.allocate(thread.process, bytes(16))
    return errno.address


@api("LPSTR strerror(int number)", *RUNTIME)
def strerror(thread: Thread, number: int) -> int:
    """The host's words for an error that has the same number."""
    return _kept(thread, os.strerror(number) if 0 <= number < 40 else "Unknown error")


@api("UINT ___lc_codepage_func(void)", *RUNTIME)
def lc_codepage(thread: Thread) -> int:
    """UTF-8, as everywhere here."""
    return UTF8


@api("int ___mb_cur_max_func(void)", *RUNTIME)
def mb_cur_max(thread: Thread) -> int:
    """Bytes of the longest character."""
    return 4


@api("LPVOID localeconv(void)", *RUNTIME)
def localeconv(thread: Thread) -> int:
    """The C locale's lconv."""
    runtime = _runtime(thread)
    if not runtime.lconv:
        empty = _kept(thread, "")
        data = LCONV.pack(_kept(thread, "."), *[empty] * 9, *[UNKNOWN] * 8)
        runtime.lconv = heaps.allocate(thread.process, data)
    return runtime.lconv


def _allocate(thread: Thread, size: int, *, zero: bool = False) -> int:
    try:
        return heaps.process_heap(thread.process).blocks.allocate(size, zero=zero)
    except MemoryError:
        thread.memory.set_u32(errno_(thread), 12)  # ENOMEM
        return 0


@api("LPVOID malloc(size_t size)", *RUNTIME)
def malloc(thread: Thread, size: int) -> int:
    """0 for no memory."""
    return _allocate(thread, size)


@api("LPVOID calloc(size_t count, size_t size)", *RUNTIME)
def calloc(thread: Thread, count: int, size: int) -> int:
    """All zero."""
    return _allocate(thread, count * size, zero=True)


@api("void free(LPVOID address)", *RUNTIME)
def free(thread: Thread, address: int) -> None:
    """A null pointer is no mistake."""
    heaps.free(thread.process, address)


@api("LPVOID realloc(LPVOID address, size_t size)", *RUNTIME)
def realloc(thread: Thread, address: int, size: int) -> int:
    """Of size 0 it frees."""
    if not address:
        return _allocate(thread, size)
    if not size:
        heaps.free(thread.process, address)
        return 0
    return heaps.heap_re_alloc(thread, heaps.process_heap(thread.process).handle, 0, address, size)


@api("LPVOID memcpy(LPVOID target, LPCVOID source, size_t size)", *RUNTIME)
def memcpy(thread: Thread, target: int, source: int, size: int) -> int:
    """The target."""
    thread.memory.write(target, thread.memory.read(source, size))
    return target


@api("LPVOID memmove(LPVOID target, LPCVOID source, size_t size)", *RUNTIME)
def memmove(thread: Thread, target: int, source: int, size: int) -> int:
    """The target."""
    return memcpy(thread, target, source, size)


@api("LPVOID memset(LPVOID target, int value, size_t size)", *RUNTIME)
def memset(thread: Thread, target: int, value: int, size: int) -> int:
    """The target."""
    for start in range(0, size, 1 << 20):
        thread.memory.write(target + start, bytes([value & 0xFF]) * min(1 << 20, size - start))
    return target


@api("int memcmp(LPCVOID one, LPCVOID other, size_t size)", *RUNTIME)
def memcmp(thread: Thread, one: int, other: int, size: int) -> int:
    """-1, 0 or 1."""
    first, second = thread.memory.read(one, size), thread.memory.read(other, size)
    return (first > second) - (first < second)


@api("size_t strlen(LPCSTR text)", *RUNTIME)
def strlen(thread: Thread, text: int) -> int:
    """Bytes."""
    return len(thread.memory.string(text))


@api("size_t wcslen(LPCWSTR text)", *RUNTIME)
def wcslen(thread: Thread, text: int) -> int:
    """UTF-16 units."""
    return len(thread.memory.wide(text).encode("utf-16-le", "surrogatepass")) // 2


def _compare(first: bytes, second: bytes) -> int:
    return (first > second) - (first < second)


@api("int strcmp(LPCSTR one, LPCSTR other)", *RUNTIME)
def strcmp(thread: Thread, one: int, other: int) -> int:
    """-1, 0 or 1."""
    return _compare(thread.memory.string(one), thread.memory.string(other))


@api("int strncmp(LPCSTR one, LPCSTR other, size_t size)", *RUNTIME)
def strncmp(thread: Thread, one: int, other: int, size: int) -> int:
    """Of at most `size` bytes, of which the other may be the last that can be read."""
    for place in range(size):
        first, second = thread.memory.read(one + place, 1), thread.memory.read(other + place, 1)
        if first != second:
            return 1 if first > second else -1
        if first == b"\0":
            break
    return 0


@api("LPSTR strcpy(LPSTR target, LPCSTR source)", *RUNTIME)
def strcpy(thread: Thread, target: int, source: int) -> int:
    """The target."""
    thread.memory.write(target, thread.memory.string(source) + b"\0")
    return target


@api("LPSTR strcat(LPSTR target, LPCSTR source)", *RUNTIME)
def strcat(thread: Thread, target: int, source: int) -> int:
    """The target."""
    strcpy(thread, target + strlen(thread, target), source)
    return target


@api("LPSTR strchr(LPCSTR text, int character)", *RUNTIME)
def strchr(thread: Thread, text: int, character: int) -> int:
    """The first one's address; the zero can be looked for too."""
    place = (thread.memory.string(text) + b"\0").find(bytes([character & 0xFF]))
    return text + place if place >= 0 else 0


@api("LPSTR strrchr(LPCSTR text, int character)", *RUNTIME)
def strrchr(thread: Thread, text: int, character: int) -> int:
    """The last one's address."""
    place = (thread.memory.string(text) + b"\0").rfind(bytes([character & 0xFF]))
    return text + place if place >= 0 else 0


@api("LPSTR strstr(LPCSTR text, LPCSTR wanted)", *RUNTIME)
def strstr(thread: Thread, text: int, wanted: int) -> int:
    """Where a text is in another."""
    place = thread.memory.string(text).find(thread.memory.string(wanted))
    return text + place if place >= 0 else 0


@api("LPSTR getenv(LPCSTR name)", *RUNTIME)
def getenv(thread: Thread, name: int) -> int:
    """A variable's value, 0 for none."""
    value = environment.value_of(thread.process, ANSI.read(thread.memory, name))
    return 0 if value is None else _kept(thread, value)


def parse_integer(text: str, base: int) -> tuple[int, int]:
    """strtol's number, not cut to any width, and where it ends; 0 at the start for none."""
    place = len(text) - len(text.lstrip(" \t\n\v\f\r"))
    negative = text[place : place + 1] == "-"
    place += text[place : place + 1] in ("+", "-") and place < len(text)
    digit = text[place + 2 : place + 3].lower()
    if base in (0, 16) and text[place : place + 2].lower() == "0x" and digit and digit in DIGITS[:16]:
        place, base = place + 2, 16
    base = base or (8 if text[place : place + 1] == "0" else 10)
    value, start = 0, place
    while place < len(text) and text[place].lower() in DIGITS[:base]:
        value = value * base + DIGITS.index(text[place].lower())
        place += 1
    return (-value if negative else value), place if place > start else 0


def _number(thread: Thread, text: int, end: int, base: int, low: int, high: int) -> int:
    content = thread.memory.string(text).decode("latin-1")
    if base == 1 or not 0 <= base <= 36:
        return 0
    value, place = parse_integer(content, base)
    if end:
        thread.memory.set_u64(end, text + place)
    if not low <= value <= high:
        thread.memory.set_u32(errno_(thread), ERRNO_ERANGE)
    return min(max(value, low), high)


@api("LONG strtol(LPCSTR text, LPVOID end, int base)", *RUNTIME)
def strtol(thread: Thread, text: int, end: int, base: int) -> int:
    """ERANGE beyond 32 bits."""
    return _number(thread, text, end, base, -(1 << 31), (1 << 31) - 1)


@api("ULONG strtoul(LPCSTR text, LPVOID end, int base)", *RUNTIME)
def strtoul(thread: Thread, text: int, end: int, base: int) -> int:
    """ERANGE beyond 32 bits; a negative one is as if it were cut."""
    return _number(thread, text, end, base, -(1 << 32) + 1, (1 << 32) - 1) & 0xFFFF_FFFF


@api("int atoi(LPCSTR text)", *RUNTIME)
def atoi(thread: Thread, text: int) -> int:
    """Of ten digits."""
    return _number(thread, text, 0, 10, -(1 << 31), (1 << 31) - 1)


@api("void qsort(LPVOID base, size_t count, size_t size, FARPROC compare)", *RUNTIME)
def qsort(thread: Thread, base: int, count: int, size: int, compare: int) -> None:
    """By a guest's function, which gets copies of two elements. Stable, though none is promised."""
    if count < 2 or not 0 < size * count < 1 << 30:
        return
    scratch = heaps.allocate(thread.process, bytes(2 * size))
    data = thread.memory.read(base, size * count)

    def less(one: bytes, other: bytes) -> int:
        thread.memory.write(scratch, one + other)
        result = thread.engine.call(compare, scratch, scratch + size) & 0xFFFF_FFFF
        return result - (1 << 32) if result >> 31 else result

    try:
        elements = [data[place : place + size] for place in range(0, len(data), size)]
        elements.sort(key=cmp_to_key(less))
        thread.memory.write(base, b"".join(elements))
    finally:
        heaps.free(thread.process, scratch)
