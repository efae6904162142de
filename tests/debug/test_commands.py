"""The commands of GDB's remote protocol on a process of a test's own."""

import os
import signal
import stat
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.debug.fake import START, FakeDebuggee, ask, session
from virtus.machine.debug import target_xml
from virtus.machine.debug.commands import Parting, end_reply, stop_reply
from virtus.machine.debug.debuggee import Action, Resume, Stop
from virtus.machine.debug.gdb_signals import FROM_GDB, TO_GDB, from_gdb, to_gdb
from virtus.machine.debug.target_xml import REGISTERS
from virtus.vcpus.translator import layout

NAMES = [register.name for register in REGISTERS]
REQUESTS = [
    b"?", b"g", b"G00", b"p0", b"P1=0102030405060708", b"m1000,10", b"M1000,2:0102", b"X1000,2:ab", b"Z0,1000,2",
    b"z0,1000,2", b"Z2,1000,8", b"c", b"C0b", b"s1000", b"S05;1000", b"Hg2", b"Hc-1", b"T2", b"qSupported:a+;b-",
    b"QStartNoAckMode", b"QNonStop:0", b"qXfer:features:read:target.xml:0,100", b"qXfer:auxv:read::0,100",
    b"qfThreadInfo", b"qsThreadInfo", b"qThreadExtraInfo,2", b"qC", b"qAttached", b"qSymbol::", b"qRcmd,68656c70",
    b"vCont?", b"vCont;s:2;c", b"vCont;C0b:2", b"vKill;1", b"vFile:setfs:0", b"vFile:open:2f,0,0", b"vFile:pread:0,1,0",
    b"vFile:close:0", b"vFile:fstat:0", b"QPassSignals:e;14", b"vMustReplyEmpty", b"D", b"k",
]  # fmt: skip


def parts(request: bytes) -> list[bytes]:
    """A request cut at its punctuation."""
    found = [b""]
    for at in range(len(request)):
        byte = request[at : at + 1]
        if byte in b":;,=-":
            found += [byte, b""]
        else:
            found[-1] += byte
    return found


ODD = [b"", b"-1", b"ffffffffffffffff", b"10000000000000000", b"zz", b"\0", b":"]
HOSTILE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(REQUESTS).flatmap(
        lambda request: st.lists(
            st.sampled_from(
                [*parts(request), b"", b"-1", b"ffffffffffffffff", b"10000000000000000", b"zz", b"\0", b":"]
            ),
            max_size=12,
        ).map(lambda words: request[:1] + b"".join(words))
    ),
    st.tuples(st.sampled_from(REQUESTS), st.binary(max_size=6)).map(b"".join),
)


@pytest.mark.slow
@given(st.lists(HOSTILE, max_size=10))
def test_whatever_is_asked_there_is_an_answer(requests: list[bytes]) -> None:
    _, commands, files = session()
    for request in requests:
        answer = commands.handle(request)
        assert isinstance(answer, bytes | Resume | Parting)
        if isinstance(answer, Resume):
            assert set(answer.threads) <= {2, 3}
    files.close()


def test_what_is_not_known_gets_an_empty_answer() -> None:
    _, commands, _ = session()
    for request in (
        b"vMustReplyEmpty",
        b"qTStatus",
        b"!",
        b"R00",
        b"",
        b"qXfer:threads:read::0,10",
        b"vFile:unlink:2f",
    ):
        assert commands.handle(request) == b""


def test_the_target_description_has_gdb_s_features_and_every_register() -> None:
    tree = ElementTree.fromstring(target_xml.RISCV64.decode())
    features = {feature.get("name"): feature for feature in tree.iter("feature")}
    assert set(features) == {"org.gnu.gdb.riscv.cpu", "org.gnu.gdb.riscv.fpu"}
    numbered = {int(found.get("regnum", "")): found.get("name") for found in tree.iter("reg")}
    assert [numbered[index] for index in range(len(numbered))] == NAMES
    assert len(features["org.gnu.gdb.riscv.cpu"].findall("reg")) == 33
    assert {"f" + name for name in ("flags", "rm", "csr")} < set(NAMES)


