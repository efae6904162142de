"""`virtus run --explain`: what a Windows program needs, told without running it."""

import struct
from pathlib import Path

import pytest

from virtus.guests import pe
from virtus.guests.identify import Guest, Kind
from virtus.personalities.win32 import catalogue, modules
from virtus.personalities.win32.table import FUNCTIONS
from virtus.techniques import explaining, windows_explain

IMPORTS_AT, SECTION_AT = 0x1000, 0x400


def program(imports: dict[str, list[str]], *, subsystem: int = pe.SUBSYSTEM_CONSOLE, managed: bool = False) -> bytes:
    """A program for x86-64 that imports functions by name, and does nothing."""
    directory, rest = bytearray(), bytearray()
    start = IMPORTS_AT + 20 * (len(imports) + 1)

    def place(data: bytes) -> int:
        at = start + len(rest)
        rest.extend(data + bytes(-len(data) % 8))
        return at

    for dll, names in imports.items():
        hints = [place(b"\0\0" + name.encode() + b"\0") for name in names]
        table = struct.pack(f"<{len(hints) + 1}Q", *hints, 0)
        lookup, slots = place(table), place(table)
        directory += struct.pack("<5I", lookup, 0, 0, place(dll.encode() + b"\0"), slots)
    body = bytes(directory) + bytes(20) + bytes(rest)
    directories = [(0, 0)] * pe.DIRECTORIES
    directories[pe.IMPORT] = (IMPORTS_AT, len(directory) + 20)
    if managed:
        directories[pe.CLR] = (IMPORTS_AT, 8)
    optional = bytearray(pe.OPTIONAL_SIZE)
    struct.pack_into("<H", optional, 0, pe.PE32_PLUS)
    struct.pack_into("<QII", optional, 24, 0x140000000, 0x1000, 0x200)
    struct.pack_into("<II", optional, 56, 0x10000, SECTION_AT)
    struct.pack_into("<H", optional, 68, subsystem)
    struct.pack_into("<I", optional, 108, pe.DIRECTORIES)
    tables = b"".join(struct.pack("<II", *row) for row in directories)
    header = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0"
    header += struct.pack("<HHIIIHH", pe.MACHINE_AMD64, 1, 0, 0, 0, len(optional) + len(tables), pe.FILE_EXECUTABLE)
    header += bytes(optional) + tables
    header += struct.pack("<8s4I12xI", b".idata", 0x8000, IMPORTS_AT, len(body), SECTION_AT, 0xC0000040)
    return header.ljust(SECTION_AT, b"\0") + body


def explained(path: Path, data: bytes) -> windows_explain.Explanation:
    path.write_bytes(data)
    return windows_explain.explain(path)


def test_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    imports = {
        "KERNEL32.dll": ["HeapAlloc", "NoSuchFunction"],
        "api-ms-win-core-synch-l1-2-0.dll": ["WakeAllConditionVariable"],
        "own.dll": ["anything"],
        "nowhere.dll": ["lost"],
    }
    (tmp_path / "OWN.DLL").write_bytes(program({"kernel32.dll": ["AlsoMissing"]}))
    found = explained(tmp_path / "p.exe", program(imports))
    assert {need.library: need.source for need in found.needs.values()} == {
        "kernel32.dll": "virtus", "kernelbase.dll": "virtus", "own.dll": "beside the program",
        "nowhere.dll": "nowhere",
    }  # fmt: skip
    assert found.needs["kernel32.dll"].missing == ["NoSuchFunction", "AlsoMissing"]
    assert found.needs["nowhere.dll"].missing == ["lost"]
    assert found.missing == 3
    assert "3 imported functions are not there" in found.verdict()


def test_nothing_missing(tmp_path: Path) -> None:
    found = explained(tmp_path / "p.exe", program({"kernel32.dll": ["HeapAlloc", "ExitProcess"]}))
    assert found.missing == 0
    assert found.verdict() == "every function that it imports is there: run it"


@pytest.mark.parametrize(
    ("data", "word", "remedy"),
    [
        (program({}, subsystem=pe.SUBSYSTEM_GUI), "a program with windows", "wine"),
        (program({}, managed=True), ".NET", "Mono"),
        (program({})[:0x180], "damaged", ""),
        (b"MZ" + bytes(100), "DOS", ""),
    ],
)
def test_what_cannot_run_at_all(tmp_path: Path, data: bytes, word: str, remedy: str) -> None:
    found = explained(tmp_path / "p.exe", data)
    assert word in found.obstacle
    assert remedy in found.remedy
    lines, status = explaining.explain(Guest(str(tmp_path / "p.exe"), Kind.PE, "x86-64", 64), None)
    assert status == explaining.CANNOT
    assert any("cannot run" in line for line in lines)


def test_programs_of_32_bits_are_refused_with_a_word_about_wine() -> None:
    lines, status = explaining.explain(Guest("p.exe", Kind.PE, "i386", 32), None)
    assert status == explaining.CANNOT
    assert "wine" in lines[-1]


def test_api_sets_are_who_implements_them() -> None:
    assert modules.real_name("API-MS-Win-CRT-heap-l1-1-0.dll") == "ucrtbase.dll"
    assert modules.real_name("api-ms-win-core-file-l1-1-0") == "kernelbase.dll"
    assert modules.real_name("KERNEL32") == "kernel32.dll"


@pytest.mark.slow
def test_the_catalogue_is_what_the_modules_have() -> None:
    catalogue.load_all()
    there = {name: row.implementation.__module__.rpartition(".")[2] for name, row in FUNCTIONS.items()}
    assert there == catalogue.MODULES, f"run python -m {catalogue.__name__}"
    dlls = {dll for function in FUNCTIONS.values() for dll in function.dlls}
    assert dlls == catalogue.DLLS
