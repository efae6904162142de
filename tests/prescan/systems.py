"""Generated systems for tests: paging, handlers of every exception, a program at privilege level 3, interrupts.

A system is one image. Its linear addresses from 0 on are its offsets, and it lies at BASE in physical memory, so that
QEMU's multiboot loader can load it. It does a number of rounds: parts at level 0, then parts at level 3. Every part
says first where to go on if it faults. The handlers write down what they see; the test compares the whole image.
"""

# ruff: noqa: E501  rows of assembly stay whole

import random
import subprocess
from pathlib import Path

BASE, SIZE, MEMORY = 0x200000, 0x50000, 4 << 20
CELLS, DATA, LOG, RARE_LOG = 0x3000, 0x4000, 0x40000, 0x48000
LOG_SIZE, RARE_LOG_SIZE = 0x8000, 0x4000
DIRECTORY, TABLE, OTHER_DIRECTORY, OTHER_TABLE = 0x28000, 0x29000, 0x2A000, 0x2B000
GDT, IDT, TSS, LDT = 0x1000, 0x1800, 0x2000, 0x2800
KERNEL_STACK, USER_STACK, KERNEL, HANDLERS, USER = 0xF000, 0x8000, 0x16F00, 0x1F000, 0x30F00
KERNEL_END, USER_END = HANDLERS, 0x40000
DIFFERS_WITH_RARE = (KERNEL_STACK - 0x1000, KERNEL_STACK - 48), (RARE_LOG, SIZE)
"""What differs where interrupts come at any time."""
RAISE, END, DUMP, LEAVE = 0x50, 0xF4, 0xE9, 0x501
RAISED, RARE, SERVICE, CHANGE, BACK, PRIVATE = 0x20, 0x21, 0x80, 0x81, 0x30, 0x31
ROUNDS = 6
# selectors
KCS, KDS, UCS, UDS, TASK, ABSENT, EXECUTE_ONLY, READ_ONLY, LOCAL, GATE, SHIFTED = (
    0x08, 0x10, 0x1B, 0x23, 0x28, 0x33, 0x3B, 0x43, 0x48, 0x53, 0x5B
)  # fmt: skip
DESCRIPTORS = [
    0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF, 0x0000890000000067 | TSS << 16,
    0x00CF73000000FFFF, 0x00CFF9000000FFFF, 0x00CFF1000000FFFF, 0x000082000000000F | LDT << 16, 0,
    0x00CFF3000040FFFF,
]  # fmt: skip
PRESENT, WRITABLE, FOR_USERS, ACCESSED, DIRTY = 1, 2, 4, 0x20, 0x40
WINDOWS = range(0x60, 0x68)
DATA_WINDOWS = range(0x62, 0x66)
"""Through these no code is seen."""
SEEN_BY_WINDOWS = (0x08, 0x0C, 0x14, 0x24, 0x05, 0x06, 0x31, 0x32)
EDGE = 0x71
CHANGING = (EDGE, 0x04, 0x07, 0x08, 0x0C, 0x14, 0x24, 0x17, 0x18, 0x31, 0x32, *WINDOWS)
"""Linear pages, by number, whose entries the system changes."""
SUPERVISOR_ONLY = {
    *range(3),
    *range(0x0D, 0x10),
    *range(KERNEL >> 12, 0x20),
    *range(0x28, 0x2C),
    *range(0x40, 0x50),
    EDGE - 1,
}
SELECTORS = (
    0,
    3,
    KDS,
    UDS,
    KCS,
    UCS,
    ABSENT,
    EXECUTE_ONLY,
    READ_ONLY,
    0x04,
    0x0F,
    0x7F0,
    LOCAL,
    UDS & ~3,
    SHIFTED,
    SHIFTED,
    SHIFTED & ~3,
)
WITH_ERROR = {8, 10, 11, 12, 13, 14, 17}

