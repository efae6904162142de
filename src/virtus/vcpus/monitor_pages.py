"""What a processor needs to run a guest kernel at ring 3: gates of one instruction that leave the guest at once.

All of it lies in one slot of every address space, above what a guest may map. A `syscall` and every interrupt vector
lead to a stub that writes to a port, and so to whoever runs the processor; nothing of ours executes for longer.

Source: Intel SDM volume 3A, chapters 4 (paging), 6 (interrupts), 8 (task state), and volume 1, 19.5 (I/O permission).
"""

import struct
from typing import Final

from virtus.host.segments import ring3_sets_bases
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory
from virtus.memory.pool import FramePool
from virtus.vcpus import inner_gates

PRESENT, WRITABLE, USER, LARGE = 1, 2, 4, 0x80
L4_SLOT: Final = 257
"""Of all the slots that Xen keeps from a 64-bit guest (256 to 271): where software KVM cannot use 256, 257 works."""
BASE: Final = 0xFFFF_8080_0000_0000  # slot 257, sign-extended
STUBS: Final = BASE
IDT: Final = BASE + 0x1000
TSS: Final = BASE + 0x2000
STACK: Final = BASE + 0x4000
STACK_TOP: Final = STACK + PAGE
INNER: Final = BASE + 0x1_0000
INNER_SIZE: Final = 0x1_0000
"""For each processor, where its inner gates are open: their code, their words (ring 0 writes, ring 3 reads), the page
with the guest's struct vcpu_info, and vectors that lead to them."""
GATES_AT, WORDS_AT, SHOWN_AT, INFO_AT, IDT_AT = (PAGE * at for at in range(5))
GDT: Final = BASE + 0x10_0000
DIRECT_SLOT: Final = 262
DIRECT: Final = 0xFFFF_8300_0000_0000
"""All memory, in one address space that no guest ever runs in (see `vcpus.kvm`)."""

PORT: Final = 0xE0
STUB_SIZE: Final = 16
SYSCALL_STUB, SYSCALL32_STUB, WRITER_STUB, RETURN_STUB = 0, 1, 2, 7
VECTOR_STUB: Final = 16
VECTORS: Final = 32
INT80: Final = 0x80
INT80_STUB: Final = VECTOR_STUB + VECTORS
OUT_AND_STOP: Final = bytes((0xE6, PORT, 0xF4))  # out PORT, al;  hlt
#   next: mov rdi, [rsi];  mov rax, [rsi+8];  mov [rdi], rax;  add rsi, 16;  dec rcx;  jnz next;  out PORT, al;  hlt
WRITER: Final = bytes.fromhex("488b3e 488b4608 488907 4883c610 48ffc9 75ed") + OUT_AND_STOP
WRITER_END: Final = STUBS + WRITER_STUB * STUB_SIZE + len(WRITER) - len(OUT_AND_STOP)
BREAKPOINT, PAGE_FAULT = 3, 14
OUTSIDE: Final = {
    "out_call": STUBS + SYSCALL_STUB * STUB_SIZE, "out_return": STUBS + RETURN_STUB * STUB_SIZE,
    "out_breakpoint": STUBS + (VECTOR_STUB + BREAKPOINT) * STUB_SIZE,
    "out_fault": STUBS + (VECTOR_STUB + PAGE_FAULT) * STUB_SIZE,
}  # fmt: skip
"""Where what does not take an inner gate leads."""
ERROR_CODE_VECTORS: Final = frozenset({8, 10, 11, 12, 13, 14, 17, 21})

GDT_PAGES: Final = 16
GUEST_GDT_PAGES: Final = 14  # FIRST_RESERVED_GDT_PAGE, xen/include/public/arch-x86/xen.h
CODE0, DATA0, TASK, CODE3_32, DATA3, CODE3 = 0xE008, 0xE010, 0xE040, 0xE023, 0xE02B, 0xE033
"""Selectors in the first page behind the guest's own descriptors (FLAT_RING3_* of arch-x86/xen-x86_64.h)."""
DESCRIPTORS: Final = {
    CODE0: 0x00AF9B00_0000FFFF, DATA0: 0x00CF9300_0000FFFF, CODE3_32: 0x00CFFB00_0000FFFF,
    DATA3: 0x00CFF300_0000FFFF, CODE3: 0x00AFFB00_0000FFFF,
}  # fmt: skip
TSS_LIMIT: Final = 0x3FF
BITMAP_AT: Final = 104


