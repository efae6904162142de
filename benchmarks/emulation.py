"""Emulation: programs for riscv64 under virtus, qemu-riscv64 and Unicorn, and the IBM 7070 interpreted and translated.

usage: python -m benchmarks.emulation [--runs N] [--only NAME,...] [--document]

Interleaved; medians. Writes benchmarks/results/emulation.json and .svg, and prints tables in Markdown; with --document
into docs/emulation.md as well, which say how much of the processors other programs took meanwhile.
"""

import argparse
import fcntl
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import emulated_programs, emulation_report, quiet
from benchmarks.emulated_programs import STEADY, NotBuildable
from benchmarks.installed import virtus
from virtus.comparison.measure import Run, measure
from virtus.guests import elf
from virtus.techniques import registry
from virtus.techniques.peers import registry as peers

RESULTS: Final = Path(__file__).parent / "results"
CACHE_VARIABLE: Final = "VIRTUS_CACHE"
OURS, COLD, QEMU = "emulation", "emulation, nothing kept", "qemu-riscv64"
INTERPRETED, INTERPRETED_STACK = "interpreted", 1 << 16
MOST_WARMING, KEPT_WITHIN_S = 20, 2.0
"""Runs before any that counts; seconds until a run's translations have been written after its end."""
FIRST_OUTPUT: Final = ("toolbox", "sql", "select 6 * 7")


class Different(Exception):
    """A candidate's guest printed something else, or ended otherwise."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a program: its command, and where translations are kept."""

    name: str
    command: Callable[[str, tuple[str, ...]], list[str]]  # of a program's name and its words
    empty: bool = False  # every run finds an empty cache of translations
    share: int = 1  # a slow one works only so many times less; its whole runs are not compared


def _virtus(name: str, words: tuple[str, ...]) -> list[str]:
    program = str(emulated_programs.build(name))
    return virtus("run", "--with", "emulation", "--", program, *words)


def _native(name: str, words: tuple[str, ...]) -> list[str]:
    return [str(emulated_programs.build(name, "x86_64")), *words]


def _qemu(name: str, words: tuple[str, ...]) -> list[str]:
    return ["qemu-riscv64", str(emulated_programs.build(name)), *words]


def _unicorn(name: str, words: tuple[str, ...]) -> list[str]:
    runner = "virtus.techniques.peers.unicorn_riscv64"
    return [sys.executable, "-P", "-m", runner, str(emulated_programs.build(name)), *words]


ALL: Final = (
    Candidate("native", _native),
    Candidate(QEMU, _qemu),
    Candidate("unicorn-riscv64", _unicorn, share=12),
    Candidate(OURS, _virtus),
    Candidate(COLD, _virtus, empty=True),
)


def present() -> tuple[list[Candidate], dict[str, str]]:
    """Those that work here, and the others with the reason."""
    found, missing = [], {}
    for candidate in ALL:
        peer = next((peer for peer in peers.PEERS if peer.name == candidate.name), None)
        state = peer.probe() if peer is not None else registry.get(OURS).probe()
        if state.works:
            found.append(candidate)
        else:
            missing[candidate.name] = state.reason
    return found, missing


