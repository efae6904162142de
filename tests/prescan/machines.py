"""Little machines for tests: a guest assembled on the spot, on a scanned processor, with a port to print on."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from virtus.exits import Exit, Reason
from virtus.memory.guest_memory import GuestMemory
from virtus.vcpus.scanned import cpu_state
from virtus.vcpus.scanned.memory_access import PhysicalSpace
from virtus.vcpus.scanned.vcpu import ScannedVcpu

START = 0x10000
PRINT, END = 0xE9, 0xF4
PRINT_EAX, DONE = "outl %eax, $0xE9\n", "out %al, $0xF4\n"
FLAT_CODE, FLAT_DATA = 0xC09B, 0xC093
MEMORY = 16 << 20

needs_assembler = pytest.mark.skipif(
    shutil.which("as") is None or shutil.which("ld") is None, reason="GNU as and ld are not installed"
)


def assemble(source: str, directory: Path) -> bytes:
    """A flat binary, linked for START, of GNU assembly."""
    (directory / "guest.s").write_text(f".code32\n.globl _start\n_start:\n{source}\n")
    subprocess.run(["as", "--32", "guest.s", "-o", "guest.o"], cwd=directory, check=True, timeout=60)
    link = ["ld", "-m", "elf_i386", "-Ttext", hex(START), "--oformat", "binary", "guest.o", "-o", "guest.bin"]
    subprocess.run(link, cwd=directory, check=True, timeout=60, capture_output=True)
    return (directory / "guest.bin").read_bytes()


class TestMachine:
    """A processor in flat 32-bit protected mode at START, and what its guest printed."""

    __test__ = False

    def __init__(self, code: bytes, depth: int = 12) -> None:
        self.memory = GuestMemory(MEMORY)
        self.memory.bytes[START : START + len(code)] = code
        self.vcpu = ScannedVcpu(PhysicalSpace(self.memory), depth=depth)
        state = self.state = self.vcpu.state
        state.cr0 = cpu_state.CR0_PE | cpu_state.CR0_ET | cpu_state.CR0_NE
        state.segments[cpu_state.CS].load(8, 0, 0xFFFF_FFFF, FLAT_CODE)
        for number in (cpu_state.SS, cpu_state.DS, cpu_state.ES, cpu_state.FS, cpu_state.GS):
            state.segments[number].load(16, 0, 0xFFFF_FFFF, FLAT_DATA)
        state.eip, state.registers[cpu_state.ESP] = START, 0x9000
        self.printed = b""
        self.status = -1

    def run(self, seconds: float = 20.0) -> Exit:
        """Until the guest writes to END, halts, or ends; its last exit."""
        limit = time.monotonic() + seconds
        while True:
            found = self.vcpu.run()
            assert time.monotonic() < limit, self.state.describe()
            if found.reason is Reason.PORT_IO and found.write and found.number == PRINT:
                self.printed += found.value.to_bytes(found.size, "little")
            elif found.reason is Reason.PORT_IO and found.write and found.number == END:
                self.status = found.value
                return found
            elif found.reason is not Reason.EVENT:
                return found

    def close(self) -> None:
        self.vcpu.close()
        self.memory.close()


def printed(machine: TestMachine) -> list[int]:
    """The 32-bit numbers that a guest has printed."""
    return [int.from_bytes(machine.printed[at : at + 4], "little") for at in range(0, len(machine.printed), 4)]


Boot = Callable[..., TestMachine]
"""Makes a machine of assembly: `boot(source, depth=12)`."""
