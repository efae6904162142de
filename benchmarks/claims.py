"""The paper's claims on User Mode Linux (sections 3.1 and 3.2), measured again on uml-tt and uml-skas.

usage: python -m benchmarks.claims [CLAIM ...]      CLAIM: switches, speed, processes, memory (default: all)
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import workloads
from virtus.comparison.measure import descendants
from virtus.isa.x86.linux_calls import NUMBERS

PAIR = ("uml-tt", "uml-skas")
RUNS = 3


def run(technique: str, *argv: str) -> dict[str, Any]:
    """Run a guest; its meter."""
    with tempfile.TemporaryDirectory(prefix="virtus-claims-") as directory:
        report = Path(directory) / "meter.json"
        command = [sys.executable, "-m", "virtus", "run", "--with", technique, "--meter-json", str(report), "--", *argv]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        data: dict[str, Any] = json.loads(report.read_text())
        return data


def switches() -> str:
    """Four context switches for each system call in TT mode, two in SKAS mode: the host's own counters."""
    loop = str(workloads.call_loop())
    rows = []
    for technique in PAIR:
        few, many = (run(technique, loop, str(calls), str(NUMBERS["getpid"])) for calls in (1_000, 21_000))
        rows.append(f"{technique} {(many['context_switches'] - few['context_switches']) / 20_000:.2f}")
    return "context switches per system call: " + ", ".join(rows)


def speed() -> str:
    """SKAS about twice as fast as TT, by compiling."""
    compile_lua = str(workloads.compile_lua())
    walls: dict[str, list[float]] = {name: [] for name in PAIR}
    for _ in range(RUNS):
        for technique in PAIR:
            walls[technique].append(run(technique, compile_lua)["wall_s"])
    ratios = [slow / fast for slow, fast in zip(walls["uml-tt"], walls["uml-skas"], strict=True)]
    return f"compile, uml-tt over uml-skas: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def processes() -> str:
    """Each guest process a host process; with SKAS four in all."""
    rows = []
    for technique in PAIR:
        counts = []
        for sleepers in (1, 11):
            script = "i=0; while [ $i -lt $1 ]; do sleep 30 & i=$((i+1)); done; echo ready; wait"
            command = [sys.executable, "-m", "virtus", "run", "--with", technique, "--", "sh", "-c", script, "sh"]
            process = subprocess.Popen([*command, str(sleepers)], stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.3)
            counts.append(len(descendants(process.pid)))
            process.terminate()
            process.wait()
            process.stdout.close()
        each = (counts[1] - counts[0]) / 10
        rows.append(f"{technique} {counts[0] - 2 * each:.0f} + {each:.0f} for each guest process")
    return "host processes: " + ", ".join(rows)


def memory() -> str:
    """No memory of the host's in the guest's reach with SKAS."""
    rows = []
    for technique in PAIR:
        command = [sys.executable, "-m", "virtus", "run", "--with", technique, "--", "sh", "-c", "echo ready; read x"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        foreign = {_foreign_pages(pid) for pid in descendants(process.pid) if _is_stub(pid)}
        process.stdin.close()
        process.wait()
        process.stdout.close()
        rows.append(f"{technique} {max(foreign)}")
    return "pages in a guest address space that are not the guest's (the stub's code): " + ", ".join(rows)


def _maps(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line for line in lines if "[vsyscall]" not in line]


def _is_stub(pid: int) -> bool:
    return any(line.startswith("7fffffffe000-") for line in _maps(pid))


def _foreign_pages(pid: int) -> int:
    """Pages of the vDSO, of the stub, and of anything above the guest's own range."""
    count = 0
    for line in _maps(pid):
        first, last = (int(word, 16) for word in line.split()[0].split("-"))
        if first >= 0x7FFFFFFFE000 or line.endswith(("[vdso]", "[vvar]", "[heap]", "[stack]")):
            count += (last - first) // 4096
    return count


CLAIMS = {"switches": switches, "speed": speed, "processes": processes, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", choices=[*CLAIMS, []], default=[])
    for name in parser.parse_args().claims or CLAIMS:
        print(CLAIMS[name]())


if __name__ == "__main__":
    main()
