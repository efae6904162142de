"""The status flags that integer instructions leave (Intel SDM volume 1, 3.4.3.1)."""

from collections.abc import Callable
from typing import Final

from virtus.vcpus.scanned.cpu_state import AF, CF, OF, PF, SF, STATUS_FLAGS, ZF

KEEP: Final = ~STATUS_FLAGS
KEEP_WITH_CARRY: Final = ~(STATUS_FLAGS & ~CF)
PARITY: Final = tuple(0 if number.bit_count() & 1 else PF for number in range(256))


def of_result(result: int, bits: int) -> int:
    """SF, ZF and PF of a result of `bits` bits."""
    return PARITY[result & 0xFF] | (0 if result else ZF) | result >> bits - 8 & SF


def of_sum(left: int, right: int, total: int, bits: int) -> int:
    """All six of `total` = left + right + carry, which may exceed `bits` bits."""
    result = total & (1 << bits) - 1
    overflow = OF if (left ^ result) & (right ^ result) & 1 << bits - 1 else 0
    return of_result(result, bits) | total >> bits & CF | (left ^ right ^ result) & AF | overflow


def of_difference(left: int, right: int, difference: int, bits: int) -> int:
    """All six of `difference` = left - right - borrow, which may be negative."""
    result = difference & (1 << bits) - 1
    overflow = OF if (left ^ right) & (left ^ result) & 1 << bits - 1 else 0
    return of_result(result, bits) | (CF if difference < 0 else 0) | (left ^ right ^ result) & AF | overflow


def _less(eflags: int) -> bool:
    return (eflags & SF != 0) != (eflags & OF != 0)


_KINDS: Final[tuple[Callable[[int], object], ...]] = (
    lambda eflags: eflags & OF,
    lambda eflags: eflags & CF,
    lambda eflags: eflags & ZF,
    lambda eflags: eflags & (CF | ZF),
    lambda eflags: eflags & SF,
    lambda eflags: eflags & PF,
    _less,
    lambda eflags: eflags & ZF or _less(eflags),
)


def _opposite(test: Callable[[int], object]) -> Callable[[int], object]:
    return lambda eflags: not test(eflags)


CONDITIONS: Final = tuple(test for kind in _KINDS for test in (kind, _opposite(kind)))
"""Whether each of the sixteen conditions holds in EFLAGS, by its encoding (Intel SDM volume 1, appendix B)."""
