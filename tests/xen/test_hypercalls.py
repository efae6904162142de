"""Hypercalls with whatever arguments: they answer or refuse, and never let a domain out of its bounds."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xen import mini_guest
from tests.xen.mini_guest import BASE, DATA, MIB
from tests.xen.stopped import stopped_domains
from tests.xen.test_page_tables import check
from virtus.devices.console import Console
from virtus.exits import Exit, Reason
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.personalities.xen import builder, table
from virtus.personalities.xen.abi import DomainCrash
from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.hypervisor import Hypervisor
from virtus.personalities.xen.table import NUMBERS, dispatch

DOCUMENT = Path(__file__).parents[2] / "docs" / "hypercalls.md"
ARGUMENTS = BASE + DATA


@contextmanager
def domain() -> Iterator[Domain]:
    """The small guest's domain, with memory built, that never runs."""
    with stopped_domains(1, 8 * MIB) as (machine, (made,), _):
        builder.build(made, mini_guest.image(), b"", "", machine.store, Console(-1, -1))
        yield made


def call(made: Domain, name: str, *arguments: int) -> int:
    return dispatch(made, NUMBERS[name], (*arguments, *[0] * (6 - len(arguments))))


def lay(made: Domain, data: bytes, offset: int = 0) -> int:
    made.access.write(ARGUMENTS + offset, data)
    return ARGUMENTS + offset


numbers = st.one_of(
    st.integers(0, 12),
    st.sampled_from([0x7FF0, 1, 2, ARGUMENTS, ARGUMENTS + 8, ARGUMENTS + PAGE, BASE, 1 << 47, (1 << 64) - 1, 1 << 63]),
    st.integers(0, (1 << 64) - 1),
)
words = st.one_of(
    numbers,
    st.integers(1024, 3600).map(lambda frame: frame << FRAME_SHIFT | 7),  # entries
    st.integers(1024, 3600).map(lambda frame: frame << FRAME_SHIFT | 5),
    st.integers(1024, 3600),
    st.integers(1024, 3600).map(lambda frame: (frame << FRAME_SHIFT) + 8),
)
known = st.sampled_from(sorted(set(table.TABLE) - {NUMBERS["iret"]}))
calls = st.lists(
    st.tuples(known, st.lists(numbers, min_size=6, max_size=6), st.lists(words, max_size=12)), min_size=1, max_size=25
)


@pytest.mark.slow
@settings(max_examples=80)
@given(calls)
def test_no_arguments_break_the_hypervisor_or_its_accounts(
    steps: list[tuple[int, list[int], list[int]]],
) -> None:
    with domain() as made:
        for number, arguments, memory in steps:
            try:
                lay(made, struct.pack(f"<{len(memory)}Q", *memory))
                assert isinstance(dispatch(made, number, tuple(arguments)), int)
            except DomainCrash:
                break
            except Exception as error:
                if type(error).__name__ == "Refused":  # the guest has unmapped its own argument page
                    break
                raise
        check(made)


def test_a_multicall_answers_each_and_does_not_nest() -> None:
    with domain() as made:
        entries = [(NUMBERS["xen_version"], 0), (NUMBERS["multicall"], ARGUMENTS), (99, 0)]
        data = b"".join(struct.pack("<8Q", number, 77, argument, 1, 0, 0, 0, 0) for number, argument in entries)
        assert call(made, "multicall", lay(made, data), 3) == 0
        results = [struct.unpack("<q", made.access.read(ARGUMENTS + 64 * at + 8, 8))[0] for at in range(3)]
        assert results == [4 << 16 | 17, -22, -38]


def test_an_update_stops_at_the_first_that_is_refused_and_says_how_far_it_came() -> None:
    with domain() as made:
        at = made.access.entry_address(BASE + 0x100000)
        own = (made.first_frame + 0x100) << FRAME_SHIFT | 7
        data = struct.pack("<6Q", at, own, at, 1 << FRAME_SHIFT | 7, at, 0)
        assert call(made, "mmu_update", lay(made, data), 3, ARGUMENTS + 512, 0x7FF0) == -1
        assert made.access.read_dword(ARGUMENTS + 512) == 1
        assert made.memory.words[at >> 3] == own


