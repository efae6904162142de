"""A host with AMD's SVM for tests: QEMU emulates the processor, Debian's kernel brings kvm-amd, and virtus runs in it.

Python and the modules that virtus needs are put into the initial ramdisk; commands go in by the serial port.
"""

import base64
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

import virtus
from tests.xen import kernels

MEMORY: Final = "1024"
PROMPT: Final = b"nested-ready"
BOOT_S, COMMAND_S = 120, 240
CLOSURE: Final = """
import sys
import virtus.cli.run, virtus.cli.commands, virtus.cli.main, virtus.cli.domain, virtus.report.meter
import zstandard, lz4.frame, lz4.block, lzma, bz2, zlib, hashlib, json
import encodings.ascii, encodings.latin_1, encodings.idna, ctypes, mmap, select, threading, subprocess
import importlib.metadata, rich.console, rich.table, multiprocessing
from virtus.techniques.registry import get
for name in ("hvm", "paravirt", "emulation", "seccomp"):
    get(name)
for module in list(sys.modules.values()):
    path = getattr(module, "__file__", None)
    if path:
        print(path)
"""
SCRIPT: Final = """
export PATH=/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONHOME={prefix} PYTHONPATH={paths}
mkdir -p /lib64; ln -sf {loader} {loader_name}
mkdir -p -m 700 /tmp/run; export XDG_RUNTIME_DIR=/tmp/run
ip link set lo up
stty -echo -onlcr </dev/console
echo {prompt}
while read -r line; do eval "$line"; echo "{prompt} $?"; done </dev/console
"""


def libraries(path: str) -> set[str]:
    shown = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    return {word for line in shown.splitlines() for word in line.split() if word.startswith("/")}


def _closure() -> dict[str, Path]:
    """Every file that Python needs to run virtus, by its place."""
    done = subprocess.run([sys.executable, "-P", "-c", CLOSURE], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    program = os.path.realpath(sys.executable)
    objects = {program, *(path for path in found if path.endswith(".so"))}
    for path in objects:
        found |= libraries(path)
    found.add(program)
    found |= {str(path) for path in Path(virtus.__file__).parent.rglob("*.py")}
    return {path.lstrip("/"): Path(path) for path in found if os.path.exists(path)}


class NestedHost:
    """The host, running: `run` has it do a shell command."""

    def __init__(
        self,
        place: Path,
        files: dict[str, Path] | None = None,
        *,
        processors: int = 1,
        memory: str = MEMORY,
        modules: Sequence[str] = (),
    ) -> None:
        qemu = shutil.which("qemu-system-x86_64")
        if qemu is None:
            pytest.skip("no host with SVM: qemu-system-x86_64 is not installed (Debian: qemu-system-x86)")
        kernel = kernels.kernel()
        wanted = [kernel / f"{name}.ko" for name in ("irqbypass", "kvm", "kvm-amd", *modules)]
        if not (kernel / "kvm-amd.ko").exists():
            pytest.skip("Debian's kernel has no module kvm-amd")
        own = _closure()
        loader = next(name for name in own if "ld-linux" in name)
        paths = [path for path in sys.path if path and os.path.isdir(path)]
        script = SCRIPT.format(
            prefix=sys.base_prefix, paths=":".join(paths), prompt=PROMPT.decode(),
            loader=os.path.realpath("/" + loader), loader_name="/lib64/ld-linux-x86-64.so.2",
        )  # fmt: skip
        own = {name: path for name, path in own.items() if not name.startswith("lib64/")}
        real = os.path.realpath("/" + loader)
        own[real.lstrip("/")] = Path(real)
        own["bin/python3"] = Path(os.path.realpath(sys.executable))
        own["guest/vmlinuz"] = kernel / "vmlinuz"
        image = kernels.ramdisk(
            script, place / "nested.img", *(one for one in wanted if one.exists()), files={**own, **(files or {})}
        )
        self._process = subprocess.Popen(
            [
                qemu, "-accel", "tcg", "-cpu", "EPYC", "-m", memory, "-smp", str(processors), "-nodefaults",
                "-nographic", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel / "vmlinuz"),
                "-initrd", str(image), "-append", "console=ttyS0 quiet mitigations=off panic=-1",
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._shown = b""
        try:
            self._until(PROMPT, BOOT_S)
        except BaseException:
            self.close()
            raise

    def _until(self, words: bytes, seconds: float) -> bytes:
        """What is shown up to these words, which are dropped."""
        assert self._process.stdout is not None
        deadline, fd = time.monotonic() + seconds, self._process.stdout.fileno()
        while words not in self._shown:
            left = deadline - time.monotonic()
            if left < 0 or not select.select([fd], [], [], left)[0]:
                raise TimeoutError(f"the nested host says no more: {self._shown[-2000:]!r}")
            data = os.read(fd, 1 << 16)
            if not data:
                raise EOFError(f"the nested host has ended: {self._shown[-2000:]!r}")
            self._shown += data
        before, _, self._shown = self._shown.partition(words)
        return before

    def run(self, command: str, seconds: float = COMMAND_S) -> tuple[str, int]:
        """What a shell command shows, and its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        shown = self._until(PROMPT + b" ", seconds)
        status = self._until(b"\n", 10)
        return shown.decode(errors="replace").replace("\r", ""), int(status)

    def virtus(self, words: str, seconds: float = COMMAND_S) -> tuple[str, int]:
        """The same for a command of virtus; standard input is empty."""
        return self.run(f"python3 -P -m virtus {words} </dev/null 2>&1", seconds)

    def fetch(self, path: str) -> bytes:
        """A file of the host's."""
        return base64.b64decode(self.run(f"base64 {path}")[0])

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
