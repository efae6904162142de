"""The words that follow an IBM 7070 program on the command line: what its machine is equipped with."""

from typing import Any

import click

from virtus.errors import UsageError


@click.command(add_help_option=False)
@click.option("--cards", metavar="FILE", help="Cards for the reader; default: those behind the program in its deck.")
@click.option("--printer", metavar="FILE", help="Where printed lines go; default: standard output.")
@click.option("--punch", metavar="FILE", help="Where punched cards go.")
@click.option("--keyboard", metavar="FILE", help="Lines that are typed at the console typewriter.")
@click.option("--tape", "tapes", multiple=True, metavar="UNIT=FILE[:ro]", help="Mount a SIMH .tap file, as 10=F.tap.")
@click.option("--switch", "switches", multiple=True, type=click.IntRange(1, 4), help="Set an alteration switch.")
@click.option("--characters", type=click.Choice(["commercial", "scientific"]), default="commercial")
@click.option("--interpret", is_flag=True, help="Interpret instead of translating.")
@click.option("--trace", is_flag=True, help="Show each instruction on standard error.")
def options(**words: Any) -> dict[str, Any]:
    """Options of an IBM 7070."""
    return words


def extra(arguments: tuple[str, ...]) -> dict[str, str]:
    """As `GuestSpec.extra` has them; raises UsageError."""
    try:
        words: dict[str, Any] = options.main(list(arguments), standalone_mode=False)
    except click.ClickException as error:
        raise UsageError("reading what follows the deck", error.format_message(), "docs/ibm7070.md lists it") from error
    said = {name: value for name, value in words.items() if isinstance(value, str)}
    said["tapes"] = ",".join(words["tapes"])
    said["switches"] = ",".join(map(str, words["switches"]))
    said |= {name: "yes" for name in ("interpret", "trace") if words[name]}
    return {name: value for name, value in said.items() if value}
