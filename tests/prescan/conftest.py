"""What most tests of scanned code begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prescan.machines import Boot, TestMachine, assemble


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Machines of assembly, closed at the end."""
    machines: list[TestMachine] = []

    def start(source: str, depth: int = 12) -> TestMachine:
        machine = TestMachine(assemble(source, tmp_path), depth)
        machines.append(machine)
        return machine

    yield start
    for machine in machines:
        machine.close()