def test_events_are_masked_pending_selected_and_sent() -> None:
    with domain() as made:
        info = made.memory.frame(made.shared_frame)
        at = lay(made, struct.pack("<III", 0, 0, 0))
        assert call(made, "event_channel_op", 1, at) == 0  # VIRQ_TIMER
        port = made.access.read_dword(ARGUMENTS + 8)
        assert call(made, "event_channel_op", 1, at) == -17  # bound already
        made.events.raise_virq(0)
        assert info[2048 + port // 8] >> port % 8 & 1
        assert not info[0]  # masked from the beginning
        assert call(made, "event_channel_op", 9, lay(made, struct.pack("<I", port))) == 0
        assert info[0] and info[8] == 1
        assert call(made, "event_channel_op", 3, lay(made, struct.pack("<I", port))) == 0
        assert call(made, "event_channel_op", 4, lay(made, struct.pack("<I", port))) == -22
        assert not info[2048 + port // 8] >> port % 8 & 1


def test_what_a_processor_does_is_shown_while_a_programs_tables_are_in_use() -> None:
    with domain() as made:
        place = ARGUMENTS + 1024
        assert call(made, "vcpu_op", 5, 0, lay(made, struct.pack("<Q", place))) == 0
        cpu, used = made.cpu, made.access.root
        cpu.context.kernel_root = used
        made.access.root = (made.first_frame + 0x200) << FRAME_SHIFT  # which maps nothing
        made.memory.frame(made.first_frame + 0x200)[:] = bytes(1 << FRAME_SHIFT)
        cpu.set_state(2)
        assert made.access.root != used
        made.access.root = used
        state, _, running, *_ = struct.unpack("<IxxxxQ4Q", made.access.read(place, 48))
        assert (state, running > 0) == (2, True)
        assert cpu.runstate_at == place


def test_ports_run_out() -> None:
    with domain() as made:
        at = lay(made, struct.pack("<HHI", 0x7FF0, 0, 0))
        results = {call(made, "event_channel_op", 6, at) for _ in range(4200)}
        assert results == {0, -28}


def test_the_timer_strikes_when_its_time_has_come() -> None:
    with domain() as made:
        assert call(made, "event_channel_op", 1, lay(made, struct.pack("<III", 0, 0, 0))) == 0
        port = made.access.read_dword(ARGUMENTS + 8)
        call(made, "event_channel_op", 9, lay(made, struct.pack("<I", port)))
        later = made.cpu.now() + 10**12
        assert call(made, "vcpu_op", 8, 0, lay(made, struct.pack("<QI", later, 0))) == 0
        made.cpu.tick()
        assert not made.cpu.event_waits
        assert call(made, "vcpu_op", 8, 0, lay(made, struct.pack("<QI", 1, 1))) == 0  # in the past: now
        made.cpu.tick()
        assert made.cpu.event_waits
        assert call(made, "vcpu_op", 8, 1, ARGUMENTS) == -2  # no such processor


def test_a_blocked_domain_sleeps_until_its_timer() -> None:
    with domain() as made:
        deadline = made.cpu.now() + 10**12
        call(made, "set_timer_op", deadline)
        made.cpu.masked = True
        assert call(made, "sched_op", 1, 0) == 0
        assert not made.cpu.masked
        assert made.cpu.context.slept == ([], made.cpu.monotonic(deadline))


@pytest.mark.parametrize(
    ("reason", "name", "status"), [(0, "poweroff", 0), (1, "reboot", 0), (3, "crash", 1), (99, "", 1)]
)
def test_a_domain_ends_for_a_reason(reason: int, name: str, status: int) -> None:
    with domain() as made:
        assert call(made, "sched_op", 2, lay(made, struct.pack("<I", reason))) == 0
        assert name in made.ended and made.ended
        assert made.status == status


def frame_at(made: Domain, words: int) -> tuple[int, ...]:
    return struct.unpack(f"<{words}Q", made.access.read(made.cpu.context.regs[6], 8 * words))


def test_an_exception_is_a_frame_and_iret_leads_back() -> None:
    with domain() as made:
        regs, personality, exit = made.cpu.context.regs, Hypervisor(made), Exit()
        exit.context = made.cpu.context
        handler = BASE + mini_guest.HANDLERS
        call(made, "set_trap_table", lay(made, struct.pack("<BBHxxxxQ16x", 13, 4, 0xE033, handler)))
        regs[16], regs[6], regs[17], regs[2], regs[11] = BASE + 0x5000, ARGUMENTS + PAGE - 8, 0x246, 22, 11
        made.cpu.masked = False
        made.cpu.context.error_code = 0x18
        exit.reason, exit.number = Reason.FAULT, 13
        personality.handle(exit)
        assert regs[16] == handler and made.cpu.masked
        rcx, r11, error, rip, cs, flags, rsp, ss = frame_at(made, 8)
        assert (rcx, r11, error, rip, rsp) == (22, 11, 0x18, BASE + 0x5000, ARGUMENTS + PAGE - 8)
        assert (cs & 0xFFFF, flags & 0x200, ss) == (0xE030, 0x200, 0xE02B)
        back = struct.pack("<9Q", 5, r11, rcx, 0, rip, cs, flags, rsp, ss)
        regs[6] = lay(made, back)
        exit.reason, exit.number = Reason.HYPERCALL, NUMBERS["iret"]
        personality.handle(exit)
        assert (regs[0], regs[16], regs[6], regs[2]) == (5, BASE + 0x5000, ARGUMENTS + PAGE - 8, 22)
        assert not made.cpu.masked and made.cpu.context.kernel


@pytest.mark.parametrize(
    ("vector", "rip", "stack", "words"),
    [
        (0, BASE + 0x5000, ARGUMENTS + PAGE, "without a handler"),
        (13, 0xFFFF_8080_0000_0000, ARGUMENTS + PAGE, "inside of the hypervisor's pages"),
        (14, BASE + 0x5000, 0xFFFF_8080_0000_4000, "no stack"),
        (14, BASE + 0x5000, 0, "no stack"),
    ],
)
def test_what_no_kernel_survives_crashes_the_domain(vector: int, rip: int, stack: int, words: str) -> None:
    with domain() as made:
        regs, personality, exit = made.cpu.context.regs, Hypervisor(made), Exit()
        exit.context = made.cpu.context
        traps = b"".join(struct.pack("<BBHxxxxQ", one, 4, 0xE033, BASE + 0x1100) for one in (13, 14))
        call(made, "set_trap_table", lay(made, traps + bytes(16)))
        regs[16], regs[6] = rip, stack
        exit.reason, exit.number = Reason.FAULT, vector
        personality.handle(exit)
        assert words in made.ended
        assert made.status == 1 and not personality.running


@pytest.mark.parametrize("rip", [1 << 47, 0xFFFF_7FFF_FFFF_FFFF])
def test_iret_to_no_address_crashes_the_domain(rip: int) -> None:
    with domain() as made:
        personality, exit = Hypervisor(made), Exit()
        exit.context = made.cpu.context
        made.cpu.context.regs[6] = lay(made, struct.pack("<9Q", 0, 0, 0, 0, rip, 0xE030, 0x200, ARGUMENTS, 0xE02B))
        exit.reason, exit.number = Reason.HYPERCALL, NUMBERS["iret"]
        personality.handle(exit)
        assert "no address" in made.ended


@pytest.mark.parametrize("base", [1 << 47, 1 << 63])
def test_segment_bases_and_handlers_are_addresses(base: int) -> None:
    with domain() as made:
        for which in range(3):
            assert call(made, "set_segment_base", which, base) == -22
        assert call(made, "set_callbacks", base, base, base) == -22
        assert call(made, "stack_switch", 0, base) == -22


def test_the_document_is_the_table() -> None:
    assert table.document() in DOCUMENT.read_text()
