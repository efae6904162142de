"""Whatever a guest passes to functions of files, pipes, consoles and jobs, it gets a result or its own fault."""

import sys
from pathlib import Path

import pytest

from tests.guest_runs import guest, need

pytestmark = pytest.mark.slow
HOME = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", range(4))
def test_any_arguments_are_answered(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a box, whose files are thrown away: some calls do change files with random names."""
    need("seccomp")
    monkeypatch.chdir(HOME)
    done = guest("seccomp", sys.executable, "-m", "tests.win32.hostile_calls", str(seed))
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"all answered\n"
