"""What instructions do, however they are interpreted, compared with qemu-riscv64: registers, flags, memory, faults."""

from random import Random

import pytest

from tests.isa import differential
from tests.isa.differential import Case, CaseMemory, Execute, differences, run_evaluator, run_qemu
from tests.isa.riscv64_encodings import (
    ATOMICS,
    CONTROL,
    FENCES,
    FLOATING,
    INTEGER,
    JUMPS,
    LOADS,
    RESERVATIONS,
    STORES,
    encode,
)
from tests.isa.riscv64_harness import DATA_BYTES
from virtus.isa.riscv64 import RISCV64
from virtus.vcpus.interpreter.blocks import BlockEvaluator, CompiledCode
from virtus.vcpus.interpreter.evaluator import Evaluator

pytestmark = pytest.mark.skipif(differential.QEMU is None, reason=differential.WHY_NOT)

GROUPS = {
    "integer": INTEGER,
    "jumps": JUMPS,
    "memory": {**LOADS, **STORES, **FENCES},
    "atomics": {**ATOMICS, **RESERVATIONS},
    "floating": FLOATING,
    "control": CONTROL,
}


def described(words: memoryview, memory: CaseMemory) -> int:
    return Evaluator(RISCV64, words, memory).run(10_000)[1]


def compiled(words: memoryview, memory: CaseMemory) -> int:
    return BlockEvaluator(RISCV64, words, memory, CompiledCode(RISCV64, hot_after=1)).run(10_000)[1]


def stepped(words: memoryview, memory: CaseMemory) -> int:
    evaluator = BlockEvaluator(RISCV64, words, memory, CompiledCode(RISCV64, hot_after=1))
    return next(filter(None, (evaluator.step() for _ in range(10_000))))


WAYS = pytest.mark.parametrize("execute", [described, compiled, stepped])


def agree(cases: list[Case], execute: Execute) -> None:
    assert differences(cases, run_qemu(cases), run_evaluator(execute, cases)) == []


@WAYS
@pytest.mark.parametrize("group", GROUPS)
def test_each_instruction_does_what_qemu_does(group: str, execute: Execute) -> None:
    agree(differential.cases(GROUPS[group], count=2, seed=1), execute)


@pytest.mark.slow
@WAYS
@pytest.mark.parametrize("group", GROUPS)
def test_each_instruction_does_what_qemu_does_with_many_operands(group: str, execute: Execute) -> None:
    agree(differential.cases(GROUPS[group], count=100 if execute is described else 20, seed=2), execute)


@WAYS
def test_sequences_with_branches_and_a_loop(execute: Execute) -> None:
    agree(differential.sequences(20, seed=1), execute)


@pytest.mark.slow
@WAYS
def test_many_sequences(execute: Execute) -> None:
    agree(differential.sequences(500, seed=3), execute)


JUST_ABOVE_LEAST, JUST_BELOW_ONE = 0x0010000000000001, 0x3FEFFFFFFFFFFFFE
BOX = 0xFFFFFFFF00000000
EDGES = [
    # (1+ε)(1-ε) times the least normal number: tiny, unless rounded as if exponents had no bounds
    ("fmul.d", JUST_ABOVE_LEAST, JUST_BELOW_ONE),
    ("fmul.s", BOX | 0x00800001, BOX | 0x3F7FFFFE),
    ("fcvt.s.d", 0x380FFFFFFFFFFFFF, 0),
    ("fdiv.d", 0x0010000000000000, 0x3FF0000000000001),
    # halves, of integers and of last places
    *(("fcvt.l.d", bits, 0) for bits in (0x3FE0000000000000, 0x3FF8000000000000, 0xC004000000000000)),
    *(("fcvt.wu.s", BOX | bits, 0) for bits in (0x3F000000, 0xBF000000, 0x3FC00000, 0x40200000)),
    ("fadd.d", 0x3FF0000000000000, 0x3CA0000000000000),
    ("fadd.d", 0x3FF0000000000001, 0xBCA0000000000000),
    ("fcvt.s.d", 0x3FF0000010000000, 0),
    ("fcvt.s.d", 0xBFF0000030000000, 0),
]


@WAYS
def test_edges_of_rounding(execute: Execute) -> None:
    cases = []
    for name, a, b in EDGES:
        for mode in range(5):
            code = encode(name, Random(1), rd=12, rs1=10, rs2=11, rm=mode)
            f = tuple({10: a, 11: b}.get(register, 0) for register in range(32))
            cases.append(Case(name, code.to_bytes(4, "little"), (0,) * 32, f, 0, bytes(DATA_BYTES)))
    agree(cases, execute)


@WAYS
def test_counting_the_trailing_zeros_of_half_a_word(execute: Execute) -> None:
    """Not compared, since qemu-riscv64 7.2 looks at the other half (see riscv64_cases)."""
    code = encode("ctzw", Random(1), rd=12, rs1=10)
    x = tuple(1 << 40 if register == 10 else 0 for register in range(32))
    case = Case("ctzw", code.to_bytes(4, "little"), x, (0,) * 32, 0, bytes(DATA_BYTES))
    assert run_evaluator(execute, [case])[0].x[12] == 32
