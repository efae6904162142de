"""The emulated processor: memory and its rights, calls both ways, threads that take turns, faults."""

import errno
import mmap
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtus.vcpus import program_state
from virtus.vcpus.emulated_x86 import engine, library
from virtus.vcpus.emulated_x86.engine import EmulatedX86
from virtus.vcpus.emulated_x86.memory import PAGE, SPACE, AddressSpace
from virtus.vcpus.program_state import NO_VECTOR, RCX, RIP, RSP, CpuContext, CpuFault

pytestmark = pytest.mark.skipif(library.find() is None, reason="the Python package unicorn is not installed")
READ, WRITE, EXECUTE = mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC


class Violation(Exception):
    """An address that may not be used."""


class Program:
    """An engine with one function of ours, whose faults are kept."""

    def __init__(self) -> None:
        self.faults: list[CpuFault] = []
        self.contexts: list[CpuContext] = []
        self.seen: list[tuple[int, ...]] = []
        self.engine = EmulatedX86(
            lambda address, write: Violation(address), self.lookup, self.fault, self.ended, self.failed
        )
        self.memory = self.engine.memory
        self.engine.make_stack(1 << 16)
        self.code = self.memory.map(0, PAGE, READ | EXECUTE)
        self.used = 0

    def lookup(self, dll: str, name: str) -> Any:
        def six(frame: int) -> int:
            arguments = struct.unpack("<6Q", self.memory.read(frame, 48))
            self.seen.append(arguments)
            return sum(arguments)

        return {"six": six, "wait": lambda frame: self.engine.wait(lambda: bool(self.seen), None)}.get(name)

    def fault(self, fault: CpuFault, context: CpuContext) -> CpuContext:
        """Skips to the return address."""
        self.faults.append(fault)
        self.contexts.append(context)
        general = list(context.general)
        general[RIP] = self.memory.u64(general[RSP])
        general[RSP] += 8
        general[0] = 0xBAD
        return CpuContext(general, context.vectors, context.mxcsr)

    def ended(self, status: int) -> None:
        raise AssertionError(status)

    def failed(self, error: BaseException) -> None:
        raise AssertionError from error

    def place(self, code: str) -> int:
        """Code for the guest; its address."""
        address = self.code + self.used
        data = bytes.fromhex(code)
        self.memory.protect(self.code, PAGE, READ | WRITE)
        self.memory.write(address, data)
        self.memory.protect(self.code, PAGE, READ | EXECUTE)
        self.used += -(-len(data) // 16) * 16
        return address


@pytest.fixture
def program() -> Iterator[Program]:
    made = Program()
    yield made
    made.engine.close()


def test_a_guest_function_gets_its_arguments_and_gives_its_result(program: Program) -> None:
    add = program.place("488d0411 4c01c0 4c01c8 4803442428 c3")  # all of five arguments
    assert program.engine.call(add, 1, 20, 300, 4000, 50000) == 54321
    assert program.engine.call(add, 2**64 - 1, 2) == 1


def test_one_of_our_functions_gets_six_arguments_in_a_row(program: Program) -> None:
    six = program.engine.resolve("any", "six")
    assert six is not None
    through = program.place(
        "4883ec38 48c744242005000000 48c744242806000000 48b8" + struct.pack("<Q", six).hex() + "ffd0 4883c438 c3"
    )
    assert program.engine.call(through, 1, 2, 3, 4) == 21
    assert program.seen == [(1, 2, 3, 4, 5, 6)]
    assert program.engine.resolve("any", "six") == six
    assert program.engine.resolve("any", "seven") is None


def test_our_function_calls_back_and_registers_survive(program: Program) -> None:
    double = program.place("488d0409c3")
    nested = program.engine.entry_point(
        lambda frame: program.engine.call(double, program.memory.u64(frame)) + program.engine.call(double, 5)
    )
    through = program.place(
        "53 4883ec20 bb64000000 48b8" + struct.pack("<Q", nested).hex() + "ffd0 4801d8 4883c420 5b c3"
    )
    assert program.engine.call(through, 7) == 14 + 10 + 100


@pytest.mark.parametrize(
    ("code", "vector", "kind"),
    [
        ("8b01c3", NO_VECTOR, program_state.READ),  # mov eax, [rcx]
        ("8901c3", NO_VECTOR, program_state.WRITE),  # mov [rcx], eax
        ("31d2 31c9 f7f1 c3", 0, 0),  # division by zero
        ("0f0b c3", 6, 0),  # ud2
        ("cc c3", 3, 0),  # int3
    ],
)
def test_faults_are_told_with_exact_registers(program: Program, code: str, vector: int, kind: int) -> None:
    address = program.place(code)
    assert program.engine.call(address, 0x12345) == 0xBAD
    (fault,) = program.faults
    assert (fault.vector, fault.kind) == (vector, kind)
    if kind:
        assert fault.page == 0x12000
        assert program.contexts[0].general[RIP] == address
        assert program.contexts[0].general[RCX] == 0x12345


def test_code_that_changes_is_seen(program: Program) -> None:
    address = program.place("b801000000c3")
    assert program.engine.call(address) == 1
    program.used = 0
    assert program.place("b802000000c3") == address
    assert program.engine.call(address) == 2


@pytest.mark.parametrize("rights", [READ | EXECUTE, READ | WRITE | EXECUTE])
def test_other_code_at_the_same_address_is_seen(program: Program, rights: int) -> None:
    memory = program.memory
    for value in range(3):
        # the page before holds no code
        address = memory.map(0x3_0000_0000, 2 * PAGE, READ | WRITE) + PAGE
        memory.write(address, b"\xb8" + value.to_bytes(4, "little") + b"\xc3")  # mov eax, value; ret
        memory.protect(address, PAGE, rights)
        assert program.engine.call(address) == value
        memory.unmap(address - PAGE, 2 * PAGE)


def test_code_that_the_program_stores_is_seen(program: Program) -> None:
    address = program.memory.map(0, PAGE, READ | WRITE | EXECUTE)
    store = program.place("8811 c3")  # mov [rcx], dl; ret
    for value in range(3):
        for offset, byte in enumerate(b"\xb8" + value.to_bytes(4, "little") + b"\xc3"):
            program.engine.call(store, address + offset, byte)
        assert program.engine.call(address) == value


def test_a_page_that_lost_a_right_faults(program: Program) -> None:
    store = program.place("890131c0c3")
    page = program.memory.map(0, PAGE, READ | WRITE)
    assert program.engine.call(store, page) == 0
    program.memory.protect(page, PAGE, READ)
    assert program.engine.call(store, page) == 0xBAD
    program.memory.unmap(page, PAGE)
    assert program.engine.call(store, page) == 0xBAD


def test_data_pages_are_not_executed(program: Program) -> None:
    page = program.memory.map(0, PAGE, READ | WRITE)
    program.memory.write(page, b"\xc3")
    assert program.engine.call(page) == 0xBAD
    assert program.faults[0].page == page


def test_no_guest_page_is_executable_for_the_host(program: Program) -> None:
    low, high = program.memory.base, program.memory.base + SPACE
    seen: list[str] = []

    def look(_frame: int) -> int:
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            start, end = (int(word, 16) for word in span.split("-"))
            if start < high and end > low:
                seen.append(rights)
        return 0

    inside = program.engine.entry_point(look)
    through = program.place("4883ec28 48b8" + struct.pack("<Q", inside).hex() + "ffd0 4883c428 c3")
    program.engine.call(through)
    assert len(seen) > 1
    assert not [rights for rights in seen if "x" in rights]


def test_threads_take_turns_even_in_a_loop_without_end(program: Program) -> None:
    memory = program.memory
    flag = memory.map(0, PAGE, READ | WRITE)
    spin = program.place("8b01 85c0 74fa c3")  # until [rcx] is not 0

    def body() -> None:
        program.engine.set_teb(program.engine.stack()[0])
        program.engine.call(program.place("c70101000000c3"), flag)

    program.engine.start_thread(body, 0)
    assert program.engine.call(spin, flag) == 1


def test_a_slice_may_end_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks with stores in them run once, whenever somebody asks for a stop."""
    monkeypatch.setattr(engine, "SLICE_S", 0.0001)
    program = Program()
    data, turns = program.memory.map(0, PAGE, READ | WRITE), 3_000_000
    count = program.place(
        "4d31c0"  # xor  r8, r8
        "48ff01 49ffc0 48ff4108"  # inc  [rcx]; inc r8; inc [rcx+8]
        "4150 4158 48ffca 75ee"  # push r8; pop r8; dec rdx; jnz
        "4c89c0 c3"  # mov  rax, r8; ret
    )
    try:
        assert program.engine.call(count, data, turns) == turns
        assert [program.memory.u64(data), program.memory.u64(data + 8)] == [turns, turns]
    finally:
        program.engine.close()


def test_who_waits_lets_others_run(program: Program) -> None:
    done: list[bool] = []
    program.engine.start_thread(lambda: done.append(True), 0)
    assert program.engine.wait(lambda: bool(done), None)
    assert not program.engine.wait(lambda: False, 0)


def test_continuing_further_out_unwinds_our_frames(program: Program) -> None:
    unwound: list[bool] = []
    inner: list[int] = []
    saved: list[CpuContext] = []

    def outer(_frame: int) -> int:
        context = program.engine.context()
        general = list(context.general)
        general[0] = 77
        saved.append(CpuContext(general, context.vectors, context.mxcsr))
        try:
            program.engine.call(inner[0])
        finally:
            unwound.append(True)
        return 0

    def jump(_frame: int) -> int:
        program.engine.continue_at(saved[0].general, saved[0].vectors, saved[0].mxcsr)

    def caller(address: int) -> int:
        return program.place("4883ec28 48b8" + struct.pack("<Q", address).hex() + "ffd0 4883c428 c3")

    inner.append(caller(program.engine.entry_point(jump)))
    assert program.engine.call(caller(program.engine.entry_point(outer))) == 77
    assert unwound == [True]


# The address space --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def space() -> Iterator[AddressSpace]:
    made = AddressSpace(lambda address, write: Violation(address, write))
    yield made
    made.close()


def test_mappings_are_refused_where_something_is(space: AddressSpace) -> None:
    address = space.map(0x1_4000_0000, 3 * PAGE, READ | WRITE)
    with pytest.raises(OSError) as caught:
        space.map(address + PAGE, PAGE, READ)
    assert caught.value.errno == errno.EEXIST
    for bad in (0x1000, SPACE, SPACE - PAGE):
        with pytest.raises(OSError):
            space.map(bad, PAGE, READ)
    space.unmap(address + PAGE, PAGE)
    space.write(address + PAGE - 1, b"a")
    with pytest.raises(Violation):
        space.read(address + PAGE - 1, 2)
    assert space.map(address + PAGE, PAGE, READ) == address + PAGE
    assert space.read(address + PAGE - 1, 2) == b"a\0"
    space.unmap(address, 3 * PAGE)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 31), st.integers(1, 8), st.sampled_from(["map", "unmap", "any"])), max_size=30)
)
def test_mappings_are_where_a_simple_model_says(steps: list[tuple[int, int, str]]) -> None:
    made = AddressSpace(lambda address, write: Violation(address, write))
    base = 0x2_0000_0000
    taken: set[int] = set()
    try:
        for first, count, what in steps:
            pages = set(range(first, first + count))
            if what == "map":
                if pages & taken:
                    with pytest.raises(OSError):
                        made.map(base + first * PAGE, count * PAGE, READ)
                else:
                    made.map(base + first * PAGE, count * PAGE, READ)
                    taken |= pages
            elif what == "unmap":
                made.unmap(base + first * PAGE, count * PAGE)
                taken -= pages
            else:
                found = made.map(0, count * PAGE, READ)
                assert found % 0x10000 == 0
                assert not base <= found < base + 40 * PAGE
        for page in range(40):
            if page in taken:
                assert made.read(base + page * PAGE, 1) == b"\0"
            else:
                with pytest.raises(Violation):
                    made.read(base + page * PAGE, 1)
    finally:
        made.close()


@given(st.integers(0, 2**64 - 1), st.integers(0, 1 << 20))
def test_any_address_is_checked(space: AddressSpace, address: int, size: int) -> None:
    if address >> 12 == 0 or address > SPACE:
        for access in (lambda: space.read(address, max(size, 1)), lambda: space.set_u64(address, 0)):
            with pytest.raises(Violation):
                access()


@given(st.text(max_size=40), st.integers(0, 3))
def test_strings_are_read_over_page_ends(space: AddressSpace, text: str, shift: int) -> None:
    text = text.replace("\0", "")
    address = space.map(0, 2 * PAGE, READ | WRITE)
    place = address + PAGE - 20 + shift
    space.write(place, text.encode("utf-16-le") + b"\0\0")
    assert space.wide(place) == text
    space.write(place, text.encode() + b"\0")
    assert space.string(place) == text.encode()
    space.unmap(address, 2 * PAGE)


def test_files_are_mapped_shared_and_private(space: AddressSpace) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 5000)
        file.flush()
        shared = space.map_file(0, 3 * PAGE, READ | WRITE, file.fileno(), 0, private=False)
        private = space.map_file(0, 5000, READ | WRITE, file.fileno(), 0, private=True)
        space.write(shared, b"yy")
        space.write(private, b"zz")
        assert space.read(shared + 4999, 2) == b"x\0"
        with pytest.raises(Violation):
            space.read(shared + 2 * PAGE, 1)
        file.seek(0)
        assert file.read(3) == b"yyx"
        assert space.read(private, 3) == b"zzx"


def test_a_step_of_compare_and_exchange(space: AddressSpace) -> None:
    address = space.map(0, PAGE, READ | WRITE)
    assert space.compare_exchange(address, 4, 0, 7) == 0
    assert space.compare_exchange(address, 8, 0, 9) == 7
    assert space.u64(address) == 7
    space.protect(address, PAGE, READ)
    with pytest.raises(Violation):
        space.compare_exchange(address, 4, 7, 1)
