"""A small operating system under the monitor: paging, ring 3, demand paging, interrupts, patches, vector registers."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.prescan.machines import TestMachine, assemble, needs_assembler, printed
from virtus.exits import Reason
from virtus.vcpus.scanned.memory_access import ACCESSED, DIRTY

pytestmark = needs_assembler

Boot = Callable[[str, str], TestMachine]

KERNEL = """
    .set DIRECTORY, 0x100000
    .set TABLE, 0x101000
    .set USER_TABLE, 0x102000
    cld
    mov $TABLE, %edi; mov $3, %eax; mov $1024, %ecx      # the first 4 MiB for the supervisor
    1: stosl; add $4096, %eax; loop 1b
    movl $TABLE + 3, DIRECTORY; movl $TABLE + 3, DIRECTORY + 0xC00
    movl $USER_TABLE + 7, DIRECTORY + 4
    mov $0x200007, %eax; mov $USER_TABLE, %edi; mov $4, %ecx      # 0x400000: the user's four pages
    2: stosl; add $4096, %eax; loop 2b
    mov $DIRECTORY, %eax; mov %eax, %cr3
    mov %cr0, %eax; or $0x80010000, %eax; mov %eax, %cr0
    mov %cr4, %eax; or $0x600, %eax; mov %eax, %cr4
    lgdt gdt_register; lidt idt_register; ljmp $8, $3f
    3: mov $16, %eax; mov %ax, %ds; mov %ax, %es; mov %ax, %fs; mov %ax, %gs; mov %ax, %ss
    mov $0x9000, %esp; mov $40, %eax; ltr %ax
    {kernel}
    mov $user, %esi; mov $0x400000, %edi; mov $user_end - user, %ecx; rep movsb
    pushl $35; pushl $0x403000; pushl $0x202; pushl $27; pushl $0x400000
    mov $35, %eax; mov %ax, %ds; mov %ax, %es
    iret
    page_fault:      # demand paging from 0x404000 to 0x408000; all else is told
        pushal; mov %cr2, %eax; cmp $0x404000, %eax; jb 5f; cmp $0x408000, %eax; jae 5f
        shr $12, %eax; and $1023, %eax; mov %eax, %ebx; shl $12, %eax; add $0x300007, %eax
        mov %eax, USER_TABLE(, %ebx, 4)
        popal; add $4, %esp; iret
        5: mov %cr2, %eax; outl %eax, $0xE9; mov 32(%esp), %eax; outl %eax, $0xE9
        mov 36(%esp), %eax; outl %eax, $0xE9; out %al, $0xF4; hlt
    protection: mov (%esp), %eax; outl %eax, $0xE9; mov 4(%esp), %eax; outl %eax, $0xE9; out %al, $0xF4; hlt
    call_gate: outl %eax, $0xE9; iret
    timer: incl 0x8000; iret
    .align 16
    gdt: .quad 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF, 0x00CFFA000000FFFF, 0x00CFF2000000FFFF
         .word 103, 0x7000; .long 0x00008900
    gdt_register: .word 47; .long gdt
    idt_register: .word 0x407; .long idt
    .align 16
    idt: .fill 13 * 2, 4, 0
         .long 0x80000 + protection - 0x10000, 0x18E00, 0x80000 + page_fault - 0x10000, 0x18E00
         .fill 17 * 2, 4, 0
         .long 0x80000 + timer - 0x10000, 0x18E00
         .fill 95 * 2, 4, 0
         .long 0x80000 + call_gate - 0x10000, 0x1EE00
    user: {user}
    user_end:
