"""A guest of a few bytes: a paravirtual kernel that does one thing at a time, whatever a test wants it to do.

It runs at ring 3 under KVM like any other domain. Between two acts it comes out with a hypercall of a number of its
own; the test then sets its registers and lets it go on at one of its few instructions: a hypercall, a store or a load.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from virtus.devices.console import Console
from virtus.exits import Reason
from virtus.guests import linux_image
from virtus.guests.linux_image import KernelImage, KernelSegment
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory
from virtus.memory.pool import FramePool
from virtus.personalities.xen import builder
from virtus.personalities.xen.cpuid import INDEXED, CpuidPolicy
from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.hypervisor import Hypervisor
from virtus.personalities.xen.machine import XenMachine, own_frames
from virtus.personalities.xen.table import NUMBERS
from virtus.vcpus.kvm import KvmVcpu

MIB: Final = 1 << 20
BASE: Final = 0xFFFF_FFFF_8000_0000
P2M: Final = 0x80_0000_0000
CODE_AT: Final = 0x1000
DONE: Final = 0xB0DA  # the number of no hypercall
FAULTED: Final = 0xFA00
# mov eax, DONE;  syscall
_DONE_CODE: Final = bytes.fromhex("b8dab00000 0f05")
CALL, STORE, LOAD = CODE_AT, CODE_AT + 0x20, CODE_AT + 0x40
HANDLERS: Final = CODE_AT + 0x100
RAX, RBX, RDX, RSI, RDI, RSP, R8, R9, R10, RIP = 0, 1, 3, 4, 5, 6, 8, 9, 10, 16
DATA: Final = 0x8000  # pages of the image that a test may use as it likes
DATA_PAGES: Final = 24


def image(hypercall_page: int = 0) -> KernelImage:
    """The kernel; with the offset of a page that is to be filled with hypercalls."""
    code = bytearray(PAGE)
    code[0:2] = b"\x0f\x05"  # syscall
    code[2:9] = _DONE_CODE
    code[0x20:0x23] = bytes.fromhex("488937")  # mov [rdi], rsi
    code[0x23:0x2A] = _DONE_CODE
    code[0x40:0x43] = bytes.fromhex("488b1f")  # mov rbx, [rdi]
    code[0x43:0x4A] = _DONE_CODE
    for vector in range(32):
        at = 0x100 + 16 * vector
        code[at : at + 7] = b"\xb8" + struct.pack("<I", FAULTED + vector) + b"\x0f\x05"
    notes = {
        linux_image.NOTE_ENTRY: struct.pack("<Q", BASE + CODE_AT + 2),
        linux_image.NOTE_VIRTUAL_BASE: struct.pack("<Q", BASE),
        linux_image.NOTE_INITIAL_P2M: struct.pack("<Q", P2M),
        linux_image.NOTE_MODULE_FRAME: struct.pack("<I", 1),
    }
    if hypercall_page:
        notes[linux_image.NOTE_HYPERCALL_PAGE] = struct.pack("<Q", BASE + hypercall_page)
    return KernelImage(BASE + CODE_AT, (KernelSegment(CODE_AT, memoryview(code), DATA + DATA_PAGES * PAGE),), notes)


class Faulted(Exception):
    """The guest's act ended with an exception, delivered to its kernel."""

    def __init__(self, vector: int) -> None:
        self.vector = vector
        super().__init__(f"exception {vector}")


