"""The interpreter as a vCPU: guests written by hand, whose exits the test answers itself."""

import errno
import os
import select
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
    T0,
    T1,
    ZERO,
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
from virtus.vcpus.foreign import CallConvention
from virtus.vcpus.interpreter.context import InterpretedContext
from virtus.vcpus.interpreter.vcpu import QUANTUM, InterpreterVcpu
from virtus.vcpus.interpreter.watched import Watchpoint
from virtus.vcpus.translator import layout

CODE, DATA, READ_ONLY = 0x10000, 0x20000, 0x50000
ANONYMOUS_FIXED = 0x32
NO_SYSCALL = 2**64 - 1
MAPERR, ACCERR, ADRALN, ADRERR = 1, 2, 1, 2
LR_W = 0x1005252F  # lr.w a0, (a0)


@pytest.fixture
def vcpu() -> Iterator[InterpreterVcpu]:
    made = InterpreterVcpu(RISCV64, CallConvention(number=17, first=10))
    yield made
    made.close()


def guest(vcpu: InterpreterVcpu, *words: int) -> InterpretedContext:
    """A context with these instructions at CODE, and memory at DATA and READ_ONLY."""
    context = vcpu.boot()
    for start, protection in ((CODE, 7), (DATA, 3), (READ_ONLY, 1)):
        assert context.inject(NUMBERS["mmap"], start, 0x10000, protection, ANONYMOUS_FIXED, -1, 0) == start
    context.write(CODE, code(*words))
    context.regs[layout.PC] = CODE
    return context


def run(vcpu: InterpreterVcpu, context: InterpretedContext) -> Exit:
    context.regs[layout.SYSCALL_NUMBER] = NO_SYSCALL
    context.resume()
    return vcpu.run()


def fault_of(context: InterpretedContext) -> tuple[int, int]:
    """si_code and si_addr."""
    info = context.fault()
    assert len(info) == 128
    return int.from_bytes(info[8:12], "little"), int.from_bytes(info[16:24], "little")


def test_a_system_call_comes_out_with_its_number_and_goes_on_after_it(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, addi(A7, ZERO, 64), addi(A0, ZERO, 5), ECALL, addi(A1, A0, 1), ECALL)
    exit = run(vcpu, context)
    assert (exit.reason, exit.number, exit.context) == (Reason.SYSCALL, 64, context)
    assert context.regs[layout.PC] == CODE + 12
    assert (context.regs[layout.SYSCALL_FIRST], context.regs[layout.SYSCALL_NUMBER]) == (5, 64)
    context.regs[A0] = 41
    run(vcpu, context)
    assert context.regs[A1] == 42


def test_a_loop_that_is_compiled_gives_what_it_should(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, lui(T0, 1 << 14), addi(T0, T0, -1), addi(A0, A0, 3), branch(T0, ZERO, -8), ECALL)
    assert run(vcpu, context).reason is Reason.SYSCALL
    assert context.regs[A0] == 3 << 14
    assert vcpu.figures() == {"instructions interpreted": (3 << 14) + 2}


def test_what_is_stored_is_there_when_it_comes_out_and_what_changes_then_is_seen(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, store(A0, T0), ECALL, load(A1, T0), ECALL)
    context.regs[T0], context.regs[A0] = DATA, 7
    run(vcpu, context)
    assert context.read(DATA, 8) == (7).to_bytes(8, "little")
    context.write(DATA, b"\x09")
    run(vcpu, context)
    assert context.regs[A1] == 9


@pytest.mark.parametrize(
    ("address", "store_", "code_"),
    [
        (0, False, MAPERR),
        (0, True, MAPERR),
        (READ_ONLY, True, ACCERR),
        (READ_ONLY + 8, True, ACCERR),
        (layout.GUEST_END, True, MAPERR),
        (2**64 - 8, False, MAPERR),
    ],
)
def test_a_fault_is_exact(vcpu: InterpreterVcpu, address: int, store_: bool, code_: int) -> None:
    access = store(A1, T0) if store_ else load(A1, T0)
    context = guest(vcpu, addi(A0, ZERO, 7), addi(A1, ZERO, 9), access, addi(A0, ZERO, 1))
    context.regs[T0] = address
    exit = run(vcpu, context)
    assert (exit.reason, exit.number) == (Reason.SIGNAL, signal.SIGSEGV)
    assert context.regs[layout.PC] == CODE + 8
    assert (context.regs[A0], context.regs[A1]) == (7, 9)
    assert fault_of(context) == (code_, address)


def test_memory_without_access_is_there_all_the_same(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, load(A1, T0))
    context.inject(NUMBERS["mprotect"], DATA, 0x1000, 0)
    context.regs[T0] = DATA
    assert run(vcpu, context).number == signal.SIGSEGV
    assert fault_of(context) == (ACCERR, DATA)


