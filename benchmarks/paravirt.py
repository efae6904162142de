"""Paravirtual domains: booting, computing, calls, disk and network, against QEMU's TCG and the host itself.

usage: python -m benchmarks.paravirt [--runs N] [--document]

Each run boots Debian's cloud kernel with a small initial ramdisk (busybox, and programs/guest_probe.c). Interleaved;
medians. Writes benchmarks/results/paravirt.json and .svg, and prints tables in Markdown; with --document into
docs/paravirt.md as well.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.xen import kernels

from benchmarks import quiet
from benchmarks.installed import virtus
from benchmarks.published import DOCS, Published

RESULTS: Final = Path(__file__).parent / "results"
PROBE: Final = Path(__file__).parent / "programs" / "guest_probe.c"
PUBLISHED: Final = Published(DOCS / "paravirt.md", "paravirt")
READY: Final = "in user space"
SCRIPT: Final = f"""
echo {READY}
chmod 755 /guest_probe
/guest_probe DISK
poweroff -f
"""
SERVER: Final = (
    "ip addr add 10.7.0.1/24 dev eth0; ip link set eth0 up; chmod 755 /guest_probe\n/guest_probe network listen"
)
CLIENT: Final = (
    "ip addr add 10.7.0.2/24 dev eth0; ip link set eth0 up; chmod 755 /guest_probe\n/guest_probe network 10.7.0.1 "
)
NETWORK_BYTES: Final = 400 << 20
DISK_BYTES: Final = 256 << 20
OURS, TCG, NATIVE = "paravirt", "qemu-system-x86_64, TCG", "native"
FIGURES: Final = {
    "boot": ("from the start to user space", "s"),
    "getpid": ("a system call", "µs"),
    "process": ("fork, exec, exit and wait", "ms"),
    "page": ("first touch of a page", "µs"),
    "sort": ("sorting a million numbers", "ms"),
    "hash": ("twenty million rounds as SHA-256's", "ms"),
    "block": ("reading a disk", "MB/s"),
    "network": ("TCP between two domains", "Mbit/s"),
}
LONGEST_S: Final = 240


def build(place: Path) -> Path:
    """The probe, linked statically."""
    program = place / "guest_probe"
    subprocess.run(["gcc", "-O2", "-static", "-o", str(program), str(PROBE)], check=True)
    return program


def lines(command: list[str], environment: dict[str, str]) -> Iterator[tuple[float, str]]:
    """What a command shows, line by line, with the seconds since its start; it is ended when nobody listens."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield time.perf_counter() - started, line.decode(errors="replace").strip()
                if time.perf_counter() - started > LONGEST_S:
                    raise TimeoutError(f"{command[0]} does not end")
        finally:
            process.kill()


def figures_of(shown: Iterator[tuple[float, str]]) -> dict[str, float]:
    """The probe's figures, and when user space was reached."""
    found: dict[str, float] = {}
    for at, line in shown:
        name, _, value = line.partition(" ")
        if READY in line:
            found["boot"] = at
        elif name in FIGURES and name not in found:
            try:
                found[name] = float(value)
            except ValueError:
                continue
    return found


class Guests:
    """The kernel, the ramdisks and the disk, in a directory of their own."""

    def __init__(self, place: Path) -> None:
        self._place, self._kernel = place, kernels.kernel()
        self.probe = build(place)
        block, net = self._kernel / "xen-blkfront.ko", self._kernel / "xen-netfront.ko"
        self.own = kernels.ramdisk(SCRIPT.replace("DISK", "/dev/xvda"), place / "own", block, self.probe)
        self.tcg = kernels.ramdisk(SCRIPT.replace("DISK", ""), place / "tcg", self.probe)
        self.server = kernels.ramdisk(SERVER, place / "server", net, self.probe)
        self.client = kernels.ramdisk(CLIENT + str(NETWORK_BYTES), place / "client", net, self.probe)
        self.disk = place / "disk"
        with self.disk.open("wb") as file:
            for _ in range(DISK_BYTES >> 20):
                file.write(os.urandom(1 << 20))
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": str(place)}

    def _virtus(self, *words: str) -> list[str]:
        command = virtus("run", "--with", "paravirt", "--append", "quiet panic=-1")
        return [*command, *words, str(self._kernel / "vmlinuz")]

    def paravirt(self) -> dict[str, float]:
        """One run of ours."""
        command = self._virtus("--initrd", str(self.own), "--disk", f"{self.disk},ro")
        return figures_of(lines(command, self.environment))

    def emulated(self) -> dict[str, float]:
        """One run under QEMU."""
        command = [
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nographic", "-no-reboot",
            "-net", "none", "-kernel", str(self._kernel / "vmlinuz"), "-initrd", str(self.tcg),
            "-append", "console=ttyS0 quiet panic=-1",
        ]  # fmt: skip
        return figures_of(lines(command, self.environment))

    def native(self) -> dict[str, float]:
        """The probe on the host."""
        return figures_of(lines([str(self.probe)], self.environment))

    def network(self) -> dict[str, float]:
        """Two domains on a switch."""
        plugged = ("--net", "switch:benchmark")
        server = subprocess.Popen(
            self._virtus(*plugged, "--initrd", str(self.server)),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment,
        )  # fmt: skip
        try:
            return figures_of(lines(self._virtus(*plugged, "--initrd", str(self.client)), self.environment))
        finally:
            server.kill()
            server.wait()


