"""The domain builder: kernel, ramdisk, first page tables and start information, as a paravirtual kernel expects them.

Source: xen/include/public/xen.h ("Start-of-day memory layout", struct start_info), arch-x86/xen.h.
"""

import struct
from typing import Final

from virtus.devices.console import Console
from virtus.guests.elf import NotLoadable
from virtus.guests.linux_image import KernelImage
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.memory.x86_paging import ACCESSED, DIRTY, ENTRIES, PRESENT, USER, WRITABLE, slot_of
from virtus.personalities.xen.abi import MASK64
from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.frames import Kind
from virtus.personalities.xen.table import NAMES, NUMBERS
from virtus.personalities.xen.xenstore import Store

MAGIC: Final = b"xen-3.0-x86_64"
START_INFO: Final = struct.Struct("<32sQQIxxxxQIxxxxQIxxxxQQQQQ")
COMMAND_LINE_AT, COMMAND_LINE_SIZE, P2M_AT = 128, 1024, 1152
MODULE_BY_FRAME: Final = 1 << 3  # SIF_MOD_START_PFN
ROUND: Final = 4 << 20
PADDING: Final = 512 << 10
LEAF: Final = PRESENT | USER | ACCESSED | DIRTY
TABLE: Final = LEAF | WRITABLE
STUB_SIZE: Final = 32
RSI: Final = 4
IRET: Final = NUMBERS["iret"]


