"""Patches: what hot sites become does what the instructions did, and gives up where its easy case is not given."""

import pytest

from tests.prescan.machines import DONE, PRINT_EAX, Boot, needs_assembler, printed
from virtus.exits import Reason
from virtus.memory.guest_memory import GuestMemory
from virtus.vcpus.scanned import patches, port_shortcuts
from virtus.vcpus.scanned.breakpoints import CodePages
from virtus.vcpus.scanned.cells import NEVER_AT, SHARED, TABLES_AT, Cells
from virtus.vcpus.scanned.cpu_state import DS, CpuState
from virtus.vcpus.scanned.patches import HOT

pytestmark = needs_assembler

TABLES = """
    .align 8
    gdt: .quad 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF93000000FFFF
    gdt_register: .word 31; .long gdt
"""
PAGING = """
    mov $0x201000, %edi; mov $0x7, %eax; mov $1024, %ecx
    1: mov %eax, (%edi); add $4, %edi; add $0x1000, %eax; loop 1b
    movl $0x201007, 0x200000; mov $0x200000, %eax; mov %eax, %cr3
    mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0
"""
ROUNDS = 8 * HOT
MANY = 80 * HOT


def test_returns_from_interrupts_to_the_same_segment_are_patched(boot: Boot) -> None:
    machine = boot(f"""
        lgdt gdt_register
        mov ${ROUNDS}, %ecx; xor %ebx, %ebx
        1: pushl $0x203; push %cs; push $2f; iretl
        2: adc $0, %ebx
        pushf; pop %eax; and $0x200, %eax; add %eax, %ebx
        dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} mov %esp, %eax; {PRINT_EAX} {DONE} {TABLES}""")
    machine.run()
    assert printed(machine) == [ROUNDS * 0x201, 0x9000]
    assert machine.vcpu.monitor.patches.made
    assert machine.vcpu.evaluated < 3 * ROUNDS


def test_a_return_to_an_instruction_under_a_patch_is_not_taken_by_one(boot: Boot) -> None:
    machine = boot(f"""
        lgdt gdt_register
        mov ${ROUNDS}, %ecx; xor %ebx, %ebx
        1: call 4f; dec %ecx; jnz 1b
        mov ${ROUNDS}, %ecx
        1: push $5f; pushl $2; push %cs; mov $3f, %eax; sub $4, %eax; push %eax; iretl
        5: dec %ecx; jnz 1b; jmp 6f
        .skip 16, 0x90
        4: cli; nop; inc %ebx; nop; nop
        3: ret
        6:
        mov %ebx, %eax; {PRINT_EAX} {DONE} {TABLES}""")
    machine.run()
    assert printed(machine) == [2 * ROUNDS]
    assert machine.vcpu.monitor.patches.interior
    assert machine.vcpu.evaluated > ROUNDS, "each return is the evaluator's"


def test_a_site_that_a_branch_goes_behind_is_patched_from_an_instruction_in_front(boot: Boot) -> None:
    machine = boot(f"""
        mov ${ROUNDS}, %ecx; xor %ebx, %ebx
        1: mov %ecx, %eax; and $1, %eax
        test $1, %al; je 2f; sti
        2: pushf; pop %eax; and $0x200, %eax; add %eax, %ebx
        cli; nop; nop; nop; nop
        dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [ROUNDS // 2 * 0x200]
    assert machine.vcpu.evaluated < 2 * ROUNDS


def test_a_site_too_short_for_a_jump_is_patched_where_padding_follows_its_return(boot: Boot) -> None:
    """Until a branch into the padding is found."""
    machine = boot(f"""
        mov ${ROUNDS}, %ecx; xor %ebx, %ebx; xor %esi, %esi
        1: cli; nop; nop; nop; nop; nop; call 2f; pushf; pop %eax; and $0x200, %eax; add %eax, %ebx; dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} xor %ebx, %ebx; mov $4f, %eax; jmp *%eax
        .balign 16
        2: sti; ret; .byte 0x8D, 0xB6; 3: .long 0; mov $2, %esi; ret  # lea 0(%esi), %esi, or add %al, (%eax) twice
        .balign 16
        4: mov ${ROUNDS}, %ecx
        1: xor %esi, %esi; mov $0x5000, %eax; call 3b; add %esi, %ebx; dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [ROUNDS * 0x200, 2 * ROUNDS]
    assert machine.vcpu.codes.dropped
    assert machine.vcpu.evaluated < 2 * ROUNDS


