"""The interpreter as a vCPU: guests written by hand, whose exits the test answers itself."""

import os
import select
import signal
import struct
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
    SP,
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
from virtus.vcpus.interpreter.context import Halt, InterpretedContext
from virtus.vcpus.interpreter.vcpu import (
    BUS_ADRALN,
    ILL_ILLOPC,
    QUANTUM,
    SEGV_ACCERR,
    SEGV_MAPERR,
    TRAP_BRKPT,
    InterpreterVcpu,
)
from virtus.vcpus.interpreter.watched import Watchpoint
from virtus.vcpus.translator import layout

CODE, DATA, READ_ONLY, STACK = 0x10000, 0x20000, 0x30000, 0x50000
ANONYMOUS_FIXED = 0x32
FOREVER = jal(ZERO, 0)


@pytest.fixture
def vcpu() -> Iterator[InterpreterVcpu]:
    made = InterpreterVcpu(RISCV64, CallConvention(number=17, first=10))
    yield made
    made.close()


def guest(vcpu: InterpreterVcpu, *words: int) -> InterpretedContext:
    """A context with these instructions at CODE, memory at DATA and below STACK, and some that is read-only."""
    context = vcpu.boot()
    for start, protection in ((CODE, 7), (DATA, 3), (READ_ONLY, 1), (STACK - 0x10000, 3)):
        assert context.inject(NUMBERS["mmap"], start, 0x10000, protection, ANONYMOUS_FIXED, -1, 0) == start
    context.write(CODE, code(*words))
    context.regs[SP], context.regs[layout.PC] = STACK, CODE
    return context


def run(vcpu: InterpreterVcpu, context: InterpretedContext) -> Exit:
    context.resume()
    return vcpu.run()


def fault(context: InterpretedContext) -> tuple[int, int, int]:
    """Signal, si_code and si_addr."""
    number, _, kind, address = struct.unpack_from("<iii4xQ", context.fault())
    return number, kind, address


def test_a_system_call_comes_out_and_goes_on_after_it(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, addi(A7, ZERO, 64), addi(A0, ZERO, 5), ECALL, addi(A1, A0, 1), ECALL)
    exit = run(vcpu, context)
    assert (exit.reason, exit.context, exit.number) == (Reason.SYSCALL, context, 64)
    assert (context.running, context.regs[layout.PC]) == (False, CODE + 12)
    assert (context.regs[layout.SYSCALL_FIRST], context.regs[layout.SYSCALL_NUMBER]) == (5, 64)
    context.regs[A0] = 41
    run(vcpu, context)
    assert context.regs[A1] == 42


def test_a_loop_that_is_compiled_gives_what_it_should(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, lui(T0, 1 << 14), addi(T0, T0, -1), addi(A0, A0, 3), branch(T0, ZERO, -8), ECALL)
    assert run(vcpu, context).reason is Reason.SYSCALL
    assert context.regs[A0] == 3 << 14
    assert vcpu.figures() == {"instructions interpreted": (3 << 14) + 2}


def test_memory_is_the_process_s(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, load(A0, A1), addi(A0, A0, 1), store(A0, A1, 8), ECALL, load(A0, A1, 8), ECALL)
    context.write(DATA, (99).to_bytes(8, "little"))
    context.regs[A1] = DATA
    run(vcpu, context)
    assert context.read(DATA + 8, 8) == (100).to_bytes(8, "little")
    context.write(DATA + 8, b"\7" * 8)  # as a call's result would be
    run(vcpu, context)
    assert context.regs[A0] == int.from_bytes(b"\7" * 8, "little")


