"""Machines from start to end, as a user runs them, with a tiny kernel: quick even where KVM is software."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.hvm import tiny
from virtus.vcpus import ring0_speed

PATIENCE_S: Final = 30
MIB: Final = 1 << 20
VIRTUS: Final = [sys.executable, "-P", "-m", "virtus"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        ring0_speed.measure()
    except OSError as error:
        pytest.skip(f"no KVM: {error}")
    return tiny.kernel(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def own_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


class Running:
    """A machine whose console is ours."""

    def __init__(self, *words: object) -> None:
        command = [*VIRTUS, *map(str, words)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.shown = b""

    def until(self, words: bytes) -> bytes:
        """What is shown up to these words, which are dropped."""
        assert self.process.stdout is not None
        deadline, fd = time.monotonic() + PATIENCE_S, self.process.stdout.fileno()
        while words not in self.shown:
            assert select.select([fd], [], [], max(deadline - time.monotonic(), 0))[0], self.shown
            data = os.read(fd, 1 << 16)
            assert data, (self.shown, self.process.stderr and self.process.stderr.read())
            self.shown += data
        before, _, self.shown = self.shown.partition(words)
        return before

    def type(self, letters: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(letters)
        self.process.stdin.flush()

    def counted(self) -> int:
        """What the kernel has counted, which agrees."""
        self.until(b"agree ")
        return number(self.until(b"\n"))

    def ends(self) -> tuple[int, str, str]:
        """Its exit status, what else it showed, and its errors."""
        out, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, (self.shown + out).decode(), errors.decode()


@contextmanager
def machine(kernel: Path, *words: object) -> Iterator[Running]:
    made = Running("run", "--with", "hvm", "--memory", "64M", *words, kernel)
    try:
        made.until(b"ready\n")
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def number(line: bytes | str) -> int:
    """As the kernel writes it: letters from A for 0."""
    letters = line.decode() if isinstance(line, bytes) else line
    return int("".join(f"{ord(letter) - ord('A'):x}" for letter in letters.strip()), 16)


def domain(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*VIRTUS, "domain", *map(str, words)], capture_output=True, text=True, check=False)


def test_it_counts_and_powers_off(kernel: Path) -> None:
    with machine(kernel) as made:
        made.type(b"cc")
        first, second = made.counted(), made.counted()
        assert 0 < first < second
        made.type(b"q")
        assert made.ends() == (0, "", "")


def test_a_triple_fault_is_said(kernel: Path) -> None:
    with machine(kernel) as made:
        made.type(b"t")
        status, _, errors = made.ends()
        assert (status, errors) == (1, "virtus: its processor stopped: triple fault\n")


def test_a_disk_told_to_write_into_the_tables_does_not(kernel: Path, tmp_path: Path) -> None:
    disk, meter = tmp_path / "disk.img", tmp_path / "meter"
    disk.write_bytes(b"d" * MIB)
    with machine(kernel, "--disk", disk, "--meter-json", meter) as made:
        made.type(b"x")
        made.until(b"needs reset\n")
        made.type(b"q")
        assert made.ends()[0] == 0
    counted = json.loads(meter.read_text())
    assert counted["details"]["excluded accesses"] == 1
    assert list(counted["notes"]) == ["its block device: 512 bytes at 0xe0000, which are not the device's"]


def test_it_goes_on_where_it_was_saved(kernel: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    with machine(kernel, "--name", "one") as made:
        made.type(b"c")
        before = made.counted()
        assert domain("pause", "one").returncode == 0
        assert json.loads(domain("list", "--json").stdout)[0]["state"] == "paused"
        assert domain("save", "one", tmp_path / "no" / "such").returncode == 1  # it lives on, paused
        assert domain("save", "one", saved).returncode == 0
        assert made.ends()[0] == 0
    assert saved.stat().st_size < MIB
    for _ in range(2):  # as often as one likes: nothing of it is used up
        again = Running("domain", "restore", saved)
        try:
            again.type(b"c")
            assert again.counted() > before
            again.type(b"q")
            assert again.ends()[0] == 0
        finally:
            again.process.kill()
            again.process.communicate()


@pytest.mark.parametrize("damage", ["truncated", "another technique's words", "no processor's state"])
def test_a_damaged_saved_machine_is_refused(kernel: Path, tmp_path: Path, damage: str) -> None:
    from virtus.machine import saved_machine
    from virtus.machine.saved_machine import SavedMachine
    from virtus.memory.guest_memory import GuestMemory

    path = tmp_path / "saved"
    with machine(kernel, "--name", "two") as made:
        assert domain("save", "two", path).returncode == 0
        made.ends()
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        saved = SavedMachine(path)
        known = saved.known
        saved.close()
        known.pop("pieces")
        if damage == "no processor's state":
            known["machine"]["processors"][0]["special"] = "ff" * 312
        else:
            known["board"] = {}
        memory = GuestMemory(64 * MIB)
        saved_machine.write(path, known, memory, [])
        memory.close()
    done = domain("restore", path)
    assert done.returncode == 126
    assert "a damaged file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("form", ["img", "qcow2"])
def test_nothing_that_was_flushed_is_lost_by_a_kill(kernel: Path, tmp_path: Path, form: str) -> None:
    disk = tmp_path / f"disk.{form}"
    if form == "qcow2":
        if shutil.which("qemu-img") is None:
            pytest.skip("qemu-img is not installed (Debian: qemu-utils)")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", disk, "1M"], check=True)
    else:
        disk.write_bytes(bytes(MIB))
    with machine(kernel, "--disk", disk) as made:
        made.type(b"w")
        for _ in range(40):
            last = number(made.until(b"\n"))
        made.process.send_signal(signal.SIGKILL)
        rest = made.ends()[1].split("\n")[:-1]
    last = number(rest[-1]) if rest else last
    if form == "qcow2":
        checked = subprocess.run(["qemu-img", "check", disk], capture_output=True, text=True, check=False)
        assert checked.returncode in (0, 3), checked.stdout  # 3: there are leaks
    from virtus.devices.disk import Disk

    opened = Disk(disk, read_only=True)
    found = bytearray(MIB)
    opened.read(0, [memoryview(found)])
    opened.close()
    for written in range(max(last - 1000, 1), last + 1):
        at = written % 1024 * 512
        assert int.from_bytes(found[at : at + 4], "little") == written


def test_a_host_without_room_fails_the_guest_s_writes(kernel: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    if shutil.which("qemu-img") is None or shutil.which("prlimit") is None:
        pytest.skip("qemu-img or prlimit is not installed (Debian: qemu-utils, util-linux)")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", disk, "1M"], check=True)
    with machine(kernel, "--disk", disk) as made:
        limit = disk.stat().st_size + 16384
        subprocess.run(["prlimit", f"--fsize={limit}", "--pid", str(made.process.pid)], check=True)
        made.type(b"w")
        assert number(made.until(b"refused\n").split()[-1])
        made.type(b"q")
        assert made.ends() == (0, "", "")
    subprocess.run(["qemu-img", "check", "-q", disk], check=True)


def test_what_is_no_kernel_is_said(kernel: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.elf"
    cut.write_bytes(kernel.read_bytes()[:4100])
    done = Running("run", "--with", "hvm", cut).ends()
    assert done[0] == 126
    assert str(cut) in done[2]
    assert "Traceback" not in done[2]
