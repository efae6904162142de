"""A boot sector that uses the BIOS's video, disk, time, keyboard and power services, from each medium, by `virtus run`.

The same boot sector runs on the emulated vCPU in tests/pc; here what is not real mode runs directly.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.prescan.machines import needs_assembler
from tests.prescan.test_prescan_technique import needs_bios

SOURCE = Path(__file__).parent.parent / "pc/bios_services.s"
FLOPPY_SIZE = 1440 * 1024
PATIENCE_S = 100

pytestmark = [needs_assembler, pytest.mark.slow]


def medium(kind: str, directory: Path) -> Path:
    subprocess.run(["as", "--32", SOURCE, "-o", "boot.o"], cwd=directory, check=True, timeout=60)
    link = ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "boot.o", "-o", "boot.img"]
    subprocess.run(link, cwd=directory, check=True, timeout=60, capture_output=True)
    os.truncate(directory / "boot.img", FLOPPY_SIZE if kind != "disk" else 2 << 20)
    if kind != "cd":
        return directory / "boot.img"
    xorriso = shutil.which("xorriso")
    if xorriso is None:
        pytest.skip("no xorriso to make an ISO image")
    (directory / "tree").mkdir()
    (directory / "boot.img").rename(directory / "tree/boot.img")
    make = [xorriso, "-as", "mkisofs", "-quiet", "-b", "boot.img", "-o", "cd.iso", "tree"]  # emulates a floppy disk
    subprocess.run(make, cwd=directory, check=True, timeout=60, capture_output=True)
    return directory / "cd.iso"


@pytest.mark.parametrize("kind", ["floppy", "disk", "cd"])
def test_a_boot_sector_has_all_services(kind: str, tmp_path: Path) -> None:
    needs_bios()
    image = medium(kind, tmp_path)
    before = image.read_bytes()
    machine = subprocess.Popen(
        [sys.executable, "-P", "-m", "virtus", "run", "--memory", "64M", str(image)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert machine.stdout is not None
    shown = b""
    while b"ticked" not in shown:
        more = os.read(machine.stdout.fileno(), 4096)
        assert more, shown
        shown += more
    rest, errors = machine.communicate(b"K", timeout=PATIENCE_S)
    text = re.sub(rb" *\x1b\[[0-9;?]*[A-Za-z]", b" ", shown + rest)
    for words in (b"SeaBIOS", b"sector one", b"sector two", b"ticked", b"K"):
        assert words in text, text
    assert (machine.returncode, errors) == (0, b"")
    assert image.read_bytes() == before
