"""Files as a Windows program sees them: opening, reading and writing, share modes, locks, views."""

import os
import struct
from pathlib import Path

import pytest

from tests.win32.fake_engine import call, new_thread, room, wide
from virtus.personalities.win32 import (  # noqa: F401  # their functions enter the table
    file_information,
    file_locks,
    file_transfer,
    files,
    handle_functions,
    mappings,
    moving,
    synchronisation,
)
from virtus.personalities.win32.paths import to_windows
from virtus.personalities.win32.process import Thread

READ, WRITE, DELETE = 0x8000_0000, 0x4000_0000, 0x1_0000
SHARE_READ, SHARE_WRITE, SHARE_DELETE = 1, 2, 4
CREATE_NEW, CREATE_ALWAYS, OPEN_EXISTING, OPEN_ALWAYS, TRUNCATE = 1, 2, 3, 4, 5
INVALID = (1 << 64) - 1
OVERLAPPED = 0x4000_0000


@pytest.fixture
def thread() -> Thread:
    return new_thread()


def opened(
    thread: Thread, path: Path, access: int = READ | WRITE, share: int = 7, disposition: int = OPEN_ALWAYS,
    flags: int = 0,
) -> int:  # fmt: skip
    return int(
        call(thread, "CreateFileW", wide(thread, to_windows(str(path))), access, share, 0, disposition, flags, 0)
    )


def write(thread: Thread, handle: int, data: bytes) -> int:
    return int(call(thread, "WriteFile", handle, room(thread, data), len(data), 0, 0))


def read(thread: Thread, handle: int, size: int) -> bytes:
    buffer, count = room(thread, size), room(thread, 4)
    assert call(thread, "ReadFile", handle, buffer, size, count, 0)
    return thread.memory.read(buffer, thread.memory.u32(count))


@pytest.mark.parametrize(
    ("there", "disposition", "opens", "error"),
    [
        (False, CREATE_NEW, True, 0),
        (True, CREATE_NEW, False, 80),
        (False, CREATE_ALWAYS, True, 0),
        (True, CREATE_ALWAYS, True, 183),
        (False, OPEN_EXISTING, False, 2),
        (True, OPEN_EXISTING, True, 0),
        (False, OPEN_ALWAYS, True, 0),
        (True, OPEN_ALWAYS, True, 183),
        (False, TRUNCATE, False, 2),
        (True, TRUNCATE, True, 0),
        (True, 9, False, 87),
    ],
)
def test_dispositions(thread: Thread, tmp_path: Path, there: bool, disposition: int, opens: bool, error: int) -> None:
    """Microsoft: CreateFile, dwCreationDisposition."""
    path = tmp_path / "file"
    if there:
        path.write_bytes(b"before")
    handle = opened(thread, path, disposition=disposition)
    assert (handle != INVALID, thread.last_error) == (opens, error)
    if opens:
        assert path.read_bytes() == (
            b"" if disposition in (CREATE_NEW, CREATE_ALWAYS, TRUNCATE) or not there else b"before"
        )


def test_missing_directories_and_bad_names_are_told_apart(thread: Thread, tmp_path: Path) -> None:
    for name, error in (("nowhere/file", 3), ("file?", 123), ("", 5)):
        assert opened(thread, tmp_path / name, disposition=OPEN_EXISTING) == INVALID
        assert thread.last_error == error, name
    assert opened(thread, tmp_path, READ, flags=0x0200_0000, disposition=OPEN_EXISTING) != INVALID


def test_names_are_found_whatever_their_case(thread: Thread, tmp_path: Path) -> None:
    (tmp_path / "Some").mkdir()
    (tmp_path / "Some" / "File.TXT").write_bytes(b"x")
    handle = opened(thread, tmp_path / "sOME" / "fILE.txt", READ, disposition=OPEN_EXISTING)
    assert read(thread, handle, 10) == b"x"


