"""The guests of the emulation benchmark, built for riscv64 and, from the same sources, for the host.

usage: python -m benchmarks.emulated_programs [NAME...]

Builds all (or those named) and prints their paths. Sources are `programs/` beside this file, and libraries by others
out of packages of registries: Lua from PyPI's lupa, Zstandard from PyPI's zstandard, SQLite from npm's better-sqlite3.
The compiler is Zig's C compiler (PyPI's ziglang) for musl, static. What is built lies in the user's cache.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from benchmarks import workloads

Machine = Literal["riscv64", "x86_64"]

HERE: Final = Path(__file__).parent / "programs"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "virtus-benchmarks"
ZIGLANG: Final = "0.17.1"
ZSTANDARD: Final = "0.25.0"
BETTER_SQLITE3: Final = "12.11.1"
RUFF: Final = "0.17.6"
WHEELS: Final[dict[Machine, tuple[str, ...]]] = {
    "riscv64": ("manylinux_2_31_riscv64", "manylinux_2_39_riscv64"),
    "x86_64": ("manylinux_2_17_x86_64", "manylinux2014_x86_64"),
}
"""Platform tags of wheels (PEP 600)."""


class NotBuildable(Exception):
    """A guest cannot be had here; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program of our own source and others' libraries; without a source, of these alone."""

    source: str
    libraries: tuple[str, ...] = ()
    system: str = "linux-musl"
    machines: tuple[Machine, ...] = ("riscv64", "x86_64")


PROGRAMS: Final = {
    "hello": Program("hello.c"),
    "fib": Program("fib.c"),
    "sieve": Program("sieve.c"),
    "matmul": Program("matmul.c"),
    "sha256": Program("sha256.c"),
    "bytecode": Program("bytecode.c"),
    "coremark_like": Program("coremark_like.c"),
    "lua_mix": Program("lua_mix.c", ("lua",)),
    "zstandard": Program("zstandard.c", ("zstd",)),
    "database": Program("database.c", ("sqlite",)),
    "lua": Program("", ("lua", "lua-program")),
    "interpreted": Program("interpreted.c", (), "freestanding", ("riscv64",)),
    "toolbox": Program("toolbox.c", ("lua", "lua-part", "sqlite", "zstd")),
}
STEADY: Final = {
    "fib": 15,
    "sieve": 90,
    "matmul": 75,
    "sha256": 100,
    "bytecode": 40,
    "coremark_like": 90,
    "lua_mix": 20,
    "zstandard": 35,
    "database": 20,
}
"""Programs that repeat their work and say what each round took (programs/rounds.h), with rounds for some seconds."""


def build(name: str, machine: Machine = "riscv64") -> Path:
    """The built program. Raises NotBuildable."""
    program = PROGRAMS[name]
    target = CACHE / machine / name
    own = [HERE / program.source] if program.source else []
    if target.exists() and all(path.stat().st_mtime <= target.stat().st_mtime for path in (*own, HERE / "rounds.h")):
        return target
    objects = [_object(library, machine) for library in program.libraries]
    folders = {LIBRARIES[library].sources() for library in program.libraries}
    _compile(machine, [*own, *objects], target, *(f"-I{folder}" for folder in sorted(folders)), system=program.system)
    return target


def fetched(package: str, version: str, fetch: Callable[[Path], None]) -> Path:
    """A package's unpacked files; `fetch` puts them into the directory it is given. Raises NotBuildable."""
    place = CACHE / f"{package}-{version}"
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            try:
                fetch(Path(directory))
            except (OSError, subprocess.CalledProcessError) as error:
                words = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
                raise NotBuildable(f"cannot fetch {package} {version}: {words[-1] if words else error}") from error
            try:
                Path(directory).rename(place)
            except OSError:
                if not place.exists():  # else somebody has fetched the same meanwhile
                    raise
            Path(directory).mkdir(exist_ok=True)  # for its removal
    return place


def ruff(machine: Machine = "riscv64") -> Path:
    """ruff as its authors build it: a large program in Rust, linked to glibc, from PyPI. Raises NotBuildable."""

    def fetch(place: Path) -> None:
        platforms = [word for tag in WHEELS[machine] for word in ("--platform", tag)]
        _pip("download", "--no-deps", "--only-binary", ":all:", *platforms, "--dest", str(place), f"ruff=={RUFF}")
        with zipfile.ZipFile(next(place.glob("*.whl"))) as archive:
            archive.extractall(place)
        for program in place.glob("*.data/scripts/*"):
            program.chmod(0o755)

    return next(fetched(f"ruff-{machine}", RUFF, fetch).glob("*.data/scripts/ruff"))


