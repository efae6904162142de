"""Direct execution: what traps is evaluated, code changes are seen, users stay users, and nobody reaches the host."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.prescan.machines import DONE, PRINT_EAX, Boot, assemble, needs_assembler, printed
from virtus.errors import MachineBroken
from virtus.exits import Reason
from virtus.host import timestamp
from virtus.memory.guest_memory import GuestMemory
from virtus.vcpus.scanned import cpu_state
from virtus.vcpus.scanned.child import Children
from virtus.vcpus.scanned.memory_access import PhysicalSpace
from virtus.vcpus.scanned.vcpu import ScannedVcpu

pytestmark = needs_assembler


def test_the_interrupt_flag_is_virtual_and_silent_instructions_are_caught(boot: Boot) -> None:
    machine = boot(f"""
        cli; pushf; pop %eax; and $0x200, %eax; {PRINT_EAX}
        push $0x202; popf; pushf; pop %eax; and $0x200, %eax; {PRINT_EAX}
        mov %cs, %eax; {PRINT_EAX} push %ds; pop %eax; {PRINT_EAX}
        smsw %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [0, 0x200, 8, 16, 0x31]
    assert machine.vcpu.monitor.scanner.planted >= 6


def test_most_instructions_run_directly(boot: Boot) -> None:
    machine = boot(f"mov $1000000, %ecx; xor %eax, %eax; 1: add %ecx, %eax; dec %ecx; jnz 1b; {PRINT_EAX} {DONE}")
    machine.run()
    assert printed(machine) == [sum(range(1000001)) & 0xFFFF_FFFF]
    assert machine.vcpu.evaluated < 20


def test_a_scan_goes_along_both_sides_of_a_branch_up_to_its_depth(boot: Boot) -> None:
    chain = "\n".join(f"jz l{number}\n nop\n l{number}: nop" for number in range(8))
    far = "\n".join(f"jmp a{number}\n .skip 5\n a{number}: nop" for number in range(10))
    shallow, deep = boot(f"{chain}\n{far}\n{DONE}", 2), boot(f"{chain}\n{far}\n{DONE}", 30)
    for machine in (shallow, deep):
        assert machine.run().number == 0xF4
    assert shallow.vcpu.monitor.scanner.deepest == 2
    assert deep.vcpu.monitor.scanner.deepest > 2
    assert deep.vcpu.monitor.scanner.scans <= shallow.vcpu.monitor.scanner.scans


def test_code_that_changes_is_scanned_anew(boot: Boot) -> None:
    machine = boot(f"""
        mov $3, %ebx
        1: call patched
        {PRINT_EAX}
        incb patched + 1
        dec %ebx; jnz 1b
        movb $0x9C, patched; movb $0x58, patched + 1; movb $0xC3, patched + 2
        sti; call patched; and $0x200, %eax; {PRINT_EAX} {DONE}
        .align 64
        patched: mov $7, %eax; ret""")
    machine.run()
    assert printed(machine) == [7, 8, 9, 0x200]
    assert machine.vcpu.codes.dropped


