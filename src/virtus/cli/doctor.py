"""`virtus doctor`: what this host offers, and how to get what it lacks."""

import json
from dataclasses import asdict

import click


@click.command(epilog="Example: virtus doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Plain data for scripts.")
def command(as_json: bool) -> None:
    """Say what this host offers to guests, how to get what it lacks, and which peers are installed."""
    from virtus.host import probe

    found = probe.findings()
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What this host offers")
    for heading in ("", "found", "needed by", "how to get it"):
        table.add_column(heading)
    for finding in found:
        colour = "green" if finding.there else "yellow"
        detail = f"[{colour}]{'yes' if finding.there else 'no'}[/]: {finding.detail}"
        table.add_row(finding.name, detail, finding.needed_by, finding.remedy)
    Console().print(table)
