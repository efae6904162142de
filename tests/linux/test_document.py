"""The documentation of the system calls is the table."""

from pathlib import Path

from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux import document
from virtus.personalities.linux.table import TABLE

COMMITTED = Path(__file__).parents[2] / "docs" / "system-calls.md"


def test_the_committed_file_is_the_table() -> None:
    fresh = document.document()
    assert COMMITTED.read_text(encoding="utf-8") == fresh, "run: python -m virtus.personalities.linux.document"


def test_every_call_of_the_host_has_an_answer() -> None:
    document.document()
    assert sorted(set(NUMBERS) - set(TABLE)) == []
