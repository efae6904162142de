"""Counts exits and the time inside and outside the guest; the figures behind `--meter` and `virtus compare`.

Every technique passes through the one loop, so every technique is counted alike. Times are nanoseconds of the
monotonic clock; processor time and context switches come from the host's own accounting (getrusage(2)).
"""

import os
from collections import defaultdict
from time import perf_counter_ns
from typing import Any

from virtus.records import as_dict, dataclass, field

REPORT_VERSION = 1


def shell_status(status: int) -> int:
    """A wait status (wait4(2)) as a shell shows it: the exit status, or 128 and the signal's number."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _counts() -> defaultdict[str, int]:
    return defaultdict(int)  # half the cost of a Counter, at every exit


@dataclass(slots=True)
class Meter:
    """The counters of one machine."""

    exits: defaultdict[str, int] = field(default_factory=_counts)  # by reason
    calls: defaultdict[str, int] = field(default_factory=_counts)  # system calls by name
    notes: defaultdict[str, int] = field(default_factory=_counts)  # refused, unknown or limited, one line each
    guest_ns: int = 0
    personality_ns: int = 0
    started_ns: int = field(default_factory=perf_counter_ns)

    def note(self, line: str) -> None:
        """Remember something a user should know; equal lines are counted, not repeated."""
        self.notes[line] += 1


@dataclass(slots=True)
class Report:
    """What a finished machine cost; `as_json` is what `--meter-json` writes."""

    technique: str
    status: int  # as a shell would show it: 0-255, 128+n for signal n
    wall_s: float = 0.0
    cpu_s: float = 0.0  # guest and supervisor, user and system, by the host's accounting
    context_switches: int = 0  # of all processes of the machine, by the host's accounting
    host_processes: int = 0  # created for the machine, supervisor included; 0: not known
    exits: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    guest_s: float = 0.0
    personality_s: float = 0.0
    details: dict[str, int] = field(default_factory=dict)  # figures that only this technique has, by name

    @property
    def exit_count(self) -> int:
        """All exits through the loop."""
        return sum(self.exits.values())

    def as_json(self) -> dict[str, Any]:
        """Plain data with a version, for scripts."""
        return {"version": REPORT_VERSION, **as_dict(self), "exit_count": self.exit_count}