@pytest.mark.parametrize(
    ("word", "address", "expected"),
    [
        (load(A0, A1), 0x7000, (signal.SIGSEGV, SEGV_MAPERR, 0x7000)),
        (store(A0, A1), READ_ONLY, (signal.SIGSEGV, SEGV_ACCERR, READ_ONLY)),
        (store(A0, A1), layout.GUEST_END, (signal.SIGSEGV, SEGV_MAPERR, layout.GUEST_END)),
        (load(A0, A1), 2**64 - 8, (signal.SIGSEGV, SEGV_MAPERR, 2**64 - 8)),
        (0x1005B52F, DATA + 4, (signal.SIGBUS, BUS_ADRALN, DATA + 4)),  # lr.d a0, (a1)
        (jalr(ZERO, A1), DATA, (signal.SIGSEGV, SEGV_ACCERR, DATA)),
        (jalr(ZERO, A1), 0x7000, (signal.SIGSEGV, SEGV_MAPERR, 0x7000)),
        (ILLEGAL, 0, (signal.SIGILL, ILL_ILLOPC, CODE + 4)),
        (EBREAK, 0, (signal.SIGTRAP, TRAP_BRKPT, CODE + 4)),
    ],
)
def test_a_fault_is_exact(vcpu: InterpreterVcpu, word: int, address: int, expected: tuple[int, int, int]) -> None:
    context = guest(vcpu, addi(A0, ZERO, 9), word)
    context.regs[A1] = address
    exit = run(vcpu, context)
    assert (exit.reason, exit.number) == (Reason.SIGNAL, expected[0])
    assert fault(context) == expected
    assert context.regs[A0] == 9
    jumped = word == jalr(ZERO, A1)
    assert context.regs[layout.PC] == (address if jumped else CODE + 4)


def test_code_that_changes_is_seen_after_a_fence(vcpu: InterpreterVcpu) -> None:
    words = (load(T0, A1), store(T0, T1, 0, 4), FENCE_I, addi(A0, ZERO, 1), ECALL)
    context = guest(vcpu, *words)
    context.regs[layout.PC] = CODE + 12
    run(vcpu, context)
    assert context.regs[A0] == 1
    context.write(DATA, code(addi(A0, ZERO, 2), 0))
    context.regs[A1], context.regs[T1], context.regs[layout.PC] = DATA, CODE + 12, CODE
    run(vcpu, context)
    assert context.regs[A0] == 2


def test_unmapped_code_is_forgotten(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, ECALL)
    run(vcpu, context)
    context.inject(NUMBERS["munmap"], CODE, 0x10000)
    context.regs[layout.PC] = CODE
    assert run(vcpu, context).reason is Reason.SIGNAL
    assert fault(context) == (signal.SIGSEGV, SEGV_MAPERR, CODE)


def test_threads_take_turns(vcpu: InterpreterVcpu) -> None:
    """One waits in a loop for what the other stores."""
    context = guest(vcpu, load(A0, A1), branch(A0, ZERO, 8), jal(ZERO, -8), ECALL, store(SP, A1), FOREVER)
    context.regs[A1] = DATA
    other = context.fork(share_memory=True)
    assert other.regs[A1] == DATA
    other.regs[layout.PC] = CODE + 16
    other.resume()
    exit = run(vcpu, context)
    assert (exit.context, context.regs[A0]) == (context, STACK)
    assert vcpu.executed > QUANTUM
    assert other.running


def test_a_fork_has_memory_and_registers_of_its_own(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, addi(A0, A0, 1), store(A0, A1), ECALL)
    context.regs[A0], context.regs[A1] = 4, DATA
    other = context.fork(share_memory=False)
    run(vcpu, other)
    assert (other.regs[A0], context.regs[A0]) == (5, 4)
    assert other.read(DATA, 1) == b"\5"
    assert context.read(DATA, 1) == b"\0"


def test_a_thread_that_loops_can_be_had_out(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, FOREVER)
    context.resume()
    context.kick()
    exit = vcpu.run()
    assert (exit.reason, exit.number, context.running) == (Reason.SIGNAL, 0, False)
    context.kick()  # it is stopped: nothing to do
    context.resume()
    ready, told = os.pipe()
    with select.epoll() as epoll:
        epoll.register(ready, select.EPOLLIN)
        vcpu.watch(epoll)
        os.write(told, b"x")
        assert vcpu.run().reason is Reason.EVENT
    os.close(ready)
    os.close(told)