@given(st.sampled_from(range(len(REGISTERS))), st.integers(0, 2**64 - 1))
def test_a_register_keeps_what_is_written(index: int, value: int) -> None:
    debuggee, commands, _ = session()
    register = REGISTERS[index]
    data = value.to_bytes(8, "little")[: register.size].hex().encode()
    assert ask(commands, b"P%x=%b" % (index, data)) == b"OK"
    kept = {"zero": 0, "fflags": value & 31, "frm": value & 7, "fcsr": value & 255}.get(register.name, value)
    assert ask(commands, b"p%x" % index) == kept.to_bytes(8, "little")[: register.size].hex().encode()
    if register.name == "pc":
        assert debuggee.words[2][layout.PC] == value


def test_all_registers_at_once() -> None:
    debuggee, commands, _ = session()
    debuggee.words[2][10], debuggee.words[2][33] = 0x1234, 0x5678
    before = ask(commands, b"g")
    assert isinstance(before, bytes) and len(before) == 2 * sum(register.size for register in REGISTERS)
    assert ask(commands, b"Hg3", b"g") != before
    assert ask(commands, b"Hg2", b"G" + before) == b"OK"
    assert ask(commands, b"g") == before


def test_a_thread_inside_a_system_call_keeps_its_registers() -> None:
    _, commands, _ = session()
    assert ask(commands, b"Hg3", b"P1=0000000000000000") == b"E16"
    assert ask(commands, b"c1000") == b"E16"


def test_memory() -> None:
    debuggee, commands, _ = session()
    assert ask(commands, b"m1000,4") == b"00010203"
    assert ask(commands, b"m10fe,10") == b"feff"
    assert ask(commands, b"m0,4") == b"E0e"
    assert ask(commands, b"M1002,2:aabb") == b"OK"
    assert ask(commands, b"X1004,3:#$\0") == b"OK"
    assert ask(commands, b"X0,0:") == b"OK"
    assert debuggee.read(START, 8) == b"\x00\x01\xaa\xbb#$\0\x07"
    assert ask(commands, b"M0,1:00") == b"E0e"
    assert ask(commands, b"M1000,2:00") == b"E16"


def test_breakpoints_and_watchpoints() -> None:
    debuggee, commands, _ = session()
    assert ask(commands, b"Z0,10,2", b"Z1,20,4", b"Z2,30,8", b"Z4,40,1") == b"OK"
    assert debuggee.breakpoints == {0x10, 0x20}
    assert debuggee.watchpoints == {("watch", 0x30, 8), ("awatch", 0x40, 1)}
    assert ask(commands, b"z0,10,2", b"z0,10,2", b"z2,30,8") == b"OK"
    assert debuggee.breakpoints == {0x20}
    assert debuggee.watchpoints == {("awatch", 0x40, 1)}
    assert ask(commands, b"Z2,30,0") == b"E16"
    assert ask(commands, b"Z5,30,1") == b""


@pytest.mark.parametrize(
    ("request_", "resume"),
    [
        (b"c", Resume({2: Action()}, Action())),
        (b"s", Resume({2: Action(step=True)}, Action())),
        (b"C0b", Resume({2: Action(signal=signal.SIGSEGV)}, Action())),
        (b"S1e", Resume({2: Action(step=True, signal=signal.SIGUSR1)}, Action())),
        (b"vCont;c", Resume({}, Action())),
        (b"vCont;s:2;c", Resume({2: Action(step=True)}, Action())),
        (b"vCont;C0a:3;s:2", Resume({3: Action(signal=signal.SIGBUS), 2: Action(step=True)})),
        (b"vCont;c:-1", Resume({}, Action())),
    ],
)
def test_going_on(request_: bytes, resume: Resume) -> None:
    _, commands, _ = session()
    assert ask(commands, request_) == resume


def test_going_on_elsewhere_and_with_one_thread() -> None:
    debuggee, commands, _ = session()
    assert ask(commands, b"Hc2", b"s1234") == Resume({2: Action(step=True)})
    assert debuggee.words[2][layout.PC] == 0x1234
    for bad in (b"vCont;x", b"vCont;s:9", b"vCont;C", b"vCont;Cff:2", b"vCont", b"C", b"Hc9"):
        answer = ask(commands, bad)
        assert isinstance(answer, bytes) and answer.startswith(b"E"), bad


def test_threads() -> None:
    _, commands, _ = session()
    assert ask(commands, b"qfThreadInfo") == b"m2,3"
    assert ask(commands, b"qsThreadInfo") == b"l"
    assert ask(commands, b"T3") == b"OK"
    assert ask(commands, b"T4") == b"E03"
    assert ask(commands, b"qThreadExtraInfo,3") == b"number 3".hex().encode()
    assert ask(commands, b"Hg3", b"qC") == b"QC3"


