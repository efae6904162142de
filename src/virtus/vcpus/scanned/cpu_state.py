"""The state of an i386 processor as its guest sees it: what a monitor keeps while somebody else runs the instructions.

Floating-point and vector registers are not here: they stay with whoever executes such instructions.
"""

from typing import Final

EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)
ES, CS, SS, DS, FS, GS = range(6)
SEGMENT_NAMES: Final = ("es", "cs", "ss", "ds", "fs", "gs")
REGISTER_NAMES: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
MASK32: Final = 0xFFFF_FFFF

# EFLAGS (Intel SDM volume 1, 3.4.3)
CF, PF, AF, ZF, SF, TF, IF, DF, OF = 1, 4, 0x10, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
IOPL, NT, RF, VM, AC, VIF, VIP, ID = 0x3000, 0x4000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000
IOPL_SHIFT: Final = 12
STATUS_FLAGS: Final = CF | PF | AF | ZF | SF | OF
FLAGS_FIXED: Final = 2  # bit 1 reads as one
FLAGS_DEFINED: Final = 0x3F_7FD5

# control registers (Intel SDM volume 3A, 2.5)
CR0_PE, CR0_MP, CR0_EM, CR0_TS, CR0_ET, CR0_NE = 1, 2, 4, 8, 0x10, 0x20
CR0_WP, CR0_AM, CR0_NW, CR0_CD, CR0_PG = 1 << 16, 1 << 18, 1 << 29, 1 << 30, 1 << 31
CR0_DEFINED: Final = 0xE005_003F
CR4_VME, CR4_PVI, CR4_TSD, CR4_DE, CR4_PSE, CR4_PAE, CR4_MCE, CR4_PGE = (1 << bit for bit in range(8))
CR4_PCE, CR4_OSFXSR, CR4_OSXMMEXCPT = 0x100, 0x200, 0x400

# segment attributes: bits 8 to 23 of a descriptor's upper half, without the limit's (Intel SDM volume 3A, 3.4.5)
TYPE, ACCESSED, WRITABLE_OR_READABLE, DOWN_OR_CONFORMING, CODE = 0xF, 1, 2, 4, 8
CODE_OR_DATA, DPL, PRESENT, BIG, GRANULAR = 0x10, 0x60, 0x80, 0x4000, 0x8000
DPL_SHIFT: Final = 5
ATTRIBUTES: Final = 0xF0FF
REAL_MODE_DATA: Final = PRESENT | CODE_OR_DATA | WRITABLE_OR_READABLE | ACCESSED
REAL_MODE_CODE: Final = REAL_MODE_DATA | CODE
VM86_SEGMENT: Final = REAL_MODE_DATA | DPL  # Intel SDM volume 3B, 20.2: of all segments in virtual-8086 mode

# state after a reset (Intel SDM volume 3A, table 9-1)
RESET_CR0: Final = CR0_ET | CR0_NW | CR0_CD
RESET_EIP: Final = 0xFFF0
RESET_CODE_BASE: Final = 0xFFFF_0000
RESET_CODE_SELECTOR: Final = 0xF000
RESET_DR6: Final = 0xFFFF_0FF0
RESET_DR7: Final = 0x400
SIGNATURE: Final = 0x633  # EDX after a reset: family 6


