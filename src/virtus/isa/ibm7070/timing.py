"""How long instructions take, in the 7070's cycles of 6 microseconds.

This table follows the weights of the Open SIMH simulator of the 7070, whose unit is a quarter of a cycle: 7 cycles to
fetch an instruction and its operand, 2.5 for indexing, for fields by their length, and for a product three cycles for
each unit of each digit of the multiplier and half a cycle for a zero. So a full addition takes 60 microseconds and a
product of random numbers about 860, as published (60 and 924). The simulator has no times for division, block
transmission and look-up: a quotient takes what the multiplication that undoes it would, and each word moved two cycles
of storage, one to read and one to write.
"""

import math
from typing import Final

from virtus.isa.ibm7070.operations import Form, Operation

MICROSECONDS: Final = 6
"""A cycle."""
PER_CYCLE: Final = 4
"""Quarters."""
_FETCH: Final = 28  # quarters: the instruction and its operand
_INDEXING: Final = 10
_STORING: Final = 2
_ADDING: Final = frozenset(f"{name}{number}" for name in ("A", "S") for number in (1, 2, 3)) | {"AA", "SA"}
_ADDING_TO_STORAGE: Final = frozenset(f"{name}{number}" for name in ("AS", "AAS", "SS") for number in (1, 2, 3))
_LOADING: Final = frozenset(f"{name}{number}" for name in ("ZA", "ZS") for number in (1, 2, 3)) | {"ZAA", "ZSA"}
_STORES: Final = frozenset(f"{name}{number}" for name in ("ST", "STD", "ZST") for number in (1, 2, 3)) | {
    "XL", "XU", "XZA", "XZS", "XA", "XS", "XSN", "XLIN", "BIX", "BDX", "BLX", "MSA", "MSM", "MSP",
}  # fmt: skip

WORD_MOVED: Final = 2
ENTRY_SEARCHED: Final = 2
DIGIT_WORK: Final = 6
"""Half cycles for each unit of a digit of a multiplier or quotient."""
ZERO_WORK: Final = 1
"""Half cycles for a zero there."""
FLOATING: Final = 20
"""Cycles for floating addition, beyond the fetch; rounding and normalizing included."""


def cycles(operation: Operation | None, first: int, last: int, *, indexed: bool) -> int:
    """What is known of an instruction's time beforehand."""
    quarters = _FETCH + (_INDEXING if indexed else 0)
    if operation is not None:
        places = max(last - first, 0) if operation.form is Form.FIELD else 0
        if operation.name in _LOADING:
            quarters += places // 3
        elif operation.name in _ADDING:
            quarters += 4 * places // 3
        elif operation.name in _ADDING_TO_STORAGE:
            quarters += 4 * places // 3 + _STORING
        elif operation.name in _STORES:
            quarters += _STORING
    return math.ceil(quarters / PER_CYCLE)


def work(digits: int) -> int:
    """Half cycles of multiplying by a number of four digits."""
    return sum(DIGIT_WORK * int(digit) if digit != "0" else ZERO_WORK for digit in f"{digits:04d}")
