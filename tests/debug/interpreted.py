"""Programs for riscv64 under the interpreter, with what a user may ask for besides: a trace, GDB.

python -m tests.debug.interpreted [--trace FILE] [--gdb WHERE] PROGRAM WORDS...
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.emulation.guests import ENVIRONMENT
from virtus.machine.spec import GuestSpec
from virtus.personalities.linux.kernel import Kernel


def command(program: Path, *words: str, options: tuple[str, ...] = ()) -> list[str]:
    """The command that runs this module."""
    return [sys.executable, "-m", __name__, *options, str(program), *words]


def run(
    program: Path, *words: str, options: tuple[str, ...] = (), timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """A program's run, to its end."""
    return subprocess.run(
        command(program, *words, options=options),
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=Path(__file__).parent.parent.parent,
    )


def main() -> int:
    """Run what the command line says, and exit as it does."""
    from virtus.isa.riscv64 import RISCV64
    from virtus.machine.debug.request import Request
    from virtus.techniques import user_mode_kernel
    from virtus.techniques.emulation import MACHINE, sysroots
    from virtus.vcpus.foreign import CallConvention

    parser = argparse.ArgumentParser()
    parser.add_argument("--trace")
    parser.add_argument("--gdb")
    parser.add_argument("argv", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    request = Request(RISCV64, CallConvention(number=17, first=10), trace=asked.trace, gdb=asked.gdb)
    spec = GuestSpec(argv=asked.argv, env=dict(ENVIRONMENT))

    def attach(kernel: Kernel, vcpu: Any) -> Any:
        kernel.sysroots = sysroots(spec)
        request.attach(kernel, vcpu)
        return vcpu.figures

    return user_mode_kernel.run("emulation", request.vcpu, spec, machine=MACHINE, attach=attach).status


if __name__ == "__main__":
    sys.exit(main())
