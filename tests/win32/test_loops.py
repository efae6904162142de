"""Loops that run as LLVM's code do what Unicorn does with them: registers, flags, memory, and where they are left."""

import struct
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtus.vcpus.emulated_x86 import engine, library
from virtus.vcpus.emulated_x86.engine import EmulatedX86
from virtus.vcpus.emulated_x86.memory import EXECUTE, PAGE, READ, WRITE
from virtus.vcpus.program_state import RIP, CpuContext, CpuFault

pytest.importorskip("iced_x86", reason="the Python package iced-x86 is not installed")
pytestmark = pytest.mark.skipif(library.find() is None, reason="the Python package unicorn is not installed")

CODES = """
4088f0 4488c0 4100c0 4488e1 450fb6e1 4183c401 4c89e0 4989c4 4400e0 400fb6c6 4531c9 4d01d1 41f7d2
4801d8 29c8 6601d1 00c3 4821d1 09c2 4831f0 4883c003 81e9ff000000 3c05 6639d9 4885c0 a810 84db 48ffc0 66ffc9
fec2 48f7d8 f7d1 48c1e005 c1e903 48d1fa 6648c1e004 66c1e90a c0e302 480fafc3 6bd109 4869d31f860100 4889c8
6689d1 88d8 48c7c1efbeadde b8ffffffff 0fb6c3 480fbed1 0fb7ca 4863d1 480fbfc2 4898 98 488d4c5805 8d441b07
480f44c3 0f4cd1 660f43c2 0f94c0 0f9fc3 0f92c1 0f9ac2 488b4608 8b4e10 668b5602 8a5e01 488946e0 894e18
66895604 885e07 48034620 01560c 4883462805 80460903 f20f100e f30f105604 f20f114e30 f30f115638 f20f10ca
f30f10d3 0f28c1 660f28d0 0f104640 0f114e50 f30f6f5660 f20f58c1 f20f5cd3 f20f59ca f20f5ed9 f30f58c1 f30f5cd3
f30f59ca f30f5ed9 f20f584608 f30f594e10 f20f5dc1 f20f5fd3 f30f5dca f30f5fd9 660f58c1 660f5cd3 660f59ca
0f58c1 0f5cd3 0f59ca 660f5dc1 0f5fd3 0f57c9 660fefd2 0f54c1 660fdbd3 0f56ca 660febd9 660ffec1 660fd4d3
660ffaca 660ffbd9 660ffcc1 660fd5d3 660f3840ca 660f14c1 660f15d3 660f2ec1 0f2ed3 660f2f4608 f2480f2ac0
f30f2ac9 f30f5ac1 f20f5ad3 90 668d4c5805 488b46fc 488956fc 0f1046f8 0f1156f8 014eff
"""
BODY = [bytes.fromhex(code) for code in CODES.split()]
"""Every kind of instruction that is translated, on RAX, RCX, RDX, RBX, RSI as the memory's base and XMM0 to XMM3."""
SKIPPED = st.builds(
    lambda condition, part: bytes((0x70 | condition, len(part))) + part, st.integers(0, 15), st.sampled_from(BODY)
)
"""An instruction behind a conditional jump over it."""
REPEATED = st.builds(
    lambda times, part, skipped: (
        b"\x41\xbb" + times.to_bytes(4, "little") + part + skipped  # mov r11d, times
        + b"\x41\xff\xcb\x75" + bytes((256 - len(part + skipped) - 5,))  # dec r11d; jnz
    ),
    st.integers(1, 5), st.sampled_from(BODY), SKIPPED,
)  # fmt: skip
"""A loop in the loop."""
PARTS = st.one_of(st.sampled_from(BODY), st.sampled_from(BODY), SKIPPED, REPEATED)
CLOSE = bytes.fromhex("48ffcf")  # dec rdi


class Violation(Exception):
    """An address that may not be used."""


