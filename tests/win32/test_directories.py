"""Directories as a Windows program sees them: patterns, enumeration by name, by handle and by native functions."""

import os
import struct
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.win32.fake_engine import call, new_thread, room, wide
from virtus.personalities.win32 import (  # noqa: F401  # their functions enter the table
    directories,
    file_changes,
    file_information,
    files,
    handle_functions,
    nt_files,
    nt_volumes,
    reparse_points,
)
from virtus.personalities.win32.paths import to_windows
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.wildcards import fits, matches

INVALID = (1 << 64) - 1
READ, BACKUP, OPEN_LINK, OPEN_EXISTING = 0x8000_0000, 0x0200_0000, 0x0020_0000, 3
NAMES = st.text("ab.B", min_size=1, max_size=8)


@pytest.fixture
def thread() -> Thread:
    return new_thread()


@pytest.mark.parametrize(
    ("pattern", "found", "missed"),
    [
        ("*.*", "a a.b .c", ""),
        ("*", "a a.b", ""),
        ("*.txt", "a.txt A.TXT a.b.txt .txt", "a.txt2 txt a.tx"),
        ("a?", "a ab aB", "abc b"),
        ("????", "a ab abcd", "abcde a.b"),
        ("?.c", "a.c", "ab.c"),
        ("*.", "a abc", "a.b"),
        ("a.*", "a a.b a.b.c", "ab"),
        ("a.?", "a.b a", "a.bc"),
        ("file", "file FILE", "files"),
        ("*b*", "b ab bc abc", "ac"),
        ("a*.c", "a.c ab.c a.b.c", "a.cd"),
    ],
)
def test_what_patterns_of_programs_find(pattern: str, found: str, missed: str) -> None:
    for name in found.split():
        assert fits(pattern, name), name
    for name in missed.split():
        assert not fits(pattern, name), name


def reference(expression: str, name: str) -> bool:
    """[MS-FSA] 2.1.4.4, word by word."""
    last = name.rfind(".")

    @cache
    def match(i: int, j: int) -> bool:
        if i == len(expression):
            return j == len(name)
        wild, here = expression[i], name[j : j + 1]
        if wild == "*":
            return match(i + 1, j) or (bool(here) and match(i, j + 1))
        if wild == "<":
            return match(i + 1, j) or (bool(here) and j != last and match(i, j + 1))
        if wild == "?":
            return bool(here) and match(i + 1, j + 1)
        if wild == ">":
            return match(i + 1, j) if here in ("", ".") else match(i + 1, j + 1)
        if wild == '"':
            return match(i + 1, j + 1) if here == "." else not here and match(i + 1, j)
        return here.upper() == wild.upper() and match(i + 1, j + 1)

    return match(0, 0)


@given(st.text('ab.*?<>"', max_size=10), NAMES)
def test_expressions_match_as_specified(expression: str, name: str) -> None:
    assert matches(expression, name) == reference(expression, name)


def test_a_long_pattern_takes_no_time_that_grows_with_its_power() -> None:
    assert not matches("*a" * 100, "a" * 250 + "b")


def found_names(thread: Thread, pattern: str) -> list[str]:
    data = room(thread, 592)
    search = call(thread, "FindFirstFileW", wide(thread, pattern), data)
    names: list[str] = []
    while search != INVALID:
        names.append(thread.memory.wide(data + 44))
        if not call(thread, "FindNextFileW", search, data):
            assert thread.last_error == 18
            assert call(thread, "FindClose", search)
            break
    return names


def test_enumeration_by_name(thread: Thread, tmp_path: Path) -> None:
    for name in ("b.txt", "A.txt", "c", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "dir").mkdir()
    base = to_windows(str(tmp_path))
    assert found_names(thread, base + "\\*") == [".", "..", ".hidden", "A.txt", "b.txt", "c", "dir"]
    assert found_names(thread, base.upper().replace("Z:", "z:") + "\\*.TXT") == ["A.txt", "b.txt"]
    assert found_names(thread, base + "\\C") == ["c"]
    assert found_names(thread, base + "\\*.nothing") == [] and thread.last_error == 2
    assert found_names(thread, base + "\\nowhere\\*") == [] and thread.last_error == 3
    assert found_names(thread, base + "\\dir\\") == [] and thread.last_error == 2


def entries(data: bytes, names_at: int) -> list[str]:
    """Names of chained entries; every offset must lie inside."""
    found, place = [], 0
    while data:
        following, length = struct.unpack_from("<I", data, place)[0], struct.unpack_from("<I", data, place + 60)[0]
        assert place + names_at + length <= len(data) and place % 8 == 0
        found.append(data[place + names_at : place + names_at + length].decode("utf-16-le"))
        if not following:
            break
        place += following
    return found


