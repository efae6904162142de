"""The processes at and below one: which there are, and their end."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 5.0
"""How long a killed process may take to be gone."""


def descendants(pid: int) -> list[int]:
    """The processes that there are now at and below `pid`."""
    found, pending = [], [pid]
    while pending:
        parent = pending.pop()
        found.append(parent)
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                text = Path(f"/proc/{parent}/task/{task}/children").read_text()
                pending += [int(word) for word in text.split()]
        except OSError:
            continue  # it has just ended
    return found


def lives(pid: int) -> bool:
    """Whether there is such a process, and not only what its parent has not yet waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def end(pid: int) -> None:
    """Kill a process and all below it: stopped first, so that none is born meanwhile."""
    found: set[int] = set()
    while new := set(descendants(pid)) - found:
        _signal(new, signal.SIGSTOP)
        found |= new
    _signal(found, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while any(map(lives, found)) and time.monotonic() < deadline:
        time.sleep(0.01)


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.kill(pid, number)
