"""`virtus techniques`: the table of techniques."""

import json

import click

WIDE = 110
"""Columns of the terminal from which on there is room for a sentence."""


@click.command(epilog="Example: virtus techniques --json")
@click.option("--json", "as_json", is_flag=True, help="Plain data for scripts.")
def command(as_json: bool) -> None:
    """List the techniques with the paper's section, vCPU and personality, and whether they work here."""
    from virtus.techniques.registry import ROWS

    found = [(row, row.probe()) for row in ROWS]
    if as_json:
        rows = [
            {
                "name": row.name, "section": row.section, "vcpu": row.vcpu, "personality": row.personality,
                "summary": row.summary, "works": state.works, "reason": state.reason, "remedy": state.remedy,
            }
            for row, state in found
        ]  # fmt: skip
        click.echo(json.dumps(rows, indent=1))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    wide = console.width >= WIDE
    title = "A vCPU runs the instructions, a personality answers what they cannot do alone"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in ("technique", "§", "vCPU", "personality", *(("what it is",) if wide else ()), "here"):
        table.add_column(heading, no_wrap=heading == "technique")
    for row, state in found:
        colour, here = ("green", "works") if state.works else ("yellow", state.reason)
        summary = (row.summary,) if wide else ()
        table.add_row(row.name, row.section, row.vcpu, row.personality, *summary, f"[{colour}]{here}[/]")
    console.print(table)
    for row, state in found:
        if state.remedy:
            console.print(f"[yellow]{row.name}[/]: {state.remedy}", soft_wrap=True, highlight=False)
