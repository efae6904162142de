"""The processor's time stamp counter (Intel SDM volume 3B, 18.17)."""

import time
from collections.abc import Callable
from functools import cache
from typing import Final

from virtus.host import cpuid
from virtus.host.machine_code import MachineCode

POWER_LEAF, INVARIANT = 0x8000_0007, 1 << 8  # CPUID.80000007H:EDX[8]
EXTENDED: Final = 0x8000_0000
SECOND, SHORTEST_NS = 1_000_000_000, 50_000_000
_CODE: Final = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc;  shl rdx, 32;  or rax, rdx;  ret


@cache
def invariant() -> bool:
    """Whether it counts at one rate whatever the processor does: then a guest may read it itself."""
    return cpuid.leaf(EXTENDED)[0] >= POWER_LEAF and cpuid.leaf(POWER_LEAF)[3] & INVARIANT != 0


@cache
def _code() -> MachineCode:
    return MachineCode(_CODE)


@cache
def _start() -> tuple[int, int]:
    """The counter and the clock, once."""
    return _code().function()(), time.perf_counter_ns()


@cache
def frequency() -> int:
    """How often it counts in a second, to some millionths: measured from the first use of `counter` to that of this, a
    twentieth of a second at least. 0 where it is not invariant."""
    if not invariant():
        return 0
    counted, began = _start()
    time.sleep(max(0.0, (began + SHORTEST_NS - time.perf_counter_ns()) / SECOND))
    return (counter()() - counted) * SECOND // (time.perf_counter_ns() - began)


@cache
def counter() -> Callable[[], int]:
    """What a guest's RDTSC shows: the counter itself where it is invariant, and nanoseconds elsewhere."""
    if not invariant():
        return time.perf_counter_ns
    _start()
    return _code().function()