class MiniGuest:
    """Domain 1 of a machine of 8 MiB, with 8 MiB for another domain behind it."""

    def __init__(self, vcpu: Any, machine: XenMachine, own: int, kernel: KernelImage | None = None) -> None:
        self.vcpu, self.machine = vcpu, machine
        self.memory = machine.memory
        self.domain = Domain(machine, 1, own, 8 * MIB >> FRAME_SHIFT, vcpu.context)
        machine.domains[1] = self.domain
        builder.build(self.domain, kernel or image(), b"", "", machine.store, Console(-1, -1))
        self.personality = Hypervisor(self.domain)
        self.context = vcpu.context
        self.regs = vcpu.context.regs
        self._until_done()
        self._register_handlers()

    def mfn(self, pfn: int) -> int:
        """The machine frame of a pseudo-physical one."""
        return self.domain.first_frame + pfn

    def data(self, page: int = 0) -> int:
        """The pseudo-physical frame of a page that is free to use."""
        return (DATA >> FRAME_SHIFT) + page

    @staticmethod
    def va(pfn: int) -> int:
        """Where the guest sees a pseudo-physical frame."""
        return BASE + (pfn << FRAME_SHIFT)

    def entry_at(self, address: int) -> int:
        """The machine address of the L1 entry of a virtual address."""
        return self.domain.access.entry_address(address)

    def put(self, pfn: int, data: bytes, offset: int = 0) -> int:
        """Lay an argument into a page of the guest; its virtual address."""
        frame = self.memory.frame(self.mfn(pfn))
        frame[offset : offset + len(data)] = data
        return self.va(pfn) + offset

    def hypercall(self, name: str, *arguments: int) -> int:
        """Have the guest make a hypercall; the signed result."""
        for register, value in zip((RDI, RSI, RDX, R10, R8, R9), (*arguments, 0, 0, 0, 0, 0, 0), strict=False):
            self.regs[register] = value & (1 << 64) - 1
        self.regs[RAX] = NUMBERS[name]
        self.result = 0
        self._go(CALL)
        return self.result

    def store(self, address: int, value: int) -> None:
        """Have the guest store 8 bytes; raises Faulted."""
        self.regs[RDI], self.regs[RSI] = address, value
        self._go(STORE)

    def load(self, address: int) -> int:
        """Have the guest load 8 bytes; raises Faulted."""
        self.regs[RDI] = address
        self._go(LOAD)
        value: int = self.regs[RBX]
        return value

    def update(self, address: int, entry: int) -> int:
        """mmu_update of one entry at a machine address; the result."""
        at = self.put(self.data(DATA_PAGES - 1), struct.pack("<QQ", address, entry))
        return self.hypercall("mmu_update", at, 1, 0, 0x7FF0)

    def extended(self, operation: int, one: int, two: int = 0) -> int:
        """mmuext_op of one operation; the result."""
        at = self.put(self.data(DATA_PAGES - 1), struct.pack("<IxxxxQQ", operation, one, two))
        return self.hypercall("mmuext_op", at, 1, 0, 0x7FF0)

    def _go(self, address: int) -> None:
        self.regs[RIP] = BASE + address
        self.regs[RSP] = self.va(self.data(DATA_PAGES - 2)) + PAGE
        self._until_done()

    def _until_done(self) -> None:
        while self.personality.running:
            exit = self.vcpu.run()
            if exit.reason is Reason.HYPERCALL and exit.number == DONE:
                return
            if exit.reason is Reason.HYPERCALL and exit.number >= FAULTED:
                raise Faulted(exit.number - FAULTED)
            self.personality.handle(exit)
            if exit.reason is Reason.HYPERCALL:
                self.result = struct.unpack("<q", struct.pack("<Q", self.regs[RAX]))[0]

    def _register_handlers(self) -> None:
        table = b"".join(
            struct.pack("<BBHxxxxQ", vector, 4, 0xE033, BASE + HANDLERS + 16 * vector) for vector in range(20)
        )
        assert self.hypercall("set_trap_table", self.put(self.data(0), table + bytes(16))) == 0


@contextmanager
def machine() -> Iterator[tuple[KvmVcpu, XenMachine, int]]:
    """A processor, a machine with 16 MiB for domains, and the first of these frames."""
    own = own_frames(16 * MIB)
    memory = GuestMemory((own << FRAME_SHIFT) + 16 * MIB, "test")
    pool = FramePool(0, own)
    notes: list[str] = []
    vcpu = KvmVcpu(memory, pool, CpuidPolicy().leaves, INDEXED)
    try:
        yield vcpu, XenMachine(memory, pool, vcpu.pages.entries, notes.append), own
    finally:
        vcpu.close()
        memory.close()


@contextmanager
def mini_guest() -> Iterator[MiniGuest]:
    """The guest, ready for its first act."""
    with machine() as (vcpu, xen, own):
        yield MiniGuest(vcpu, xen, own)
