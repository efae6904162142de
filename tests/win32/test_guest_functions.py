"""A program in C that calls hundreds of functions says the same under each technique as under Wine."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guest_runs import need, virtus
from virtus.machine.spec import GuestSpec
from virtus.techniques import registry
from virtus.techniques.peers import wine

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("windows-functions")]
SOURCE = Path(__file__).parent / "guests" / "functions.c"
COMPILER = "x86_64-w64-mingw32-gcc"
PARTS = ("memory", "threads", "strings", "others")
WINES_OWN = {"number: -1234,567.90": "number: -1,234,567.90"}
"""Lines in which Wine differs from Windows, and what Windows says."""
STATUS = 42


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not installed")
    built = tmp_path_factory.mktemp("functions") / "functions.exe"
    libraries = ("-lws2_32", "-ladvapi32", "-lshell32")
    subprocess.run([COMPILER, "-O1", "-o", built, SOURCE, *libraries], check=True)
    return built


@pytest.fixture(scope="module")
def expected(program: Path) -> dict[str, list[str]]:
    if not wine.probe().works:
        pytest.skip("Wine is not installed")
    said = {}
    for part in PARTS:
        command = wine.command(GuestSpec(argv=[str(program), part]))
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        assert done.returncode == STATUS, done.stderr
        said[part] = [WINES_OWN.get(line, line) for line in done.stdout.decode().splitlines()]
    return said


@pytest.mark.parametrize("technique", ["api-wrapper", "api-emulation"])
@pytest.mark.parametrize("part", PARTS)
def test_functions_do_what_wines_do(
    program: Path, expected: dict[str, list[str]], part: str, technique: str, tmp_path: Path
) -> None:
    if technique not in registry.names():
        pytest.skip(f"{technique} is not there")
    need(technique)
    done = virtus("run", "--with", technique, "--", str(program), part, cwd=tmp_path)
    assert done.returncode == STATUS, done.stderr.decode(errors="replace")[-1000:]
    assert done.stdout.decode().splitlines() == expected[part]
