"""The evaluator on integers: stepping, what comes out and where, and that a fault leaves nothing done."""

import signal
from array import array
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.isa.riscv64 import RISCV64
from virtus.vcpus.interpreter.blocks import BlockEvaluator, CompiledCode
from virtus.vcpus.interpreter.evaluator import Evaluator
from virtus.vcpus.interpreter.memory import FlatMemory, MemoryFault
from virtus.vcpus.translator import float_state, layout

START = 0x10000
ADDI_A0_A0_1 = 0x00150513
LOOP = 0x0000006F
ECALL, EBREAK, FENCE_I, ILLEGAL = 0x73, 0x00100073, 0x0000100F, 0xFFFFFFFF
LD_A0_A1 = 0x0005B503
SD_A0_A1 = 0x00A5B023
AMOADD_A0_A2_A1 = 0x00C5B52F
A0, A1, A2 = 10, 11, 12
ONES = 2**64 - 1
Machine = Callable[..., Evaluator]


@pytest.fixture(params=["described", "compiled", "seldom compiled"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """A way of making an evaluator with these instructions in its memory."""

    def make(*codes: int, size: int = 4096) -> Evaluator:
        words, memory = start_of(codes, size)
        if request.param == "described":
            return Evaluator(RISCV64, words, memory)
        code = CompiledCode(RISCV64, hot_after=1 if request.param == "compiled" else 3)
        return BlockEvaluator(RISCV64, words, memory, code)

    return make


def start_of(codes: tuple[int, ...], size: int) -> tuple[memoryview, FlatMemory]:
    data = bytearray(b"".join(code.to_bytes(4, "little") for code in codes).ljust(size, b"\0"))
    words = memoryview(array("Q", bytes(8 * 128)))
    words[layout.PC] = START
    words[layout.MXCSR] = float_state.INITIAL
    words[layout.RESERVED_ADDRESS] = ONES
    return words, FlatMemory(START, data)


def plain() -> Evaluator:
    return Evaluator(RISCV64, *start_of((), 64))


def test_a_step_is_one_instruction(machine: Machine) -> None:
    evaluator = machine(ADDI_A0_A0_1, ADDI_A0_A0_1)
    assert evaluator.step() == 0
    assert (evaluator.registers[A0], evaluator.registers[layout.PC]) == (1, START + 4)


def test_a_run_stops_after_its_count(machine: Machine) -> None:
    evaluator = machine(LOOP)
    assert evaluator.run(1000) == (1000, 0)
    assert evaluator.run(0) == (0, 0)
    assert evaluator.executed == 1000


@pytest.mark.parametrize(
    ("code", "outcome", "moved", "counted"),
    [
        pytest.param(ECALL, layout.EXIT_SYSCALL, 4, 1, id="system call"),
        pytest.param(FENCE_I, layout.EXIT_FLUSH, 4, 1, id="flush"),
        pytest.param(EBREAK, layout.EXIT_BREAKPOINT, 0, 0, id="breakpoint"),
        pytest.param(ILLEGAL, layout.EXIT_ILLEGAL, 0, 0, id="illegal"),
    ],
)
def test_where_it_comes_out(machine: Machine, code: int, outcome: int, moved: int, counted: int) -> None:
    evaluator = machine(ADDI_A0_A0_1, code, ADDI_A0_A0_1)
    assert evaluator.run(10) == (1 + counted, outcome)
    assert evaluator.registers[layout.PC] == START + 4 + moved
    assert evaluator.registers[A0] == 1


@pytest.mark.parametrize("code", [LD_A0_A1, SD_A0_A1, AMOADD_A0_A2_A1], ids=["load", "store", "atomic"])
def test_a_fault_leaves_nothing_done(machine: Machine, code: int) -> None:
    evaluator = machine(ADDI_A0_A0_1, code)
    evaluator.registers[A1] = 0x99998
    before = bytes(evaluator.registers[A1:64])
    with pytest.raises(MemoryFault) as fault:
        evaluator.run(10)
    assert (fault.value.address, fault.value.signal) == (0x99998, signal.SIGSEGV)
    assert (evaluator.registers[layout.PC], evaluator.executed) == (START + 4, 1)
    assert bytes(evaluator.registers[A1:64]) == before


def test_a_misaligned_atomic_is_an_error_of_the_bus(machine: Machine) -> None:
    evaluator = machine(AMOADD_A0_A2_A1)
    evaluator.registers[A1] = START + 0x101
    with pytest.raises(MemoryFault) as fault:
        evaluator.step()
    assert fault.value.signal == signal.SIGBUS


@pytest.mark.parametrize("size", [2, 4])
def test_an_instruction_beyond_the_end_of_memory_is_a_fault(machine: Machine, size: int) -> None:
    evaluator = machine(size=8)
    evaluator.registers[layout.PC] = START + 8 if size == 4 else START + 6
    evaluator.memory.store(START + 6, 0x0513, 2)  # the first half of one with four bytes
    with pytest.raises(MemoryFault) as fault:
        evaluator.step()
    assert fault.value.address == START + 8


def test_changed_code_is_seen_after_a_flush(machine: Machine) -> None:
    evaluator = machine(ADDI_A0_A0_1, FENCE_I)
    evaluator.run(1)
    evaluator.memory.store(START, EBREAK, 4)
    evaluator.registers[layout.PC] = START
    assert evaluator.run(2) == (2, layout.EXIT_FLUSH)
    evaluator.registers[layout.PC] = START
    assert evaluator.step() == layout.EXIT_BREAKPOINT


def test_changed_code_is_seen_when_it_is_to_be_forgotten(machine: Machine) -> None:
    evaluator = machine(ADDI_A0_A0_1, ADDI_A0_A0_1, ADDI_A0_A0_1)
    evaluator.run(3)
    evaluator.memory.store(START + 4, EBREAK, 4)
    evaluator.code.forget(START + 6, 1)
    evaluator.registers[layout.PC] = START
    assert evaluator.run(3) == (1, layout.EXIT_BREAKPOINT)


def test_threads_of_an_address_space_share_what_is_decoded(machine: Machine) -> None:
    first = machine(ADDI_A0_A0_1)
    second = type(first)(RISCV64, memoryview(array("Q", first.registers)), first.memory, first.code)
    first.step()
    assert second.code.instructions
    second.step()
    assert second.registers[A0] == 1


@given(flags=st.integers(0, 31), rounding=st.integers(0, 7))
def test_flags_and_rounding_are_kept_as_the_hosts(flags: int, rounding: int) -> None:
    mxcsr = float_state.control(flags, rounding)
    assert float_state.flags(mxcsr) == flags
    assert float_state.with_rounding(float_state.with_flags(float_state.INITIAL, flags), rounding) == mxcsr
    assert mxcsr & float_state.INITIAL == float_state.INITIAL
    evaluator = plain()
    evaluator.set_float_flags(flags)
    evaluator.set_rounding(rounding)
    assert (evaluator.get_float_flags(), evaluator.get_rounding()) == (flags, rounding)
    assert evaluator.registers[layout.MXCSR] == mxcsr


def test_counters_only_grow() -> None:
    evaluator = plain()
    names = ("cycle", "time", "instructions")
    before = [evaluator.counter(name) for name in names]  # type: ignore[arg-type] # each is one of the three
    after = [evaluator.counter(name) for name in names]  # type: ignore[arg-type] # likewise
    assert all(early <= late for early, late in zip(before, after, strict=True))


@given(a=st.integers(0, ONES), b=st.integers(1, ONES), signed=st.booleans())
def test_division_is_towards_zero(a: int, b: int, signed: bool) -> None:
    evaluator = plain()
    x, y = ((a ^ 1 << 63) - (1 << 63), (b ^ 1 << 63) - (1 << 63)) if signed else (a, b)
    quotient, rest = evaluator.divide(a, b, signed=signed), evaluator.remainder(a, b, signed=signed)
    assert (quotient * b + rest - a) & ONES == 0
    signed_rest = (rest ^ 1 << 63) - (1 << 63) if signed else rest
    assert abs(signed_rest) < abs(y)
    assert signed_rest == 0 or (signed_rest < 0) == (x < 0)


@given(st.integers(0, ONES))
def test_counting_bits(a: int) -> None:
    evaluator = plain()
    text = f"{a:064b}"
    assert evaluator.leading_zeros(a, 64) == len(text) - len(text.lstrip("0"))
    assert evaluator.trailing_zeros(a, 64) == len(text) - len(text.rstrip("0"))
    assert evaluator.leading_zeros(a, 32) == 32 - len(text[32:].lstrip("0"))
    assert evaluator.trailing_zeros(a, 32) == 32 - len(text[32:].rstrip("0"))
    assert evaluator.population(a) == text.count("1")


def test_a_loop_is_interpreted_exactly_so_long() -> None:
    """For every length of a run, wherever that ends in a block, the state is the plain evaluator's."""
    codes = (ADDI_A0_A0_1, 0x00A585B3, 0xFE000CE3, ADDI_A0_A0_1)  # add a1, a1, a0; beqz zero, back
    words, memory = start_of(codes, 64)
    reference = Evaluator(RISCV64, words, memory)
    words, memory = start_of(codes, 64)
    found = BlockEvaluator(RISCV64, words, memory, CompiledCode(RISCV64, hot_after=2))
    for count in (*range(1, 40), 1000):
        assert found.run(count) == reference.run(count)
        assert list(found.registers) == list(reference.registers)
    assert found.executed == reference.executed


def test_stops_are_not_run_over() -> None:
    codes = (ADDI_A0_A0_1, ADDI_A0_A0_1, ADDI_A0_A0_1, 0xFF5FF06F)  # j back
    code = CompiledCode(RISCV64, hot_after=1)
    evaluator = BlockEvaluator(RISCV64, *start_of(codes, 64), code)
    evaluator.run(100)
    code.stop_at(frozenset({START + 8}))
    evaluator.registers[layout.PC] = START
    for executed in (2, 4, 4):
        assert evaluator.run(100) == (executed, 0)
        assert evaluator.registers[layout.PC] == START + 8
    code.stop_at(frozenset({START}))
    for executed in (2, 4, 4):
        assert evaluator.run(100) == (executed, 0)
        assert evaluator.registers[layout.PC] == START
    code.stop_at(frozenset())
    assert evaluator.run(100) == (100, 0)


def test_a_fault_in_a_loop_counts_its_rounds() -> None:
    codes = (LD_A0_A1, 0x00858593, 0xFE000CE3)  # addi a1, a1, 8; beqz zero, back
    evaluator = BlockEvaluator(RISCV64, *start_of(codes, 4096), CompiledCode(RISCV64, hot_after=1))
    evaluator.registers[A1] = START + 4096 - 80
    with pytest.raises(MemoryFault) as fault:
        evaluator.run(1000)
    assert fault.value.address == START + 4096
    assert (evaluator.executed, evaluator.registers[layout.PC]) == (30, START)
