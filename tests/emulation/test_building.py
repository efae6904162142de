"""Guests of benchmarks and tests are fetched and built once, whole or not at all, and what fails is said in a line."""

import subprocess
from pathlib import Path

import pytest
from benchmarks import emulated_programs
from benchmarks.emulated_programs import PROGRAMS, STEADY, NotBuildable, fetched

from tests.emulation import guests


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(emulated_programs, "CACHE", tmp_path)
    return tmp_path


def test_a_package_is_fetched_once(cache: Path) -> None:
    asked = []

    def fetch(place: Path) -> None:
        asked.append(place)
        (place / "file").write_text("content")

    for _ in range(2):
        assert (fetched("package", "1", fetch) / "file").read_text() == "content"
    assert len(asked) == 1
    assert [path.name for path in cache.iterdir()] == ["package-1"]


def test_two_may_fetch_the_same_at_once(cache: Path) -> None:
    def fetch(place: Path) -> None:
        (cache / "package-1").mkdir()
        (cache / "package-1/file").write_text("theirs")
        (place / "file").write_text("ours")

    assert (fetched("package", "1", fetch) / "file").read_text() == "theirs"


def test_what_cannot_be_fetched_leaves_nothing(cache: Path) -> None:
    def fetch(place: Path) -> None:
        (place / "half").write_text("")
        subprocess.run(["sh", "-c", "echo no network >&2; exit 1"], check=True, capture_output=True)

    with pytest.raises(NotBuildable, match="cannot fetch package 1: no network"):
        fetched("package", "1", fetch)
    assert list(cache.iterdir()) == []


def test_every_program_has_its_source() -> None:
    for program in PROGRAMS.values():
        assert not program.source or (emulated_programs.HERE / program.source).exists()
        assert set(program.libraries) <= set(emulated_programs.LIBRARIES)
    assert set(STEADY) <= set(PROGRAMS)


@pytest.mark.slow
def test_a_test_program_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "CACHE", tmp_path)
    source = "int main(void) { return 3; }\n"
    program = guests.build_text(source)
    first = program.stat().st_mtime_ns
    assert guests.build_text(source) == program
    assert program.stat().st_mtime_ns == first
    assert guests.build_text(source, level="-O0") != program
    assert sorted(path.name for path in program.parent.iterdir()) == ["program"]
