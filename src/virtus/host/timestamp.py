"""The processor's time stamp counter (Intel SDM volume 3B, 18.17)."""

import time
from collections.abc import Callable
from functools import cache
from typing import Final

from virtus.host import cpuid
from virtus.host.machine_code import MachineCode

POWER_LEAF, INVARIANT = 0x8000_0007, 1 << 8  # CPUID.80000007H:EDX[8]
EXTENDED: Final = 0x8000_0000
_CODE: Final = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc;  shl rdx, 32;  or rax, rdx;  ret


@cache
def invariant() -> bool:
    """Whether it counts at one rate whatever the processor does: then a guest may read it itself."""
    return cpuid.leaf(EXTENDED)[0] >= POWER_LEAF and cpuid.leaf(POWER_LEAF)[3] & INVARIANT != 0


@cache
def _code() -> MachineCode:
    return MachineCode(_CODE)


@cache
def counter() -> Callable[[], int]:
    """What a guest's RDTSC shows: the counter itself where it is invariant, and nanoseconds elsewhere."""
    return _code().function() if invariant() else time.perf_counter_ns
