"""The program loader's view of ELF files: what is real is read, what is hostile is refused and never crashes."""

import shutil
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from virtus.guests import elf


def header(count: int, kind: int = elf.ET_EXEC, offset: int = 64) -> bytes:
    ident = elf.MAGIC + bytes([2, 1, 1]) + bytes(9)
    return elf.HEADER.pack(ident, kind, elf.EM_X86_64, 1, 0x401000, offset, 0, 0, 64, 56, count, 0, 0, 0)


def segment(address: int = 0x400000, offset: int = 0, in_file: int = 120, in_memory: int = 120, kind: int = 1) -> bytes:
    return elf.PROGRAM_HEADER.pack(kind, 5, offset, address, address, in_file, in_memory, 4096)


def test_this_interpreter_is_understood() -> None:
    path = Path(sys.executable).resolve()
    program = elf.parse(path.read_bytes()[:4096], path.stat().st_size)
    assert program.machine == elf.EM_X86_64
    assert program.interpreter is not None
    offset, size = program.interpreter
    assert b"ld-linux" in path.read_bytes()[offset : offset + size]
    low, high = program.span
    assert low % 4096 == 0 and high > low
    assert program.headers_at() > 0


def test_a_minimal_program() -> None:
    program = elf.parse(header(1) + segment(), 120)
    assert program.span == (0x400000, 0x401000)
    assert program.headers_at() == 0x400040
    assert program.entry == 0x401000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x7fEL", "no ELF"),
        (b"\x7fELF", "truncated in the ELF header"),
        (header(1)[:40], "truncated in the ELF header"),
        (header(1), "truncated in the program headers"),
        (header(0), "unknown size"),
        (header(1, kind=4) + segment(), "not a program"),
        (header(1) + segment(in_file=9999, in_memory=9999), "truncated in a segment"),
        (header(1) + segment(in_file=120, in_memory=10), "impossible sizes"),
        (header(1) + segment(address=0x400001), "aligned"),
        (header(1) + segment(address=1 << 50), "impossible sizes"),
        (header(2) + segment(0x500000) + segment(0x400000), "out of order"),
        (header(1) + segment(kind=3, in_file=5000), "out of bounds"),
        (header(1) + segment(kind=6), "nothing to load"),
    ],
)
def test_what_cannot_be_loaded_is_said(data: bytes, words: str) -> None:
    with pytest.raises(elf.NotLoadable, match=words):
        elf.parse(data, 120)


@given(st.binary(max_size=400))
@example(header(1) + segment())
def test_any_bytes_parse_or_are_refused(tail: bytes) -> None:
    for data in (tail, header(3)[: 64 - len(tail) % 8] + tail):
        try:
            program = elf.parse(data, len(data))
        except elf.NotLoadable:
            continue
        assert all(part.address + part.memory_size <= elf.USER_END for part in program.segments)


@given(st.integers(0, 119), st.binary(min_size=1, max_size=8))
def test_a_damaged_program_parses_or_is_refused(at: int, damage: bytes) -> None:
    data = bytearray(header(1) + segment())
    data[at : at + len(damage)] = damage
    try:
        elf.parse(bytes(data), 120)
    except elf.NotLoadable as error:
        assert str(error)


def test_32_bit_files_are_refused() -> None:
    data = bytearray(header(1) + segment())
    data[4] = 1
    with pytest.raises(elf.NotLoadable, match="64-bit"):
        elf.parse(bytes(data), 120)


def test_a_static_busybox_has_no_interpreter() -> None:
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("no busybox here (Debian: busybox-static)")
    data = Path(found).read_bytes()
    program = elf.parse(data[:4096], len(data))
    assert all(struct.pack("<Q", part.address) for part in program.segments)
    assert program.entry