def test_a_jump_into_the_middle_of_an_instruction(boot: Boot) -> None:
    machine = boot(f"""
        mov $0x9C, %ecx
        1: mov $0x90C3589C, %eax     # its bytes: pushf; pop %eax; ret
        cmp $0x90C3589C, %eax; jne 2f
        cli; call 1b + 1
        and $0x200, %eax; {PRINT_EAX}
        sti; call 1b + 1; and $0x200, %eax
        2: {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [0, 0x200]


def test_instructions_that_straddle_pages(boot: Boot) -> None:
    machine = boot(f"""
        mov $1000, %ecx; jmp 1f
        .org 0xFFE
        1: mov $0x12345678, %eax
        loop 1b
        {PRINT_EAX} jmp 2f
        .org 0x1FFF
        2: pushl $0x202; popf; jmp 3f
        .org 0x2FFF
        3: .byte 0x0F, 0x01, 0xE0     # smsw %eax
        {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [0x12345678, 0x31]
    assert machine.vcpu.evaluated < 50


def test_faults_have_the_guests_own_eip(boot: Boot) -> None:
    machine = boot(
        f"""
        lidt idt_register
        lgdt gdt_register
        1: div %ecx
        2: ud2
        3: mov $0xF0000000, %ebx; mov %cs:(%ebx), %eax; {DONE}
        divide: pop %eax; sub $1b, %eax; {PRINT_EAX} push $2b; iretframe: pushf; pop %eax
            pop %ebx; add $4, %esp; popf; jmp *%ebx
        invalid: pop %eax; sub $2b, %eax; {PRINT_EAX} {DONE}
        .align 8
        gdt: .quad 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF
        gdt_register: .word 23; .long gdt
        idt_register: .word 63; .long idt
        .align 8
        idt: .long 0x80000 + divide - 0x10000, 0x18E00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
             .long 0x80000 + invalid - 0x10000, 0x18E00, 0, 0""".replace("iretframe:", "")
    )
    machine.state.registers[1] = 0
    machine.run()
    assert printed(machine) == [0, 0]


def test_a_triple_fault_ends_the_guest_alone(boot: Boot) -> None:
    machine = boot("lidt none; ud2; none: .word 0; .long 0")
    assert machine.run().reason is Reason.ENDED
    assert machine.vcpu.run().reason is Reason.ENDED


ESCAPES = {
    "far jump": "ljmp $0x33, $2f",
    "far jump through memory": "movl $2f, 0x8000; movw $0x33, 0x8004; ljmp *0x8000",
    "far return": "push $0x33; push $2f; lret",
    "interrupt return": "pushf; push $0x33; push $2f; iret",
    "far call": "lcall $0x33, $2f",
}


@pytest.mark.parametrize("way", list(ESCAPES))
def test_a_guest_does_not_get_into_64_bit_code(boot: Boot, way: str) -> None:
    """Selector 0x33 is the host's 64-bit code: here it is beyond the guest's table."""
    machine = boot(f"""
        lgdt gdt_register
        {ESCAPES[way]}
        2: mov $60, %eax; .byte 0x0F, 0x05; hlt
        .align 8
        gdt: .quad 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF
        gdt_register: .word 23; .long gdt""")
    assert machine.run().reason is Reason.ENDED
    assert machine.vcpu.monitor.counts["escapes to 64-bit code"] == 0


HIDDEN = {  # behind bytes that are only scanned as something else
    "int 0x80": ".byte 0xCD, 0x80",
    "syscall": ".byte 0x0F, 0x05",
    "sysenter": ".byte 0x0F, 0x34",
    "64-bit syscall": "ljmp $0x33, $2f; 2: .byte 0x0F, 0x05",
}


@pytest.mark.parametrize("call", list(HIDDEN))
def test_a_call_of_the_host_is_none_even_where_no_scan_has_seen_it(tmp_path: Path, call: str) -> None:
    """The bytes run unscanned in a child, as the worst guest could have it: exit(2) of the host must not happen."""
    code = assemble(f"mov $60, %eax; mov $1, %ebx; {HIDDEN[call]}; nop; int3", tmp_path)
    memory, copies = GuestMemory(1 << 20), GuestMemory(1 << 20)
    memory.bytes[: len(code)] = code
    children = Children(memory.fd, copies.fd)
    child = children.fresh()
    try:
        assert child.map(0x10000, 0x10000, 7, 3, 0)
        child.regs[16] = 0x10000
        stopped = child.go()
        assert stopped in (0x85, signal.SIGSEGV, signal.SIGILL)  # a call that was not executed, or a fault
        assert child.inject("munmap", 0x10000, 0x10000) == 0  # it lives
    finally:
        child.kill()
        children.close()
        memory.close()
        copies.close()


@pytest.mark.parametrize(
    ("call", "arguments"), [("getpid", ()), ("openat", (0, 0)), ("mmap", (1 << 40, 4096)), ("write", (1, 0, 0))]
)
def test_the_filter_kills_a_child_for_any_other_call(call: str, arguments: tuple[int, ...]) -> None:
    memory = GuestMemory(1 << 20)
    children = Children(memory.fd, memory.fd)
    child = children.fresh()
    try:
        with pytest.raises(MachineBroken, match="ended with status"):
            child.inject(call, *arguments)
    finally:
        child.kill()
        children.close()
        memory.close()


def test_a_child_that_is_killed_is_an_error_in_a_line(boot: Boot) -> None:
    machine = boot("1: jmp 1b")
    os.kill(machine.vcpu.monitor.spaces.supervisor.child.tid, signal.SIGKILL)
    with pytest.raises(MachineBroken, match="running the guest"):
        machine.run()


@pytest.mark.slow
def test_nothing_is_left_when_the_monitor_is_killed(tmp_path: Path) -> None:
    code = assemble("1: jmp 1b", tmp_path)
    program = (
        "import sys\nfrom tests.prescan.machines import TestMachine\n"
        f"machine = TestMachine({code!r})\n"
        "print(machine.vcpu.monitor.spaces.supervisor.child.tid, flush=True)\nmachine.run(60)\n"
    )
    root = Path(__file__).parents[2]
    monitor = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root)
    assert monitor.stdout is not None
    try:
        child = int(monitor.stdout.readline())
    finally:
        monitor.kill()
        monitor.wait()
        monitor.stdout.close()
    limit = time.monotonic() + 10
    while _lives(child):
        assert time.monotonic() < limit, "the guest's process lives on"
        time.sleep(0.01)


def _lives(tid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{tid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_kick_brings_the_guest_out(boot: Boot) -> None:
    machine = boot("1: jmp 1b")
    machine.vcpu.kick()
    assert machine.vcpu.run().reason is Reason.EVENT
    assert machine.vcpu.run().reason is Reason.EVENT  # by its tick


@pytest.mark.skipif(not timestamp.invariant(), reason="this processor's time stamp counter is not invariant")
def test_the_time_stamp_counter_is_read_directly_until_it_is_set(boot: Boot) -> None:
    count = "mov $1000, %esi; 1: rdtsc; dec %esi; jnz 1b;"
    machine = boot(f"{count} mov $0x10, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr; rdtsc; mov %edx, %eax; {DONE}")
    before = timestamp.counter()()
    machine.run()
    assert machine.vcpu.evaluated < 20
    assert 0 <= machine.state.registers[0] <= timestamp.counter()() - before >> 32, "it counts from 0 again"
    assert machine.state.tsc_offset < 0


def test_an_instruction_over_two_pages_is_scanned_once_its_second_page_was_used(boot: Boot) -> None:
    """The next page's entry is not marked accessed at first: the evaluator marks it, and the scan goes on."""
    machine = boot(f"""
        mov $0x201000, %edi; mov $0x7, %eax; mov $1024, %ecx
        1: mov %eax, (%edi); add $4, %edi; add $0x1000, %eax; loop 1b
        movl $0x201007, 0x200000; mov $0x200000, %eax; mov %eax, %cr3
        mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0
        mov $500, %ecx; jmp 1f
        .org 0xFFE
        1: mov $0x12345678, %eax
        loop 1b
        {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [0x12345678]
    assert machine.vcpu.evaluated < 100


def test_real_mode_code_that_keeps_the_evaluator_busy_comes_out_as_well() -> None:
    """An endless loop of INT never uses up a batch of emulation; who looks after the devices must have a turn."""
    memory = GuestMemory(1 << 20)
    vcpu = ScannedVcpu(PhysicalSpace(memory))
    try:
        memory.bytes[0x80:0x84] = b"\x00\x06\x00\x00"  # vector 20h: 0000:0600, an IRET
        memory.bytes[0x600] = 0xCF
        memory.bytes[0x700:0x704] = b"\xcd\x20\xeb\xfc"
        vcpu.state.segments[cpu_state.CS].load(0, 0, 0xFFFF, vcpu.state.segments[cpu_state.CS].attributes)
        vcpu.state.eip, vcpu.state.registers[cpu_state.ESP] = 0x700, 0x500
        for _ in range(3):
            assert vcpu.run().reason is Reason.EVENT
        assert vcpu.evaluated > 1
    finally:
        vcpu.close()
        memory.close()
