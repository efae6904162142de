"""Scanned and direct execution against single steps of the evaluator: the same final state, for generated programs.

The programs are full of what scanning has to get right: branches both ways, sensitive instructions, code that changes
itself, jumps into the middle of instructions, instructions over two pages, loops.
"""

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from iced_x86 import InstructionInfoFactory, Mnemonic, OpAccess, Register, RegisterExt

from tests.prescan.instructions import BIT_TESTS, decoded, instructions, undefined_flags, undefined_result
from virtus.errors import HostLacks
from virtus.exits import Reason
from virtus.memory.guest_memory import GuestMemory
from virtus.vcpus.emulated_x86 import library
from virtus.vcpus.scanned import patches
from virtus.vcpus.scanned.cpu_state import CR0_ET, CR0_NE, CR0_PE, CS, MASK32, CpuState
from virtus.vcpus.scanned.evaluator import Evaluator
from virtus.vcpus.scanned.memory_access import PagedMemory, PhysicalSpace
from virtus.vcpus.scanned.vcpu import ScannedVcpu

START, DATA, STACK, MEMORY = 0x10F00, 0x4000, 0x8000, 1 << 20
END = bytes.fromhex("f4")
MOST = 100_000
ROUNDS = 9
HOT = 2
"""Traps after which a site becomes a patch here: most of a program's do."""
M = Mnemonic
LEFT_OUT = {M.DIV, M.IDIV, M.AAM, M.BOUND, M.LEAVE, M.RET, M.CALL, M.JMP, M.POPF, M.POPFD, M.LOOP, M.LOOPE, M.LOOPNE}
LEFT_OUT |= {M.JCXZ, M.JECXZ, M.SALC, M.INVALID, M.ENTER, M.STD}
PINNED = {"EBX", "ESP", "ESI", "EDI"}
DEFINE_FLAGS = bytes.fromhex("83fb05")  # cmp ebx, 5
SENSITIVE = [
    bytes.fromhex(code)
    for code in (
        "9c58",
        "9c9d",
        "fa",
        "fb",
        "530fa25b",
        "83fb058cd8",
        "1e1f",
        "061f",
        "0fa00fa1",
        "8cd88ee0",
        "8cd08ed8",
        "8cd88ed0",
        "0e58",
        "0f01e0",
    )
]
SENSITIVE.append(bytes.fromhex("0f0105") + (DATA + 0x700).to_bytes(4, "little"))  # sgdt
_WRITES = {OpAccess.WRITE, OpAccess.READ_WRITE, OpAccess.COND_WRITE, OpAccess.READ_COND_WRITE}
_information = InstructionInfoFactory()
RELOAD = bytes.fromhex("be") + (DATA + 0x40).to_bytes(4, "little") + b"\xbf" + (DATA + 0x200).to_bytes(4, "little")


def ordinary(code: bytes) -> bytes | None:
    """An instruction fit for a program that goes on, with what makes its outcome defined; None of others."""
    instruction = decoded(code, 32)
    mnemonic = instruction.mnemonic
    if mnemonic in LEFT_OUT or mnemonic in BIT_TESTS or instruction.is_jcc_short_or_near:
        return None
    if undefined_result(instruction, 31) or mnemonic in (M.BSF, M.BSR) or instruction.is_string_instruction:
        if not instruction.is_string_instruction:
            return None
        return RELOAD + b"\xb9\x05\0\0\0" + code + RELOAD
    for used in _information.info(instruction).used_registers():
        if used.access in _WRITES and _name(RegisterExt.full_register32(used.register)) in PINNED:
            if mnemonic in (M.PUSH, M.PUSHF, M.PUSHFD, M.PUSHA, M.PUSHAD):
                break
            return None
    undefined = any(undefined_flags(instruction, counter) for counter in (1, 9, 31))
    return code + (DEFINE_FLAGS if undefined else b"")


def _name(register: int) -> str:
    names = ("EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI")
    return names[register - Register.EAX] if Register.EAX <= register <= Register.EDI else ""


