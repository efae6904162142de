"""Programs for Windows that tests build from C, with a cross compiler where there is one."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

GUESTS: Final = Path(__file__).parent / "guests"
COMPILER: Final = "x86_64-w64-mingw32-gcc"


def build(name: str, directory: Path, *options: str) -> Path:
    """The program of `guests/NAME.c`; skips the test where there is no compiler."""
    if not shutil.which(COMPILER):
        pytest.skip(f"no {COMPILER} here")
    made = directory / f"{name}.exe"
    if not made.exists():
        command = [COMPILER, "-O1", "-w", "-o", str(made), str(GUESTS / f"{name}.c"), *options]
        subprocess.run(command, check=True, capture_output=True)
    return made
