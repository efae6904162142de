"""The disassembler, against binutils: what it prints is what objdump prints, and assembles to the same encoding."""

import re
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from tests.isa.riscv64_encodings import ENCODINGS, FENCES, JUMPS, encode
from virtus.isa.riscv64 import RISCV64

PREFIX = "riscv64-linux-gnu-"
needs_binutils = pytest.mark.skipif(
    shutil.which(f"{PREFIX}as") is None, reason="no binutils for riscv64 (Debian: binutils-riscv64-linux-gnu)"
)
PC = 0x600000
ANY_ROUNDING = ("fcvt.d.s", "fcvt.d.w", "fcvt.d.wu")


def codes(names: list[str]) -> list[int]:
    random = Random(1)
    found = [encode(name, random, rm=random.choice((0, 1, 2, 3, 4, 7))) for name in names for _ in range(8)]
    return [code for code in found if RISCV64.decode(code.to_bytes(4, "little"), 0).name not in ANY_ROUNDING]


def shown(code: int, pc: int = PC) -> str:
    return RISCV64.show(RISCV64.decode(code.to_bytes(4, "little"), 0), pc)


@needs_binutils
def test_objdump_prints_the_same(tmp_path: Path) -> None:
    every = codes([name for name in ENCODINGS if name != "fence.i"])
    file = tmp_path / "code"
    file.write_bytes(b"".join(code.to_bytes(4, "little") for code in every))
    command = [f"{PREFIX}objdump", "-D", "-b", "binary", "-m", "riscv:rv64", "-M", "no-aliases"]
    printed = subprocess.run(
        [*command, f"--adjust-vma={PC:#x}", str(file)], check=True, capture_output=True, text=True
    ).stdout
    lines = re.findall(r"^ *[0-9a-f]+:\t[0-9a-f]+ *\t(.*)$", printed, re.MULTILINE)
    assert len(lines) == len(every)
    compared = 0
    for number, (code, line) in enumerate(zip(every, lines, strict=True)):
        if line.startswith(".4byte"):
            continue  # it does not know extension B unless a file says that it is used
        name, *operands = re.sub(r" *[#<].*", "", line).strip().split("\t")
        wanted = f"{name} {operands[0].replace(',', ', ')}" if operands else name
        if re.match(r"s[lr][la]i", name):
            wanted = re.sub(r"0x[0-9a-f]+$", lambda found: str(int(found[0], 16)), wanted)
        assert shown(code, PC + 4 * number) == wanted
        compared += 1
    assert compared > len(every) / 2


@needs_binutils
def test_it_assembles_to_the_same(tmp_path: Path) -> None:
    every = codes([name for name in ENCODINGS if name not in JUMPS and name not in FENCES])
    source, object, binary = (tmp_path / name for name in ("code.s", "code.o", "code.bin"))
    source.write_text("".join(f"{shown(code)}\n" for code in every))
    subprocess.run([f"{PREFIX}as", "-march=rv64g_zba_zbb_zbs", "-o", object, source], check=True)
    subprocess.run([f"{PREFIX}objcopy", "-O", "binary", "-j", ".text", object, binary], check=True)
    made = binary.read_bytes()
    assert [hex(int.from_bytes(made[at : at + 4], "little")) for at in range(0, len(made), 4)] == [*map(hex, every)]


@pytest.mark.parametrize(
    ("code", "text"),
    [("0145", "addi a0, zero, 0"), ("8280", "jalr zero, 0(ra)"), ("0100", "addi zero, zero, 0")],
    ids=["c.li", "c.jr", "c.nop"],
)
def test_a_compressed_instruction_is_shown_as_what_it_stands_for(code: str, text: str) -> None:
    assert RISCV64.show(RISCV64.decode(bytes.fromhex(code), 0), 0) == text


def test_what_means_nothing_is_shown_as_its_encoding() -> None:
    assert RISCV64.show(RISCV64.decode(bytes(2), 0), 0) == ".insn 2, 0x0000"
    assert RISCV64.show(RISCV64.decode(bytes.fromhex("ffffffff"), 0), 0) == ".insn 4, 0xffffffff"
    assert RISCV64.show(RISCV64.decode(bytes.fromhex("0f003083"), 0), 0) == "fence.tso"
