"""What a technique is: a named pair of vCPU and personality, what it needs of the host, and how it starts a guest."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from virtus.machine.meter import Report
from virtus.machine.spec import GuestSpec
from virtus.records import dataclass

if TYPE_CHECKING:
    from virtus.machine.machine_spec import MachineSpec


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a technique works on this host; where not, why, and what to do about it."""

    works: bool
    reason: str = ""
    remedy: str = ""


class Technique(Protocol):
    """One row of the table of techniques."""

    name: str
    section: str  # of the paper, for example "3.1"
    vcpu: str
    personality: str
    summary: str

    def probe(self) -> Availability:
        """Ask this host, by trying rather than by looking at version numbers."""
        ...

    def run(self, spec: GuestSpec, *, meter: bool = False) -> Report:
        """Run the guest to its end on the caller's standard streams; raises VirtusError where it cannot start."""
        ...


@dataclass(frozen=True, slots=True)
class MachinePeer:
    """An outside program that boots systems; `command` gives the argument vector that boots one, without a terminal."""

    name: str
    package: str  # Debian's
    summary: str
    probe: Callable[[], Availability]
    command: "Callable[[MachineSpec], list[str]]"


@dataclass(frozen=True, slots=True)
class Peer:
    """An outside program that does a technique's job, so that it stands in every comparison.

    `command` gives the argument vector that runs a guest under the peer on this host.
    """

    name: str
    package: str  # Debian's, "" when nothing is to be installed
    summary: str
    probe: Callable[[], Availability]
    command: Callable[[GuestSpec], list[str]]
    processor: str = "x86-64"  # whose programs it runs, as `guests.identify` names it
