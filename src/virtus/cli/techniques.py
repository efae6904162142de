"""`virtus techniques`: the table of techniques."""

import json

import click


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
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Techniques: a vCPU runs the instructions, a personality answers for the rest")
    for heading in ("technique", "section", "vCPU", "personality", "what it is", "here"):
        table.add_column(heading)
    for row, state in found:
        here = "[green]works[/]" if state.works else "; ".join(filter(None, (state.reason, state.remedy)))
        table.add_row(row.name, row.section, row.vcpu, row.personality, row.summary, here)
    Console().print(table)
