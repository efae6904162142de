"""What the user asks for when the guest is a kernel: a machine of its own, with memory, processors and disks."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from virtus.errors import UsageError
from virtus.records import dataclass, field

MIB: Final = 1 << 20
DEFAULT_MEMORY: Final = 256 * MIB
LEAST_MEMORY: Final = 64 * MIB
MOST_MEMORY: Final = 64 << 30
DISK_FORMATS: Final = ("raw", "qcow2")
UNITS: Final = {"K": 1 << 10, "M": MIB, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk image; with `snapshot` what the guest writes is thrown away. `form` is its format, "" for by its name."""

    path: Path
    read_only: bool = False
    snapshot: bool = False
    form: str = ""


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A machine of its own. Its console is on two descriptors of ours; -1 is none.

    `kernel` is what boots: a kernel, or, on a PC with a BIOS, the image of a disk, a CD or a floppy disk. `net` is what
    its network card is plugged into (`virtus.devices.network.attach`), "none" for nothing. `name` is how a control
    interface calls it. `extra` are options that only one technique has.
    """

    kernel: Path
    initrd: Path | None = None
    append: str = ""
    memory: int = DEFAULT_MEMORY  # bytes
    cpus: int = 1
    disks: Sequence[DiskSpec] = ()
    cdrom: Path | None = None
    floppy: Path | None = None
    net: str = "none"
    name: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    console_in: int = 0
    console_out: int = 1


def spec_as_json(spec: MachineSpec) -> dict[str, Any]:
    """What a machine that is restored needs to know, as plain data; paths absolute."""
    return {
        "kernel": str(spec.kernel.absolute()),
        "memory": spec.memory,
        "cpus": spec.cpus,
        "disks": [[str(disk.path.absolute()), disk.read_only, disk.form] for disk in spec.disks],
        "net": spec.net,
        "name": spec.name,
        "extra": dict(spec.extra),
    }


def saved_spec(known: Mapping[str, Any], console_in: int, console_out: int) -> MachineSpec:
    """What `spec_as_json` gave; raises KeyError, TypeError or ValueError for what it never gives."""
    memory, cpus = int(known["memory"]), int(known["cpus"])
    if not LEAST_MEMORY <= memory <= MOST_MEMORY or memory % MIB:
        raise ValueError(f"{memory} bytes of memory")
    return MachineSpec(
        kernel=Path(known["kernel"]),
        memory=memory,
        cpus=cpus,
        disks=[DiskSpec(Path(path), bool(read_only), form=str(form)) for path, read_only, form in known["disks"]],
        net=str(known["net"]),
        name=str(known["name"]),
        extra={str(key): str(value) for key, value in dict(known["extra"]).items()},
        console_in=console_in,
        console_out=console_out,
    )


def parse_disk(word: str) -> DiskSpec:
    """FILE[,ro][,snapshot][,raw|,qcow2]; raises UsageError."""
    name, *options = word.split(",")
    formats = [option for option in options if option in DISK_FORMATS]
    unknown = [option for option in options if option not in ("ro", "snapshot", *DISK_FORMATS)]
    if not name or unknown or len(formats) > 1:
        raise UsageError("reading --disk", f"{word!r} is not of the form FILE[,ro][,snapshot][,raw|,qcow2]")
    return DiskSpec(Path(name), "ro" in options, "snapshot" in options, "".join(formats))


def parse_size(word: str) -> int:
    """A size such as 256M or 1G, in bytes; raises UsageError."""
    match = re.fullmatch(r"(\d{1,9})([KMG])i?B?", word.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError("reading a size", f"{word!r} is none", "write for example 256M or 1G")
    return int(match[1]) * UNITS[match[2].upper()]


def parse_memory(word: str) -> int:
    """A machine's memory, in bytes and whole MiB; raises UsageError."""
    size = parse_size(word)
    if not LEAST_MEMORY <= size <= MOST_MEMORY:
        raise UsageError("reading --memory", f"{word} is not between {LEAST_MEMORY >> 20}M and {MOST_MEMORY >> 30}G")
    return size // MIB * MIB
