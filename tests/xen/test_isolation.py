"""A hostile kernel tries each way to its page tables, to the hypervisor, and to another domain's memory."""

import struct
from collections.abc import Iterator

import pytest

from tests.xen.mini_guest import BASE, CALL, DATA, MIB, RDI, RIP, RSP, Faulted, MiniGuest, image, machine
from tests.xen.stopped import StoppedContext
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.memory.x86_paging import FRAME_MASK, LARGE, PRESENT, USER, WRITABLE
from virtus.personalities.xen.abi import DOMID_SELF
from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.frames import Kind
from virtus.vcpus import monitor_pages

EPERM, EBUSY, EINVAL, EFAULT = -1, -16, -22, -14
PAGE_FAULT, PROTECTION = 14, 13
RW = PRESENT | WRITABLE | USER
SPARE = 0x200000  # a virtual address in the image's tables, far from everything that is used


def table_of(guest: MiniGuest, address: int) -> int:
    """The machine frame of the L1 table of an address."""
    return guest.entry_at(address) >> FRAME_SHIFT


@pytest.mark.usefixtures("ring3")
class TestPageTables:
    def test_a_table_is_mapped_read_only_and_reads_as_it_is(self, guest: MiniGuest) -> None:
        at = guest.entry_at(guest.va(guest.data()))
        pfn = (at >> FRAME_SHIFT) - guest.domain.first_frame
        entry = guest.load(guest.va(pfn) + at % PAGE)
        assert entry & FRAME_MASK == guest.mfn(guest.data()) << FRAME_SHIFT

    def test_a_store_into_a_table_is_checked_like_an_update(self, guest: MiniGuest) -> None:
        at = guest.entry_at(guest.va(guest.data(1)))
        pfn = (at >> FRAME_SHIFT) - guest.domain.first_frame
        address = guest.va(pfn) + at % PAGE
        guest.store(address, guest.mfn(guest.data(2)) << FRAME_SHIFT | RW)  # allowed: a page of its own
        guest.put(guest.data(2), struct.pack("<Q", 77))
        guest.extended(6, 0)
        assert guest.load(guest.va(guest.data(1))) == 77
        with pytest.raises(Faulted) as fault:
            guest.store(address, guest.mfn(pfn) << FRAME_SHIFT | RW)  # the table itself, writable
        assert fault.value.vector == PAGE_FAULT

    def test_no_table_in_use_can_be_mapped_writable(self, guest: MiniGuest) -> None:
        at = guest.entry_at(BASE + SPARE)
        root = guest.context.kernel_root >> FRAME_SHIFT
        for frame in {table_of(guest, BASE), root}:
            assert guest.update(at, frame << FRAME_SHIFT | RW) == EBUSY
            assert guest.update(at, frame << FRAME_SHIFT | PRESENT | USER) == 0

    def test_nor_can_a_page_mapped_writable_become_a_table(self, guest: MiniGuest) -> None:
        for level in range(4):
            assert guest.extended(level, guest.mfn(guest.data(3))) == EBUSY

    def test_a_page_without_writable_mappings_becomes_a_table_while_it_is_pinned(self, guest: MiniGuest) -> None:
        pfn = guest.data(3)
        at = guest.entry_at(guest.va(pfn))
        guest.put(pfn, struct.pack("<Q", guest.mfn(guest.data(4)) << FRAME_SHIFT | RW))
        assert guest.update(at, guest.mfn(pfn) << FRAME_SHIFT | PRESENT | USER) == 0
        assert guest.extended(0, guest.mfn(pfn)) == 0
        assert guest.update(at, guest.mfn(pfn) << FRAME_SHIFT | RW) == EBUSY
        with pytest.raises(Faulted):
            guest.store(guest.va(pfn) + 8, table_of(guest, BASE) << FRAME_SHIFT | RW)
        assert guest.extended(4, guest.mfn(pfn)) == 0
        assert guest.update(at, guest.mfn(pfn) << FRAME_SHIFT | RW) == 0
        guest.store(guest.va(pfn), 5)
        assert guest.load(guest.va(pfn)) == 5

    def test_a_table_prepared_with_forbidden_entries_is_refused_whole(self, guest: MiniGuest) -> None:
        pfn = guest.data(3)
        before = list(guest.domain.frames.references)
        good = guest.mfn(guest.data(4)) << FRAME_SHIFT | RW
        for bad in (table_of(guest, BASE) << FRAME_SHIFT | RW, 2 << FRAME_SHIFT | PRESENT, (1 << 45) | RW):
            at = guest.entry_at(guest.va(pfn))
            guest.update(at, guest.mfn(pfn) << FRAME_SHIFT | RW)
            guest.put(pfn, struct.pack("<2Q", good, bad))
            guest.update(at, guest.mfn(pfn) << FRAME_SHIFT | PRESENT | USER)
            assert guest.extended(0, guest.mfn(pfn)) < 0
        assert list(guest.domain.frames.references) == before

    def test_large_pages_are_refused(self, guest: MiniGuest) -> None:
        pfn = guest.data(3)
        guest.put(pfn, struct.pack("<Q", LARGE | RW))
        guest.update(guest.entry_at(guest.va(pfn)), guest.mfn(pfn) << FRAME_SHIFT | PRESENT | USER)
        assert guest.extended(1, guest.mfn(pfn)) == EINVAL

    def test_a_stale_writable_translation_is_gone_when_the_page_is_a_table(self, guest: MiniGuest) -> None:
        """The guest writes first, so that its processor remembers; it does not flush; the hypervisor must."""
        pfn = guest.data(5)
        address = guest.va(pfn)
        guest.store(address, 0)
        assert guest.update(guest.entry_at(address), guest.mfn(pfn) << FRAME_SHIFT | PRESENT | USER) == 0
        assert guest.extended(0, guest.mfn(pfn)) == 0
        with pytest.raises(Faulted):
            guest.store(address, table_of(guest, BASE) << FRAME_SHIFT | RW)
        assert guest.memory.entries(guest.mfn(pfn))[0] == 0

    def test_an_old_table_of_an_unlinked_level_is_not_walked_any_more(self, guest: MiniGuest) -> None:
        """Unlink an L1 table, make it writable memory, and write entries of one's own: they must have no effect."""
        pfn, page = guest.data(6), guest.data(7)
        own = guest.entry_at(guest.va(pfn))
        guest.put(pfn, struct.pack("<Q", guest.mfn(page) << FRAME_SHIFT | RW))
        guest.update(own, guest.mfn(pfn) << FRAME_SHIFT | PRESENT | USER)
        link = self.level2(guest) + 8 * 400
        assert guest.update(link, guest.mfn(pfn) << FRAME_SHIFT | RW) == 0
        window = BASE + (400 << 21)
        guest.put(page, struct.pack("<Q", 99))
        assert guest.load(window) == 99  # the processor has walked it
        assert guest.update(link, 0) == 0
        assert guest.update(own, guest.mfn(pfn) << FRAME_SHIFT | RW) == 0
        guest.store(guest.va(pfn), table_of(guest, BASE) << FRAME_SHIFT | RW)
        with pytest.raises(Faulted):
            guest.store(window, 0)

    def test_a_table_that_returns_has_its_new_entries_alone(self, guest: MiniGuest) -> None:
        """Entries that the guest stores while a table is out of use are the ones that count when it is in use again."""
        pfn, one, other = guest.data(6), guest.data(7), guest.data(8)
        own = guest.entry_at(guest.va(pfn))
        link = self.level2(guest) + 8 * 400
        window = BASE + (400 << 21)
        guest.put(one, struct.pack("<Q", 1))
        guest.put(other, struct.pack("<Q", 2))
        for page, value in ((one, 1), (other, 2), (one, 1)):
            guest.store(guest.va(pfn), guest.mfn(page) << FRAME_SHIFT | RW)
            assert guest.update(own, guest.mfn(pfn) << FRAME_SHIFT | PRESENT | USER) == 0
            assert guest.update(link, guest.mfn(pfn) << FRAME_SHIFT | RW) == 0
            assert guest.load(window) == value
            assert guest.update(link, 0) == 0
            assert guest.update(own, guest.mfn(pfn) << FRAME_SHIFT | RW) == 0

    @staticmethod
    def level2(guest: MiniGuest) -> int:
        """The machine address of the L2 table of the kernel's own addresses."""
        level3 = guest.memory.words[(guest.context.kernel_root >> 3) + 511] & FRAME_MASK
        level2: int = guest.memory.words[(level3 >> 3) + 510] & FRAME_MASK
        return level2


