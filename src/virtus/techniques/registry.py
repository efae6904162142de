"""All techniques by name, those that are still to be built included; their modules are imported when asked for."""

import importlib
from dataclasses import dataclass
from typing import Final

from virtus.errors import UsageError
from virtus.techniques.base import Availability, Technique


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table of techniques. `module` is "" for what is not built yet."""

    name: str
    section: str
    vcpu: str
    personality: str
    summary: str
    module: str = ""

    def probe(self) -> Availability:
        """Whether it works on this host."""
        if not self.module:
            return Availability(False, "not built yet")
        return get(self.name).probe()


ROWS: Final = (
    Row("emulation", "2.1", "interpreter, translator", "linux, ibm7070", "programs for another processor", "emulation"),
    Row("api-wrapper", "2.2", "inprocess", "win32", "Windows programs on the processor itself, as WINE", "api_wrapper"),
    Row("api-emulation", "2.2", "emulated_x86", "win32", "Windows programs, emulated, as WABI", "api_emulation"),
    Row("uml-tt", "3.1", "traced", "linux", "a kernel in user space behind a tracing process", "uml_tt"),
    Row("uml-skas", "3.2", "ptrace", "linux", "a kernel in user space, in its own address space", "uml_skas"),
    Row("seccomp", "3.2", "notified", "linux", "namespaces, layers, and notification of few calls", "seccomp"),
    Row("prescan", "3.3", "scanned", "pc", "a whole PC, its code scanned before it runs, as VMware", "prescan"),
    Row("paravirt", "3.4", "kvm at ring 3", "xen", "paravirtual domains, as Xen", "paravirt"),
    Row("hvm", "3.5", "kvm", "pc with virtio", "hardware-assisted virtual machines", "hvm"),
)
NOTES: Final = {"seccomp": "beyond the paper: User Mode Linux's newest mode"}


def names() -> list[str]:
    """The techniques that are built, the default one for Linux programs first."""
    built = [row.name for row in ROWS if row.module]
    return sorted(built, key=lambda name: name != "seccomp")


def get(name: str) -> Technique:
    """A technique by name; raises UsageError for an unknown one, or one that is not built yet."""
    for row in ROWS:
        if row.name == name and row.module:
            technique: Technique = importlib.import_module(f"virtus.techniques.{row.module}").TECHNIQUE
            return technique
    known = any(row.name == name for row in ROWS)
    found = f"the technique {name} is {'not built yet' if known else 'unknown'}"
    raise UsageError("choosing a technique", found, f"choose one of {', '.join(names())}")
