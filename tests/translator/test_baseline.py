"""The quick translator against the interpreter and against qemu-riscv64: the same cases end the same way."""

import struct
from collections.abc import Callable, Container, Iterator

import pytest

from tests.isa.differential import (
    QEMU,
    WHY_NOT,
    Case,
    CaseMemory,
    cases,
    differences,
    run_evaluator,
    run_qemu,
    sequences,
)
from tests.isa.riscv64_encodings import ATOMICS, CONTROL, ENCODINGS, FLOATING, INTEGER, RESERVATIONS
from tests.translator.cases import Guest, begun_natively, run_translated
from tests.translator.encode import A0, A1, RA, RET, T0, ZERO, add, addi, branch, code, jal
from virtus.isa.riscv64 import RISCV64
from virtus.isa.x86 import assembler
from virtus.vcpus.interpreter.evaluator import Evaluator
from virtus.vcpus.translator import baseline, baseline_floats, baseline_pieces, baseline_words, layout

PC = 0x10000
ENOUGH = 1000
NEW_FEATURES = ("abm", "bmi1", "bmi2", "fma", "popcnt", "sse4_1")


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.close()


def interpreted(words: "memoryview[int]", memory: CaseMemory) -> int:
    return Evaluator(RISCV64, words, memory).run(ENOUGH)[1]


def wrong(guest: Guest, made: list[Case]) -> list[str]:
    begun = [begun_natively(case) for case in made]
    return differences(begun, run_evaluator(interpreted, begun), run_translated(guest, begun))


@pytest.mark.parametrize("names", [INTEGER, ATOMICS | RESERVATIONS, FLOATING, CONTROL, ENCODINGS])
def test_single_instructions(guest: Guest, names: dict[str, str]) -> None:
    assert wrong(guest, cases(names, count=2, seed=2)) == []


def test_sequences(guest: Guest) -> None:
    assert wrong(guest, sequences(60, seed=3)) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_many_cases(guest: Guest, seed: int) -> None:
    assert wrong(guest, cases(ENCODINGS, count=20, seed=seed) + sequences(1000, seed=seed)) == []


@pytest.mark.slow
def test_many_cases_by_another_s_judgement(guest: Guest) -> None:
    if QEMU is None:
        pytest.skip(WHY_NOT)
    made = cases(ENCODINGS, count=20, seed=99) + sequences(600, seed=99)
    begun = [begun_natively(case) for case in made]
    assert differences(begun, run_qemu(begun), run_translated(guest, begun)) == []


def test_a_processor_without_newer_instructions(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(*names: str) -> bool:
        return not set(names) & set(NEW_FEATURES) and assembler.host_has(*names)

    for module in (baseline_words, baseline_floats):
        monkeypatch.setattr(module, "host_has", lacks)
    baseline_pieces.describer.cache_clear()
    bits = {name: code for name, code in INTEGER.items() if name[:2] in ("sl", "sr", "ro", "cl", "ct", "cp", "be")}
    fused = {name: code for name, code in FLOATING.items() if "madd" in name or name.startswith("fcvt")}
    try:
        assert wrong(guest, cases(bits | fused, count=4, seed=4)) == []
    finally:
        baseline_pieces.describer.cache_clear()


# What a unit says of itself


def translated(*words: int, limit: int = 96, known: Container[int] = ()) -> baseline.Unit:
    return translate_at(lambda address: code(*words)[address - PC :], limit=limit, known=known)


def translate_at(fetch: Callable[[int], bytes], *, limit: int = 96, known: Container[int] = ()) -> baseline.Unit:
    counters = iter(range(100))
    place, counter = layout.CODE, counters.__next__
    return baseline.translate(RISCV64, fetch, PC, place=place, counter=counter, limit=limit, known=known)


def test_each_instruction_has_its_place_in_the_map() -> None:
    unit = translated(addi(A0, A0, 1), add(A0, A0, A0), RET)
    assert [pc for _, pc in unit.map] == [PC, PC + 4, PC + 8]
    offsets = [offset for offset, _ in unit.map]
    assert offsets == sorted(set(offsets))
    assert offsets[-1] < len(unit.code)
    assert unit.covers == [(PC, PC + 12)]
    assert set(unit.entries) == set(unit.counters) == {PC}


def test_a_branch_is_followed_both_ways_and_a_call_is_not() -> None:
    unit = translated(branch(A0, ZERO, 16), addi(A0, A0, 1), jal(RA, 0x1000), RET, addi(A0, A0, 2), RET)
    assert {pc for _, pc in unit.map} == {PC + 4 * number for number in range(6)}
    assert PC + 16 in unit.entries
    assert PC + 8 + 0x1000 not in unit.entries


def test_the_head_of_a_loop_is_counted() -> None:
    unit = translated(addi(T0, T0, 1), addi(A0, A0, 1), branch(A0, A1, -4), RET)
    assert set(unit.counters) == {PC, PC + 4}
    assert set(unit.counters) <= set(unit.entries)


def test_a_limit_is_kept_to() -> None:
    unit = translated(*(addi(A0, A0, number) for number in range(50)), RET, limit=20)
    assert len(unit.map) == 20
    assert unit.covers == [(PC, PC + 80)]


@pytest.mark.parametrize("size", [4, 6])
def test_what_cannot_be_fetched_is_left_for_later(size: int) -> None:
    text = code(addi(A0, A0, 1), addi(A0, A0, 2))[:size]
    unit = translate_at(lambda address: text[address - PC :])
    assert unit.map[0][1] == PC
    assert unit.covers[-1][1] <= PC + size


def test_what_is_known_is_not_translated_again() -> None:
    unit = translated(addi(A0, A0, 1), addi(A0, A0, 2), branch(A0, ZERO, 8), RET, addi(A0, A0, 3), RET, known={PC + 16})
    assert {pc for _, pc in unit.map} == {PC, PC + 4, PC + 8, PC + 12}
    assert struct.pack("<Q", layout.table_entry(PC + 16)) in unit.code


def test_pieces_of_code_are_made_once() -> None:
    describer = baseline_pieces.describer(RISCV64)
    instruction, jump = RISCV64.decode(code(add(A0, A0, A1)), 0), RISCV64.decode(code(jal(ZERO, 8)), 0)
    assert describer.piece(instruction, PC) is describer.piece(instruction, PC + 4)
    assert describer.piece(jump, PC).target + 4 == describer.piece(jump, PC + 4).target


def test_code_near_the_end_of_memory_goes_nowhere_else() -> None:
    place = layout.GUEST_END - 4
    text = code(branch(ZERO, ZERO, 0x7FE, 0))
    counters = iter(range(9))
    fetch = lambda address: text[address - place :] if address >= place else b""  # noqa: E731 # as short as it can be
    unit = baseline.translate(RISCV64, fetch, place, place=layout.CODE, counter=lambda: next(counters))
    assert max(unit.entries) < layout.GUEST_END
