"""Programs for riscv64 as guests of tests, built by Debian's cross compiler; what they are to print stands beside them.

`programs/NAME.c` (or `.cc`) prints the same wherever it runs; `programs/NAME.expected` has that, and its exit status.

    python -m tests.emulation.guests NAME...

builds programs and writes their `.expected` anew as qemu-riscv64 runs them, for those that QEMU runs as Linux does.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.guest_runs import need, virtus

PROGRAMS: Final = Path(__file__).parent / "programs"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "virtus-tests"
SYSROOT: Final = Path("/usr/riscv64-linux-gnu")
QEMU: Final = "qemu-riscv64"
PACKAGES: Final = {
    "riscv64-linux-gnu-gcc": "gcc-riscv64-linux-gnu libc6-dev-riscv64-cross",
    "riscv64-linux-gnu-g++": "g++-riscv64-linux-gnu",
    QEMU: "qemu-user",
}
NOT_IN_QEMU: Final = {
    "processes": "qemu-riscv64 executes foreign programs by the host's binfmt_misc alone, and forks for vfork",
    "memory": "qemu-riscv64 gives addresses that a processor with Sv39 does not have",
}
ENVIRONMENT: Final = {"VARIABLE": "value"}
WORDS: Final = {"registers": ("one", "two words")}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    stdout: str
    status: int


def need_program(name: str) -> None:
    """Skip where an outside program is missing, and say which package has it."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed (Debian: {PACKAGES[name]})")


def names() -> list[str]:
    """All test programs."""
    return sorted(path.stem for path in PROGRAMS.glob("*.c*"))


def build(name: str, *options: str, dynamic: bool = False) -> Path:
    """A test program, built once; skips without a compiler."""
    source = next(PROGRAMS.glob(f"{name}.c*"))
    return build_text(source.read_text(), *options, name=name, dynamic=dynamic, suffix=source.suffix)


def build_text(
    text: str, *options: str, name: str = "program", dynamic: bool = False, suffix: str = ".c", level: str = "-O2"
) -> Path:
    """A program from its source; skips without a compiler."""
    compiler = "riscv64-linux-gnu-g++" if suffix == ".cc" else "riscv64-linux-gnu-gcc"
    need_program(compiler)
    flags = (level, *(() if dynamic else ("-static",)), "-pthread", *options, "-lm")
    digest = hashlib.sha256("\0".join((text, suffix, *flags)).encode()).hexdigest()[:16]
    program = CACHE / digest / name
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        source, unfinished = (program.with_name(f"{name}.{os.getpid()}{end}") for end in (suffix, ""))
        source.write_text(text)
        words = [flag for flag in flags if not flag.startswith("-l")]
        libraries = [flag for flag in flags if flag.startswith("-l")]
        done = subprocess.run(
            [compiler, *words, "-o", str(unfinished), str(source), *libraries], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        source.unlink()
        unfinished.rename(program)
    return program


def expected(name: str) -> Outcome:
    """What a test program is to print, and its exit status."""
    text, _, status = (PROGRAMS / f"{name}.expected").read_text().rpartition("status ")
    return Outcome(text, int(status))


def emulated(
    program: Path, *words: str, options: tuple[str, ...] = (), stdin: bytes = b"", cwd: Path | None = None
) -> Outcome:
    """Run it under the technique; its error output is shown where the status is a failure of virtus's own."""
    need("emulation")
    box = ("--with", "emulation", *options)
    done = virtus("run", *box, "--", program, *words, stdin=stdin, env=dict(ENVIRONMENT), cwd=cwd)
    assert done.returncode != 125, done.stderr.decode()
    return Outcome(done.stdout.decode(errors="backslashreplace"), done.returncode)


def in_qemu(program: Path, *words: str, stdin: bytes = b"") -> Outcome:
    """Run it in qemu-riscv64; skips where it is missing."""
    need_program(QEMU)
    command = [QEMU, "-L", str(SYSROOT), str(program), *words]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, input=stdin, capture_output=True, env=environment, timeout=60, check=False)
    status = done.returncode
    return Outcome(done.stdout.decode(), status if status >= 0 else 128 - status)


def main() -> None:
    """Write what is expected."""
    for name in sys.argv[1:]:
        if name in NOT_IN_QEMU:
            print(f"{name}: {NOT_IN_QEMU[name]}", file=sys.stderr)
            continue
        outcome = in_qemu(build(name), *WORDS.get(name, ()))
        (PROGRAMS / f"{name}.expected").write_text(f"{outcome.stdout}status {outcome.status}\n")


if __name__ == "__main__":
    main()
