"""A PC is controlled from outside, from the command line: listed, paused, looked at, ended."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.prescan.machines import needs_assembler
from tests.prescan.test_prescan_technique import kernel, needs_bios
from virtus.machine.control import NAME, names
from virtus.techniques.booting import default_name

pytestmark = [needs_assembler, pytest.mark.slow]

# counts on the screen
COUNT = "mov $0x0741, %ax; mov %ax, 0xB8000; mov $'.', %al; mov $0x3F8, %dx; out %al, %dx; 1: incb 0xB8002; jmp 1b"
# the mode 640x480x32 of the Bochs extension, whose frame buffer without a BIOS is at 0xFD000000: a blue, a green line
PIXELS = (
    "mov $0x1CE, %dx; mov $modes, %esi; mov $4, %ecx; 1: outsw; inc %dx; outsw; dec %dx; loop 1b;"
    "mov $0xFD000000, %edi; mov $0x0000FF, %eax; mov $640, %ecx; rep stosl;"
    "mov $0x00FF00, %eax; mov $640, %ecx; rep stosl; mov $'!', %al; mov $0x3F8, %dx; out %al, %dx; 2: hlt; jmp 2b;"
    "modes: .word 1, 640, 2, 480, 3, 32, 4, 1"
)
PATIENCE_S = 60
Start = Callable[[str], subprocess.Popen[bytes]]


def domain(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "virtus", "domain", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    running: list[subprocess.Popen[bytes]] = []

    def begin(source: str) -> subprocess.Popen[bytes]:
        words = ["run", "--name", "pc", "--bios", "none", "--console", "serial", str(kernel(tmp_path, source))]
        machine = subprocess.Popen(
            [sys.executable, "-P", "-m", "virtus", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        running.append(machine)
        assert machine.stdout is not None
        assert machine.stdout.read(7) == b"hello\n" + (b"." if source is COUNT else b"!")
        return machine

    yield begin
    for machine in running:
        machine.kill()
        machine.wait()
        assert machine.stdout is not None and machine.stderr is not None
        machine.stdout.close()
        machine.stderr.close()


def test_a_machine_is_listed_paused_and_destroyed(start: Start, tmp_path: Path) -> None:
    machine = start(COUNT)
    (listed,) = json.loads(domain("list", "--json").stdout)
    assert (listed["name"], listed["technique"], listed["state"]) == ("pc", "prescan", "running")
    assert domain("pause", "pc").returncode == 0
    (listed,) = json.loads(domain("list", "--json").stdout)
    assert listed["state"] == "paused"
    before, after = tmp_path / "before.png", tmp_path / "after.png"
    assert domain("screenshot", "pc", str(before)).stdout == f"{before}: 640 x 400 pixels\n"
    time.sleep(0.2)
    domain("screenshot", "pc", str(after))
    assert before.read_bytes() == after.read_bytes(), "it goes on while it is paused"
    assert domain("unpause", "pc").returncode == 0
    refused = domain("shutdown", "--reboot", "pc")
    assert (refused.returncode, "power button" in refused.stderr) == (2, True)
    assert domain("shutdown", "pc").returncode == 0  # this guest does not listen
    assert domain("destroy", "pc").returncode == 0
    assert machine.wait(PATIENCE_S) == 137
    assert domain("list", "--json").stdout == "[]\n"


def test_a_screenshot_of_pixels(start: Start, tmp_path: Path) -> None:
    start(PIXELS)
    assert domain("screenshot", "pc", str(tmp_path / "shot.png")).stdout.endswith(": 640 x 480 pixels\n")
    with Image.open(tmp_path / "shot.png") as picture:
        rows = [{picture.getpixel((x, y)) for x in range(640)} for y in range(3)]
    assert rows == [{(0, 0, 255)}, {(0, 255, 0)}, {(0, 0, 0)}]
    missing = domain("screenshot", "pc", str(tmp_path / "none" / "shot.png"))
    assert missing.returncode != 0
    assert "No such file" in missing.stderr


def processes_of(machine: subprocess.Popen[bytes]) -> list[int]:
    return [int(word) for word in Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text().split()]


def lives(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_machine_that_is_killed_leaves_nothing(start: Start) -> None:
    machine = start(COUNT)
    processes = processes_of(machine)
    assert len(processes) >= 2
    machine.kill()
    machine.wait()
    limit = time.monotonic() + PATIENCE_S
    while any(lives(process) for process in processes):
        assert time.monotonic() < limit, "a process of the guest's lives on"
        time.sleep(0.01)
    assert domain("list", "--json").stdout == "[]\n"
    assert names() == []


def test_a_guests_process_that_is_killed_is_told_in_a_line_and_leaves_nothing(start: Start) -> None:
    machine = start(COUNT)
    processes = processes_of(machine)
    time.sleep(0.5)  # by then it has used the processor, and the template of such processes has not
    busiest = max(processes, key=lambda one: sum(map(int, Path(f"/proc/{one}/stat").read_text().split()[13:15])))
    os.kill(busiest, signal.SIGKILL)
    assert machine.wait(PATIENCE_S) == 1
    assert machine.stderr is not None
    assert re.fullmatch(rb"virtus: running the guest: its process ended with status 0x9\n", machine.stderr.read())
    assert not any(lives(process) for process in processes)
    assert names() == []


# real mode, where a keyboard is asked for ever, as a boot loader does at its prompt
PROMPT = """
    .code16
    .globl _start
    _start: mov $0x0E21, %ax; xor %bx, %bx; int $0x10; 1: mov $1, %ah; int $0x16; jmp 1b
    .org 510
    .word 0xAA55
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_machine_wherever_it_is(tmp_path: Path, number: int) -> None:
    """In a callback of Unicorn an exception would be lost."""
    needs_bios()
    (tmp_path / "boot.s").write_text(PROMPT)
    subprocess.run(["as", "--32", "boot.s", "-o", "boot.o"], cwd=tmp_path, check=True)
    link = ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "boot.o", "-o", "disk"]
    subprocess.run(link, cwd=tmp_path, check=True, capture_output=True)
    os.truncate(tmp_path / "disk", 1 << 20)
    words = ["run", "--memory", "64M", str(tmp_path / "disk")]
    machine = subprocess.Popen(
        [sys.executable, "-P", "-m", "virtus", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert machine.stdout is not None
    try:
        shown = b""
        while b"!" not in shown:
            shown += machine.stdout.read(1)
        machine.send_signal(number)
        machine.stdout.read()
        assert machine.wait(PATIENCE_S) == 128 + number
    finally:
        machine.kill()
        machine.wait()
        machine.stdout.close()


@pytest.mark.parametrize("name", ["memtest86+ia32.bin", "...", "ä b/c".replace("/", ":"), "x" * 100])
def test_every_image_gives_a_machine_a_name_that_it_can_have(name: str) -> None:
    assert NAME.fullmatch(default_name(Path(name)))
