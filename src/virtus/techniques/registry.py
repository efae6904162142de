"""All techniques by name; their modules are imported when asked for."""

import importlib
from typing import Final

from virtus.errors import UsageError
from virtus.records import dataclass
from virtus.techniques.base import Availability, Technique


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table of techniques."""

    name: str
    section: str
    vcpu: str
    personality: str
    summary: str

    def probe(self) -> Availability:
        """Whether it works on this host."""
        return get(self.name).probe()


ROWS: Final = (
    Row("emulation", "2.1", "interpreter, translator", "linux, ibm7070", "programs for another processor"),
    Row("api-wrapper", "2.2", "inprocess", "win32", "Windows programs on the processor itself, as WINE"),
    Row("api-emulation", "2.2", "emulated_x86", "win32", "Windows programs, emulated, as WABI"),
    Row("uml-tt", "3.1", "traced", "linux", "a kernel in user space behind a tracing process"),
    Row("uml-skas", "3.2", "ptrace", "linux", "a kernel in user space, in its own address space"),
    Row("seccomp", "3.2", "notified", "linux", "namespaces, layers, and notification of few calls"),
    Row("prescan", "3.3", "scanned", "pc", "a whole PC, its code scanned before it runs, as VMware"),
    Row("paravirt", "3.4", "kvm at ring 3", "xen", "paravirtual domains, as Xen"),
    Row("hvm", "3.5", "kvm", "pc with virtio", "hardware-assisted virtual machines"),
)
NOTES: Final = {"seccomp": "beyond the paper: User Mode Linux's newest mode"}


def names() -> list[str]:
    """The techniques, the default one for Linux programs first."""
    return sorted((row.name for row in ROWS), key=lambda name: name != "seccomp")


def get(name: str) -> Technique:
    """A technique by name, its module's TECHNIQUE; raises UsageError for an unknown one."""
    if name not in names():
        found = f"the technique {name} is unknown"
        raise UsageError("choosing a technique", found, f"choose one of {', '.join(names())}")
    technique: Technique = importlib.import_module(f"virtus.techniques.{name.replace('-', '_')}").TECHNIQUE
    return technique
