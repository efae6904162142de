"""The walk of guest page tables, what is cached of it, and devices behind memory instructions."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.prescan.machine import CODE_AT, DATA_AT, Machine
from virtus.memory.guest_memory import PAGE, GuestMemory
from virtus.vcpus.scanned.cpu_state import CR0_PG, CR0_WP, CR4_PSE, DF, DS, EAX, EBX, ECX, EDI, EDX, ESI, MASK32
from virtus.vcpus.scanned.evaluator import Evaluator
from virtus.vcpus.scanned.faults import PF, GuestFault, IoNeeded
from virtus.vcpus.scanned.memory_access import PagedMemory, PhysicalSpace, walk
from virtus.vcpus.scanned.replay import Replay, ReplayDevices

DIRECTORY, TABLE = 0x10000, 0x11000
LINEAR = 0x0040_3000


@pytest.fixture(scope="module")
def paged() -> Iterator[Machine]:
    machine = Machine().page()
    yield machine
    machine.close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.close()


entries = st.builds(
    lambda flags, frame: flags | frame << 12,
    st.integers(0, 0x1FF),
    st.one_of(st.just(TABLE >> 12), st.integers(0, 0x50), st.integers(0, 0xFFFFF)),
)


def expected(
    machine: Machine, linear: int, upper: int, lower: int, *, write: bool, user: bool, pse: bool, protect: bool
) -> tuple[int | None, int | None]:
    """Intel SDM volume 3A, 4.3 and 4.6 in other words: the physical address, or the error code."""
    code = 2 * write + 4 * user
    large = bool(upper & 0x80 and pse)
    levels = [upper] if large else [upper, lower]
    if not all(entry & 1 for entry in levels):
        return None, code
    for bit, asked in ((4, user), (2, write and (user or protect))):
        if asked and not all(entry & bit for entry in levels):
            return None, code | 1
    if large:
        return upper >> 22 << 22 | linear & 0x3FFFFF, None
    return lower >> 12 << 12 | linear & 0xFFF, None


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(entries, entries, *[st.booleans()] * 4)
def test_the_walk_follows_the_manual(
    paged: Machine, upper: int, lower: int, write: bool, user: bool, pse: bool, protect: bool
) -> None:
    state, linear = paged.state, LINEAR + 0x123
    paged.set_word(DIRECTORY + 4, upper)
    reached = upper >> 12 == TABLE >> 12
    at = (upper & 0xFFFFF000) + 4 * (linear >> 12 & 0x3FF)
    if reached:
        paged.set_word(at, lower)
    else:
        lower = paged.word(at) if at < paged.ram.size else 0
    upper, lower = paged.word(DIRECTORY + 4), paged.word(at) if at < paged.ram.size else 0
    state.cr4 = CR4_PSE if pse else 0
    state.cr0 = state.cr0 & ~CR0_WP | (CR0_WP if protect else 0)
    physical, code = expected(paged, linear, upper, lower, write=write, user=user, pse=pse, protect=protect)
    try:
        found = walk(state, paged.ram, linear, write=write, user=user)
    except GuestFault as fault:
        assert (fault.vector, fault.error_code, fault.address) == (PF, code, linear)
        assert paged.word(DIRECTORY + 4) == upper, "nothing is marked by a fault"
    else:
        assert found.physical == physical
        large = upper & 0x80 and pse
        assert paged.word(DIRECTORY + 4) & 0x20
        last = DIRECTORY + 4 if large else at
        assert paged.word(last) & 0x20
        if write:
            assert paged.word(last) & 0x40
    finally:
        paged.set_word(DIRECTORY + 4, 0)


def test_translations_are_kept_until_they_are_flushed(paged: Machine) -> None:
    memory = paged.memory
    paged.state.cr4 = 0
    paged.set_word(DIRECTORY + 4, TABLE | 7)
    paged.set_word(TABLE + 4 * 3, 0x20000 | 7)
    memory.flush()
    paged.set_word(0x20000, 0x11)
    assert memory.read(LINEAR, 4) == 0x11
    paged.set_word(TABLE + 4 * 3, 0)
    assert memory.read(LINEAR, 4) == 0x11
    memory.flush_page(LINEAR)
    with pytest.raises(GuestFault):
        memory.read(LINEAR, 4)
    paged.set_word(TABLE + 4 * 3, 3 << 12 | 7)
    paged.set_word(DIRECTORY + 4, 0)


def test_rights_of_levels_are_not_mixed_up_in_what_is_kept(paged: Machine) -> None:
    paged.set_word(TABLE + 4 * 4, 4 << 12 | 3)
    paged.memory.flush()
    paged.memory.write(0x4000, 4, 5)
    paged.state.cpl = 3
    with pytest.raises(GuestFault) as caught:
        paged.memory.read(0x4000, 4)
    assert caught.value.error_code == 5
    paged.state.cpl = 0
    paged.set_word(TABLE + 4 * 4, 4 << 12 | 7)
    paged.memory.flush()


def test_a_write_over_two_pages_is_all_or_nothing(paged: Machine) -> None:
    paged.set_word(TABLE + 4 * 5, 0)
    paged.memory.flush()
    paged.set_word(0x4FFC, 0)
    with pytest.raises(GuestFault) as caught:
        paged.memory.write(0x4FFE, 4, MASK32)
    assert caught.value.address == 0x5000
    assert paged.word(0x4FFC) == 0
    paged.set_word(TABLE + 4 * 5, 6 << 12 | 7)
    paged.memory.flush()
    paged.memory.write(0x4FFE, 4, 0x44332211)
    assert (paged.word(0x4FFE, 2), paged.word(0x6000, 2)) == (0x2211, 0x4433)
    assert paged.memory.read(0x4FFE, 4) == 0x44332211
    paged.set_word(TABLE + 4 * 5, 5 << 12 | 7)
    paged.memory.flush()


def test_written_frames_are_noted(machine: Machine) -> None:
    machine.memory.written.clear()
    machine.memory.forget()
    machine.memory.write(DATA_AT, 4, 1)
    assert machine.memory.written == {DATA_AT // PAGE}


def test_page_tables_beyond_memory_are_not_present(paged: Machine) -> None:
    kept, paged.state.cr3 = paged.state.cr3, 0x7FFFF000
    paged.memory.flush()
    with pytest.raises(GuestFault) as caught:
        paged.memory.read(0x1000, 4)
    assert caught.value.error_code == 0
    paged.state.cr3 = kept
    paged.memory.flush()


class Asked:
    """Devices behind a replay: what was asked, and the answers."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.replay = machine, Replay()
        machine.space = PhysicalSpace(machine.ram, (range(0x20000, 0x30000),))
        machine.memory = PagedMemory(machine.state, machine.space, ReplayDevices(self.replay, port=False))
        ports = ReplayDevices(self.replay, port=True)
        machine.evaluator = Evaluator(machine.state, machine.memory, ports)
        machine.evaluator.execution.progress = self.replay.finish
        machine.evaluator.execution.repeat_port = ports.repeat

    def run(self, code: str, *answers: int) -> list[tuple[bool, int, int, bool, int]]:
        self.machine.load(bytes.fromhex(code))
        left, asked = list(answers), []
        while True:
            self.replay.begin()
            try:
                self.machine.evaluator.step()
            except IoNeeded:
                assert self.replay.wanted is not None
                asked.append(self.replay.wanted)
                self.replay.answer(left.pop(0))
            else:
                self.replay.finish()
                return asked


