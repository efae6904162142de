"""Windows paths: how they are made absolute, and which of the host's they are."""

import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.win32.fake_engine import call, new_thread, room, wide
from virtus.personalities.win32 import path_functions  # noqa: F401  # its functions enter the table
from virtus.personalities.win32.paths import RESERVED, BadPath, absolute, find, to_host, to_windows
from virtus.personalities.win32.process import Process


@pytest.fixture
def process() -> Process:
    made = new_thread().process
    made.directory = "Z:\\home\\me"
    made.environment["=D:"] = "D:\\work"
    return made


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("file", "Z:\\home\\me\\file"),
        ("..\\file", "Z:\\home\\file"),
        ("..\\..\\..\\..\\file", "Z:\\file"),
        ("\\file", "Z:\\file"),
        ("/a/b", "Z:\\a\\b"),
        ("z:file", "Z:\\home\\me\\file"),
        ("d:file", "D:\\work\\file"),
        ("e:file", "E:\\file"),
        ("C:\\", "C:\\"),
        ("a\\.\\b\\", "Z:\\home\\me\\a\\b\\"),
        ("a. . .", "Z:\\home\\me\\a"),
        ("a.\\b", "Z:\\home\\me\\a\\b"),
        ("a..\\b", "Z:\\home\\me\\a..\\b"),
        ("...", "Z:\\home\\me"),
        ("a \\b", "Z:\\home\\me\\a \\b"),
        ("a\\b \\.", "Z:\\home\\me\\a\\b"),
        (" /.", "Z:\\home\\me"),
        ("nul", "\\\\.\\nul"),
        ("dir\\NUL.txt", "\\\\.\\NUL"),
        ("com1:", "\\\\.\\com1"),
        ("nullity", "Z:\\home\\me\\nullity"),
        ("\\\\?\\Z:\\a\\..\\b.", "\\\\?\\Z:\\a\\..\\b."),
        ("\\??\\Z:\\a", "\\\\?\\Z:\\a"),
        ("\\\\.\\Z:\\a\\..\\b", "\\\\.\\Z:\\b"),
    ],
)
def test_absolute_paths(process: Process, name: str, full: str) -> None:
    """Microsoft: File path formats on Windows systems, "Path normalization"."""
    assert absolute(process, name) == full


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("\\\\server\\share", 53), ("\\\\?\\UNC\\server\\share", 53), ("//server/share", 53), ("", 3),
        ("C:\\Windows", 3), ("a?b", 123), ("ab:stream", 123), ("a:stream", 3), ("a\x01", 123), ("a" * 40000, 206),
        ("\\\\?\\Z:\\a\\..\\b", 123), ("\ud800", 123), ("\\\\?\\Z:\\a/b", 123), ("\\\\.\\PhysicalDrive0", 2),
    ],
)  # fmt: skip
def test_paths_that_are_none(process: Process, name: str, error: int) -> None:
    with pytest.raises(BadPath) as raised:
        to_host(process, name)
    assert raised.value.error == error


def test_host_paths(process: Process) -> None:
    assert to_host(process, "nul") == "/dev/null"
    assert to_host(process, "Z:") == "/home/me"
    assert to_host(process, "Z:\\") == "/"
    assert to_host(process, "\\usr\\file::$DATA") == "/usr/file"


def test_case_is_looked_through(tmp_path: Path, process: Process) -> None:
    (tmp_path / "Dir" / "Sub").mkdir(parents=True)
    (tmp_path / "Dir" / "File").touch()
    (tmp_path / "Dir" / "fILE").touch()
    os.utime(tmp_path / "Dir", (1, 1))
    for _ in range(2):  # the second time from what was kept
        assert find(f"{tmp_path}/dIR/sUB") == f"{tmp_path}/Dir/Sub"
        assert find(f"{tmp_path}/DIR/new/NAME") == f"{tmp_path}/Dir/new/NAME"
        assert find(f"{tmp_path}/Dir/fILE") == f"{tmp_path}/Dir/fILE"
        assert find(f"{tmp_path}/Dir/FILE") in (f"{tmp_path}/Dir/File", f"{tmp_path}/Dir/fILE")
    (tmp_path / "Dir" / "Later").touch()
    assert find(f"{tmp_path}/dir/LATER") == f"{tmp_path}/Dir/Later"


COMPONENT = st.text(string.ascii_letters + string.digits + "._- äß日", min_size=1, max_size=8).filter(
    lambda text: text.strip(" .") == text
)


@given(st.lists(COMPONENT, max_size=5))
def test_host_paths_come_back(parts: list[str]) -> None:
    process = new_thread().process
    path = "/nowhere/" + "/".join(parts)
    if any(RESERVED.fullmatch(part) for part in parts):
        return
    assert to_host(process, to_windows(path)) == path.rstrip("/")


@given(st.text(max_size=30) | st.text("\\/:.?CZz ab*", max_size=20))
def test_any_name_is_a_path_below_the_root_or_refused(name: str) -> None:
    process = new_thread().process
    process.directory = "Z:\\nowhere\\deep"
    try:
        full, host = absolute(process, name), to_host(process, name)
    except BadPath as bad:
        assert bad.error
        return
    assert host.startswith("/") and "\0" not in host and ".." not in host.split("/")
    assert absolute(process, full) == full


def test_the_function_gives_the_place_of_the_last_part() -> None:
    thread = new_thread()
    thread.process.directory = "Z:\\home"
    buffer, part = room(thread, 200), room(thread, 8)
    assert call(thread, "GetFullPathNameW", wide(thread, "a\\b"), 100, buffer, part) == 11
    assert thread.memory.wide(buffer) == "Z:\\home\\a\\b" and thread.memory.wide(thread.memory.u64(part)) == "b"
    assert call(thread, "GetFullPathNameW", wide(thread, "a\\b"), 3, buffer, part) == 12
