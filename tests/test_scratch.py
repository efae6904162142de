"""Directories for changes where no tmpfs can hold them: removed with their machine, or at the next start."""

import fcntl
import os
from pathlib import Path

import pytest

from virtus.errors import HostLacks
from virtus.machine import scratch


def keeps(fd: int) -> bool:
    os.close(fd)
    return True


def lacks(fd: int) -> bool:
    os.close(fd)
    return False


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scratch, "places", lambda: [str(tmp_path / "missing"), str(tmp_path)])
    monkeypatch.setattr(scratch, "_keeps_attributes", keeps)
    return tmp_path


def test_it_is_removed_with_what_no_permission_protects(place: Path) -> None:
    directory = scratch.Directory()
    inner = Path(directory.path, "work/work")
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    Path(directory.path, "link").symlink_to(place)
    inner.chmod(0)
    directory.remove()
    directory.remove()
    assert list(place.iterdir()) == []


def test_a_living_machine_keeps_its_directory_and_a_killed_one_loses_it(place: Path) -> None:
    living = scratch.Directory()
    killed = place / (scratch.PREFIX + "killed")
    (killed / "deep").mkdir(parents=True)
    other = scratch.Directory()
    assert sorted(map(str, place.iterdir())) == sorted([living.path, other.path])
    living.remove()
    other.remove()


def test_the_lock_outlives_the_supervisor_in_what_it_forked(place: Path) -> None:
    directory = scratch.Directory()
    held = fcntl.fcntl(directory._lock, fcntl.F_DUPFD_CLOEXEC, 3)  # as a forked process holds it
    os.close(directory._lock)
    scratch.remove_stale(place)
    assert os.path.isdir(directory.path)
    os.close(held)
    scratch.remove_stale(place)
    assert list(place.iterdir()) == []


def test_without_attributes_anywhere_the_remedy_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_keeps_attributes", lacks)
    with pytest.raises(HostLacks, match="--keep"):
        scratch.Directory()
    assert list(place.iterdir()) == []
