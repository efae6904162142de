"""Running guests from tests: the command line as a user types it, with a bound on its time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtus.techniques import registry

TECHNIQUES = ("seccomp", "uml-skas", "uml-tt")
"""Every technique for Linux programs: what is asked of one is asked of all."""
TIMEOUT_S = 60
PYTHON = sys.executable

_works: dict[str, str] = {}


def need(technique: str) -> None:
    """Skip, with the reason, where a technique does not work on this host."""
    if technique not in _works:
        state = registry.get(technique).probe()
        _works[technique] = "" if state.works else state.reason
    if _works[technique]:
        pytest.skip(f"{technique} does not work here: {_works[technique]}")


def virtus(
    *words: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`virtus WORDS...`: its output and exit status."""
    command = [PYTHON, "-m", "virtus", *map(str, words)]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(
        command, input=stdin, capture_output=True, timeout=TIMEOUT_S, env=environment, cwd=cwd, check=False
    )


def guest(
    technique: str, *argv: str | Path, options: tuple[str | Path, ...] = (), stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a guest under a technique."""
    return virtus("run", "--with", technique, *options, "--", *argv, stdin=stdin)


def python_guest(technique: str, program: str, *arguments: str, options: tuple[str | Path, ...] = ()) -> str:
    """Run a Python program as the guest; what it prints. Fails with its error output when it fails."""
    done = guest(technique, PYTHON, "-I", "-c", program, *arguments, options=options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()
