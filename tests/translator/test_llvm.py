"""The optimising translator against the quick one and qemu-riscv64; what it makes of requests without sense."""

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.isa.differential import QEMU, WHY_NOT, Case, cases, differences, run_qemu, sequences
from tests.isa.riscv64_encodings import ATOMICS, CONTROL, FLOATING, INTEGER, RESERVATIONS
from tests.isa.riscv64_harness import CODE, CODE_BYTES, DATA_BYTES
from tests.translator.cases import Guest, begun_natively, run_translated
from tests.translator.encode import (
    A0,
    A1,
    A7,
    EBREAK,
    ECALL,
    RA,
    RET,
    S1,
    S2,
    T1,
    ZERO,
    add,
    addi,
    branch,
    code,
    jal,
    jalr,
    load,
)
from virtus.isa.riscv64 import RISCV64
from virtus.vcpus.translator.context import TranslatedContext
from virtus.vcpus.translator.llvm import compile as llvm
from virtus.vcpus.translator.llvm.flow import explore
from virtus.vcpus.translator.llvm.objects import NotSelfContained
from virtus.vcpus.translator.llvm.request import Optimised, Request
from virtus.vcpus.translator.llvm.text import MANY_TARGETS
from virtus.vcpus.translator.space import Translation
from virtus.vcpus.translator.vcpu import TranslatorVcpu

PC = 0x10000
FAULTS = (signal.SIGSEGV, signal.SIGBUS)


def optimised(*, precise: bool) -> Callable[[TranslatorVcpu, TranslatedContext], None]:
    """Has a case begin in optimised code."""

    def prepare(vcpu: TranslatorVcpu, context: TranslatedContext) -> None:
        text = context.space.fetch(context.ident, CODE, CODE_BYTES)
        made, _ = llvm.optimise(RISCV64, Request(1, "riscv64", CODE, ((CODE, text),), precise=precise))
        install(vcpu, context, made)

    return prepare


def install(vcpu: TranslatorVcpu, context: TranslatedContext, made: Optimised) -> None:
    """Optimised code takes its place."""
    start = vcpu.region.put(made.blob)
    unit = Translation(
        entries={pc: start + offset for pc, offset in made.entries.items()},
        covers=list(made.covers),
        code=list(made.code),
        optimised=True,
        start=start,
        end=start + len(made.blob),
        fast={pc: start + offset for pc, offset in made.fast.items()},
    )
    vcpu.place(unit)
    context.space.install(context.ident, unit, over=True)


@pytest.fixture(scope="module")
def quick() -> Iterator[Guest]:
    guest = Guest()
    yield guest
    guest.close()