def program(parts: list[bytes], source: random.Random) -> bytes:
    """The parts in order, with branches forward between them, a loop around, changes of code, and the end."""
    counter = (DATA - 8).to_bytes(4, "little")
    code = bytearray(b"\xc7\x05" + counter + ROUNDS.to_bytes(4, "little"))  # how often
    loop = len(code)
    for part in parts:
        choice = source.random()
        if choice < 0.25:
            skipped = bytes(source.choice(SENSITIVE))
            code += bytes([0x70 | source.randrange(16), len(skipped)]) + skipped  # jcc over it
        elif choice < 0.45:
            code += source.choice(SENSITIVE)
        elif choice < 0.55:  # into the middle of mov eax, imm32: inc edx; nop; ...
            code += bytes.fromhex("eb01 b8 42 90 90 90")
        elif choice < 0.65:  # an instruction that changes the operand of the next
            at = START + len(code) + 7 + 1
            code += b"\xfe\x05" + at.to_bytes(4, "little") + b"\x90" + b"\xb0" + bytes([source.randrange(256)])
        elif choice < 0.67:  # pushf; push cs; push the address behind; iret
            code += b"\x9c\x0e\x68" + (START + len(code) + 8).to_bytes(4, "little") + b"\xcf"
        elif choice < 0.7:
            code += b"\x90" * source.randrange(1, 15)
        elif choice < 0.75:  # call over a few bytes and take the address back
            code += bytes.fromhex("e803000000 0f0b90 58")
        code += part
    code += b"\xff\x0d" + counter  # dec dword [counter]
    code += b"\x0f\x85" + (loop - len(code) - 6).to_bytes(4, "little", signed=True)
    return bytes(code) + END


class Both:
    """Two machines: a scanned vCPU and an evaluator."""

    def __init__(self) -> None:
        self.direct_ram, self.single_ram = GuestMemory(MEMORY, "direct"), GuestMemory(MEMORY, "single")
        try:
            self.vcpu = ScannedVcpu(PhysicalSpace(self.direct_ram))
        except HostLacks as error:
            pytest.skip(str(error))
        self.single = CpuState()
        memory = PagedMemory(self.single, PhysicalSpace(self.single_ram), self)
        self.evaluator = Evaluator(self.single, memory, self)

    def read(self, address: int, size: int) -> int:
        return 0

    def write(self, address: int, size: int, value: int) -> None:
        raise AssertionError("there are no devices")

    def prepare(self, code: bytes, values: list[int], data: bytes) -> None:
        for ram, state in ((self.direct_ram, self.vcpu.state), (self.single_ram, self.single)):
            ram.bytes[0:0x20000] = bytes(0x20000)
            ram.bytes[START : START + len(code)] = code
            ram.bytes[DATA : DATA + 0x800] = data
            state.reset()
            state.cr0 = CR0_PE | CR0_ET | CR0_NE
            for number, segment in enumerate(state.segments):
                segment.load(*((0x18, 0, MASK32, 0xC09B) if number == CS else (0x10, 0, MASK32, 0xC093)))
            # descriptors for what the program loads: selector 0x10 is flat data, 0x18 flat code
            ram.bytes[0x1010:0x1020] = bytes.fromhex("ffff00000093cf00 ffff0000009bcf00")
            state.gdtr.base, state.gdtr.limit = 0x1000, 0x1F
            state.eip = START
            state.registers[:] = [
                values[0],
                values[1],
                values[2],
                DATA + 0x400,
                STACK,
                values[5],
                DATA + 0x40,
                DATA + 0x200,
            ]
        self.vcpu.flush_instructions(0, 0x20000)

    def run_directly(self) -> None:
        for _ in range(1000):
            exit = self.vcpu.run()
            if exit.reason is Reason.HALT:
                return
            assert exit.reason is Reason.EVENT, (exit.reason, self.vcpu.state.describe())
        raise AssertionError(self.vcpu.state.describe())

    def run_singly(self) -> None:
        for _ in range(MOST):
            self.evaluator.step()
            if self.single.halted:
                return
        raise AssertionError(self.single.describe())

    def close(self) -> None:
        self.vcpu.close()
        self.direct_ram.close()
        self.single_ram.close()


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    if library.find() is None:
        pytest.skip("the package unicorn is not installed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(patches, "HOT", HOT)
        made = Both()
        yield made
        assert made.vcpu.monitor.patches.made
        made.close()


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(instructions(32), min_size=20, max_size=60), st.integers(0, 1 << 32))
def test_direct_execution_ends_as_single_steps_do(both: Both, drawn: list[bytes], seed: int) -> None:
    source = random.Random(seed)
    parts = [part for part in map(ordinary, drawn) if part is not None]
    code = program(parts, source)
    both.prepare(code, [source.getrandbits(32) for _ in range(8)], source.randbytes(0x800))
    both.run_singly()
    both.run_directly()
    ours, theirs = both.vcpu.state, both.single
    assert ours.describe() == theirs.describe(), code.hex()
    assert both.direct_ram.bytes[:0x20000] == both.single_ram.bytes[:0x20000], code.hex()
