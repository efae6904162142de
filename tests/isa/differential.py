"""Small cases for a riscv64 processor, run by qemu-riscv64 and by evaluators of ours, to be compared.

    cases = differential.cases(["fadd.s", "amoswap.d"], count=100, seed=1)
    assert differential.differences(cases, run_qemu(cases), run_evaluator(execute, cases)) == []

Besides `cases` of one instruction there are `sequences` of many, with branches and a loop. `execute` carries out the
code of a case to its end, on a thread's state in the words of `vcpus/translator/layout.py`.
"""

import os
import shutil
import subprocess
import tempfile
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.isa import riscv64_harness as harness
from tests.isa.riscv64_cases import Case, cases, sequences
from tests.isa.riscv64_harness import CODE, CODE_BYTES, DATA, DATA_BYTES
from virtus.vcpus.interpreter.memory import MemoryFault
from virtus.vcpus.translator import float_state, layout

__all__ = [
    "Case", "CaseMemory", "Execute", "Result",
    "cases", "differences", "result", "run_evaluator", "run_qemu", "sequences", "state",
]  # fmt: skip

QEMU: Final = shutil.which("qemu-riscv64")
WHY_NOT: Final = "qemu-riscv64 is not installed (Debian: qemu-user)"
PROCESSOR: Final = "rv64,zba=true,zbb=true,zbs=true,zbc=false,h=false,v=false,pmu-num=0"
"""What qemu-riscv64 must not take for legal beyond RV64GC, Zba, Zbb and Zbs, as far as it can be told."""
SIGILL, SIGTRAP, SIGBUS, SIGSEGV = 4, 5, 7, 11
SIGNALS: Final = {layout.EXIT_ILLEGAL: SIGILL, layout.EXIT_BREAKPOINT: SIGTRAP}
COMPARABLE: Final = 1 << 47
"""Addresses from here on may not reach the host's own fault address."""
LONGEST: Final = 60
"""Seconds for one run of qemu-riscv64; a case that does not end is named."""
ONES: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Result:
    """How a case ended: the signal, its address where it tells one, and the state."""

    signal: int
    address: int
    pc: int
    x: tuple[int, ...]
    f: tuple[int, ...]
    fcsr: int
    data: bytes