class Machine:
    """An engine whose loops are translated when they are told to be."""

    def __init__(self) -> None:
        self.faults: list[CpuContext] = []
        self.engine = EmulatedX86(
            lambda address, write: Violation(address),
            lambda dll, name: None,
            self.fault,
            lambda status: None,
            self.raised,
        )
        self.engine.make_stack(1 << 16)
        self.memory = self.engine.memory
        self.code = self.memory.map(0x3_0000_0000, PAGE, READ | EXECUTE)
        self.data = self.memory.map(0x3_0010_0000, 2 * PAGE, READ | WRITE) + PAGE

    def fault(self, fault: CpuFault, context: CpuContext) -> CpuContext:
        """Ends the loop."""
        self.faults.append(context)
        if len(self.faults) > 1:
            raise Violation
        general = list(context.general)
        general[RIP] = self.code + 2048
        return CpuContext(general, context.vectors, context.mxcsr)

    def raised(self, error: BaseException) -> None:
        raise AssertionError from error

    def place(self, body: bytes) -> int:
        """A function: a prologue that loads everything from memory, the loop, an epilogue that stores it. The head."""
        load = b"\x56\x57\x53" + bytes.fromhex(
            "4889ce 4889d7".replace(" ", "")
        )  # push rsi, rdi, rbx; mov rsi, rcx; ...
        load += bytes.fromhex("488b8680070000 488b8e88070000 488b9690070000 488b9e98070000".replace(" ", ""))
        load += bytes.fromhex("4d31c04d31c94d31d24d31e4")  # xor r8, r8; and r9, r10, r12
        for number in range(4):
            load += bytes.fromhex("0f10") + bytes((0x86 | number << 3,)) + struct.pack("<I", 0x7A0 + 16 * number)
        loop = body + CLOSE
        jump = b"\x0f\x85" + struct.pack("<i", -(len(loop) + 6))
        store = bytes.fromhex("9c 8f86e0070000".replace(" ", ""))  # pushfq; pop [rsi+0x7e0]
        store += bytes.fromhex("48898680070000 48898e88070000 48899690070000 48899e98070000".replace(" ", ""))
        for number in range(4):
            store += bytes.fromhex("0f11") + bytes((0x86 | number << 3,)) + struct.pack("<I", 0x7A0 + 16 * number)
        store += b"\x5b\x5f\x5e\xc3"
        self.memory.protect(self.code, PAGE, READ | WRITE)
        self.memory.write(self.code, (load + loop + jump + store).ljust(2048, b"\xcc") + b"\x5b\x5f\x5e\xc3")
        self.memory.protect(self.code, PAGE, READ | EXECUTE)
        return self.code + len(load)

    def run(self, data: bytes, turns: int) -> bytes:
        """Memory after the loop has been run on it."""
        self.memory.write(self.data - PAGE, bytes(PAGE))
        self.memory.write(self.data, data)
        self.faults.clear()
        self.engine.call(self.code, self.data, turns)
        assert not self.faults
        return self.memory.read(self.data - PAGE, PAGE + len(data))


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.engine.close()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(PARTS, min_size=3, max_size=9), st.binary(min_size=64, max_size=64), st.integers(2, 9))
def test_a_translated_loop_does_the_same(machine: Machine, parts: list[bytes], seed: bytes, turns: int) -> None:
    data = (seed * 32)[:0x780] + (seed[::-1] * 2)[:128]
    data = data.ljust(0x800, b"\0")
    head = machine.place(b"".join(parts))
    wanted = machine.run(data, turns)
    assert machine.engine.loops.translate(head), [part.hex() for part in parts]
    got = machine.run(data, turns)
    if machine.engine.loops.translated[head].counts[0] == 0:  # it was looked at just when the loop began
        got = machine.run(data, turns)
    assert machine.engine.loops.translated[head].counts[0] >= 1  # the first turn belongs to the block before
    # numbers that are none differ in their sign and payload between processors
    assert got == wanted or _same(got, wanted), [part.hex() for part in parts]


def _same(one: bytes, other: bytes) -> bool:
    """Whether two memories differ only in numbers that are none."""
    for place in range(0, len(one), 8):
        if one[place : place + 8] == other[place : place + 8]:
            continue
        for kind, step in (("<d", 8), ("<f", 4)):
            pairs = zip(
                struct.iter_unpack(kind, one[place : place + 8]), struct.iter_unpack(kind, other[place : place + 8]),
                strict=True,
            )  # fmt: skip
            if all(a == b or (a[0] != a[0] and b[0] != b[0]) for a, b in pairs) and step:
                break
        else:
            return False
    return True


