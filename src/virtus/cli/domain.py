"""`virtus domain`: the machines that run, and what can be done with them from any terminal of their user's."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

UNITS: Final = 1 << 20


@click.group(
    epilog="""\b
Examples:
  virtus run --name blue --initrd initrd.img vmlinuz     in one terminal
  virtus domain list                                     in another
  virtus domain memory blue 128M
  virtus domain store blue ls device""",
)
def command() -> None:
    """List and control the machines that run: those of `virtus run KERNEL`, by their --name."""


def _ask(name: str, command: str, /, **words: Any) -> Any:
    from virtus.machine import control

    return control.ask(name, command, **words)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Plain data for scripts.")
def list_machines(as_json: bool) -> None:
    """Show the machines that run."""
    from virtus.errors import VirtusError
    from virtus.machine import control

    found = []
    for name in control.names():
        try:
            found.append(control.ask(name, "describe"))
        except VirtusError as error:  # it has just ended, or does not answer
            click.echo(f"virtus: {error}", err=True)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    if not found:
        click.echo("no machine is running")
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for heading in ("name", "technique", "state", "cpus", "memory", "cpu s", "up s", "pid"):
        table.add_column(heading, justify="left" if heading in ("name", "technique", "state") else "right")
    for one in found:
        memory = f"{one['memory'] // UNITS}M"
        table.add_row(
            one["name"], one["technique"], one["state"], str(one["processors"]), memory, f"{one['cpu_s']:.1f}",
            f"{one['up_s']:.0f}", str(one["pid"]),
        )  # fmt: skip
    Console().print(table)


def _simple(name: str, what: str) -> None:
    @command.command(name, help=what)
    @click.argument("name")
    def act(name: str, _command: str = name) -> None:
        _ask(name, _command)


_simple("pause", "Stop a machine's processors until `unpause`.")
_simple("unpause", "Let a paused machine go on.")
_simple("destroy", "End a machine at once, as a power cut would.")


@command.command()
@click.argument("name")
@click.option("--reboot", "how", flag_value="reboot", help="Reboot rather than power off.")
@click.option("--halt", "how", flag_value="halt", help="Halt rather than power off.")
def shutdown(name: str, how: str | None) -> None:
    """Ask a machine's system to shut down in order."""
    _ask(name, "shutdown", how=how or "poweroff")


@command.command()
@click.argument("name")
@click.argument("size")
def memory(name: str, size: str) -> None:
    """Have a machine's system give memory back, or take it again, until it has SIZE (at most its --memory)."""
    from virtus.machine.machine_spec import parse_size

    _ask(name, "memory", bytes=parse_size(size))


@command.command()
@click.argument("name")
@click.argument("file", type=Path)
def screenshot(name: str, file: Path) -> None:
    """Put what is on a PC's screen into FILE, as PNG."""
    width, height = _ask(name, "screenshot", path=str(file.absolute()))
    click.echo(f"{file}: {width} x {height} pixels")


@command.command()
@click.argument("name")
@click.argument("file", type=Path)
def save(name: str, file: Path) -> None:
    """Put a machine into FILE, and end it; `restore` goes on with it."""
    _ask(name, "save", path=str(file.absolute()))


@command.command()
@click.argument("file", type=Path)
def restore(file: Path) -> int:
    """Go on with a machine from FILE, on this terminal. Its disks must be as they were when it was saved."""
    from virtus.errors import GuestNotRunnable
    from virtus.machine.saved_machine import SavedMachine
    from virtus.techniques import registry

    saved = SavedMachine(file)
    saved.close()
    name = str(saved.known.get("technique"))
    restores: Any = getattr(registry.get(name), "restore", None) if name in registry.names() else None
    if restores is None:
        raise GuestNotRunnable(f"restoring from {file}", f"a machine of the technique {name!r}")
    status: int = restores(file).status
    return status


@command.command()
@click.argument("name")
@click.argument("processors", nargs=-1, required=True, type=click.IntRange(0))
def pin(name: str, processors: tuple[int, ...]) -> None:
    """Have a machine run on these processors of the host alone, counted from 0."""
    _ask(name, "pin", processors=processors)


@command.command()
@click.argument("name")
def console(name: str) -> None:
    """Take part in a machine's console, until Ctrl-] is typed."""
    import os

    from virtus.devices.console import ESCAPE
    from virtus.devices.raw_mode import RawMode
    from virtus.machine import control

    descriptor = sys.stdin.fileno()
    raw = RawMode(descriptor) if os.isatty(descriptor) else None
    try:
        control.attach(name, descriptor, sys.stdout.fileno(), ESCAPE)
    finally:
        if raw is not None:
            raw.leave()


@command.command()
@click.argument("name")
@click.argument("what", type=click.Choice(["ls", "read", "write", "rm"]))
@click.argument("path", default="")
@click.argument("value", default="")
def store(name: str, what: str, path: str, value: str) -> None:
    """Look into a paravirtual domain's xenstore, or change it. PATH is relative to the domain's own, or absolute."""
    answer = _ask(name, "store", what=what, path=path, value=value)
    if isinstance(answer, dict):
        for key, found in sorted(answer.items()):
            click.echo(f"{key} = {found!r}")
    elif answer is not None:
        click.echo(answer)
