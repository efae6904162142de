"""What is compared when the guest is a system: our techniques that boot it, and QEMU, each as a user starts it."""

import re
import sys
from collections.abc import Sequence
from typing import Final

from virtus.comparison.candidates import Candidate, Place
from virtus.errors import UsageError
from virtus.machine.machine_spec import MachineSpec
from virtus.records import dataclass
from virtus.techniques import choose, registry
from virtus.techniques.peers.qemu_system import PEERS

KERNEL_MESSAGE: Final = re.compile(rb"\[ *\d+\.\d+\]")
EARLY_MESSAGES: Final = (b"mapping kernel into physical memory", b"about to get started...")
"""What Linux shows without a time as a paravirtual domain (arch/x86/xen/enlighten_pv.c)."""
ESCAPES: Final = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|[c78])")


@dataclass(frozen=True, slots=True)
class MachineCandidate(Candidate):
    """One way to boot the guest."""

    def outcome(self, stdout: bytes, stderr: bytes, status: int) -> tuple[bytes, bytes, int]:
        """What the guest's programs showed on the console: without what the kernel says, which names the machine."""
        lines = [ESCAPES.sub(b"", line).strip() for line in stdout.splitlines()]
        kept = [line for line in lines if line and not KERNEL_MESSAGE.match(line) and line not in EARLY_MESSAGES]
        return b"\n".join(kept), stderr, status


def candidates(
    spec: MachineSpec, place: Place, wanted: Sequence[str] | None
) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """Those that can boot it here, and the others with the reason. The first is what all are measured against: QEMU's
    translator where it is installed.

    Raises UsageError for unknown names, and where nothing can boot the guest.
    """
    what, fitting = choose.that_boot(spec.kernel)
    ours = [name for name in registry.names() if hasattr(registry.get(name), "boot")]
    known = [*(peer.name for peer in PEERS), *ours]
    for name in wanted or ():
        if name not in known:
            raise UsageError("choosing what to compare", f"{name} boots no systems", f"known here: {', '.join(known)}")
    unfit = [name for name in ours if name not in fitting]
    for path in (spec.initrd, *(disk.path for disk in spec.disks)):
        if path is not None and not path.is_file():
            raise UsageError("preparing the comparison", f"{path} is no file")
    runnable: list[Candidate] = []
    missing = [(name, f"it does not boot a {what}") for name in unfit if wanted is not None and name in wanted]
    for name in known:
        if name in unfit or (wanted is not None and name not in wanted):
            continue
        peer = next((peer for peer in PEERS if peer.name == name), None)
        state = peer.probe() if peer else registry.get(name).probe()
        if not state.works:
            missing.append((name, "; ".join(filter(None, (state.reason, state.remedy)))))
        elif peer is not None:
            runnable.append(MachineCandidate(name, lambda peer=peer: peer.command(spec)))  # type: ignore[misc]  # the default binds the loop's peer
        else:
            runnable.append(_technique(name, spec, place))
    if not runnable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing)
        raise UsageError("choosing what to compare", f"nothing here can boot the guest: {reasons}")
    return runnable, missing


def _technique(name: str, spec: MachineSpec, place: Place) -> Candidate:
    meter = place.base / f"{name}.json"
    command = [sys.executable, "-P", "-m", "virtus", "run", "--with", name, "--meter-json", str(meter)]
    command += ["--memory", f"{spec.memory >> 20}M", "--cpus", str(spec.cpus), "--append", spec.append]
    if spec.initrd is not None:
        command += ["--initrd", str(spec.initrd)]
    for disk in spec.disks:
        command += ["--disk", f"{disk.path},snapshot" + (f",{disk.form}" if disk.form else "")]
    command += ["--", str(spec.kernel)]
    return MachineCandidate(name, lambda: command, meter)
