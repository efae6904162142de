"""The paper's claims on scan before execution (section 3.3), measured again; a part of benchmarks.claims."""

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.prescan.debian import Debian, debian, ramdisk

from benchmarks.prescan import GUESTS, PRIVILEGED, QEMU, build, emulated, monitored, native
from virtus.errors import HostLacks
from virtus.machine.machine_spec import MIB, MachineSpec
from virtus.machine.meter import Report
from virtus.techniques.prescan import Prescan
from virtus.vcpus.scanned.scanner import Scanner

RUNS: Final = 3
WORDS: Final = "console=ttyS0 panic=-1 mitigations=off nokaslr noapic nolapic"
SCRIPT: Final = "i=0; while [ $i -lt 20 ]; do busybox true; i=$((i+1)); done; poweroff -f\n"
COMPUTING: Final = tuple(name for name in GUESTS if name != "nothing" and name not in PRIVILEGED)
# A boot sector that leaves by the keyboard controller's reset line
BOOT_SECTOR: Final = bytes.fromhex("b0fe e664 f4 ebfd").ljust(510, b"\0") + b"\x55\xaa"
PATIENCE_S: Final = 600


@contextmanager
def _timed_scans() -> Iterator[list[int]]:
    """Nanoseconds of every scan while this lasts."""
    took: list[int] = []
    scan: Callable[..., Any] = Scanner.scan

    def timed(self: Scanner, *words: Any) -> Any:
        before = time.perf_counter_ns()
        try:
            return scan(self, *words)
        finally:
            took.append(time.perf_counter_ns() - before)

    Scanner.scan = timed  # type: ignore[assignment,method-assign]
    try:
        yield took
    finally:
        Scanner.scan = scan  # type: ignore[method-assign]


def _boot(spec: dict[str, Any], said: bytes = b"") -> Report:
    """Boot to the end; raises RuntimeError for a guest that has not said this, so that no crash is taken for speed."""
    with tempfile.TemporaryFile() as output:
        report = Prescan().boot(MachineSpec(**spec, console_in=-1, console_out=output.fileno()))
        output.seek(0)
        text = output.read()
    if report.status or said not in text:
        raise RuntimeError(f"the guest ended with {report.status}: {text[-500:]!r}")
    return report


def _under_qemu(guest: Debian, initrd: Path) -> float:
    """Seconds of the same start under QEMU's translator."""
    words = [QEMU, "-accel", "tcg", "-m", "128", "-display", "none", "-serial", "null", "-no-reboot", "-net", "none"]
    words += ["-kernel", str(guest.kernel), "-initrd", str(initrd), "-append", WORDS]
    before = time.perf_counter()
    subprocess.run(words, check=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    return time.perf_counter() - before


def _median(values: list[float], digits: int = 1) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def scan() -> dict[str, str]:
    """What is scanned, stopped and emulated of a whole system's start, and what that takes."""
    guest = debian()
    walls, others = list[float](), list[float]()
    with tempfile.TemporaryDirectory(prefix="virtus-claims-") as name:
        place = Path(name)
        initrd = ramdisk(place / "initrd", guest, SCRIPT)
        for _ in range(RUNS):
            with _timed_scans() as scans:
                spec = {"kernel": guest.kernel, "initrd": initrd, "append": WORDS, "memory": 128 * MIB}
                report = _boot(spec, b"Power down")
            walls.append(report.wall_s)
            if shutil.which(QEMU):
                others.append(_under_qemu(guest, initrd))
        (place / "disk").write_bytes(BOOT_SECTOR + bytes(MIB))
        try:
            firmware: Report | None = _boot({"kernel": place / "disk", "memory": 64 * MIB})
        except HostLacks:
            firmware = None
    meter = report.details
    scanned, planted, seconds = meter["instructions scanned"], meter["breakpoints planted"], sum(scans) / 1e9
    found = {
        "scan system": f"Debian's kernel for i386, as it is, from start to power-off in {_median(walls)} s",
        "scan processes": f"{report.host_processes} ordinary processes",
        "scan instructions": f"{scanned:,} instructions in {meter['scans']:,} scans, "
        f"{meter['deepest scan']} branches deep at most",
        "scan breakpoints": f"{planted:,}, one for {scanned / planted:,.0f} instructions",
        "scan time": f"{seconds:.1f} s of {report.wall_s:.1f} s: {seconds / scanned * 1e6:.1f} µs for an instruction",
        "scan stops": f"{meter['stops']:,} times, for {meter['instructions evaluated']:,} instructions",
    }
    if others:
        ratios = [one / two for one, two in zip(walls, others, strict=True)]
        found["scan system against translation"] = f"{_median(ratios)} times"
    if firmware is not None:
        emulation, direct = firmware.details["emulation us"], firmware.details["direct execution us"]
        found["scan emulated"] = f"{emulation / (emulation + direct):.0%} of the {firmware.wall_s:.1f} s"
    return found


def direct_execution() -> dict[str, str]:
    """Computing that is scanned once and run ten million times, against the processor and QEMU's translator."""
    ways: dict[str, tuple[str, Callable[[Path], None]]] = {
        "prescan": ("guest", monitored), "native": ("native", native)
    }  # fmt: skip
    if shutil.which(QEMU):
        ways["translated"] = ("guest", emulated)
    took: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="virtus-claims-") as name:
        for _ in range(RUNS):
            for guest in ("nothing", *COMPUTING):
                for way, (kind, run) in ways.items():
                    program = build(GUESTS[guest], Path(name), kind)
                    before = time.perf_counter()
                    run(program)
                    took.setdefault((guest, way), []).append(time.perf_counter() - before)

    def computing(way: str) -> float:
        return sum(min(took[guest, way]) - min(took["nothing", way]) for guest in COMPUTING)

    found = {"direct execution native": f"{computing('prescan') / computing('native'):.2f} times as long as natively"}
    if "translated" in ways:
        found["direct execution translated"] = f"{computing('translated') / computing('prescan'):.1f} times as fast"
    return found


CLAIMS: Final = {"scan": scan, "direct-execution": direct_execution}