class Segment:
    """A segment register with its hidden part. Change it by `load`: the flags derived from it follow."""

    __slots__ = ("attributes", "base", "flat_read", "flat_write", "limit", "loads", "selector")

    def __init__(self, attributes: int = REAL_MODE_DATA) -> None:
        self.selector, self.base, self.limit, self.attributes = 0, 0, 0, -1
        self.loads = 0
        """How often it was loaded: whoever keeps something made of it compares."""
        self.load(0, 0, 0xFFFF, attributes)

    def load(self, selector: int, base: int, limit: int, attributes: int) -> None:
        """Set all of it; `limit` in bytes, as it counts after granularity. `attributes` 0 is an unusable segment."""
        if (selector, base, limit, attributes) == (self.selector, self.base, self.limit, self.attributes):
            return
        self.loads += 1
        self.selector, self.base, self.limit, self.attributes = selector, base, limit, attributes
        flat = base == 0 and limit == MASK32 and attributes & (PRESENT | CODE_OR_DATA) == PRESENT | CODE_OR_DATA
        if attributes & CODE:
            self.flat_read, self.flat_write = flat and bool(attributes & WRITABLE_OR_READABLE), False
        else:
            flat = flat and not attributes & DOWN_OR_CONFORMING
            self.flat_read, self.flat_write = flat, flat and bool(attributes & WRITABLE_OR_READABLE)

    def clear(self, selector: int = 0) -> None:
        """Make it null: any use of it raises #GP."""
        self.load(selector, 0, 0, 0)

    @property
    def big(self) -> bool:
        """The D or B bit: 32-bit code, or a stack of 32-bit addresses."""
        return bool(self.attributes & BIG)

    @property
    def privilege(self) -> int:
        """The descriptor's privilege level."""
        return (self.attributes & DPL) >> DPL_SHIFT

    def values(self) -> tuple[int, int, int, int]:
        """What `load` takes."""
        return self.selector, self.base, self.limit, self.attributes

    def __repr__(self) -> str:
        return f"{self.selector:04x} base {self.base:08x} limit {self.limit:08x} attributes {self.attributes:04x}"


class TableRegister:
    """GDTR or IDTR: a linear base, and the offset of the last byte."""

    __slots__ = ("base", "limit")

    def __init__(self) -> None:
        self.base, self.limit = 0, 0xFFFF


