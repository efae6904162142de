"""Runs a static riscv64 program in Unicorn, QEMU's processors as a library, so that it can be compared.

usage: python -m virtus.techniques.peers.unicorn_riscv64 PROGRAM [ARGUMENT...]

Unicorn brings a processor and no system, so a runner of ours (`few_calls`) answers what simple programs ask. It is no
technique of virtus; it ends with status 125 and a word where a program needs more than that.
"""

import importlib
import os
import struct
import sys
from pathlib import Path
from typing import Any, Final

from virtus.guests import elf
from virtus.techniques.peers.few_calls import PAGE, FewCalls, Unanswered, fault

EM_RISCV: Final = 243  # ELF machine (RISC-V ELF psABI, 8.1)
STACK_TOP: Final = 0x3F_F000_0000
STACK_BYTES: Final = 8 << 20
MAPPINGS_END: Final = 0x3F_0000_0000
IMAGE_BASE: Final = 0x2A_0000_0000  # where a position-independent program goes
ECALL_FROM_USER: Final = 8  # exception code (privileged ISA, table of mcause values)
ECALL_FROM_MACHINE: Final = 11  # likewise: Unicorn starts in machine mode
FLOATING_POINT_ON: Final = 0x6000  # mstatus.FS (privileged ISA, 3.1.6.6)
AT_NULL, AT_PHDR, AT_PHENT, AT_PHNUM, AT_PAGESZ, AT_ENTRY, AT_UID, AT_EUID, AT_GID, AT_EGID, AT_HWCAP = (
    0, 3, 4, 5, 6, 9, 11, 12, 13, 14, 16,
)  # fmt: skip # include/uapi/linux/auxvec.h
AT_SECURE, AT_RANDOM = 23, 25
HWCAP: Final = sum(1 << (ord(letter) - ord("A")) for letter in "IMAFDC")
CANNOT: Final = 125
FAULT: Final = 139  # 128 + SIGSEGV, as a shell reports it


class CannotRun(Exception):
    """The program cannot be run here; the text says why."""


class UnicornMemory:
    """The library's memory as the calls want it."""

    def __init__(self, unicorn: Any, processor: Any) -> None:
        self._unicorn, self._processor = unicorn, processor

    def read(self, address: int, size: int) -> bytes:
        """See few_calls.Memory."""
        try:
            return bytes(self._processor.mem_read(address, size)) if size else b""
        except self._unicorn.UcError as error:
            raise fault() from error

    def write(self, address: int, data: bytes) -> None:
        """See few_calls.Memory."""
        try:
            self._processor.mem_write(address, data)
        except self._unicorn.UcError as error:
            raise fault() from error

    def map(self, address: int, size: int) -> None:
        """See few_calls.Memory."""
        self.unmap(address, size)
        try:
            self._processor.mem_map(address, size)
        except self._unicorn.UcError as error:
            raise OSError(12, "out of memory") from error  # ENOMEM

    def unmap(self, address: int, size: int) -> None:
        """See few_calls.Memory."""
        for start, last, _ in list(self._processor.mem_regions()):
            low, high = max(start, address), min(last + 1, address + size)
            if low < high:
                self._processor.mem_unmap(low, high - low)


def load(memory: UnicornMemory, path: Path) -> tuple[elf.Program, int, int]:
    """Put a program into memory: its headers, what was added to its addresses, and where it ends. Raises CannotRun."""
    try:
        data = path.read_bytes()
        program = elf.parse(data[:PAGE], len(data))
    except OSError as error:
        raise CannotRun(error.strerror or str(error)) from error
    except elf.NotLoadable as error:
        raise CannotRun(str(error)) from error
    if program.machine != EM_RISCV:
        raise CannotRun(f"a program for processor {program.machine}, not for RISC-V")
    if program.interpreter is not None:
        raise CannotRun("a dynamically linked program: this runner takes static ones only")
    low, high = program.span
    base = IMAGE_BASE if program.type == elf.ET_DYN else 0
    if base + high > MAPPINGS_END:
        raise CannotRun("its addresses are beyond what this runner has")
    memory.map(base + low, high - low)
    for segment in program.segments:
        memory.write(base + segment.address, data[segment.offset : segment.offset + segment.file_size])
    return program, base, base + high


