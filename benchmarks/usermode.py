"""User-mode kernels: what a system call costs, and a compile of real C sources, against all peers that are installed.

usage: python -m benchmarks.usermode [--runs N]

Interleaved; medians. Writes benchmarks/results/usermode.json and .svg, and prints tables in Markdown.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import workloads
from virtus.comparison.candidates import Candidate, Place, candidates
from virtus.comparison.compare import Comparison, compare
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.machine.spec import GuestSpec
from virtus.report import plot
from virtus.techniques import registry

RESULTS = Path(__file__).parent / "results"
CALLS = 20_000
UNKNOWN = 1000  # no system call: `seccomp` notifies its supervisor of it


def per_call(runs: int, number: int, names: list[str] | None = None) -> dict[str, list[float]]:
    """Microseconds for each call, by candidate, `runs` rounds in turn."""
    loop = str(workloads.call_loop())
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="virtus-benchmark-") as name:
        place = Place(Path(name))
        place.clean()
        spec = GuestSpec(argv=[loop, str(CALLS), str(number)])
        runnable, _ = candidates(spec, place, names)
        for _ in range(runs):
            for candidate in runnable:
                place.clean()
                value = _once(candidate)
                if value is not None:
                    figures.setdefault(candidate.name, []).append(value)
    return figures


def _once(candidate: Candidate) -> float | None:
    environment = {**os.environ}
    done = subprocess.run(candidate.command(), capture_output=True, input=b"", env=environment, check=False)
    stdout, _ = candidate.outcome(done.stdout, done.returncode)
    try:
        return float(stdout.split()[-1])
    except (IndexError, ValueError):
        return None  # this peer could not run it


def compile_comparison(runs: int) -> Comparison:
    """Lua under everything."""
    spec = GuestSpec(argv=[str(workloads.compile_lua())])
    return compare(replace(spec, cwd=os.getcwd()), runs=runs)


def markdown(figures: dict[str, Any]) -> str:
    """The tables for docs/benchmarks.md."""
    lines = ["| | wall s | x native (min-max) | CPU x native | same output |", "|---|---|---|---|---|"]
    for row in figures["compile"]["results"]:
        ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})"
        same = "yes" if row["same_output"] else "no"
        lines.append(f"| {row['name']} | {row['wall_s']:.2f} | {ratio} | {row['cpu_ratio']:.2f} | {same} |")
    lines += ["", "| | getpid, µs (min-max) |", "|---|---|"]
    for name, values in figures["getpid_us"].items():
        lines.append(f"| {name} | {statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f}) |")
    notified = figures["notified_us"]["seccomp"]
    lines.append(
        f"| seccomp, a notified call | {statistics.median(notified):.2f} ({min(notified):.2f}-{max(notified):.2f}) |"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each (default: 5)")
    runs = parser.parse_args().runs
    RESULTS.mkdir(exist_ok=True)
    compiled = compile_comparison(runs)
    figures = {
        "processors": os.cpu_count(),
        "kernel": os.uname().release,
        "runs": runs,
        "compile": compiled.as_json(),
        "getpid_us": per_call(runs, NUMBERS["getpid"]),
        "notified_us": per_call(runs, UNKNOWN, ["seccomp"]),
    }
    (RESULTS / "usermode.json").write_text(json.dumps(figures, indent=1) + "\n")
    plot.plot(compiled, RESULTS / "usermode.svg", frozenset(registry.names()))
    print(markdown(figures))


if __name__ == "__main__":
    main()
