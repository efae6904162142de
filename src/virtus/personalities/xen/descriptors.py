"""Segment descriptors: which of them a guest may load, since a gate of its own would lead around the hypervisor.

Source: xen.git, xen/arch/x86/pv/descriptor-tables.c (check_descriptor); Intel SDM volume 3A, 3.4.5.
"""

from typing import Final

from virtus.personalities.xen.abi import EINVAL, Refused

PRESENT: Final = 1 << 47
CODE_OR_DATA: Final = 1 << 44
RING: Final = 3 << 45
CODE, CONFORMING = 1 << 43, 1 << 42
PER_PAGE: Final = 512


def check(descriptor: int) -> int:
    """The descriptor as it may be loaded: at ring 3; raises Refused(EINVAL) for gates, task states and the like."""
    if not descriptor & PRESENT:
        return descriptor  # nothing can be loaded from it
    if not descriptor & CODE_OR_DATA:
        raise Refused(EINVAL, f"a system descriptor {descriptor:#018x}")
    if descriptor & CODE and descriptor & CONFORMING:
        raise Refused(EINVAL, f"a conforming code segment {descriptor:#018x}")
    return descriptor | RING
