"""What `virtus run` does, once its command line has been read: finds the guest, runs it, and shows what it cost."""

import os
import sys
from typing import TYPE_CHECKING, Any

from virtus.errors import UsageError
from virtus.machine.meter import Report
from virtus.machine.spec import GuestSpec, Volume
from virtus.records import replace

if TYPE_CHECKING:
    from pathlib import Path

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


def run(
    *,
    technique: str | None,
    meter: bool,
    meter_json: str | None,
    translate_only: bool,
    trace: str | None,
    explain: bool,
    gdb: str | None,
    memory: str,
    cpus: int,
    initrd: "Path | None",
    append: str,
    disks: tuple[str, ...],
    cdrom: "Path | None",
    floppy: "Path | None",
    name: str,
    console: str | None,
    bios: str | None,
    depth: int | None,
    **box: Any,
) -> int:
    """Run a guest, and exit as it does: values as the options of `virtus run` give them. Raises VirtusError."""
    extra = {"translate": "only" if translate_only else None, "trace": trace, "gdb": gdb}
    spec = make_spec(**box, extra={name: value for name, value in extra.items() if value is not None})
    from virtus.techniques import choose

    guest = choose.guest_of(spec)
    if explain:
        from virtus.techniques import explaining

        lines, status = explaining.explain(guest, technique)
        print("\n".join(lines))
        return status
    if choose.is_system(guest):
        from pathlib import Path

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
        import json

        try:
            with open(meter_json, "w", encoding="utf-8") as stream:
                stream.write(json.dumps(report.as_json(), indent=1) + "\n")
        except OSError as error:
            raise UsageError("writing --meter-json", str(error)) from error
    if meter:
        from virtus.report.meter import show

        show(report)
    elif report.status and choose.is_system(guest):
        for note in report.notes:  # why a machine ended that did not power off
            print(f"virtus: {note}", file=sys.stderr)
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
    root: str,
    volumes: tuple[str, ...],
    net: Any,
    hostname: str,
    user: int | None,
    environment: tuple[str, ...],
    keep: str | None = None,
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
    """SRC:DST[:ro], where DST is an absolute path or a drive (D:); raises UsageError."""
    whole = word.removesuffix(":ro").rstrip("/\\")
    source, drive = whole[:-3], whole[-3:]
    if source and drive[0] == drive[2] == ":" and drive[1].isascii() and drive[1].isalpha():
        return Volume(os.path.join(os.getcwd(), source), drive[1:].upper(), word.endswith(":ro"))
    parts = word.split(":")
    read_only = len(parts) == 3 and parts[2] == "ro"
    if len(parts) not in (2, 3) or not all(parts) or (len(parts) == 3 and not read_only):
        raise UsageError("reading --volume", f"{word!r} is not of the form SRC:DST[:ro]")
    if not parts[1].startswith("/"):
        raise UsageError("reading --volume", f"{parts[1]!r} inside the guest is not absolute")
    return Volume(os.path.join(os.getcwd(), parts[0]), parts[1], read_only)
