"""The vCPU for machines in this process: programs that change themselves, and both ways of running in step."""

import random
import signal

import pytest

from tests.ibm7070.harness import CODE, NEVER, State, both, execute, machine, run_on
from virtus.errors import MachineBroken
from virtus.isa.ibm7070 import layout
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.operations import MINUS_ZERO, OPERATIONS, Form
from virtus.vcpus import resident
from virtus.vcpus.resident_code import CODE_BYTES

LOOP = {  # adds location 200 to accumulator 1 as often as index word 1 says
    CODE: "+1400090200",
    CODE + 1: "+4900011000",
    CODE + 2: "-0000000000",
    200: "+0000000003",
    1: "+0000009999",
}


def state(storage: dict[int, str]) -> State:
    return State({location: words.parse(text) for location, text in storage.items()})


@pytest.mark.slow
def test_a_loop() -> None:
    after = both(state(LOOP))
    assert after.accumulator(1) == "+0000030000"
    assert after.registers[layout.CYCLES] == 10_000 * (10 + 8)


def test_translated_code_is_not_interpreted() -> None:
    with machine(translate=True) as vcpu:
        run_on(vcpu, state(LOOP))
        assert vcpu.interpreted == 0
        assert 0 < vcpu.translated < 5


def test_an_instruction_that_changes_its_own_address() -> None:
    """A loop that adds a table by counting up the address of the addition, as programs without index words did."""
    storage = {
        CODE: "+1400090200",  # A1 200, the address being counted
        CODE + 1: "+1200090300",  # ST1 300
        CODE + 2: "+1300091000",  # ZA1 1000
        CODE + 3: "+1400090301",  # A1 301, plus one
        CODE + 4: "+1200091000",  # ST1 1000
        CODE + 5: "+1300090300",  # ZA1 300
        CODE + 6: "+4900011000",  # BIX 1
        CODE + 7: "-0000000000",
        301: "+0000000001",
        1: "+0000000050",
        **{200 + offset: f"+{offset:010d}" for offset in range(60)},
    }
    after = both(state(storage))
    assert after.accumulator(1) == f"+{sum(range(51)):010d}"
    with machine(translate=True) as vcpu:
        run_on(vcpu, state(storage))
        assert vcpu.dropped <= 2 * resident.OFTEN
        assert vcpu.interpreted < 200


def test_changing_the_next_instruction() -> None:
    after = execute("+1200091001", "+1300090200", a1="-0000002222", l200="+0000000007")
    assert (after.reason, after.pc) == (layout.HALT, CODE + 1)


def test_running_on_into_what_was_data() -> None:
    after = execute("+1300090200", "+1200091003", "-0100000000", "+0000000000", l200="-0100000000")
    assert after.pc == CODE + 4


def test_instructions_in_accumulators() -> None:
    after = execute("+0100009991", a1="+1300090200", a2="-0000000000", l200="+0000000009")
    assert (after.pc, after.accumulator(1)) == (9992, "+0000000009")


def test_the_end_of_storage() -> None:
    after = execute("+0100009989", l9989="-0100000000")
    assert (after.reason, after.pc) == (layout.NO_SUCH_LOCATION, 9990)


def test_one_machine_at_a_time() -> None:
    with machine(translate=True) as first:
        with pytest.raises(MachineBroken, match="one such machine at a time"), machine(translate=True):
            pass
        assert run_on(first, state(LOOP)).reason == layout.HALT


def test_closing_twice() -> None:
    with machine(translate=True) as vcpu:
        vcpu.close()


def test_a_full_room_is_emptied() -> None:
    with machine(translate=True) as vcpu:
        code = vcpu._code
        assert code is not None
        code._used = CODE_BYTES - 100
        after = run_on(vcpu, state(LOOP))
    assert after.accumulator(1) == "+0000030000"


def test_a_loop_without_end_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be done in between is done: here, an end of the machine's time."""
    monkeypatch.setattr(resident, "BLOCKS_AT_ONCE", 1000)
    before = state({CODE: "+0100001000"})
    before.registers[layout.DEADLINE] = 7 * 100_000
    with machine(translate=True) as vcpu:
        assert run_on(vcpu, before).reason == layout.EVENT


