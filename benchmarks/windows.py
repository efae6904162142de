"""Windows programs under virtus, Wine and as Linux builds: their start, what calls cost, and real jobs.

usage: python -m benchmarks.windows [--runs N] [--only NAME,...] [--document]

Interleaved; medians. Writes benchmarks/results/windows.json and .svg, and prints tables in Markdown; with --document
into docs/windows.md as well. Wine has its server running. Programs are those of tests/win32/programs.py.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.win32.programs import PROGRAMS, Program, fetched

from benchmarks import quiet
from benchmarks.installed import virtus
from benchmarks.published import DOCS, Published
from virtus.comparison.measure import measure
from virtus.machine.spec import GuestSpec
from virtus.techniques import registry
from virtus.techniques.peers import wine

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results"
PUBLISHED: Final = Published(DOCS / "windows.md", "windows")
WRAPPER, EMULATION, WINE, LINUX = "api-wrapper", "api-emulation", "wine", "Linux build"
ORDER: Final = (WRAPPER, EMULATION, WINE, LINUX)
COMPILER: Final = "x86_64-w64-mingw32-gcc"
TREE: Final = ("src", "tests", "benchmarks", "docs")
"""What real jobs work on: several copies of this project's own files."""
COPIES: Final = 4
HELLO: Final = "hello"
CALLS, ROUNDS = "200000", "5000"
JOBS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "ripgrep": ("ripgrep", ("-c", "--sort", "path", "def |return", ".")),
    "ruff": ("ruff", ("check", "--no-cache", "--isolated", "--select", "ALL", "--exit-zero", "-q", ".")),
    "7z": ("7za", ("a", "-mx3", "-bd", "-bso0", "made.7z", "0")),
    "esbuild": ("esbuild", ("all.ts", "--minify", "--outfile=all.js", "--log-level=error")),
}
SLOW: Final = frozenset({"ruff", "7z"})
"""Jobs that take minutes with emulated instructions: left out there."""


def built(directory: Path, source: str) -> Path:
    """A C program compiled for Windows."""
    program = directory / f"{Path(source).stem}.exe"
    subprocess.run([COMPILER, "-O2", HERE / "programs" / source, "-o", program, "-lsynchronization"], check=True)
    return program


def candidates() -> tuple[list[str], dict[str, str]]:
    """Those that work here, and the others with the reason."""
    missing = {}
    for name in ORDER[:-1]:
        if name == WINE:
            state = wine.probe()
        elif name in registry.names():
            state = registry.get(name).probe()
        else:
            missing[name] = "not built yet"
            continue
        if not state.works:
            missing[name] = state.reason
    return [name for name in ORDER if name not in missing], missing


def command(name: str, program: Path, linux: Path | None, words: tuple[str, ...], cwd: Path) -> list[str]:
    """The command line of a candidate, to be run in `cwd`."""
    there = ["sh", "-c", 'cd "$0" && exec "$@"', str(cwd)]
    if name == LINUX:
        return [*there, str(linux), *words]
    if name == WINE:
        return [*there, *wine.command(GuestSpec(argv=[str(program), *words]))]
    options = ["--volume", f"{cwd}:{cwd}"]
    return [*there, *virtus("run", "--with", name, *options, "--", str(program), *words)]