def test_documents_come_in_pieces() -> None:
    _, commands, _ = session()
    whole, offset = b"", 0
    while True:
        answer = ask(commands, b"qXfer:features:read:target.xml:%x,1f0" % offset)
        assert isinstance(answer, bytes)
        whole += answer[1:]
        offset = len(whole)
        if answer[:1] == b"l":
            break
        assert answer[:1] == b"m"
    assert whole == target_xml.RISCV64
    assert ask(commands, b"qXfer:auxv:read::0,1000") == b"l" + FakeDebuggee().auxiliary()
    assert ask(commands, b"qXfer:exec-file:read:2:0,1000") == b"l/bin/guest"
    assert ask(commands, b"qXfer:features:read:other.xml:0,10") == b"E00"


def test_why_it_stands_and_how_it_ended() -> None:
    _, commands, _ = session()
    assert ask(commands, b"?") == b"T05thread:2;"
    assert stop_reply(Stop(3, signal.SIGTRAP, "swbreak:")) == b"T05thread:3;swbreak:;"
    assert stop_reply(Stop(3, signal.SIGBUS)) == b"T0athread:3;"
    assert end_reply(3 << 8) == b"W03"
    assert end_reply(signal.SIGBUS) == b"X0a"
    assert ask(commands, b"D") is Parting.DETACH
    assert ask(commands, b"k") is ask(commands, b"vKill;1") is Parting.KILL


def test_signals_have_gdb_s_numbers() -> None:
    assert len(FROM_GDB) == len(TO_GDB)
    assert {int(number) for number in signal.Signals} - {signal.SIGSTKFLT} <= set(TO_GDB)
    assert (to_gdb(signal.SIGSTKFLT), to_gdb(34), from_gdb(0), from_gdb(30)) == (143, 46, 0, signal.SIGUSR1)
    with pytest.raises(ValueError):
        from_gdb(0x90)


def test_signals_to_pass() -> None:
    debuggee, commands, _ = session()
    assert ask(commands, b"QPassSignals:e;14;97;") == b"OK"
    assert debuggee.passed == {signal.SIGALRM, signal.SIGCHLD}


def test_monitor_says_what_it_can() -> None:
    _, commands, _ = session()
    for word, found in (("help", "figures"), ("figures", "instructions: 1,234"), ("reset", "no command")):
        answer = ask(commands, b"qRcmd," + word.encode().hex().encode())
        assert isinstance(answer, bytes) and found in bytes.fromhex(answer.decode()).decode()


def test_files_can_be_read_and_nothing_else(tmp_path: Path) -> None:
    _, commands, files = session()
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    name = os.fsencode(path).hex().encode()
    assert ask(commands, b"vFile:setfs:0") == b"F0"
    assert ask(commands, b"vFile:open:%b,0,0" % name) == b"F0"
    assert ask(commands, b"vFile:pread:0,4,10") == b"F4;\x10\x11\x12\x13"
    assert ask(commands, b"vFile:pread:0,4,64") == b"F0;"
    answer = ask(commands, b"vFile:fstat:0")
    assert isinstance(answer, bytes) and answer[:4] == b"F40;" and len(answer) == 4 + 64
    mode, size = struct.unpack_from(">8xI16xQ", answer, 4)
    assert stat.S_ISREG(mode) and size == 100
    assert ask(commands, b"vFile:close:0") == b"F0"
    for request, error in (
        (b"vFile:close:0", 9),
        (b"vFile:pread:7,1,0", 9),
        (b"vFile:open:%b,1,0" % name, 30),
        (b"vFile:open:%b,241,1a4" % name, 30),
        (b"vFile:open:%b,0,0" % os.fsencode(tmp_path).hex().encode(), 13),
        (b"vFile:open:%b,0,0" % b"/dev/null".hex().encode(), 13),
        (b"vFile:open:%b,0,0" % b"/nowhere".hex().encode(), 2),
        (b"vFile:open:2f0061,0,0", 22),
    ):
        assert ask(commands, request) == b"F-1,%x" % error, request
    for _ in range(16):
        ask(commands, b"vFile:open:%b,0,0" % name)
    assert ask(commands, b"vFile:open:%b,0,0" % name) == b"F-1,18"
    files.close()
