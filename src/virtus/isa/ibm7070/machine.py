"""What a vCPU is told of the 7070 besides its instructions: where things are, and the tables that descriptions use."""

import struct
from functools import cache

from virtus.isa.ibm7070 import layout, timing


@cache
def constants() -> dict[int, bytes]:
    """The tables after core storage (see `layout`), by address."""
    return {
        layout.POWERS: struct.pack(
            f"<{layout.POWER_COUNT}Q", *(10**exponent for exponent in range(layout.POWER_COUNT))
        ),
        layout.WORK: struct.pack(f"<{layout.LOCATIONS}H", *(timing.work(digits) for digits in range(layout.LOCATIONS))),
    }