"""
END = "mov $0xE0D, %eax; int $0x80; hlt"


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    machines: list[TestMachine] = []

    def start(kernel: str, user: str) -> TestMachine:
        machine = TestMachine(assemble(KERNEL.format(kernel=kernel, user=user), tmp_path))
        machine.memory.bytes[0x7004:0x700A] = (0x9000).to_bytes(4, "little") + (16).to_bytes(2, "little")  # SS0:ESP0
        machines.append(machine)
        return machine

    yield start
    for machine in machines:
        machine.close()


def test_user_code_runs_and_calls(boot: Boot) -> None:
    machine = boot("", "mov $42, %eax; int $0x80; mov %cs, %eax; int $0x80; movl $1, 0x405000; mov 0x405000, %eax; "
                   "int $0x80; hlt")  # fmt: skip
    machine.run()
    assert printed(machine)[:3] == [42, 27, 1]
    assert printed(machine)[3:] == [0, 0x40001C]  # HLT at ring 3: #GP(0) at its own EIP
    entry = int.from_bytes(machine.memory.bytes[0x102000 + 5 * 4 :][:4], "little")
    assert entry & (ACCESSED | DIRTY) == ACCESSED | DIRTY


@pytest.mark.parametrize(
    ("access", "address", "error"),
    [
        ("mov 0x10000, %eax", 0x10000, 5),
        ("mov %eax, 0x10000", 0x10000, 7),
        ("mov 0xC0010000, %eax", 0xC0010000, 5),
        ("movups 0x10000, %xmm0", 0x10000, 5),
        ("movups %xmm0, 0x10000", 0x10000, 7),
        ("mov 0x800000, %eax", 0x800000, 4),
        ("mov %eax, 0x800000", 0x800000, 6),
        ("mov $0x10000, %eax; jmp *%eax", 0x10000, 5),
    ],
)
def test_user_code_cannot_touch_supervisor_pages(boot: Boot, access: str, address: int, error: int) -> None:
    """Even after the supervisor has used the page, and so has it in its own child."""
    machine = boot("mov 0x10000, %eax; mov %eax, 0x10FFC; mov 0xC0010000, %eax", access)
    machine.run()
    assert printed(machine)[:2] == [address, error]


def test_vector_registers_are_the_users_own_wherever_they_are(boot: Boot) -> None:
    machine = boot(
        "mov $7, %eax; movd %eax, %xmm1",
        "movd %xmm1, %eax; int $0x80; mov $9, %ecx; movd %ecx, %xmm1; mov $1, %eax; int $0x80; movd %xmm1, %eax;"
        "int $0x80; fld1; fld1; faddp; sub $4, %esp; fistpl (%esp); pop %eax; int $0x80; " + END,
    )
    machine.run()
    assert printed(machine)[:4] == [7, 1, 9, 2]


class Timer:
    """An interrupt every so often, of vector 32."""

    def __init__(self, period: float) -> None:
        self.period, self.next, self.given = period, time.monotonic(), 0

    def pending(self) -> bool:
        return time.monotonic() >= self.next

    def acknowledge(self) -> int:
        self.next = time.monotonic() + self.period
        self.given += 1
        return 32


def test_interrupts_come_when_the_guest_allows_them(boot: Boot) -> None:
    machine = boot("sti; 1: cmpl $5, 0x8000; jb 1b; cli; mov 0x8000, %eax; outl %eax, $0xE9", END)
    machine.vcpu.interrupts = Timer(0.001)
    machine.run()
    assert printed(machine)[0] >= 5


def test_a_halted_processor_waits(boot: Boot) -> None:
    machine = boot("sti; hlt; mov 0x8000, %eax; outl %eax, $0xE9", END)
    assert machine.run().reason is Reason.HALT
    timer = Timer(60)
    machine.vcpu.interrupts = timer
    machine.run()
    assert (printed(machine)[0], timer.given) == (1, 1)


LOOP = "mov $5000, %ecx; 1: pushf; pop %eax; cli; push %eax; popf; mov %ds, %ebx; push %cs; pop %edx; dec %ecx; jnz 1b"


def test_hot_instructions_become_patches(boot: Boot) -> None:
    machine = boot(
        f"sti; {LOOP}; pushf; pop %eax; outl %eax, $0xE9; mov %ebx, %eax; outl %eax, $0xE9; mov %edx, %eax;"
        "outl %eax, $0xE9",
        END,
    )
    machine.run()
    flags, data, code = printed(machine)[:3]
    assert (flags & 0x200, data, code) == (0x200, 16, 8)
    assert machine.vcpu.monitor.patches.made
    assert machine.vcpu.evaluated < 1000


def test_patches_let_interrupts_in_and_keep_them_out(boot: Boot) -> None:
    machine = boot(
        "mov $0, %esi; 2: mov $3000, %ecx; 1: cli; mov 0x8000, %eax; mov $20, %edx; 4: dec %edx; jnz 4b; nop;"
        "cmp 0x8000, %eax; jne 3f; sti; nop; nop; nop; nop; nop; dec %ecx; jnz 1b; cmpl $20, 0x8000; jb 2b; jmp 5f;"
        "3: inc %esi; 5: mov %esi, %eax; outl %eax, $0xE9",
        END,
    )
    machine.vcpu.interrupts = Timer(0.0003)
    machine.run()
    assert printed(machine)[0] == 0
    assert machine.vcpu.monitor.patches.made


def test_stops_inside_patches_are_not_seen_by_the_guest(boot: Boot) -> None:
    """Kicks come at any instruction of the fragments, POPF with a change of AC among them."""
    machine = boot(
        "mov %esp, %ebp; mov $60000, %ecx; 1: pushf; pop %eax; mov %eax, %edx; cli; push %edx; popf; test %ecx, %ecx;"
        "jz 2f; cmp %eax, %edx; jne 2f; cmp %esp, %ebp; jne 2f; dec %ecx; jmp 1b; 2: mov %ecx, %eax;"
        "outl %eax, $0xE9; sub %esp, %ebp; mov %ebp, %eax; outl %eax, $0xE9",
        END,
    )
    done = threading.Event()

    def kick() -> None:
        while not done.wait(0.0002):
            machine.vcpu.kick()

    kicker = threading.Thread(target=kick)
    kicker.start()
    try:
        machine.run()
    finally:
        done.set()
        kicker.join()
    assert printed(machine)[:2] == [0, 0]
    assert machine.vcpu.monitor.patches.made


def test_a_call_under_a_patch_returns_to_the_guest(boot: Boot) -> None:
    machine = boot(
        "mov $1000, %ecx; xor %ebx, %ebx; jmp 1f; 2: pop %eax; push %eax; inc %ebx; ret;"
        "1: cli; call 2b; 3: dec %ecx; jnz 1b; sub $3b, %eax; outl %eax, $0xE9; mov %ebx, %eax; outl %eax, $0xE9",
        END,
    )
    machine.run()
    assert printed(machine)[:2] == [0, 1000]
    assert machine.vcpu.monitor.patches.made
    assert machine.vcpu.evaluated < 1000


def test_a_fault_in_a_patch_shows_the_guests_own_eip(boot: Boot) -> None:
    """A patched PUSHF and the PUSH under its jump write to a stack that is not there."""
    for number, guilty in ((0, "pushf; mov %eax, %ebx; mov %eax, %ebx"), (1, "cli; push %eax; mov %eax, %ebx; nop")):
        machine = boot(
            f"mov %esp, %ebp; mov $100, %ecx; 1: mov $0x5A5A, %eax; fault: {guilty};"
            "cmp $2, %ecx; jne 2f; mov $0xD0000000, %ebp; 2: mov %ebp, %esp; loop 1b",
            END,
        )
        machine.vcpu.state.registers[0] = number
        found = machine.run()
        # the stack is gone: the page fault cannot be delivered, which is a triple fault at the instruction itself
        assert found.reason is Reason.ENDED
        assert machine.vcpu.monitor.patches.made
        assert machine.state.registers[0] == 0x5A5A
        assert machine.state.registers[4] == 0xD000_0000
        code = bytes(machine.memory.bytes[machine.state.eip : machine.state.eip + 1])
        assert code == (b"\x9c", b"\x50")[number]


def test_user_address_spaces_follow_cr3(boot: Boot) -> None:
    show = "mov 0x401000, %eax; outl %eax, $0xE9"
    copy = "mov $1024, %ecx; rep movsl"
    machine = boot(
        f"mov $0x100000, %esi; mov $0x110000, %edi; {copy}; mov $0x102000, %esi; mov $0x111000, %edi; {copy};"
        "movl $0x111007, 0x110004; movl $0x210007, 0x111004; movl $1, 0x201000; movl $2, 0x210000;"
        f"{show}; mov $0x110000, %eax; mov %eax, %cr3; {show}; mov $0x100000, %eax; mov %eax, %cr3; {show}",
        END,
    )
    machine.run()
    assert printed(machine)[:3] == [1, 2, 1]
