"""Exceptions of Windows programs: mended by handlers, told where nobody takes them, and the box around their calls."""

import subprocess
from pathlib import Path

import pytest

from tests.guest_runs import need, virtus
from tests.win32.compilers import build

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("windows-guests")]
CASES = {
    "d": (0xC0000094, 128 + 8, ""),
    "w": (0xC0000005, 128 + 11, "writing 0x8"),
    "x": (0xC0000005, 128 + 11, "executing 0x5000"),
    "i": (0xC000001D, 128 + 4, ""),
    "b": (0x80000003, 128 + 5, ""),
    "h": (0xC0000096, 128 + 11, ""),
    "r": (0xE0001234, 0x34, ""),
    "a": (0xC0000005, 128 + 11, "reading 0x10"),
    "o": (0xC00000FD, 128 + 11, ""),
    "t": (0xC0000005, 128 + 11, "writing 0x8"),
}
"""By the program's argument: the exception's code, the shell's status, what is said of it."""


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("api-wrapper")
    return build("faults", tmp_path_factory.mktemp("guests"))


def run(program: Path, *words: str) -> "subprocess.CompletedProcess[bytes]":
    return virtus("run", "--with", "api-wrapper", "--", program, *words)


@pytest.mark.parametrize("word", CASES)
def test_what_nobody_takes_is_told_with_code_place_and_registers(faults: Path, word: str) -> None:
    code, status, said = CASES[word]
    done = run(faults, word)
    told = done.stderr.decode()
    assert done.stdout.decode().splitlines() == ["mended 77 5 1", f"code {code:08x}"]
    assert f"exception {code:#010x}" in told
    assert said in told
    assert "RIP" in told
    assert word in "xbra" or "faults.exe+0x" in told.splitlines()[0]
    assert done.returncode == status
    assert "Traceback" not in told


def test_fast_fail_asks_nobody(faults: Path) -> None:
    done = run(faults, "f")
    assert done.stdout == b"mended 77 5 1\r\n"
    assert b"0xc0000409" in done.stderr
    assert done.returncode == 128 + 6


def test_exit_codes(faults: Path) -> None:
    assert run(faults).returncode == 3
    assert run(faults, "e").returncode == 0x45


def test_calls_both_ways(tmp_path: Path) -> None:
    need("api-wrapper")
    done = run(build("calls", tmp_path))
    assert done.stdout.decode().splitlines() == [
        "threads 10 8000 8000 7",
        "sorted 1 9",
        "once 1",
        "seven arguments 1 The syst",
        "heap kept 0 1",
        "free 1",
        "found 1 1",
        "error 1234",
        "float 2.500 0.333",
        "time 1",
    ], done.stderr.decode()
    assert done.returncode == 42


def test_linux_system_calls_of_a_guest_are_the_boxes(tmp_path: Path) -> None:
    """Guest code may enter Linux's kernel by itself, and finds what any program in the box finds."""
    need("api-wrapper")
    mark = tmp_path / "mark"
    done = run(build("escape", tmp_path), str(mark))
    found = dict(line.split() for line in done.stdout.decode().splitlines())
    assert done.returncode == 0, done.stderr.decode()
    refused = {"mount": "-1", "ptrace": "-1", "unshare": "-1", "peek": "-1", "bpf": "-1", "socket": "-97"}
    assert found == {**refused, "open": "0", "kill": "0", "pid": "own"}
    assert not mark.exists()