HANDLER = f"""
common:
    pusha; push %ds; push %es
    mov ${KDS}, %eax; mov %eax, %ds; mov %eax, %es; cld
    mov log, %edi
    mov 40(%esp), %eax; mov %eax, (%edi)        # vector
    mov 44(%esp), %eax; mov %eax, 4(%edi)       # error code
    mov 48(%esp), %eax; mov %eax, 8(%edi)       # EIP
    mov 52(%esp), %eax; mov %eax, 12(%edi)      # CS
    mov 56(%esp), %eax; and $~0x10000, %eax; mov %eax, 16(%edi)
    mov %cr2, %eax; mov %eax, 20(%edi)
    lea 60(%esp), %eax; testb $3, 52(%esp); jz 1f; mov 60(%esp), %eax
    1: mov %eax, 24(%edi)                       # ESP
    mov 4(%esp), %eax; mov %eax, 28(%edi)       # DS
    lea 32(%edi), %edi; and ${LOG_SIZE - 1}, %edi; or ${LOG}, %edi; mov %edi, log
    mov 40(%esp), %eax
    cmp $14, %eax; je page_fault
    cmp $1, %eax; je step
    cmp $3, %eax; je return
    cmp $4, %eax; je return
    cmp ${BACK}, %eax; je kernel_back
    cmp ${CHANGE}, %eax; je change
    cmp $32, %eax; jae return
resume:
    mov {CELLS}, %eax; mov %eax, 48(%esp)
    mov ${UDS}, %eax; mov %eax, (%esp); mov %eax, 4(%esp); mov %eax, %fs; mov %eax, %gs
    andl $~0x4100, 56(%esp)                     # TF, NT
return:
    pop %es; pop %ds; popa; add $8, %esp; iret
step:
    andl $~0x100, 56(%esp); jmp return
change:                                         # of the entry ECX by EDX, for users
    mov 32(%esp), %ecx; mov 28(%esp), %edx
    xor %edx, {TABLE}(, %ecx, 4); shl $12, %ecx; invlpg (%ecx); jmp return
page_fault:
    mov %cr2, %ebx; shr $12, %ebx; cmp $0x100, %ebx; jae resume
    mov %cr3, %esi; sub ${BASE - 0x1000}, %esi
    mov (%esi, %ebx, 4), %eax; and $0xFFFFF000, %eax; jz resume
    bt %ebx, supervisors; jc resume
    orl $7, (%esi, %ebx, 4)
    testb $1, 44(%esp); jz return               # it was not there: again; not-present entries are not cached
    shl $12, %ebx; invlpg (%ebx)
    mov %cr2, %eax; cmp %eax, 48(%esp); je return
    jmp resume
rare:
    push %eax; push %ebx; push %ds
    mov ${KDS}, %eax; mov %eax, %ds
    mov rare_log, %ebx
    mov 12(%esp), %eax; mov %eax, {RARE_LOG}(%ebx)
    mov 16(%esp), %eax; mov %eax, {RARE_LOG + 4}(%ebx)
    add $8, %ebx; and ${RARE_LOG_SIZE - 1}, %ebx; mov %ebx, rare_log
    pop %ds; pop %ebx; pop %eax; iret
gate: lret
"""


def _gates() -> tuple[str, str]:
    """The table of gates by a loop in GNU's assembler's language, and the entries of all handlers."""
    table, entries = "", ""
    for vector in range(256):
        known = vector < 0x30 or vector in (SERVICE, CHANGE, BACK, PRIVATE)
        if vector == RARE:
            table += ".word rare, 8; .word 0x8E00, rare_high\n"
            continue
        if not known:
            table += ".quad 0\n"
            continue
        kind = 0xEE00 if vector in (3, 4, SERVICE, CHANGE, BACK) else 0x8E00
        kind = 0xEF00 if vector == SERVICE else kind
        table += f".word entry_{vector} - handlers + {HANDLERS & 0xFFFF}, 8, {kind}, {HANDLERS >> 16}\n"
        error = "" if vector in WITH_ERROR else "push $0; "
        entries += f"entry_{vector}: {error}push ${vector}; jmp common\n"
    return table.replace("rare_high", str(HANDLERS >> 16)).replace(
        ".word rare, 8;", f".word rare - handlers + {HANDLERS & 0xFFFF}, 8;"
    ), entries