class CaseMemory:
    """The memory that a case sees: its code with zeros around it, and the page of data. See `interpreter.memory`."""

    def __init__(self, case: Case) -> None:
        self.code = bytearray(case.code.ljust(CODE_BYTES, b"\0"))
        self.data = bytearray(case.data)

    def _at(self, address: int, size: int) -> tuple[bytearray, int] | None:
        """What holds these bytes; None for zeros."""
        if DATA <= address <= DATA + DATA_BYTES - size:
            return self.data, address - DATA
        if DATA - size < address < DATA:
            raise MemoryFault(address)
        if DATA < address < DATA + DATA_BYTES:
            raise MemoryFault(DATA + DATA_BYTES)
        if CODE <= address <= CODE + CODE_BYTES - size:
            return self.code, address - CODE
        if harness.ZEROS <= address <= harness.ZEROS + harness.ZEROS_BYTES - size:
            return None
        raise MemoryFault(address)

    def load(self, address: int, size: int) -> int:
        """See Memory."""
        place = self._at(address, size)
        return int.from_bytes(place[0][place[1] : place[1] + size], "little") if place else 0

    def store(self, address: int, value: int, size: int) -> None:
        """See Memory; what goes to the zeros is lost."""
        place = self._at(address, size)
        if place:
            place[0][place[1] : place[1] + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def compare_exchange(self, address: int, expected: int, value: int, size: int) -> bool:
        """See Memory."""
        if self.load(address, size) != expected:
            return False
        self.store(address, value, size)
        return True

    def fetch(self, address: int) -> bytes:
        """See Memory."""
        try:
            place = self._at(address, 1)
        except MemoryFault:
            return b""
        return bytes(place[0][place[1] : place[1] + 4]).ljust(4, b"\0") if place else bytes(4)


Execute = Callable[[memoryview, CaseMemory], int]
"""Run until something comes out: one of layout's exits. Raises MemoryFault with PC at the instruction."""


def state(case: Case) -> memoryview:
    """The words of a thread that is about to begin a case."""
    words = memoryview(array("Q", bytes(8 * 128)))
    words[0:32] = array("Q", case.x)
    words[32:64] = array("Q", case.f)
    words[layout.PC] = CODE
    words[layout.MXCSR] = float_state.control(case.fcsr & 31, case.fcsr >> 5 & 7)
    words[layout.ROUNDING] = case.fcsr >> 5 & 7
    words[layout.RESERVED_ADDRESS] = words[layout.SYSCALL_NUMBER] = ONES
    return words


def result(words: memoryview, signal: int, address: int, data: bytes) -> Result:
    """What has become of a case, out of its thread's words."""
    fcsr = float_state.flags(words[layout.MXCSR]) | words[layout.ROUNDING] << 5
    known = address if signal == SIGSEGV and address < COMPARABLE else 0
    return Result(signal, known, words[layout.PC], tuple(words[0:32]), tuple(words[32:64]), fcsr, data)


def run_evaluator(execute: Execute, cases: Iterable[Case]) -> list[Result]:
    """The results by an evaluator of ours. An instruction that flushes goes on."""
    results = []
    for case in cases:
        words, memory = state(case), CaseMemory(case)
        address = 0
        try:
            while (outcome := execute(words, memory)) == layout.EXIT_FLUSH:
                pass
            signal = SIGNALS[outcome]
        except MemoryFault as fault:
            signal, address = fault.signal, fault.address
        results.append(result(words, signal, address, bytes(memory.data)))
    return results


def run_qemu(cases: Sequence[Case]) -> list[Result]:
    """The results by qemu-riscv64, all in one run of it."""
    with tempfile.TemporaryDirectory() as directory:
        program, input, output = (Path(directory, name) for name in ("harness", "input", "output"))
        program.write_bytes(harness.program())
        program.chmod(0o700)
        with input.open("wb") as file:
            for case in cases:
                file.write(case.code.ljust(CODE_BYTES, b"\0"))
                file.write(harness.MACHINE.pack(CODE, *case.x[1:], *case.f, case.fcsr))
                file.write(case.data)
        assert QEMU is not None
        command = [QEMU, "-cpu", PROCESSOR, os.fspath(program)]
        with input.open("rb") as read, output.open("wb") as write:
            status = _wait(subprocess.Popen(command, stdin=read, stdout=write))
        told = output.read_bytes()
    done = len(told) // harness.RESULT_BYTES - 1
    assert done == len(cases), f"qemu-riscv64 ended with status {status} in {cases[done]}"
    # the first record is the harness's own way into its handler
    return [
        _parse(told[at : at + harness.RESULT_BYTES])
        for at in range(harness.RESULT_BYTES, len(told), harness.RESULT_BYTES)
    ]


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The status of a process that is given some time, and then ended."""
    try:
        return process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _parse(record: bytes) -> Result:
    signal, _, _, address = harness.SIGINFO.unpack_from(record, 0)
    pc, *registers = harness.MACHINE.unpack_from(record, harness.SIGINFO.size)
    fcsr = registers.pop() & 0xFFFFFFFF
    known = address if signal == SIGSEGV and address < COMPARABLE else 0
    data = record[harness.SIGINFO.size + harness.MACHINE.size :]
    return Result(signal, known, pc, (0, *registers[:31]), tuple(registers[31:]), fcsr, data)


def differences(cases: Sequence[Case], expected: Sequence[Result], found: Sequence[Result]) -> list[str]:
    """A line for each case whose results are not the same."""
    lines = []
    for case, want, have in zip(cases, expected, found, strict=True):
        if want == have:
            continue
        parts = [
            f"{name}: {getattr(have, name):#x}, not {getattr(want, name):#x}"
            for name in ("signal", "address", "pc", "fcsr")
            if getattr(want, name) != getattr(have, name)
        ]
        for kind in ("x", "f"):
            pairs = zip(getattr(want, kind), getattr(have, kind), getattr(case, kind), strict=True)
            parts += [
                f"{kind}{number}: {got:#x}, not {right:#x} (before: {before:#x})"
                for number, (right, got, before) in enumerate(pairs)
                if right != got
            ]
        if want.data != have.data:
            at = next(at for at in range(DATA_BYTES) if want.data[at] != have.data[at])
            parts.append(f"data at {at:#x}: {have.data[at : at + 8].hex()}, not {want.data[at : at + 8].hex()}")
        lines.append(f"{case}: " + ", ".join(parts))
    return lines