@pytest.mark.parametrize("access", [load(A1, T0), store(A1, T0)])
def test_beyond_a_file_s_end_is_an_error_of_the_bus(vcpu: InterpreterVcpu, access: int) -> None:
    context = guest(vcpu, access)
    descriptor = os.memfd_create("short")
    assert context.inject(NUMBERS["mmap"], DATA, 0x1000, 3, 0x11, descriptor, 0) == DATA
    os.close(descriptor)
    context.regs[T0] = DATA
    if context.inject(NUMBERS["madvise"], CODE, 0x1000, 22) == -errno.EINVAL:
        pytest.skip("the host cannot tell (MADV_POPULATE_READ, Linux 5.14)")
    assert run(vcpu, context).number == signal.SIGBUS
    assert fault_of(context) == (ADRERR, DATA)


def test_an_atomic_access_that_is_not_aligned(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, LR_W)
    context.regs[A0] = DATA + 2
    assert run(vcpu, context).number == signal.SIGBUS
    assert fault_of(context) == (ADRALN, DATA + 2)


@pytest.mark.parametrize(("word", "number"), [(ILLEGAL, signal.SIGILL), (EBREAK, signal.SIGTRAP)])
def test_a_trap_is_at_its_own_address(vcpu: InterpreterVcpu, word: int, number: int) -> None:
    context = guest(vcpu, addi(A0, ZERO, 7), word)
    exit = run(vcpu, context)
    assert (exit.reason, exit.number) == (Reason.SIGNAL, number)
    assert context.regs[layout.PC] == CODE + 4
    assert fault_of(context) == (1, CODE + 4)
    assert context.debugging.halt is None


@pytest.mark.parametrize(
    ("target", "code_"), [(0x1000, MAPERR), (DATA, ACCERR), (layout.GUEST_END, MAPERR), (2**64 - 2, MAPERR)]
)
def test_a_jump_to_what_is_no_code_is_a_fault_there(vcpu: InterpreterVcpu, target: int, code_: int) -> None:
    context = guest(vcpu, jalr(ZERO, T0))
    context.regs[T0] = target
    exit = run(vcpu, context)
    assert (exit.reason, exit.number) == (Reason.SIGNAL, signal.SIGSEGV)
    assert context.regs[layout.PC] == target
    assert fault_of(context) == (code_, target)


def test_code_that_changes_is_seen_after_a_fence(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, jal(RA, 6 * 4), store(T1, T0, 0, 4), FENCE_I, jal(RA, 3 * 4), ECALL, 0, addi(A0, A0, 1), RET)
    context.regs[T0], context.regs[T1] = CODE + 6 * 4, addi(A0, A0, 50)
    run(vcpu, context)
    assert context.regs[A0] == 51


def test_unmapped_code_is_forgotten(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, addi(A0, A0, 1), ECALL)
    run(vcpu, context)
    context.inject(NUMBERS["munmap"], CODE, 0x10000)
    context.regs[layout.PC] = CODE
    assert run(vcpu, context).number == signal.SIGSEGV
    assert context.regs[A0] == 1


def test_a_thread_that_loops_can_be_had_out_and_killed(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, addi(A0, A0, 1), jal(ZERO, -4))
    context.kick()  # stopped: no more than harmless
    context.resume()
    context.kick()
    exit = vcpu.run()
    assert (exit.reason, exit.number) == (Reason.SIGNAL, 0)
    context.resume()
    context.kill()
    exit = vcpu.run()
    assert (exit.reason, exit.number, exit.context) == (Reason.ENDED, signal.SIGKILL, context)
    assert not os.path.exists(f"/proc/{context.ident}")
    context.kill()


def test_a_stub_killed_from_outside_is_the_context_s_end(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, load(A1, T0), ECALL)
    context.regs[T0] = DATA
    os.kill(context.ident, signal.SIGKILL)
    os.waitid(os.P_PID, context.ident, os.WEXITED | os.WNOWAIT)
    exit = run(vcpu, context)
    assert (exit.reason, exit.number, exit.context) == (Reason.ENDED, signal.SIGKILL, context)


def test_a_fork_has_memory_and_registers_of_its_own(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, ECALL, store(A0, T0), load(A1, T0), ECALL)
    context.regs[T0] = DATA
    run(vcpu, context)
    child = context.fork(share_memory=False)
    for which, value in ((context, 1), (child, 2)):
        which.regs[A0] = value
        run(vcpu, which)
    assert (context.regs[A1], child.regs[A1]) == (1, 2)
    assert (context.read(DATA, 1), child.read(DATA, 1)) == (b"\1", b"\2")


def test_threads_share_memory_and_take_turns(vcpu: InterpreterVcpu) -> None:
    """One waits, busily, for what the other stores."""
    context = guest(vcpu, ECALL, load(A1, T0), branch(A1, A0, -4), ECALL, 0, 0, store(A0, T0), ECALL)
    context.regs[T0], context.regs[A0] = DATA, 1
    run(vcpu, context)
    thread = context.fork(share_memory=True)
    thread.regs[layout.PC] = CODE + 6 * 4
    for which in (context, thread):
        which.resume()
    assert {vcpu.run().context, vcpu.run().context} == {context, thread}
    assert context.regs[A1] == 1
    assert vcpu.executed > QUANTUM


