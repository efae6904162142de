"""A compiled Windows program works with files, pipes and children: the same under both techniques and under Wine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guest_runs import need, virtus
from virtus.machine.spec import GuestSpec
from virtus.techniques import registry
from virtus.techniques.peers import wine

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("windows-programs")]
COMPILER = "x86_64-w64-mingw32-gcc"
SOURCE = Path(__file__).parent / "guests" / "files.c"
EXPECTED = {
    "open sub\\one.txt c0000000 1: yes 0",
    "open SUB\\ONE.TXT 80000000 3: no 32",
    "open sub\\one.txt 40000000 1: no 80",
    "open sub\\none\\x 80000000 3: no 3",
    "open sub\\a?b 80000000 3: no 123",
    "open sub\\two 80000000 3: no 2",
    "sub\\*.*: . .. abc b.c one.txt",
    "move 0 183",
    "remove 0 145",
    "delete 0 5",
    "view 8 012view!",
    "connect 0 997",
    "connected 0",
    "result 1 message",
    "end 109",
    "child: 4 a b c\"d value",
    "code 12345678",
    "nowhere 0 2",
}  # fmt: skip
"""What Microsoft documents, of the lines that the program prints; the others are compared with Wine's."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not installed")
    made = tmp_path_factory.mktemp("guest") / "files.exe"
    subprocess.run([COMPILER, "-O1", "-o", made, SOURCE], check=True)
    return made


@pytest.fixture(scope="module")
def peer(program: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str] | None:
    """What the program prints under Wine; None where that is not installed."""
    if not wine.probe().works:
        return None
    done = subprocess.run(
        wine.command(GuestSpec(argv=[str(program)])), cwd=tmp_path_factory.mktemp("wine"), capture_output=True,
        timeout=120, check=False,
    )  # fmt: skip
    return done.stdout.decode().replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize("technique", ["api-wrapper", "api-emulation"])
def test_the_same_as_documented_and_as_under_wine(
    technique: str, program: Path, peer: list[str] | None, tmp_path: Path
) -> None:
    if technique not in registry.names():
        pytest.skip(f"{technique} is not there")
    need(technique)
    directory = tmp_path / "ours"
    directory.mkdir()
    done = virtus("run", "--with", technique, "--volume", f"{directory}:{directory}", "--", str(program), cwd=directory)
    lines = done.stdout.decode().replace("\r\n", "\n").splitlines()
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert sorted(EXPECTED - set(lines)) == []
    assert os.listdir(directory) == []
    if peer is not None:
        assert lines == peer
