"""The translator as a vCPU: guests written by hand, whose exits the test answers itself."""

import signal
from collections.abc import Iterator

import pytest

from tests.translator.encode import (
    A0,
    A1,
    A7,
    EBREAK,
    ECALL,
    FENCE_I,
    ILLEGAL,
    RA,
    RET,
    S0,
    SP,
    T0,
    T1,
    ZERO,
    add,
    addi,
    branch,
    code,
    jal,
    jalr,
    load,
    lui,
    store,
)
from virtus.exits import Exit, Reason
from virtus.isa.riscv64 import RISCV64
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.context import TranslatedContext
from virtus.vcpus.translator.vcpu import CallConvention, TranslatorVcpu

CODE, DATA, STACK = 0x10000, 0x20000, 0x40000
ANONYMOUS_FIXED = 0x32
NO_SYSCALL = 2**64 - 1


@pytest.fixture
def vcpu() -> Iterator[TranslatorVcpu]:
    made = TranslatorVcpu(RISCV64, CallConvention(number=17, first=10))
    yield made
    made.close()


def guest(vcpu: TranslatorVcpu, *words: int) -> TranslatedContext:
    """A context with these instructions at CODE, and memory at DATA and below STACK."""
    context = vcpu.boot()
    for start, protection in ((CODE, 7), (DATA, 3), (STACK - 0x10000, 3)):
        assert context.inject(NUMBERS["mmap"], start, 0x10000, protection, ANONYMOUS_FIXED, -1, 0) == start
    context.write(CODE, code(*words))
    context.regs[SP], context.regs[layout.PC] = STACK, CODE
    return context


def run(vcpu: TranslatorVcpu, context: TranslatedContext) -> Exit:
    context.regs[layout.SYSCALL_NUMBER] = NO_SYSCALL
    context.resume()
    return vcpu.run()


def test_a_system_call_comes_out_with_its_number_and_goes_on_after_it(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, addi(A7, ZERO, 64), addi(A0, ZERO, 5), ECALL, addi(A1, A0, 1), ECALL)
    exit = run(vcpu, context)
    assert (exit.reason, exit.number) == (Reason.SYSCALL, 64)
    assert context.regs[layout.PC] == CODE + 12
    assert context.regs[layout.SYSCALL_FIRST] == 5
    context.regs[A0] = 41
    run(vcpu, context)
    assert context.regs[A1] == 42


def test_a_loop_that_runs_hot_gives_what_it_should(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, lui(T0, 1 << 16), addi(T0, T0, -1), addi(A0, A0, 3), branch(T0, ZERO, -8), ECALL)
    run(vcpu, context)
    assert context.regs[A0] == 3 << 16


def test_calls_return_and_a_return_elsewhere_unwinds(vcpu: TranslatorVcpu) -> None:
    function = 10 * 4
    context = guest(
        vcpu,
        jal(RA, function),  # comes back
        addi(A0, A0, 1),
        jal(RA, function + 8 - 8),  # goes to what changes its return address
        addi(A0, A0, 100),  # skipped
        addi(A0, A0, 2),
        ECALL,
        0, 0, 0, 0,
        RET,
        0,
        addi(RA, RA, 4),
        RET,
    )  # fmt: skip
    context.write(CODE + 8, code(jal(RA, 12 * 4 - 8)))
    run(vcpu, context)
    assert context.regs[A0] == 3


@pytest.mark.slow
def test_recursion_deeper_than_the_host_s_stack(vcpu: TranslatorVcpu) -> None:
    depth, stack = 1100 << 12, 0x1000_0000  # a level takes at least 16 bytes of the host's stack
    context = guest(
        vcpu,
        lui(A0, depth),
        jal(RA, 8),
        ECALL,
        branch(A0, ZERO, 8),
        RET,
        addi(SP, SP, -16),
        store(RA, SP),
        addi(A0, A0, -1),
        jal(RA, -5 * 4),
        load(RA, SP),
        addi(SP, SP, 16),
        addi(A1, A1, 1),
        RET,
    )
    assert depth * 16 > layout.STACK_BYTES
    context.inject(NUMBERS["mmap"], stack, depth * 16, 3, ANONYMOUS_FIXED, -1, 0)
    context.regs[SP] = stack + depth * 16
    assert run(vcpu, context).reason is Reason.SYSCALL
    assert context.regs[A1] == depth
    assert context.regs[SP] == stack + depth * 16


def test_a_fault_is_exact(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, addi(A0, ZERO, 7), addi(A1, ZERO, 9), load(A1, A0, 0), addi(A0, ZERO, 1))
    exit = run(vcpu, context)
    assert (exit.reason, exit.number) == (Reason.SIGNAL, signal.SIGSEGV)
    assert context.regs[layout.PC] == CODE + 8
    assert (context.regs[A0], context.regs[A1]) == (7, 9)
    assert int.from_bytes(context.fault()[16:24], "little") == 7


@pytest.mark.parametrize(("word", "number"), [(ILLEGAL, signal.SIGILL), (EBREAK, signal.SIGTRAP)])
def test_a_trap_is_at_its_own_address(vcpu: TranslatorVcpu, word: int, number: int) -> None:
    context = guest(vcpu, addi(A0, ZERO, 7), word)
    exit = run(vcpu, context)
    assert (exit.reason, exit.number) == (Reason.SIGNAL, number)
    assert context.regs[layout.PC] == CODE + 4
    assert context.regs[A0] == 7


