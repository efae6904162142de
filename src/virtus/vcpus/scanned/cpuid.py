"""What CPUID tells of an i386 guest's processor (Intel SDM volume 2A, CPUID).

It is a processor of family 6 without what the evaluator and the page table walk do not have: no PAE, no local APIC.
"""

import struct
from typing import Final

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
LAST, LAST_EXTENDED = 2, EXTENDED + 4
CACHE_DESCRIPTORS: Final = 0x01  # "call leaf 2 once", and no descriptors


def answer(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """EAX, EBX, ECX and EDX; leaves beyond the last are answered as the last basic one."""
    if leaf == 0:
        ebx, edx, ecx = struct.unpack("<III", VENDOR)
        return LAST, ebx, ecx, edx
    if leaf == 1:
        return SIGNATURE, CLFLUSH_SIZE, 0, FEATURES
    if leaf == EXTENDED:
        return LAST_EXTENDED, 0, 0, 0
    if leaf == EXTENDED + 1:
        return 0, 0, 0, 0
    if EXTENDED + 2 <= leaf <= LAST_EXTENDED:
        first, second, third, fourth = struct.unpack_from("<IIII", BRAND, (leaf - EXTENDED - 2) * 16)
        return first, second, third, fourth
    return CACHE_DESCRIPTORS, 0, 0, 0
