"""Wide and narrow strings in a guest's memory: most of Windows' functions of strings come as a pair, W and A.

A pair shares one implementation, which gets `WIDE` or `ANSI`. How a string is handed out in the caller's buffer follows
one of a few conventions, each of them a function here.
"""

from typing import Final, Protocol

from virtus.personalities.win32.code_pages import from_utf16, system_decode, system_encode, utf16
from virtus.personalities.win32.guest import Memory


class Text(Protocol):
    """One of the two kinds of strings."""

    unit: int
    """Bytes of a character."""

    def read(self, memory: Memory, address: int, count: int = -1) -> str:
        """`count` characters, or up to the zero for a negative count; raises AccessViolation."""
        ...

    def encode(self, text: str) -> bytes:
        """The bytes of a string, without a zero at the end."""
        ...


class _Wide:
    unit = 2

    def read(self, memory: Memory, address: int, count: int = -1) -> str:
        return memory.wide(address) if count < 0 else from_utf16(memory.read(address, 2 * count))

    def encode(self, text: str) -> bytes:
        return utf16(text)


class _Ansi:
    unit = 1

    def read(self, memory: Memory, address: int, count: int = -1) -> str:
        return system_decode(memory.string(address) if count < 0 else memory.read(address, count))

    def encode(self, text: str) -> bytes:
        return system_encode(text)


WIDE: Final[Text] = _Wide()
ANSI: Final[Text] = _Ansi()


def store(memory: Memory, text: Text, address: int, value: str) -> int:
    """A string with its zero, where the caller knows that there is room; returns its length in characters."""
    data = text.encode(value)
    memory.write(address, data + bytes(text.unit))
    return len(data) // text.unit


def length(text: Text, value: str) -> int:
    """Characters of a string in this kind, without the zero."""
    return len(text.encode(value)) // text.unit


def give(memory: Memory, text: Text, buffer: int, capacity: int, value: str) -> int:
    """Into a buffer of `capacity` characters, with its zero.

    Returns the length without the zero when it fits; otherwise stores nothing and returns the capacity needed. (The
    convention of GetCurrentDirectory, GetEnvironmentVariable, GetSystemDirectory, GetTempPath.)
    """
    data = text.encode(value)
    count = len(data) // text.unit
    if count >= capacity or not buffer:
        return count + 1
    memory.write(buffer, data + bytes(text.unit))
    return count


def give_or_needed(memory: Memory, text: Text, buffer: int, capacity: int, value: str) -> int | None:
    """The same, but both counts have the zero in them; `capacity` 0 asks for the count, and None is: too small.

    (The convention of GetLocaleInfoEx, GetDateFormatEx, LCMapStringEx.)
    """
    data = text.encode(value) + bytes(text.unit)
    count = len(data) // text.unit
    if capacity == 0:
        return count
    if count > capacity:
        return None
    memory.write(buffer, data)
    return count


def give_counted(memory: Memory, text: Text, buffer: int, counter: int, value: str, *, terminated: bool) -> bool:
    """Into a buffer whose capacity in characters stands at `counter`, where the length is left.

    False when it does not fit: then the counter has the capacity needed. `terminated`: whether the length of success
    counts the zero (GetUserName does, GetComputerName does not).
    """
    data = text.encode(value)
    count = len(data) // text.unit
    if not buffer or memory.u32(counter) <= count:
        memory.set_u32(counter, count + 1)
        return False
    memory.write(buffer, data + bytes(text.unit))
    memory.set_u32(counter, count + terminated)
    return True