@pytest.mark.usefixtures("ring3")
class TestTheHypervisor:
    def test_its_pages_cannot_be_mapped(self, guest: MiniGuest) -> None:
        at = guest.entry_at(BASE + SPARE)
        for frame in range(0, guest.domain.first_frame, 37):
            if guest.domain.frames.owner[frame] != guest.domain.ident:
                assert guest.update(at, frame << FRAME_SHIFT | RW) == EPERM
                assert guest.update(at, frame << FRAME_SHIFT | PRESENT) == EPERM

    @pytest.mark.parametrize(
        "address",
        [monitor_pages.STUBS, monitor_pages.IDT, monitor_pages.TSS, monitor_pages.STACK, monitor_pages.GDT,
         *(monitor_pages.INNER + at for at in range(0, 5 * PAGE, PAGE)),
         monitor_pages.DIRECT, 0xFFFF_8100_0000_0000, 0xFFFF_8000_0000_0000],
    )  # fmt: skip
    def test_its_addresses_cannot_be_written(self, guest: MiniGuest, address: int) -> None:
        with pytest.raises(Faulted) as fault:
            guest.store(address, 0)
        assert fault.value.vector == PAGE_FAULT

    def test_its_slots_of_the_top_table_cannot_be_set(self, guest: MiniGuest) -> None:
        root = guest.context.kernel_root
        for slot in range(256, 272):
            assert guest.update(root + 8 * slot, 0) == EINVAL

    @pytest.mark.parametrize("address", [0xFFFF_8080_0000_0000, 0xFFFF_8100_0000_0000, 0x8000_0000_0000, 0x1000])
    def test_hypercalls_do_not_store_for_the_guest_where_it_may_not(self, guest: MiniGuest, address: int) -> None:
        assert guest.hypercall("xen_version", 3, address) == EFAULT

    def test_nor_into_page_tables(self, guest: MiniGuest) -> None:
        at = guest.entry_at(BASE)
        pfn = (at >> FRAME_SHIFT) - guest.domain.first_frame
        before = bytes(guest.memory.frame(guest.mfn(pfn)))
        assert guest.hypercall("xen_version", 3, guest.va(pfn)) == EFAULT
        assert bytes(guest.memory.frame(guest.mfn(pfn))) == before

    @pytest.mark.parametrize(
        "descriptor",
        [
            0x0000_EC00_E008_0000,  # a call gate for every ring
            0x0000_8900_0000_0067,  # a task state segment
            0x00CF_9E00_0000_FFFF,  # conforming code
            0x0000_8200_0000_FFFF,  # a local descriptor table
        ],
    )
    def test_no_gate_can_be_loaded(self, guest: MiniGuest, descriptor: int) -> None:
        pfn = guest.data(8)
        guest.put(pfn, struct.pack("<2Q", 0, descriptor))
        guest.update(guest.entry_at(guest.va(pfn)), guest.mfn(pfn) << FRAME_SHIFT | PRESENT | USER)
        frames = guest.put(guest.data(9), struct.pack("<Q", guest.mfn(pfn)))
        assert guest.hypercall("set_gdt", frames, 512) == EINVAL
        assert guest.hypercall("update_descriptor", guest.mfn(guest.data(10)) << FRAME_SHIFT, descriptor) == EINVAL

    def test_loaded_descriptors_can_be_written_by_hypercall_alone(self, guest: MiniGuest) -> None:
        pfn = guest.data(8)
        at = guest.entry_at(guest.va(pfn))
        frames = guest.put(guest.data(9), struct.pack("<Q", guest.mfn(pfn)))
        assert guest.hypercall("set_gdt", frames, 512) == EBUSY  # still mapped writable
        assert guest.update(at, guest.mfn(pfn) << FRAME_SHIFT | PRESENT | USER) == 0
        assert guest.hypercall("set_gdt", frames, 512) == 0
        assert guest.update(at, guest.mfn(pfn) << FRAME_SHIFT | RW) == EBUSY
        with pytest.raises(Faulted):
            guest.store(guest.va(pfn), 0x0000_EC00_E008_0000)
        kernel_code = 0x00AF_9B00_0000_FFFF
        assert guest.hypercall("update_descriptor", guest.mfn(pfn) << FRAME_SHIFT | 8, kernel_code) == 0
        assert guest.memory.entries(guest.mfn(pfn))[1] == kernel_code | 3 << 45  # at ring 3

    def test_its_port_is_no_port_of_the_guests(self, guest: MiniGuest) -> None:
        """Code that writes to the port itself does not pass for a gate; to the kernel, the port is just not there."""
        code = bytes.fromhex("e6e0 b8dab00000 0f05")  # out 0xe0, al;  mov eax, DONE;  syscall
        guest.put(guest.data(11), code)
        guest.regs[0] = 29
        guest._go(guest.data(11) << FRAME_SHIFT)
        assert guest.personality.running


