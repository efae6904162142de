"""What a guest was told is stored is stored: its monitor is killed under writing, and the file system is looked at."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.xen import kernels
from tests.xen.test_boot import command

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ring3")]
SIZE = 48 << 20
ROUNDS = (6, 11)
"""How many files the guest is sure of when its monitor is killed, boot by boot."""
WRITER = """
mkdir -p /mnt; mount -t ext4 /dev/xvda /mnt
number=$(ls /mnt | wc -l)
while :; do
    number=$((number + 1)); name=$number.$$
    head -c $((number * 3000)) /dev/urandom >/tmp/content
    dd if=/tmp/content of=/mnt/new conv=fsync 2>/dev/null && mv /mnt/new /mnt/$name && sync /mnt || echo failed
    set -- $(sha256sum /tmp/content); echo "stored $name $1"
    head -c 300000 /dev/urandom >/mnt/unfinished  # more is always under way
done
"""


def run(*words: object) -> int:
    return subprocess.run([str(word) for word in words], capture_output=True, check=False, timeout=60).returncode


def stored_until_killed(ramdisk: Path, disk: str, wanted: int) -> dict[str, str]:
    """The digests of what the guest was sure of, by file name; its monitor is killed after so many."""
    promised: dict[str, str] = {}
    process = subprocess.Popen(
        command(ramdisk, "quiet panic=-1", disk), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout as shown:
        for line in shown:
            assert b"failed" not in line
            if match := re.match(rb"stored (\S+) ([0-9a-f]{64})\s", line):
                promised[match[1].decode()] = match[2].decode()
            if len(promised) == wanted:
                break
        process.kill()
        for line in shown:  # what it had still said
            if match := re.match(rb"stored (\S+) ([0-9a-f]{64})\s", line):
                promised[match[1].decode()] = match[2].decode()
    process.wait()
    return promised


@pytest.mark.skipif(not all(map(shutil.which, ("mke2fs", "e2fsck", "debugfs"))), reason="e2fsprogs is not installed")
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_what_was_synchronised_survives_the_end_of_the_monitor(form: str, tmp_path: Path) -> None:
    plain, image = tmp_path / "plain", tmp_path / f"disk.{form}"
    with plain.open("wb") as stream:
        stream.truncate(SIZE)
    assert run("mke2fs", "-q", "-t", "ext4", plain) == 0
    if form == "raw":
        plain.rename(image)
    elif shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed (Debian: qemu-utils)")
    else:
        assert run("qemu-img", "convert", "-O", form, plain, image) == 0
    ramdisk = kernels.ramdisk(WRITER, tmp_path / "initrd", kernels.kernel() / "xen-blkfront.ko")
    promised: dict[str, str] = {}
    for wanted in ROUNDS:
        promised |= stored_until_killed(ramdisk, str(image), wanted)
        look = tmp_path / "look"
        if form == "raw":
            shutil.copyfile(image, look)
        else:
            assert run("qemu-img", "check", image) in (0, 3)  # 3: clusters are lost, no data
            assert run("qemu-img", "convert", "-O", "raw", image, look) == 0
        assert run("e2fsck", "-p", look) in (0, 1)  # the journal is played
        assert run("e2fsck", "-fn", look) == 0
        found = tmp_path / f"found{wanted}"
        found.mkdir()
        assert run("debugfs", "-R", f"rdump / {found}", look) == 0
        kept = {name: hashlib.sha256((found / name).read_bytes()).hexdigest() for name in promised}
        assert kept == promised
    assert len(promised) >= sum(ROUNDS)


@pytest.mark.skipif(os.geteuid() != 0, reason="a full file system is mounted by root")
def test_a_full_host_fails_the_guests_writes_and_the_guest_lives_on(tmp_path: Path) -> None:
    script = """
dd if=/dev/zero of=/dev/xvda bs=1M count=2 conv=fsync 2>/dev/null && echo the first are stored
dd if=/dev/zero of=/dev/xvda bs=1M seek=2 count=30 conv=fsync 2>/dev/null || echo the others are not
cmp -n 2097152 /dev/xvda /dev/zero && echo and the guest lives on
poweroff -f
"""
    ramdisk = kernels.ramdisk(script, tmp_path / "initrd", kernels.kernel() / "xen-blkfront.ko")
    full = tmp_path / "full"
    full.mkdir()
    mounted = f'mount -t tmpfs -o size=6m full {full} && truncate -s 64M {full}/disk && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", mounted, "sh", *command(ramdisk, "quiet", f"{full}/disk")]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    shown = done.stdout.decode(errors="replace").replace("\r\n", "\n")
    assert "the first are stored\n" in shown and "the others are not\n" in shown and "lives on\n" in shown
    assert "No space left on device" in done.stderr.decode()
    assert done.returncode == 0
