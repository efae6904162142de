"""Hypercalls about a domain's amount of memory, and about the hypervisor itself: memory_op, xen_version, physdev_op.

Sources: xen/include/public/memory.h, version.h, physdev.h.
"""

import struct
from typing import TYPE_CHECKING, Final

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.personalities.xen.abi import DOMID_SELF, EINVAL, ENOSYS, EPERM, QWORD, Refused
from virtus.personalities.xen.cpuid import XEN_VERSION
from virtus.personalities.xen.table import call, operation

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain

RESERVATION: Final = struct.Struct("<QQIIH6x")  # struct xen_memory_reservation
MOST_EXTENTS: Final = 1 << 16
E820: Final = struct.Struct("<QQI")
E820_RAM: Final = 1
FEATURES: Final = 1 << 4 | 1 << 5 | 1 << 7
"""XENFEAT_pae_pgdir_above_4gb, XENFEAT_mmu_pt_update_preserve_ad, XENFEAT_gnttab_map_avail_bits."""
HYPERVISOR_START: Final = 0xFFFF_8000_0000_0000


def _reservation(domain: "Domain", at: int) -> tuple[int, int]:
    """Where the extents are listed, and how many; single frames only."""
    start, count, order, _, named = RESERVATION.unpack(domain.access.read(at, RESERVATION.size))
    if named not in (DOMID_SELF, domain.ident):
        raise Refused(EPERM)
    if order or count > MOST_EXTENTS:
        raise Refused(EINVAL, "extents of single frames only")
    return start, count


@operation("memory_op", 0, "increase_reservation", note="single frames")
def increase_reservation(domain: "Domain", at: int) -> int:
    """Frames for the domain, as far as there are free ones; how many."""
    return _populate(domain, at, physical=False)


@operation("memory_op", 6, "populate_physmap", note="single frames")
def populate_physmap(domain: "Domain", at: int) -> int:
    """The same at given pseudo-physical frames."""
    return _populate(domain, at, physical=True)


def _populate(domain: "Domain", at: int, *, physical: bool) -> int:
    start, count = _reservation(domain, at)
    done = 0
    try:
        for done in range(count):
            if domain.frame_count >= domain.most_frames:
                return done
            wanted = domain.access.read_qword(start + 8 * done) if physical else 0
            frame = domain.frames.take_free(domain.ident)
            domain.frame_count += 1
            if physical:
                domain.set_m2p(frame, wanted)
            domain.access.write(start + 8 * done, QWORD.pack(frame))
    except Refused:
        return done
    return count


@operation("memory_op", 1, "decrease_reservation", note="single frames")
def decrease_reservation(domain: "Domain", at: int) -> int:
    """Give frames back, as far as they are not used any more; how many."""
    start, count = _reservation(domain, at)
    for done in range(count):
        try:
            frame = domain.access.read_qword(start + 8 * done)
            domain.frames.give_up(frame, domain.ident)
        except Refused as refusal:
            domain.note(f"decrease_reservation: {refusal}")
            return done
        domain.frame_count -= 1
        domain.memory.frame(frame)[:] = bytes(PAGE)  # the next owner is to find nothing
        domain.tables.stored_into(frame)
        domain.translations.flush()
    return count


@operation("memory_op", 2, "maximum_ram_page")
def maximum_ram_page(domain: "Domain") -> int:
    """The highest machine frame there is."""
    return domain.frames.count - 1


@operation("memory_op", 3, "current_reservation")
def current_reservation(domain: "Domain", at: int) -> int:
    """How many frames the domain has."""
    return domain.frame_count


@operation("memory_op", 4, "maximum_reservation")
def maximum_reservation(domain: "Domain", at: int) -> int:
    """How many it may have."""
    return domain.most_frames


@operation("memory_op", 9, "memory_map")
def memory_map(domain: "Domain", at: int) -> int:
    """The pseudo-physical memory map: one piece from 0."""
    count, _, buffer = struct.unpack("<IIQ", domain.access.read(at, 16))
    if not count:
        raise Refused(EINVAL)
    domain.access.write(buffer, E820.pack(0, domain.most_frames << FRAME_SHIFT, E820_RAM))
    domain.access.write_dword(at, 1)
    return 0


@operation("memory_op", 12, "machphys_mapping")
def machphys_mapping(domain: "Domain", at: int) -> int:
    """Where the machine-to-physical table is mapped."""
    start, end = domain.m2p_range
    domain.access.write(at, struct.pack("<QQQ", start, end, domain.frames.count - 1))
    return 0


# the hypervisor itself


@operation("xen_version", 0, "version")
def version(domain: "Domain", at: int) -> int:
    """Of the interface."""
    return XEN_VERSION


@operation("xen_version", 1, "extraversion")
def extraversion(domain: "Domain", at: int) -> int:
    """Text behind it."""
    domain.access.write(at, b".0-virtus".ljust(16, b"\0"))
    return 0


@operation("xen_version", 3, "capabilities")
def capabilities(domain: "Domain", at: int) -> int:
    """The kinds of guests that run here."""
    domain.access.write(at, b"xen-3.0-x86_64\0")
    return 0


@operation("xen_version", 5, "platform_parameters")
def platform_parameters(domain: "Domain", at: int) -> int:
    """Where the hypervisor's part of every address space begins."""
    domain.access.write(at, QWORD.pack(HYPERVISOR_START))
    return 0


@operation("xen_version", 6, "get_features")
def get_features(domain: "Domain", at: int) -> int:
    """XENFEAT_*: page tables are not writable, nor is memory translated."""
    domain.access.write_dword(at + 4, FEATURES if domain.access.read_dword(at) == 0 else 0)
    return 0


@operation("xen_version", 7, "pagesize")
def pagesize(domain: "Domain", at: int) -> int:
    """Of a frame."""
    return PAGE


@operation("xen_version", 8, "guest_handle")
def guest_handle(domain: "Domain", at: int) -> int:
    """The domain's UUID."""
    domain.access.write(at, domain.uuid)
    return 0


@operation("physdev_op", 6, "set_iopl", note="accepted: there are no ports")
def set_iopl(domain: "Domain", at: int) -> int:
    """The I/O privilege level."""
    return 0


@operation("physdev_op", 7, "set_iobitmap", note="accepted: there are no ports")
def set_iobitmap(domain: "Domain", at: int) -> int:
    """Which ports programs may use."""
    return 0


@call("xenpmu_op", note="no performance counters: ENOSYS")
def xenpmu_op(domain: "Domain") -> int:
    """Refused."""
    raise Refused(ENOSYS)
