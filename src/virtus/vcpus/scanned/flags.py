"""The status flags that integer instructions leave (Intel SDM volume 1, 3.4.3.1)."""

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


def holds(condition: int, eflags: int) -> bool:
    """Whether one of the sixteen conditions holds, by its encoding (Intel SDM volume 1, appendix B)."""
    kind = condition >> 1
    if kind == 0:
        found = eflags & OF
    elif kind == 1:
        found = eflags & CF
    elif kind == 2:
        found = eflags & ZF
    elif kind == 3:
        found = eflags & (CF | ZF)
    elif kind == 4:
        found = eflags & SF
    elif kind == 5:
        found = eflags & PF
    else:
        less = (eflags & SF != 0) != (eflags & OF != 0)
        return (less or (kind == 7 and eflags & ZF != 0)) != (condition & 1 != 0)
    return (found != 0) != (condition & 1 != 0)
