"""Debian's own i386 kernel, unmodified: to a shell and to power off; with disk, CD and network."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.prescan.debian import CD, DISK, NETWORK, debian, ramdisk
from tests.prescan.file_host import file_host
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
        assert f"{name} {hashlib.md5(what).hexdigest()}" in shown, shown[-3000:]
    assert host.files["kept"] == data
    written = (tmp_path / "disk").read_bytes()
    assert written[8 * 512 : 8 * 512 + len(served)] == served
    assert written[: 8 * 512] == disk[: 8 * 512]
    requests = [int(line.split()[1]) for line in shown.splitlines() if "XT-PIC" in line and "ata_piix" in line]
    assert len(requests) == 2
    assert sum(requests) < (len(disk) + len(data)) // 4096, "not by DMA"
    assert done.returncode == 0, done.stderr
