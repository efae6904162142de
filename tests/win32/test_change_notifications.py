"""Programs are told of changes in directories."""

import struct
from pathlib import Path

import pytest

from tests.win32.fake_engine import call, new_thread, room, wide
from virtus.personalities.win32 import change_notifications, files, handle_functions, waiting  # noqa: F401
from virtus.personalities.win32.paths import to_windows
from virtus.personalities.win32.process import Thread

READ, BACKUP, OVERLAPPED = 0x8000_0000, 0x0200_0000, 0x4000_0000
NAMES_AND_SIZES = 1 | 2 | 8


@pytest.fixture
def thread() -> Thread:
    return new_thread()


def records(data: bytes) -> list[tuple[int, str]]:
    found, place = [], 0
    while data:
        following, action, length = struct.unpack_from("<III", data, place)
        found.append((action, data[place + 12 : place + 12 + length].decode("utf-16-le")))
        if not following:
            break
        place += following
    return found


def test_changes_of_a_tree_as_records(thread: Thread, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    name = wide(thread, to_windows(str(tmp_path)))
    handle = call(thread, "CreateFileW", name, READ, 7, 0, 3, BACKUP | OVERLAPPED, 0)
    overlapped, buffer, count = room(thread, 32), room(thread, 4096), room(thread, 4)

    def begin() -> None:
        assert call(thread, "ReadDirectoryChangesW", handle, buffer, 4096, 1, NAMES_AND_SIZES, 0, overlapped, 0)

    begin()
    assert not call(thread, "GetOverlappedResult", handle, overlapped, count, 0) and thread.last_error == 996
    (tmp_path / "sub" / "file").touch()
    assert call(thread, "GetOverlappedResult", handle, overlapped, count, 1)
    assert records(thread.memory.read(buffer, thread.memory.u32(count))) == [(1, "sub\\file")]
    (tmp_path / "sub" / "file").rename(tmp_path / "moved")
    (tmp_path / "moved").unlink()
    begin()
    assert call(thread, "GetOverlappedResult", handle, overlapped, count, 1)
    found = records(thread.memory.read(buffer, thread.memory.u32(count)))
    assert found == [(4, "sub\\file"), (5, "moved"), (2, "moved")]
    begin()
    call(thread, "CloseHandle", handle)
    assert thread.memory.u64(overlapped) == 0xC000_0120


def test_a_handle_is_signalled_by_each_change(thread: Thread, tmp_path: Path) -> None:
    name = wide(thread, to_windows(str(tmp_path)))
    change = call(thread, "FindFirstChangeNotificationW", name, 0, 1)
    assert call(thread, "WaitForSingleObject", change, 0) == 258
    (tmp_path / "file").touch()
    assert call(thread, "WaitForSingleObject", change, 0) == 0 == call(thread, "WaitForSingleObject", change, 0)
    assert call(thread, "FindNextChangeNotification", change)
    assert call(thread, "WaitForSingleObject", change, 0) == 258
    assert call(thread, "FindCloseChangeNotification", change)
    assert not call(thread, "FindCloseChangeNotification", change) and thread.last_error == 6


def test_records_that_do_not_fit_are_not_given() -> None:
    assert change_notifications.pack([(1, "name")], 19) == b""
    assert records(change_notifications.pack([(1, "a"), (2, "bcd")], 100)) == [(1, "a"), (2, "bcd")]
