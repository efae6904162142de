"""Decoding of riscv64: what is legal, that all that is legal has a meaning, and that hostile bytes do no harm."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.isa import differential
from tests.isa.differential import Case, CaseMemory, differences, run_evaluator, run_qemu
from tests.isa.riscv64_encodings import ENCODINGS, encode
from tests.isa.riscv64_harness import DATA_BYTES
from virtus.isa.riscv64 import RISCV64
from virtus.isa.riscv64.instruction import Instruction
from virtus.vcpus.interpreter.evaluator import Evaluator

needs_qemu = pytest.mark.skipif(differential.QEMU is None, reason=differential.WHY_NOT)
ZEROS = (0,) * 32
ECALL, SYSTEM, JAL, BRANCH = 0x73, 0x73, 0x6F, 0x63
COUNTERS = (0xC00, 0xC01, 0xC02)


def decoded(code: int, size: int = 4) -> Instruction:
    return RISCV64.decode(code.to_bytes(size, "little"), 0)


@given(st.binary(max_size=8), st.integers(0, 8))
def test_any_bytes_are_an_instruction(code: bytes, offset: int) -> None:
    instruction = RISCV64.decode(code, offset)
    assert instruction.size in (2, 4)
    assert all(0 <= register < 32 for register in (instruction.rd, instruction.rs1, instruction.rs2, instruction.rs3))
    RISCV64.describe(instruction)
    assert RISCV64.show(instruction, offset)
    if len(code) < offset + instruction.size:
        assert instruction.name == "illegal"


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_of_the_manual_is_known(name: str) -> None:
    random = Random(1)
    for _ in range(40):
        instruction = decoded(encode(name, random, rm=random.choice((0, 1, 2, 3, 4, 7))))
        assert (instruction.name, instruction.size) == (name.split()[0], 4)


@pytest.mark.parametrize("rm", [5, 6])
@pytest.mark.parametrize("name", [name for name, pattern in ENCODINGS.items() if " rm " in pattern])
def test_reserved_rounding_modes_are_illegal(name: str, rm: int) -> None:
    assert decoded(encode(name, Random(1), rm=rm)).name == "illegal"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(0x0000, id="all zeros"),
        pytest.param(0x0004, id="c.addi4spn 0"),
        pytest.param(0x2001, id="c.addiw x0"),
        pytest.param(0x6081, id="c.lui 0"),
        pytest.param(0x6101, id="c.addi16sp 0"),
        pytest.param(0x4002, id="c.lwsp x0"),
        pytest.param(0x6002, id="c.ldsp x0"),
        pytest.param(0x8002, id="c.jr x0"),
        pytest.param(0x8000, id="quadrant 0, reserved"),
        pytest.param(0x9C41, id="quadrant 1, reserved"),
    ],
)
def test_reserved_compressed_encodings_are_illegal(code: int) -> None:
    instruction = decoded(code, 2)
    assert (instruction.name, instruction.size) == ("illegal", 2)


@pytest.mark.parametrize(
    ("code", "name", "rd"),
    [(0x0001, "addi", 0), (0x4005, "addi", 0), (0x6005, "lui", 0), (0x8006, "add", 0), (0x0006, "slli", 0)],
    ids=["c.nop", "c.li", "c.lui", "c.mv", "c.slli"],
)
def test_compressed_hints_change_nothing(code: int, name: str, rd: int) -> None:
    instruction = decoded(code, 2)
    assert (instruction.name, instruction.rd) == (name, rd)


def execute(words: memoryview, memory: CaseMemory) -> int:
    return Evaluator(RISCV64, words, memory).run(10_000)[1]


def agree(codes: list[bytes]) -> None:
    """Each with all registers zero: whether it is legal, and what it does then."""
    data = bytes(DATA_BYTES)
    cases = [Case("any", code, ZEROS, ZEROS, 0, data) for code in codes]
    assert differences(cases, run_qemu(cases), run_evaluator(execute, cases)) == []


def ends(code: bytes) -> bool:
    """Whether a code can be compared: no system call, no counter, and no jump to itself."""
    instruction = RISCV64.decode(code, 0)
    value = int.from_bytes(code, "little")
    if value == ECALL or (value & 0x7F == SYSTEM and value >> 20 in COUNTERS):
        return False
    return instruction.immediate != 0 or instruction.name not in ("jal", "beq", "bge", "bgeu")


@needs_qemu
@pytest.mark.parametrize("count", [500, pytest.param(49152, marks=pytest.mark.slow)])
def test_compressed_instructions_are_legal_where_qemu_says_so(count: int) -> None:
    every = [code.to_bytes(2, "little") for code in range(1 << 16) if code & 3 != 3]
    agree([code for code in Random(1).sample(every, count) if ends(code)])


@needs_qemu
@pytest.mark.parametrize("count", [500, pytest.param(40_000, marks=pytest.mark.slow)])
def test_full_instructions_are_legal_where_qemu_says_so(count: int) -> None:
    random = Random(1)
    codes = []
    for _ in range(count):
        code = encode(random.choice(list(ENCODINGS)), random)
        for _ in range(random.randrange(4)):  # most are near something legal
            code ^= 1 << random.randrange(2, 32)
        codes.append((code if random.randrange(4) else random.getrandbits(32) | 3).to_bytes(4, "little"))
    agree([code for code in codes if ends(code)])
