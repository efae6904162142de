"""What the manual says and other emulators do not check: limits, rights, privileges. Sections are of the Intel SDM."""

from collections.abc import Iterator

import pytest

from tests.prescan.machine import (
    CODE_AT,
    DATA_AT,
    FLAT_CODE,
    FLAT_DATA,
    GDT_AT,
    KERNEL_CODE,
    KERNEL_DATA,
    STACK_TOP,
    TASK,
    TSS_AT,
    USER_CODE,
    USER_DATA,
    Machine,
)
from virtus.host import timestamp
from virtus.vcpus.scanned import delivery, faults
from virtus.vcpus.scanned.cpu_state import (
    CR0_PE,
    CS,
    DS,
    EAX,
    ECX,
    EDX,
    ES,
    ESP,
    GS,
    ID,
    IF,
    IOPL,
    MASK32,
    NT,
    SS,
    VM,
    VM86_SEGMENT,
    ZF,
    CpuState,
)
from virtus.vcpus.scanned.faults import GuestFault, TripleFault

READ_DS = bytes.fromhex("a1")  # mov eax, [address]
WRITE_DS = bytes.fromhex("a3")
SELECTOR = 0x80


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine().with_tables()
    yield made
    made.close()


def fault_of(machine: Machine, code: bytes) -> tuple[int, int | None]:
    before = machine.state.eip = CODE_AT
    registers = list(machine.state.registers)
    with pytest.raises(GuestFault) as caught:
        machine.run(code)
    assert (machine.state.eip, machine.state.registers) == (before, registers), "a fault changes nothing"
    return caught.value.vector, caught.value.error_code


def address(value: int) -> bytes:
    return value.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("limit", "attributes", "offset", "inside"),
    [
        (0xFFF, 0x4093, 0xFFC, True),  # volume 3A, 5.3: the last byte counts
        (0xFFF, 0x4093, 0xFFD, False),
        (0xFFF, 0x4093, 0xFFFFFFFE, False),
        (0xFFF, 0x4097, 0x1000, True),  # expand-down: above the limit
        (0xFFF, 0x4097, 0xFFF, False),
        (0xFFF, 0x0097, 0xFFFC, True),  # and below 64 KiB where B is clear
        (0xFFF, 0x0097, 0xFFFD, False),
        (0, 0x4093, 0, False),
    ],
)
def test_segment_limits(machine: Machine, limit: int, attributes: int, offset: int, inside: bool) -> None:
    machine.state.segments[DS].load(SELECTOR, DATA_AT, limit, attributes)
    if inside:
        machine.run(READ_DS + address(offset))
    else:
        assert fault_of(machine, READ_DS + address(offset)) == (faults.GP, 0)


@pytest.mark.parametrize(
    ("attributes", "readable", "writable"),
    [(0xC091, True, False), (0xC093, True, True), (0xC09B, True, False), (0xC099, False, False), (0, False, False)],
)
def test_segment_rights(machine: Machine, attributes: int, readable: bool, writable: bool) -> None:
    """Volume 3A, 5.1 and 5.4.1; attributes 0 is a null selector."""
    for code, allowed in ((READ_DS, readable), (WRITE_DS, writable)):
        machine.state.eip = CODE_AT
        machine.state.segments[DS].load(SELECTOR, 0, MASK32, attributes)
        if allowed:
            machine.run(code + address(DATA_AT))
        else:
            assert fault_of(machine, code + address(DATA_AT)) == (faults.GP, 0)


def test_the_stack_has_a_fault_of_its_own(machine: Machine) -> None:
    machine.state.segments[SS].load(KERNEL_DATA, 0, STACK_TOP - 5, 0x4093)
    assert fault_of(machine, b"\x50") == (faults.SS, 0)
    assert fault_of(machine, bytes.fromhex("36a1") + address(STACK_TOP)) == (faults.SS, 0)


def test_code_beyond_its_limit(machine: Machine) -> None:
    machine.state.segments[CS].load(KERNEL_CODE, 0, CODE_AT + 3, 0x409B)
    assert fault_of(machine, bytes.fromhex("b811111111")) == (faults.GP, 0)
    assert fault_of(machine, bytes.fromhex("eb10")) == (faults.GP, 0)
    assert fault_of(machine, bytes.fromhex("e811110000")) == (faults.GP, 0)


