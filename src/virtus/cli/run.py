"""`virtus run`: one guest, in its box, under the technique that fits or the one that is asked for."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from virtus.errors import UsageError
from virtus.machine.meter import Report
from virtus.machine.spec import GuestSpec, Volume
from virtus.records import replace

if TYPE_CHECKING:
    from virtus.machine.machine_spec import MachineSpec

EXTRAS = {
    "emulation": (
        "translate", "cards", "printer", "punch", "keyboard", "tapes", "switches", "characters", "interpret", "trace",
        "gdb",
    ),
    "api-wrapper": ("trace",),
    "api-emulation": ("trace",),
}  # fmt: skip
"""What techniques take besides a box (GuestSpec.extra)."""


def box_options(function: Any) -> Any:
    """The options that say what box a guest gets; `virtus compare` takes them too."""
    for option in reversed(
        [
            click.option("--root", type=Path, default=Path("/"), metavar="DIR", help="The guest's root; default: /."),
            click.option("--volume", "volumes", multiple=True, metavar="SRC:DST[:ro]", help="Show a directory inside."),
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

    WITHOUT_VALUE: Final = {"--trace": "--trace=-"}

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
@click.option("--keep", type=Path, metavar="DIR", help="Keep the guest's changes to its root in DIR.")
@click.option("--meter", is_flag=True, help="Show what the run cost, on standard error.")
@click.option("--meter-json", type=Path, metavar="FILE", help="Write what the run cost to FILE.")
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
def command(
    technique: str | None,
    meter: bool,
    meter_json: Path | None,
    translate_only: bool,
    trace: str | None,
    explain: bool,
    gdb: str | None,
    memory: str,
    cpus: int,
    initrd: Path | None,
    append: str,
    disks: tuple[str, ...],
    cdrom: Path | None,
    floppy: Path | None,
    name: str,
    console: str | None,
    bios: str | None,
    depth: int | None,
    **box: Any,
) -> int:
    """Run GUEST, a program file or a command's name, and exit as it does.

    The guest sees the host's files, but its changes go to a layer that is thrown away; it has no network.
    A kernel, or the image of a disk or a CD, gets a machine of its own; its --net is none, switch:NAME or tap:IF.
    """
    extra = {"translate": "only" if translate_only else None, "trace": trace, "gdb": gdb}
    spec = make_spec(**box, extra={name: value for name, value in extra.items() if value is not None})
    from virtus.techniques import choose

    guest = choose.guest_of(spec)
    if explain:
        from virtus.techniques import explaining

        lines, status = explaining.explain(guest, technique)
        click.echo("\n".join(lines))
        return status
    if choose.is_system(guest):
        from virtus.machine.machine_spec import MachineSpec, parse_disk, parse_memory

        machine = MachineSpec(
            kernel=Path(spec.argv[0]),
            initrd=initrd,
            append=" ".join([append, *spec.argv[1:]]).strip(),
            memory=parse_memory(memory),
            cpus=cpus,
            disks=[parse_disk(word) for word in disks],
            cdrom=cdrom,
            floppy=floppy,
            net=spec.net,
            name=name,
            extra={
                option: str(value)
                for option, value in (("depth", depth), ("console", console), ("bios", bios))
                if value is not None
            },
        )
        report = boot(machine, technique or choose.technique_for(guest))
    else:
        if choose.is_deck(guest):
            spec = replace(spec, argv=spec.argv[:1], extra={**spec.extra, **deck_options(box["arguments"])})
        report = run_spec(spec, technique, metered=meter or meter_json is not None)
    if meter_json is not None:
        try:
            meter_json.write_text(json.dumps(report.as_json(), indent=1) + "\n")
        except OSError as error:
            raise UsageError("writing --meter-json", str(error)) from error
    if meter:
        from virtus.report.meter import show

        show(report)
    elif report.status and choose.is_system(guest):
        for note in report.notes:  # why a machine ended that did not power off
            click.echo(f"virtus: {note}", err=True)
    return report.status


def deck_options(arguments: tuple[str, ...]) -> dict[str, str]:
    """What follows an IBM 7070 program: words for its machine, not for itself."""
    from virtus.cli import deck

    return deck.extra(arguments)


def boot(machine: "MachineSpec", technique: str) -> Report:
    """A machine of its own for a kernel."""
    from virtus.techniques import registry

    boots: Any = getattr(registry.get(technique), "boot", None)
    if boots is None:
        raise UsageError(f"booting {machine.kernel}", f"{technique} runs programs, no kernels", "leave --with away")
    report: Report = boots(machine)
    return report


def run_spec(spec: GuestSpec, technique: str | None, *, metered: bool = False) -> Report:
    """Identify the guest, choose its technique unless one is given, and run it to its end."""
    from virtus.techniques import choose

    if spec.net not in ("none", "host"):
        raise UsageError("reading --net", f"{spec.net!r} is not for programs", "write none or host")
    guest = choose.guest_of(spec)
    fitting = choose.fitting(guest, technique)
    unknown = sorted(set(spec.extra) - set(EXTRAS.get(fitting.name, ())))
    if unknown:
        raise UsageError(f"running {spec.argv[0]}", f"{fitting.name} has no option for: {', '.join(unknown)}")
    return fitting.run(spec, meter=metered)


def make_spec(
    guest: str,
    arguments: tuple[str, ...],
    root: Path,
    volumes: tuple[str, ...],
    net: Any,
    hostname: str,
    user: int | None,
    environment: tuple[str, ...],
    keep: Path | None = None,
    extra: dict[str, str] | None = None,
) -> GuestSpec:
    """A GuestSpec from command-line words; raises UsageError."""
    env = dict(os.environ)
    for word in environment:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError("reading --env", f"{word!r} is not of the form K=V")
        env[key] = value
    return GuestSpec(
        argv=[guest, *arguments],
        env=env,
        root=root,
        volumes=[parse_volume(word) for word in volumes],
        net=net,
        hostname=hostname,
        user=user,
        keep=keep,
        extra=extra or {},
    )


def parse_volume(word: str) -> Volume:
    """SRC:DST[:ro]; raises UsageError."""
    parts = word.split(":")
    read_only = len(parts) == 3 and parts[2] == "ro"
    if len(parts) not in (2, 3) or not all(parts) or (len(parts) == 3 and not read_only):
        raise UsageError("reading --volume", f"{word!r} is not of the form SRC:DST[:ro]")
    if not parts[1].startswith("/"):
        raise UsageError("reading --volume", f"{parts[1]!r} inside the guest is not absolute")
    return Volume(Path(parts[0]).absolute(), parts[1], read_only)