@pytest.fixture(scope="module", params=[False, True], ids=["", "precise"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    made = Guest(optimised(precise=request.param))
    made.precise = request.param  # type: ignore[attr-defined] # for `wrong` below
    yield made
    made.close()


def wrong(guest: Guest, quick: Guest, made: list[Case]) -> list[str]:
    """Differences to the quick translator, which is tested against others. Only precise code has exact faults."""
    begun = [begun_natively(case) for case in made]
    expected = run_translated(quick, begun)
    if not guest.precise:  # type: ignore[attr-defined] # see above
        chosen = [at for at, result in enumerate(expected) if result.signal not in FAULTS]
        begun, expected = [begun[at] for at in chosen], [expected[at] for at in chosen]
    return differences(begun, expected, run_translated(guest, begun))


@pytest.mark.slow
@pytest.mark.parametrize("names", [INTEGER, ATOMICS | RESERVATIONS, FLOATING, CONTROL])
def test_single_instructions(guest: Guest, quick: Guest, names: dict[str, str]) -> None:
    assert wrong(guest, quick, cases(names, count=1, seed=5)) == []


@pytest.mark.slow
def test_sequences(guest: Guest, quick: Guest) -> None:
    assert wrong(guest, quick, sequences(40, seed=6)) == []


@pytest.mark.slow
@pytest.mark.full
def test_many_cases_by_another_s_judgement(guest: Guest) -> None:
    if QEMU is None:
        pytest.skip(WHY_NOT)
    made = [begun_natively(case) for case in sequences(300, seed=7)]
    expected = run_qemu(made)
    if not guest.precise:  # type: ignore[attr-defined] # see above
        chosen = [at for at, result in enumerate(expected) if result.signal not in FAULTS]
        made, expected = [made[at] for at in chosen], [expected[at] for at in chosen]
    assert differences(made, expected, run_translated(guest, made)) == []


STEP = 12  # bytes of a piece of the chain below


def chain(length: int, first: int) -> tuple[bytes, Request]:
    """Pieces that jump to one another by a computed jump, entered at piece `first`, and a request for all of them."""
    start = CODE + 8
    pieces = b"".join(code(addi(A0, A0, 1 << at % 11), addi(T1, T1, STEP), jalr(ZERO, T1)) for at in range(length))
    text = code(addi(T1, A1, 8 + STEP * first), jal(ZERO, 4 + STEP * first)) + pieces + code(EBREAK)
    targets = tuple(start + STEP * at for at in range(length + 1))
    jumps = tuple((start + STEP * at + 8, targets) for at in range(length))
    return text, Request(1, "riscv64", start, ((CODE, text),), jumps)


@pytest.mark.parametrize("length", [3, 20, 40])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_code_with_many_computed_jumps_is_entered_where_they_lead(length: int, first: int) -> None:
    text, request = chain(length, first)
    made, _ = llvm.optimise(RISCV64, request)
    assert len(made.entries) == (1 if length < MANY_TARGETS else length + 1)
    case = Case("chain", text, x(a1=CODE), (0,) * 32, 0, bytes(DATA_BYTES))

    def installed(vcpu: TranslatorVcpu, context: TranslatedContext) -> None:
        install(vcpu, context, made)

    guest = Guest(installed)
    try:
        (found,) = run_translated(guest, [case])
    finally:
        guest.close()
    assert found.signal == signal.SIGTRAP
    assert found.pc == CODE + 8 + STEP * length
    assert found.x[A0] == sum(1 << at % 11 for at in range(first, length))


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 5, 6, 7, 8, 9, 1000])
@pytest.mark.parametrize("precise", [False, True])
def test_a_short_loop_runs_as_often_as_it_should(rounds: int, precise: bool) -> None:
    text = code(add(A0, A0, A1), addi(T1, T1, -1), branch(T1, ZERO, -8), EBREAK)
    case = Case("loop", text, x(a1=7, t1=rounds), (0,) * 32, 0, bytes(DATA_BYTES))
    guest = Guest(optimised(precise=precise))
    try:
        (found,) = run_translated(guest, [case])
    finally:
        guest.close()
    assert (found.pc, found.x[A0], found.x[T1]) == (CODE + 12, 7 * rounds, 0)


CALLEE = CODE + 64
FUNCTIONS = {
    CODE: code(jal(RA, 64), add(S2, S2, A0), addi(T1, T1, -1), branch(T1, ZERO, -12), EBREAK),
    CALLEE: code(addi(A0, A0, 3), add(S1, S1, A0), add(S2, S2, S1), add(A7, A7, S2), RET),
}
"""A function that calls another `t1` times; both change registers that go along with calls, and others."""


def called(rounds: int) -> tuple[int, ...]:
    """What a0, s1, s2 and a7 are in the end."""
    a0 = s1 = s2 = a7 = 0
    for _ in range(rounds):
        a0 += 3
        s1 += a0
        s2 += s1
        a7 += s2
        s2 += a0
    return a0, s1, s2, a7


def installs(starts: tuple[int, ...], functions: dict[int, bytes], *, precise: bool = False) -> Guest:
    """A guest in which these functions are optimised, each by itself; others are translated quickly."""
    made = [
        llvm.optimise(RISCV64, Request(1, "riscv64", start, ((start, functions[start]),), precise=precise))[0]
        for start in starts
    ]

    def installed(vcpu: TranslatorVcpu, context: TranslatedContext) -> None:
        for unit in made:
            install(vcpu, context, unit)

    return Guest(installed)


