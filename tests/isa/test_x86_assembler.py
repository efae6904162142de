"""The assembler against binutils: what objdump reads is what was meant."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler

OLD: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
NEW: Final = tuple(f"r{number}" for number in range(8, 16))
WIDE: Final = [*(f"r{name}" for name in OLD), *NEW]
HALF: Final = [*(f"e{name}" for name in OLD), *(f"{name}d" for name in NEW)]
SHORT: Final = [*OLD, *(f"{name}w" for name in NEW)]
BYTE: Final = ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", *(f"{name}b" for name in NEW)]
NAMES: Final = {1: BYTE, 2: SHORT, 4: HALF, 8: WIDE}
SIZES: Final = {1: "BYTE", 2: "WORD", 4: "DWORD", 8: "QWORD"}
ARITHMETIC: Final = {x86.ADD: "add", x86.OR: "or", x86.AND: "and", x86.SUB: "sub", x86.XOR: "xor", x86.CMP: "cmp"}
SHIFTS: Final = {x86.SHL: "shl", x86.SHR: "shr", x86.SAR: "sar"}
CONDITIONS: Final = {
    x86.OVERFLOW: "o", x86.BELOW: "b", x86.ABOVE_EQUAL: "ae", x86.EQUAL: "e", x86.NOT_EQUAL: "ne",
    x86.BELOW_EQUAL: "be", x86.ABOVE: "a", x86.SIGN: "s", x86.PARITY: "p", x86.NO_PARITY: "np",
    x86.LESS: "l", x86.GREATER_EQUAL: "ge",
}  # fmt: skip
SCALAR: Final = {0x51: "sqrt", 0x58: "add", 0x59: "mul", 0x5C: "sub", 0x5D: "min", 0x5E: "div", 0x5F: "max"}

Draw = Callable[[st.SearchStrategy[int]], int]
Emitted = tuple[Callable[[Assembler], None], str]

registers = st.integers(0, 15)
displacements = st.sampled_from((0, 1, -1, 127, 128, -128, -129, 0x220, 2**31 - 1, -(2**31))) | st.integers(-999, 999)
numbers = st.sampled_from((0, 1, -1, 127, 128, -128, -129, 2**31 - 1, -(2**31))) | st.integers(-(2**31), 2**31 - 1)


def place(base: int, displacement: int) -> str:
    """A memory operand as objdump writes it, but for its size."""
    sign = "-" if displacement < 0 else "+"
    return f"[{WIDE[base]}{sign}{abs(displacement):#x}]"


def number(value: int, bits: int = 64) -> str:
    """An immediate that the host extends with its sign."""
    return f"{value % (1 << bits):#x}"


def _words(draw: Draw, r: int, s: int, t: int, d: int, n: int) -> list[Emitted]:
    """Moves and integers."""
    operation, shift = (draw(st.sampled_from(list(table))) for table in (ARITHMETIC, SHIFTS))
    condition, count = draw(st.sampled_from(list(CONDITIONS))), draw(st.integers(0, 63))
    index = draw(registers.filter(lambda register: register != x86.RSP))
    byte, unsigned = n & 127, draw(st.integers(0, 2**64 - 1) | st.sampled_from((0, 2**31, 2**32 - 1, 2**64 - 2**31)))
    shifted = {x86.SHL: "shlx", x86.SHR: "shrx", x86.SAR: "sarx"}[shift]
    at, of = f"QWORD PTR {place(s, d)}", CONDITIONS[condition]
    whole, half = unsigned, HALF[r]
    if whole < 1 << 32:
        loaded = f"mov {half},{whole:#x}"
    elif whole >= (1 << 64) - (1 << 31):
        loaded = f"mov {WIDE[r]},{whole:#x}"
    else:
        loaded = f"movabs {WIDE[r]},{whole:#x}"
    return [
        (lambda a: a.load(r, s, d), f"mov {WIDE[r]},{at}"),
        (lambda a: a.store(s, d, r), f"mov {at},{WIDE[r]}"),
        (lambda a: a.store_word(s, d, n), f"mov {at},{number(n)}"),
        (lambda a: a.store_half(s, d, n), f"mov DWORD PTR {place(s, d)},{number(n, 32)}"),
        (lambda a: a.move(r, s), f"mov {WIDE[r]},{WIDE[s]}"),
        (lambda a: a.constant(r, unsigned), loaded),
        (lambda a: a.address(r, s, d), f"lea {WIDE[r]},{place(s, d)}"),
        (lambda a: a.address_of_sum(r, s, index), f"lea {WIDE[r]},[{WIDE[s]}+{WIDE[index]}*1{'+0x0' * (s & 7 == 5)}]"),
        (lambda a: a.arithmetic(operation, r, s), f"{ARITHMETIC[operation]} {WIDE[r]},{WIDE[s]}"),
        (lambda a: a.arithmetic_immediate(operation, r, n), f"{ARITHMETIC[operation]} {WIDE[r]},{number(n)}"),
        (lambda a: a.arithmetic_memory(operation, r, s, d), f"{ARITHMETIC[operation]} {WIDE[r]},{at}"),
        (lambda a: a.compare_half(s, d, -1), f"cmp DWORD PTR {place(s, d)},0xffffffff"),
        (lambda a: a.compare_half(s, d, byte), f"cmp DWORD PTR {place(s, d)},{byte:#x}"),
        (lambda a: a.test(r, s), f"test {WIDE[r]},{WIDE[s]}"),
        (lambda a: a.test_immediate(r, byte), f"test {HALF[r]},{byte:#x}"),
        (lambda a: a.multiply(r, s), f"imul {WIDE[r]},{WIDE[s]}"),
        (lambda a: a.multiply_wide(r, signed=True), f"imul {WIDE[r]}"),
        (lambda a: a.multiply_wide(r, signed=False), f"mul {WIDE[r]}"),
        (lambda a: a.divide(r, signed=True), f"idiv {WIDE[r]}"),
        (lambda a: a.divide(r, signed=False), f"div {WIDE[r]}"),
        (lambda a: a.spread_sign(), "cqo"),
        (lambda a: a.shift(shift, r, count), f"{SHIFTS[shift]} {WIDE[r]},{count:#x}"),
        (lambda a: a.shift_by_cl(shift, r), f"{SHIFTS[shift]} {WIDE[r]},cl"),
        (lambda a: a.shift_by(shift, r, s, t), f"{shifted} {WIDE[r]},{WIDE[s]},{WIDE[t]}"),
        (lambda a: a.count(0xB8, r, s, wide=True), f"popcnt {WIDE[r]},{WIDE[s]}"),
        (lambda a: a.count(0xBC, r, s, wide=False), f"tzcnt {HALF[r]},{HALF[s]}"),
        (lambda a: a.count(0xBD, r, s, wide=True), f"lzcnt {WIDE[r]},{WIDE[s]}"),
        (lambda a: a.swap_bytes(r), f"bswap {WIDE[r]}"),
        (lambda a: a.move_if(condition, r, s), f"cmov{of} {WIDE[r]},{WIDE[s]}"),
        (lambda a: a.load_if(condition, r, s, d), f"cmov{of} {WIDE[r]},{at}"),
        (lambda a: a.fence(), "mfence"),
    ]  # fmt: skip


def _sized(draw: Draw, r: int, s: int, t: int, d: int, n: int) -> list[Emitted]:
    """What comes in several sizes."""
    size = draw(st.sampled_from((1, 2, 4, 8)))
    atomic = draw(st.sampled_from((4, 8)))
    at = f"{SIZES[size]} PTR {place(s, d)}"
    there = f"{SIZES[atomic]} PTR {place(s, 0)}"
    bits = min(size, 4) * 8
    unsigned = {1: f"movzx {HALF[r]},", 2: f"movzx {HALF[r]},", 4: f"mov {HALF[r]},", 8: f"mov {WIDE[r]},"}
    signed = {1: f"movsx {WIDE[r]},", 2: f"movsx {WIDE[r]},", 4: f"movsxd {WIDE[r]},", 8: f"mov {WIDE[r]},"}
    source = NAMES[bits // 8][s]
    extended = f"mov {HALF[r]},{source}" if bits == 32 else f"movzx {WIDE[r]},{source}"
    return [
        (lambda a: a.load_sized(r, s, d, size, signed=False), unsigned[size] + at),
        (lambda a: a.load_sized(r, s, d, size, signed=True), signed[size] + at),
        (lambda a: a.store_sized(s, d, r, size), f"mov {at},{NAMES[size][r]}"),
        (lambda a: a.extend(r, s, bits, signed=False), extended),
        (lambda a: a.extend(r, s, bits, signed=True), signed[bits // 8] + source),
        (lambda a: a.exchange(s, r, atomic), f"xchg {there},{NAMES[atomic][r]}"),
        (lambda a: a.exchange_add(s, r, atomic), f"lock xadd {there},{NAMES[atomic][r]}"),
        (lambda a: a.compare_exchange(s, r, atomic), f"lock cmpxchg {there},{NAMES[atomic][r]}"),
    ]


def _control(draw: Draw, r: int, s: int, t: int, d: int, n: int) -> list[Emitted]:
    """Jumps through registers and memory, and the stack."""
    index = draw(registers.filter(lambda register: register != x86.RSP))
    base = draw(registers.filter(lambda register: register & 7 != x86.RBP))
    return [
        (lambda a: a.load_indexed_by_four(r, base, index), f"mov {WIDE[r]},QWORD PTR [{WIDE[base]}+{WIDE[index]}*4]"),
        (lambda a: a.jump_to(r), f"jmp {WIDE[r]}"),
        (lambda a: a.jump_through(s, d), f"jmp QWORD PTR {place(s, d)}"),
        (lambda a: a.call(r), f"call {WIDE[r]}"),
        (lambda a: a.call_through(s, d), f"call QWORD PTR {place(s, d)}"),
        (lambda a: a.push(r), f"push {WIDE[r]}"),
        (lambda a: a.pop(r), f"pop {WIDE[r]}"),
        (lambda a: a.back(), "ret"),
    ]


def _vectors(draw: Draw, r: int, s: int, t: int, d: int, n: int) -> list[Emitted]:
    """Scalar floating point."""
    double, wide = bool(n & 1), bool(n & 2)
    letter = "d" if double else "s"
    at = f"{'QWORD' if double else 'DWORD'} PTR {place(s, d)}"
    general = WIDE if wide else HALF
    opcode = draw(st.sampled_from(list(SCALAR)))
    fused = draw(st.sampled_from((0xA9, 0xAB, 0xAD, 0xAF)))
    name = {0xA9: "vfmadd", 0xAB: "vfmsub", 0xAD: "vfnmadd", 0xAF: "vfnmsub"}[fused]
    packed = "pd" if double else "ps"
    return [
        (lambda a: a.vector_load(r, s, d, double=double), f"movs{letter} xmm{r},{at}"),
        (lambda a: a.vector_store(s, d, r, double=double), f"movs{letter} {at},xmm{r}"),
        (lambda a: a.vector_move(r, s), f"movaps xmm{r},xmm{s}"),
        (lambda a: a.vector_zero(r), f"xorps xmm{r},xmm{r}"),
        (lambda a: a.vector_scalar(opcode, r, s, double=double), f"{SCALAR[opcode]}s{letter} xmm{r},xmm{s}"),
        (lambda a: a.vector_scalar(0x5A, r, s, double=True), f"cvtsd2ss xmm{r},xmm{s}"),
        (lambda a: a.vector_scalar(0x5A, r, s, double=False), f"cvtss2sd xmm{r},xmm{s}"),
        (lambda a: a.vector_logic(0x54, r, s), f"andps xmm{r},xmm{s}"),
        (lambda a: a.vector_logic(0x56, r, s), f"orps xmm{r},xmm{s}"),
        (lambda a: a.vector_compare(r, s, double=double, signals=True), f"comis{letter} xmm{r},xmm{s}"),
        (lambda a: a.vector_compare(r, s, double=double, signals=False), f"ucomis{letter} xmm{r},xmm{s}"),
        (lambda a: a.vector_from_integer(r, s, double=double, wide=wide), f"cvtsi2s{letter} xmm{r},{general[s]}"),
        (
            lambda a: a.vector_to_integer(r, s, double=double, wide=wide, truncate=True),
            f"cvtts{letter}2si {general[r]},xmm{s}",
        ),
        (
            lambda a: a.vector_to_integer(r, s, double=double, wide=wide, truncate=False),
            f"cvts{letter}2si {general[r]},xmm{s}",
        ),
        (lambda a: a.vector_round(r, s, n & 15, double=double), f"rounds{letter} xmm{r},xmm{s},{hex(n & 15)}"),
        (lambda a: a.vector_from_bits(r, s), f"movq xmm{r},{WIDE[s]}"),
        (
            lambda a: a.bits_of_vector(r, s, double=double),
            f"mov{'q' if double else 'd'} {(HALF, WIDE)[double][r]},xmm{s}",
        ),
        (lambda a: a.store_control(s, d), f"stmxcsr DWORD PTR {place(s, d)}"),
        (lambda a: a.load_control(s, d), f"ldmxcsr DWORD PTR {place(s, d)}"),
        (
            lambda a: a.vector_fused(fused, r, s, t, double=double),
            f"{name}213{packed.replace('p', 's')} xmm{r},xmm{s},xmm{t}",
        ),
    ]


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed (Debian: binutils)")
    return tmp_path_factory.mktemp("assembled")


def disassembled(scratch: Path, code: bytes) -> list[str]:
    """The instructions, without comments and superfluous blanks."""
    binary = scratch / "code"
    binary.write_bytes(code)
    command = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--no-show-raw-insn", "-z"]
    shown = subprocess.run([*command, str(binary)], capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^ +[0-9a-f]+:\t(.*)$", shown, re.MULTILINE)
    return [re.sub(r" +", " ", line.partition("#")[0]).strip() for line in lines]


@settings(max_examples=12)
@given(st.data())
def test_instructions(scratch: Path, data: st.DataObject) -> None:
    assembler = Assembler()
    expected = []
    for family in (_words, _sized, _control, _vectors):
        r, s, t = (data.draw(registers) for _ in range(3))
        for emit, text in family(data.draw, r, s, t, data.draw(displacements), data.draw(numbers)):
            emit(assembler)
            expected.append(text)
    assert disassembled(scratch, bytes(assembler.code)) == expected


def test_a_condition_becomes_a_number_in_every_register(scratch: Path) -> None:
    assembler = Assembler()
    for register in range(16):
        assembler.set_if(x86.PARITY, register)
    lines = disassembled(scratch, bytes(assembler.code))
    assert [line.removeprefix("rex ") for line in lines[::2]] == [f"setp {name}" for name in BYTE]
    assert [line.split()[1].split(",")[1] for line in lines[1::2]] == BYTE
    assert all(line.startswith("movzx") for line in lines[1::2])


def test_far_jumps_are_aimed_before_and_after(scratch: Path) -> None:
    assembler = Assembler()
    ahead = assembler.jump()
    assembler.aim(assembler.jump_if(x86.LESS), 0)
    assembler.address_of_code(x86.R9, 0)
    assembler.decrement_counter(0x1000)
    assembler.aim(ahead, len(assembler.code))
    assembler.back()
    assert disassembled(scratch, bytes(assembler.code)) == [
        "jmp 0x18",
        "jl 0x0",
        "lea r9,[rip+0xffffffffffffffee]",
        "dec DWORD PTR [rip+0x1000]",
        "ret",
    ]


def test_short_jumps_go_a_short_way(scratch: Path) -> None:
    assembler = Assembler()
    first, second = assembler.skip(), assembler.skip_if(x86.PARITY)
    assembler.land(first)
    assembler.back()
    assembler.land(second)
    assembler.back_if(x86.SIGN, 2)
    assert disassembled(scratch, bytes(assembler.code)) == ["jmp 0x4", "jp 0x5", "ret", "js 0x2"]


def test_a_short_jump_over_too_much_is_refused() -> None:
    assembler = Assembler()
    skipped = assembler.skip()
    assembler.code += bytes(128)
    with pytest.raises(ValueError, match="short jump"):
        assembler.land(skipped)
    with pytest.raises(ValueError, match="short jump"):
        assembler.back_if(x86.EQUAL, 0)


def test_the_host_s_features_are_known() -> None:
    assert x86.host_has("sse2")
    assert not x86.host_has("sse2", "no such feature")
