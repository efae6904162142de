"""A volume with a letter is a drive, to the program and to those that it starts."""

import shutil
from pathlib import Path

import pytest

from tests.guest_runs import guest, need, virtus
from tests.win32.compilers import build
from virtus.cli.running import parse_volume
from virtus.errors import UsageError
from virtus.machine.spec import Volume

SAID = (
    "drives 2000008, kinds 3 3 1\nread hello\n{outcome}\nD:\\sub\\x D:\\x Z:\\x\n"
    "\\\\?\\D:\\sub\\hello.txt\nD:\\drives.exe in D:\\sub\n"
)


@pytest.mark.slow
@pytest.mark.xdist_group("windows-guests")
@pytest.mark.parametrize("technique", ["api-wrapper", "api-emulation"])
@pytest.mark.parametrize(("rights", "outcome"), [("", "written"), (":ro", "refused")])
def test_a_volume_is_a_drive(technique: str, rights: str, outcome: str, tmp_path: Path) -> None:
    need(technique)
    program = build("drives", tmp_path)
    disk = tmp_path / "disk"
    (disk / "sub").mkdir(parents=True)
    (disk / "sub/hello.txt").write_text("hello")
    shutil.copy(program, disk / "drives.exe")
    done = guest(technique, program, options=("--volume", f"{disk}:D:{rights}"))
    said = done.stdout.decode().replace("\r\n", "\n")
    assert (done.returncode, said) == (0, SAID.format(outcome=outcome)), done.stderr
    assert (disk / "new").exists() == (outcome == "written")


@pytest.mark.parametrize(
    ("word", "volume"),
    [
        ("/a:D:", Volume("/a", "D:")),
        ("/a:d:\\", Volume("/a", "D:")),
        ("/a:d:/:ro", Volume("/a", "D:", read_only=True)),
        ("/a:D::ro", Volume("/a", "D:", read_only=True)),
        ("/a:/b", Volume("/a", "/b")),
        ("/a:/b:ro", Volume("/a", "/b", read_only=True)),
    ],
)
def test_volumes_are_read(word: str, volume: Volume) -> None:
    assert parse_volume(word) == volume


@pytest.mark.parametrize("word", ["", ":D:", "D:", "/a:D", "/a:DD:", "/a:1:", "/a:D:\\x", "/a::", "/a:é:", "a:b"])
def test_others_are_refused(word: str) -> None:
    with pytest.raises(UsageError):
        parse_volume(word)


@pytest.mark.slow
def test_linux_has_no_drives(tmp_path: Path) -> None:
    done = virtus("run", "--volume", f"{tmp_path}:D:", "--", "true")
    assert done.returncode == 2 and b"only Windows programs have drives" in done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("windows-guests")
def test_a_drive_is_a_directory_and_not_the_root(tmp_path: Path) -> None:
    need("api-wrapper")
    program = build("drives", tmp_path)
    for volume, words in ((f"{tmp_path}:Z:", b"is the root itself"), (f"{program}:D:", b"is no directory")):
        done = guest("api-wrapper", program, options=("--volume", volume))
        assert done.returncode == 2 and words in done.stderr