def test_segments_of_4_gib_last_in_real_mode(machine: Machine) -> None:
    """Volume 3A, 9.9.2: the hidden part stays until it is loaded; in real mode a load changes the base alone."""
    state = machine.state
    state.cr0 &= ~CR0_PE
    state.segments[DS].load(8, 0, MASK32, FLAT_DATA)
    machine.set_word(0x20000, 0x1234)
    machine.run(bytes.fromhex("a1") + address(0x20000))
    assert state.registers[EAX] == 0x1234
    state.registers[EAX] = 0x1000
    state.eip = CODE_AT
    machine.run(bytes.fromhex("8ed8a1") + address(0x10000), 2)
    assert (state.segments[DS].base, state.segments[DS].limit) == (0x10000, MASK32)
    assert state.registers[EAX] == 0x1234


@pytest.mark.parametrize(
    "code",
    ["f4", "0f0138", "0f0110", "0f20c0", "0f22c0", "0f21c0", "0f23c0", "0f30", "0f32", "0f06", "0f09", "0f08",
     "0f00d0", "0f00d8", "0f01f0"],
)  # fmt: skip
def test_what_ring_3_may_not(machine: Machine, code: str) -> None:
    """Volume 3A, 5.9."""
    machine.to_user()
    machine.state.registers[EAX] = KERNEL_DATA
    machine.state.registers[ECX] = 0x10
    assert fault_of(machine, bytes.fromhex(code)) == (faults.GP, 0)


@pytest.mark.parametrize("code", ["0f00d0", "0f00c0", "0f00c8", "0f02c0", "0f03c0", "0f00e0", "63c0"])
def test_what_real_mode_does_not_know(machine: Machine, code: str) -> None:
    """Volume 3B, 20.1.3: instructions on selectors are #UD; so they are in virtual-8086 mode."""
    machine.state.cr0 &= ~CR0_PE
    assert fault_of(machine, bytes.fromhex(code)) == (faults.UD, None)


@pytest.mark.parametrize(("level", "cpl", "allowed"), [(0, 0, True), (0, 3, False), (2, 3, False), (3, 3, True)])
def test_the_io_privilege(machine: Machine, level: int, cpl: int, allowed: bool) -> None:
    """Volume 1, 19.5.1."""
    state = machine.state
    if cpl:
        machine.to_user()
    state.eflags |= level << 12
    machine.set_word(TSS_AT + 0x66, 0x68, 2)  # no map within the limit
    for code in ("fa", "fb", "e480", "e680", "6c", "6e"):
        state.eip, state.eflags = CODE_AT, state.eflags & ~IF
        state.registers[6] = state.registers[7] = DATA_AT
        if allowed:
            machine.run(bytes.fromhex(code))
        else:
            assert fault_of(machine, bytes.fromhex(code)) == (faults.GP, 0)


def test_popf_changes_what_the_privilege_allows(machine: Machine) -> None:
    """Volume 2B, POPF."""
    state = machine.state
    machine.to_user()
    state.eflags = 2 | IF
    machine.set_word(STACK_TOP, ID | IOPL | NT | 2)
    machine.run(b"\x9d")
    assert state.eflags == ID | NT | IF | 2
    state.cpl, state.eip, state.registers[ESP] = 0, CODE_AT, STACK_TOP
    machine.run(b"\x9d")
    assert state.eflags == ID | IOPL | NT | 2


def test_sti_and_loads_of_ss_hold_interrupts_for_one_instruction(machine: Machine) -> None:
    """Volume 3A, 6.8.3; a second STI does not hold them again."""
    state = machine.state
    state.registers[EAX] = KERNEL_DATA
    machine.load(bytes.fromhex("fb fb 90 8ed0 90 17"))
    shadows = []
    for _ in range(5):
        machine.evaluator.step()
        shadows.append(state.interruptible)
    assert shadows == [False, True, True, False, True]


@pytest.mark.parametrize(
    ("value", "number", "fault"),
    [(1 << 31, 0, True), (1 << 29 | 1, 0, True), (0x6000_0011, 0, False), (1 << 5, 4, True), (1 << 13, 4, True),
     (0x90, 4, False)],
)  # fmt: skip
def test_control_registers_refuse_what_makes_no_sense(machine: Machine, value: int, number: int, fault: bool) -> None:
    """Volume 3A, 2.5; PAE is not offered by CPUID, and so reserved."""
    machine.state.registers[EAX] = value
    code = bytes([0x0F, 0x22, 0xC0 | number << 3])
    if fault:
        assert fault_of(machine, code) == (faults.GP, 0)
    else:
        machine.run(code)


