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
    "hvm": Explanation(
        (
            Part(
                "ring -1", "host/kvm.py", "the host's KVM: enters the guest (VMENTRY), is where it comes out (VMEXIT)"
            ),
            Part("ring 0", "personalities/virtual_pc/boot64.py", "the guest's kernel, unmodified, in non-root mode"),
            Part("rings 1, 2", "vcpus/hardware.py", "the guest's, and used by nobody"),
            Part(
                "ring 3", "vcpus/hardware.py", "the guest's programs, which call their kernel without anybody of ours"
            ),
            Part(
                "processors", "vcpus/hardware.py", "a thread each in KVM_RUN; an exit that KVM cannot answer comes here"
            ),
            Part("board", "personalities/virtual_pc/board.py", "answers ports and registers, under one lock"),
            Part("devices", "devices/virtio", "served for doorbells, which are events and no exits"),
            Part("exclusion", "devices/virtio/exclusion.py", "which frames each device may reach"),
        ),
        "guest ─ VMEXIT ─ KVM ─┬ answers itself ─ VMENTRY;  or ─ exit ─ loop ─ board ─ KVM_RUN ─ VMENTRY\n"
        "guest ─ doorbell ─ event ─ device ─ event ─ interrupt: nobody comes out.   --meter counts both, by reason",
        "docs/hvm.md",
    ),
    "paravirt": Explanation(
        (
            Part("hypervisor", "personalities/xen/hypervisor.py", "answers hypercalls, exceptions and events"),
            Part(
                "page tables", "personalities/xen/page_tables.py", "checks each entry; frames have one type at a time"
            ),
            Part("event channels", "personalities/xen/event_channels.py", "interrupts: bits pending, bits masked"),
            Part("grants", "personalities/xen/grants.py", "single frames lent to others, until they are taken back"),
            Part("xenstore", "personalities/xen/xenstore.py", "where front ends and back ends find each other"),
            Part(
                "back ends",
                "personalities/xen/block.py, personalities/xen/network.py",
                "disks and cards for the guest's own front ends",
            ),
            Part("control", "personalities/xen/toolstack.py", "what Dom0 may do, and no other domain: this process"),
            Part("processors", "vcpus/kvm.py", "the guest's kernel and programs at ring 3; all gates lead out"),
        ),
        "kernel ─ syscall ─ hypervisor ─ table of hypercalls;   program ─ syscall ─ hypervisor ─ the guest's kernel",
        "docs/paravirt.md",
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
