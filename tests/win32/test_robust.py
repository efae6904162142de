"""Many Windows programs at once, and those that are killed: nothing is left behind."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.guest_runs import need, virtus
from tests.win32.compilers import build
from virtus.guests import pe

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("windows-guests")]
AT_ONCE = 8
PATIENCE_S = 20


def start(program: Path, *words: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "virtus", "run", "--with", "api-wrapper", "--", str(program), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def running(mark: str) -> list[str]:
    """Processes of the host that have a word in their command lines."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                words = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue  # has ended
            if mark.encode() in words:
                found.append(entry)
    return found


def test_many_at_once(tmp_path: Path) -> None:
    need("api-wrapper")
    program = build("calls", tmp_path)
    guests = [start(program) for _ in range(AT_ONCE)]
    ended = [(guest.communicate(timeout=60), guest.returncode) for guest in guests]
    assert [status for _, status in ended] == [42] * AT_ONCE
    assert {output for (output, _), _ in ended} == {ended[0][0][0]}
    assert running(str(program)) == []


@pytest.mark.parametrize(
    ("starts", "at_once"), [(12, 6), pytest.param(1000, 50, marks=[pytest.mark.full, pytest.mark.timeout(1800)])]
)
@pytest.mark.parametrize("technique", ["api-wrapper", "api-emulation"])
def test_starts_in_a_row_and_at_once_leave_nothing(technique: str, starts: int, at_once: int, tmp_path: Path) -> None:
    need(technique)
    program = build("calls", tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "virtus", "run", "--with", technique, "--", str(program)]
    before = surroundings()
    said = set()
    for _ in range(starts):
        done = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)
        said.add((done.returncode, timeless(done.stdout), done.stderr))
    guests = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        for _ in range(at_once)
    ]
    for guest in guests:
        output, errors = guest.communicate(timeout=300)
        said.add((guest.returncode, timeless(output), errors))
    assert len(said) == 1 and {status for status, _, _ in said} == {42}
    assert running(str(program)) == []
    assert list(temporary.iterdir()) == []
    assert surroundings() == before


@pytest.mark.parametrize("technique", ["api-wrapper", "api-emulation"])
def test_callbacks_that_cannot_be_read_are_told_in_a_line(technique: str, tmp_path: Path) -> None:
    need(technique)
    program = build("calls", tmp_path)
    data = bytearray(program.read_bytes())
    image = pe.parse(bytes(data), program.name)
    tls = image.tls()
    assert tls is not None and tls.callbacks
    place = next(
        number for number, section in enumerate(image.sections)
        if section.address <= tls.callbacks - image.base < section.address + section.size
    )  # fmt: skip
    headers = int.from_bytes(data[60:64], "little")
    optional = int.from_bytes(data[headers + 20 : headers + 22], "little")
    data[headers + 24 + optional + 40 * place + 39] &= ~0xC0 & 0xFF  # IMAGE_SCN_MEM_READ and _WRITE
    program.write_bytes(data)
    done = virtus("run", "--with", technique, "--", str(program))
    assert done.returncode == 126
    assert b"callbacks" in done.stderr and done.stderr.count(b"\n") == 1


def timeless(output: bytes) -> bytes:
    """Without the line that says whether a sleep took as long as it may on a quiet machine."""
    return re.sub(rb"(?m)^time \d\r?$", b"", output)


def surroundings() -> tuple[list[str], list[str]]:
    """What outlives processes, of this process's namespaces: mounts and shared memory."""
    return Path("/proc/self/mountinfo").read_text().splitlines(), sorted(os.listdir("/dev/shm"))


def test_what_is_killed_is_gone(tmp_path: Path) -> None:
    need("api-wrapper")
    program = build("waits", tmp_path)
    guest = start(program)
    assert guest.stdout is not None
    assert guest.stdout.readline() == b"waiting\r\n"
    assert running(str(program))
    guest.kill()
    guest.communicate(timeout=PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while running(str(program)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running(str(program)) == []


def test_nobody_reads_what_it_says(tmp_path: Path) -> None:
    """A program that crashes while its streams have no reader ends all the same."""
    need("api-wrapper")
    program = build("faults", tmp_path)
    guest = start(program, "w")
    assert guest.stdout is not None
    assert guest.stderr is not None
    guest.stdout.close()
    guest.stderr.close()
    assert guest.wait(timeout=PATIENCE_S) == 128 + 11


def test_a_library_is_no_program(tmp_path: Path) -> None:
    need("api-wrapper")
    library = build("waits", tmp_path, "-shared")
    done = virtus("run", "--with", "api-wrapper", "--", library)
    assert done.returncode == 126
    assert b"a library, no program" in done.stderr
    assert b"Traceback" not in done.stderr