@pytest.mark.parametrize("target", [0x1000, DATA, layout.GUEST_END, layout.CODE, layout.STATES, 2**64 - 2])
def test_a_jump_to_what_is_no_code_is_a_fault_there(vcpu: TranslatorVcpu, target: int) -> None:
    context = guest(vcpu, jalr(ZERO, T0))
    context.regs[T0] = target
    exit = run(vcpu, context)
    assert (exit.reason, exit.number) == (Reason.SIGNAL, signal.SIGSEGV)
    assert context.regs[layout.PC] == target


def test_code_that_changes_is_seen_after_a_fence(vcpu: TranslatorVcpu) -> None:
    patched = CODE + 6 * 4
    context = guest(
        vcpu,
        jal(RA, 6 * 4),
        store(T1, T0, 0, 4),
        FENCE_I,
        jal(RA, 3 * 4),
        ECALL,
        0,
        addi(A0, A0, 1),
        RET,
    )
    context.regs[T0], context.regs[T1] = patched, addi(A0, A0, 50)
    run(vcpu, context)
    assert context.regs[A0] == 51


def test_unmapped_code_is_forgotten(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, addi(A0, A0, 1), ECALL)
    run(vcpu, context)
    context.inject(NUMBERS["munmap"], CODE, 0x10000)
    context.regs[layout.PC] = CODE
    exit = run(vcpu, context)
    assert (exit.reason, exit.number) == (Reason.SIGNAL, signal.SIGSEGV)
    assert context.regs[A0] == 1


def test_a_thread_that_loops_can_be_had_out(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, addi(A0, A0, 1), jal(ZERO, -4))
    context.resume()
    context.kick()
    exit = vcpu.run()
    assert (exit.reason, exit.number) == (Reason.SIGNAL, 0)
    assert context.regs[layout.PC] in (CODE, CODE + 4)


def test_a_fork_has_memory_and_registers_of_its_own(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, ECALL, store(A0, T0), load(A1, T0), ECALL)
    context.regs[T0] = DATA
    run(vcpu, context)
    child = context.fork(share_memory=False)
    for which, value in ((context, 1), (child, 2)):
        which.regs[A0] = value
        run(vcpu, which)
    assert (context.regs[A1], child.regs[A1]) == (1, 2)
    assert context.read(DATA, 1) == b"\1"
    assert child.read(DATA, 1) == b"\2"


def test_a_thread_shares_memory_and_not_registers(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, ECALL, store(A0, T0), addi(A1, A0, 1), ECALL)
    context.regs[T0] = DATA
    run(vcpu, context)
    thread = context.fork(share_memory=True)
    thread.regs[A0], thread.regs[T0] = 2, DATA + 8
    context.regs[A0] = 1
    for which in (context, thread):
        which.regs[layout.SYSCALL_NUMBER] = NO_SYSCALL
        which.resume()
    for _ in range(2):
        assert vcpu.run().reason is Reason.SYSCALL
    assert (context.regs[A1], thread.regs[A1]) == (2, 3)
    assert context.read(DATA, 16) == (1).to_bytes(8, "little") + (2).to_bytes(8, "little")


def test_an_emptied_context_knows_nothing_of_its_program(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, addi(A0, A0, 1), ECALL)
    run(vcpu, context)
    context.empty()
    assert list(context.regs[:64]) == [0] * 64
    context.regs[layout.PC] = CODE
    assert run(vcpu, context).number == signal.SIGSEGV


def test_the_machine_s_own_memory_is_not_a_guest_s_to_name(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, ECALL)
    for address in (layout.STATES, layout.TABLE, layout.CODE, layout.GUEST_END - 4):
        with pytest.raises(OSError):
            context.read(address, 8)
        with pytest.raises(OSError):
            context.write(address, bytes(8))


def test_guests_cannot_write_translated_code(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, store(T1, T0))
    context.regs[T0] = layout.CODE
    exit = run(vcpu, context)
    assert (exit.reason, exit.number) == (Reason.SIGNAL, signal.SIGSEGV)
    assert context.regs[layout.PC] == CODE


def test_a_constant_survives_an_address_that_needs_it(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, lui(T0, DATA), addi(T1, ZERO, 5), store(T1, T0, 8), load(A0, T0, 8), add(S0, A0, T0), ECALL)
    run(vcpu, context)
    assert context.regs[A0] == 5
    assert context.regs[S0] == DATA + 5


def test_a_misaligned_atomic_is_an_error_of_the_bus(vcpu: TranslatorVcpu) -> None:
    swap = 1 << 27 | A0 << 20 | T0 << 15 | 3 << 12 | A1 << 7 | 0x2F  # amoswap.d a1, a0, (t0)
    context = guest(vcpu, swap)
    context.regs[T0] = DATA + 1
    exit = run(vcpu, context)
    assert (exit.reason, exit.number) == (Reason.SIGNAL, signal.SIGBUS)
    assert context.fault()[8:12] == (1).to_bytes(4, "little")
    assert int.from_bytes(context.fault()[16:24], "little") == DATA + 1
