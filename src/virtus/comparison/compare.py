"""Rounds of runs: every candidate once a round, in an order that rotates; ratios are formed within a round."""

import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from virtus.comparison import machines
from virtus.comparison.candidates import SCRATCH, Candidate, Place, candidates
from virtus.comparison.guardian import Guardian
from virtus.comparison.measure import Run, measure
from virtus.errors import UsageError
from virtus.machine.machine_spec import MachineSpec
from virtus.machine.spec import GuestSpec
from virtus.records import dataclass, field, replace

VERSION = 1
LINE = 80
"""Characters of a line of output that a message shows."""
COUNTING = ("uml-skas", "uml-tt", "emulation")
"""Techniques that see every system call of the guest."""
Progress = Callable[[int, int, str], None]


@dataclass(slots=True)
class Result:
    """A candidate's figures over all counted rounds; medians where nothing else is said."""

    name: str
    wall_s: float
    wall_all_s: list[float]
    cpu_s: float
    ratio: float
    ratio_min: float
    ratio_max: float
    cpu_ratio: float
    exits_per_s: float | None
    switches: float
    switches_per_call: float | None
    processes: int
    status: int
    same_output: bool
    difference: str = ""  # from native's output or status, in one line
    notes: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Comparison:
    """Everything `virtus compare` has to say."""

    guest: list[str]
    rounds: int
    results: list[Result]
    missing: list[tuple[str, str]]
    calls: int | None  # system calls the guest makes, where a technique has counted them
    reference: str = "native"  # whose times the ratios are multiples of

    def as_json(self) -> dict[str, Any]:
        """Plain data with a version."""
        return {"version": VERSION, **asdict(self)}


def compare(
    spec: GuestSpec,
    *,
    wanted: Sequence[str] | None = None,
    runs: int = 5,
    warm_up: int = 1,
    progress: Progress | None = None,
    processors: frozenset[int] | None = None,
) -> Comparison:
    """Run `spec` under native (see `candidates`) and every wanted candidate (default: all that work), `runs` rounds.

    `processors` are those that a candidate with all its processes stays on; None: where the host puts them.

    Raises UsageError for unknown names and for a guest that does not run natively.
    """
    environment = os.environ if spec.env is None else spec.env
    return _compare(
        list(spec.argv), lambda place: candidates(spec, place, wanted), environment, runs, warm_up, progress, processors
    )


def compare_machines(
    spec: MachineSpec,
    *,
    wanted: Sequence[str] | None = None,
    runs: int = 5,
    warm_up: int = 1,
    progress: Progress | None = None,
    processors: frozenset[int] | None = None,
) -> Comparison:
    """The same for a system, which is to power off by itself, under techniques that boot systems and QEMU.

    Disks are as they were afterwards. Raises UsageError for unknown names, and where nothing can boot the guest.
    """
    return _compare(
        [str(spec.kernel)], lambda place: machines.candidates(spec, place, wanted), os.environ, runs, warm_up,
        progress, processors,
    )  # fmt: skip


def _compare(
    words: list[str],
    find: Callable[[Place], tuple[list[Candidate], list[tuple[str, str]]]],
    given: Mapping[str, str],
    runs: int,
    warm_up: int,
    progress: Progress | None,
    processors: frozenset[int] | None,
) -> Comparison:
    with tempfile.TemporaryDirectory(prefix="virtus-compare-") as name, Guardian(Path(name)) as guardian:
        place = Place(Path(name))
        place.base.chmod(0o755)
        place.clean()
        runnable, missing = find(place)
        environment = {**given, SCRATCH: str(place.scratch)}
        rounds: list[dict[str, tuple[Run, dict[str, Any]]]] = []
        total, done = len(runnable) * (runs + warm_up), 0
        for number in range(runs + warm_up):
            results: dict[str, tuple[Run, dict[str, Any]]] = {}
            turn = number % len(runnable)
            for candidate in runnable[turn:] + runnable[:turn]:
                if progress is not None:
                    progress(done, total, candidate.name)
                results[candidate.name] = _one(candidate, environment, place, guardian, processors)
                done += 1
            if number >= warm_up:
                rounds.append(results)
        if progress is not None:
            progress(done, total, "")
    counted = [rounds[-1][name][1].get("calls") for name in COUNTING if name in rounds[-1]]
    calls = next((sum(found.values()) for found in counted if found), None)
    reference = runnable[0].name
    results_in_order = [_summary(candidate.name, reference, rounds, calls) for candidate in runnable]
    return Comparison(words, runs, results_in_order, missing, calls, reference)


def _one(
    candidate: Candidate,
    environment: dict[str, str],
    place: Place,
    guardian: Guardian,
    processors: frozenset[int] | None,
) -> tuple[Run, dict[str, Any]]:
    place.clean()
    try:
        run = measure(candidate.command(), environment, place.base, guardian.watch, processors)
    except OSError as error:
        raise UsageError(f"running the guest as {candidate.name}", str(error)) from error
    stdout, stderr, status = candidate.outcome(run.stdout, run.stderr, run.status)
    return replace(run, status=status, stdout=stdout, stderr=stderr), candidate.counted()


def _summary(
    name: str, reference: str, rounds: list[dict[str, tuple[Run, dict[str, Any]]]], calls: int | None
) -> Result:
    runs = [results[name][0] for results in rounds]
    natives = [results[reference][0] for results in rounds]
    ratios = [run.wall_s / native.wall_s for run, native in zip(runs, natives, strict=True)]
    cpu_ratios = [run.cpu_s / max(native.cpu_s, 1e-6) for run, native in zip(runs, natives, strict=True)]
    rates = [counted["exit_count"] / run.wall_s for run, counted in (results[name] for results in rounds) if counted]
    switches = statistics.median(run.switches for run in runs)
    differences = [difference(run, native, reference) for run, native in zip(runs, natives, strict=True)]
    notes: dict[str, int] = rounds[-1][name][1].get("notes", {})
    return Result(
        name=name,
        wall_s=statistics.median(run.wall_s for run in runs),
        wall_all_s=[run.wall_s for run in runs],
        cpu_s=statistics.median(run.cpu_s for run in runs),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        cpu_ratio=statistics.median(cpu_ratios),
        exits_per_s=statistics.median(rates) if rates else None,
        switches=switches,
        switches_per_call=switches / calls if calls else None,
        processes=max(run.processes for run in runs),
        status=runs[-1].status,
        same_output=not any(differences),
        difference=next(filter(None, differences), ""),
        notes=notes,
    )


def difference(run: Run, native: Run, reference: str = "native") -> str:
    """How a run came out otherwise than the reference's of the same round; "" when it did not."""
    if run.status != native.status:
        words = run.stderr.decode(errors="replace").strip().splitlines()
        return f"exit status {run.status}, {reference}'s is {native.status}" + (
            f": {words[-1][:LINE]}" if words else ""
        )
    if run.stdout == native.stdout:
        return ""
    mine, theirs = run.stdout.splitlines(), native.stdout.splitlines()
    for number, (line, other) in enumerate(zip_longest(mine, theirs), 1):
        if line != other:
            return f"line {number} of the output is {_shown(line)}, {reference}'s is {_shown(other)}"
    return "the output differs in how its lines end"


def _shown(line: bytes | None) -> str:
    return "missing" if line is None else repr(line.decode(errors="replace")[:LINE])
