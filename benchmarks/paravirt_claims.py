"""The paper's claims on paravirtualization (section 3.4), measured again; a part of benchmarks.claims."""

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.xen import kernels

from benchmarks.installed import virtus
from benchmarks.paravirt import build, figures_of, lines

RUNS: Final = 3
BLOCKS: Final = 16 << 20
SCRIPT: Final = "dd if=/dev/xvda of=/dev/null bs=1M; chmod 755 /guest_probe; /guest_probe; poweroff -f\n"
HYPERCALL, PROGRAM, FAULT, EVENT = "hypercall", "system call", "fault", "host event"


def _boot(place: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """A domain that reads a disk and computes: the meter, and what it measured itself."""
    kernel, probe = kernels.kernel(), build(place)
    ramdisk = kernels.ramdisk(SCRIPT, place / "ramdisk", kernel / "xen-blkfront.ko", probe)
    disk, report = place / "disk", place / "meter.json"
    disk.write_bytes(os.urandom(BLOCKS))
    command = virtus(
        "run", "--with", "paravirt", "--append", "quiet panic=-1", "--meter-json", str(report),
        "--disk", f"{disk},ro", "--initrd", str(ramdisk), str(kernel / "vmlinuz"),
    )  # fmt: skip
    shown = figures_of(lines(command, dict(os.environ)))
    return json.loads(report.read_text()), shown


def paravirt() -> dict[str, str]:
    """Who asks whom for what, and whether computing is direct."""
    with tempfile.TemporaryDirectory(prefix="virtus-claims-") as name:
        place = Path(name)
        natively, inside, meters = list[float](), list[float](), list[dict[str, Any]]()
        for _ in range(RUNS):
            meter, shown = _boot(place)
            meters.append(meter)
            inside.append(shown["hash"])
            done = subprocess.run([str(place / "guest_probe")], capture_output=True, text=True, check=True)
            natively.append(figures_of(iter([(0.0, line) for line in done.stdout.splitlines()]))["hash"])
    meter = meters[-1]
    exits, calls = meter["exits"], meter["calls"]
    sent = sum(count for call, count in calls.items() if call.startswith("event_channel_op send"))
    tables = sum(
        count
        for call, count in calls.items()
        if call.startswith(("mmu_update", "mmuext_op", "update_va_mapping", "multicall"))
    )
    asked = exits[HYPERCALL]
    ratio = [one / two for one, two in zip(inside, natively, strict=True)]
    return {
        "hypercalls": f"{asked:,}",
        "hypercalls tables": f"{tables / asked:.0%}",
        "hypercalls traps": f"{exits.get(FAULT, 0):,}",
        "paravirt direct": f"{statistics.median(ratio):.2f} ({min(ratio):.2f}-{max(ratio):.2f})",
        "events sent": f"{sent:,}",
        "split requests": f"{meter['details']['block requests']:,} requests for "
        f"{meter['details']['block bytes'] >> 20} MiB",
    }


CLAIMS: Final = {"paravirt": paravirt}