def test_a_site_with_a_target_close_behind_is_patched_by_way_of_an_island(boot: Boot) -> None:
    machine = boot(f"""
        mov ${MANY}, %ecx; xor %ebx, %ebx; xor %edx, %edx
        1: cli; nop; nop; nop; nop; nop; push $4f; test $3, %ecx; jz 3f; test $4, %ecx; jz 2f; jmp 5f
        2: sti; xor %eax, %eax
        3: inc %edx; ret
        5: xor $0x55, %eax; sti; inc %edx; jmp 3b
        .byte 0x8D, 0xB6, 0, 0, 0, 0
        4: pushf; pop %eax; and $0x200, %eax; add %eax, %ebx; dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} mov %edx, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [MANY // 4 * 3 * 0x200, MANY + MANY // 8 * 3]
    assert machine.vcpu.evaluated < MANY // 2


def test_an_instruction_right_behind_a_site_may_be_jumped_to_though_a_patch_covers_it(boot: Boot) -> None:
    """Seldom at first; where that is often, the site is not patched like that any more."""
    machine = boot(f"""
        mov ${MANY}, %ecx; xor %ebx, %ebx
        1: mov %ebx, %edx; push $4f; test $0x3F, %ecx; jz 3f; jmp 2f
        .balign 16
        2: cli
        3: inc %ebx; inc %ebx; nop; nop; nop; ret
        .balign 16
        4: dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX}
        mov ${MANY}, %ecx
        1: push $4f; test $0x3F, %ecx; jnz 3b; jmp 2b
        .balign 16
        4: dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [2 * MANY, 4 * MANY]
    assert machine.vcpu.codes.dropped, "the patch was given up"
    assert machine.vcpu.evaluated < MANY // 2


