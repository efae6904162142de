"""The command `virtus`: finds the subcommand's module when it is asked for, and tells errors in one line."""

import atexit
import importlib
import os
import sys
import threading
from typing import Any

import click

from virtus.errors import VirtusError

COMMANDS = {
    "run": "Run a guest; pick the technique that fits it.",
    "compare": "Run a guest under every technique, and show what each costs.",
    "domain": "List and control the machines that run: pause, resize, look at their console, end them.",
    "techniques": "List the techniques: what they are, and whether they work here.",
    "explain": "Show what a technique is made of, and where each part is.",
    "doctor": "Say what this host offers, and how to get what it lacks.",
}


class _Late(click.Group):
    """Imports a command's module only when it runs: the list of commands starts in a few milliseconds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"virtus.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=_Late,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  virtus run -- make -j2              in a throw-away layer, without network
  virtus run --with uml-skas -- ls -l under a kernel in user space
  virtus compare -- python3 -m compileall -q .
  virtus doctor""",
)
@click.version_option(package_name="virtus")
def group() -> None:
    """Run any guest under any virtualization technique, and see what it costs."""


def command(arguments: list[str] | None = None) -> int:
    """Run a command line: the exit status, the guest's, or 126/127 as shells use them, 2 for usage, 1 for the rest."""
    try:
        result: Any = group.main(arguments, prog_name="virtus", standalone_mode=False)
    except VirtusError as error:
        click.echo(f"virtus: {error}", err=True)
        return error.exit_status
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return result if isinstance(result, int) else 0


def main() -> None:
    """The console script: `command`, and an end that does not take apart what is gone with the process anyway."""
    status = command()
    if threading.active_count() > 1:
        sys.exit(status)
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1  # nobody reads it any more
    os._exit(status)
