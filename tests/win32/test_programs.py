"""Real programs do real jobs under both techniques for Windows programs, and leave what their Linux builds leave."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.guest_runs import need, virtus
from tests.win32.programs import PROGRAMS, Program, fetched, prepare
from virtus.machine.spec import GuestSpec
from virtus.techniques import registry
from virtus.techniques.peers import wine

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("windows-programs")]
JOB_TIMEOUT_S = 120
EMULATED = ("clang-format", "ripgrep", "ruff", "taplo", "shfmt", "ninja", "7za", "just")
"""Which run in the shorter checks under api-emulation too: some of each language."""


def outcome(program: Program, directory: Path, done: "subprocess.CompletedProcess[bytes]") -> dict[str, Any]:
    """What is compared: the streams and the files, without what is Windows' own way to write lines and paths."""

    def plain(data: bytes) -> bytes:
        data = data.replace(b"\r\n", b"\n").replace(b"\\", b"/")
        return re.sub(rb"(?m)^(\d+\t\d+\t)\d+(\t\S+\t)\S+$", rb"\1\2", data)  # ninja's log has times

    result: dict[str, Any] = {"status": done.returncode}
    for stream in program.streams:
        result[stream] = plain(getattr(done, stream))
    for name in program.made:
        path = directory / name
        data = path.read_bytes() if path.exists() else None
        if data is not None and name.endswith(".7z"):
            listed = subprocess.run([unpacker(), "l", "-slt", "-ba", path], capture_output=True, check=False)
            data = b"\n".join(re.findall(rb"(?m)^(?:Path|Size|CRC) = .*$", plain(listed.stdout)))
        elif data is not None and name == ".ninja_log":
            data = b"\n".join(sorted(line.split(b"\t")[3] for line in data.splitlines()[1:]))
        else:
            data = plain(data) if data is not None else None
        result[name] = data
    return result


def unpacker() -> str:
    """The Linux build of 7-Zip."""
    program = next(program for program in PROGRAMS if program.name == "7za")
    return str(fetched(program.linux, program.elf, windows=False))


def expected(program: Program, directory: Path, executable: Path) -> dict[str, Any]:
    """The job done by the Linux build; by the same program under Wine where there is none, or it does not start."""
    directory.mkdir()
    if program.linux:
        command = prepare(program, directory, fetched(program.linux, program.elf, windows=False))
    else:
        if not wine.probe().works:
            pytest.skip("there is no Linux build, and Wine is not installed")
        command = wine.command(GuestSpec(argv=prepare(program, directory, executable)))
    done = subprocess.run(
        command, cwd=directory, input=program.stdin.encode(), capture_output=True, timeout=JOB_TIMEOUT_S, check=False
    )
    return outcome(program, directory, done)


def check(program: Program, technique: str, tmp_path: Path) -> None:
    """One job."""
    if technique not in registry.names():
        pytest.skip(f"{technique} is not there")
    need(technique)
    executable = fetched(program.windows, program.exe, windows=True)
    wanted = expected(program, tmp_path / "expected", executable)
    directory = tmp_path / "windows"
    directory.mkdir()
    command = prepare(program, directory, executable)
    options = ["--with", technique, "--volume", f"{directory}:{directory}"]
    done = virtus("run", *options, "--", *command, stdin=program.stdin.encode(), cwd=directory)
    got = outcome(program, directory, done)
    assert got == wanted, done.stderr.decode(errors="replace")[-2000:]


def parameters(technique: str) -> list[Any]:
    """All programs; under emulation those that take long only in the long checks."""
    long = technique == "api-emulation"
    return [
        pytest.param(
            program, id=program.name, marks=[pytest.mark.full] if long and program.name not in EMULATED else []
        )
        for program in PROGRAMS
    ]


@pytest.mark.parametrize("program", parameters("api-wrapper"))
def test_api_wrapper(program: Program, tmp_path: Path) -> None:
    check(program, "api-wrapper", tmp_path)


@pytest.mark.parametrize("program", parameters("api-emulation"))
def test_api_emulation(program: Program, tmp_path: Path) -> None:
    check(program, "api-emulation", tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("program", parameters("wine"))
def test_the_jobs_mean_the_same_on_wine(program: Program, tmp_path: Path) -> None:
    """What the Linux build does is what a Windows program does, line ends and separators aside."""
    if not wine.probe().works or not program.linux:
        pytest.skip("Wine is not installed, or would be compared with itself")
    executable = fetched(program.windows, program.exe, windows=True)
    wanted = expected(program, tmp_path / "expected", executable)
    directory = tmp_path / "windows"
    directory.mkdir()
    command = wine.command(GuestSpec(argv=prepare(program, directory, executable)))
    done = subprocess.run(
        command, cwd=directory, input=program.stdin.encode(), capture_output=True, timeout=JOB_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert outcome(program, directory, done) == wanted, done.stderr.decode(errors="replace")[-2000:]
