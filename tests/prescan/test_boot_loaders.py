"""memtest86+ and GRUB under the monitor: a kernel, a CD, a multiboot image, and a disk from which Debian boots.

Packages that are not installed are downloaded. Real mode and the BIOS are emulated, the rest runs after its scan.
"""

import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.prescan.debian import DISK, debian, package, ramdisk
from tests.prescan.test_prescan_technique import needs_bios

SECTOR, FIRST_SECTOR, SECTORS = 512, 2048, 96 << 11
BOOT_CODE = 440
"""Bytes of a master boot record in front of the disk's signature and the table of partitions."""
LINUX_PARTITION = 0x83
MODULES = ("biosdisk", "iso9660", "part_msdos", "ext2", "normal", "linux", "echo", "halt", "ls", "cat")
SCRIPT = "echo GRUB speaks\nls\ncat /word\nhalt\n"
PATIENCE_S = 500

pytestmark = [pytest.mark.full, pytest.mark.slow, pytest.mark.timeout(PATIENCE_S + 20)]


def virtus(*words: str, seconds: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "virtus", "run", *words], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False, timeout=seconds,
    )  # fmt: skip


class Grub:
    """GRUB's tools and modules: the host's, or from their packages."""

    def __init__(self) -> None:
        needs_bios()
        tool = shutil.which("grub-mkimage")
        self._tool = tool or str(package("grub-common") / "usr/bin/grub-mkimage")
        self.modules = Path("/usr/lib/grub/i386-pc")
        if not (self.modules / "boot.img").exists():
            self.modules = package("grub-pc-bin") / "usr/lib/grub/i386-pc"

    def image(self, path: Path, kind: str, prefix: str, script: str = "") -> Path:
        """A core image of this kind, which looks for its configuration at `prefix`, or does a script instead."""
        words = [self._tool, "-d", str(self.modules), "-O", kind, "-p", prefix, "-o", str(path)]
        if script:
            path.with_suffix(".cfg").write_text(script)
            words += ["-c", str(path.with_suffix(".cfg"))]
        done = subprocess.run([*words, *MODULES], capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            pytest.skip(f"no GRUB to boot: {done.stderr.strip()}")
        return path


def shown(output: str) -> str:
    """What a terminal was sent, without where it was put."""
    return re.sub(r" *\x1b\[[0-9;?]*[A-Za-z]", " ", output)


def test_memtest_tests_memory(tmp_path: Path) -> None:
    """It enables paging, moves itself around in memory, and has loops of SSE and REP."""
    kernel = Path("/boot/memtest86+ia32.bin")
    if not kernel.exists():
        kernel = package("memtest86+") / "boot/memtest86+ia32.bin"
    words = ["run", "--memory", "64M", "--append", "console=ttyS0,115200", str(kernel)]
    machine = subprocess.Popen(
        [sys.executable, "-P", "-m", "virtus", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert machine.stdout is not None
    output, end = b"", time.monotonic() + PATIENCE_S
    try:
        while not re.search(rb"#([89]|10) +\[", output):
            assert time.monotonic() < end, shown(output.decode("latin1"))[-2000:]
            more = os.read(machine.stdout.fileno(), 4096)
            assert more, "it has ended"
            output += more
    finally:
        machine.terminate()
        machine.stdout.read()
        machine.wait()
        machine.stdout.close()
    text = output.decode("latin1")
    tests = [int(number) for number in re.findall(r"#(\d+) +\[", text)]  # drawn every two seconds: not of each
    assert tests == sorted(tests) and tests[-1] >= 8 and len(set(tests)) >= 3
    assert set(re.findall(r"Errors: (\d+)", text)) == {"0"}
    assert machine.returncode == 143


def test_grub_boots_from_a_cd(tmp_path: Path) -> None:
    xorriso = shutil.which("xorriso")
    if xorriso is None:
        pytest.skip("no xorriso to make an ISO image")
    (tmp_path / "tree/boot/grub").mkdir(parents=True)
    (tmp_path / "tree/word").write_text("plugh\n")
    (tmp_path / "tree/boot/grub/grub.cfg").write_text(SCRIPT)
    Grub().image(tmp_path / "tree/boot/eltorito.img", "i386-pc-eltorito", "/boot/grub")
    make = [xorriso, "-as", "mkisofs", "-quiet", "-b", "boot/eltorito.img", "-no-emul-boot", "-boot-load-size", "4"]
    make += ["-boot-info-table", "-R", "-o", str(tmp_path / "cd.iso"), str(tmp_path / "tree")]
    subprocess.run(make, check=True, timeout=60, capture_output=True)
    done = virtus(str(tmp_path / "cd.iso"))
    text = shown(done.stdout)
    for words in ("GRUB speaks", "(cd)", "plugh"):
        assert words in text, text[-2000:]
    assert done.returncode == 0, done.stderr


def test_grub_is_a_multiboot_kernel_that_calls_the_bios(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    image = Grub().image(tmp_path / "core.img", "i386-pc", "/nowhere", "echo GRUB speaks\nls\nhalt\n")
    done = virtus("--disk", str(disk), str(image))
    text = shown(done.stdout)
    assert "GRUB speaks" in text, text[-2000:]
    assert "(hd0)" in text
    assert done.returncode == 0, done.stderr


FROM_DISK = """
mount -t ext4 /dev/sda1 /mnt && echo "the disk holds $(cat /mnt/word)"
echo written by the guest >/mnt/answer; umount /mnt; sync
poweroff -f
"""
MENU = """set timeout=1
menuentry Debian {
 linux /boot/vmlinuz console=ttyS0 panic=-1 mitigations=off noapic nolapic
 initrd /boot/initrd
}
"""


def test_debian_boots_from_a_disk_with_grub(tmp_path: Path) -> None:
    """As a user has it: a disk image and nothing else. What is written is kept since the disk is named by --disk."""
    mkfs = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin")
    debugfs = shutil.which("debugfs", path="/usr/sbin:/sbin:/usr/bin")
    if mkfs is None or debugfs is None:
        pytest.skip("no mkfs.ext4 and debugfs (e2fsprogs)")
    guest, grub, tree, disk = debian(), Grub(), tmp_path / "tree", tmp_path / "disk.img"
    (tree / "boot/grub").mkdir(parents=True)
    (tree / "word").write_text("xyzzy\n")
    (tree / "boot/grub/grub.cfg").write_text(MENU)
    shutil.copy(guest.kernel, tree / "boot/vmlinuz")
    ramdisk(tree / "boot/initrd", guest, FROM_DISK, *DISK, "ext4", "crc32c_generic")
    core = grub.image(tmp_path / "core.img", "i386-pc", "(hd0,msdos1)/boot/grub").read_bytes()
    partition = struct.pack("<B3xB3xII", 0x80, LINUX_PARTITION, FIRST_SECTOR, SECTORS)
    record = (grub.modules / "boot.img").read_bytes()[:BOOT_CODE].ljust(446, b"\0") + partition
    assert len(core) < (FIRST_SECTOR - 1) * SECTOR
    with disk.open("wb") as stream:
        stream.write(record.ljust(SECTOR - 2, b"\0") + b"\x55\xaa" + core)
        stream.truncate((FIRST_SECTOR + SECTORS) * SECTOR)
    offset = f"offset={FIRST_SECTOR * SECTOR}"
    make = [mkfs, "-q", "-F", "-O", "^metadata_csum,^64bit", "-d", str(tree), "-E", offset, str(disk)]
    subprocess.run([*make, f"{SECTORS // 2}k"], check=True, timeout=120, capture_output=True)
    done = virtus("--console", "serial", "--disk", str(disk), str(disk))
    assert "the disk holds xyzzy" in done.stdout, done.stdout[-2000:]
    assert "Power down" in done.stdout
    assert done.returncode == 0, done.stderr
    device = f"{disk}?{offset}"
    found = subprocess.run([debugfs, "-R", "cat /answer", device], capture_output=True, text=True, timeout=60)
    assert found.stdout == "written by the guest\n", found.stderr
