"""Debian's i386 kernel with its modules, and initial ramdisks around its busybox, for tests that boot a whole PC.

The packages are downloaded once, with apt lists of their own: nothing of the host's apt is changed.
"""

import fcntl
import gzip
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.xen.kernels import CACHE, NODE

META_PACKAGE: Final = "linux-image-686"
BUSYBOX: Final = "busybox-static"
ARCHITECTURE: Final = "i386"
EDITION: Final = 1
"""Of what is kept of the packages."""
PLACE: Final = CACHE / f"{META_PACKAGE}.{EDITION}"
DISK, CD, NETWORK = ("ata_piix", "sd_mod"), ("ata_piix", "sr_mod", "isofs"), ("ne2k-pci",)
PATIENCE_S: Final = 300


@dataclass(frozen=True, slots=True)
class Debian:
    """What the packages hold: a bzImage, modules by name, and a static busybox for i386."""

    kernel: Path
    modules: Mapping[str, Path]
    busybox: Path

    def with_needed(self, *names: str) -> list[Path]:
        """Modules, each behind those that it needs, as its .modinfo says."""
        found: list[Path] = []
        for name in names:
            path = self.modules[name.replace("-", "_")]
            needs = re.search(rb"\0depends=([^\0]+)\0", path.read_bytes())
            before = self.with_needed(*needs[1].decode().split(",")) if needs is not None else []
            found += [one for one in (*before, path) if one not in found]
        return found


def debian() -> Debian:
    """Debian's kernel for i386; skips where it is neither kept nor to be had."""
    if not PLACE.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "kernel-i386.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not PLACE.exists():
                with tempfile.TemporaryDirectory(dir=CACHE) as directory:
                    _fetch(Path(directory))
                    Path(directory, "root").rename(PLACE)
    (kernel,) = PLACE.glob("boot/vmlinuz-*")
    modules = {path.stem.replace("-", "_"): path for path in PLACE.glob("lib/modules/*/kernel/**/*.ko")}
    return Debian(kernel, modules, PLACE / "bin/busybox")


def package(name: str) -> Path:
    """What a package of the host's own architecture holds; skips where it is neither kept nor to be had."""
    place = CACHE / f"{name}.{EDITION}"
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            options = ["-o", "APT::Sandbox::User="]
            said = _run(["apt-get", *options, "download", name], Path(directory)) if shutil.which("apt-get") else ""
            archives = list(Path(directory).glob("*.deb"))
            if not archives:
                pytest.skip(f"no package {name}: apt-get download: {_last_line(said)}")
            subprocess.run(["dpkg-deb", "-x", archives[0], "root"], cwd=directory, check=True, timeout=PATIENCE_S)
            try:
                Path(directory, "root").rename(place)
            except OSError:
                if not place.exists():  # or somebody else was first
                    raise
    return place


def _fetch(directory: Path) -> None:
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"no i386 kernel to boot: {tool}, which fetches Debian's, is not there")
    lists, status = directory / "lists", directory / "status"
    (lists / "partial").mkdir(parents=True)
    (directory / "cache/archives/partial").mkdir(parents=True)
    status.touch()
    settings = {
        "APT::Architecture": ARCHITECTURE, "APT::Architectures": ARCHITECTURE, "Dir::State": directory,
        "Dir::State::lists": lists, "Dir::State::status": status, "Dir::Cache": directory / "cache",
        "APT::Sandbox::User": "",
    }  # fmt: skip
    options = [f"-o{name}={value}" for name, value in settings.items()]
    _run(["apt-get", *options, "-qq", "update"], directory)
    known = _run(["apt-cache", *options, "depends", META_PACKAGE], directory)
    match = re.search(r"Depends: (linux-image-\S+)", known)
    if match is None:
        pytest.skip(f"no i386 kernel to boot: apt does not find {META_PACKAGE}: {_last_line(known)}")
    said = _run(["apt-get", *options, "download", match[1], BUSYBOX], directory)
    archives = list(directory.glob("*.deb"))
    if len(archives) != 2:
        pytest.skip(f"no i386 kernel to boot: apt-get download {match[1]} {BUSYBOX}: {_last_line(said)}")
    for archive in archives:
        subprocess.run(["dpkg-deb", "-x", archive, "root"], cwd=directory, check=True, timeout=PATIENCE_S)


def _run(command: list[str], directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    return done.stdout + done.stderr


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no answer"])[-1]


def ramdisk(path: Path, guest: Debian, script: str, *modules: str, files: Mapping[str, bytes] | None = None) -> Path:
    """An initial ramdisk whose /init loads modules, and then is a shell script with busybox's commands at hand.

    `files` lie beside it.
    """
    drivers = guest.with_needed(*modules)
    start = "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nmount -t proc proc /proc; mount -t sysfs sys /sys\n"
    start += "mount -t devtmpfs dev /dev\n" + "".join(f"insmod /{driver.name}\n" for driver in drivers)
    nodes = dict.fromkeys(("bin", "dev", "mnt", "proc", "sys", "tmp"), (stat.S_IFDIR | 0o755, b""))
    nodes |= {name: (stat.S_IFREG | 0o644, data) for name, data in (files or {}).items()}
    nodes |= {driver.name: (stat.S_IFREG | 0o644, driver.read_bytes()) for driver in drivers}
    nodes["bin/busybox"] = stat.S_IFREG | 0o755, guest.busybox.read_bytes()
    nodes["init"] = stat.S_IFREG | 0o755, (start + script).encode()
    archive = b""
    for number, (name, (mode, data)) in enumerate([*nodes.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        entry = NODE + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += entry + bytes(-len(entry) % 4) + data + bytes(-len(data) % 4)
    path.write_bytes(gzip.compress(archive, 1))
    return path
