"""What a guest is, which technique runs it, and, of a Windows program, what it needs: without running anything."""

from pathlib import Path

from virtus.errors import GuestNotRunnable
from virtus.guests.identify import Guest, Kind
from virtus.techniques import choose

CANNOT: int = GuestNotRunnable.exit_status
"""The status where the guest cannot run."""


def explain(guest: Guest, technique: str | None) -> tuple[list[str], int]:
    """Lines for a person, and the shell's status: 0 where it can be run."""
    if guest.kind is Kind.PE and guest.machine == choose.HOST:
        from virtus.techniques import windows_explain  # reads the personality's catalogue: only here

        explanation = windows_explain.explain(Path(guest.path))
        lines, status = list(explanation.lines()), CANNOT if explanation.obstacle else 0
    else:
        lines, status = [f"{guest.path}: {guest.kind.value}" + (f" for {guest.machine}" if guest.machine else "")], 0
    try:
        chosen = technique or choose.technique_for(guest)
    except GuestNotRunnable as error:
        return [*lines, f"cannot run: {error.found}" + (f"; {error.remedy}" if error.remedy else "")], CANNOT
    return [*lines, f"technique: {chosen}"], status