class Layout:
    """Gives out pseudo-physical frames upwards, within a domain's memory."""

    def __init__(self, start: int, frames: int) -> None:
        self.next, self._end = start, frames

    def take(self, count: int = 1) -> int:
        """The first of `count` frames; raises NotLoadable."""
        first = self.next
        self.next += count
        if self.next > self._end:
            raise NotLoadable(f"it needs more than {self._end >> 8} MiB of memory")
        return first

    def take_for(self, size: int) -> int:
        """Frames for so many bytes."""
        return self.take(-(-size // PAGE))


def build(
    domain: Domain, kernel: KernelImage, ramdisk: bytes, command_line: str, store: Store, console: Console
) -> None:
    """Fill a new domain's memory, connect its two rings, and start its processor; raises NotLoadable."""
    xen = kernel.xen()
    if xen.p2m_address is None or not xen.module_by_frame:
        raise NotLoadable("a paravirtual kernel from before Linux 3.12")
    command = command_line.encode()
    if len(command) >= COMMAND_LINE_SIZE:
        raise NotLoadable(f"a command line of {len(command)} bytes; at most {COMMAND_LINE_SIZE - 1} fit")
    memory, base, total = domain.memory, domain.first_frame, domain.frame_count
    layout = Layout(-(-kernel.end // PAGE), total)
    for segment in kernel.segments:
        if segment.physical + segment.memory_size > total * PAGE:
            raise NotLoadable(f"it needs more than {total >> 8} MiB of memory")
        at = (base << FRAME_SHIFT) + segment.physical
        memory.bytes[at : at + len(segment.data)] = segment.data
    info, store_page, console_page = layout.take(), layout.take(), layout.take()
    p2m_pages = -(-total * 8 // PAGE)
    tables_at = layout.next
    covered = -(-((tables_at << FRAME_SHIFT) + (64 << FRAME_SHIFT) + PADDING) // ROUND) * ROUND >> FRAME_SHIFT
    if slot_of(xen.virtual_base, 3) != slot_of(xen.virtual_base + (covered << FRAME_SHIFT) - 1, 3):
        raise NotLoadable("a kernel across a GiB")
    root, level3, level2 = layout.take(), layout.take(), layout.take()
    level1 = layout.take(covered // ENTRIES)
    p2m_level3, p2m_level2, p2m_level1 = layout.take(), layout.take(), layout.take(-(-p2m_pages // ENTRIES))
    tables_end = layout.next
    stack, p2m, module = layout.take(), layout.take(p2m_pages), layout.take_for(len(ramdisk))
    if stack >= covered or not p2m_pages <= ENTRIES * ENTRIES:
        raise NotLoadable("memory of an impossible size")

    def link(table: int, slot: int, to: int, flags: int = TABLE) -> None:
        memory.entries(base + table)[slot] = base + to << FRAME_SHIFT | flags

    at = base + module << FRAME_SHIFT
    memory.bytes[at : at + len(ramdisk)] = ramdisk
    words = memory.words[base + p2m << 9 : (base + p2m << 9) + total]
    words[:] = memoryview(struct.pack(f"<{total}Q", *range(base, base + total))).cast("Q")
    for frame in range(total):
        domain.set_m2p(base + frame, frame)
    link(root, slot_of(xen.virtual_base, 4), level3)
    link(level3, slot_of(xen.virtual_base, 3), level2)
    first = slot_of(xen.virtual_base, 2)
    for number in range(covered // ENTRIES):
        link(level2, first + number, level1 + number)
    for frame in range(min(covered, total)):
        writable = 0 if tables_at <= frame < tables_end else WRITABLE
        link(level1 + frame // ENTRIES, frame % ENTRIES, frame, LEAF | writable)
    link(root, slot_of(xen.p2m_address, 4), p2m_level3)
    link(p2m_level3, slot_of(xen.p2m_address, 3), p2m_level2)
    for number in range(-(-p2m_pages // ENTRIES)):
        link(p2m_level2, slot_of(xen.p2m_address, 2) + number, p2m_level1 + number)
    for number in range(p2m_pages):
        link(p2m_level1 + number // ENTRIES, number % ENTRIES, p2m + number, LEAF | WRITABLE)
    if xen.hypercall_page is not None:
        _fill_hypercall_page(domain, xen.hypercall_page - xen.virtual_base & MASK64)

    domain.connect(base + store_page, base + console_page, store, console)
    page = memory.frame(base + info)
    START_INFO.pack_into(
        page, 0, MAGIC, total, domain.shared_frame << FRAME_SHIFT, MODULE_BY_FRAME, base + store_page,
        domain.store.port, base + console_page, domain.console.port,
        xen.virtual_base + (tables_at << FRAME_SHIFT), tables_end - tables_at,
        xen.p2m_address, module if ramdisk else 0, len(ramdisk),
    )  # fmt: skip
    page[COMMAND_LINE_AT : COMMAND_LINE_AT + len(command)] = command
    struct.pack_into("<QQ", page, P2M_AT, p2m, p2m_pages)
    domain.tables.pin(base + root, Kind.L4)
    domain.cpu.set_kernel_root(base + root)
    stack_top = xen.virtual_base + (stack + 1 << FRAME_SHIFT) & MASK64
    domain.cpu.context.start(base + root << FRAME_SHIFT, xen.entry, stack_top)
    domain.cpu.context.regs[RSI] = xen.virtual_base + (info << FRAME_SHIFT) & MASK64


def _fill_hypercall_page(domain: Domain, physical: int) -> None:
    """A call per hypercall for kernels that do not make their own (xen/arch/x86/pv/hypercall.c)."""
    if physical % PAGE or physical >= domain.frame_count * PAGE:
        raise NotLoadable("a hypercall page outside of the kernel")
    page = domain.memory.frame(domain.first_frame + (physical >> FRAME_SHIFT))
    for number in NAMES:
        # push rcx;  push r11;  mov eax, number;  syscall;  pop r11;  pop rcx;  ret
        code = bytes.fromhex("51 4153 b8") + struct.pack("<I", number) + bytes.fromhex("0f05 415b 59 c3")
        if number == IRET:  # push rcx;  push r11;  push rax;  mov eax, number;  syscall
            code = bytes.fromhex("51 4153 50 b8") + struct.pack("<I", number) + bytes.fromhex("0f05")
        page[number * STUB_SIZE : number * STUB_SIZE + len(code)] = code
