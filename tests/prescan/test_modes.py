"""A guest that goes through the processor's modes tells the same under QEMU, the evaluator, both vCPUs.

Faults and their codes, gates between privilege levels, port maps, paging, tasks, double faults, virtual-8086 mode,
SYSENTER, single steps: tests/prescan/guests/modes.s.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from virtus.errors import HostLacks
from virtus.exits import Reason
from virtus.memory.guest_memory import GuestMemory
from virtus.vcpus.emulated_x86 import library
from virtus.vcpus.scanned import delivery
from virtus.vcpus.scanned.cpu_state import CR0_ET, CR0_PE, CS, MASK32, CpuState
from virtus.vcpus.scanned.emulated_vcpu import EmulatedVcpu
from virtus.vcpus.scanned.evaluator import Evaluator
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.memory_access import PagedMemory, PhysicalSpace
from virtus.vcpus.scanned.vcpu import ScannedVcpu

SOURCE = Path(__file__).parent / "guests" / "modes.s"
LOAD, ENTRY, MEMORY = 0x100000, 0x100020, 8 << 20
TELL, END = 0xE9, 0xF4
MOST = 100_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("as") and shutil.which("ld")), reason="binutils are not installed"),
]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("modes")
    made = place / "modes.bin"
    subprocess.run(["as", "--32", SOURCE, "-o", place / "modes.o"], check=True)
    linker = ["ld", "-m", "elf_i386", "-N", f"-Ttext={LOAD:#x}", "--oformat", "binary", "-e", "_start"]
    subprocess.run([*linker, place / "modes.o", "-o", made], check=True)
    return made


@pytest.fixture(scope="module")
def evaluated(guest: Path) -> bytes:
    """What the guest tells under the evaluator alone."""
    ram = GuestMemory(MEMORY, "test")
    ram.bytes[LOAD : LOAD + guest.stat().st_size] = guest.read_bytes()
    state, told = CpuState(), Told()
    start(state)
    evaluator = Evaluator(state, PagedMemory(state, PhysicalSpace(ram), told), told)
    for _ in range(MOST):
        try:
            evaluator.step()
        except GuestFault as fault:
            delivery.deliver_fault(evaluator.execution, fault)
        if told.ended:
            break
    ram.close()
    assert told.ended, state.describe()
    return bytes(told.text)


class Told:
    """The port that the guest tells by, and the one that ends it."""

    def __init__(self) -> None:
        self.text, self.ended = bytearray(), False

    def read(self, address: int, size: int) -> int:
        return 0xFFFFFFFF

    def write(self, address: int, size: int, value: int) -> None:
        if address == TELL:
            self.text.append(value & 0xFF)
        elif address == END:
            self.ended = True


def start(state: CpuState) -> None:
    """As a multiboot loader starts a kernel."""
    for number, segment in enumerate(state.segments):
        segment.load(0x10 if number == CS else 0x18, 0, MASK32, 0xC09B if number == CS else 0xC093)
    state.cr0, state.eip = CR0_PE | CR0_ET, ENTRY


def test_the_evaluator_tells_what_qemu_tells(guest: Path, evaluated: bytes, tmp_path: Path) -> None:
    if not shutil.which("qemu-system-i386"):
        pytest.skip("qemu-system-i386 is not installed")
    told = tmp_path / "told"
    command: list[str | Path] = [
        "qemu-system-i386",
        "-display",
        "none",
        "-m",
        "16",
        "-kernel",
        guest,
        "-debugcon",
        f"file:{told}",
    ]
    command += ["-device", f"isa-debug-exit,iobase={END:#x},iosize=4", "-no-reboot", "-serial", "none"]
    subprocess.run([*command, "-monitor", "none", "-accel", "tcg"], check=False, timeout=60)
    assert told.read_bytes().split(b">") == evaluated.split(b">")


@pytest.mark.parametrize("kind", [EmulatedVcpu, ScannedVcpu])
def test_vcpus_tell_the_same(kind: type[EmulatedVcpu] | type[ScannedVcpu], guest: Path, evaluated: bytes) -> None:
    if library.find() is None:
        pytest.skip("the package unicorn is not installed")
    ram, told = GuestMemory(MEMORY, "test"), Told()
    ram.bytes[LOAD : LOAD + guest.stat().st_size] = guest.read_bytes()
    try:
        vcpu = kind(PhysicalSpace(ram))
    except HostLacks as lacking:
        pytest.skip(str(lacking))
    start(vcpu.state)
    try:
        for _ in range(MOST):
            exit = vcpu.run()
            assert exit.reason in (Reason.PORT_IO, Reason.EVENT), vcpu.state.describe()
            if exit.reason is Reason.PORT_IO and exit.write:
                told.write(exit.number, exit.size, exit.value)
            else:
                exit.value = told.read(exit.number, exit.size)
            if told.ended:
                break
    finally:
        vcpu.close()
        ram.close()
    assert bytes(told.text).split(b">") == evaluated.split(b">")
