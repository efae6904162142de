"""hvm beside QEMU's monitor on the same KVM: booting, reading a disk, network, memory; and what our start takes.

usage: python -m benchmarks.hypervisor [--runs N] [--document]

On a host whose processor QEMU emulates (SVM), so that it works where there is no VMX or SVM: times are longer than on a
processor, for both alike; compare them. Both monitors boot Debian's cloud kernel with the same ramdisk, disk and tap
device. The start is measured here, with a kernel that shows a word at once. Interleaved; medians. Writes
benchmarks/results/hypervisor.json and .svg, and prints a table in Markdown; with --document into docs/hvm.md as well.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tests.hvm import tiny
from tests.hvm.nested import NestedHost, libraries
from tests.xen import kernels

from benchmarks import quiet
from benchmarks.installed import virtus
from benchmarks.paravirt import build
from benchmarks.published import DOCS, Published

RESULTS: Final = Path(__file__).parent / "results"
TIMING: Final = Path(__file__).parent / "programs" / "nested_timing.py"
PUBLISHED: Final = Published(DOCS / "hvm.md", "hypervisor")
QEMU: Final = "qemu-system-x86_64"
PLACE: Final = f"/usr/bin/{QEMU}"
FIRMWARE: Final = (
    "/usr/share/qemu/bios-microvm.bin", "/usr/share/qemu/qboot.rom", "/usr/share/seabios/bios-microvm.bin",
    "/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/linuxboot_dma.bin", "/usr/share/qemu/pvh.bin",
)  # fmt: skip
MODULES: Final = ("virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net")
READY: Final = "in user space"
DISK_MB, NETWORK_MB, MEMORY = 96, 48, 256
SCRIPT: Final = f"""
echo {READY}
chmod 755 /guest_probe
/guest_probe /dev/vda
ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up
until ping -c 1 -W 1 10.9.0.1 >/dev/null; do :; done
/guest_probe network 10.9.0.1 {NETWORK_MB << 20}
poweroff -f
"""
APPEND: Final = "quiet panic=-1 console=ttyS0"
OURS, THEIRS, NATIVE = "hvm", "qemu -accel kvm", "the nested host itself"
FIGURES: Final = {
    "boot": ("from the start to user space", "s", False),
    "hash": ("computing: twenty million rounds as SHA-256's", "ms", False),
    "getpid": ("a system call in the guest", "µs", False),
    "process": ("fork, exec, exit and wait in the guest", "ms", False),
    "block": ("reading a disk", "MB/s", True),
    "network": ("TCP from the guest to its host", "Mbit/s", True),
    "memory": ("memory of the monitor, without the guest's", "MB", False),
    "start": ("from the start to what the guest shows first, not nested", "ms", False),
}
"""What they mean, their unit, and whether more is better."""
RUN_S: Final = 300


def commands(kernel: str, ramdisk: str, disk: str) -> dict[str, list[str]]:
    """What a user of each monitor would type on the nested host."""
    ours = ["python3", "-P", "-m", "virtus", "run", "--with", "hvm", "--memory", f"{MEMORY}M", "--initrd", ramdisk]
    ours += ["--disk", disk, "--net", "tap:t0", "--append", APPEND, kernel]
    theirs = [
        PLACE,
        "-L",
        "/usr/share/qemu",
        "-M",
        "microvm,acpi=on,memory-backend=ram",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-m",
        f"{MEMORY}M",
    ]
    theirs += ["-object", f"memory-backend-memfd,id=ram,size={MEMORY}M,share=on", "-nodefaults", "-no-user-config"]
    theirs += ["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", ramdisk]
    theirs += ["-append", APPEND, "-drive", f"if=none,id=disk,format=raw,file={disk}"]
    theirs += ["-device", "virtio-blk-device,drive=disk", "-netdev", "tap,id=net,ifname=t0,script=no,downscript=no"]
    return {OURS: ours, THEIRS: [*theirs, "-device", "virtio-net-device,netdev=net"]}


def nested(place: Path, quick: Path) -> NestedHost:
    """The host, with QEMU, a disk and a tap device; `quick` is a kernel that ends at once when told so."""
    program = shutil.which(QEMU)
    if program is None:
        raise SystemExit(f"{QEMU} is not installed (Debian: qemu-system-x86)")
    kernel = kernels.kernel()
    probe = build(place)
    guest = kernels.ramdisk(SCRIPT, place / "guest.img", *(kernel / f"{name}.ko" for name in MODULES), probe)
    paths = {*libraries(program), *(path for path in FIRMWARE if Path(path).exists())}
    files = {path.lstrip("/"): Path(os.path.realpath(path)) for path in paths if "ld-linux" not in path}
    files |= {
        PLACE.lstrip("/"): Path(program),
        "guest/initrd": guest,
        "guest/timing.py": TIMING,
        "guest/probe": probe,
        "guest/tiny": quick,
    }
    host = NestedHost(place, files, memory="2048", modules=("tun",))
    host.run(f"head -c {DISK_MB << 20} /dev/urandom >/tmp/disk")
    host.run("mkdir -p /dev/net; [ -c /dev/net/tun ] || mknod /dev/net/tun c 10 200; tunctl -t t0")
    host.run("ip addr add 10.9.0.1/24 dev t0; ip link set t0 up")
    # a user's second start: what Python keeps of its modules is there (the host's files come without)
    host.run("unset PYTHONDONTWRITEBYTECODE")
    host.run("echo q | python3 -P -m virtus run --with hvm --memory 64M /guest/tiny", RUN_S)
    return host


def one_run(host: NestedHost, command: list[str]) -> dict[str, float]:
    """One run on the nested host."""
    host.run("(/guest/probe network listen >/dev/null 2>&1 &) ")
    words = shlex.join(["python3", "-P", "/guest/timing.py", READY, *command])
    shown, status = host.run(words, RUN_S)
    lines = [line for line in shown.splitlines() if line.startswith("timed ")]
    if status or not lines:
        raise RuntimeError(f"{command[0]} has failed: {shown[-2000:]}")
    found: dict[str, float] = json.loads(lines[-1].removeprefix("timed "))
    return found


def start(kernel: Path) -> float:
    """Milliseconds from the start of `virtus run` to the first byte of a kernel that shows it at once."""
    command = virtus("run", "--with", "hvm", "--memory", f"{MEMORY}M", str(kernel))
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        took = time.perf_counter() - began
        process.kill()
    return 1000 * took


def measure(runs: int) -> dict[str, Any]:
    """All figures of both, run by run."""
    found: dict[str, dict[str, list[float]]] = {OURS: {}, THEIRS: {}, NATIVE: {}}
    others = quiet.Others()
    with tempfile.TemporaryDirectory(prefix="virtus-benchmark-") as name:
        place = Path(name)
        quick = tiny.kernel(place)
        found[OURS]["start"] = [start(quick) for _ in range(max(2 * runs, 5))]
        with nested(place, quick) as host:
            turns = list(commands("/guest/vmlinuz", "/guest/initrd", "/tmp/disk").items())
            turns.append((NATIVE, ["/guest/probe"]))
            for number in range(runs):
                for at in range(len(turns)):
                    candidate, command = turns[(at + number) % len(turns)]
                    for figure, value in one_run(host, command).items():
                        found[candidate].setdefault(figure, []).append(value)
                    print(f"run {number + 1}: {candidate}", file=sys.stderr)
    return {"runs": runs, "others": others.share(), **quiet.machine(), "figures": found}


def ratios(figures: dict[str, dict[str, list[float]]], name: str) -> list[float]:
    """Ours by theirs, run by run."""
    own, theirs = figures[OURS].get(name, []), figures[THEIRS].get(name, [])
    return [one / two for one, two in zip(own, theirs, strict=False) if two]


def markdown(measured: dict[str, Any]) -> str:
    """The table of docs/hvm.md."""
    figures = measured["figures"]
    head = f"{measured['runs']} runs each, on {measured['processors']} processors ({measured['model']}), Linux "
    head += f"{measured['kernel']}; nested in QEMU's TCG but for the last row. Other programs took "
    head += f"{measured['others']:.0%} of the processors meanwhile."
    rows = [head, "", f"| | {OURS} | {THEIRS} | {NATIVE} | {OURS} / {THEIRS} |", "|---|---|---|---|---|"]
    for name, (what, unit, more) in FIGURES.items():
        row = [f"{what}, {unit}" + (" (more is better)" if more else "")]
        for candidate in (OURS, THEIRS, NATIVE):
            values = figures[candidate].get(name, [])
            row.append(f"{statistics.median(values):.4g} ({min(values):.3g}-{max(values):.3g})" if values else "")
        found = ratios(figures, name)
        row.append(f"{statistics.median(found):.2f}" if found else "")
        rows.append("| " + " | ".join(row) + " |")
    return "\n".join(rows)


def plot(measured: dict[str, Any], path: Path) -> None:
    """Ours by theirs as bars, so that less is better for all."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    found = {name: ratios(measured["figures"], name) for name in FIGURES}
    names = [name for name, values in found.items() if values]
    figure, axes = pyplot.subplots(figsize=(7.5, 1.2 + 0.5 * len(names)), layout="constrained")
    medians = {name: statistics.median(found[name]) for name in names}
    values = [1 / medians[name] if FIGURES[name][2] else medians[name] for name in names]
    axes.barh([FIGURES[name][0] for name in names], values, color="#1f6fb4")
    axes.axvline(1, color="#3b3f45", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel(f"cost under {OURS} / cost under {THEIRS} (less is better)")
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each monitor (default: 5)")
    parser.add_argument("--document", action="store_true", help="put the table into docs/hvm.md")
    options = parser.parse_args()
    measured = measure(options.runs)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "hypervisor.json").write_text(json.dumps(measured, indent=1) + "\n")
    plot(measured, RESULTS / "hypervisor.svg")
    table = markdown(measured)
    print(table)
    if options.document:
        PUBLISHED.put(table)


if __name__ == "__main__":
    main()