def test_an_instruction_waits_for_each_of_its_accesses(machine: Machine) -> None:
    asked = Asked(machine)
    machine.state.registers[EBX] = 0x20010
    found = asked.run("8303 05", 7, 0)  # add dword [ebx], 5
    assert found == [(False, 0x20010, 4, False, 0), (False, 0x20010, 4, True, 12)]


def test_a_repeated_instruction_does_not_ask_again(machine: Machine) -> None:
    asked, registers = Asked(machine), machine.state.registers
    registers[ESI], registers[EDI], registers[ECX] = 0x20000, DATA_AT, 3
    found = asked.run("f3a4", 1, 2, 3)
    assert [access[1] for access in found] == [0x20000, 0x20001, 0x20002]
    assert bytes(machine.ram.bytes[DATA_AT : DATA_AT + 3]) == b"\1\2\3"
    assert (registers[ECX], machine.state.eip) == (0, 0x1002)


def test_string_output_of_devices_to_ports(machine: Machine) -> None:
    asked, registers = Asked(machine), machine.state.registers
    registers[ESI], registers[EDX], registers[ECX] = 0x20000, 0x80, 1
    found = asked.run("f36e", 0x41, 0)
    assert found == [(False, 0x20000, 1, False, 0), (True, 0x80, 1, True, 0x41)]