class Caches:
    """A cache of translations that lasts for the benchmark, and empty ones."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._number = 0

    def environment(self, *, empty: bool) -> Mapping[str, str]:
        """With the cache that this run is to use."""
        self._number += empty
        place = self._base / (f"empty-{self._number}" if empty else "kept")
        place.mkdir(mode=0o700, exist_ok=True)
        return {**os.environ, CACHE_VARIABLE: str(place)}


def warm(candidate: Candidate, name: str, caches: Caches, base: Path) -> int:
    """Run a program until what is kept of its translations no longer grows; how often that was. Else its steady state
    would be measured while its code is still being made."""
    before = -1
    for run in range(MOST_WARMING):
        environment = caches.environment(empty=False)
        measure(candidate.command(name, (str(STEADY[name]),)), environment, base)
        _settle(Path(environment[CACHE_VARIABLE]))
        size = sum(file.stat().st_size for file in Path(environment[CACHE_VARIABLE]).iterdir())
        if size == before:
            return run + 1
        before = size
    return MOST_WARMING


def _settle(cache: Path) -> None:
    """Wait until nobody adds to a cache any more: who finishes a unit after its guest's end has it locked."""
    time.sleep(KEPT_WITHIN_S)
    descriptor = os.open(cache, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def steady_us(stderr: bytes) -> float:
    """Microseconds of a round, once the program runs as it will: the median of the second half of its rounds."""
    rounds = [int(line.split()[2]) for line in stderr.splitlines() if line.startswith(b"round ")]
    return statistics.median(rounds[len(rounds) // 2 :])


def measured(name: str, runs: int, candidates: list[Candidate], caches: Caches, base: Path) -> dict[str, Any]:
    """One program under all, `runs` rounds in turn after one that does not count."""
    figures: dict[str, dict[str, list[float]]] = {
        candidate.name: {"round_us": [], "whole_s": []} for candidate in candidates
    }
    printed: dict[str, tuple[bytes, int]] = {}
    warming = next((warm(candidate, name, caches, base) for candidate in candidates if candidate.name == OURS), 0)
    for turn in range(runs + 1):
        at = turn % len(candidates)
        for candidate in candidates[at:] + candidates[:at]:
            environment = caches.environment(empty=candidate.empty)
            rounds = max(2, STEADY[name] // candidate.share)
            run: Run = measure(candidate.command(name, (str(rounds),)), environment, base)
            printed[candidate.name] = (run.stdout, run.status)
            if len(set(printed.values())) > 1 or run.status:
                last = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
                raise Different(f"{name} under {candidate.name}: {printed}: {last}")
            if turn:
                figures[candidate.name]["round_us"].append(steady_us(run.stderr))
                if candidate.share == 1:
                    figures[candidate.name]["whole_s"].append(run.wall_s)
    return {"rounds": STEADY[name], "warming": warming, "candidates": figures}


def start_s(command: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds until a command's first byte of output, and to its end."""
    begin = time.perf_counter()
    with subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        first = time.perf_counter() - begin
        process.stdout.read()
        status = process.wait()
        whole = time.perf_counter() - begin
    if status:
        raise Different(f"{' '.join(command)}: exit status {status}")
    return first, whole


def starts(runs: int, candidates: list[Candidate], caches: Caches) -> dict[str, Any]:
    """How long the least program takes in all, and a large one until it prints."""
    guests = {"hello": ("hello", ()), "first output": (FIRST_OUTPUT[0], FIRST_OUTPUT[1:])}
    figures: dict[str, Any] = {}
    for label, (name, words) in guests.items():
        found: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
        for turn in range(runs + 1):
            at = turn % len(candidates)
            for candidate in candidates[at:] + candidates[:at]:
                environment = caches.environment(empty=candidate.empty)
                first, whole = start_s(candidate.command(name, words), environment)
                if turn:
                    found[candidate.name].append(whole if name == "hello" else first)
        figures[label] = found
    return figures


def instructions(name: str) -> int:
    """How many instructions a riscv64 program's executable segments have (unprivileged ISA, 1.5: their lengths)."""
    data = emulated_programs.build(name).read_bytes()
    count = 0
    for segment in elf.parse(data[:4096], len(data)).segments:
        if segment.flags & elf.PF_X:
            at, end = segment.offset, segment.offset + segment.file_size
            while at < end:
                at += 4 if data[at] & 3 == 3 else 2
                count += 1
    return count


def interpreted(runs: int) -> list[float]:
    """Instructions a second that the interpreter carries out by itself."""
    from virtus.isa.riscv64 import RISCV64
    from virtus.vcpus.interpreter.evaluator import Evaluator
    from virtus.vcpus.interpreter.memory import FlatMemory
    from virtus.vcpus.translator import layout

    data = emulated_programs.build(INTERPRETED).read_bytes()
    program = elf.parse(data[:4096], len(data))
    low, high = program.span
    rates = []
    for _ in range(runs):
        memory = FlatMemory(low, bytearray(high - low + INTERPRETED_STACK))
        for segment in program.segments:
            at = segment.address - low
            memory.data[at : at + segment.file_size] = data[segment.offset : segment.offset + segment.file_size]
        registers = [0] * 128
        registers[2] = high + INTERPRETED_STACK  # sp
        registers[layout.PC] = program.entry
        begin = time.perf_counter()
        executed, outcome = Evaluator(RISCV64, registers, memory).run(1 << 40)
        rates.append(executed / (time.perf_counter() - begin))
        if outcome != layout.EXIT_SYSCALL:
            raise Different(f"{INTERPRETED} came out for {outcome}")
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each (default: 5)")
    parser.add_argument("--only", metavar="NAME,...", help=f"only these programs of {', '.join(STEADY)}")
    parser.add_argument("--document", action="store_true", help="put the tables into docs/emulation.md")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(STEADY)
    unknown = [name for name in names if name not in STEADY]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    candidates, missing = present()
    try:
        for name in ("hello", FIRST_OUTPUT[0], INTERPRETED, *names):
            for machine in emulated_programs.PROGRAMS[name].machines:
                emulated_programs.build(name, machine)
    except NotBuildable as error:
        parser.error(str(error))
    RESULTS.mkdir(exist_ok=True)
    others = quiet.Others()
    with tempfile.TemporaryDirectory(prefix="virtus-benchmark-") as directory:
        base = Path(directory)
        caches = Caches(base)
        programs = {}
        for name in names:
            programs[name] = measured(name, options.runs, candidates, caches, base)
            print(emulation_report.line(name, programs[name]), file=sys.stderr)
        begun = starts(options.runs, candidates, caches)
    figures = {
        **quiet.machine(),
        "runs": options.runs,
        "others": others.share(),
        "missing": missing,
        "programs": programs,
        "starts": begun,
        "interpreted": interpreted(options.runs),
        "first_output_instructions": instructions(FIRST_OUTPUT[0]),
    }
    (RESULTS / "emulation.json").write_text(json.dumps(figures, indent=1) + "\n")
    emulation_report.plot(figures, RESULTS / "emulation.svg")
    text = emulation_report.markdown(figures)
    print(text)
    if options.document:
        emulation_report.PUBLISHED.put(text)


if __name__ == "__main__":
    main()