class CpuState:
    """Every register of the guest's processor but the floating-point ones; a new one is as after a reset.

    `registers` is one list of eight integers of 32 bits in the order of their encodings (EAX is 0, EDI is 7); the list
    object stays the same all its life, so that whoever holds it sees every change. `segments` likewise, ES to GS.
    `eflags` is the guest's view: IF, IOPL, VM and ID are its own, whatever the host's flags are.
    """

    __slots__ = (
        "cpl",
        "cr0",
        "cr2",
        "cr3",
        "cr4",
        "debug",
        "eflags",
        "eip",
        "gdtr",
        "halted",
        "idtr",
        "interrupt_shadow",
        "ldtr",
        "registers",
        "segments",
        "sysenter_cs",
        "sysenter_eip",
        "sysenter_esp",
        "tr",
        "tsc_offset",
    )

    def __init__(self) -> None:
        self.registers: list[int] = [0] * 8
        self.segments: tuple[Segment, ...] = tuple(Segment() for _ in SEGMENT_NAMES)
        self.gdtr, self.idtr = TableRegister(), TableRegister()
        self.ldtr, self.tr = Segment(PRESENT | 2), Segment(PRESENT | 0xB)
        self.debug: list[int] = [0] * 8
        self.reset()

    def reset(self) -> None:
        """As after power on: real mode, the next instruction at 0xFFFF_FFF0."""
        self.registers[:] = [0] * 8
        self.registers[EDX] = SIGNATURE
        for segment in self.segments:
            segment.load(0, 0, 0xFFFF, REAL_MODE_DATA)
        self.segments[CS].load(RESET_CODE_SELECTOR, RESET_CODE_BASE, 0xFFFF, REAL_MODE_CODE)
        self.eip, self.eflags, self.cpl = RESET_EIP, FLAGS_FIXED, 0
        self.cr0, self.cr2, self.cr3, self.cr4 = RESET_CR0, 0, 0, 0
        self.gdtr.base = self.idtr.base = 0
        self.gdtr.limit = self.idtr.limit = 0xFFFF
        self.ldtr.load(0, 0, 0xFFFF, PRESENT | 2)
        self.tr.load(0, 0, 0xFFFF, PRESENT | 0xB)
        self.debug[:] = [0, 0, 0, 0, 0, 0, RESET_DR6, RESET_DR7]
        self.sysenter_cs = self.sysenter_esp = self.sysenter_eip = 0
        self.tsc_offset = 0  # what RDTSC adds to the host's counter
        self.halted = False  # after HLT, until an interrupt
        self.interrupt_shadow = False  # after STI and loads of SS: no interrupt before the next instruction is done

    @property
    def protected(self) -> bool:
        """Protected mode, virtual-8086 mode included."""
        return bool(self.cr0 & CR0_PE)

    @property
    def paging(self) -> bool:
        """Whether linear addresses go through page tables."""
        return bool(self.cr0 & CR0_PG)

    @property
    def virtual_8086(self) -> bool:
        """Virtual-8086 mode."""
        return bool(self.eflags & VM)

    @property
    def segmented(self) -> bool:
        """Whether selectors name descriptors: protected mode, and not virtual-8086."""
        return self.cr0 & CR0_PE != 0 and not self.eflags & VM

    @property
    def code_bits(self) -> int:
        """The default size of operands and addresses: 16 or 32."""
        return 32 if self.segments[CS].attributes & BIG else 16

    @property
    def stack_mask(self) -> int:
        """Which bits of ESP the stack uses."""
        return MASK32 if self.segments[SS].attributes & BIG else 0xFFFF

    @property
    def iopl(self) -> int:
        """The privilege that input and output and the interrupt flag ask for."""
        return (self.eflags & IOPL) >> IOPL_SHIFT

    @property
    def interruptible(self) -> bool:
        """Whether the processor takes an interrupt before its next instruction."""
        return self.eflags & IF != 0 and not self.interrupt_shadow

    def get16(self, number: int) -> int:
        """AX, CX, DX, BX, SP, BP, SI or DI."""
        return self.registers[number] & 0xFFFF

    def set16(self, number: int, value: int) -> None:
        """Change the lower half of a register alone."""
        self.registers[number] = self.registers[number] & 0xFFFF_0000 | value & 0xFFFF

    def get8(self, number: int) -> int:
        """AL, CL, DL, BL, AH, CH, DH or BH."""
        return self.registers[number & 3] >> ((number & 4) << 1) & 0xFF

    def set8(self, number: int, value: int) -> None:
        """Change one byte of a register alone."""
        shift = (number & 4) << 1
        self.registers[number & 3] = self.registers[number & 3] & ~(0xFF << shift) | (value & 0xFF) << shift

    def linear_eip(self) -> int:
        """Where the next instruction is in the linear address space."""
        return self.segments[CS].base + self.eip & MASK32

    def copy_from(self, other: "CpuState") -> None:
        """Take over every register of another state."""
        self.registers[:] = other.registers
        self.debug[:] = other.debug
        for mine, its in zip(
            (*self.segments, self.ldtr, self.tr), (*other.segments, other.ldtr, other.tr), strict=True
        ):
            mine.load(*its.values())
        for mine_table, its_table in ((self.gdtr, other.gdtr), (self.idtr, other.idtr)):
            mine_table.base, mine_table.limit = its_table.base, its_table.limit
        for name in _SCALARS:
            setattr(self, name, getattr(other, name))

    def describe(self) -> str:
        """The registers in lines, for reports of what went wrong."""
        lines = ["  ".join(f"{name} {self.registers[number]:08x}" for number, name in enumerate(REGISTER_NAMES))]
        lines.append(f"eip {self.eip:08x}  eflags {self.eflags:08x}  cpl {self.cpl}")
        lines.append(f"cr0 {self.cr0:08x}  cr2 {self.cr2:08x}  cr3 {self.cr3:08x}  cr4 {self.cr4:08x}")
        lines += [f"{name} {segment!r}" for name, segment in zip(SEGMENT_NAMES, self.segments, strict=True)]
        lines.append(f"tr {self.tr!r}")
        lines.append(f"gdt {self.gdtr.base:08x}+{self.gdtr.limit:x}  idt {self.idtr.base:08x}+{self.idtr.limit:x}")
        return "\n".join(lines)


_SCALARS: Final = (
    "eip",
    "eflags",
    "cpl",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "sysenter_cs",
    "sysenter_esp",
    "sysenter_eip",
    "tsc_offset",
    "halted",
    "interrupt_shadow",
)