def test_an_end_is_told(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, FOREVER)
    context.resume()
    context.kill()
    exit = vcpu.run()
    assert (exit.reason, exit.context, exit.number) == (Reason.ENDED, context, signal.SIGKILL)
    context.kill()  # it is gone: nothing to do


def test_a_stub_that_is_killed_from_outside_has_ended(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, store(A0, A1), jal(ZERO, -4))
    context.regs[A1] = DATA
    os.kill(context.ident, signal.SIGKILL)
    assert run(vcpu, context).reason is Reason.ENDED


def test_an_emptied_context_knows_nothing_of_its_program(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, ECALL)
    run(vcpu, context)
    context.empty()
    assert list(context.regs[:64]) == [0] * 64
    context.regs[layout.PC] = CODE
    assert run(vcpu, context).reason is Reason.SIGNAL
    assert context.read_partial(CODE, 4) == b""


def test_the_machine_s_own_memory_is_not_a_guest_s_to_name(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, ECALL)
    with pytest.raises(OSError, match="14"):
        context.read(layout.GUEST_END - 4, 8)
    with pytest.raises(OSError, match="14"):
        context.write(layout.GUEST_END, b"x")
    assert context.read_partial(layout.GUEST_END, 8) == b""


# For a debugger


def test_a_breakpoint_stops_before_its_instruction(vcpu: InterpreterVcpu) -> None:
    """As often as it is come to, also in a loop that is compiled, and it is got over by a step."""
    context = guest(vcpu, addi(T0, ZERO, 200), addi(T0, T0, -1), addi(A0, A0, 1), branch(T0, ZERO, -8), ECALL)
    context.space.stop_at(frozenset({CODE + 8}))
    for times in range(200):
        exit = run(vcpu, context)
        assert (exit.reason, exit.number) == (Reason.SIGNAL, signal.SIGTRAP)
        assert context.debugging.halt == Halt(CODE + 8)
        assert (context.regs[layout.PC], context.regs[A0]) == (CODE + 8, times)
        context.debugging.halt, context.debugging.step = None, True
        run(vcpu, context)
        assert context.debugging.halt == Halt(CODE + 12, step=True)
    assert run(vcpu, context).reason is Reason.SYSCALL


def test_a_step_over_a_system_call_ends_after_it(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, ECALL, addi(A0, A0, 1))
    context.debugging.step = True
    assert run(vcpu, context).reason is Reason.SYSCALL
    context.regs[A0] = 7
    run(vcpu, context)
    assert context.debugging.halt == Halt(CODE + 4, step=True)
    assert context.regs[A0] == 7


def test_a_watched_access_stops_after_it(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, store(ZERO, A1), store(SP, A1, 8), addi(A0, ZERO, 1), ECALL)
    context.regs[A1] = DATA
    context.space.watch(frozenset({Watchpoint("watch", DATA + 12, 4)}))
    run(vcpu, context)
    assert context.debugging.halt == Halt(DATA + 12, watched="watch")
    assert (context.regs[layout.PC], context.regs[A0]) == (CODE + 8, 0)
    assert context.read(DATA + 8, 8) == STACK.to_bytes(8, "little")
    context.space.watch(frozenset())
    assert run(vcpu, context).reason is Reason.SYSCALL


def test_whoever_is_held_does_not_run(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, addi(A0, A0, 1), ECALL)
    other = context.fork(share_memory=True)
    context.debugging.held = True
    context.resume()
    assert run(vcpu, other).context is other
    assert (context.running, context.regs[A0]) == (True, 0)
    context.debugging.held = False
    assert vcpu.run().context is context


def test_floating_point_state_comes_back(vcpu: InterpreterVcpu) -> None:
    context = guest(vcpu, ECALL)
    state = struct.pack("<32QQ", *(at << 56 | at for at in range(32)), 3 << 5 | 0x15)
    context.set_extended_state(state)
    assert context.extended_state() == state
    assert context.regs[layout.ROUNDING] == 3
    with pytest.raises(OSError, match="22"):
        context.set_extended_state(b"x")
