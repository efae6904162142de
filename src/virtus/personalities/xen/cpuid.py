"""What CPUID tells a paravirtual guest: the processor's own features, without those that a ring-3 kernel cannot have.

Programs run CPUID natively where the host does not intercept it at ring 3; so nothing may be claimed that the processor
lacks, and sizes that follow from the processor's state (XSAVE) are its own. Sources: Intel SDM volume 2A and AMD APM
volume 3 (CPUID); xen/arch/x86/cpuid.c (recalculate_cpuid_policy); the signature: xen/include/public/arch-x86/cpuid.h.
"""

from functools import cached_property
from typing import Final

from virtus.host import cpuid as host
from virtus.host.cpuid import Leaf
from virtus.host.segments import null_clears_base

XEN_LEAF: Final = 0x40000000
XEN_VERSION: Final = 4 << 16 | 17
HIGHEST_BASIC, HIGHEST_EXTENDED, EXTENDED = 0xD, 0x80000008, 0x80000000
EXTENDED_FEATURES_2: Final = 0x80000021
NULL_CLEARS_BASE: Final = 1 << 6  # of EAX: NullSelectClearsBase
XSAVE_LEAF: Final = 0xD
INDEXED: Final = frozenset({4, 7, XSAVE_LEAF, 0x8000001D})
STATE_X87, STATE_MASK = 1, 0xE7  # x87, SSE, AVX and AVX-512: what XSETBV may switch on
LEGACY_AREA: Final = 576
HYPERVISOR, XSAVE, OSXSAVE = 1 << 31, 1 << 26, 1 << 27


def bits(*numbers: int) -> int:
    """A mask of these bits."""
    return sum(1 << number for number in numbers)


# MONITOR VMX PDCM PCID X2APIC TSC_DEADLINE
LEAF1_ECX_HIDDEN: Final = bits(3, 5, 15, 17, 21, 24)
# VME PSE MCE APIC SEP MTRR PGE MCA PAT HTT
LEAF1_EDX_HIDDEN: Final = bits(1, 3, 7, 9, 11, 12, 13, 14, 16, 28)
# FSGSBASE TSC_ADJUST SMEP INVPCID PQM MPX PQE SMAP
LEAF7_EBX_HIDDEN: Final = bits(0, 1, 7, 10, 12, 14, 15, 20)
# UMIP PKU OSPKE WAITPKG SHSTK LA57 BUS_LOCK_DETECT
LEAF7_ECX_HIDDEN: Final = bits(2, 3, 4, 5, 7, 16, 24)
# as LEAF1_EDX_HIDDEN, and PSE36, 1-GiB pages, RDTSCP
EXTENDED_EDX_HIDDEN: Final = bits(1, 3, 7, 9, 12, 13, 14, 16, 17, 26, 27)
# SVM EXTAPIC OSVW IBS XOP SKINIT WDT LWP FMA4 NODEID TOPOEXT PERFCTR and what follows
EXTENDED_ECX_HIDDEN: Final = bits(2, 3, 9, 10, 11, 12, 13, 15, 16, 19, 22, 23, 24, 27, 28, 29)
INVARIANT_TSC: Final = 1 << 8


class CpuidPolicy:
    """The answers. `xcr0` is what the guest has chosen by XSETBV."""

    def __init__(self) -> None:
        self.xcr0 = STATE_X87

    @cached_property
    def leaves(self) -> dict[tuple[int, int], Leaf]:
        """All leaves, as KVM takes them too."""
        found = dict[tuple[int, int], Leaf]()
        basic = min(host.leaf(0)[0], HIGHEST_BASIC)
        extended = min(host.leaf(EXTENDED)[0], HIGHEST_EXTENDED)
        for number in [*range(basic + 1), *range(EXTENDED, extended + 1)]:
            indices = {7: 1, 4: 4, XSAVE_LEAF: 9}.get(number, 1)
            for index in range(indices):
                found[number, index] = self._limit(number, index, host.leaf(number, index))
        if host.leaf(EXTENDED)[0] >= EXTENDED_FEATURES_2 and null_clears_base():
            # else Linux loads FS and GS twice at each switch, at a hypercall each; it may be true and not said
            found[EXTENDED, 0] = (EXTENDED_FEATURES_2, *found[EXTENDED, 0][1:])
            found[EXTENDED_FEATURES_2, 0] = (NULL_CLEARS_BASE, 0, 0, 0)
        signature = (
            int.from_bytes(b"XenV", "little"),
            int.from_bytes(b"MMXe", "little"),
            int.from_bytes(b"nVMM", "little"),
        )
        found[XEN_LEAF, 0] = (XEN_LEAF + 2, *signature)
        found[XEN_LEAF + 1, 0] = (XEN_VERSION, 0, 0, 0)
        found[XEN_LEAF + 2, 0] = (0, 0, 0, 0)
        return found

    @staticmethod
    def _limit(number: int, index: int, native: Leaf) -> Leaf:
        eax, ebx, ecx, edx = native
        if number == 0:
            return min(eax, HIGHEST_BASIC), ebx, ecx, edx
        if number == EXTENDED:
            return min(eax, HIGHEST_EXTENDED), ebx, ecx, edx
        if number == 1:
            ecx = ecx & ~LEAF1_ECX_HIDDEN & ~OSXSAVE | HYPERVISOR | (OSXSAVE if ecx & XSAVE else 0)
            return eax, ebx & 0xFFFF | 1 << 16, ecx, edx & ~LEAF1_EDX_HIDDEN
        if number == 7:
            return 0, ebx & ~LEAF7_EBX_HIDDEN, ecx & ~LEAF7_ECX_HIDDEN, 0
        if number == XSAVE_LEAF:
            if index == 0:
                return eax & STATE_MASK, ebx, ecx, 0
            if index == 1:
                return eax & 1, 0, 0, 0  # XSAVEOPT
            return native if STATE_MASK >> index & 1 else (0, 0, 0, 0)
        if number in (5, 6, 0xA, 0xB):  # MONITOR, thermal, performance counters, topology
            return 0, 0, 0, 0
        if number == EXTENDED + 1:
            return eax, ebx, ecx & ~EXTENDED_ECX_HIDDEN, edx & ~EXTENDED_EDX_HIDDEN
        if number == EXTENDED + 7:
            return 0, 0, 0, edx & INVARIANT_TSC
        if number == EXTENDED + 8:
            return eax, ebx & 1, 0, 0
        return native

    @property
    def states(self) -> int:
        """The state components that XSETBV may switch on."""
        return self.leaves.get((XSAVE_LEAF, 0), (STATE_X87, 0, 0, 0))[0]

    def _area(self, chosen: int) -> int:
        size = LEGACY_AREA
        for index in range(2, 9):
            length, offset, *_ = self.leaves.get((XSAVE_LEAF, index), (0, 0))
            if chosen >> index & 1:
                size = max(size, offset + length)
        return size

    def answer(self, number: int, index: int) -> Leaf:
        """EAX to EDX for a guest's kernel."""
        if number == XSAVE_LEAF and index == 0 and (number, 0) in self.leaves:
            return self.states, self._area(self.xcr0), self._area(self.states), 0
        return self.leaves.get((number, index if number in INDEXED else 0), (0, 0, 0, 0))
