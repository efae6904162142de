"""The paper's claims on User Mode Linux (sections 3.1 and 3.2), measured again on uml-tt and uml-skas; and those on
emulation (2.1), Windows programs (2.2), scan before execution (3.3) and paravirtualization (3.4), which
`emulation_claims`, `windows_claims`, `prescan_claims` and `paravirt_claims` measure.

usage: python -m benchmarks.claims [--document] [CLAIM ...]   default: all of
  architecture, instructions, direct, first-output (2.1), windows (2.2), switches, speed, processes, memory (3.1, 3.2),
  scan, direct-execution (3.3), paravirt (3.4)

With --document the figures also go into docs/claims.md, to the marks there that have their names.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import emulation_claims, paravirt_claims, prescan_claims, quiet, windows_claims, workloads
from benchmarks.emulated_programs import NotBuildable
from benchmarks.installed import virtus
from virtus.comparison.tree import descendants
from virtus.isa.x86.linux_calls import NUMBERS

DOCUMENT = Path(__file__).parent.parent / "docs" / "claims.md"
PAIR = ("uml-tt", "uml-skas")
RUNS = 3


def run(technique: str, *argv: str) -> dict[str, Any]:
    """Run a guest; its meter."""
    with tempfile.TemporaryDirectory(prefix="virtus-claims-") as directory:
        report = Path(directory) / "meter.json"
        command = virtus("run", "--with", technique, "--meter-json", str(report), "--", *argv)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        data: dict[str, Any] = json.loads(report.read_text())
        return data


def switches() -> dict[str, str]:
    """Four context switches for each system call in TT mode, two in SKAS mode: the host's own counters."""
    loop = str(workloads.call_loop())
    found = {}
    for technique in PAIR:
        few, many = (run(technique, loop, str(calls), str(NUMBERS["getpid"])) for calls in (1_000, 21_000))
        found[f"switches {technique}"] = f"{(many['context_switches'] - few['context_switches']) / 20_000:.2f}"
    return found


def speed() -> dict[str, str]:
    """SKAS about twice as fast as TT, by compiling."""
    compile_lua = str(workloads.compile_lua())
    walls: dict[str, list[float]] = {name: [] for name in PAIR}
    run(PAIR[1], compile_lua)  # the compiler comes into the host's page cache
    for number in range(RUNS):
        for technique in PAIR if number % 2 else PAIR[::-1]:
            walls[technique].append(run(technique, compile_lua)["wall_s"])
    ratios = [slow / fast for slow, fast in zip(walls["uml-tt"], walls["uml-skas"], strict=True)]
    return {"speed": f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"}


def processes() -> dict[str, str]:
    """Each guest process a host process; with SKAS four in all."""
    found = {}
    for technique in PAIR:
        counts = []
        for sleepers in (1, 11):
            script = "i=0; while [ $i -lt $1 ]; do sleep 30 & i=$((i+1)); done; echo ready; wait"
            command = virtus("run", "--with", technique, "--", "sh", "-c", script, "sh")
            process = subprocess.Popen([*command, str(sleepers)], stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.3)
            counts.append(len(descendants(process.pid)))
            process.terminate()
            process.wait()
            process.stdout.close()
        each = (counts[1] - counts[0]) / 10
        found[f"processes {technique}"] = f"{counts[0] - 2 * each:.0f} + {each:.0f} for each guest process"
    return found


def memory() -> dict[str, str]:
    """No memory of the host's in the guest's reach with SKAS."""
    found = {}
    for technique in PAIR:
        command = virtus("run", "--with", technique, "--", "sh", "-c", "echo ready; read x")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        foreign = {_foreign_pages(pid) for pid in descendants(process.pid) if _is_stub(pid)}
        process.stdin.close()
        process.wait()
        process.stdout.close()
        found[f"foreign pages {technique}"] = str(max(foreign))
    return found


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


CLAIMS = {
    **emulation_claims.CLAIMS,
    "windows": windows_claims.windows,
    "switches": switches,
    "speed": speed,
    "processes": processes,
    "memory": memory,
    **prescan_claims.CLAIMS,
    **paravirt_claims.CLAIMS,
}


def document(found: dict[str, str]) -> None:
    """Put figures between the marks of their names."""
    text = DOCUMENT.read_text()
    for name, figure in found.items():
        text = re.sub(f"(<!-- {name} -->).*?(<!-- / -->)", rf"\g<1>{figure}\g<2>", text)
    DOCUMENT.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--document", action="store_true", help="put the figures into docs/claims.md")
    parser.add_argument("claims", nargs="*", choices=[*CLAIMS, []], default=[])
    options = parser.parse_args()
    others = quiet.Others()
    for claim in options.claims or CLAIMS:
        try:
            found = CLAIMS[claim]()
        except NotBuildable as error:
            parser.error(f"{claim}: {error}")
        for name, figure in found.items():
            print(f"{name}: {figure}", flush=True)
        if options.document:
            document(found)
    if (share := others.share()) > quiet.MOST:
        print(f"Other programs took {share:.0%} of the processors: measure again when they are done.", file=sys.stderr)


if __name__ == "__main__":
    main()