def measure(runs: int) -> dict[str, Any]:
    """All figures of all candidates, run by run."""
    found: dict[str, dict[str, list[float]]] = {OURS: {}, NATIVE: {}}
    others = quiet.Others()
    with tempfile.TemporaryDirectory(prefix="virtus-benchmark-") as name:
        guests = Guests(Path(name))
        turns = [(OURS, guests.paravirt), (NATIVE, guests.native), (OURS, guests.network)]
        if shutil.which("qemu-system-x86_64"):
            found[TCG] = {}
            turns.append((TCG, guests.emulated))
        for number in range(runs):
            for at in range(len(turns)):
                candidate, run = turns[(at + number) % len(turns)]
                for figure, value in run().items():
                    found[candidate].setdefault(figure, []).append(value)
                print(f"run {number + 1}: {candidate}", file=sys.stderr)
    return {"runs": runs, "others": others.share(), **quiet.machine(), "figures": found}


def ratios(figures: dict[str, dict[str, list[float]]], name: str, other: str) -> list[float]:
    """How many times as long ours takes, or for rates, how many times as much it does."""
    own, theirs = figures[OURS].get(name, []), figures.get(other, {}).get(name, [])
    return [one / two for one, two in zip(own, theirs, strict=False) if two]


def markdown(measured: dict[str, Any]) -> str:
    """The table of docs/paravirt.md."""
    figures = measured["figures"]
    candidates = [name for name in (NATIVE, TCG, OURS) if name in figures]
    head = f"{measured['runs']} runs each, on {measured['processors']} processors ({measured['model']}), Linux "
    head += f"{measured['kernel']}. Other programs took {measured['others']:.0%} of the processors meanwhile."
    compared = [(TCG, "QEMU TCG"), (NATIVE, "native")]
    heading = ["", *candidates, *(f"{OURS} / {label}" for name, label in compared if name in figures)]
    rows = [head, "", "| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    for name, (what, unit) in FIGURES.items():
        row = [f"{what}, {unit}"]
        for candidate in candidates:
            values = figures[candidate].get(name, [])
            row.append(f"{statistics.median(values):.4g} ({min(values):.3g}-{max(values):.3g})" if values else "")
        for other, _ in compared:
            if other in figures:
                found = ratios(figures, name, other)
                row.append(f"{statistics.median(found):.2f}" if found else "")
        rows.append("| " + " | ".join(row) + " |")
    return "\n".join(rows)


def plot(measured: dict[str, Any], path: Path) -> None:
    """Ratios to QEMU as bars."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figures = measured["figures"]
    names = [name for name in FIGURES if ratios(figures, name, TCG)]
    if not names:
        return
    figure, axes = pyplot.subplots(figsize=(7.5, 1.2 + 0.5 * len(names)), layout="constrained")
    values = [statistics.median(ratios(figures, name, TCG)) for name in names]
    axes.barh([FIGURES[name][0] for name in names], values, color="#1f6fb4")
    axes.axvline(1, color="#3b3f45", linewidth=1)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("time under paravirt / time under QEMU's TCG (less is better)")
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each candidate (default: 5)")
    parser.add_argument("--document", action="store_true", help="put the table into docs/paravirt.md")
    options = parser.parse_args()
    measured = measure(options.runs)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "paravirt.json").write_text(json.dumps(measured, indent=1) + "\n")
    plot(measured, RESULTS / "paravirt.svg")
    table = markdown(measured)
    print(table)
    if options.document:
        PUBLISHED.put(table)


if __name__ == "__main__":
    main()
