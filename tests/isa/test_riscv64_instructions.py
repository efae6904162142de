"""What instructions do, however they are interpreted, compared with qemu-riscv64: registers, flags, memory, faults."""

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
)
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