class Generator:
    """One system. `outside` leaves out what other machines answer in another way: CPUID, and input; without
    `below_stack` nothing is ever kept below the stack, where an interrupt writes."""

    def __init__(self, source: random.Random, *, outside: bool = False, below_stack: bool = True) -> None:
        self.source, self.outside, self.below_stack = source, outside, below_stack
        self._label = 0

    def label(self) -> str:
        self._label += 1
        return f"L{self._label}"

    def system(self, kernel: list[bytes], user: list[bytes]) -> str:
        """The source of a whole system, with these instructions in it."""
        table, entries = _gates()
        gdt = list(DESCRIPTORS)
        frame = HANDLERS
        gdt[GATE >> 3] = (frame & 0xFFFF) | KCS << 16 | 0xEC00 << 32 | (frame & 0xFFFF0000) << 32
        flags = 2 | self.source.choice((0, 0x200)) | self.source.choice((0, 0x3000))
        bits = [sum(1 << page % 32 for page in SUPERVISOR_ONLY if page // 32 == word) for word in range(8)]
        lines = [
            ".code32", ".globl _start", "header:",
            f".long 0x1BADB002, 0x10000, -0x1BADB002 - 0x10000, {BASE} + header, {BASE}, {BASE + SIZE}, 0, {BASE} + boot",
            f"boot: cli; mov $0xFF, %al; out %al, $0x21; out %al, $0xA1; mov ${BASE + DIRECTORY}, %eax; mov %eax, %cr3; mov $0x80010031, %eax; mov %eax, %cr0",
            f"mov $start, %eax; jmp *%eax; .org {GDT}",
            f".quad {', '.join(map(hex, gdt))}", f"gdt_register: .word {len(gdt) * 8 - 1}; .long {GDT}",
            f"idt_register: .word 0x7FF; .long {IDT}", f".org {IDT}", table,
            f".org {TSS}; .long 0, {KERNEL_STACK - 0x800}, {KDS}; .org {TSS + 0x66}; .word 0x68",
            f".org {LDT}; .quad 0x00CFF3000000FFFF, 0x00CFF3000000FFFF",
            f".org {CELLS}; .long 0, {ROUNDS}; log: .long {LOG}; supervisors: .long {', '.join(map(hex, bits))}",
            f".org {DATA}; .byte {', '.join(str(byte) for byte in self.source.randbytes(0x1000))}",
            f".org {KERNEL}", "start: lgdt gdt_register; lidt idt_register",
            f"ljmp ${KCS}, $1f; 1: mov ${KDS}, %eax; mov %eax, %ss; mov ${KERNEL_STACK}, %esp; mov ${TASK}, %eax; ltr %ax",
            f"mov ${self.source.getrandbits(32)}, %eax; mov %eax, %ebp; mov ${UDS}, %ecx; mov %ecx, %fs; mov %ecx, %gs",
            "mov %ecx, %ds; mov %ecx, %es; mov $0x4000, %edx; cmp %eax, %eax",
            f"mov ${DATA + 0x400}, %ebx; mov ${DATA + 0x40}, %esi; mov ${DATA + 0x200}, %edi", "round:",
        ]  # fmt: skip
        for code in kernel:
            lines += self._part(code, 0)
        lines += [
            f"mov ${UDS}, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %fs; mov %eax, %gs; mov ${KERNEL_STACK}, %esp",
            f"cli; pushl ${UDS}; pushl ${USER_STACK}; pushl ${flags}; pushl ${UCS}; pushl $user; iret",
            f"kernel_back: mov ${KERNEL_STACK}, %esp; decl {CELLS + 4}; jnz round",
            "pusha; pushf; mov %cr0, %eax; push %eax; mov %cr3, %eax; push %eax; mov %cr4, %eax; push %eax",
            f"mov $0, %al; out %al, ${END}",
            f"cli; mov ${BASE}, %esi; mov ${SIZE}, %ecx; mov ${DUMP}, %edx; cld; rep outsb",
            f"mov ${LEAVE}, %edx; out %al, %dx; 1: hlt; jmp 1b",
            f".org {HANDLERS}", "handlers: jmp gate", HANDLER, entries, f".org {USER}", "user:",
        ]  # fmt: skip
        for code in user:
            lines += self._part(code, 3)
        lines += [
            f"int ${BACK}",
            f".org {USER_END}",
            f".org {RARE_LOG + RARE_LOG_SIZE}; rare_log: .long 0; .org {SIZE - 1}; .byte 0",
        ]
        return "\n".join(lines) + "\n"

    def _part(self, code: bytes, level: int) -> list[str]:
        """An instruction, with sensitive ones around, and where to go on if it faults."""
        label, stack = self.label(), USER_STACK if level else KERNEL_STACK
        lines = [f"movl ${label}, {CELLS}"]
        lines += [self._sensitive(level) for _ in range(self.source.choice((0, 1, 1, 2, 3)))]
        if self.source.random() < 0.2:
            lines.append(f"j{self.source.choice(('c', 'nc', 's', 'ns', 'z', 'nz', 'o', 'p', 'le', 'a'))} {label}")
        lines.append(".byte " + ", ".join(map(hex, code)))
        if self.source.random() < 0.3:
            lines.append(self._sensitive(level))
        lines.append(
            f"{label}: mov ${stack}, %esp; mov ${DATA + 0x400}, %ebx; mov ${DATA + 0x40}, %esi; mov ${DATA + 0x200}, %edi"
        )
        return lines

    def _sensitive(self, level: int) -> str:
        source = self.source
        kinds = [self._flags, self._segments, self._memory, self._transfers, self._system, self._code]
        return source.choice(kinds + [self._stack] * self.below_stack)(level)

    def _flags(self, level: int) -> str:
        source = self.source
        mask = source.choice((0x200, 0x1, 0x40, 0x800, 0x3000, 0x4000, 0x100, 0x8D5, 0x200000, 0x10000, 0x40000))
        return source.choice((
            "pushf; pop %eax", "cli", "sti", "pushf; cli; popf", "pushf; sti; nop; popf", "cli; nop; sti; nop",
            f"pushf; xorl ${mask}, (%esp); popf", f"pushf; xorl ${mask}, (%esp); popf; nop; pushf; xorl ${mask}, (%esp); popf",
            "pushfw; popfw", "pushf; pop %edx; push %edx; popf", f"out %al, ${RAISE}", f"cli; out %al, ${RAISE}; sti; inc %edx",
            f"cli; out %al, ${RAISE}; pushf; orl $0x200, (%esp); popf; inc %edx",
            f"cli; mov ${RAISE}, %edx; out %al, (%dx); sti; mov %ss, %eax; mov %eax, %ss; inc %ecx",
            "jmp 9f; .balign 16; 8: sti; ret; lea 0(%esi, 1), %esi; nop; nop; 9: call 8b; pushf; pop %eax",
            f"jmp 9f; .balign 16; 8: {source.choice(('cli', 'sti'))}; jmp 7f; lea 0(%esi, 1), %esi; nop; nop; 9: jmp 8b; .skip 9; 7: pushf; pop %eax",
            f"jmp 6f; .balign 4; nop; nop; 7: {source.choice(('cli', 'sti'))}; xor %eax, %eax; 8: inc %edx; jmp 9f; lea 0(%esi, 1), %esi; 6: test $1, %dl; jz 8b; jmp 7b; 9: pushf; pop %eax",
            f"test ${source.choice((1, 2, 4, 0x80))}, %dl; jz 8f; {source.choice(('cli', 'sti'))}; 8: inc %edx; inc %edx; nop; nop; pushf; pop %eax",
        ))  # fmt: skip

    def _segments(self, level: int) -> str:
        source = self.source
        selector, register = source.choice(SELECTORS), source.choice(("ds", "es", "fs", "gs"))
        restore = f"; mov ${UDS}, %eax; mov %eax, %{register}"
        again = f"mov %{register}, %eax; mov %eax, %{register}"
        far = source.choice(("fs", "gs"))
        use = f"; mov %{far}:{DATA}, %edx; add %edx, %ebp; mov ${UDS}, %eax; mov %eax, %{far}; add %{far}:{DATA}, %ebp"
        base = f"xorb ${source.choice((0x40, 0x80))}, {GDT + (SHIFTED & ~7) + 2}" if not level else "nop"
        return source.choice((
            f"mov ${SHIFTED}, %eax; mov %eax, %{far}{use}", f"push ${SHIFTED}; pop %{far}{use}",
            f"push %ds; push ${SHIFTED}; mov (%esp), %{far}; pop %{far}{use}; pop %{far}", base, f"{base}; stc",
            again, again, f"push %{register}; pop %{register}", f"push %{register}; pop %eax", "push %cs; pop %edx",
            "push %ss; pop %eax", f"mov ${selector}, %eax; mov %eax, %{register}{restore}",
            f"pushl ${selector}; pop %{register}{restore}", f"mov ${selector}, %ecx; mov %cx, %{register}{restore}",
            f"movw ${selector}, {DATA + 0x80}; mov {DATA + 0x80}, %{register}{restore}",
            f"movw ${selector}, {DATA + 0x84}; movl $0x1234, {DATA + 0x80}; lfs {DATA + 0x80}, %edx; mov ${UDS}, %eax; mov %eax, %fs",
            f"mov ${selector}, %eax; lar %eax, %edx", f"mov ${selector}, %eax; lsl %eax, %edx", f"mov ${selector}, %eax; verr %ax",
            f"mov ${selector}, %eax; verw %ax", "mov %ss, %eax; mov %eax, %ss; nop", f"mov ${selector}, %eax; mov %eax, %ss",
            f"mov %{register}, {DATA + 0x90}", "str %eax", "sldt %eax", f"mov ${UDS}, %eax; mov %eax, %fs; mov %fs:{DATA}, %ecx",
            f"mov {(WINDOWS[0] + source.randrange(8)) << 12}, %{register}{restore}",
        ))  # fmt: skip

    def _memory(self, level: int) -> str:
        source = self.source
        page = source.choice(CHANGING)
        at = source.choice(WINDOWS) << 12 | source.choice((0, 4, 0x44, 0xF00, 0xFF0 if self.outside else 0xFFE))
        bit = source.choice((PRESENT, PRESENT, WRITABLE, FOR_USERS, ACCESSED, DIRTY, ACCESSED | DIRTY, PRESENT | DIRTY))
        if level:
            change = f"mov ${page}, %ecx; mov ${bit}, %edx; int ${CHANGE}"
        else:
            table = source.choice((TABLE, TABLE, OTHER_TABLE))
            change = f"xorl ${bit}, {table + 4 * page}; invlpg {page << 12}"
        kernel = source.choice((KERNEL_STACK, GDT, TABLE, LOG, 0x70000, 0x300000, 0x800000))
        return source.choice((
            change, change, change, f"mov {at}, %eax", f"mov %edx, {at}", f"incl {at}", f"pushl {at}; popl {at}",
            f"xchg %eax, {at}", f"mov ${at}, %esi; mov ${DATA}, %edi; mov $3, %ecx; rep movsl",
            f"mov ${DATA}, %esi; mov ${at}, %edi; mov $3, %ecx; rep movsb", f"mov ${at}, %edi; mov $9, %ecx; rep stosl",
            f"cmp {at}, %eax", f"mov {kernel}, %eax" if level else "nop",
            f"lock cmpxchg %ecx, {at}",
            f"add %eax, {at}",
        ))  # fmt: skip

    def _stack(self, level: int) -> str:
        """What pops, from a page that may not be there: exceptions at level 0 go on the page below."""
        source, label = self.source, self.label()
        at = (EDGE << 12) - source.choice((0, 0, 0, 4, 8))
        first, code = source.choice(SELECTORS), UCS if level else KCS
        flags = source.choice((2, 0x202, 0x246, 0x8D7, 0x3002, 0x102, 0x4002))
        kinds = "popf", "pop %es", "pop %fs", "iret", "iret", "lret", "ret", "popf; cli; pushf; pop %eax"
        kind = source.choice(kinds)
        if level:
            page, setup = source.choice(DATA_WINDOWS), ""
            at = page << 12
            change = f"mov ${page}, %ecx; mov ${PRESENT}, %edx; int ${CHANGE}; "
        else:
            change = f"xorl $1, {TABLE + 4 * EDGE}; invlpg {EDGE << 12}; "
            setup = f"movl $7 + {BASE + 0x4000}, {TABLE + 4 * EDGE}; invlpg {EDGE << 12}; "
        if source.random() < 0.3:
            change = ""
        values = {"p": flags, "i": f"{label}", "l": f"{label}", "r": f"{label}"}[kind[0]]
        values = first if kind.startswith("pop %") else values
        return (
            f"mov ${at}, %esp; {setup}movl ${values}, (%esp);"
            f"movl ${code}, 4(%esp); movl ${flags}, 8(%esp); {change} {kind}; {label}: mov ${UDS}, %eax; mov %eax, %es; mov %eax, %fs"
        )

    def _transfers(self, level: int) -> str:
        source, label = self.source, self.label()
        code = UCS if level else KCS
        bad = source.choice(SELECTORS)
        return source.choice((
            f"int ${SERVICE}", f"int ${PRIVATE}", "int3", "into", f"int ${source.choice((0x90, 0x0D, 0x0E, 0xFF))}",
            f"ljmp ${code}, ${label}; ud2; {label}: nop", f"lcall ${code}, ${label}; jmp 9f; {label}: lret; 9: nop",
            f"pushf; push %cs; push ${label}; iret; ud2; {label}: nop", f"pushf; pushl ${bad}; pushl ${label}; iret; {label}: nop",
            f"push %cs; push ${label}; lret; {label}: nop", f"pushl ${bad}; push ${label}; lret; {label}: nop",
            f"lcall ${GATE}, $0", f"lcall ${GATE & ~3}, $0", "ud2", f"ljmp ${bad}, ${label}; {label}: nop",
            f"pushf; orl $0x100, (%esp); push %cs; push ${label}; iret; {label}: inc %edx; nop",
            f"pushl ${bad}; pushl ${USER_STACK}; pushl $0x202; pushl ${UCS}; pushl ${label}; iret; {label}: nop" if level else "nop",
            f"call {label}; jmp 9f; {label}: ret; 9: nop",
        ))  # fmt: skip

    def _system(self, level: int) -> str:
        source = self.source
        found = [
            "mov %cr0, %eax", "mov %cr3, %eax", "mov %cr2, %eax", "mov %cr4, %eax", "mov %cr3, %eax; mov %eax, %cr3",
            f"mov ${BASE + DIRECTORY}, %eax; mov %eax, %cr3", f"mov ${BASE + OTHER_DIRECTORY}, %eax; mov %eax, %cr3",
            "mov %cr0, %eax; xor $0x10000, %eax; mov %eax, %cr0", "mov %cr4, %eax; xor $0x80, %eax; mov %eax, %cr4",
            f"sgdt {DATA + 0x700}", f"sidt {DATA + 0x708}", "smsw %eax", "clts", "lgdt gdt_register", "lidt idt_register",
            f"mov ${LOCAL}, %eax; lldt %ax; mov $0xC, %eax; mov %eax, %fs; mov %fs:{DATA}, %edx; mov ${UDS}, %eax; mov %eax, %fs",
            "xor %eax, %eax; lldt %ax", "mov $0, %eax; mov %eax, %dr0; mov %dr7, %eax", "mov $0x2345, %eax; mov %eax, %cr2",
            f"invlpg {source.choice(CHANGING) << 12}", "invlpg 0x80000000", "wbinvd", "mov $0x174, %ecx; rdmsr",
            f"mov ${BASE + 0x123}, %eax; mov $0x175, %ecx; xor %edx, %edx; wrmsr; rdmsr", "mov $0x7FFF, %ecx; mov $0xFF, %dl",
        ]  # fmt: skip
        if level:
            found += ["hlt", "sgdt gdt_register"]
        if not self.outside:
            found += ["in $0x61, %al", "mov $0x62, %edx; in (%dx), %eax", "push %ebx; xor %eax, %eax; cpuid; pop %ebx"]
            found += [f"mov ${DATA + 0x300}, %edi; mov $0x62, %edx; mov $2, %ecx; rep insb"]
        return source.choice(found)

    def _code(self, level: int) -> str:
        source, label = self.source, self.label()
        alias = f"{label} + {BASE}" if not level else label
        return source.choice((
            "jmp 9f; .byte 0xB8; 9: inc %edx; nop; nop; nop",  # into the middle of mov eax, imm32
            f"incb {label} + 1; nop; {label}: mov ${source.randrange(256)}, %al",
            f"incb {alias} + 1; nop; jmp {label}; {label}: mov ${source.randrange(256)}, %al",
            f"xorb $0x0A, {label}; jmp {label}; {label}: clc; nop" if source.random() < 0.5 else f"addl $5, {label} + 1; {label}: mov $7, %ecx",
            "call 9f; 9: pop %eax", f".skip {source.randrange(1, 40)}, 0x90",
        ))  # fmt: skip


def build(source: str, directory: Path) -> bytes:
    """The image of a system: assembled, and with its page tables."""
    (directory / "system.s").write_text(source)
    subprocess.run(["as", "--32", "system.s", "-o", "system.o"], cwd=directory, check=True)
    link = ["ld", "-m", "elf_i386", "--oformat", "binary", "-Ttext", "0", "-e", "0", "system.o", "-o", "system"]
    subprocess.run(link, cwd=directory, check=True, stderr=subprocess.DEVNULL)
    image = bytearray((directory / "system").read_bytes())
    assert len(image) == SIZE
    for directory_at, table_at in ((DIRECTORY, TABLE), (OTHER_DIRECTORY, OTHER_TABLE)):
        image[directory_at : directory_at + 4] = (BASE + table_at | 0x27).to_bytes(4, "little")
        for page in range(SIZE >> 12):
            rights = PRESENT | WRITABLE | (0 if page in SUPERVISOR_ONLY else FOR_USERS)
            if page << 12 >= RARE_LOG:
                rights |= ACCESSED | DIRTY
            _entry(image, table_at, page, page, rights)
            _entry(image, table_at, (BASE >> 12) + page, page, PRESENT | WRITABLE | ACCESSED | DIRTY)
        order = SEEN_BY_WINDOWS if table_at == TABLE else SEEN_BY_WINDOWS[::-1]
        for window, page in zip(WINDOWS, order, strict=True):
            _entry(image, table_at, window, page, FOR_USERS | PRESENT | WRITABLE)
        _entry(image, table_at, EDGE - 1, 0x0D, PRESENT | WRITABLE)
        _entry(image, table_at, EDGE, 0x04, FOR_USERS | PRESENT | WRITABLE)
    return bytes(image)


def _entry(image: bytearray, table: int, page: int, frame: int, rights: int) -> None:
    at = table + 4 * page
    image[at : at + 4] = (BASE + (frame << 12) | rights).to_bytes(4, "little")
