"""`virtus compare`: the same guest under everything that can run it, side by side."""

import json
from pathlib import Path
from typing import Any

import click

from virtus.cli.run import box_options
from virtus.cli.running import make_spec
from virtus.errors import UsageError
from virtus.records import replace


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  virtus compare -- gcc -O1 -c lapi.c -o /dev/null
  virtus compare --with seccomp,proot --runs 9 -- ./my-tests
  virtus compare --json out.json --plot out.svg -- python3 -m compileall -q .

  virtus compare --native ./prog -- ./prog-riscv64
  virtus compare --initrd initrd.img --append quiet vmlinuz

Every run finds an empty directory in $VIRTUS_SCRATCH. native and proot work on the host's real files.""",
)
@click.option("--with", "wanted", metavar="T1,T2,...", help="Only these techniques and peers (and native).")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Counted runs of each.")
@click.option("--json", "json_file", type=Path, metavar="FILE", help="Write all figures to FILE.")
@click.option("--plot", "plot_file", type=Path, metavar="FILE.svg|png", help="Draw them.")
@click.option("--native", "native", metavar="PROG", help="The same program for the host, for a foreign GUEST.")
@click.option("--memory", default="256M", metavar="SIZE", help="Of a kernel: its memory; default: 256M.")
@click.option("--cpus", default=1, type=click.IntRange(1), metavar="N", help="Of a kernel: its processors.")
@click.option("--initrd", type=Path, metavar="FILE", help="Of a kernel: its initial RAM disk.")
@click.option("--append", default="", metavar="WORDS", help="Of a kernel: its command line.")
@click.option("--disk", "disks", multiple=True, metavar="FILE", help="Of a kernel: a disk image; it stays as it is.")
@box_options
@click.argument("guest")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    wanted: str | None,
    runs: int,
    json_file: Path | None,
    plot_file: Path | None,
    native: str | None,
    memory: str,
    cpus: int,
    initrd: Path | None,
    append: str,
    disks: tuple[str, ...],
    **box: Any,
) -> int:
    """Run GUEST under native, every technique and every peer that can, in turn, and show what each costs.

    A program for another processor has no native run, unless --native names the same for the host. A kernel, or the
    image of a disk or a CD, is booted by techniques that do so, and by QEMU, until it powers off.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from virtus.comparison.compare import Comparison, compare, compare_machines
    from virtus.machine.machine_spec import MachineSpec, parse_disk, parse_memory
    from virtus.report import comparison as shown
    from virtus.report import plot
    from virtus.techniques import choose, registry

    if plot_file is not None:
        plot.check(plot_file)
    spec = make_spec(**box)
    guest = choose.guest_of(spec)
    if not choose.is_system(guest):
        choose.technique_for(guest)
    if native is not None:
        other = choose.guest_of(replace(spec, argv=[native]))
        if not other.is_native:
            raise UsageError("reading --native", f"{native} is no program for this host")
        spec = replace(spec, extra={"native": other.path})
    names = [name.strip() for name in wanted.split(",")] if wanted else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("comparing")

        def progress(done: int, total: int, name: str) -> None:
            bar.update(row, completed=done, total=total, description=f"{name:12}")

        result: Comparison
        if choose.is_system(guest):
            machine = MachineSpec(
                kernel=Path(guest.path),
                initrd=initrd,
                append=" ".join([append, *spec.argv[1:]]).strip(),
                memory=parse_memory(memory),
                cpus=cpus,
                disks=[parse_disk(word) for word in disks],
            )
            result = compare_machines(machine, wanted=names, runs=runs, progress=progress)
        else:
            result = compare(spec, wanted=names, runs=runs, progress=progress)
    console = Console(width=None if Console().is_terminal else 130)
    console.print(shown.table(result))
    for line in shown.remarks(result):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(result.as_json(), indent=1) + "\n")
        except OSError as error:
            raise UsageError("writing --json", str(error)) from error
    if plot_file is not None:
        plot.plot(result, plot_file, frozenset(registry.names()))
        console.print(f"plot: {plot_file}", highlight=False, soft_wrap=True)
    return 0 if all(entry.same_output for entry in result.results) else 1
