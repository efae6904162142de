"""QEMU's own chips, asked through its test protocol (docs/devel/testing/qtest.rst); its processor is stopped.

So its virtual time stands still; what its disks do goes on.
"""

import shutil
import subprocess
from typing import Self

import pytest

PROGRAM = shutil.which("qemu-system-i386")
needs_qemu = pytest.mark.skipif(PROGRAM is None, reason="no qemu-system-i386")


class Qemu:
    """A machine "pc"."""

    def __init__(self, *options: str) -> None:
        assert PROGRAM is not None
        stopped = [PROGRAM, "-S", "-machine", "pc,accel=tcg"]
        command = [*stopped, "-display", "none", "-nodefaults", "-qtest", "stdio", *options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *found: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        while True:
            answer = self._process.stdout.readline()
            if not answer:
                raise EOFError("qemu-system-i386 has ended")
            if answer.startswith("OK"):
                return answer[2:].strip()

    def write(self, port: int, value: int, size: int = 1) -> None:
        """OUT."""
        self._ask(f"out{'bwl'[size >> 1]} {port:#x} {value:#x}")

    def read(self, port: int, size: int = 1) -> int:
        """IN."""
        return int(self._ask(f"in{'bwl'[size >> 1]} {port:#x}"), 16)

    def read_words(self, port: int, count: int) -> list[int]:
        """INS."""
        return [self.read(port, 2) for _ in range(count)]
