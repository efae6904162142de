"""Drives, volumes, and what is asked of files there."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.win32.fake_engine import call, new_thread, room, wide
from virtus.personalities.win32 import path_functions, volumes  # noqa: F401  # their functions enter the table
from virtus.personalities.win32.paths import to_windows


def test_the_drive_has_one_volume() -> None:
    thread = new_thread()
    buffer, needed = room(thread, 200), room(thread, 4)
    for name, kind in (("z:\\", 3), ("C:\\", 1)):
        assert call(thread, "GetDriveTypeW", wide(thread, name)) == kind
        assert call(thread, "GetDriveTypeA", room(thread, name.encode() + b"\0")) == kind
    assert call(thread, "GetVolumeNameForVolumeMountPointW", wide(thread, "Z:\\"), buffer, 100)
    volume = thread.memory.wide(buffer)
    assert call(thread, "GetVolumePathNamesForVolumeNameW", wide(thread, volume), buffer, 100, needed)
    assert thread.memory.wide(buffer) == "Z:\\" and thread.memory.u32(needed) == 5
    assert not call(thread, "GetVolumePathNamesForVolumeNameW", wide(thread, volume), buffer, 4, needed)
    assert thread.last_error == 234
    assert call(thread, "QueryDosDeviceW", wide(thread, "z:"), buffer, 100) == len(volumes.devices()["Z:"]) + 2
    assert not call(thread, "QueryDosDeviceW", wide(thread, "C:"), buffer, 100) and thread.last_error == 2
    assert not call(thread, "QueryDosDeviceW", wide(thread, "z:"), buffer, 4) and thread.last_error == 122


@given(st.binary(max_size=80))
def test_any_file_is_a_program_or_none(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    thread = new_thread()
    path: Path = tmp_path_factory.getbasetemp() / "program"
    path.write_bytes(b"MZ" + data)
    kind = room(thread, 4)
    if not call(thread, "GetBinaryTypeW", wide(thread, to_windows(str(path))), kind):
        assert thread.last_error == 193


def test_a_program_of_64_bits(tmp_path: Path) -> None:
    thread = new_thread()
    kind = room(thread, 4)
    (tmp_path / "x.exe").write_bytes(b"MZ".ljust(0x3C, b"\0") + b"\x40\0\0\0PE\0\0\x64\x86")
    assert call(thread, "GetBinaryTypeW", wide(thread, to_windows(str(tmp_path / "x.exe"))), kind)
    assert thread.memory.u32(kind) == 6