def test_somebody_can_interrupt_it() -> None:
    """A signal's handler runs while the guest is in a loop without end, of jumps or within one instruction."""

    class Enough(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Enough

    before = signal.signal(signal.SIGALRM, handler)
    look_up = {CODE: "+6700091500", 98: "+0000000000", 1500: "-0020002000", 2000: "+0000000001"}
    try:
        for storage in ({CODE: "+0100001000"}, look_up):
            with machine(translate=True) as vcpu:
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                with pytest.raises(Enough):
                    run_on(vcpu, state(storage))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Random programs

NAMES = [
    operation
    for operation in OPERATIONS
    if operation.form in (Form.FIELD, Form.DIGIT, Form.INDEX, Form.SHIFT, Form.SPLIT, Form.COUNT, Form.ADDRESS)
    and operation.name not in ("HB", "B", "BLX", "PC", "PR", "TYP", "LL", "LE", "LEH", "BAL")
    and not operation.name.startswith(("B", "RS", "RG", "EN", "EAN"))
] + [operation for operation in OPERATIONS if operation.name in ("BZ1", "BM2", "BL", "BE", "BH", "BXN", "RS", "ENA")]


def random_program(seed: int) -> State:
    """Straight through 60 instructions with branches ahead; operands lie in a few words, some in the program itself."""
    chance = random.Random(seed)
    made = State()
    for place in range(60):
        operation = chance.choice(NAMES)
        code = 0 if operation.code == MINUS_ZERO else abs(operation.code)
        first, last = sorted((chance.randrange(10), chance.randrange(10)))
        control = 10 * first + last if operation.form is Form.FIELD else chance.randrange(1, 6)
        address = chance.choice([200, 201, 202, 203, 9991, 9992, 9993, CODE + chance.randrange(60, 70)])
        if operation.form in (Form.SHIFT, Form.SPLIT):
            address = chance.randrange(11)
        if operation.name in ("RS", "ENA"):
            address = 210
        if operation.name.startswith("B"):
            address = CODE + place + chance.randrange(1, 4)
        if chance.random() < 0.05:
            address = CODE + place + chance.randrange(1, 8)
        index = chance.choice([0, 0, 0, 1, 2]) if operation.form is not Form.SPLIT else 0
        word = code * 10**8 + index * 10**6 + control * 10**4 + address
        for position, digit in operation.digits:
            word = words.replaced(word, position, position, digit)
        made.storage[CODE + place] = word | (words.MINUS if operation.code < 0 else 0)
    for location in (*range(1, 6), *range(200, 210), 9991, 9992, 9993):
        text = f"{chance.choice('++-@')}{chance.randrange(10 ** chance.randrange(1, 11)):010d}"
        if location < 6:
            text = f"+00{chance.randrange(3):04d}{chance.randrange(10):04d}"
        if location < layout.STORAGE:
            made.storage[location] = words.parse(text)
        else:
            made.registers[layout.AC1 + location - 9991] = words.parse(text)
    made.storage[210] = words.parse("-0002200225")
    made.storage[CODE + 75] = words.parse("-0000000000")
    made.registers |= {layout.FIELD_OVERFLOW: layout.SENSES, layout.SIGN_CHANGE: layout.SENSES}
    made.registers[layout.DEADLINE] = NEVER
    return made


@pytest.mark.parametrize("seed", range(20))
def test_random_programs(seed: int) -> None:
    both(random_program(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 320, 60))
def test_many_random_programs(seed: int) -> None:
    reasons = {both(random_program(seed + offset)).reason for offset in range(60)}
    assert layout.HALT in reasons


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_the_optimising_translator_has_the_same_meanings(seed: int) -> None:
    """The descriptions evaluated to LLVM's language, entered in place of the quick translation."""
    from virtus.vcpus.translator.baseline import Unit
    from virtus.vcpus.translator.llvm.compile import optimise
    from virtus.vcpus.translator.llvm.request import Request

    before = random_program(seed)
    expected = both(before)
    with machine(translate=True) as vcpu:
        for location, word in before.storage.items():
            vcpu.context.store(location, word)
        content = bytes(vcpu.memory.bytes[: layout.STORAGE * layout.WORD])
        entry = layout.address_of(CODE)
        made, _ = optimise(vcpu.isa, Request(0, "ibm7070", entry, ((layout.CORE, content),)))
        assert vcpu._code is not None
        vcpu._code.put(Unit(made.blob, dict(made.entries), [], {}, list(made.covers)), vcpu.memory.covered)
        after = run_on(vcpu, before)
    assert after == expected
