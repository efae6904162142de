"""The stubs' machine code against the listing beside it: objdump reads the same, and pieces begin where it is said."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from virtus.vcpus.translator import layout, stubs
from virtus.vcpus.translator.stubs import Stubs

PLACE: Final = layout.CODE
CONSTANTS: Final = {name: value for name, value in vars(layout).items() if isinstance(value, int)}
SYSCALL_BYTES: Final = 2


def disassembled(code: bytes, directory: Path) -> dict[int, str]:
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed (Debian: binutils)")
    binary = directory / "code"
    binary.write_bytes(code)
    command = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--no-show-raw-insn", "-z"]
    shown = subprocess.run([*command, str(binary)], capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^ +([0-9a-f]+):\t(.*)$", shown, re.MULTILINE)
    return {int(at, 16): re.sub(r" +", " ", text.partition("#")[0]).strip() for at, text in lines}


def documented() -> dict[str, list[str]]:
    """The instructions of each labelled piece, from the comment over the code, without its remarks."""
    source = Path(stubs.__file__).read_text()
    pieces: dict[str, list[str]] = {}
    current: list[str] = []
    for line in re.findall(r"^#  (.*)$", source, re.MULTILINE):
        label = re.match(r" *([a-z_]+):", line)
        if label:
            current = pieces.setdefault(label[1], [])
            line = line[label.end() :]
        found = [re.sub(r" {2,}.*", "", part.strip()) for part in re.split(r";", line)]
        current += [part for part in found if part]
    return pieces


def plain(instruction: str) -> str:
    """objdump's way of writing, and names for the state's words, brought to the comment's."""
    text = re.sub(r"\b[QD]WORD PTR ", "", instruction).replace(",", ", ").replace("movabs", "mov")
    for old, new in ((" 0x0", " 0"), (" 0x1", " 1"), (" 0x26", " 38")):
        text = re.sub(f"{old}$", new, text)
    return text


def expected(instruction: str) -> str:
    """The comment's, with numbers for names."""
    text = re.sub(r"\b([qd]word) ", "", instruction).replace("jz ", "je ").replace("jnz ", "jne ")

    def number(match: "re.Match[str]") -> str:
        return f"{match[1]}+{8 * CONSTANTS[match[2]]:#x}]"

    text = re.sub(r"(\[r[a-z]+)\+([A-Z_]+)\]", number, text)
    return re.sub(r"\b([A-Z]{4,}[A-Z_]*)$", lambda match: f"{CONSTANTS[match[1]]:#x}", text)


def test_the_code_is_what_is_said_of_it(tmp_path: Path) -> None:
    found = disassembled(stubs.CODE, tmp_path)
    starts: dict[str, int] = {}
    pending: list[tuple[str, str]] = []
    instructions = [(at, text) for at, text in found.items() if not re.match(r"(data16|nop|cs nop|xchg)", text)]
    position = iter(instructions)
    for label, lines in documented().items():
        for index, line in enumerate(lines):
            at, text = next(position)
            if index == 0:
                starts[label] = at
            jump = re.match(r"(j[a-z]+) ([a-z_]{3,})$", line)
            if jump and jump[2] != "rdx":
                pending.append((text, f"{expected(line).split()[0]} {jump[2]}"))
            else:
                assert plain(text) == expected(line), f"{label} at {at:#x}"
    assert next(position, None) is None
    for text, line in pending:
        kind, target = line.split()
        assert text == f"{kind} {starts[target]:#x}"


def test_pieces_begin_where_states_say() -> None:
    made = Stubs(PLACE)
    assert made.code == stubs.CODE
    assert set(made.words) == {
        layout.LEAVE_AT, layout.MISS_AT, layout.UNWIND_AT, layout.HOT_AT, layout.JUMP_MISS_AT,
    }  # fmt: skip
    assert all(PLACE <= address < PLACE + len(made.code) for address in (made.enter, *made.words.values()))


def test_every_system_call_is_known(tmp_path: Path) -> None:
    made = Stubs(PLACE)
    found = disassembled(stubs.CODE, tmp_path)
    calls = {PLACE + at + SYSCALL_BYTES for at, text in found.items() if text == "syscall"}
    assert made.system_calls == calls
    starts = {PLACE + at for at in found}
    assert {made.enter, *made.words.values()} <= starts
