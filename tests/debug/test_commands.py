"""GDB's commands on a process that is a few arrays: each does what the protocol says, and nothing upsets it."""

import os
from array import array
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.machine.debug.commands import MOST_MEMORY, Commands, Parting, end_reply, stop_reply
from virtus.machine.debug.debuggee import Action, Resume, Stop
from virtus.machine.debug.files import Files
from virtus.machine.debug.target_xml import REGISTERS, RISCV64
from virtus.vcpus.translator import float_state, layout

START, SIZE = 0x1000, 0x200
MAIN, OTHER = 5, 6
SIGUSR1, SIGUSR1_OF_GDB = 10, 30


class Fake:
    """A process with two threads, the second of which is in a system call. See Debuggee."""

    def __init__(self) -> None:
        self.memory = bytearray(SIZE)
        self.words = {thread: memoryview(array("Q", [thread] * 96)) for thread in (MAIN, OTHER)}
        for words in self.words.values():
            words[0], words[layout.MXCSR], words[layout.ROUNDING] = 0, float_state.INITIAL, 0
        self.breakpoints: frozenset[int] = frozenset()
        self.watchpoints: frozenset[tuple[str, int, int]] = frozenset()
        self.passed: frozenset[int] = frozenset()

    def threads(self) -> list[int]:
        return [MAIN, OTHER]

    def registers(self, thread: int) -> "memoryview[int]":
        return self.words[thread]

    def may_change(self, thread: int) -> bool:
        return thread == MAIN

    def describe(self, thread: int) -> str:
        return f"thread {thread}"

    def read(self, address: int, size: int) -> bytes:
        at = address - START
        return bytes(self.memory[at : at + size]) if 0 <= at < SIZE else b""

    def write(self, address: int, data: bytes) -> None:
        at = address - START
        if not 0 <= at <= SIZE - len(data):
            raise OSError(14, "")
        self.memory[at : at + len(data)] = data

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        self.breakpoints = addresses

    def set_watchpoints(self, watchpoints: frozenset[tuple[str, int, int]]) -> None:
        self.watchpoints = watchpoints

    def pass_signals(self, numbers: frozenset[int]) -> None:
        self.passed = numbers

    def executable(self) -> str:
        return "/bin/program"

    def auxiliary(self) -> bytes:
        return bytes(range(64))

    def signal_information(self, thread: int) -> bytes:
        return b"" if thread == MAIN else bytes(128)

    def figures(self) -> dict[str, int]:
        return {"instructions interpreted": 1234567}


@pytest.fixture
def fake() -> Fake:
    return Fake()


def commands_for(fake: Fake) -> Commands:
    return Commands(fake, Files(lambda path: os.open("/dev/null", os.O_RDONLY)), Stop(MAIN, 5))


@pytest.fixture
def ask(fake: Fake) -> Callable[[bytes], object]:
    return commands_for(fake).handle


Ask = Callable[[bytes], object]


def test_registers_are_read_one_and_all(ask: Ask, fake: Fake) -> None:
    fake.words[MAIN][10], fake.words[MAIN][layout.PC] = 0x1122, 0x10000
    assert ask(b"pa") == b"2211000000000000"
    assert ask(b"p20") == b"0000010000000000"
    everything = ask(b"g")
    assert isinstance(everything, bytes)
    assert len(everything) == 2 * sum(register.size for register in REGISTERS)
    assert everything[160:176] == b"2211000000000000"


def test_registers_are_written_one_and_all(ask: Ask, fake: Fake) -> None:
    assert ask(b"Pa=2211000000000000") == b"OK"
    assert fake.words[MAIN][10] == 0x1122
    everything = ask(b"g")
    assert isinstance(everything, bytes)
    fake.words[MAIN][10] = 0
    assert ask(b"G" + everything) == b"OK"
    assert fake.words[MAIN][10] == 0x1122
    assert ask(b"G" + everything[2:]) == b"E16"
    assert ask(b"Pa=22") == b"E16"
    assert ask(b"Pffff=2211000000000000") == b"E16"
    assert ask(b"p43") == b"00000000", "fcsr"
    assert ask(b"p44") == b"E16"


def test_threads_have_their_own_registers(ask: Ask, fake: Fake) -> None:
    fake.words[OTHER][10] = 7
    assert ask(b"Hg6") == b"OK"
    assert ask(b"pa") == b"0700000000000000"
    assert ask(b"Pa=0000000000000000") == b"E16", "it is in a system call"
    assert ask(b"Hg7") == b"E03"
    assert (ask(b"T6"), ask(b"T7")) == (b"OK", b"E03")
    assert (ask(b"qfThreadInfo"), ask(b"qsThreadInfo"), ask(b"qC")) == (b"m5,6", b"l", b"QC6")
    assert ask(b"qThreadExtraInfo,6") == b"thread 6".hex().encode()


def test_memory(ask: Ask, fake: Fake) -> None:
    assert ask(b"M1000,4:01020304") == b"OK"
    assert ask(b"m1000,4") == b"01020304"
    assert ask(b"X1004,2:}\x7d") == b"OK"
    assert fake.memory[4:6] == b"}}"
    assert ask(b"X1000,0:") == b"OK", "how GDB finds out whether there is X"
    assert ask(b"m%x,8" % (START + SIZE - 2)) == b"0000", "as much as there is"
    assert ask(b"m0,1") == b"E0e"
    assert ask(b"M%x,4:01020304" % (START + SIZE - 2)) == b"E0e"
    assert ask(b"M1000,4:0102") == b"E16"
    assert ask(b"m1000,ffffffffffffffff") == bytes(fake.memory).hex().encode()


