"""Debian's own i386 kernel, unmodified: a shell, disk, CD, network, screen and keyboard, power off."""

import contextlib
import hashlib
import os
import pty
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.prescan.debian import CD, DISK, NETWORK, debian, ramdisk
from tests.prescan.file_host import file_host
from virtus.errors import VirtusError
from virtus.machine import control
from virtus.machine.machine_spec import MIB, MachineSpec
from virtus.techniques.prescan import Prescan

SHELL = """
echo "the shell is up: $(uname -m)"
i=0; while [ $i -lt 20 ]; do busybox true; i=$((i+1)); done
dd if=/dev/zero bs=64k count=64 2>/dev/null | md5sum
poweroff -f
"""
MD5_OF_4_MIB = b"b5cfa9d6c8febd618f91ac2843d50a1c"
DEVICES = """
echo "disk $(md5sum </dev/sda)"
mount -t iso9660 -o ro /dev/sr0 /mnt && echo "CD $(md5sum </mnt/data)"
ifconfig eth0 10.9.0.2 up
tftp -g -r served -l /tmp/served 10.9.0.1; echo "network $(md5sum </tmp/served)"
tftp -p -l /mnt/data -r kept 10.9.0.1
dd if=/tmp/served of=/dev/sda bs=512 seek=8 conv=notrunc,fsync 2>/dev/null
grep -E 'ata_piix|eth0' /proc/interrupts
poweroff -f
"""
SCREEN = """
dd if=/pattern of=/dev/fb0 bs=64k 2>/dev/null
read word </dev/tty1
[ "$word" = "Open, Sesame 42!" ] && poweroff -f
while true; do sleep 100; done
"""
WORDS = "panic=-1 mitigations=off nokaslr noapic nolapic"
PATIENCE_S = 400

pytestmark = [pytest.mark.full, pytest.mark.slow, pytest.mark.timeout(PATIENCE_S + 20)]


def test_debians_kernel_reaches_a_shell_and_powers_off(tmp_path: Path) -> None:
    guest = debian()
    initrd = ramdisk(tmp_path / "initrd", guest, SHELL)
    descriptor = os.open(tmp_path / "output", os.O_CREAT | os.O_WRONLY)
    try:
        report = Prescan().boot(
            MachineSpec(
                guest.kernel, initrd=initrd, append=WORDS, memory=128 * MIB, console_in=-1, console_out=descriptor
            )
        )
    finally:
        os.close(descriptor)
    output = (tmp_path / "output").read_bytes()
    assert b"the shell is up: i686" in output
    assert MD5_OF_4_MIB in output
    assert b"Power down" in output
    assert report.status == 0
    assert report.details["patches"] > 20


def test_disk_cd_and_network_work_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line: a file each from the disk by DMA, the CD and a peer on a switch; one to disk and peer."""
    xorriso = shutil.which("xorriso")
    if xorriso is None:
        pytest.skip("no xorriso to make an ISO image")
    guest, source = debian(), random.Random(3)
    disk, data, served = (source.randbytes(size) for size in (8 * MIB, MIB + 5, 100_000))
    (tmp_path / "disk").write_bytes(disk)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/data").write_bytes(data)
    iso = [xorriso, "-as", "mkisofs", "-quiet", "-o", str(tmp_path / "cd.iso"), str(tmp_path / "tree")]
    subprocess.run(iso, check=True, timeout=60, capture_output=True)
    initrd = ramdisk(tmp_path / "initrd", guest, DEVICES, *DISK, *CD, *NETWORK)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    words = ["run", "--memory", "128M", "--initrd", str(initrd), "--append", WORDS, "--disk", str(tmp_path / "disk")]
    words += ["--cdrom", str(tmp_path / "cd.iso"), "--net", "switch:lab", str(guest.kernel)]
    with file_host("lab", {"served": served}) as host:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "virtus", *words], stdin=subprocess.DEVNULL, capture_output=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    shown = done.stdout.decode("utf-8", "replace")
    for name, what in (("disk", disk), ("CD", data), ("network", served)):
        assert f"{name} {hashlib.md5(what).hexdigest()}" in shown, (shown[-3000:], done.stderr)
    assert host.files["kept"] == data
    written = (tmp_path / "disk").read_bytes()
    assert written[8 * 512 : 8 * 512 + len(served)] == served
    assert written[: 8 * 512] == disk[: 8 * 512]
    requests = [int(line.split()[1]) for line in shown.splitlines() if "XT-PIC" in line and "ata_piix" in line]
    assert len(requests) == 2
    assert sum(requests) < (len(disk) + len(data)) // 4096, "not by DMA"
    assert done.returncode == 0, done.stderr


def test_the_frame_buffer_is_seen_and_the_keyboard_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux draws by vesafb what `virtus domain screenshot` shows; what is typed comes by its keyboard's driver."""
    guest, (width, height) = debian(), (800, 600)
    pattern = b"".join(
        (x * 31 // width << 11 | y * 63 // height << 5 | (x ^ y) & 31).to_bytes(2, "little")
        for y in range(height)
        for x in range(width)
    )
    initrd = ramdisk(tmp_path / "initrd", guest, SCREEN, files={"pattern": pattern})
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    words = ["run", "--name", "pc", "--memory", "128M", "--initrd", str(initrd)]
    words += ["--append", f"vga=0x314 console=tty0 vt.global_cursor_default=0 {WORDS}", str(guest.kernel)]
    keyboard, terminal = pty.openpty()
    machine = subprocess.Popen([sys.executable, "-P", "-m", "virtus", *words], stdin=terminal, stdout=terminal)
    shot = tmp_path / "shot.png"
    try:
        limit = time.monotonic() + PATIENCE_S
        while not _shows(shot, pattern, (width, height)):
            assert machine.poll() is None
            assert time.monotonic() < limit, "the picture never came"
            time.sleep(2)
            with contextlib.suppress(VirtusError):
                control.ask("pc", "screenshot", path=str(shot))
        os.write(keyboard, b"Open, Sesame 42!\r")
        assert machine.wait(60) == 0
    finally:
        machine.kill()
        machine.wait()
        os.close(keyboard)
        os.close(terminal)


def _shows(shot: Path, pattern: bytes, size: tuple[int, int]) -> bool:
    """Whether a screenshot has these pixels of 5, 6 and 5 bits."""
    if not shot.exists():
        return False
    with Image.open(shot) as picture:
        if picture.size != size:
            return False
        found = picture.tobytes()
    red, green, blue = found[0::3], found[1::3], found[2::3]
    pixels = (r >> 3 << 11 | g >> 2 << 5 | b >> 3 for r, g, b in zip(red, green, blue, strict=True))
    return b"".join(pixel.to_bytes(2, "little") for pixel in pixels) == pattern