MOST_PROCESSORS: Final = 8


def gdt(number: int) -> int:
    """Where a processor's descriptors are."""
    return GDT + number * GDT_PAGES * PAGE


class MonitorPages:
    """The pages, made in frames of a pool. `entries` are the L4 entries, by slot, of every guest address space."""

    def __init__(self, memory: GuestMemory, pool: FramePool, processors: int = 1) -> None:
        """For processors that take turns: each has a table of descriptors and inner gates, and all else in common."""
        self.memory, self._pool = memory, pool
        level3, level2, self._level1 = (pool.take() for _ in range(3))
        memory.entries(level3)[0] = level2 << FRAME_SHIFT | USER | WRITABLE | PRESENT
        memory.entries(level2)[0] = self._level1 << FRAME_SHIFT | USER | WRITABLE | PRESENT
        self.entries = {L4_SLOT: level3 << FRAME_SHIFT | USER | WRITABLE | PRESENT}
        self._make_stubs()
        self._make_idt()
        self._make_tss()
        self._stack = self._map(STACK, WRITABLE)
        self._empty = pool.take()
        self._gates: dict[int, memoryview] = {}  # code, by processor
        for number in range(processors):
            own = self._map(gdt(number) + GUEST_GDT_PAGES * PAGE, WRITABLE)
            for selector, descriptor in DESCRIPTORS.items():
                memory.entries(own)[(selector & 0xFFF) >> 3] = descriptor
            self.set_gdt([], number)

    def _map(self, address: int, flags: int) -> int:
        frame = self._pool.take()
        self.memory.entries(self._level1)[address >> FRAME_SHIFT & 511] = frame << FRAME_SHIFT | flags | PRESENT
        return frame

    def _make_stubs(self) -> None:
        code = bytearray(PAGE)
        stubs = [SYSCALL_STUB, SYSCALL32_STUB, RETURN_STUB, *range(VECTOR_STUB, VECTOR_STUB + VECTORS), INT80_STUB]
        for stub in stubs:
            code[stub * STUB_SIZE : stub * STUB_SIZE + len(OUT_AND_STOP)] = OUT_AND_STOP
        at = WRITER_STUB * STUB_SIZE
        code[at : at + len(WRITER)] = WRITER
        # software KVM stays at ring 3 when it takes a syscall: the page must be the guest's to execute
        self.memory.frame(self._map(STUBS, USER))[:] = code

    def _make_idt(self) -> None:
        self._idt = self.memory.entries(self._map(IDT, WRITABLE))
        gates = {vector: VECTOR_STUB + vector for vector in range(VECTORS)} | {INT80: INT80_STUB}
        for vector, stub in gates.items():
            self._set_gate(self._idt, vector, STUBS + stub * STUB_SIZE)

    @staticmethod
    def _set_gate(idt: memoryview, vector: int, handler: int) -> None:
        ring = 3 if vector in (3, 4, INT80) else 0  # int3, into
        kind = 0x8E00 | ring << 13  # present, 64-bit interrupt gate
        low = handler & 0xFFFF | CODE0 << 16 | kind << 32 | (handler >> 16 & 0xFFFF) << 48
        idt[2 * vector], idt[2 * vector + 1] = low, handler >> 32

    def open_inner_gates(self, number: int = 0) -> tuple[int, int, memoryview]:
        """Let calls, returns and page faults of a processor's programs take the gates of `inner_gates`.

        They do so once the words allow it.

        The address for `syscall` to lead to, that of the interrupt descriptors, and the words.
        """
        at = INNER + number * INNER_SIZE
        code, labels = self._assemble(number, 0)
        self._gates[number] = self.memory.frame(self._map(at + GATES_AT, USER))
        self._gates[number][: len(code)] = code
        frame = self._map(at + WORDS_AT, WRITABLE)
        shown = at + SHOWN_AT >> FRAME_SHIFT & 511
        self.memory.entries(self._level1)[shown] = frame << FRAME_SHIFT | USER | PRESENT
        words = self.memory.entries(frame)
        words[inner_gates.WORD["faulted_at"]] = labels["faulted"]
        words[inner_gates.WORD["bases"]] = ring3_sets_bases()
        idt = self.memory.entries(self._map(at + IDT_AT, WRITABLE))
        idt[:] = self._idt
        self._set_gate(idt, BREAKPOINT, labels["breakpoint"])
        self._set_gate(idt, PAGE_FAULT, labels["page_fault"])
        return labels["call"], at + IDT_AT, words

    def _assemble(self, number: int, info: int) -> tuple[bytes, dict[str, int]]:
        """A processor's gates; its struct vcpu_info is so far from the beginning of its page."""
        at = INNER + number * INNER_SIZE
        return inner_gates.assemble(at + GATES_AT, at + SHOWN_AT, at + WORDS_AT, at + INFO_AT + info, OUTSIDE)

    def show_info(self, address: int, number: int) -> int:
        """Let a processor's inner gates use its struct vcpu_info, which is at a physical address.

        The physical address of the page table entry that has changed.
        """
        index = INNER + number * INNER_SIZE + INFO_AT >> FRAME_SHIFT & 511
        self.memory.entries(self._level1)[index] = address & ~(PAGE - 1) | WRITABLE | PRESENT
        code = self._assemble(number, address % PAGE)[0]
        self._gates[number][: len(code)] = code
        return (self._level1 << FRAME_SHIFT) + 8 * index

    def _make_tss(self) -> None:
        page = self.memory.frame(self._map(TSS, WRITABLE))
        struct.pack_into("<Q", page, 4, STACK_TOP)  # RSP0
        struct.pack_into("<H", page, 102, BITMAP_AT)
        page[BITMAP_AT : TSS_LIMIT + 1] = b"\xff" * (TSS_LIMIT + 1 - BITMAP_AT)
        page[BITMAP_AT + PORT // 8] = 0xFF & ~(1 << PORT % 8)

    def set_gdt(self, frames: list[int], number: int = 0) -> list[int]:
        """Show these frames as a processor's descriptors; the addresses of the page table entries that changed."""
        table, first = self.memory.entries(self._level1), gdt(number) >> FRAME_SHIFT & 511
        changed = []
        for at in range(GDT_PAGES):
            if at == GUEST_GDT_PAGES:
                continue
            frame = frames[at] if at < len(frames) else self._empty
            entry = frame << FRAME_SHIFT | WRITABLE | PRESENT  # the processor sets the accessed bit
            if table[first + at] & ~0x60 != entry:
                table[first + at] = entry
                changed.append((self._level1 << FRAME_SHIFT) + 8 * (first + at))
        return changed

    def trap_frame(self, stack_pointer: int, words: int) -> tuple[int, ...]:
        """What the processor has pushed on our stack."""
        return struct.unpack_from(f"<{words}Q", self.memory.frame(self._stack), stack_pointer - STACK)

    def make_direct_root(self) -> int:
        """The root of an address space with all memory, writable at ring 3; as a guest physical address."""
        memory = self.memory
        root, level3 = self._pool.take(), self._pool.take()
        for slot, entry in self.entries.items():
            memory.entries(root)[slot] = entry
        memory.entries(root)[DIRECT_SLOT] = level3 << FRAME_SHIFT | USER | WRITABLE | PRESENT
        for at in range(0, memory.size, 2 << 20):
            if not at % (1 << 30):
                level2 = self._pool.take()
                memory.entries(level3)[at >> 30] = level2 << FRAME_SHIFT | USER | WRITABLE | PRESENT
            memory.entries(level2)[at >> 21 & 511] = at | LARGE | USER | WRITABLE | PRESENT
        return root << FRAME_SHIFT
