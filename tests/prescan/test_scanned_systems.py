"""Whole generated systems, run directly, by single steps of the evaluator, by Unicorn and by QEMU: the same outcome.

Paging with pages that come and go, handlers of every exception, a program at level 3, interrupts, and sensitive
instructions at both levels, many of which fault. What the handlers saw (EIP, error code, CR2, flags, stack) is in the
images that are compared.
"""

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from tests.prescan import systems
from tests.prescan.instructions import instructions
from tests.prescan.machines import needs_assembler
from tests.prescan.systems import (
    ACCESSED,
    BASE,
    DIFFERS_WITH_RARE,
    END,
    LEAVE,
    LOG,
    LOG_SIZE,
    MEMORY,
    OTHER_TABLE,
    RAISE,
    RAISED,
    RARE,
    RARE_LOG,
    RARE_LOG_SIZE,
    SIZE,
    TABLE,
)
from tests.prescan.test_scanning import ordinary
from virtus.errors import HostLacks
from virtus.exits import Exit, Reason
from virtus.memory.guest_memory import GuestMemory
from virtus.vcpus.emulated_x86 import library
from virtus.vcpus.scanned import delivery, known_segments, patches
from virtus.vcpus.scanned.cpu_state import CR0_ET, CR0_PE, CS, MASK32, CpuState
from virtus.vcpus.scanned.evaluator import Evaluator
from virtus.vcpus.scanned.faults import PF, GuestFault, NotEvaluated, TripleFault
from virtus.vcpus.scanned.memory_access import PagedMemory, PhysicalSpace
from virtus.vcpus.scanned.vcpu import ScannedVcpu

FLAT_CODE, FLAT_DATA = 0xC09B, 0xC093
MOST_STEPS = 60_000
QEMU = "qemu-system-i386"
HOT = 2
"""Traps after which a site becomes a patch here: most of a system's do."""
PATIENCE_S = 60
MOST_BETWEEN_S, MOST_RARE = 0.002, 300
"""Seconds between two interrupts from outside, and how many there are."""

pytestmark = [pytest.mark.slow, needs_assembler]


class Board:
    """Ports that answer with numbers from a list, and an interrupt controller that a port and a thread raise."""

    def __init__(self) -> None:
        self.vectors: list[int] = []
        self.reads = 0
        self.ended = False
        self.deaf = False
        """Whether the port raises nothing."""

    def read(self, port: int, size: int) -> int:
        self.reads += 1
        return self.reads * 0x9E3779B1 >> 3 & (1 << 8 * size) - 1

    def write(self, port: int, size: int, value: int) -> None:
        if port == RAISE and not self.deaf and RAISED not in self.vectors:
            self.vectors.append(RAISED)
        self.ended = self.ended or port == END

    def pending(self) -> bool:
        return bool(self.vectors)

    def acknowledge(self) -> int:
        return self.vectors.pop(0)


def begin(state: CpuState, image: bytes, ram: GuestMemory) -> None:
    """As a multiboot loader leaves it."""
    ram.bytes[:] = bytes(MEMORY)
    ram.bytes[BASE : BASE + SIZE] = image
    state.reset()
    state.cr0 = CR0_PE | CR0_ET
    for number, segment in enumerate(state.segments):
        segment.load(*((8, 0, MASK32, FLAT_CODE) if number == CS else (16, 0, MASK32, FLAT_DATA)))
    state.eip = int.from_bytes(image[28:32], "little")  # the header's entry


