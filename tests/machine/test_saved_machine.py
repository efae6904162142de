"""Machines in files: what was saved comes back, and a damaged file is refused with a word."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtus.errors import GuestNotFound, GuestNotRunnable, VirtusError
from virtus.machine import saved_machine
from virtus.machine.machine_spec import DiskSpec, MachineSpec, saved_spec, spec_as_json
from virtus.machine.saved_machine import MAGIC, SavedMachine
from virtus.memory.guest_memory import PAGE, GuestMemory

PIECES = [(1, 2), (5, 3)]


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    made = GuestMemory(16 * PAGE, "test")
    yield made
    made.close()


@pytest.fixture
def file(memory: GuestMemory, tmp_path: Path) -> Path:
    for frame in range(16):
        memory.frame(frame)[:] = bytes((frame,)) * PAGE
    path = tmp_path / "saved"
    saved_machine.write(path, {"technique": "none", "answer": [42]}, memory, PIECES)
    return path


def test_what_was_saved_comes_back(file: Path, memory: GuestMemory) -> None:
    memory.bytes[:] = bytes(memory.size)
    saved = SavedMachine(file)
    assert saved.known["answer"] == [42]
    saved.fill(memory, PIECES)
    saved.close()
    kept = {frame for first, count in PIECES for frame in range(first, first + count)}
    for frame in range(16):
        assert bytes(memory.frame(frame)) == bytes((frame if frame in kept else 0,)) * PAGE
    assert [path.name for path in file.parent.iterdir()] == ["saved"]


def test_memory_of_another_machine_is_refused(file: Path, memory: GuestMemory) -> None:
    with pytest.raises(GuestNotRunnable, match="another machine"):
        SavedMachine(file).fill(memory, [(0, 5)])


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(GuestNotFound):
        SavedMachine(tmp_path / "missing")
    with pytest.raises(GuestNotRunnable):
        SavedMachine(tmp_path)
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(GuestNotRunnable, match="virtus domain save"):
        SavedMachine(tmp_path / "other")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_refused_or_what_it_was(file: Path, memory: GuestMemory, data: st.DataObject) -> None:
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:at]
    else:
        damaged = whole[:at] + bytes((whole[at] ^ data.draw(st.integers(1, 255)),)) + whole[at + 1 :]
    other = file.with_name("damaged")
    other.write_bytes(damaged)
    try:
        saved = SavedMachine(other)
        saved.fill(memory, PIECES)
        saved.close()
    except GuestNotRunnable as error:
        assert "\n" not in str(error)


@given(st.binary(max_size=100))
def test_any_bytes_behind_the_magic_are_refused(tmp_path_factory: pytest.TempPathFactory, rest: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(MAGIC + rest)
    with pytest.raises(GuestNotRunnable):
        SavedMachine(path)


def test_a_full_disk_is_said_and_nothing_is_left(memory: GuestMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    place = Path("/dev/shm") / f"virtus-test-{os.getpid()}"
    with pytest.raises(VirtusError, match="No space left"):
        saved_machine.write(place, {}, memory, PIECES)
    assert not place.exists()
    assert not list(place.parent.glob(f".{place.name}*"))


def test_a_spec_comes_back() -> None:
    spec = MachineSpec(
        Path("/k"), memory=128 << 20, disks=[DiskSpec(Path("/d"), True)], net="switch:x", name="n", extra={"a": "b"}
    )
    assert saved_spec(spec_as_json(spec), 0, 1) == spec
    with pytest.raises(ValueError, match="memory"):
        saved_spec({**spec_as_json(spec), "memory": 5}, 0, 1)
