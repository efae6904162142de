"""User-mode kernels: what a system call costs, and a compile of real C sources, against all peers that are installed.

usage: python -m benchmarks.usermode [--runs N] [--document | --calls]

Interleaved; medians. Writes benchmarks/results/usermode.json and .svg, and prints tables in Markdown; with --document
into docs/benchmarks.md as well, which say how much of the processors other programs took meanwhile.

Everything is measured twice: where the host's scheduler puts it, and with all of a candidate on one processor.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks import quiet, workloads
from benchmarks.published import DOCS, Published
from virtus.comparison.candidates import Candidate, Place, candidates
from virtus.comparison.compare import Comparison, compare
from virtus.comparison.measure import placed
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.machine.spec import GuestSpec
from virtus.report import plot
from virtus.techniques import registry

PUBLISHED: Final = Published(DOCS / "benchmarks.md", "usermode")
RESULTS = Path(__file__).parent / "results"
CALLS = 20_000
UNKNOWN = 1000  # no system call: `seccomp` notifies its supervisor of it
ONE = frozenset({max(os.sched_getaffinity(0))})
"""The processor of the second pass."""
IN_C = "a supervisor in C that does nothing else"


def per_call(
    runs: int, number: int, names: list[str] | None = None, processors: frozenset[int] | None = None
) -> dict[str, list[float]]:
    """Microseconds for each call, by candidate, `runs` rounds in turn."""
    loop = str(workloads.call_loop())
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="virtus-benchmark-") as name:
        place = Place(Path(name))
        place.clean()
        spec = GuestSpec(argv=[loop, str(CALLS), str(number)])
        runnable, _ = candidates(spec, place, names)
        for number_of_round in range(runs):
            turn = number_of_round % len(runnable)
            for candidate in runnable[turn:] + runnable[:turn]:
                place.clean()
                value = _once(candidate, processors)
                if value is not None:
                    figures.setdefault(candidate.name, []).append(value)
    return figures


def _once(candidate: Candidate, processors: frozenset[int] | None) -> float | None:
    environment = {**os.environ}
    with placed(processors):
        done = subprocess.run(candidate.command(), capture_output=True, input=b"", env=environment, check=False)
    stdout, _, _ = candidate.outcome(done.stdout, done.stderr, done.returncode)
    try:
        return float(stdout.split()[-1])
    except (IndexError, ValueError):
        return None  # this peer could not run it


def notified(runs: int, processors: frozenset[int] | None = None) -> dict[str, list[float]]:
    """Microseconds for each notified call: answered by `seccomp`, and by the least supervisor that C can make."""
    figures: dict[str, list[float]] = {"seccomp": [], IN_C: []}
    command = [str(workloads.notified()), str(CALLS), str(UNKNOWN)]
    for _ in range(runs):
        figures["seccomp"] += per_call(1, UNKNOWN, ["seccomp"], processors)["seccomp"]
        with placed(processors):
            figures[IN_C].append(float(subprocess.run(command, capture_output=True, check=True).stdout))
    return figures


def compile_comparison(runs: int, processors: frozenset[int] | None = None) -> Comparison:
    """Lua under everything."""
    spec = GuestSpec(argv=[str(workloads.compile_lua())])
    return compare(replace(spec, cwd=os.getcwd()), runs=runs, processors=processors)


def measured(runs: int, processors: frozenset[int] | None = None) -> tuple[Comparison, dict[str, Any]]:
    """The compile and the loops; the compile's comparison as it is, too, for its picture."""
    compiled = compile_comparison(runs, processors)
    return compiled, {"compile": compiled.as_json(), **_calls(runs, processors)}


def _calls(runs: int, processors: frozenset[int] | None) -> dict[str, Any]:
    getpid = per_call(runs, NUMBERS["getpid"], None, processors)
    return {"getpid_us": getpid, "notified_us": notified(runs, processors)}


def markdown(figures: dict[str, Any]) -> str:
    """The tables of docs/benchmarks.md."""
    lines = [
        f"{figures['runs']} runs each, on {figures['processors']} processors ({figures['model']}), "
        f"Linux {figures['kernel']}. Other programs took {figures['others']:.0%} of the processors meanwhile"
        + (": these figures are not those of an idle machine." if figures["others"] > quiet.MOST else "."),
    ]
    lines += ["", "### Where the host's scheduler puts it", "", *_tables(figures["spread"])]
    lines += ["", "### All of a candidate on one processor", "", *_tables(figures["together"])]
    return "\n".join(lines)


def _tables(figures: dict[str, Any]) -> list[str]:
    compiled = figures["compile"]
    lines = [
        f"Compile: {compiled['calls']:,} system calls." if compiled["calls"] else "Compile:",
        "",
        "| | wall s | x native (min-max) | CPU x native | switches per call | host processes | same output |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in compiled["results"]:
        ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})"
        switches = "-" if row["switches_per_call"] is None else f"{row['switches_per_call']:.2f}"
        cells = (f"{row['wall_s']:.2f}", ratio, f"{row['cpu_ratio']:.2f}", switches, row["processes"])
        lines.append(f"| {row['name']} | {' | '.join(map(str, cells))} | {'yes' if row['same_output'] else 'no'} |")
    return [*lines, "", "One system call, in a loop:", "", *_call_table(figures)]


def _call_table(figures: dict[str, Any]) -> list[str]:
    lines = ["| | µs (min-max) |", "|---|---|"]
    for name, values in figures["getpid_us"].items():
        lines.append(f"| {name}, getpid | {_spread(values)} |")
    for name, values in figures["notified_us"].items():
        if name != "native":
            lines.append(f"| {name}, a notified call | {_spread(values)} |")
    return lines


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each (default: 5)")
    parser.add_argument("--document", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--calls", action="store_true", help="only print what calls take on one processor: a minute")
    options = parser.parse_args()
    if shutil.which("gcc") is None:
        parser.error("gcc is not installed: apt-get install gcc libc6-dev")
    RESULTS.mkdir(exist_ok=True)
    others = quiet.Others()
    if options.calls:
        print(
            "\n".join(_call_table(_calls(options.runs, ONE))), f"\nOther programs took {others.share():.0%} meanwhile."
        )
        return
    compiled, spread = measured(options.runs)
    _, together = measured(options.runs, ONE)
    figures: dict[str, Any] = {
        **quiet.machine(),
        "runs": options.runs,
        "others": others.share(),
        "spread": spread,
        "together": together,
    }
    (RESULTS / "usermode.json").write_text(json.dumps(figures, indent=1) + "\n")
    plot.plot(compiled, RESULTS / "usermode.svg", frozenset(registry.names()))
    print(markdown(figures))
    if options.document:
        PUBLISHED.put(markdown(figures))


if __name__ == "__main__":
    main()
