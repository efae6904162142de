"""GDB itself as the client: `gdb-multiarch` in batch mode on a program under the interpreter."""

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.debug.interpreted import command
from tests.emulation.guests import build_text
from tests.guest_runs import need
from virtus.machine.debug.packets import Control, Decoder, encode

GDB: Final = "gdb-multiarch"
START_S: Final = 20
TIMEOUT_S: Final = 60
_WAITING: Final = re.compile(r"waiting for gdb on (\S+)\n")


class Guest:
    """A guest that waits for GDB at `where`; `output` is what it has printed, once it has ended."""

    def __init__(self, program: Path, *words: str, where: str = "0") -> None:
        need("emulation")
        self.process = subprocess.Popen(
            command(program, *words, options=("--gdb", where)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = _WAITING.fullmatch(line)
        assert found is not None, line
        self.where = found[1]

    def end(self) -> tuple[str, int]:
        """Wait for its end: what it printed, and its exit status."""
        output, errors = self.process.communicate(timeout=TIMEOUT_S)
        assert not errors, errors
        return output, self.process.returncode


@contextmanager
def guest(program: Path, *words: str, where: str = "0") -> Iterator[Guest]:
    """A guest, which is gone afterwards."""
    made = Guest(program, *words, where=where)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.communicate()


def gdb(where: str, *commands: str, interrupt_after: float | None = None) -> str:
    """What GDB prints; skips where it is missing. It may be interrupted, as by Ctrl-C, after some seconds."""
    if shutil.which(GDB) is None:
        pytest.skip(f"{GDB} is not installed (Debian: gdb-multiarch)")
    setup = ("set debuginfod enabled off", "set pagination off", "set width 0", f"target remote {where}")
    words = [word for line in (*setup, *commands) for word in ("-ex", line)]
    process = subprocess.Popen(
        [GDB, "-nx", "-batch", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        if interrupt_after is not None:
            time.sleep(interrupt_after)
            process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    return output


def program(text: str, *options: str, dynamic: bool = False) -> Path:
    """A program with what GDB needs to know of it."""
    return build_text(text, "-g", *options, level="-O0", dynamic=dynamic)


class Client:
    """A client that sends what a test wants."""

    def __init__(self, where: str) -> None:
        if "/" in where:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(where)
        else:
            host, port = where.split(":")
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(START_S)
        self._decoder = Decoder()
        self._found: list[bytes | Control] = []

    def send(self, data: bytes) -> None:
        """As it is."""
        self.socket.sendall(data)

    def receive(self) -> bytes | Control | None:
        """The next packet or control; None when the other side has hung up."""
        while not self._found:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._found += self._decoder.feed(data)
        return self._found.pop(0)

    def ask(self, request: bytes) -> bytes | None:
        """Send a packet; the packet that answers it."""
        self.send(encode(request))
        while not isinstance(answer := self.receive(), bytes | None):
            pass
        return answer

    def close(self) -> None:
        """Hang up."""
        self.socket.close()
