"""Debian's own i386 kernel to a shell and to power off, unmodified.

VIRTUS_I386_KERNEL names its bzImage (package linux-image-686), VIRTUS_I386_BUSYBOX a static i386 busybox.
"""

import gzip
import os
from pathlib import Path

import pytest

from virtus.machine.machine_spec import MIB, MachineSpec
from virtus.techniques.prescan import Prescan

KERNEL, BUSYBOX = (os.environ.get(f"VIRTUS_I386_{name}", "") for name in ("KERNEL", "BUSYBOX"))
INIT = b"""#!/bin/sh
PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
echo "the shell is up: $(busybox uname -m)"
i=0; while [ $i -lt 20 ]; do busybox true; i=$((i+1)); done
busybox dd if=/dev/zero bs=64k count=64 2>/dev/null | busybox md5sum
busybox poweroff -f
"""
MD5_OF_4_MIB = b"b5cfa9d6c8febd618f91ac2843d50a1c"
WORDS = "panic=-1 mitigations=off nokaslr noapic nolapic"

pytestmark = [
    pytest.mark.full,
    pytest.mark.slow,
    pytest.mark.skipif(not (KERNEL and BUSYBOX), reason="VIRTUS_I386_KERNEL and VIRTUS_I386_BUSYBOX are not set"),
]


def initial_ramdisk(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A cpio archive of the new format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    archive = b""
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        entry = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += entry + bytes(-len(entry) % 4) + data + bytes(-len(data) % 4)
    return gzip.compress(archive, 1)


@pytest.mark.timeout(300)
def test_debians_kernel_reaches_a_shell_and_powers_off(tmp_path: Path) -> None:
    directories = dict.fromkeys(("bin", "proc", "dev"), (0o40755, b""))
    files = {
        "bin/busybox": (0o100755, Path(BUSYBOX).read_bytes()), "bin/sh": (0o120777, b"busybox"),
        "init": (0o100755, INIT),
    }  # fmt: skip
    (tmp_path / "initrd").write_bytes(initial_ramdisk(directories | files))
    descriptor = os.open(tmp_path / "output", os.O_CREAT | os.O_WRONLY)
    try:
        report = Prescan().boot(
            MachineSpec(
                Path(KERNEL), initrd=tmp_path / "initrd", append=WORDS, memory=128 * MIB, console_in=-1,
                console_out=descriptor,
            )
        )  # fmt: skip
    finally:
        os.close(descriptor)
    output = (tmp_path / "output").read_bytes()
    assert b"the shell is up: i686" in output
    assert MD5_OF_4_MIB in output
    assert b"Power down" in output
    assert report.status == 0
    assert report.details["patches"] > 20
