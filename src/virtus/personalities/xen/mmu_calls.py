"""Hypercalls about page tables and segment descriptors: mmu_update, update_va_mapping, mmuext_op, set_gdt.

Sources: xen/include/public/xen.h (HYPERVISOR_mmu_update, mmuext_op), xen/arch/x86/mm.c.
"""

import struct
from typing import TYPE_CHECKING, Final

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.personalities.xen import descriptors
from virtus.personalities.xen.abi import DOMID_SELF, EINVAL, ENOSYS, EPERM, ESRCH, QWORD, Refused
from virtus.personalities.xen.frames import Kind
from virtus.personalities.xen.table import call

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain

NORMAL_UPDATE, MACHINE_TO_PHYSICAL, UPDATE_PRESERVE = 0, 1, 2  # MMU_*, in the low bits of an address
MOST_UPDATES: Final = 1 << 15
PREEMPTED: Final = 1 << 31  # MMU_UPDATE_PREEMPTED in a count: we never preempt
UPDATE: Final = struct.Struct("<QQ")
EXTENDED: Final = struct.Struct("<IxxxxQQ")  # struct mmuext_op
(PIN_L1, PIN_L2, PIN_L3, PIN_L4, UNPIN, NEW_ROOT, FLUSH_LOCAL, FLUSH_ADDRESS_LOCAL, FLUSH_MULTI, FLUSH_ADDRESS_MULTI,
 FLUSH_ALL, FLUSH_ADDRESS_ALL, FLUSH_CACHE, SET_LDT, _, NEW_USER_ROOT, CLEAR_PAGE, COPY_PAGE, FLUSH_CACHE_GLOBAL,
 MARK_SUPERPAGE, UNMARK_SUPERPAGE) = range(21)  # fmt: skip
FLUSHES: Final = frozenset(range(FLUSH_LOCAL, FLUSH_ADDRESS_ALL + 1))
FLUSH_TYPE: Final = 3  # UVMF_FLUSHTYPE_MASK: none, all, one address


def own(domain: "Domain", named: int) -> None:
    """Refuse operations on behalf of other domains: a guest may name itself."""
    if named & 0xFFFF not in (DOMID_SELF, domain.ident):
        raise Refused(ESRCH if named >> 16 else EPERM, "another domain's memory")


@call("mmu_update", note="for the domain's own frames alone; no PAT or foreign updates")
def mmu_update(domain: "Domain", updates: int, count: int, done_at: int, named: int) -> int:
    """Store page table entries, or machine-to-physical numbers, one after the other until one is refused."""
    own(domain, named)
    count &= 0xFFFFFFFF & ~PREEMPTED
    if count > MOST_UPDATES:
        raise Refused(EINVAL)
    done, error = 0, 0
    try:
        for address, value in UPDATE.iter_unpack(domain.access.read(updates, UPDATE.size * count)):
            kind = address & 3
            if kind == NORMAL_UPDATE:
                domain.tables.write(address, value)
            elif kind == UPDATE_PRESERVE:
                domain.tables.write(address & ~3, value, preserve=True)
            elif kind == MACHINE_TO_PHYSICAL:
                domain.frames.check(address >> FRAME_SHIFT, domain.ident)
                domain.set_m2p(address >> FRAME_SHIFT, value)
            else:
                raise Refused(ENOSYS)
            done += 1
    except Refused as refusal:
        error = refusal.error
        domain.note(f"mmu_update refused: {refusal}")
    if done_at:
        domain.access.write_dword(done_at, done)
    return -error


@call("update_va_mapping")
def update_va_mapping(domain: "Domain", address: int, entry: int, flags: int) -> int:
    """Store the L1 entry of an address in the current address space."""
    domain.tables.write(domain.access.entry_address(address), entry)
    if flags & FLUSH_TYPE:
        domain.translations.flush()
    return 0


@call("update_va_mapping_otherdomain", note="for the domain itself alone")
def update_va_mapping_otherdomain(domain: "Domain", address: int, entry: int, flags: int, named: int) -> int:
    """The same with the name of the domain whose frame it is."""
    own(domain, named)
    return update_va_mapping(domain, address, entry, flags)


@call("mmuext_op", note="no LDT with entries, no superpages")
def mmuext_op(domain: "Domain", operations: int, count: int, done_at: int, named: int) -> int:
    """Pins, address spaces, flushes, and pages cleared or copied."""
    own(domain, named)
    count &= 0xFFFFFFFF & ~PREEMPTED
    if count > MOST_UPDATES:
        raise Refused(EINVAL)
    done, error = 0, 0
    try:
        for what, one, two in EXTENDED.iter_unpack(domain.access.read(operations, EXTENDED.size * count)):
            _extended(domain, what, one, two)
            done += 1
    except Refused as refusal:
        error = refusal.error
        domain.note(f"mmuext_op refused: {refusal}")
    if done_at:
        domain.access.write_dword(done_at, done)
    return -error


def _extended(domain: "Domain", what: int, one: int, two: int) -> None:
    tables = domain.tables
    if what in FLUSHES:
        domain.translations.flush()
    elif what == NEW_ROOT:
        domain.cpu.set_kernel_root(one)
    elif what == NEW_USER_ROOT:
        domain.cpu.set_user_root(one)
    elif what <= PIN_L4:
        tables.pin(one, what + 1)
    elif what == UNPIN:
        domain.frames.check(one, domain.ident)
        tables.unpin(one)
    elif what in (FLUSH_CACHE, FLUSH_CACHE_GLOBAL):
        pass  # no device of a domain's bypasses the caches
    elif what == SET_LDT:
        if two:
            raise Refused(EINVAL, "a local descriptor table with entries")
    elif what in (CLEAR_PAGE, COPY_PAGE):
        if what == COPY_PAGE:
            domain.frames.check(two, domain.ident)
        tables.use_writable(one)
        page = domain.memory.frame(two) if what == COPY_PAGE else bytes(PAGE)
        domain.memory.frame(one)[:] = page
        tables.stored_into(one)
        tables.end_writable(one)
    else:
        raise Refused(ENOSYS)


@call("set_gdt")
def set_gdt(domain: "Domain", frame_list: int, entries: int) -> int:
    """Load the global descriptor table from frames, whose every descriptor is checked."""
    if entries > domain.cpu.MOST_GDT_ENTRIES:
        raise Refused(EINVAL)
    count = -(-entries // descriptors.PER_PAGE)
    frames = [value for (value,) in QWORD.iter_unpack(domain.access.read(frame_list, 8 * count))]
    domain.cpu.set_gdt(frames)
    return 0


@call("update_descriptor")
def update_descriptor(domain: "Domain", address: int, descriptor: int) -> int:
    """Store one checked descriptor at a machine address."""
    frame = address >> FRAME_SHIFT
    if address & 7:
        raise Refused(EINVAL)
    domain.frames.check(frame, domain.ident)
    if domain.frames.uses[frame] and domain.frames.kind[frame] not in (Kind.DESCRIPTORS, Kind.WRITABLE):
        raise Refused(EINVAL, "a page table takes no descriptors")
    domain.memory.words[address >> 3] = descriptors.check(descriptor)
    domain.tables.stored_into(frame)
    return 0
