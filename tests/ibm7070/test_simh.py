"""Single instructions against the outside oracle, where they agree by intention (docs/ibm7070.md has the
differences)."""

import random

import pytest

from tests.ibm7070 import simh
from tests.ibm7070.harness import CODE, NEVER, machine
from virtus.isa.ibm7070 import layout
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.operations import MINUS_ZERO, OPERATIONS, Form, Operation
from virtus.personalities.ibm7070.priority import indicators, set_indicators
from virtus.vcpus.resident import ResidentVcpu

pytestmark = [
    pytest.mark.skipif(simh.PROGRAM is None, reason=simh.WHY_NOT),
    pytest.mark.slow,
]

SENSING = "+5500000000"
"""Field overflow and sign change are sensed."""
OPERAND, INDEX, CHANGED = 200, 5, 7
FLOATING = ("FA", "FS", "FM", "FZA")
DIFFERENT = {
    "XS", "BDX", "SLC", "SLC1", "SLC2", "SLC3", "SRR", "SRR1", "SRR2", "SRR3", "SLS",  # see docs/ibm7070.md
    "SS1", "SS2", "SS3", "D", "FR", "FD", "FDD", "FAA", "FSA", "FAD", "FADS", "FBV", "FBU", "LL", "LE", "LEH", "SMFV",
}  # fmt: skip
NOT_ALONE = {
    "HB", "HP", "QR", "QW", "US", "UR", "UW", "UWIV", "TYP", "PC", "PR", "BAS", "BCB", "BAL", "BUL", "BQL",
    "RS", "RG", "ENA", "ENB", "ENS", "EAN", "HMFV", "HMSC",
}  # fmt: skip
OUTSIDE = (Form.TAPE, Form.TAPE_CONTROL, Form.TAPE_BRANCH, Form.TAPE_LATCH, Form.LATCH)
COMPARED = [
    operation
    for operation in OPERATIONS
    if operation.form not in OUTSIDE and operation.name not in DIFFERENT | NOT_ALONE
]


def any_word(chance: random.Random, signs: str = "++--@") -> str:
    digits = chance.choice([chance.randrange(10**10), chance.randrange(10 ** chance.randrange(1, 11)), 0, 10**10 - 1])
    return f"{chance.choice(signs)}{digits:010d}"


def floating(chance: random.Random) -> str:
    exponent = chance.choice([50, 48, 52, chance.randrange(40, 60)])
    return f"{chance.choice('+-')}{exponent:02d}{chance.randrange(10**7, 10**8):08d}"


def make(operation: Operation, chance: random.Random) -> simh.Case:
    """An instruction of this kind; its operand is at 200, the index word it changes 7, the one it is indexed with 5."""
    first, last = sorted((chance.randrange(10), chance.randrange(10)))
    control = {Form.FIELD: 10 * first + last, Form.DIGIT: chance.randrange(100)}.get(operation.form, CHANGED)
    indexed = chance.random() < 0.3 and operation.code not in (50, -50)
    shift = chance.choice([0, OPERAND])
    address = OPERAND - (shift if indexed else 0)
    if operation.form is Form.SHIFT:
        address = chance.randrange(11 if operation.code == 50 else 21)
    elif operation.form is Form.SPLIT:
        address = chance.randrange(10) * 1000 + chance.randrange(21)
    code = 0 if operation.code == MINUS_ZERO else abs(operation.code)
    word = code * 10**8 + (INDEX if indexed else 0) * 10**6 + control * 10**4 + address
    for position, digit in operation.digits:
        word = words.replaced(word, position, position, digit)
    signs = "+-" if operation.name in ("M", "C1", "C2", "C3") else "++--@"
    operands = [floating(chance) if operation.name in FLOATING else any_word(chance, signs) for _ in range(4)]
    storage = {
        OPERAND: operands[3],
        CHANGED: f"+77{chance.choice([0, 1, 9998, chance.randrange(10_000)]):04d}{chance.randrange(10_000):04d}",
        INDEX: f"+00{shift:04d}0000",
        **{location: any_word(chance, "+-") for location in (101, 102, 103)},
    }
    instruction = words.show(word | (words.MINUS if operation.code < 0 else 0))
    return simh.Case(instruction, storage, (operands[0], operands[1], operands[2]), SENSING)


def outcome(vcpu: ResidentVcpu, case: simh.Case) -> simh.Outcome:
    context = vcpu.context
    for location, text in case.storage.items():
        context.store(location, words.parse(text))
    context.store(CODE, words.parse(case.instruction))
    for slot in range(layout.REGISTERS):
        context.regs[slot] = NEVER if slot == layout.DEADLINE else 0
    for number, text in enumerate(case.accumulators):
        context.regs[layout.AC1 + number] = words.parse(text)
    set_indicators(context, words.parse(case.indicators))
    context.pc = CODE
    vcpu._step()
    return simh.Outcome(
        context.pc,
        tuple(words.show(context.regs[layout.AC1 + number]) for number in range(3)),
        f"+{indicators(context):010d}",
        {location: words.show(context.load(location)) for location in case.storage},
    )


def is_different(operation: Operation, case: simh.Case) -> bool:
    """Cases where this machine is not the simulator, and means not to be."""
    name, operand = operation.name, case.storage[OPERAND]
    accumulator = case.accumulators[int(name[-1]) - 1] if name[-1] in "123" else case.accumulators[0]
    signs = {operand[0], accumulator[0]}
    if name in ("C1", "C2", "C3"):
        return signs == {"-"}
    if name.rstrip("123") in ("ST", "AS"):
        return signs != {"+"}
    if name in ("FA", "FS"):
        return operand[1:3] == accumulator[1:3]
    return name == "XA" and case.instruction.endswith("0000")


@pytest.mark.parametrize("seed", range(3))
def test_single_instructions(seed: int) -> None:
    chance = random.Random(seed)
    cases = [(operation, make(operation, chance)) for operation in COMPARED for _ in range(6)]
    cases = [(operation, case) for operation, case in cases if not is_different(operation, case)]
    found = simh.run([case for _, case in cases])
    wrong = []
    with machine(translate=False) as vcpu:
        for (operation, case), expected in zip(cases, found, strict=True):
            mine = outcome(vcpu, case)
            if mine != expected:
                wrong.append((operation.name, case, expected, mine))
    assert wrong == []
