"""Moving, copying, deleting and linking files."""

import os
from pathlib import Path

import pytest

from tests.win32.fake_engine import call, new_thread, wide
from virtus.personalities.win32 import directories, files, handle_functions, moving  # noqa: F401  # the table's
from virtus.personalities.win32.paths import to_windows
from virtus.personalities.win32.process import Thread

INVALID = (1 << 64) - 1
READ = 0x8000_0000


@pytest.fixture
def thread() -> Thread:
    return new_thread()


def name(thread: Thread, path: Path) -> int:
    return wide(thread, to_windows(str(path)))


def held(thread: Thread, path: Path, share: int) -> int:
    handle = int(call(thread, "CreateFileW", name(thread, path), READ, share, 0, 3, 0, 0))
    assert handle != INVALID
    return handle


def test_deleting(thread: Thread, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    handle = held(thread, path, 1)
    assert not call(thread, "DeleteFileW", name(thread, path)) and thread.last_error == 32
    call(thread, "CloseHandle", handle)
    handle = held(thread, path, 7)
    assert call(thread, "DeleteFileW", name(thread, path)) and not path.exists()
    assert not call(thread, "DeleteFileW", name(thread, path)) and thread.last_error == 2
    assert not call(thread, "DeleteFileW", name(thread, tmp_path / "no" / "file")) and thread.last_error == 3
    assert not call(thread, "DeleteFileW", name(thread, tmp_path)) and thread.last_error == 5
    path.touch(0o444)
    assert not call(thread, "DeleteFileW", name(thread, path)) and thread.last_error == 5


def test_moving(thread: Thread, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    assert not call(thread, "MoveFileW", name(thread, one), name(thread, two)) and thread.last_error == 183
    handle = held(thread, two, 3)
    assert not call(thread, "MoveFileExW", name(thread, one), name(thread, two), 1) and thread.last_error == 5
    call(thread, "CloseHandle", handle)
    assert call(thread, "MoveFileExW", name(thread, one), name(thread, two), 1) and two.read_text() == "1"
    assert call(thread, "MoveFileW", name(thread, two), name(thread, tmp_path / "TWO"))
    assert os.listdir(tmp_path) == ["TWO"]
    (tmp_path / "dir").mkdir()
    assert not call(thread, "MoveFileExW", name(thread, tmp_path / "two"), name(thread, tmp_path / "dir"), 1)
    assert thread.last_error == 5
    assert not call(thread, "MoveFileW", name(thread, tmp_path / "gone"), name(thread, one)) and thread.last_error == 2


def test_copying(thread: Thread, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    os.utime(one, (1000, 2000))
    assert call(thread, "CopyFileW", name(thread, one), name(thread, two), 1)
    assert two.read_text() == "1" and two.stat().st_mtime == 2000
    assert not call(thread, "CopyFileW", name(thread, one), name(thread, two), 1) and thread.last_error == 80
    handle = held(thread, two, 1)
    assert not call(thread, "CopyFileW", name(thread, one), name(thread, two), 0) and thread.last_error == 32
    call(thread, "CloseHandle", handle)
    two.chmod(0o444)
    assert not call(thread, "CopyFileW", name(thread, one), name(thread, two), 0) and thread.last_error == 5


def test_replacing(thread: Thread, tmp_path: Path) -> None:
    one, two, kept = tmp_path / "one", tmp_path / "two", tmp_path / "kept"
    one.write_text("1")
    two.write_text("2")
    assert call(thread, "ReplaceFileW", name(thread, one), name(thread, two), name(thread, kept), 0, 0, 0)
    assert one.read_text() == "2" and kept.read_text() == "1" and not two.exists()


def test_links(thread: Thread, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert call(thread, "CreateHardLinkW", name(thread, tmp_path / "hard"), name(thread, tmp_path / "file"), 0)
    assert (tmp_path / "hard").stat().st_nlink == 2
    assert call(thread, "CreateSymbolicLinkW", name(thread, tmp_path / "soft"), wide(thread, "sub\\..\\file"), 0)
    assert os.readlink(tmp_path / "soft") == "sub/../file"


def test_directories(thread: Thread, tmp_path: Path) -> None:
    path = tmp_path / "dir"
    assert call(thread, "CreateDirectoryW", name(thread, path), 0) and path.is_dir()
    assert not call(thread, "CreateDirectoryW", name(thread, path), 0) and thread.last_error == 183
    assert not call(thread, "CreateDirectoryW", name(thread, tmp_path / "a" / "b"), 0) and thread.last_error == 3
    (path / "file").touch()
    assert not call(thread, "RemoveDirectoryW", name(thread, path)) and thread.last_error == 145
    assert not call(thread, "RemoveDirectoryW", name(thread, path / "file")) and thread.last_error == 267
    (path / "file").unlink()
    assert call(thread, "RemoveDirectoryW", name(thread, path)) and not path.exists()