def interleaved(runs: int, names: list[str], make: Callable[[str], list[str]], cwd: Path) -> dict[str, list[float]]:
    """Seconds of each run after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(runs + 1):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            run = measure(make(name), os.environ, cwd)
            if run.status:
                last = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
                raise SystemExit(f"{name}: {make(name)}: exit status {run.status}: {last}")
            if turn:
                found[name].append(run.wall_s)
    return found


def calls(runs: int, names: list[str], program: Path, cwd: Path) -> dict[str, dict[str, float]]:
    """Nanoseconds of each function and loop, by who runs the program: medians."""
    figures: dict[str, dict[str, list[float]]] = {}
    for _ in range(runs):
        for name in names:
            run = measure(command(name, program, None, (CALLS, ROUNDS, "."), cwd), os.environ, cwd)
            for line in run.stdout.decode().splitlines():
                label, _, value = line.rpartition(" ")
                if not label.startswith("check "):
                    figures.setdefault(name, {}).setdefault(label, []).append(float(value))
    return {name: {label: statistics.median(v) for label, v in rows.items()} for name, rows in figures.items()}


def lay_out(place: Path) -> None:
    """The tree that jobs work on."""
    root = HERE.parent
    for number in range(COPIES):
        for name in TREE:
            ignored = shutil.ignore_patterns("__pycache__", "results", "*.png")
            shutil.copytree(root / name, place / str(number) / name, ignore=ignored)
    text = "".join(f"export const f{i} = (a: number): number => a * {i} + (a > {i} ? 1 : 2);\n" for i in range(60_000))
    (place / "all.ts").write_text(text)


def table(figures: dict[str, Any]) -> str:
    """Markdown."""
    names = figures["candidates"]
    lines = [f"| medians of {figures['runs']} runs, ms | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for job, found in figures["jobs"].items():
        cells = [f"{1e3 * statistics.median(found[name]):,.0f}" if found.get(name) else "-" for name in names]
        lines.append(f"| {job} | " + " | ".join(cells) + " |")
        if job != HELLO and figures["jobs"].get(HELLO):
            lines.append(f"| {job} less {HELLO} | " + " | ".join(without_start(figures["jobs"], job, names)) + " |")
    who = list(figures["calls"])
    lines += ["", "| ns | " + " | ".join(who) + " |", "|---" * (len(who) + 1) + "|"]
    for label in figures["calls"][who[0]] if who else ():
        cells = [f"{figures['calls'][name][label]:,.1f}" for name in who]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"On {figures['model']}, {figures['processors']} processors; others took {figures['others']:.0%} of them.",
    ]
    return "\n".join(lines)


def without_start(jobs: dict[str, dict[str, list[float]]], job: str, names: list[str]) -> list[str]:
    """Cells of what a job took beyond the least program's run; a Linux build's own start is in its figure."""
    cells = []
    for name in names:
        start = statistics.median(jobs[HELLO].get(name) or [0.0])
        cells.append(f"{1e3 * (statistics.median(jobs[job][name]) - start):,.0f}" if jobs[job].get(name) else "-")
    return cells


def plot(figures: dict[str, Any], path: Path) -> None:
    """Jobs as multiples of Wine's time, a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = [name for name in figures["candidates"] if name != WINE]
    jobs = [job for job, found in figures["jobs"].items() if found.get(WINE)]
    if not jobs:
        return
    figure, axes = pyplot.subplots(figsize=(8.4, 1.6 + 0.6 * len(jobs)), layout="constrained")
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        places, widths = [], []
        for row, job in enumerate(jobs):
            found = figures["jobs"][job]
            if found.get(name):
                places.append(row + index * height)
                widths.append(statistics.median(found[name]) / statistics.median(found[WINE]))
        axes.barh(places, widths, height=height * 0.9, label=name)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(jobs))], jobs)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("time as a multiple of Wine's, its server running")
    axes.legend()
    figure.savefig(path)


def run(runs: int, only: list[str]) -> dict[str, Any]:
    """All figures."""
    names, missing = candidates()
    windows = [name for name in names if name != LINUX]
    others = quiet.Others()
    jobs: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="virtus-benchmark-") as directory:
        place = Path(directory)
        costs: dict[str, dict[str, float]] = {}
        if "hello" in only:
            hello = built(place, "hello.c")
            jobs["hello"] = interleaved(runs, windows, lambda name: command(name, hello, None, (), place), place)
        if "calls" in only:
            costs = calls(runs, windows, built(place, "windows_calls.c"), place)
        lay_out(place)
        for job, (label, words) in JOBS.items():
            if job not in only:
                continue
            program: Program = next(found for found in PROGRAMS if found.name == label)
            exe = fetched(program.windows, program.exe, windows=True)
            elf = fetched(program.linux, program.elf, windows=False)
            able = [name for name in names if not (name == EMULATION and job in SLOW)]
            (place / "made.7z").unlink(missing_ok=True)

            def make(name: str, exe: Path = exe, elf: Path = elf, words: tuple[str, ...] = words) -> list[str]:
                (place / "made.7z").unlink(missing_ok=True)
                return command(name, exe, elf, words, place)

            jobs[job] = interleaved(runs, able, make, place)
            print(job, {name: statistics.median(found) for name, found in jobs[job].items()}, file=sys.stderr)
    return {
        **quiet.machine(), "runs": runs, "others": others.share(), "candidates": names, "missing": missing,
        "jobs": jobs,
        "calls": costs,
    }  # fmt: skip


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each (default: 5)")
    parser.add_argument("--only", metavar="NAME,...", help=f"only these of hello, calls, {', '.join(JOBS)}")
    parser.add_argument("--document", action="store_true", help="put the tables into docs/windows.md")
    options = parser.parse_args()
    if shutil.which(COMPILER) is None:
        parser.error(f"{COMPILER} is not installed: apt-get install gcc-mingw-w64-x86-64")
    figures = run(options.runs, options.only.split(",") if options.only else ["hello", "calls", *JOBS])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "windows.json").write_text(json.dumps(figures, indent=1) + "\n")
    plot(figures, RESULTS / "windows.svg")
    text = table(figures)
    print(text)
    if options.document:
        PUBLISHED.put(text)


if __name__ == "__main__":
    main()