def test_code_that_is_found_under_a_jump_later_is_run_as_it_is(boot: Boot) -> None:
    """Behind a byte that makes an instruction of its own of those under the jump."""
    machine = boot(f"""
        mov ${ROUNDS}, %ecx; xor %ebx, %ebx; mov $0x200, %esi
        1: cli; inc %ebx; nop; nop; nop; nop; dec %ecx; jnz 1b
        mov ${ROUNDS}, %ecx; xor %edx, %edx; xor %eax, %eax
        1: jmp 3f; .byte 0x05  # add $imm32, %eax
        2: cli; inc %ebx; sti; nop; nop; nop; nop; jmp 4f
        3: inc %edx; test $8, %edx; jz 2b; mov $2b - 1, %edi; jmp *%edi
        4: dec %ecx; jnz 1b
        {PRINT_EAX} mov %ebx, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    jumps = sum(1 for number in range(1, ROUNDS + 1) if number & 8)
    assert printed(machine) == [jumps * 0x90FB43FA & 0xFFFF_FFFF, 2 * ROUNDS - jumps]


def test_a_segment_that_is_loaded_again_is_the_descriptor_of_now(boot: Boot) -> None:
    machine = boot(f"""
        lgdt gdt_register
        movl $0x11111111, 0x5000; movl $0x22222222, 0x6000
        mov $24, %edx; mov %edx, %fs; mov ${ROUNDS}, %ecx
        1: mov %edx, %fs; push %ds; pop %es; nop; nop; nop; dec %ecx; jz 2f
        cmp $4, %ecx; jne 1b
        movw $0x1000, gdt + 24 + 2
        jmp 1b
        2: mov %fs:0x5000, %eax; {PRINT_EAX} mov %es, %eax; {PRINT_EAX} {DONE} {TABLES}""")
    machine.run()
    assert printed(machine) == [0x22222222, 16]
    assert machine.vcpu.monitor.patches.made
    assert machine.vcpu.evaluated < 2 * ROUNDS


def test_segments_that_are_known_are_loaded_in_turn_without_a_stop(boot: Boot) -> None:
    """By MOV from registers and memory, and by POP; one has a base, one becomes another on the way, one is null."""
    machine = boot(f"""
        lgdt gdt_register
        movl $0x11111111, 0x5000; movl $0x22222222, 0x6000; movl $0x33333333, 0x7000; movw $0x1000, gdt + 24 + 2
        mov ${MANY}, %ecx; mov $16, %edx; xor %esi, %esi; xor %ebx, %ebx; movl $24, 0x8000
        1: mov %edx, %fs; nop; nop; nop; stc; add %fs:0x5000, %ebx
        mov 0x8000, %fs; nop; nop; add %fs:0x5000, %ebx
        push %esi; pop %fs; mov %fs, %eax; nop; nop; nop; add %eax, %ebx
        push $24; pop %fs; nop; nop; nop; nop; add %fs:0x5000, %ebx
        mov %edx, %gs; mov %gs, %eax; nop; nop; nop; add %eax, %ebx; mov %esi, %gs; nop; nop; nop; nop
        cmp ${MANY // 2}, %ecx; jne 2f; movw $0x2000, gdt + 24 + 2
        2: dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} mov %fs, %eax; {PRINT_EAX} {DONE} {TABLES}""")
    machine.run()
    half = MANY // 2
    total = MANY * (0x11111111 + 16) + 2 * ((half + 1) * 0x22222222 + (half - 1) * 0x33333333)
    found = printed(machine)
    assert found[1] == 24
    assert found[0] == total & 0xFFFF_FFFF
    assert machine.vcpu.evaluated < MANY


def test_an_invalidation_by_a_short_address_is_no_other_instruction(boot: Boot) -> None:
    machine = boot(f"""
        lgdt gdt_register {PAGING}
        mov $0x5000, %ebx; mov ${ROUNDS}, %ecx; xor %edx, %edx
        1: stc; .byte 0x67, 0x0F, 0x01, 0x3F  # invlpg (%bx)
        adc $0, %edx
        nop; nop; nop; nop; nop; dec %ecx; jnz 1b
        mov %edx, %eax; {PRINT_EAX} {DONE} {TABLES}""")
    machine.run()
    assert printed(machine) == [ROUNDS]


def test_a_patched_pushf_shows_no_resume_flag(boot: Boot) -> None:
    """Each return changes AC as well, and so is the evaluator's."""
    machine = boot(f"""
        lgdt gdt_register
        mov ${ROUNDS}, %ecx; xor %ebx, %ebx
        1: mov %ecx, %eax; and $1, %eax; shl $18, %eax; or $0x10202, %eax
        push %eax; push %cs; push $2f; iretl
        2: pushf; pop %eax; and $0x10000, %eax; or %eax, %ebx
        nop; nop; nop; nop; dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} {DONE} {TABLES}""")
    machine.run()
    assert printed(machine) == [0]
    assert machine.vcpu.monitor.patches.made


def test_no_jump_is_laid_over_where_another_patch_goes_back_to(boot: Boot) -> None:
    """The patch of the first instruction does the load, too; then the load itself, jumped to, becomes hot."""
    machine = boot(f"""
        lgdt gdt_register
        mov $24, %edx; mov %edx, %fs; xor %ebx, %ebx; mov ${ROUNDS}, %ecx; mov $7, %eax
        1: call 4f; dec %ecx; jnz 1b
        mov ${ROUNDS}, %ecx
        1: push $2f; push $0; push %eax; mov $24, %eax; mov $5f, %esi; jmp *%esi
        2: dec %ecx; jnz 1b
        mov ${ROUNDS}, %ecx
        1: call 4f; dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} mov %esp, %eax; {PRINT_EAX} {DONE}
        4: push %fs; push %eax; mov $24, %eax
        5: mov %eax, %fs; pop %eax; addl $0x12345, %ebx; add $4, %esp; ret
        {TABLES}""")
    machine.run()
    assert printed(machine) == [3 * ROUNDS * 0x12345 & 0xFFFF_FFFF, 0x9000]


def test_an_invalidated_page_is_translated_anew_and_one_nobody_knows_costs_nothing(boot: Boot) -> None:
    machine = boot(f"""
        {PAGING}
        movl $0x100, 0x300000; movl $0x1, 0x301000
        mov 0x310000, %eax; xor %ebx, %ebx; mov ${ROUNDS}, %ecx
        1: xorl $0x1000, 0x201000 + 4 * 0x300; invlpg 0x300000; nop; nop
        add 0x300000, %ebx
        dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX}
        mov ${4 * ROUNDS}, %ecx; mov $0x310000, %edi
        1: xorl $0x1000, (0x201000 + 4 * 0x310); invlpg (%edi); nop; nop; nop; dec %ecx; jnz 1b
        movl $0x77, 0x30F000; movl $0x30F007, 0x201000 + 4 * 0x310; mov $1, %ecx
        1: invlpg (%edi); nop; nop; nop; dec %ecx; jnz 1b
        mov 0x310000, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [ROUNDS // 2 * 0x101, 0x77]
    assert machine.vcpu.evaluated < 2 * ROUNDS + 3 * HOT + 20


def test_control_registers_are_read_without_a_stop(boot: Boot) -> None:
    machine = boot(f"""
        {PAGING}
        mov ${ROUNDS}, %ecx; xor %ebx, %ebx
        1: mov %cr3, %eax; nop; nop; add %eax, %ebx; dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [ROUNDS * 0x200000]
    assert machine.vcpu.evaluated < 6 * HOT


def test_posted_writes_come_out_in_order_before_anything_else(boot: Boot) -> None:
    """More of them than the queue holds, between writes to a port that is not posted, and the last before the end."""
    machine = boot(f"""
        xor %ebx, %ebx; mov $0xE9, %edx; mov $5000, %ecx
        1: mov %bl, %al; inc %ebx; out %al, %dx; nop; nop; nop; nop
        dec %ecx; jnz 1b
        mov $0x45454545, %eax; {PRINT_EAX}
        lidt none; mov $0x46, %al; mov $1, %ecx; cmp $5000, %ebx; je 1b
        ud2
        none: .word 0; .long 0""")
    machine.vcpu.set_port(0xE9, posted=True, value=None)
    machine.run()
    assert machine.printed == bytes(number & 0xFF for number in range(5000)) + b"EEEE" + bytes([5000 & 0xFF]) + b"EEEE"
    assert machine.vcpu.run().reason is Reason.ENDED
    assert machine.vcpu.evaluated < 100


def test_what_a_port_reads_may_be_known(boot: Boot) -> None:
    machine = boot(f"""
        mov $0x3FD, %edx; mov ${ROUNDS}, %ecx; xor %ebx, %ebx
        1: mov $0x11223300, %eax; in %dx, %al; nop; nop; add %eax, %ebx; dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} {DONE}""")
    machine.vcpu.set_port(0x3FD, posted=False, value=0x60)

    def run() -> int:
        asked = 0
        while True:
            found = machine.vcpu.run()
            if found.number == 0xF4:
                return asked
            if found.number == 0x3FD:
                asked += 1
                found.value = 0x60
            elif found.number == 0xE9:
                machine.printed += found.value.to_bytes(4, "little")

    assert run() < 2 * HOT
    assert printed(machine) == [ROUNDS * 0x11223360 & 0xFFFF_FFFF]


def test_what_the_guest_makes_of_the_queue_harms_nobody() -> None:
    shortcuts = port_shortcuts.PortShortcuts(memoryview(bytearray(b"\xff" * port_shortcuts.SIZE)))
    assert len(shortcuts.take()) == port_shortcuts.MOST
    assert not shortcuts.waiting
    shortcuts.close()


def test_where_there_is_no_room_for_more_fragments_all_are_made_anew(
    monkeypatch: pytest.MonkeyPatch, boot: Boot
) -> None:
    monkeypatch.setattr(patches, "FRAGMENTS", 1000)
    sites = "".join(
        f"mov ${ROUNDS}, %ecx\n 1: cli; inc %ebx; nop; nop; nop; nop; sti; nop; nop; nop; nop; nop; dec %ecx; jnz 1b\n"
        for _ in range(12)
    )
    machine = boot(f"xor %ebx, %ebx\n {sites} mov %ebx, %eax; {PRINT_EAX} {DONE}")
    machine.run()
    assert printed(machine) == [12 * ROUNDS]
    assert machine.vcpu.codes.dropped, "patches were given up"
    assert machine.vcpu.monitor.patches.made, "and made again"
    assert machine.vcpu.evaluated < 24 * ROUNDS


def test_a_selector_that_names_no_descriptor_of_the_global_table_is_never_the_easy_case() -> None:
    state, codes = CpuState(), CodePages(GuestMemory(1 << 16), SHARED)
    cells = Cells(state, codes.code.bytes[codes.extra_at : codes.extra_at + SHARED])
    cells.settle(0x1000_0000)
    state.gdtr.base, state.gdtr.limit = 0x5000, 0x1F
    words = cells.area[TABLES_AT : TABLES_AT + 24].cast("I")
    for selector, at in ((0x10, 0x5010), (0x14, 0x1000_0000 + NEVER_AT), (0x20, 0x1000_0000 + NEVER_AT)):
        state.segments[DS].load(selector, 0, 0xFFFF_FFFF, 0xC093)
        cells.enter(False, False)
        assert words[DS] == at
    words.release()
    cells.close()
    codes.close()
    codes.memory.close()


def test_a_posted_port_that_is_known_reads_what_was_written_last(boot: Boot) -> None:
    machine = boot(f"""
        xor %ebx, %ebx; mov ${MANY}, %ecx
        1: mov %cl, %al; outb %al, $0x21; nop; nop; nop; xor %eax, %eax; inb $0x21, %al; nop; nop; nop
        cmp %cl, %al; jne 2f; inc %ebx
        2: dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} {DONE}""")
    machine.vcpu.set_port(0x21, posted=True, value=0)
    written: list[int] = []
    while True:
        found = machine.vcpu.run()
        if found.reason is Reason.EVENT:
            continue
        if found.number == 0xF4:
            break
        if found.number == 0x21 and found.write:
            written.append(found.value)
            machine.vcpu.set_port(0x21, posted=True, value=found.value)
        elif found.number == 0x21:
            found.value = written[-1]
        else:
            machine.printed += found.value.to_bytes(4, "little")
    assert printed(machine) == [MANY]
    assert written == [count & 0xFF for count in range(MANY, 0, -1)]
    assert machine.vcpu.evaluated < MANY


TWO_SPACES = """
    mov $0x201000, %edi; mov $0x107, %eax; mov $1024, %ecx  # global
    1: mov %eax, (%edi); mov %eax, 0x2000(%edi); add $4, %edi; add $0x1000, %eax; loop 1b
    movl $0x201007, 0x200000; movl $0x203007, 0x202000
    movl $0x310007, 0x201000 + 4 * 0x300; movl $0x311007, 0x203000 + 4 * 0x300  # not global, and not the same
    mov $0x200000, %eax; mov %eax, %cr3; mov $0x80, %eax; mov %eax, %cr4
    mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0
"""


def test_a_load_of_cr3_that_no_page_is_concerned_by_costs_nothing(boot: Boot) -> None:
    machine = boot(f"""
        {TWO_SPACES}
        mov ${MANY}, %ecx; mov $0x202000, %edx; xor %ebx, %ebx
        1: mov %edx, %cr3; nop; nop; xor $0x2000, %edx; mov %cr3, %eax; nop; nop; add %eax, %ebx
        dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [MANY // 2 * (0x200000 + 0x202000) & 0xFFFF_FFFF]
    assert machine.vcpu.evaluated < MANY // 4
    assert machine.state.cr3 == 0x200000


def test_after_a_patched_load_of_cr3_pages_are_those_of_the_new_one(boot: Boot) -> None:
    """For the guest's own accesses, and for the evaluator's (SMSW)."""
    machine = boot(f"""
        {TWO_SPACES}
        movl $1, 0x310000; movl $0x100, 0x311000
        mov ${MANY}, %ecx; mov $0x202000, %edx; xor %ebx, %ebx
        1: mov %edx, %cr3; nop; nop; test $7, %ecx; jnz 2f
        add 0x300000, %ebx
        2: test $3, %ecx; jnz 3f
        smsw 0x300010; incl 0x300014
        3: xor $0x2000, %edx; dec %ecx; jnz 1b
        mov %ebx, %eax; {PRINT_EAX} mov 0x310014, %eax; {PRINT_EAX} mov 0x311014, %eax; {PRINT_EAX}
        mov ${MANY}, %ecx; xor %ebx, %ebx
        1: mov %edx, %cr3; nop; nop; smsw 0x300020; mov %ecx, 0x300024; xor $0x2000, %edx; dec %ecx; jnz 1b
        mov 0x310024, %eax; {PRINT_EAX} mov 0x311024, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [MANY // 8 * 0x100, 0, MANY // 4, 1, 2]
    assert machine.vcpu.monitor.patches.made