@pytest.mark.parametrize(("kind", "names_at"), [(1, 64), (2, 68), (3, 94), (37, 104), (38, 80), (60, 88)])
def test_enumeration_by_native_function(thread: Thread, tmp_path: Path, kind: int, names_at: int) -> None:
    names = [f"name {number}" * (number % 5 + 1) for number in range(40)]
    for name in names:
        (tmp_path / name).touch()
    path = wide(thread, to_windows(str(tmp_path)))
    handle = call(thread, "CreateFileW", path, READ, 7, 0, OPEN_EXISTING, BACKUP, 0)
    block, buffer, found = room(thread, 16), room(thread, 1024), []
    while not (status := call(thread, "NtQueryDirectoryFileEx", handle, 0, 0, 0, block, buffer, 1024, kind, 0, 0)):
        found += entries(thread.memory.read(buffer, thread.memory.u64(block + 8)), names_at)
    assert status & 0xFFFF_FFFF == 0x8000_0006
    assert sorted(found) == sorted([".", "..", *names])
    assert call(thread, "NtQueryDirectoryFileEx", handle, 0, 0, 0, block, buffer, 70, kind, 3, 0) == 0 or names_at > 68
    assert (
        call(thread, "NtQueryDirectoryFileEx", handle, 0, 0, 0, block, buffer, 8, kind, 1, 0) & 0xFFFF_FFFF
        == 0x8000_0005
    )


def attributes_of(thread: Thread, directory: int, name: str, inherit: bool = False) -> int:
    encoded = name.encode("utf-16-le")
    text = room(thread, struct.pack("<HHIQ", len(encoded), len(encoded), 0, room(thread, encoded or 1)))
    return room(thread, struct.pack("<IIQQIIQQ", 48, 0, directory, text, 2 * inherit, 0, 0, 0))


def test_native_files_relative_to_a_directory(thread: Thread, tmp_path: Path) -> None:
    result, block = room(thread, 8), room(thread, 16)

    def create(root: int, name: str, disposition: int, options: int, access: int = 0x12_0089) -> int:
        words = attributes_of(thread, root, name)
        return int(
            call(thread, "NtCreateFile", result, access, words, block, 0, 0, 7, disposition, options, 0, 0)
        ) & 0xFFFF_FFFF  # fmt: skip

    assert create(0, "\\??\\" + to_windows(str(tmp_path)), 1, 0x21) == 0
    root = thread.memory.u64(result)
    assert create(root, "sub", 2, 0x21) == 0 and thread.memory.u64(block + 8) == 2 and (tmp_path / "sub").is_dir()
    assert create(root, "sub", 2, 0x21) == 0xC000_0035
    assert create(root, "sub", 1, 0x60) == 0xC000_00BA
    assert create(root, "SUB\\file", 2, 0x60, 0x13_0116) == 0 and (tmp_path / "sub" / "file").is_file()
    file = thread.memory.u64(result)
    assert create(root, "sub\\file", 1, 0x21) == 0xC000_0103
    assert create(root, "nothing", 1, 0x20) == 0xC000_0034
    assert create(root, "no\\thing", 1, 0x20) == 0xC000_003A
    assert create(root, "..\\escape", 1, 0x20) == 0xC000_0033
    assert create(0, "relative", 1, 0x20) == 0xC000_0033
    disposition = room(thread, struct.pack("<I", 3))
    assert call(thread, "NtSetInformationFile", file, block, disposition, 4, 64) == 0
    assert not (tmp_path / "sub" / "file").exists()


def test_what_is_known_of_a_file_by_native_functions(thread: Thread, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    handle = call(thread, "CreateFileW", wide(thread, to_windows(str(tmp_path / "file"))), READ, 7, 0, 3, 0, 0)
    block, data = room(thread, 16), room(thread, 4096)
    assert call(thread, "NtQueryInformationFile", handle, block, data, 24, 5) == 0
    assert struct.unpack("<QI", thread.memory.read(data + 8, 12)) == (5, 1)
    assert call(thread, "NtQueryInformationFile", handle, block, data, 23, 5) & 0xFFFF_FFFF == 0xC000_0004
    assert call(thread, "NtQueryInformationFile", handle, block, data, 4096, 18) == 0
    length = thread.memory.u32(data + 96)
    assert thread.memory.read(data + 100, length).decode("utf-16-le") == to_windows(str(tmp_path / "file"))[2:]
    assert call(thread, "NtQueryVolumeInformationFile", handle, block, data, 8, 4) == 0 and thread.memory.u32(data) == 7
    assert call(thread, "NtQueryInformationFile", handle, block, data, 4096, 999) & 0xFFFF_FFFF == 0xC000_0003


def test_links(thread: Thread, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    path = wide(thread, to_windows(str(tmp_path / "link")))
    assert call(thread, "GetFileAttributesW", path) == 0x410
    handle = call(thread, "CreateFileW", path, 0, 7, 0, OPEN_EXISTING, BACKUP | OPEN_LINK, 0)
    buffer, count = room(thread, 1024), room(thread, 4)
    assert call(thread, "DeviceIoControl", handle, 0x900A8, 0, 0, buffer, 1024, count, 0)
    data = thread.memory.read(buffer, thread.memory.u32(count))
    assert reparse_points.parse(data) == ("target", 0xA000_000C)
    (tmp_path / "new").mkdir()
    new = call(
        thread, "CreateFileW", wide(thread, to_windows(str(tmp_path / "new"))), READ, 7, 0, 3, BACKUP | OPEN_LINK, 0
    )
    assert call(thread, "DeviceIoControl", new, 0x900A4, buffer, len(data), 0, 0, count, 0)
    assert os.readlink(tmp_path / "new") == "target"


@given(
    st.binary(max_size=64)
    | st.binary(max_size=40).map(lambda data: struct.pack("<IHH", 0xA000_000C, len(data), 0) + data)
)
def test_any_reparse_data_is_a_target_or_refused(data: bytes) -> None:
    try:
        target, tag = reparse_points.parse(data)
    except ValueError:
        return
    assert target and tag in (0xA000_000C, 0xA000_0003)