def test_debug_registers_4_and_5(machine: Machine) -> None:
    """Volume 3B, 17.2.2: aliases unless CR4.DE; 17.2.4: general detect."""
    state = machine.state
    machine.run(bytes.fromhex("0f21e0"))
    assert state.registers[EAX] == state.debug[6]
    state.cr4 |= 8
    assert fault_of(machine, bytes.fromhex("0f21e0")) == (faults.UD, None)
    state.debug[7] |= 0x2000
    assert fault_of(machine, bytes.fromhex("0f23c0")) == (faults.DB, None)
    machine.state.eip = CODE_AT
    machine.run(bytes.fromhex("0f23c0"))


def test_descriptor_tables_of_16_bit_operands_have_24_bits_of_base(machine: Machine) -> None:
    """Volume 2A, LGDT."""
    machine.load(bytes.fromhex("ff01 78563412"), DATA_AT)
    machine.run(bytes.fromhex("660f0115") + address(DATA_AT))
    assert (machine.state.gdtr.limit, machine.state.gdtr.base) == (0x1FF, 0x345678)
    machine.state.eip = CODE_AT
    machine.run(bytes.fromhex("0f0115") + address(DATA_AT))
    assert machine.state.gdtr.base == 0x12345678


def test_the_time_stamp_counter_goes_on_and_can_be_set(machine: Machine) -> None:
    state = machine.state
    state.registers[ECX], state.registers[EAX], state.registers[EDX] = 0x10, 0, 0x1000
    machine.run(bytes.fromhex("0f30 0f31"), 2)
    first = state.registers[EDX] << 32 | state.registers[EAX]
    assert 0x1000 << 32 <= first < 0x1001 << 32
    state.eip = CODE_AT + 2
    machine.evaluator.step()
    assert state.registers[EDX] << 32 | state.registers[EAX] > first
    machine.to_user()
    state.cr4 |= 4  # TSD
    assert fault_of(machine, bytes.fromhex("0f31")) == (faults.GP, 0)


def test_the_time_stamp_counter_is_adjusted_by_as_much_as_was_written(machine: Machine) -> None:
    """Volume 3B, 18.17.3."""
    state = machine.state
    state.registers[ECX], state.registers[EAX], state.registers[EDX] = 0x3B, 0xFFFF_FFF0, 0xFFFF_FFFF
    machine.run(bytes.fromhex("0f30 0f32"), 2)
    assert (state.registers[EAX], state.registers[EDX]) == (0xFFFF_FFF0, 0xFFFF_FFFF)
    before = timestamp.counter()()
    state.eip = CODE_AT
    machine.run(bytes.fromhex("0f31"))
    assert before - 16 <= (state.registers[EDX] << 32 | state.registers[EAX]) <= timestamp.counter()() - 16


def test_cpuid_tells_of_what_is_there(machine: Machine) -> None:
    machine.state.registers[EAX] = 1
    machine.run(bytes.fromhex("0fa2"))
    features = machine.state.registers[EDX]
    assert features >> 13 & 1, "PGE"
    assert not features >> 6 & 1, "no PAE"
    assert not features >> 9 & 1, "no APIC"


def test_double_and_triple_faults(machine: Machine) -> None:
    """Volume 3A, table 6-5: #GP on the way to #GP's handler is #DF, and on the way to that one the end."""
    entry = 0x2000
    machine.gate(faults.DF, 0xE, KERNEL_CODE, entry)
    delivery.deliver_fault(machine.evaluator.execution, GuestFault(faults.GP, 0x10))
    assert machine.state.eip == entry
    assert machine.word(machine.state.registers[ESP]) == 0, "the error code of #DF"
    machine.set_word(0xA000 + 8 * faults.DF + 4, 0)
    with pytest.raises(TripleFault):
        delivery.deliver_fault(machine.evaluator.execution, GuestFault(faults.GP, 0x10))


def test_a_benign_exception_is_followed_by_its_own_fault(machine: Machine) -> None:
    """#UD without a gate is #GP with the gate's number, from within (not external is what EXT tells)."""
    machine.gate(faults.GP, 0xE, KERNEL_CODE, 0x2000)
    delivery.deliver_fault(machine.evaluator.execution, GuestFault(faults.UD))
    assert machine.state.eip == 0x2000
    assert machine.word(machine.state.registers[ESP]) == faults.UD * 8 + 3


def test_an_interrupt_from_user_mode_goes_to_the_stack_of_the_task_and_iret_comes_back(machine: Machine) -> None:
    state = machine.to_user().state
    machine.gate(0x21, 0xE, KERNEL_CODE, 0x2000)
    state.eflags = 0x202
    state.halted = True
    delivery.deliver_interrupt(machine.evaluator.execution, 0x21)
    assert not state.halted and not state.eflags & IF
    assert (state.cpl, state.eip, state.segments[CS].selector) == (0, 0x2000, KERNEL_CODE)
    top = STACK_TOP - 0x1000
    frame = [machine.word(top - 4 * index) for index in range(1, 6)]
    assert frame == [USER_DATA, STACK_TOP, 0x202, USER_CODE, CODE_AT]
    machine.load(b"\xcf", 0x2000)
    machine.evaluator.step()
    assert (state.cpl, state.eip, state.registers[ESP], state.eflags) == (3, CODE_AT, STACK_TOP, 0x202)