def test_an_emptied_context_knows_nothing_of_its_program(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, addi(A0, A0, 1), ECALL)
    run(vcpu, context)
    context.empty()
    assert list(context.regs[:64]) == [0] * 64
    context.regs[layout.PC] = CODE
    assert run(vcpu, context).number == signal.SIGSEGV


def test_the_machine_s_own_memory_is_not_a_guest_s_to_name(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, ECALL)
    for address in (layout.GUEST_END - 4, layout.GUEST_END, 2**64 - 4):
        with pytest.raises(OSError):
            context.read(address, 8)
        with pytest.raises(OSError):
            context.write(address, bytes(8))
        assert context.read_partial(address, 8) == b""


def test_host_readiness_comes_out_while_a_guest_runs_and_while_none_does(vcpu: InterpreterVcpu) -> None:
    epoll = select.epoll()
    out, in_ = os.pipe()
    epoll.register(out, select.EPOLLIN)
    vcpu.watch(epoll)
    os.write(in_, b"1")
    assert vcpu.run().reason is Reason.EVENT
    context = guest(vcpu, addi(A0, A0, 1), jal(ZERO, -4))
    context.resume()
    assert vcpu.run().reason is Reason.EVENT
    before = vcpu.executed
    assert vcpu.run().reason is Reason.EVENT  # nobody has read the pipe: the guest gets on all the same
    assert vcpu.executed >= before + QUANTUM
    for fd in (out, in_):
        os.close(fd)
    epoll.close()


def test_floating_point_state_round_trips(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, ECALL)
    state = bytes(range(256)) + (0x62).to_bytes(8, "little")  # rounding up, overflow... as fcsr has them
    context.set_extended_state(state)
    assert context.extended_state() == state
    with pytest.raises(OSError):
        context.set_extended_state(state[:100])


# For debuggers


def test_a_breakpoint_is_before_its_instruction_wherever_it_is_reached_from(vcpu: InterpreterVcpu) -> None:
    """As often as it is come to, also in a loop that is compiled; and a step gets over it."""
    context = guest(vcpu, addi(A0, A0, 1), addi(A0, A0, 1), branch(A0, A1, -8), ECALL)
    context.regs[A1] = 1000
    context.space.stop_at(frozenset([CODE + 4]))
    for expected in range(1, 201, 2):
        exit = run(vcpu, context)
        assert (exit.reason, exit.number, context.regs[A0]) == (Reason.SIGNAL, signal.SIGTRAP, expected)
        assert context.debugging.halt is not None and context.debugging.halt.address == CODE + 4
        context.debugging.halt, context.debugging.step = None, True
        run(vcpu, context)
        assert context.regs[layout.PC] == CODE + 8
        context.debugging.halt = None
    context.space.stop_at(frozenset())
    assert run(vcpu, context).reason is Reason.SYSCALL


def test_a_hot_loop_stops_at_a_breakpoint_set_late(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, lui(T0, 1 << 16), addi(T0, T0, -1), addi(A0, A0, 3), branch(T0, ZERO, -8), ECALL)
    run(vcpu, context)
    context.regs[layout.PC], context.regs[A0] = CODE, 0
    context.space.stop_at(frozenset([CODE + 12]))
    run(vcpu, context)
    assert (context.regs[layout.PC], context.regs[A0]) == (CODE + 12, 3)


def test_a_step_over_a_system_call_ends_after_it(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, ECALL, addi(A0, A0, 1))
    context.debugging.step = True
    assert run(vcpu, context).reason is Reason.SYSCALL
    exit = run(vcpu, context)
    assert (exit.reason, context.regs[layout.PC]) == (Reason.SIGNAL, CODE + 4)
    assert context.debugging.halt is not None and context.debugging.halt.step


def test_who_is_held_does_not_run(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, ECALL)
    other = context.fork(share_memory=True)
    context.debugging.held = True
    context.resume()
    other.resume()
    assert vcpu.run().context is other
    context.debugging.held = False
    assert vcpu.run().context is context


@pytest.mark.parametrize(
    ("kind", "hits"), [("watch", [CODE + 8]), ("rwatch", [CODE + 4]), ("awatch", [CODE + 4, CODE + 8])]
)
def test_watched_accesses(vcpu: InterpreterVcpu, kind: str, hits: list[int]) -> None:
    context = guest(vcpu, load(A1, T0), store(A0, T0, 4, 4), ECALL)
    context.regs[T0], context.regs[A0] = DATA, 5
    context.space.watch(frozenset([Watchpoint(kind, DATA + 4, 4)]))
    for after in hits:
        exit = run(vcpu, context)
        assert (exit.number, context.regs[layout.PC]) == (signal.SIGTRAP, after)
        halt = context.debugging.halt
        assert halt is not None and (halt.watched, halt.address) == (kind, DATA + 4)
        assert context.read(DATA + 4, 1) == (b"\5" if after == CODE + 8 else b"\0")
    assert run(vcpu, context).reason is Reason.SYSCALL
    context.space.watch(frozenset())
    context.regs[layout.PC] = CODE
    assert run(vcpu, context).reason is Reason.SYSCALL
