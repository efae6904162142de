"""Machines for tests: words in, one run, words out; interpreted and translated alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from virtus.isa.ibm7070 import IBM7070, layout
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.machine import constants
from virtus.techniques.ibm7070 import ARRANGEMENT
from virtus.vcpus.resident import ResidentVcpu

CODE = 1000
"""Where tests have their instructions."""
HALT = "-0000000000"
NEVER = 2**63


@dataclass
class State:
    """What a test sets, and looks at afterwards."""

    storage: dict[int, int] = field(default_factory=dict)
    registers: dict[int, int] = field(default_factory=dict)
    pc: int = CODE
    reason: int = -1

    def word(self, location: int) -> str:
        return words.show(self.storage.get(location, 0))

    def accumulator(self, number: int) -> str:
        return words.show(self.registers[layout.AC1 + number - 1])


@contextmanager
def machine(*, translate: bool) -> Iterator[ResidentVcpu]:
    vcpu = ResidentVcpu(IBM7070, ARRANGEMENT, constants(), translate=translate)
    try:
        vcpu.context.regs[layout.DEADLINE] = NEVER
        yield vcpu
    finally:
        vcpu.close()


def run_on(vcpu: ResidentVcpu, before: State) -> State:
    """Run a fresh machine from a state to the first exit."""
    for location, word in before.storage.items():
        vcpu.context.store(location, word)
    for slot in range(layout.REGISTERS):
        vcpu.context.regs[slot] = before.registers.get(slot, NEVER if slot == layout.DEADLINE else 0)
    vcpu.context.pc = before.pc
    exit = vcpu.run()
    storage = vcpu.memory.words[: layout.STORAGE].tolist()
    after = {location: word for location, word in enumerate(storage) if word}
    registers = {slot: vcpu.context.regs[slot] for slot in range(layout.REGISTERS)}
    return State(after, registers, vcpu.context.pc, exit.number)


def both(before: State) -> State:
    """Interpreted and translated; they must agree in everything."""
    found = []
    for translate in (False, True):
        with machine(translate=translate) as vcpu:
            found.append(run_on(vcpu, before))
    assert found[0] == found[1]
    return found[0]


def program(*instructions: str, **storage: str) -> State:
    """Instructions as words (`+1300090200`), and other words by location (`l200="+..."`) or accumulator (`a1=`)."""
    state = State({CODE + offset: words.parse(text) for offset, text in enumerate(instructions)})
    for name, text in storage.items():
        if name[0] == "a":
            state.registers[layout.AC1 + int(name[1:]) - 1] = words.parse(text)
        else:
            state.storage[int(name[1:])] = words.parse(text)
    return state


def execute(*instructions: str, **storage: str) -> State:
    """Run such a program, which is followed by a halt."""
    return both(program(*instructions, HALT, **storage))
