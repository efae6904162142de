"""Where the documents hold what the benchmarks measured: between two marks, made anew by the command named there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[1] / "docs"
END: Final = "<!-- end of figures -->"
"""The second mark, the same for all."""


@dataclass(frozen=True)
class Published:
    """What `python -m benchmarks.NAME --document` writes, and where: between a mark that names it, and `END`."""

    document: Path
    benchmark: str

    @property
    def begin(self) -> str:
        """The first mark, once in the document."""
        return f"<!-- figures: python -m benchmarks.{self.benchmark} -->"

    def put(self, text: str) -> None:
        """Put `text` in the place of what stands between the marks. Raises ValueError when a mark is missing."""
        written = self.document.read_text()
        before, first, rest = written.partition(self.begin)
        _, second, after = rest.partition(END)
        if not first or not second:
            raise ValueError(f"{self.document} has no {END if first else self.begin}: put both marks there")
        self.document.write_text(f"{before}{first}\n\n{text}\n\n{second}{after}")
