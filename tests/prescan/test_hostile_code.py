"""Any bytes in any state: the evaluator ends in the guest's own exceptions or says that it does not evaluate."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.prescan.instructions import instructions
from tests.prescan.machine import GDT_AT, Machine
from virtus.exits import Reason
from virtus.memory.guest_memory import GuestMemory
from virtus.vcpus.emulated_x86 import library
from virtus.vcpus.scanned import delivery, evaluating
from virtus.vcpus.scanned.cpu_state import (
    ATTRIBUTES,
    CR0_DEFINED,
    CR0_PE,
    CR0_PG,
    FLAGS_DEFINED,
    MASK32,
    REAL_MODE_CODE,
    REAL_MODE_DATA,
    VM,
    VM86_SEGMENT,
)
from virtus.vcpus.scanned.emulated_vcpu import EmulatedVcpu
from virtus.vcpus.scanned.faults import GuestFault, NotEvaluated, TripleFault
from virtus.vcpus.scanned.memory_access import PhysicalSpace
from virtus.vcpus.scanned.system import CR4_ALLOWED


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.close()


def scramble(machine: Machine, source: random.Random) -> None:
    """Any state that a guest can bring its processor into, and more."""
    state, ram = machine.state, machine.ram
    near = (0, 0, 1, 0x10, GDT_AT, 0x3FFFC, 0x40000, MASK32, MASK32 - 3)

    def word() -> int:
        return source.choice(near) if source.random() < 0.4 else source.getrandbits(32)

    state.registers[:] = [word() for _ in range(8)]
    state.eflags = source.getrandbits(32) & FLAGS_DEFINED | 2
    state.cr0 = source.getrandbits(32) & CR0_DEFINED
    if not state.cr0 & CR0_PE:
        state.cr0 &= ~CR0_PG
        state.eflags &= ~VM
    state.cr4 = source.getrandbits(12) & CR4_ALLOWED
    state.cr3 = source.choice((0x10000, 0x10000, word()))
    state.cpl = source.choice((0, 3)) if state.cr0 & CR0_PE else 0
    for number, segment in enumerate(state.segments):
        attributes = source.getrandbits(16) & ATTRIBUTES
        if source.random() < 0.6:
            attributes = 0xC0FB if number == 1 else 0xC0F3
        segment.load(
            source.getrandbits(16), source.choice((0, word())), source.choice((MASK32, 0xFFFF, word())), attributes
        )
        if state.eflags & VM or not state.cr0 & CR0_PE:
            kind = REAL_MODE_CODE if number == 1 else REAL_MODE_DATA
            segment.load(segment.selector, segment.selector << 4, 0xFFFF, VM86_SEGMENT if state.eflags & VM else kind)
    if state.eflags & VM:
        state.cpl = 3
    for table in (state.gdtr, state.idtr):
        table.base, table.limit = word(), source.getrandbits(16)
    for register in (state.ldtr, state.tr):
        register.load(source.getrandbits(16), word(), source.getrandbits(12), source.getrandbits(8))
    if source.random() < 0.8:  # where there is memory
        code = state.segments[1]
        code.load(0x100 if code.base else 0, 0x1000 if state.eflags & VM else 0, MASK32, code.attributes)
    state.eip = source.choice((0x1000, 0x1000, 0x1000, 0x1FFE, word()))
    ram.bytes[GDT_AT : GDT_AT + 0x1000] = source.randbytes(0x1000)
    if source.random() < 0.7:
        machine.set_word(0x10000, 0x11007)
        for index in range(64):
            machine.set_word(0x11000 + 4 * index, index << 12 | source.choice((0, 1, 3, 5, 7, 7, 7)))
    machine.memory.flush()


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.binary(min_size=1, max_size=15), instructions(32), st.binary(min_size=2, max_size=8).map(b"\x0f".__add__)
    ),
    st.integers(0, 1 << 32),
)
def test_instructions_end_in_the_guests_own_exceptions(machine: Machine, code: bytes, seed: int) -> None:
    scramble(machine, random.Random(seed))
    state = machine.state
    at = (state.segments[1].base + state.eip) % (machine.ram.size - 32)
    machine.load(code, at)
    for _ in range(3):
        before = state.eip
        try:
            machine.evaluator.step()
        except NotEvaluated:
            assert state.eip == before
            break
        except TripleFault:
            break
        except GuestFault as fault:
            assert state.eip == before or fault.vector in (10, 11, 12, 13), "only a task that was entered has moved on"
            try:
                delivery.deliver_fault(machine.evaluator.execution, fault)
            except TripleFault:
                break
        assert all(0 <= register <= MASK32 for register in state.registers)
        assert 0 <= state.eip <= MASK32 and 0 <= state.eflags <= MASK32 and state.cpl in (0, 1, 2, 3)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1 << 32), st.binary(min_size=1, max_size=64))
def test_a_whole_guest_of_any_bytes_only_comes_out(monkeypatch: pytest.MonkeyPatch, seed: int, code: bytes) -> None:
    monkeypatch.setattr(evaluating, "SLICE", 2000)
    if library.find() is None:
        pytest.skip("the package unicorn is not installed")
    source = random.Random(seed)
    ram = GuestMemory(1 << 20, "test")
    vcpu = EmulatedVcpu(PhysicalSpace(ram, (range(0xA0000, 0xC0000),)))
    ram.bytes[0x1000 : 0x1000 + len(code)] = code
    ram.bytes[0:0x400] = source.randbytes(0x400)
    segment = vcpu.state.segments[1]
    if source.random() < 0.5:
        segment.load(0, 0, MASK32, 0xC09B)
        vcpu.state.cr0 |= CR0_PE
    else:
        segment.load(0, 0, 0xFFFF, REAL_MODE_CODE)
    vcpu.state.eip = 0x1000
    vcpu.state.registers[:] = [source.getrandbits(20) for _ in range(8)]
    for _ in range(30):
        exit = vcpu.run()
        exit.value = source.getrandbits(32)
        if exit.reason in (Reason.ENDED, Reason.HALT, Reason.EVENT):
            break
    vcpu.close()
    ram.close()