def lua_sources() -> Path:
    """Lua 5.4, with its own tests in `testes`. Raises NotBuildable."""
    try:
        workloads.compile_lua()
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotBuildable(f"cannot fetch lupa {workloads.LUPA}: {error}") from error
    return next(path.parent for path in workloads.CACHE.rglob("lapi.c") if path.parent.name == "lua54")


def _zstd_sources() -> Path:
    def fetch(place: Path) -> None:
        _pip("download", "--no-deps", "--no-binary", ":all:", "--dest", str(place), f"zstandard=={ZSTANDARD}")
        _unpack(next(place.glob("*.tar.gz")), place)

    return next(fetched("zstandard", ZSTANDARD, fetch).glob("*/zstd"))


def _sqlite_sources() -> Path:
    def fetch(place: Path) -> None:
        if shutil.which("npm") is None:
            raise NotBuildable("SQLite's sources come from the npm package better-sqlite3: npm is not installed")
        command = ["npm", "pack", "--silent", f"better-sqlite3@{BETTER_SQLITE3}"]
        subprocess.run(command, check=True, cwd=place, capture_output=True)
        _unpack(next(place.glob("*.tgz")), place)

    return fetched("better-sqlite3", BETTER_SQLITE3, fetch) / "package/deps/sqlite3"


@dataclass(frozen=True, slots=True)
class Library:
    """A file of others' sources that is compiled by itself."""

    sources: Callable[[], Path]
    file: str
    options: tuple[str, ...] = ()


LIBRARIES: Final = {
    "lua": Library(lua_sources, "onelua.c", ("-DMAKE_LIB", "-DLUA_USE_POSIX")),
    "lua-program": Library(lua_sources, "lua.c", ("-DLUA_USE_POSIX",)),
    "lua-part": Library(lua_sources, "lua.c", ("-DLUA_USE_POSIX", "-Dmain=lua_main")),
    "sqlite": Library(_sqlite_sources, "sqlite3.c", ("-DSQLITE_THREADSAFE=0", "-DSQLITE_OMIT_LOAD_EXTENSION")),
    "zstd": Library(_zstd_sources, "zstd.c"),
}


def _object(name: str, machine: Machine) -> Path:
    library = LIBRARIES[name]
    target = CACHE / machine / f"{name}.o"
    if not target.exists():
        _compile(machine, [library.sources() / library.file], target, "-c", *library.options)
    return target


def _compile(machine: Machine, inputs: list[Path], target: Path, *options: str, system: str = "linux-musl") -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{os.getpid()}.{target.name}")
    target_options = ["-target", f"{machine}-{system}"]
    if machine == "x86_64":
        target_options.append("-mcpu=native")  # has fused multiplication and addition, as riscv64: the same results
    command = [sys.executable, "-m", "ziglang", "cc", *target_options, "-O2", "-g0", "-static", "-w"]
    command += ["-o", str(unfinished)]
    environment = {**os.environ, "PYTHONPATH": str(_zig())}
    done = subprocess.run([*command, *map(str, inputs), *options], capture_output=True, env=environment, check=False)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise NotBuildable(f"cannot compile {target.name}: {next((w for w in words if 'error' in w), words[-1:])}")
    unfinished.rename(target)


@cache
def _zig() -> Path:
    """Where the module `ziglang` is."""

    def fetch(place: Path) -> None:
        _pip("install", "--no-deps", "--target", str(place), f"ziglang=={ZIGLANG}")

    return fetched("ziglang", ZIGLANG, fetch)


def _pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *words, "--quiet"], check=True, capture_output=True)


def _unpack(archive: Path, place: Path) -> None:
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(place)], check=True, capture_output=True)
    archive.unlink()


def main() -> None:
    for name in sys.argv[1:] or PROGRAMS:
        for machine in PROGRAMS[name].machines:
            try:
                print(build(name, machine))
            except NotBuildable as error:
                print(f"{name} for {machine}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
