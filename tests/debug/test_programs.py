"""Programs behave under the interpreter as they do on Linux: what they print, and how they end."""

from pathlib import Path

import pytest

from tests.debug.gdb import Client, guest
from tests.emulation import guests
from tests.emulation.guests import SYSROOT, WORDS, Outcome, build, expected

LONG = {"exceptions": "about 90 million instructions"}


def outcome(program: Path, *words: str) -> Outcome:
    """Of a program that GDB has let go at its first instruction."""
    with guest(program, *words) as found:
        client = Client(found.where)
        assert client.ask(b"D") == b"OK"
        client.close()
        return Outcome(*found.end())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in guests.names() if name not in LONG])
def test_a_static_program(name: str) -> None:
    assert outcome(build(name), *WORDS.get(name, ())) == expected(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["threads", "signals"])
def test_a_dynamic_program(name: str) -> None:
    if not SYSROOT.is_dir():
        pytest.skip(f"no {SYSROOT} (Debian: libc6-riscv64-cross)")
    assert outcome(build(name, dynamic=True)) == expected(name)
