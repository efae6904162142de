"""`virtus explain`: what a technique is made of, part by part, and where each is in the code."""

from typing import Final, NamedTuple

import click

from virtus.errors import UsageError


class Part(NamedTuple):
    """A part of a technique: its name in the field, where it is, what it does."""

    name: str
    where: str
    does: str


class Explanation(NamedTuple):
    """How the parts meet, and the document that tells more."""

    parts: tuple[Part, ...]
    meet: str
    document: str


EXPLANATIONS: Final = {
    "prescan": Explanation(
        (
            Part(
                "VMApp", "techniques/prescan.py, personalities/pc", "console, screen, keys, media, the guest's devices"
            ),
            Part("VMDriver", "machine/vm_driver.py", "what the monitor holds of the host: memory and processes"),
            Part("VMM", "vcpus/scanned/vmm.py", "the monitor: runs scanned code directly, says what stopped it"),
            Part("scanner", "vcpus/scanned/scanner.py", "decodes code before it runs, plants breakpoints"),
            Part("children", "vcpus/scanned/child.py", "filtered processes whose lower 4 GiB are the guest's"),
            Part("shadow", "vcpus/scanned/shadow.py", "fills children from the guest's page tables"),
            Part("patches", "vcpus/scanned/patches.py", "hot sensitive instructions work on virtual flags in memory"),
            Part("evaluator", "vcpus/scanned/evaluator.py", "does what trapped on the guest's registers and memory"),
            Part("emulation", "vcpus/scanned/realmode.py", "real mode and whatever cannot run directly"),
        ),
        "VMApp ─ PORT_IO, MEMORY_IO, HALT ─ VMM ─ int3, faults, ticks ─ children;  VMDriver holds memory for both",
        "docs/prescan.md",
    ),
}


@click.command(epilog="Example: virtus explain prescan")
@click.argument("technique")
def command(technique: str) -> None:
    """Show what TECHNIQUE is made of, and where in the code each part is."""
    found = EXPLANATIONS.get(technique)
    if found is None:
        known = ", ".join(EXPLANATIONS)
        raise UsageError("explaining a technique", f"nothing is written about {technique!r}", f"choose one of: {known}")
    width = max(len(part.name) for part in found.parts)
    place = max(len(part.where) for part in found.parts)
    for part in found.parts:
        click.echo(f"{part.name:<{width}}  {part.where:<{place}}  {part.does}")
    click.echo(f"\n{found.meet}\n\n{found.document}")