def test_a_fault_in_a_loop_has_exact_registers(machine: Machine) -> None:
    walk = bytes.fromhex("488b06 4883c608".replace(" ", ""))  # mov rax, [rsi]; add rsi, 8: off the end of the page
    head = machine.place(walk)
    assert machine.engine.loops.translate(head)
    machine.faults.clear()
    machine.memory.write(machine.data, bytes(PAGE))
    machine.engine.call(machine.code, machine.data, 100_000)
    (context,) = machine.faults
    assert context.general[RIP] == head
    assert context.general[6] == machine.data + PAGE  # RSI
    assert context.general[7] == 100_000 - PAGE // 8  # RDI


def test_a_store_into_code_is_unicorns(machine: Machine) -> None:
    head = machine.place(bytes.fromhex("8806"))  # mov [rsi], al
    assert machine.engine.loops.translate(head)
    page = machine.memory.map(0, PAGE, READ | WRITE | EXECUTE)
    machine.memory.write(page, bytes(PAGE))
    machine.engine.call(machine.code, page, 5)
    assert machine.engine.loops.translated[head].counts[1] == 0


def test_a_loop_that_changes_is_forgotten(machine: Machine) -> None:
    head = machine.place(bytes.fromhex("48ffc0"))
    assert machine.engine.loops.translate(head)
    machine.place(bytes.fromhex("48ffc1"))
    assert head not in machine.engine.loops.translated


def test_stores_and_slices_of_a_translated_loop_are_in_step(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is left and entered."""
    monkeypatch.setattr(engine, "SLICE_S", 0.0001)
    head = machine.place(bytes.fromhex("48ff06 48ffc0 48ff4608"))  # inc [rsi]; inc rax; inc [rsi+8]
    assert machine.engine.loops.translate(head)
    turns = 20_000_000
    seen = machine.run(bytes(PAGE), turns)[PAGE:]
    assert struct.unpack_from("<QQ", seen) == (turns, turns)
    assert struct.unpack_from("<Q", seen, 0x780) == (turns,)
    entered, rounds = machine.engine.loops.translated[head].counts
    assert entered > 1
    assert turns - entered * 2 <= rounds < turns


def test_code_that_may_be_stored_to_is_unicorns(machine: Machine) -> None:
    head = machine.place(bytes.fromhex("48ffc0"))
    machine.memory.protect(machine.code, PAGE, READ | WRITE | EXECUTE)
    assert not machine.engine.loops.translate(head)


def test_loops_are_unicorns_once_other_processes_see_their_stores() -> None:
    machine = Machine()
    try:
        head = machine.place(bytes.fromhex("48ffc0"))
        assert machine.engine.loops.translate(head)
        with tempfile.TemporaryFile() as file:
            file.truncate(PAGE)
            machine.memory.map_file(0, PAGE, READ, file.fileno(), 0, private=False)
            assert head in machine.engine.loops.translated
            machine.memory.map_file(0, PAGE, READ | WRITE, file.fileno(), 0, private=False)
        assert head not in machine.engine.loops.translated
        assert not machine.engine.loops.translate(head)
    finally:
        machine.engine.close()


def test_a_loop_in_the_loop_lets_others_run(machine: Machine) -> None:
    head = machine.place(bytes.fromhex("4c8b1e4d85db75f8"))  # mov r11, [rsi]; test r11, r11; jnz: for somebody to end
    assert machine.engine.loops.translate(head)
    machine.memory.write(machine.data, b"\1" * 8)
    machine.engine.start_thread(lambda: machine.memory.write(machine.data, bytes(8)), 0)
    machine.engine.call(machine.code, machine.data, 5)
    assert machine.engine.loops.translated[head].counts[1] > 0


def test_a_register_of_the_second_byte_is_refused(machine: Machine) -> None:
    assert not machine.engine.loops.translate(machine.place(bytes.fromhex("0f94c4")))  # sete ah


def test_a_call_in_a_loop_is_refused(machine: Machine) -> None:
    assert not machine.engine.loops.translate(machine.place(bytes.fromhex("e800000000")))


def test_a_loop_without_end_lets_others_run(machine: Machine) -> None:
    head = machine.place(bytes.fromhex("4883c702"))  # add rdi, 2: with the decrement, never 0 for long
    assert machine.engine.loops.translate(head)
    done = threading.Event()

    def body() -> None:
        done.set()
        machine.memory.protect(machine.code, PAGE, READ)  # which ends the loop by a fault

    machine.engine.start_thread(body, 0)
    machine.faults.clear()
    begun = time.monotonic()
    try:
        machine.engine.call(machine.code, machine.data, 3)
    except Violation:
        pass
    assert done.is_set()
    assert time.monotonic() - begun < 60
