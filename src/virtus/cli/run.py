"""`virtus run`: one guest, in its box, under the technique that fits or the one that is asked for."""

from pathlib import Path
from typing import Any, Final

import click

from virtus.cli import quick, running


def box_options(function: Any) -> Any:
    """The options that say what box a guest gets; `virtus compare` takes them too."""
    for option in reversed(
        [
            click.option("--root", default="/", metavar="DIR", help="The guest's root; default: /."),
            click.option(
                "--volume",
                "volumes",
                multiple=True,
                metavar="SRC:DST[:ro]",
                help="Show a directory inside; SRC:D: as a Windows program's drive.",
            ),
            click.option("--net", default="none", metavar="none|host", help="Network; default: none."),
            click.option("--hostname", default="virtus", metavar="NAME", help="Host name inside."),
            click.option("--user", type=click.IntRange(0), metavar="UID", help="User inside; default: you."),
            click.option("--env", "environment", multiple=True, metavar="K=V", help="Set a variable inside."),
        ]
    ):
        function = option(function)
    return function


class _Command(click.Command):
    """Takes options whose value may be left out, but not stand in a word of its own: that would be the guest."""

    WITHOUT_VALUE: Final = {quick.TRACE: f"{quick.TRACE}={quick.TRACE_HERE}"}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See Command. Completes these options, as far as the command's own options go."""
        with_value = {
            name
            for parameter in self.params
            if isinstance(parameter, click.Option) and not parameter.is_flag
            for name in parameter.opts
        }
        at = 0
        while at < len(args) and args[at].startswith("-") and args[at] != "--":
            word = args[at] = self.WITHOUT_VALUE.get(args[at], args[at])
            at += 2 if word in with_value else 1
        return super().parse_args(ctx, args)


@click.command(
    cls=_Command,
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    epilog="""\b
Examples:
  virtus run -- make                      changes to / are thrown away afterwards
  virtus run --keep out -- apt-get -y install hello
  virtus run --with uml-skas --meter -- python3 -c 'print(1)'
  virtus run --root ./debian --net host --volume $PWD:/src:ro -- bash""",
)
@click.option("--with", "technique", metavar="TECHNIQUE", help="Force a technique (see `virtus techniques`).")
@box_options
@click.option("--keep", metavar="DIR", help="Keep the guest's changes to its root in DIR.")
@click.option("--meter", is_flag=True, help="Show what the run cost, on standard error.")
@click.option("--meter-json", metavar="FILE", help="Write what the run cost to FILE.")
@click.option("--translate-only", is_flag=True, help="Of a program for another processor: translate it, for later.")
@click.option("--trace", metavar="[=FILE]", help="Likewise: show each instruction and call, or write it to =FILE.")
@click.option("--explain", is_flag=True, help="Run nothing: say what GUEST is, what it needs, and what is missing.")
@click.option("--gdb", metavar="PORT", help="Likewise: wait for GDB on this port of 127.0.0.1, or at a path with a /.")
@click.option("--memory", default="256M", metavar="SIZE", help="Of a kernel: its memory; default: 256M.")
@click.option("--cpus", default=1, type=click.IntRange(1), metavar="N", help="Of a kernel: its processors.")
@click.option("--initrd", type=Path, metavar="FILE", help="Of a kernel: its initial RAM disk.")
@click.option("--append", default="", metavar="WORDS", help="Of a kernel: its command line.")
@click.option(
    "--disk", "disks", multiple=True, metavar="FILE[,ro][,snapshot]", help="Of a kernel: a disk image, raw or .qcow2."
)
@click.option("--cdrom", type=Path, metavar="FILE", help="Of a PC: the CD in its drive.")
@click.option("--floppy", type=Path, metavar="FILE", help="Of a PC: the floppy disk in its drive.")
@click.option("--name", default="", metavar="NAME", help="Of a kernel: how `virtus domain` calls it.")
@click.option("--console", metavar="screen|serial", help="Of a PC: what your terminal is; default: what fits.")
@click.option("--bios", metavar="DIR|none", help="Of a PC: where a BIOS is; none: boot kernels without.")
@click.option(
    "--depth", type=click.IntRange(1), metavar="N", help="With prescan: branches that a scan follows at most."
)
@click.argument("guest")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(**values: Any) -> int:
    """Run GUEST, a program file or a command's name, and exit as it does.

    The guest sees the host's files, but its changes go to a layer that is thrown away; it has no network.
    A kernel, or the image of a disk or a CD, gets a machine of its own; its --net is none, switch:NAME or tap:IF.
    """
    return running.run(**values)
