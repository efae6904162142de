"""The commands of `virtus` as click has them: each one's module is imported when it is asked for."""

import importlib
from typing import Any

import click

from virtus.cli import INTERRUPTED

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


def run(arguments: list[str] | None) -> int:
    """Run a command line, and its exit status: the guest's, 2 for usage. Raises VirtusError."""
    try:
        result: Any = group.main(arguments, prog_name="virtus", standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return result if isinstance(result, int) else 0
