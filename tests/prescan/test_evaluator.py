"""The evaluator against Unicorn: generated instructions on generated states."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from iced_x86 import Mnemonic

from tests.prescan.instructions import BIT_TESTS, decoded, instructions, registers, undefined_flags, undefined_result
from tests.prescan.machine import CODE_AT, DATA_AT, KERNEL_DATA, STACK_TOP, Machine
from virtus.vcpus.scanned import faults
from virtus.vcpus.scanned.cpu_state import AF, CF, DF, ES, FS, GS, IF, OF, PF, SF, ZF, CpuState
from virtus.vcpus.scanned.faults import GuestFault

realmode = pytest.importorskip("virtus.vcpus.scanned.realmode")
emulated = pytest.importorskip("virtus.vcpus.emulated_x86.library")
if emulated.find() is None:
    pytest.skip("the package unicorn is not installed", allow_module_level=True)

DATA = range(DATA_AT, STACK_TOP)
STATUS = st.integers(0, 63).map(
    lambda chosen: sum(flag for bit, flag in enumerate((CF, PF, AF, ZF, SF, OF)) if chosen >> bit & 1)
)

HLT = b"\xf4"


class Pair:
    """The same machine twice: one is evaluated, one emulated."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.ours, self.theirs = Machine(bits), Machine(bits)
        for number, base in ((ES, 0x80), (FS, 0x100), (GS, 0x40)):
            segment = self.ours.state.segments[number]
            segment.load(KERNEL_DATA, base, segment.limit, segment.attributes)
        self.fresh = CpuState()
        self.fresh.copy_from(self.ours.state)
        self.cpu = realmode.EmulatedCpu(self.theirs.space, self.theirs.memory)

    def prepare(self, code: bytes, values: list[int], eflags: int, data: bytes) -> None:
        for machine in (self.ours, self.theirs):
            machine.state.copy_from(self.fresh)
            machine.state.registers[:] = values
            machine.state.eflags = eflags | 2 | IF
            machine.load(code.ljust(16, HLT))
            machine.ram.bytes[DATA.start : DATA.stop] = (data * (len(DATA) // len(data) + 1))[: len(DATA)]
            machine.memory.forget()
        self.cpu.written(CODE_AT, 16)

    def evaluate(self) -> GuestFault | None:
        """Rounds of a repeated instruction are all done."""
        try:
            self.ours.evaluator.step()
        except GuestFault as fault:
            return fault
        return None

    def emulate(self, rounds: int) -> object:
        return self.cpu.run(self.theirs.state, rounds)

    def close(self) -> None:
        self.cpu.close()
        self.ours.close()
        self.theirs.close()


@pytest.fixture(scope="module", params=[32, 16])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(request.param)
    yield made
    made.close()


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_instructions_do_what_unicorn_does(pair: Pair, data: st.DataObject) -> None:
    bits = pair.bits
    code = data.draw(instructions(bits))
    values = data.draw(registers(bits))
    eflags = data.draw(STATUS) | data.draw(st.sampled_from((0, DF)))
    instruction = decoded(code, bits)
    repeated = instruction.has_rep_prefix or instruction.has_repne_prefix
    if repeated:
        values[1] &= 0x3F
    pair.prepare(code, values, eflags, data.draw(st.binary(min_size=8, max_size=64)))
    event(str(instruction).split()[0])
    fault = pair.evaluate()
    ours, theirs = pair.ours.state, pair.theirs.state
    why = pair.emulate(1000 if repeated else 1)
    if why is realmode.Why.EVALUATE and pair.cpu.fault is None:
        # they lead far, where is no memory
        assert instruction.mnemonic in BIT_TESTS | {Mnemonic.RET} or instruction.is_string_instruction, instruction
        return
    if why is realmode.Why.HALT:  # the one behind a repeated instruction
        theirs.eip -= 1
    if fault is not None and instruction.is_string_instruction and pair.cpu.fault is None:
        assert fault.vector == faults.GP  # it goes beyond its segment's limit, which Unicorn does not look at
        return
    if fault is not None:
        assert pair.cpu.fault is not None, (instruction, fault, why)
        assert pair.cpu.fault.vector == fault.vector
        return
    assert pair.cpu.fault is None, (instruction, pair.cpu.fault)
    counter = values[1] & 0xFF
    if undefined_result(instruction, counter):
        return
    assert ours.eip == theirs.eip, instruction
    assert [hex(value) for value in ours.registers] == [hex(value) for value in theirs.registers], instruction
    defined = ~undefined_flags(instruction, counter)
    assert hex(ours.eflags & defined) == hex(theirs.eflags & defined), instruction
    assert pair.ours.ram.bytes[DATA.start : DATA.stop] == pair.theirs.ram.bytes[DATA.start : DATA.stop], instruction
