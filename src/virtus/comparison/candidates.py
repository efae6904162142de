"""What is compared: techniques of our own as a user starts them, and peers as theirs does."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from virtus.errors import UsageError
from virtus.machine.spec import GuestSpec
from virtus.records import dataclass, replace
from virtus.techniques import choose, registry
from virtus.techniques.choose import HOST, WINDOWS
from virtus.techniques.peers import registry as peers

SCRATCH = "VIRTUS_SCRATCH"
"""Names a directory that every run finds empty and may write to; it is deleted afterwards."""
WITHOUT_VOLUMES = ("runsc", "linux.uml")
WITHOUT_NETWORK = {
    "linux.uml": "it has no equal of --net host",
    "runsc": "as root, its `do` would set up address translation on the host for --net host, and leave it there",
}
EMULATION = "emulation"
NATIVE = "native"
REFERENCES = {"RISC-V": "qemu-riscv64", "Windows": "wine"}
"""What a program that is not the host's is measured against, where no program for the host is named beside it."""
WINDOWS_TECHNIQUES = frozenset({"api-wrapper", "api-emulation"})
NEVER_RAN = 255
"""The status of a guest whose peer has left none."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run the guest."""

    name: str
    command: Callable[[], list[str]]
    meter: Path | None = None  # where a technique writes what its loop counted
    files: str = ""  # prefix of .out, .err and .status files, for a peer whose streams are not its guest's

    def outcome(self, stdout: bytes, stderr: bytes, status: int) -> tuple[bytes, bytes, int]:
        """What the guest wrote to its output, to its error output, and returned."""
        if not self.files:
            return stdout, stderr, status
        try:
            out, err = (Path(self.files + suffix).read_bytes() for suffix in (".out", ".err"))
            return out, err, int(Path(self.files + ".status").read_text())
        except (OSError, ValueError):
            return b"", stderr, NEVER_RAN  # it did not come that far: the peer's own words say why

    def counted(self) -> dict[str, Any]:
        """What the technique's own meter saw; {} for a peer."""
        if self.meter is None:
            return {}
        try:
            counted: dict[str, Any] = json.loads(self.meter.read_text())
        except (OSError, ValueError):
            return {}
        return counted


class Place:
    """A temporary directory for one comparison: the scratch directory of the runs, and files about them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.scratch = base / "scratch"

    def clean(self) -> None:
        """Empty what a run may have left."""
        for entry in self.base.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.suffix in (".out", ".err", ".status", ".json"):
                entry.unlink()
        self.scratch.mkdir(mode=0o777)


def candidates(
    spec: GuestSpec, place: Place, wanted: Sequence[str] | None
) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """Those that can run here, and the others with the reason. The first is what all are measured against: native, or
    for a program that is not the host's the equal of it that `spec.extra["native"]` names, else QEMU or Wine.

    Raises UsageError for unknown names, for a box in which native cannot run, and where nothing can run the guest.
    """
    known = [*peers.names(), *registry.names()]
    for name in wanted or ():
        if name not in known:
            raise UsageError("choosing what to compare", f"{name} is unknown", f"known here: {', '.join(known)}")
    if os.path.realpath(spec.root) != "/" or spec.user is not None or spec.keep is not None:
        raise UsageError(
            "preparing the comparison",
            "native has the host's root, and the user who called it",
            "compare without --root, --user and --keep",
        )
    guest = choose.guest_of(spec)
    system = choose.system_of(guest)
    foreign = system != HOST
    fitting = {peer.name for peer in peers.PEERS if peer.processor == system}
    fitting |= {name for name in registry.names() if _fits(name, system)}
    reference = NATIVE if not foreign or "native" in spec.extra else REFERENCES.get(system, "qemu-riscv64")
    fitting.add(reference)
    if foreign and reference != NATIVE:
        fitting.discard(NATIVE)
    chosen = [name for name in known if name in fitting and (wanted is None or name in wanted or name == reference)]
    chosen.sort(key=lambda name: name != reference)
    environment = {**(os.environ if spec.env is None else spec.env), SCRATCH: str(place.scratch)}
    spec = replace(spec, env=environment, extra={**spec.extra, "scratch": str(place.scratch)})
    runnable: list[Candidate] = []
    unfit = [name for name in wanted or () if name not in fitting]
    missing = [(name, f"it does not run programs for {system}") for name in unfit]
    for name in chosen:
        peer = next((peer for peer in peers.PEERS if peer.name == name), None)
        state = peer.probe() if peer else registry.get(name).probe()
        if not state.works:
            missing.append((name, "; ".join(filter(None, (state.reason, state.remedy)))))
        elif spec.volumes and name in WITHOUT_VOLUMES:
            missing.append((name, "it has no equal of --volume"))
        elif spec.net == "host" and name in WITHOUT_NETWORK:
            missing.append((name, WITHOUT_NETWORK[name]))
        elif peer is not None:
            files = str(place.scratch) if name == "linux.uml" else ""
            runnable.append(Candidate(name, lambda peer=peer: peer.command(spec), files=files))  # type: ignore[misc]  # the default binds the loop's peer
        else:
            runnable.append(_technique(name, spec, place))
    if not runnable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing)
        raise UsageError("choosing what to compare", f"nothing here can run the guest: {reasons}")
    return runnable, missing


def _fits(technique: str, system: str) -> bool:
    """Whether one of our techniques runs programs for that system."""
    if system == WINDOWS or technique in WINDOWS_TECHNIQUES:
        return system == WINDOWS and technique in WINDOWS_TECHNIQUES
    return (technique == EMULATION) == (system != HOST)


def _technique(name: str, spec: GuestSpec, place: Place) -> Candidate:
    meter = place.base / f"{name}.json"
    command = [sys.executable, "-P", "-m", "virtus", "run", "--with", name, "--meter-json", str(meter)]
    command += ["--net", spec.net, "--hostname", spec.hostname]
    command += ["--volume", f"{place.scratch}:{place.scratch}", "--env", f"{SCRATCH}={place.scratch}"]
    for volume in spec.volumes:
        command += ["--volume", f"{volume.source}:{volume.target}" + (":ro" if volume.read_only else "")]
    command += ["--", *spec.argv]
    return Candidate(name, lambda: command, meter)