def test_breakpoints_and_watched_memory(ask: Ask, fake: Fake) -> None:
    for request in (b"Z0,1000,4", b"Z1,1004,2", b"Z2,2000,8", b"Z3,2008,1", b"Z4,2010,4"):
        assert ask(request) == b"OK"
    assert fake.breakpoints == {0x1000, 0x1004}
    assert fake.watchpoints == {("watch", 0x2000, 8), ("rwatch", 0x2008, 1), ("awatch", 0x2010, 4)}
    for request in (b"z0,1000,4", b"z0,1000,4", b"z2,2000,8"):
        assert ask(request) == b"OK"
    assert fake.breakpoints == {0x1004}
    assert len(fake.watchpoints) == 2
    assert ask(b"Z5,1000,4") == b""
    assert ask(b"Z2,1000,0") == b"E16"
    assert ask(b"Z0,1000") == b"E16"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"c", Resume({MAIN: Action()}, Action())),
        (b"s", Resume({MAIN: Action(step=True)}, Action())),
        (b"C1e", Resume({MAIN: Action(signal=SIGUSR1)}, Action())),
        (b"vCont;c", Resume({}, Action())),
        (b"vCont;s:5;c", Resume({MAIN: Action(step=True)}, Action())),
        (b"vCont;s:6", Resume({OTHER: Action(step=True)}, None)),
        (b"vCont;C1e:5;c:-1", Resume({MAIN: Action(signal=SIGUSR1)}, Action())),
        (b"vCont;s:5;c:5", Resume({MAIN: Action(step=True)}, None)),
        (b"D", Parting.DETACH),
        (b"k", Parting.KILL),
        (b"vKill;1", Parting.KILL),
        (b"vCont;t", b"E16"),
        (b"vCont;Cff", b"E16"),
        (b"vCont;c:7", b"E03"),
        (b"vCont?", b"vCont;c;C;s;S"),
    ],
)
def test_going_on(ask: Ask, request_: bytes, expected: object) -> None:
    assert ask(request_) == expected


def test_going_on_elsewhere(ask: Ask, fake: Fake) -> None:
    assert ask(b"c12344") == Resume({MAIN: Action()}, Action())
    assert fake.words[MAIN][layout.PC] == 0x12344


def test_only_the_chosen_thread_goes_on(ask: Ask) -> None:
    assert ask(b"Hc6") == b"OK"
    assert ask(b"s") == Resume({OTHER: Action(step=True)}, None)


def test_documents_are_read_in_parts(ask: Ask) -> None:
    text, part = b"", b"m"
    while part[:1] == b"m":
        reply = ask(b"qXfer:features:read:target.xml:%x,200" % len(text))
        assert isinstance(reply, bytes)
        part = reply
        text += part[1:]
    assert text == RISCV64
    assert ask(b"qXfer:features:read:other.xml:0,100") == b"E00"
    assert ask(b"qXfer:auxv:read::3c,100") == b"l" + bytes(range(60, 64))
    assert ask(b"qXfer:auxv:read::1000,100") == b"l"
    assert ask(b"qXfer:exec-file:read:5:0,100") == b"l/bin/program"
    assert ask(b"qXfer:auxv:write::0:00") == b"E16"
    assert ask(b"qXfer:libraries:read::0,100") == b""


def test_signals_to_be_passed(ask: Ask, fake: Fake) -> None:
    assert ask(b"QPassSignals:e;1e;ff") == b"OK"
    assert fake.passed == {14, SIGUSR1}
    assert ask(b"QPassSignals:") == b"OK"
    assert fake.passed == frozenset()


def test_monitor(ask: Ask) -> None:
    reply = ask(b"qRcmd," + b"figures".hex().encode())
    assert isinstance(reply, bytes)
    assert bytes.fromhex(reply.decode()) == b"instructions interpreted: 1,234,567\n"
    for word in (b"help", b"\xff", b""):
        reply = ask(b"qRcmd," + word.hex().encode())
        assert isinstance(reply, bytes)
        assert b"figures:" in bytes.fromhex(reply.decode())


def test_why_it_stands(ask: Ask) -> None:
    assert ask(b"?") == b"T05thread:5;"
    assert stop_reply(Stop(MAIN, SIGUSR1)) == b"T%02xthread:5;" % SIGUSR1_OF_GDB
    assert stop_reply(Stop(OTHER, 5, "watch:1000")) == b"T05thread:6;watch:1000;"


@pytest.mark.parametrize(("status", "packet"), [(0, b"W00"), (7 << 8, b"W07"), (11, b"X0b"), (0x80 | 6, b"X06")])
def test_how_it_has_ended(status: int, packet: bytes) -> None:
    assert end_reply(status) == packet


def test_acknowledgements_end_when_asked(fake: Fake) -> None:
    commands = commands_for(fake)
    assert commands.acknowledged
    assert commands.handle(b"QStartNoAckMode") == b"OK"
    assert not commands.acknowledged


PARTS = st.sampled_from(
    b"g G p P m M X Z0 Z2 z c C s S H T D k ? qSupported qXfer vCont vFile qRcmd QPassSignals , ; : = - 0 1 5 ff 1000 "
    b"read open pread features auxv target.xml ffffffffffffffff 10000000000000000 zz -1".split()
)


@pytest.mark.slow
@given(st.lists(st.lists(PARTS, max_size=10).map(b"".join) | st.binary(max_size=40), max_size=5))
def test_any_requests_are_answered(requests: list[bytes]) -> None:
    fake = Fake()
    commands = commands_for(fake)
    for request in requests:
        answer = commands.handle(request)
        if isinstance(answer, bytes):
            assert len(answer) <= 2 * MOST_MEMORY + 1
        elif isinstance(answer, Resume):
            assert set(answer.threads) <= {MAIN, OTHER}
        assert fake.words[MAIN][0] == 0