def test_a_bad_stack_in_the_task_changes_nothing_but_the_fault(machine: Machine) -> None:
    """Volume 3A, 6.12.1.1: #TS with the stack's selector."""
    state = machine.to_user().state
    machine.gate(0x21, 0xE, KERNEL_CODE, 0x2000)
    machine.set_word(TSS_AT + 8, USER_DATA)
    before = state.describe()
    with pytest.raises(GuestFault) as caught:
        delivery.deliver(machine.evaluator.execution, 0x21, state.eip)
    assert (caught.value.vector, caught.value.error_code) == (faults.TS, USER_DATA & 0xFFFC | 1)
    assert state.describe() == before


def test_virtual_8086_mode_is_entered_by_iret_and_left_by_interrupts(machine: Machine) -> None:
    """Volume 3B, 20.2 and 20.3."""
    state = machine.state
    frame = [0x10, 0x2000, VM | 0x202, 0x7000, 0x3000, 0x10, 0x20, 0x30, 0x40]
    for index, value in enumerate(frame):
        machine.set_word(STACK_TOP - 0x100 + 4 * index, value)
    state.registers[ESP] = STACK_TOP - 0x100
    machine.run(b"\xcf")
    assert (state.cpl, state.virtual_8086, state.eip) == (3, True, 0x10)
    assert state.segments[GS].values() == (0x40, 0x400, 0xFFFF, VM86_SEGMENT)
    machine.gate(0x21, 0xE, KERNEL_CODE, 0x2000)
    delivery.deliver_interrupt(machine.evaluator.execution, 0x21)
    assert not state.virtual_8086 and state.cpl == 0
    assert state.segments[ES].attributes == 0, "data segments are null"
    top = STACK_TOP - 0x1000
    assert [machine.word(top - 4 * index) for index in range(1, 10)] == [
        0x40, 0x30, 0x20, 0x10, 0x3000, 0x7000, VM | 0x202, 0x2000, 0x10
    ]  # fmt: skip


def test_lar_and_lsl_see_what_the_privilege_allows(machine: Machine) -> None:
    """Volume 2A, LAR and LSL."""
    state = machine.to_user().state
    state.registers[ECX] = KERNEL_DATA | 3
    machine.run(bytes.fromhex("0f02c1"))
    assert not state.eflags & ZF
    machine.describe_segment(SELECTOR, 0, 0x12, FLAT_CODE & ~0x8000 | 0x64 | 0x40)
    state.registers[ECX], state.eip = SELECTOR | 3, CODE_AT
    machine.run(bytes.fromhex("0f03c1"))
    assert state.eflags & ZF and state.registers[EAX] == 0x12


def test_loading_marks_descriptors(machine: Machine) -> None:
    """Volume 3A, 3.4.5.1, the accessed bit; 7.2.2, the busy one."""
    machine.describe_segment(SELECTOR, 0, 0xFFFFF, FLAT_DATA & ~1)
    machine.state.registers[EAX] = SELECTOR
    machine.run(bytes.fromhex("8ec0"))
    assert machine.word(GDT_AT + SELECTOR + 4) >> 8 & 1
    machine.describe_segment(TASK, TSS_AT, 0x67, 0x89)
    machine.state.registers[EAX], machine.state.eip = TASK, CODE_AT
    machine.run(bytes.fromhex("0f00d8"))
    assert machine.word(GDT_AT + TASK + 4) >> 8 & 0xF == 0xB
    assert fault_of(machine, bytes.fromhex("0f00d8")) == (faults.GP, TASK)


def test_a_state_is_copied_and_described() -> None:
    state, other = CpuState(), CpuState()
    state.registers[EAX], state.eip, state.tsc_offset = 5, 7, 9
    state.segments[DS].load(1, 2, 3, 0x93)
    other.copy_from(state)
    assert other.describe() == state.describe()
    assert other.segments[DS].values() == (1, 2, 3, 0x93) and other.tsc_offset == 9
    state.set8(4, 0x12)
    state.set16(1, 0x3456)
    assert (state.get8(4), state.get8(0), state.get16(1), state.registers[EAX]) == (0x12, 5, 0x3456, 0x1205)