@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("starts", [(CODE,), (CALLEE,), (CODE, CALLEE)])
def test_functions_call_one_another_however_each_is_translated(starts: tuple[int, ...], precise: bool) -> None:
    text = FUNCTIONS[CODE].ljust(64, b"\0") + FUNCTIONS[CALLEE]
    guest = installs(starts, FUNCTIONS, precise=precise)
    try:
        (found,) = run_translated(guest, [Case("calls", text, x(t1=5), (0,) * 32, 0, bytes(DATA_BYTES))])
    finally:
        guest.close()
    assert (found.pc, found.x[T1]) == (CODE + 16, 0)
    assert tuple(found.x[register] for register in (A0, S1, S2, A7)) == called(5)


def test_code_that_goes_round_between_translations_does_not_fill_the_host_s_stack() -> None:
    there, back = CODE, CODE + 64
    functions = {there: code(addi(A0, A0, 1), jal(ZERO, 60))}
    text = functions[there].ljust(64, b"\0") + code(addi(T1, T1, -1), branch(T1, ZERO, there - back - 4), EBREAK)
    guest = installs((there,), functions)
    rounds = 1_000_000  # of which each would take dozens of bytes of 64 MiB
    try:
        (found,) = run_translated(guest, [Case("round", text, x(t1=rounds), (0,) * 32, 0, bytes(DATA_BYTES))])
    finally:
        guest.close()
    assert (found.pc, found.x[A0]) == (back + 8, rounds)


def x(*, a1: int = 0, t1: int = 0) -> tuple[int, ...]:
    """Registers of a case."""
    return tuple({A1: a1, T1: t1}.get(register, 0) for register in range(32))


# Where code goes


def shape(*words: int, jumps: dict[int, tuple[int, ...]] | None = None, limit: int = 100) -> set[int]:
    text = code(*words)
    found = explore(RISCV64, lambda pc: text[pc - PC : pc - PC + 4] if pc - PC >= 0 else b"", PC, jumps or {}, limit)
    return {(pc - PC) // 4 for pc in found.instructions}


def test_both_ways_of_a_branch_are_found_and_what_is_called_is_not() -> None:
    assert shape(branch(A0, ZERO, 12), jal(RA, 16), RET, addi(A0, A0, 1), RET, RET) == {0, 1, 2, 3, 4}


def test_a_computed_jump_leads_where_it_has_been_seen_to_lead() -> None:
    words = (jalr(ZERO, T1), 0, addi(A0, A0, 1), RET, 0, RET)
    assert shape(*words) == {0}
    assert shape(*words, jumps={PC: (PC + 8, PC + 20)}) == {0, 2, 3, 5}


def test_an_address_put_together_from_two_instructions_is_known() -> None:
    here, there = T1 << 7 | 0x17, 12 << 20 | T1 << 15 | 0x67  # auipc t1, 0; jr 12(t1)
    assert shape(here, there, 0, RET) == {0, 1, 3}


def test_a_limit_holds() -> None:
    assert len(shape(*[addi(A0, A0, 1)] * 50, limit=10)) == 10


# Requests


def test_a_request_without_code_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no code"):
        llvm.optimise(RISCV64, Request(1, "riscv64", PC, ((PC + 64, bytes(64)),)))


def test_calls_within_the_code_are_compiled_together() -> None:
    text = code(jal(RA, 12), add(A0, A0, A1), RET, load(A0, A1), RET)
    made, count = llvm.optimise(RISCV64, Request(1, "riscv64", PC, ((PC, text),)))
    assert count == 5
    assert made.covers == ((PC, PC + 20),) or made.covers == ((PC, PC + 12), (PC + 12, PC + 20))
    assert sorted(made.entries) == [PC, PC + 12]  # what is called can be called by others, too


def test_code_that_ends_within_its_window_goes_on_elsewhere() -> None:
    made, count = llvm.optimise(RISCV64, Request(1, "riscv64", PC, ((PC, code(addi(A0, A0, 1), ECALL)),)))
    assert count == 2
    assert made.blob


def test_an_object_that_needs_more_is_refused() -> None:
    with pytest.raises(NotSelfContained, match="memcpy"):
        llvm.compile_text(
            "declare i64 @memcpy(ptr)\ndefine i64 @u1(ptr %st) #0 {\n%r = call i64 @memcpy(ptr %st)\nret i64 %r\n}\n"
        )
    with pytest.raises(NotSelfContained, match="variables"):
        llvm.compile_text("@v = global [9 x i64] zeroinitializer\ndefine ptr @u1(ptr %st) #0 {\nret ptr @v\n}\n")
