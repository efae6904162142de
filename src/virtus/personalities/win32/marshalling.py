"""From a function's declaration to what an emulated processor calls: its arguments lie in a row in guest memory."""

import struct
from collections.abc import Callable
from typing import Any, Final, Protocol

from virtus.personalities.win32.guest import Memory
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import Function, Type, cut

SLOT: Final = 8
IN_REGISTERS: Final = 4
_FORMATS: Final = {(1, False): "B7x", (1, True): "b7x", (2, False): "H6x", (2, True): "h6x", (4, False): "I4x",
                   (4, True): "i4x", (8, False): "Q", (8, True): "q"}  # fmt: skip


class Vectors(Protocol):
    """Floating-point arguments and results, where a function has some."""

    def doubles(self) -> tuple[float, ...]:
        """XMM0 to XMM3."""
        ...

    def floats(self) -> tuple[float, ...]:
        """The same in single precision."""
        ...

    def set_vector(self, data: bytes) -> None:
        """XMM0."""
        ...


def _format(type: Type) -> str:
    if type.floating:
        return "d" if type.size == 8 else "f4x"
    return _FORMATS[type.size, type.signed]


def entry(function: Function, memory: Memory, current: Callable[[], Thread], vectors: Vectors) -> Callable[[int], int]:
    """A callable that gets the guest address of the arguments, and gives RAX."""
    layout = struct.Struct("<" + "".join(_format(parameter.type) for parameter in function.parameters))
    body = function.implementation
    mask = (1 << 8 * (function.result.size or SLOT)) - 1
    unpack, size, read = layout.unpack, layout.size, memory.read
    if function.variadic:
        return _variadic(function, layout, memory, current)
    if function.result.floating or any(parameter.type.floating for parameter in function.parameters):
        return _floating(function, layout, memory, current, vectors)
    if not size:
        return lambda frame: (body(current()) or 0) & mask
    return lambda frame: (body(current(), *unpack(read(frame, size))) or 0) & mask


def _variadic(
    function: Function, layout: struct.Struct, memory: Memory, current: Callable[[], Thread]
) -> Callable[[int], int]:
    def call(frame: int) -> int:
        place = frame + layout.size

        def following() -> int:
            nonlocal place
            place += SLOT
            return memory.u64(place - SLOT)

        arguments: list[Any] = list(layout.unpack(memory.read(frame, layout.size)))
        return (function.implementation(current(), *arguments, following) or 0) & 0xFFFF_FFFF_FFFF_FFFF

    return call


def _floating(
    function: Function, layout: struct.Struct, memory: Memory, current: Callable[[], Thread], vectors: Vectors
) -> Callable[[int], int]:
    def call(frame: int) -> int:
        arguments: list[Any] = list(layout.unpack(memory.read(frame, layout.size)))
        for index, parameter in enumerate(function.parameters[:IN_REGISTERS]):
            if parameter.type.floating:
                values = vectors.doubles() if parameter.type.size == 8 else vectors.floats()
                arguments[index] = values[index]
        result = function.implementation(current(), *arguments)
        if function.result.floating:
            vectors.set_vector(struct.pack("<d" if function.result.size == 8 else "<f", result or 0.0))
            return 0
        return int(result or 0) & 0xFFFF_FFFF_FFFF_FFFF

    return call


def traced(
    function: Function, memory: Memory, call: Callable[[int], int], write: Callable[[str], object]
) -> Callable[[int], int]:
    """The same callable, which tells of every call: its arguments, its result, and the last error where it set one."""
    size = len(function.parameters)

    def tell(frame: int) -> int:
        words = struct.unpack(f"<{size}Q", memory.read(frame, SLOT * size))
        shown = ", ".join(
            f"{parameter.name}={_shown(parameter.type, word)}"
            for parameter, word in zip(function.parameters, words, strict=True)
        )
        write(f"{function.name}({shown})\n")
        result = call(frame)
        write(f"  {function.name} = {result:#x}\n")
        return result

    return tell


def _shown(type: Type, word: int) -> str:
    value = cut(type, word) if type.size and not type.floating else word
    return hex(value) if type.pointer or abs(value) > 9999 else str(value)
