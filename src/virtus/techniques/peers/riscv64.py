"""How programs for riscv64 are run by others: QEMU, as its user types it, and Unicorn, by a runner of ours."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from virtus.machine.spec import GuestSpec
from virtus.techniques.base import Availability

USUAL_SYSROOT: Final = "/usr/riscv64-linux-gnu"
"""Debian's libraries for riscv64 (libc6-riscv64-cross)."""


def qemu(spec: GuestSpec) -> list[str]:
    """qemu-riscv64 with libraries from where the technique looks for them, too."""
    environment = os.environ if spec.env is None else spec.env
    sysroot = environment.get("VIRTUS_SYSROOT") or USUAL_SYSROOT
    libraries = ["-L", sysroot] if Path(sysroot).is_dir() else []
    return ["qemu-riscv64", *libraries, *_found(spec)]


def unicorn(spec: GuestSpec) -> list[str]:
    """See unicorn_riscv64."""
    return [sys.executable, "-P", "-m", "virtus.techniques.peers.unicorn_riscv64", *_found(spec)]


def probe_unicorn() -> Availability:
    """Whether the library is there, without loading it."""
    if importlib.util.find_spec("unicorn") is None:
        return Availability(
            False, "the Python package unicorn is not installed", f"{sys.executable} -m pip install unicorn"
        )
    return Availability(True)


def _found(spec: GuestSpec) -> list[str]:
    """Neither looks a command up in PATH."""
    program, *arguments = spec.argv
    environment = os.environ if spec.env is None else spec.env
    return [shutil.which(program, path=environment.get("PATH")) or program, *arguments]
