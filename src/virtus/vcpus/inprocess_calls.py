"""Functions of ours as callbacks of ctypes that machine code calls, made from the types that they declare."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final

_C_TYPES: Final = {
    (1, False): ctypes.c_uint8, (1, True): ctypes.c_int8, (2, False): ctypes.c_uint16, (2, True): ctypes.c_int16,
    (4, False): ctypes.c_uint32, (4, True): ctypes.c_int32, (8, False): ctypes.c_uint64, (8, True): ctypes.c_int64,
}  # fmt: skip

Row = tuple[Callable[..., int], Sequence[Any]]
"""A function of ours and the types of its arguments, as ctypes has them."""
Body = Callable[..., int | None]
Maker = Callable[[Body, Callable[[], Any], Callable[[BaseException], int]], Callable[..., int]]

# Callbacks by the number of arguments: Python passes a known number twice as fast as any. Nothing may pass through the
# guest's frames, so each catches all.


def _none(body: Body, current: Callable[[], Any], trouble: Callable[[BaseException], int]) -> Callable[..., int]:
    def call() -> int:
        try:
            return body(current()) or 0
        except BaseException as escaped:
            return trouble(escaped)

    return call


def _one(body: Body, current: Callable[[], Any], trouble: Callable[[BaseException], int]) -> Callable[..., int]:
    def call(first: int) -> int:
        try:
            return body(current(), first) or 0
        except BaseException as escaped:
            return trouble(escaped)

    return call


def _two(body: Body, current: Callable[[], Any], trouble: Callable[[BaseException], int]) -> Callable[..., int]:
    def call(first: int, second: int) -> int:
        try:
            return body(current(), first, second) or 0
        except BaseException as escaped:
            return trouble(escaped)

    return call


def _three(body: Body, current: Callable[[], Any], trouble: Callable[[BaseException], int]) -> Callable[..., int]:
    def call(first: int, second: int, third: int) -> int:
        try:
            return body(current(), first, second, third) or 0
        except BaseException as escaped:
            return trouble(escaped)

    return call


def _any_number(body: Body, current: Callable[[], Any], trouble: Callable[[BaseException], int]) -> Callable[..., int]:
    def call(*arguments: int) -> int:
        try:
            return body(current(), *arguments) or 0
        except BaseException as escaped:
            return trouble(escaped)

    return call


_FIXED: Final[tuple[Maker, ...]] = (_none, _one, _two, _three)


def typed(
    body: Body,
    current: Callable[[], Any],
    trouble: Callable[[BaseException], int],
    types: Sequence[tuple[int, bool]],
) -> Row:
    """A function of integers, each of a size and with or without a sign; first it gets `current`."""
    make = _FIXED[len(types)] if len(types) < len(_FIXED) else _any_number
    return make(body, current, trouble), [_C_TYPES[kind] for kind in types]
