"""Programs behave under the interpreter as they do on Linux: what they print, and how they end."""

import pytest

from tests.debug.interpreted import run
from tests.emulation import guests
from tests.emulation.guests import SYSROOT, WORDS, build, expected
from tests.guest_runs import need

LONG = {"exceptions": "about 90 million instructions"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in guests.names() if name not in LONG])
def test_a_static_program(name: str) -> None:
    need("emulation")
    done = run(build(name), *WORDS.get(name, ()))
    assert (done.stdout, done.returncode) == (expected(name).stdout, expected(name).status), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["threads", "signals"])
def test_a_dynamic_program(name: str) -> None:
    need("emulation")
    if not SYSROOT.is_dir():
        pytest.skip(f"no {SYSROOT} (Debian: libc6-riscv64-cross)")
    done = run(build(name, dynamic=True))
    assert (done.stdout, done.returncode) == (expected(name).stdout, expected(name).status), done.stderr
