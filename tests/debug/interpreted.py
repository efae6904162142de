"""Programs for riscv64 under the interpreter, with what a user may ask for: a trace, GDB."""

import subprocess
import sys
from pathlib import Path

from tests.emulation.guests import ENVIRONMENT


def command(program: Path, *words: str, options: tuple[str, ...]) -> list[str]:
    """The command that runs it."""
    environment = [word for key, value in ENVIRONMENT.items() for word in ("--env", f"{key}={value}")]
    virtus = [sys.executable, "-m", "virtus", "run", "--with", "emulation"]
    return [*virtus, *environment, *options, "--", str(program), *words]


def run(program: Path, *words: str, options: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """A program's run, to its end."""
    return subprocess.run(
        command(program, *words, options=options),
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
