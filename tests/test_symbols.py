"""Functions of ELF files: as nm(1) names them, at their places when mapped, and nothing worse than none at all."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtus.guests import elf, symbols
from virtus.guests.symbols import Function, Map, bias, functions

TEXT, OFFSET = 0x10000, 0x1000
CODE, DATA = 3, 1  # sections
STRINGS = b"\0first\0second\0\x1b[31mred\0third\0"
SECTIONS_AT, SYMBOLS_AT, STRINGS_AT, SIZE = 0x200, 0x300, 0x400, 0x3000


def image(*entries: tuple[int, int, int, int], kind: int = symbols.SHT_SYMTAB, section: int = CODE) -> bytes:
    """A program with a segment of code at TEXT, and these symbols: name, info, address, size."""
    data = bytearray(SIZE)
    header = elf.MAGIC + bytes((elf.ELFCLASS64, elf.ELFDATA2LSB))
    elf.HEADER.pack_into(
        data, 0, header, elf.ET_EXEC, elf.EM_RISCV, 1, TEXT, 64, SECTIONS_AT, 0, 64, elf.PROGRAM_HEADER.size, 1,
        symbols.SECTION_HEADER.size, 4, 0,
    )  # fmt: skip
    elf.PROGRAM_HEADER.pack_into(data, 64, elf.PT_LOAD, elf.PF_X | elf.PF_R, OFFSET, TEXT, TEXT, 0x2000, 0x2000, 4096)
    size = len(entries) * symbols.SYMBOL.size
    for at, fields in (
        (1, (0, kind, 0, 0, SYMBOLS_AT, size, 2, 0, 0, 0)),
        (2, (0, 3, 0, 0, STRINGS_AT, 64, 0, 0, 0, 0)),
        (CODE, (0, 1, symbols.SHF_EXECINSTR, TEXT, OFFSET, 0x2000, 0, 0, 0, 0)),
    ):
        symbols.SECTION_HEADER.pack_into(data, SECTIONS_AT + at * symbols.SECTION_HEADER.size, *fields)
    for at, (name, info, address, length) in enumerate(entries):
        symbols.SYMBOL.pack_into(data, SYMBOLS_AT + at * symbols.SYMBOL.size, name, info, 0, section, address, length)
    data[STRINGS_AT : STRINGS_AT + len(STRINGS)] = STRINGS
    return bytes(data)


FIRST, SECOND, RED, THIRD = 1, 7, 14, 23
GLOBAL_FUNCTION, LOCAL_FUNCTION, OBJECT, GLOBAL_LABEL = 0x12, 0x02, 0x11, 0x10
USUAL = ((FIRST, GLOBAL_FUNCTION, TEXT + 0x10, 0x20), (SECOND, LOCAL_FUNCTION, TEXT + 0x100, 0))


@contextmanager
def file_of(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


def test_functions_are_found() -> None:
    for kind in (symbols.SHT_SYMTAB, symbols.SHT_DYNSYM):
        with file_of(image(*USUAL, (THIRD, OBJECT, TEXT + 8, 8), kind=kind)) as descriptor:
            assert functions(descriptor) == [
                Function(TEXT + 0x10, 0x20, "first"), Function(TEXT + 0x100, 0, "second")
            ]  # fmt: skip


def test_of_two_names_that_which_others_know() -> None:
    entries = (THIRD, LOCAL_FUNCTION, TEXT, 4), (FIRST, GLOBAL_FUNCTION, TEXT, 4), (SECOND, LOCAL_FUNCTION, TEXT, 4)
    with file_of(image(*entries)) as descriptor:
        assert [function.name for function in functions(descriptor)] == ["first"]


@pytest.mark.parametrize(("section", "count"), [(CODE, 1), (DATA, 0), (0, 0), (0xFFF1, 0)])
def test_a_label_is_a_function_where_code_is(section: int, count: int) -> None:
    with file_of(image((FIRST, GLOBAL_LABEL, TEXT, 0), section=section)) as descriptor:
        assert len(functions(descriptor)) == count


def test_names_that_would_move_a_terminal_s_cursor_are_none() -> None:
    with file_of(image((RED, GLOBAL_FUNCTION, TEXT, 4))) as descriptor:
        assert functions(descriptor) == []


def test_a_map_says_what_is_where() -> None:
    known, start = Map(), 0x2A_0000_0000
    with file_of(image(*USUAL)) as descriptor:
        assert bias(descriptor, start, OFFSET) == start - TEXT
        assert bias(descriptor, start + 0x1000, OFFSET + 0x1000) == start - TEXT
        assert bias(descriptor, start, 0) is None
        known.add(start, start + 0x2000, descriptor, OFFSET)
    assert known.show(start + 0x10) == "first"
    assert known.show(start + 0x2F) == "first+0x1f"
    assert known.show(start + 0x30) == f"{start + 0x30:#x}"
    assert known.show(start + 0x101) == "second+0x1"
    assert known.find(start) is None
    assert known.find(start + 0x2000) is None
    other = known.copy()
    known.clear()
    assert known.find(start + 0x10) is None
    assert other.find(start + 0x10) == ("first", 0)


def test_what_is_mapped_over_it_takes_its_place() -> None:
    known = Map()
    with file_of(image(*USUAL)) as descriptor:
        known.add(TEXT, TEXT + 0x2000, descriptor, OFFSET)
    with file_of(image((THIRD, GLOBAL_FUNCTION, TEXT, 0))) as descriptor:
        known.add(TEXT, TEXT + 0x2000, descriptor, OFFSET)
    assert known.show(TEXT + 0x10) == "third+0x10"


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 0x3FF), st.integers(0, 255)), max_size=24), st.integers(0, SIZE))
def test_any_file_is_read(changes: list[tuple[int, int]], size: int) -> None:
    data = bytearray(image(*USUAL))
    for at, value in changes:
        data[at] = value
    with file_of(bytes(data[:size])) as descriptor:
        known = Map()
        known.add(TEXT, TEXT + 0x2000, descriptor, OFFSET)
        known.show(TEXT + 0x10)
        found = functions(descriptor)
        assert found == sorted(found, key=lambda function: function.address)


def test_as_nm_has_them() -> None:
    program = next((found for name in ("readelf", "objdump", "gdb") if (found := shutil.which(name))), None)
    if program is None or shutil.which("nm") is None:
        pytest.skip("nm is not installed (Debian: binutils)")
    path = Path(program).resolve()
    listed = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=False).stdout
    expected = {tuple(line.split()) for line in listed.splitlines() if line.split()[1] in "TW"}
    descriptor = os.open(path, os.O_RDONLY)
    try:
        addresses = {function.address for function in functions(descriptor)}
    finally:
        os.close(descriptor)
    assert {int(address, 16) for address, *_ in expected} <= addresses