def test_string_output_goes_out_at_once_as_far_as_page_and_segment_go(machine: Machine) -> None:
    asked, state = Asked(machine), machine.state
    machine.load(bytes(range(1, 17)), DATA_AT + PAGE - 8)
    registers = state.registers
    registers[ESI], registers[EDX], registers[ECX] = DATA_AT + PAGE - 8, 0x170, 6
    assert asked.run("f36f", 0) == [(True, 0x170, 4, True, 0x0807060504030201)]
    assert (asked.replay.count, registers[ECX], registers[ESI], state.eip) == (2, 4, DATA_AT + PAGE, CODE_AT)
    data = state.segments[DS]
    data.load(data.selector, 0, DATA_AT + PAGE + 5, data.attributes)  # one number, and half of another
    assert asked.run("f36f", 0) == [(True, 0x170, 4, True, 0x0C0B0A09)]
    assert (asked.replay.count, registers[ECX]) == (1, 3)
    with pytest.raises(GuestFault):
        asked.run("f36f")
    assert (registers[ECX], registers[ESI]) == (3, DATA_AT + PAGE + 4)


def test_string_input_downwards_goes_one_by_one(machine: Machine) -> None:
    asked, registers = Asked(machine), machine.state.registers
    machine.state.eflags |= DF
    registers[EDI], registers[EDX], registers[ECX] = DATA_AT + 1, 0x170, 2
    assert [access[1:3] for access in asked.run("f36c", 7, 8)] == [(0x170, 1), (0x170, 1)]
    assert bytes(machine.ram.bytes[DATA_AT : DATA_AT + 2]) == b"\x08\x07"


def test_odd_sizes_reach_devices_as_bytes(machine: Machine) -> None:
    asked = Asked(machine)
    machine.state.registers[EBX] = 0x1FFFF  # one byte of memory, three of the device
    machine.load(b"\x99", 0x1FFFF)
    found = asked.run("8b03", 0x11, 0x22, 0x33)
    assert [(access[1], access[2]) for access in found] == [(0x20000, 1), (0x20001, 1), (0x20002, 1)]
    assert machine.state.registers[EAX] == 0x33221199


def test_read_only_memories_read_and_what_is_written_goes_to_devices(machine: Machine) -> None:
    rom = GuestMemory(PAGE, "rom")
    rom.bytes[4:8] = b"\x78\x56\x34\x12"
    asked = Asked(machine)
    machine.space.add_rom(0xFFFFF000, rom)
    assert machine.memory.read(0xFFFFF004, 4) == 0x12345678
    assert machine.memory.fetch(0xFFFFF004, 2) == b"\x78\x56"
    machine.state.registers[EBX], machine.state.registers[EAX] = 0xFFFFF004, 9
    assert asked.run("8903", 0) == [(False, 0xFFFFF004, 4, True, 9)]
    rom.close()
    with pytest.raises(ValueError, match="page"):
        machine.space.add_rom(0x123, rom)


def test_paging_off_is_the_identity(machine: Machine) -> None:
    assert not machine.state.cr0 & CR0_PG
    assert walk(machine.state, machine.ram, 0xFEDCBA98, write=True, user=True).physical == 0xFEDCBA98