@pytest.fixture
def two(ring3: None) -> Iterator[tuple[MiniGuest, Domain]]:
    """The hostile guest, and a domain beside it in the same memory that never runs."""
    with machine() as (vcpu, xen, own):
        guest = MiniGuest(vcpu, xen, own)
        beside = Domain(xen, 2, own + (8 * MIB >> FRAME_SHIFT), 8 * MIB >> FRAME_SHIFT, StoppedContext())
        xen.domains[2] = beside
        yield guest, beside


@pytest.mark.usefixtures("ring3")
class TestAnotherDomain:
    def test_its_frames_cannot_be_mapped_pinned_cleared_or_taken(self, two: tuple[MiniGuest, Domain]) -> None:
        guest, beside = two
        frame = beside.first_frame + 5
        at = guest.entry_at(BASE + SPARE)
        assert guest.update(at, frame << FRAME_SHIFT | RW) == EPERM
        assert guest.update(at, frame << FRAME_SHIFT | PRESENT) == EPERM
        assert guest.hypercall("update_va_mapping", BASE + SPARE, frame << FRAME_SHIFT | RW, 0) == EPERM
        for level in range(4):
            assert guest.extended(level, frame) == EPERM
        assert guest.extended(5, frame) == EPERM  # as its own address space
        assert guest.extended(16, frame) == EPERM  # cleared
        assert guest.extended(17, guest.mfn(guest.data(3)), frame) == EPERM  # copied from
        assert guest.update(frame << FRAME_SHIFT, 0) == EPERM
        assert guest.update(frame << FRAME_SHIFT | 1, 0) == EPERM  # its pseudo-physical number
        extents = guest.put(guest.data(4), struct.pack("<Q", frame))
        reservation = guest.put(guest.data(5), struct.pack("<QQIIH6x", extents, 1, 0, 0, DOMID_SELF))
        assert guest.hypercall("memory_op", 1, reservation) == 0  # none given back
        assert beside.frames.owner[frame] == 2

    def test_nobody_acts_in_another_domains_name(self, two: tuple[MiniGuest, Domain]) -> None:
        guest, _ = two
        at = guest.put(guest.data(4), struct.pack("<QQ", 0, 0))
        assert guest.hypercall("mmu_update", at, 1, 0, 2) == EPERM
        assert guest.hypercall("mmuext_op", at, 1, 0, 2) == EPERM
        assert guest.hypercall("update_va_mapping_otherdomain", BASE + SPARE, 0, 0, 2) == EPERM

    def grant(self, beside: Domain, reference: int, frame: int, flags: int = 1, grantee: int = 1) -> None:
        table = beside.memory.frame(beside.grants.first)
        struct.pack_into("<HHI", table, 8 * reference, flags, grantee, frame)

    def map(self, guest: MiniGuest, reference: int, flags: int = 2) -> tuple[int, int]:
        operation = struct.pack("<QIIHhIQ", BASE + SPARE, flags, reference, 2, 0, 0, 0)
        at = guest.put(guest.data(4), operation)
        assert guest.hypercall("grant_table_op", 0, at, 1) == 0
        answer = struct.unpack("<QIIHhIQ", guest.domain.access.read(at, len(operation)))
        return answer[4], answer[5]

    def test_with_a_grant_a_frame_is_mapped_as_granted_and_no_longer_than_that(
        self, two: tuple[MiniGuest, Domain]
    ) -> None:
        guest, beside = two
        frame = beside.first_frame + 5
        beside.memory.entries(frame)[0] = 0x1234
        assert self.map(guest, 8)[0] == -3  # nothing granted
        assert guest.update(guest.entry_at(BASE + SPARE), 0) == 0
        self.grant(beside, 8, frame, grantee=3)
        assert self.map(guest, 8)[0] == -3  # granted to another
        self.grant(beside, 8, frame, flags=1 | 4)
        assert self.map(guest, 8)[0] == -8  # not to be written
        status, handle = self.map(guest, 8, flags=2 | 4)
        assert status == 0
        assert guest.load(BASE + SPARE) == 0x1234
        with pytest.raises(Faulted):
            guest.store(BASE + SPARE, 1)
        at = guest.entry_at(BASE + SPARE)
        assert guest.update(at, frame << FRAME_SHIFT | RW) == EPERM  # no way to make it writable
        assert guest.update(at, 0) == EPERM  # nor to end it behind the grant table's back
        assert beside.memory.frame(beside.grants.first)[8 * 8] & 8  # the granter sees that it is read
        unmap = guest.put(guest.data(5), struct.pack("<QQIh2x", BASE + SPARE, 0, handle, 0))
        assert guest.hypercall("grant_table_op", 1, unmap, 1) == 0
        assert not beside.memory.frame(beside.grants.first)[8 * 8] & 8
        with pytest.raises(Faulted):
            guest.load(BASE + SPARE)
        assert beside.frames.references[frame] == 1

    def test_a_granted_table_cannot_be_written(self, two: tuple[MiniGuest, Domain]) -> None:
        guest, beside = two
        frame = beside.first_frame + 6
        beside.tables.pin(frame, Kind.L1)
        self.grant(beside, 9, frame)
        assert self.map(guest, 9)[0] == -1

    def test_what_is_given_back_is_empty_for_the_next(self, two: tuple[MiniGuest, Domain]) -> None:
        guest, beside = two
        pfn = guest.data(6)
        guest.store(guest.va(pfn), 0x5EC2E7)
        extents = guest.put(guest.data(4), struct.pack("<Q", guest.mfn(pfn)))
        reservation = guest.put(guest.data(5), struct.pack("<QQIIH6x", extents, 1, 0, 0, DOMID_SELF))
        assert guest.hypercall("memory_op", 1, reservation) == 0  # still mapped
        assert guest.hypercall("update_va_mapping", guest.va(pfn), 0, 0) == 0
        assert guest.hypercall("memory_op", 1, reservation) == 1
        with pytest.raises(Faulted):
            guest.load(guest.va(pfn))
        frame = beside.frames.take_free(2)
        assert frame == guest.mfn(pfn)
        assert bytes(beside.memory.frame(frame)) == bytes(PAGE)


def test_the_small_guest_is_a_domain_like_any_other(ring3: None, guest: MiniGuest) -> None:
    assert guest.hypercall("xen_version", 0) == 4 << 16 | 17
    at = guest.put(guest.data(0), struct.pack("<I", 0))
    assert guest.hypercall("sched_op", 2, at) == 0
    assert guest.domain.ended == "poweroff"
    assert not guest.personality.running


def test_a_kernel_without_calls_of_its_own_gets_a_page_of_them(ring3: None) -> None:
    page = DATA + 15 * PAGE
    with machine() as (vcpu, xen, own):
        guest = MiniGuest(vcpu, xen, own, image(page))
        stack = guest.va(guest.data(22)) + PAGE - 8
        guest.memory.entries(guest.mfn(guest.data(22)))[511] = BASE + CALL + 2  # it returns to where the act ends
        guest.regs[RDI], guest.regs[RSP], guest.regs[RIP] = 0, stack, BASE + page + 32 * 17
        guest._until_done()
        assert guest.result == 4 << 16 | 17
        assert guest.regs[RSP] == stack + 8