def start_stack(memory: UnicornMemory, program: elf.Program, base: int, words: list[str]) -> int:
    """Arguments, environment and auxiliary vector as execve(2) leaves them; the stack pointer."""
    memory.map(STACK_TOP - STACK_BYTES, STACK_BYTES)
    at = STACK_TOP

    def put(data: bytes) -> int:
        nonlocal at
        at -= len(data)
        memory.write(at, data)
        return at

    random = put(os.urandom(16))
    arguments = [put(os.fsencode(word) + b"\0") for word in words]
    environment = [put(key + b"=" + value + b"\0") for key, value in os.environb.items()]
    auxiliary = (
        AT_PHDR, base + program.headers_at(), AT_PHENT, elf.PROGRAM_HEADER.size, AT_PHNUM, program.header_count,
        AT_PAGESZ, PAGE, AT_ENTRY, base + program.entry, AT_UID, os.getuid(), AT_EUID, os.geteuid(),
        AT_GID, os.getgid(), AT_EGID, os.getegid(), AT_HWCAP, HWCAP, AT_SECURE, 0, AT_RANDOM, random, AT_NULL, 0,
    )  # fmt: skip
    table = [len(arguments), *arguments, 0, *environment, 0, *auxiliary]
    at = (at - 8 * len(table)) & ~15  # RISC-V ELF psABI, 2.1: aligned to 128 bits
    memory.write(at, struct.pack(f"<{len(table)}Q", *table))
    return at


def run(words: list[str]) -> int:
    """Run a program to its end; its exit status. Raises CannotRun."""
    try:
        unicorn = importlib.import_module("unicorn")
        registers = importlib.import_module("unicorn.riscv_const")
    except ImportError as error:
        raise CannotRun("the Python package unicorn is not installed: pip install unicorn") from error
    processor = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
    memory = UnicornMemory(unicorn, processor)
    program, base, end = load(memory, Path(words[0]))
    calls = FewCalls(memory, end, MAPPINGS_END)
    argument_registers = [registers.UC_RISCV_REG_X10 + number for number in range(6)]
    number_register = registers.UC_RISCV_REG_X17
    failed: list[str] = []

    def interrupted(_: Any, exception: int, __: Any) -> None:
        if exception not in (ECALL_FROM_USER, ECALL_FROM_MACHINE):
            failed.append(f"exception {exception} at {processor.reg_read(registers.UC_RISCV_REG_PC):#x}")
            processor.emu_stop()
            return
        arguments = [processor.reg_read(register) for register in argument_registers]
        try:
            result = calls.answer(processor.reg_read(number_register), arguments)
        except Unanswered as error:
            failed.append(f"the program needs {error}, which this runner does not answer")
            processor.emu_stop()
            return
        if calls.status is not None:
            processor.emu_stop()
        processor.reg_write(argument_registers[0], result & (1 << 64) - 1)

    processor.hook_add(unicorn.UC_HOOK_INTR, interrupted)
    status = registers.UC_RISCV_REG_MSTATUS
    processor.reg_write(status, processor.reg_read(status) | FLOATING_POINT_ON)
    processor.reg_write(registers.UC_RISCV_REG_SP, start_stack(memory, program, base, words))
    try:
        processor.emu_start(base + program.entry, 0)
    except unicorn.UcError as error:
        place = processor.reg_read(registers.UC_RISCV_REG_PC)
        print(f"unicorn-riscv64: {words[0]}: {error} at {place:#x}", file=sys.stderr)
        return FAULT
    if failed:
        raise CannotRun(failed[0])
    return CANNOT if calls.status is None else calls.status


def main() -> int:
    """The command."""
    if len(sys.argv) < 2:
        print("usage: python -m virtus.techniques.peers.unicorn_riscv64 PROGRAM [ARGUMENT...]", file=sys.stderr)
        return 2
    try:
        return run(sys.argv[1:])
    except CannotRun as error:
        print(f"unicorn-riscv64: {sys.argv[1]}: {error}", file=sys.stderr)
        return CANNOT


if __name__ == "__main__":
    sys.exit(main())
