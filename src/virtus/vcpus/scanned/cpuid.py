"""What CPUID tells of an i386 guest's processor (Intel SDM volume 2A, CPUID).

It is a processor of family 6 without what the evaluator and the page table walk do not have: no PAE, no local APIC.
"""

import struct
from typing import Final

from virtus.host import timestamp

FPU, DE, PSE, TSC, MSR, CX8, SEP, PGE, CMOV, MMX, FXSR, SSE, SSE2 = (
    1 << bit for bit in (0, 2, 3, 4, 5, 8, 11, 13, 15, 23, 24, 25, 26)
)
FEATURES: Final = FPU | DE | PSE | TSC | MSR | CX8 | SEP | PGE | CMOV | MMX | FXSR | SSE | SSE2
SIGNATURE: Final = 0x633
"""Family 6, model 3, stepping 3: with a SYSENTER that operating systems trust."""
VENDOR: Final = b"GenuineIntel"
BRAND: Final = b"virtus virtual i386 processor".ljust(48, b"\0")
CLFLUSH_SIZE: Final = 8 << 8  # in units of 8 bytes
EXTENDED: Final = 0x8000_0000
CACHES, STRUCTURED, TIME_STAMPS, POWER = 2, 7, 0x15, EXTENDED + 7
TSC_ADJUST: Final = 1 << 1
"""CPUID.7.0:EBX. Linux does not watch a counter with that bit by clocks that tick late here, and so keeps using it."""
INVARIANT: Final = 1 << 8  # CPUID.80000007H:EDX
LAST_EXTENDED: Final = {False: EXTENDED + 4, True: POWER}
LAST: Final = {False: CACHES, True: TIME_STAMPS}
"""By whether the time stamp counter is one that is told of: systems would find out how fast it is by timers, which we
answer too slowly for that."""
CACHE_DESCRIPTORS: Final = 0x01  # "call leaf 2 once", and no descriptors


def answer(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """EAX, EBX, ECX and EDX; leaves beyond the last are answered as the last basic one."""
    invariant = timestamp.invariant()
    if leaf == 0:
        ebx, edx, ecx = struct.unpack("<III", VENDOR)
        return LAST[invariant], ebx, ecx, edx
    if leaf == 1:
        return SIGNATURE, CLFLUSH_SIZE, 0, FEATURES
    if leaf == EXTENDED:
        return LAST_EXTENDED[invariant], 0, 0, 0
    if leaf == EXTENDED + 1:
        return 0, 0, 0, 0
    if EXTENDED + 2 <= leaf <= EXTENDED + 4:
        first, second, third, fourth = struct.unpack_from("<IIII", BRAND, (leaf - EXTENDED - 2) * 16)
        return first, second, third, fourth
    if invariant and leaf == POWER:
        return 0, 0, 0, INVARIANT
    if invariant and leaf == STRUCTURED:
        return 0, 0 if subleaf else TSC_ADJUST, 0, 0
    if CACHES < leaf < LAST[invariant] or EXTENDED + 4 < leaf <= LAST_EXTENDED[invariant]:
        return 0, 0, 0, 0
    if not invariant or leaf == CACHES:
        return CACHE_DESCRIPTORS, 0, 0, 0
    times = 1 + timestamp.frequency() // (1 << 32)
    return 1, times, timestamp.frequency() // times, 0  # a crystal as fast, or a fraction of it
