"""virtus as a library: a machine's life, and the two verbs `run` and `compare`. Use them as `virtus.run` and so on."""

import threading
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from virtus.errors import UsageError
from virtus.machine.meter import Report
from virtus.machine.spec import GuestSpec
from virtus.techniques import choose

if TYPE_CHECKING:
    from virtus.comparison.compare import Comparison


class State(Enum):
    """Where a machine is in its life."""

    CREATED = "created"
    RUNNING = "running"
    ENDED = "ended"


class Machine:
    """One guest in its box, under one technique; it runs once.

    `technique` is one of `virtus techniques`; without one, the guest's kind decides. Raises GuestNotFound or
    GuestNotRunnable for a guest that cannot run anywhere, UsageError for a technique that there is not.
    """

    def __init__(self, spec: GuestSpec, technique: str | None = None) -> None:
        fitting = choose.fitting(choose.guest_of(spec), technique)
        self.spec = spec
        self.state = State.CREATED
        self.report: Report | None = None
        """What the run cost; None before State.ENDED, and when the guest could not be started."""
        self._technique = fitting

    @property
    def technique(self) -> str:
        """The technique's name."""
        return self._technique.name

    def run(self) -> Report:
        """Run the guest to its end on this process's standard streams; its exit status is in the report.

        Blocks, and takes the process's signals meanwhile, so only the main thread may call it (UsageError).
        Raises HostLacks where the technique does not work here.
        """
        doing = f"running {self.spec.argv[0]}"
        if self.state is not State.CREATED:
            raise UsageError(doing, f"this machine is {self.state.value}", "make another Machine")
        if threading.current_thread() is not threading.main_thread():
            raise UsageError(doing, "signals of a guest need the main thread", "call it there, or in a child process")
        self.state = State.RUNNING
        try:
            self.report = self._technique.run(self.spec, meter=True)
        finally:
            self.state = State.ENDED
        return self.report


def run(argv: Sequence[str], *, technique: str | None = None, **box: Any) -> Report:
    """Run a guest to its end and say what it cost.

    `box` takes the other fields of GuestSpec: env, root, volumes, net, hostname, user, keep, process_limit.
    """
    return Machine(GuestSpec(argv, **box), technique).run()


def compare(argv: Sequence[str], *, techniques: Sequence[str] | None = None, runs: int = 5, **box: Any) -> "Comparison":
    """Run a guest natively and under every technique and peer that can run it here, in turn, `runs` times each.

    `techniques` narrows it to techniques and peers by name; `box` as for `run`. A first round is not counted.
    """
    from virtus.comparison.compare import compare as run_rounds

    return run_rounds(GuestSpec(argv, **box), wanted=techniques, runs=runs)
