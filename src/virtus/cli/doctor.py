"""`virtus doctor`: what this host offers, and how to get what it lacks."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from virtus.host.probe import Finding


@click.command(epilog="Example: virtus doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Plain data for scripts.")
def command(as_json: bool) -> None:
    """Say what this host offers to guests, how to get what it lacks, and which peers are installed."""
    from virtus.host import probe

    found = [*probe.findings(), *_peers()]
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=1))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What this host offers", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("", "", "found", "needed by"):
        table.add_column(heading)
    for finding in found:
        mark = "[green]yes[/]" if finding.there else "[yellow]no[/]"
        table.add_row(finding.name, mark, finding.detail, finding.needed_by)
    console = Console()
    console.print(table)
    for finding in found:
        if not finding.there:
            console.print(f"[yellow]{finding.name}[/]: {finding.remedy}", soft_wrap=True, highlight=False)


def _peers() -> "list[Finding]":
    from virtus.host.probe import Finding
    from virtus.techniques.peers.registry import PEERS

    states = [(peer, peer.probe()) for peer in PEERS if peer.package]
    return [
        Finding(peer.name, state.works, state.reason or peer.summary, "virtus compare", state.remedy)
        for peer, state in states
    ]