class Single:
    """The evaluator, one instruction after the other."""

    def __init__(self) -> None:
        self.ram, self.board, self.state = GuestMemory(MEMORY, "single"), Board(), CpuState()
        self.memory = PagedMemory(self.state, PhysicalSpace(self.ram), self)
        self.evaluator = Evaluator(self.state, self.memory, self.board)
        self.visited: set[tuple[int, int]] = set()

    def read(self, address: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def write(self, address: int, size: int, value: int) -> None:
        pass

    def run(self, image: bytes, *, deaf: bool = False) -> bytes:
        state, board = self.state, self.board
        begin(state, image, self.ram)
        self.memory.flush()
        board.__init__()  # type: ignore[misc]
        board.deaf = deaf
        self.visited.clear()
        for _ in range(MOST_STEPS):
            if state.interruptible and board.pending():
                delivery.deliver_interrupt(self.evaluator.execution, board.acknowledge())
                continue
            self.visited.add((state.eip, state.segments[CS].selector))
            try:
                self.evaluator.step()
            except GuestFault as fault:
                delivery.deliver_fault(self.evaluator.execution, fault)
            if board.ended:
                return bytes(self.ram.bytes[BASE : BASE + SIZE])
        raise Runaway(state.describe())

    def close(self) -> None:
        self.ram.close()


class Runaway(Exception):
    """A system that does not end: its code was overwritten, or left."""


class Whole:
    """A vCPU of ours with its exits answered."""

    def __init__(self, make: Callable[[PhysicalSpace, Board], ScannedVcpu]) -> None:
        self.ram, self.board = GuestMemory(MEMORY, "whole"), Board()
        self.vcpu = make(PhysicalSpace(self.ram), self.board)

    def run(self, image: bytes, *, deaf: bool = False) -> bytes:
        vcpu, board = self.vcpu, self.board
        begin(vcpu.state, image, self.ram)
        vcpu.memory.flush()
        vcpu.flush_instructions(0, MEMORY)
        board.__init__()  # type: ignore[misc]
        board.deaf = deaf
        limit = time.monotonic() + PATIENCE_S
        while not board.ended:
            found = vcpu.run()
            if found.reason in (Reason.PORT_IO, Reason.MEMORY_IO):
                self._answer(found.reason is Reason.PORT_IO, found)
            else:
                assert found.reason is Reason.EVENT, (found.reason, vcpu.state.describe())
                assert time.monotonic() < limit, vcpu.state.describe()
        return bytes(self.ram.bytes[BASE : BASE + SIZE])

    def _answer(self, port: bool, found: Exit) -> None:
        if not port:
            found.value = (1 << 8 * found.size) - 1
            return
        value, bits = 0, 8 * found.size
        for at in range(found.count):
            if found.write:
                self.board.write(found.number, found.size, found.value >> bits * at & (1 << bits) - 1)
            else:
                value |= self.board.read(found.number, found.size) << bits * at
        if not found.write:
            found.value = value

    def close(self) -> None:
        self.vcpu.close()
        self.ram.close()


@pytest.fixture(scope="module")
def direct() -> Iterator[Whole]:
    if library.find() is None:
        pytest.skip("the package unicorn is not installed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(patches, "HOT", HOT)
        patched.setattr(known_segments, "PATIENCE", 1)
        try:
            made = Whole(ScannedVcpu)
        except HostLacks as error:
            pytest.skip(str(error))
        yield made
        made.close()


@pytest.fixture(scope="module")
def single() -> Iterator[Single]:
    made = Single()
    yield made
    made.close()


def generated(
    drawn: list[bytes], seed: int, directory: Path, *, outside: bool = False, below_stack: bool = True
) -> bytes:
    parts = [part for part in map(ordinary, drawn) if part is not None]
    generator = systems.Generator(random.Random(seed), outside=outside, below_stack=below_stack)
    return systems.build(generator.system(parts[::2], parts[1::2]), directory)


def differences(ours: bytes, theirs: bytes, but: tuple[tuple[int, int], ...] = ()) -> list[str]:
    """Where images differ, a word a line."""
    return [
        f"{at:#x}: {ours[at : at + 4][::-1].hex()} instead of {theirs[at : at + 4][::-1].hex()}"
        for at in range(0, SIZE, 4)
        if ours[at : at + 4] != theirs[at : at + 4] and not any(start <= at < end for start, end in but)
    ][:40]


def visible(state: CpuState) -> list[str]:
    """The registers but EIP, which is at or behind the last instruction, and flags."""
    return [line for line in state.describe().splitlines() if not line.startswith("eip")]


def by_single_steps(single: Single, image: bytes, *, deaf: bool = False) -> bytes:
    """Its outcome; systems that leave their code are not looked at."""
    try:
        return single.run(image, deaf=deaf)
    except (Runaway, NotEvaluated, TripleFault):
        assume(False)
        raise


def some(count: int) -> settings:
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


code = given(st.lists(instructions(32), min_size=20, max_size=80), st.integers(0, 1 << 32))


@some(60)
@code
def test_a_system_ends_as_by_single_steps(
    direct: Whole, single: Single, tmp_path_factory: pytest.TempPathFactory, drawn: list[bytes], seed: int
) -> None:
    image = generated(drawn, seed, tmp_path_factory.getbasetemp())
    theirs = by_single_steps(single, image)
    assert not differences(direct.run(image), theirs)
    assert visible(direct.vcpu.state) == visible(single.state)


@some(30)
@code
def test_interrupts_at_any_time_change_nothing_and_come_between_instructions(
    direct: Whole, single: Single, tmp_path_factory: pytest.TempPathFactory, drawn: list[bytes], seed: int
) -> None:
    """Where a thread raises them: the handler sees an EIP and a CS that single steps come by."""
    image = generated(drawn, seed, tmp_path_factory.getbasetemp(), below_stack=False)
    theirs = by_single_steps(single, image)
    source, running = random.Random(seed), True

    def disturb() -> None:
        for _ in range(MOST_RARE):
            if not running:
                return
            time.sleep(source.random() * MOST_BETWEEN_S)
            if RARE not in direct.board.vectors:
                direct.board.vectors.append(RARE)
            direct.vcpu.kick()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        ours = direct.run(image)
    finally:
        running = False
        thread.join()
    assert not differences(ours, theirs, DIFFERS_WITH_RARE)
    seen = [int.from_bytes(ours[at : at + 4], "little") for at in range(RARE_LOG, RARE_LOG + RARE_LOG_SIZE, 4)]
    strange = {(eip, cs) for eip, cs in zip(seen[::2], seen[1::2], strict=True) if cs} - single.visited
    assert not {(hex(eip), hex(cs)) for eip, cs in strange}


@settings(some(12), derandomize=True, phases=[Phase.generate])
@code
def test_the_evaluator_does_as_qemu_does(
    single: Single, tmp_path_factory: pytest.TempPathFactory, drawn: list[bytes], seed: int
) -> None:
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed")
    place = tmp_path_factory.getbasetemp()
    image = generated(drawn, seed, place, outside=True)
    theirs = by_single_steps(single, image, deaf=True)
    words = [QEMU, "-accel", "tcg", "-m", "64", "-display", "none", "-net", "none", "-serial", "null", "-no-reboot"]
    words += ["-monitor", "none", "-kernel", str(place / "system"), "-debugcon", f"file:{place / 'dump'}"]
    (place / "system").write_bytes(image)
    subprocess.run(
        [*words, "-device", f"isa-debug-exit,iobase={LEAVE},iosize=1"], timeout=PATIENCE_S, stdin=subprocess.DEVNULL
    )
    dump = (place / "dump").read_bytes()
    assert len(dump) == SIZE
    assert not differences(comparable(dump), comparable(theirs))


def comparable(image: bytes) -> bytes:
    """Without what processors may differ in: which pages they have looked into ahead, and of the error codes of page
    faults all but presence. QEMU takes what IRET reads from a user's stack for the supervisor's reads, and what
    instructions change for reads alone."""
    found = bytearray(image)
    for at in range(LOG, LOG + LOG_SIZE, 32):
        if int.from_bytes(found[at : at + 4], "little") == PF:
            found[at + 4] &= 1
    for table in (TABLE, OTHER_TABLE):
        for at in range(table, table + 0x1000, 4):
            found[at] &= ~ACCESSED & 0xFF
    return bytes(found)
