"""The documentation of the system calls is the table."""

from pathlib import Path

from virtus.personalities.linux import document

COMMITTED = Path(__file__).parents[2] / "docs" / "system-calls.md"


def test_the_committed_file_is_the_table() -> None:
    fresh = document.document()
    assert COMMITTED.read_text(encoding="utf-8") == fresh, "run: python -m virtus.personalities.linux.document"


def test_every_call_of_both_processors_has_an_answer() -> None:
    assert "Not in the table" not in document.document()
