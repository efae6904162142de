"""Debian's kernel as it is, and initial ramdisks of a script and busybox, for tests that boot a paravirtual domain."""

import fcntl
import gzip
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from virtus.guests import elf

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "virtus-tests"
META_PACKAGE: Final = "linux-image-cloud-amd64"
GENERIC: Final = "linux-image-amd64"
"""Debian's kernel for machines of all kinds: the same version, with most of it in modules."""
DRIVERS: Final = (
    "drivers/block/xen-blkfront.ko", "drivers/net/xen-netfront.ko",
    "drivers/virtio/virtio.ko", "drivers/virtio/virtio_ring.ko", "drivers/virtio/virtio_mmio.ko",
    "drivers/virtio/virtio_balloon.ko", "drivers/block/virtio_blk.ko", "net/core/failover.ko",
    "drivers/net/net_failover.ko", "drivers/net/virtio_net.ko", "drivers/char/hw_random/rng-core.ko",
    "drivers/char/hw_random/virtio-rng.ko", "drivers/char/virtio_console.ko",
    "drivers/net/tun.ko",
    "virt/lib/irqbypass.ko", "arch/x86/kvm/kvm.ko", "arch/x86/kvm/kvm-amd.ko",
)  # fmt: skip
"""Those that are no modules are left out."""
EDITION: Final = 5
"""Of what is kept of a package."""
NODE: Final = (
    b"070701"  # the cpio format that Linux unpacks (Documentation/driver-api/early-userspace/buffer-format.rst)
)


def kernel(meta_package: str = META_PACKAGE) -> Path:
    """The directory with Debian's kernel for this release, `vmlinuz`, and its front ends' modules; or skips."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("no kernel to boot: apt-get and dpkg-deb fetch Debian's")
    known = subprocess.run(["apt-cache", "depends", meta_package], capture_output=True, text=True, check=False).stdout
    match = re.search(r"Depends: (linux-image-\S+)", known)
    if match is None:
        pytest.skip(f"no kernel to boot: apt does not know {meta_package} (apt-get update)")
    CACHE.mkdir(parents=True, exist_ok=True)
    place = CACHE / f"{match[1]}.{EDITION}"
    with (CACHE / "kernel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as directory:
                _fetch(match[1], Path(directory))
                Path(directory, "kernel").rename(place)
    return place


def _fetch(package: str, directory: Path) -> None:
    options = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    done = subprocess.run(
        ["apt-get", *options, "download", package], cwd=directory, capture_output=True, text=True, check=False
    )
    archives = list(directory.glob("*.deb"))
    if done.returncode or not archives:
        pytest.skip(f"no kernel to boot: apt-get download {package}: {(done.stderr or '?').strip().splitlines()[-1]}")
    subprocess.run(["dpkg-deb", "-x", archives[0], "root"], cwd=directory, check=True)
    (directory / "kernel").mkdir()
    shutil.move(next(directory.glob("root/boot/vmlinuz-*")), directory / "kernel/vmlinuz")
    for driver in DRIVERS:
        for module in directory.glob(f"root/lib/modules/*/kernel/{driver}"):
            shutil.move(module, directory / "kernel")


def busybox() -> bytes:
    """A static busybox; skips without."""
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("busybox is not installed (Debian: busybox-static)")
    program = Path(found).read_bytes()
    if elf.parse(program[:4096], len(program)).interpreter is not None:
        pytest.skip("busybox is not static (Debian: busybox-static)")
    return program


# A 32-bit program at 0x08048054: write(1, text, 11), exit(7), by int 0x80
_CODE_32: Final = (
    bytes.fromhex("b804000000 bb01000000 b976800408 ba0b000000 cd80 b801000000 bb07000000 cd80") + b"32 bits on\n"
)


def program32() -> bytes:
    """The program as an ELF file for i386."""
    size = 84 + len(_CODE_32)
    ident = elf.MAGIC + bytes((1, 1, 1)) + bytes(9)
    header = struct.pack("<16sHHIIIIIHHHHHH", ident, 2, 3, 1, 0x08048054, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    return header + struct.pack("<8I", 1, 0, 0x08048000, 0x08048000, size, size, 7, 4096) + _CODE_32


def ramdisk(script: str, path: Path, *modules: Path, files: Mapping[str, Path] | None = None) -> Path:
    """An initial ramdisk at `path` whose /init is a shell script in which busybox's commands are there.

    `files` are put where their names say.
    """
    start = "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nmount -t proc proc /proc; mount -t sysfs sys /sys\n"
    start += "mount -t devtmpfs dev /dev\n" + "".join(f"insmod /{module.name}\n" for module in modules)
    kept = dict(files or {})
    above = {str(parent) for name in kept for parent in Path(name).parents if str(parent) != "."}
    names = sorted({"bin", "proc", "sys", "dev", "tmp"} | above)
    nodes = [(name, 0o40755, b"", 0) for name in names]
    nodes += [(name, 0o100755, place.read_bytes(), 0) for name, place in kept.items()]
    nodes.append(("dev/console", 0o20600, b"", 5 << 8 | 1))
    nodes.append(("bin/busybox", 0o100755, busybox(), 0))
    nodes.append(("init", 0o100755, (start + script).encode(), 0))
    nodes.append(("bin/program32", 0o100755, program32(), 0))
    nodes += [(module.name, 0o100644, module.read_bytes(), 0) for module in modules]
    nodes.append(("TRAILER!!!", 0, b"", 0))
    archive = bytearray()
    for number, (name, mode, data, device) in enumerate(nodes):
        name_bytes = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, device >> 8, device & 255, len(name_bytes), 0)
        archive += NODE + b"".join(b"%08x" % field for field in fields) + name_bytes
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    path.write_bytes(gzip.compress(archive, 1))
    return path
