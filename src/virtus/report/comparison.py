"""A comparison as a table for the terminal."""

from typing import Any

from rich.table import Table
from rich.text import Text


def table(comparison: Any) -> Table:
    """The table of a `virtus.comparison.compare.Comparison`."""
    rounds = "one run" if comparison.rounds == 1 else f"{comparison.rounds} runs"
    shown = Table(title=f"{' '.join(comparison.guest)[:70]}   ({rounds} each, medians)")
    shown.add_column("run by")
    headings = (
        "wall s",
        "CPU s",
        f"x {comparison.reference}",
        "min-max",
        "exits/s",
        "switches/call",
        "processes",
        "output",
    )
    for heading in headings:
        shown.add_column(heading, justify="right")
    for result in comparison.results:
        good = result.same_output
        shown.add_row(
            result.name,
            f"{result.wall_s:.3f}",
            f"{result.cpu_s:.3f}",
            f"{result.ratio:.2f}",
            f"{result.ratio_min:.2f}-{result.ratio_max:.2f}",
            "-" if result.exits_per_s is None else f"{result.exits_per_s:,.0f}",
            "-" if result.switches_per_call is None else f"{result.switches_per_call:.2f}",
            str(result.processes),
            Text("same" if good else f"DIFFERS (status {result.status})", style="" if good else "bold red"),
        )
    return shown


def remarks(comparison: Any) -> list[str]:
    """What the table does not say."""
    lines = [f"not run: {name}: {reason}" for name, reason in comparison.missing]
    if comparison.calls:
        lines.append(f"The guest makes {comparison.calls:,} system calls; switches are the host's context switches.")
    lines += [f"{result.name}: {result.difference}" for result in comparison.results if result.difference]
    for result in comparison.results:
        lines += [f"{result.name}: {line}" + (f" ({n} times)" if n > 1 else "") for line, n in result.notes.items()]
    return lines