def test_reading_writing_and_positions(thread: Thread, tmp_path: Path) -> None:
    handle = opened(thread, tmp_path / "file")
    assert write(thread, handle, b"0123456789")
    place = room(thread, 8)
    assert call(thread, "SetFilePointerEx", handle, 2, place, 0) and thread.memory.u64(place) == 2
    assert read(thread, handle, 3) == b"234"
    assert call(thread, "SetFilePointer", handle, -1, 0, 2) == 9
    assert read(thread, handle, 10) == b"9"
    assert read(thread, handle, 10) == b""
    assert not call(thread, "SetFilePointerEx", handle, -1, 0, 0) and thread.last_error == 131
    assert call(thread, "SetFilePointerEx", handle, 4, 0, 0) and call(thread, "SetEndOfFile", handle)
    size = room(thread, 8)
    assert call(thread, "GetFileSizeEx", handle, size) and thread.memory.u64(size) == 4
    assert call(thread, "CloseHandle", handle) == 1
    assert call(thread, "CloseHandle", handle) == 0 and thread.last_error == 6


def test_overlapped_offsets_of_a_file(thread: Thread, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    handle = opened(thread, tmp_path / "file", flags=OVERLAPPED)
    event = call(thread, "CreateEventW", 0, 1, 0, 0)
    overlapped, buffer = room(thread, struct.pack("<QQQQ", 7, 7, 8, event)), room(thread, 8)
    assert call(thread, "ReadFile", handle, buffer, 8, 0, overlapped)
    assert thread.memory.read(overlapped, 16) == struct.pack("<QQ", 0, 2)
    assert thread.memory.read(buffer, 2) == b"89"
    assert call(thread, "WaitForSingleObject", event, 0) == 0
    thread.memory.set_u64(overlapped + 16, 10)
    assert not call(thread, "ReadFile", handle, buffer, 8, 0, overlapped) and thread.last_error == 38
    assert not call(thread, "ReadFile", handle, buffer, 8, 0, 0) and thread.last_error == 87


@pytest.mark.parametrize("offset", [1 << 63, (1 << 64) - 2, (1 << 63) - 2])
def test_offsets_beyond_any_file_are_errors(thread: Thread, tmp_path: Path, offset: int) -> None:
    handle = opened(thread, tmp_path / "file", flags=OVERLAPPED)
    overlapped, buffer = room(thread, struct.pack("<QQQQ", 0, 0, offset, 0)), room(thread, 8)
    assert not call(thread, "ReadFile", handle, buffer, 8, 0, overlapped) and thread.last_error in (38, 87)
    assert not call(thread, "WriteFile", handle, buffer, 8, 0, overlapped) and thread.last_error == 87


def test_appending_only_writes_at_the_end(thread: Thread, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\n")
    handle = opened(thread, tmp_path / "log", 4 | 0x12_0000)
    assert write(thread, handle, b"two\n")
    with (tmp_path / "log").open("ab") as log:
        log.write(b"three\n")
    assert write(thread, handle, b"four\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree\nfour\n"


@pytest.mark.parametrize(
    ("first", "lets", "second", "shares", "agrees"),
    [
        (READ, SHARE_READ, READ, SHARE_READ, True),
        (READ, SHARE_READ, WRITE, 7, False),
        (WRITE, SHARE_READ, READ, SHARE_READ, False),
        (WRITE, SHARE_READ, READ, SHARE_READ | SHARE_WRITE, True),
        (READ, 0, READ, 7, False),
        (READ, 0, 0x80, 0, True),
        (0x80, 0, READ | WRITE, 0, True),
        (READ, SHARE_READ | SHARE_DELETE, DELETE, 7, True),
        (READ, SHARE_READ, DELETE, 7, False),
    ],
)
def test_share_modes(
    thread: Thread, tmp_path: Path, first: int, lets: int, second: int, shares: int, agrees: bool
) -> None:
    """Microsoft: Creating and Opening Files; attributes alone (0x80) are always shared."""
    path = tmp_path / "file"
    path.touch()
    handle = opened(thread, path, first, lets)
    other = opened(thread, path, second, shares)
    assert (other != INVALID) == agrees
    if not agrees:
        assert thread.last_error == 32
        call(thread, "CloseHandle", handle)
        assert opened(thread, path, second, shares) != INVALID


def test_read_only_files_cannot_be_written(thread: Thread, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o444)
    assert opened(thread, path, WRITE, disposition=OPEN_EXISTING) == INVALID and thread.last_error == 5
    assert opened(thread, path, READ, disposition=OPEN_EXISTING) != INVALID


def test_what_is_deleted_on_close_goes_with_the_last_handle(thread: Thread, tmp_path: Path) -> None:
    path = tmp_path / "file"
    handle = opened(thread, path, READ | WRITE | DELETE, flags=0x0400_0000)
    target = room(thread, 8)
    assert call(thread, "DuplicateHandle", INVALID, handle, INVALID, target, 0, 0, 2)
    call(thread, "CloseHandle", handle)
    assert path.exists()
    call(thread, "CloseHandle", thread.memory.u64(target))
    assert not path.exists()


def test_locks_of_ranges(thread: Thread, tmp_path: Path) -> None:
    path = tmp_path / "file"
    one, two = opened(thread, path), opened(thread, path)
    start = room(thread, struct.pack("<QQQQ", 0, 0, 10, 0))
    assert call(thread, "LockFileEx", one, 2, 0, 10, 0, start)
    assert not call(thread, "LockFileEx", two, 3, 0, 10, 0, start) and thread.last_error == 33
    assert call(thread, "LockFile", two, 20, 0, 10, 0)
    child = os.fork()
    if not child:  # another process of the host is bound by the same lock
        other = new_thread()
        refused = not call(other, "LockFile", opened(other, path), 15, 0, 1, 0) and other.last_error == 33
        os._exit(0 if refused else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert call(thread, "UnlockFileEx", one, 0, 10, 0, start)
    assert not call(thread, "UnlockFileEx", one, 0, 10, 0, start) and thread.last_error == 158
    assert call(thread, "LockFileEx", two, 3, 0, 10, 0, start)


def test_views_of_a_file(thread: Thread, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    handle = opened(thread, path)
    section = call(thread, "CreateFileMappingW", handle, 0, 4, 0, 0, 0)
    view = call(thread, "MapViewOfFile", section, 6, 0, 0, 0)
    assert thread.memory.read(view, 5) == b"hello"
    thread.memory.write(view, b"H")
    assert call(thread, "FlushViewOfFile", view, 5)
    assert call(thread, "UnmapViewOfFile", view) and path.read_bytes() == b"Hello"
    assert not call(thread, "UnmapViewOfFile", view) and thread.last_error == 487
    copy = call(thread, "MapViewOfFile", section, 1, 0, 0, 0)
    thread.memory.write(copy, b"J")
    assert call(thread, "UnmapViewOfFile", copy) and path.read_bytes() == b"Hello"
    assert not call(thread, "MapViewOfFile", section, 4, 0, 1, 0) and thread.last_error == 1132
    assert not call(thread, "MapViewOfFile", section, 4, 0, 0, 1 << 20) and thread.last_error == 5


def test_sections_without_a_file_and_empty_files(thread: Thread, tmp_path: Path) -> None:
    name = wide(thread, "Local\\shared")
    section = call(thread, "CreateFileMappingW", INVALID, 0, 4, 0, 100, name)
    assert section and thread.last_error == 0
    assert call(thread, "CreateFileMappingW", INVALID, 0, 4, 0, 100, name) and thread.last_error == 183
    assert call(thread, "OpenFileMappingW", 6, 0, name)
    assert not call(thread, "OpenFileMappingW", 6, 0, wide(thread, "other")) and thread.last_error == 2
    empty = opened(thread, tmp_path / "empty")
    assert not call(thread, "CreateFileMappingW", empty, 0, 4, 0, 0, 0) and thread.last_error == 1006
    reader = opened(thread, tmp_path / "empty", READ)
    assert not call(thread, "CreateFileMappingW", reader, 0, 4, 0, 100, 0) and thread.last_error == 5
    assert call(thread, "CreateFileMappingW", empty, 0, 4, 0, 100, 0) and (tmp_path / "empty").stat().st_size == 100
