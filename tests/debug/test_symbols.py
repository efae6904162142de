"""The names of functions in ELF files: as nm(1) has them, and none for what is no such file."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulation.guests import build
from virtus.guests.symbols import PAGE, Map, bias, functions

NM = "riscv64-linux-gnu-nm"


def of_bytes(data: bytes) -> int:
    descriptor = os.memfd_create("symbols")
    os.write(descriptor, data)
    return descriptor


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_they_are_those_of_nm(dynamic: bool) -> None:
    program = build("jumps", dynamic=dynamic)
    if shutil.which(NM) is None:
        pytest.skip(f"{NM} is not installed (Debian: binutils-riscv64-linux-gnu)")
    listed = subprocess.run([NM, program], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines() if line.split()[-2] in ("T", "t", "W", "i")]
    names: dict[int, set[str]] = {}
    for address, _, name in rows:
        names.setdefault(int(address, 16), set()).add(name)
    with program.open("rb") as stream:
        found = functions(stream.fileno())
    assert "main" in {function.name for function in found}
    assert all(function.name in names[function.address] for function in found)
    assert len(found) > (500 if not dynamic else 5)
    assert [function.address for function in found] == sorted({function.address for function in found})


@pytest.mark.slow
def test_where_a_file_is_mapped_its_functions_are() -> None:
    program = build("jumps", dynamic=True)
    with program.open("rb") as stream:
        descriptor = stream.fileno()
        main = next(function for function in functions(descriptor) if function.name == "main")
        start = 0x2AAAAAA000
        assert bias(descriptor, start, 0) == start
        known = Map()
        known.add(start, start + PAGE, descriptor, 0)
        other = known.copy()
        assert known.show(start + main.address) == "main"
        assert known.show(start + main.address + 4) == "main+0x4"
        assert known.show(start - 1) == hex(start - 1)
        assert known.show(start + PAGE) == hex(start + PAGE)
        known.add(start, start + PAGE, of_bytes(b"something else"), 0)
        assert known.show(start + main.address) == hex(start + main.address)
        known.clear()
        assert known.find(start + main.address) is None
        assert other.show(start + main.address) == "main"


@pytest.fixture(scope="module")
def small() -> bytes:
    """A file with two symbols."""
    strings = b"\0first\0second\0"
    symbols = struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0x10, 8) + struct.pack("<IBBHQQ", 7, 0x12, 0, 1, 0x20, 0)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, 243, 1, 0, 0, 64, 0, 64, 56, 0, 64, 4, 0)
    at = 64 + 4 * 64
    sections = [
        bytes(64),
        struct.pack("<IIQQQQIIQQ", 0, 1, 4, 0, 0, 0, 0, 0, 0, 0),
        struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, at, len(symbols), 3, 0, 8, 24),
        struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, at + len(symbols), len(strings), 0, 0, 1, 0),
    ]
    return header + b"".join(sections) + symbols + strings


def test_a_small_file(small: bytes) -> None:
    descriptor = of_bytes(small)
    assert [(found.address, found.size, found.name) for found in functions(descriptor)] == [
        (0x10, 8, "first"),
        (0x20, 0, "second"),
    ]
    os.close(descriptor)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.data())
def test_a_damaged_file_does_no_harm(small: bytes, data: st.DataObject) -> None:
    damaged = bytearray(small)
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(small) - 1), st.integers(0, 255)), max_size=8)):
        damaged[at] = value
    descriptor = of_bytes(bytes(damaged[: data.draw(st.integers(0, len(small)))]))
    for function in functions(descriptor):
        assert function.name.isprintable()
    bias(descriptor, 0x1000, 0)
    os.close(descriptor)


def test_what_is_no_file_of_functions(tmp_path: Path) -> None:
    for data in (b"", b"\x7fELF", b"#!/bin/sh\n", bytes(1000)):
        descriptor = of_bytes(data)
        assert functions(descriptor) == []
        assert bias(descriptor, 0, 0) is None
        os.close(descriptor)
