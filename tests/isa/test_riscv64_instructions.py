"""What instructions do, compared with qemu-riscv64: registers, flags, memory, faults."""

import pytest

from tests.isa import differential
from tests.isa.differential import CaseMemory, differences, run_evaluator, run_qemu
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


def execute(words: memoryview, memory: CaseMemory) -> int:
    return Evaluator(RISCV64, words, memory).run(10_000)[1]


@pytest.mark.parametrize("group", GROUPS)
def test_each_instruction_does_what_qemu_does(group: str) -> None:
    cases = differential.cases(GROUPS[group], count=3, seed=1)
    assert differences(cases, run_qemu(cases), run_evaluator(execute, cases)) == []


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_each_instruction_does_what_qemu_does_with_many_operands(group: str) -> None:
    cases = differential.cases(GROUPS[group], count=150, seed=2)
    assert differences(cases, run_qemu(cases), run_evaluator(execute, cases)) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_sequences_with_branches_and_a_loop(seed: int) -> None:
    cases = differential.sequences(40, seed=seed)
    assert differences(cases, run_qemu(cases), run_evaluator(execute, cases)) == []


@pytest.mark.slow
def test_many_sequences() -> None:
    cases = differential.sequences(1000, seed=3)
    assert differences(cases, run_qemu(cases), run_evaluator(execute, cases)) == []
