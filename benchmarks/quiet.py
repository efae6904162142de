"""Whether the machine did anything else while it was measured, by the host's own accounting."""

import os
import resource
from pathlib import Path
from typing import Any, Final

MOST: Final = 0.05
"""The share of all processors that others may have used for a figure to be one of an idle machine."""
BUSY: Final = (0, 1, 2, 5, 6, 7)
"""The columns of /proc/stat for work: user, nice, system, irq, softirq, steal (proc(5)); others are idle and iowait,
and guests that are in user already."""


def machine() -> dict[str, Any]:
    """What figures say of the machine: how many processors, which model, which kernel."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names[0].partition(":")[2].strip() if names else os.uname().machine
    return {"processors": os.cpu_count(), "model": model, "kernel": os.uname().release}


class Others:
    """What processes other than this one and its children use, from the making of the object on."""

    def __init__(self) -> None:
        self._busy, self._all = _host()
        self._own = _own()

    def share(self) -> float:
        """Of all processors' time since then, from 0 to 1. Children count when they have been waited for."""
        busy, total = _host()
        busy, total = busy - self._busy, total - self._all
        return min(1.0, max(0.0, busy - (_own() - self._own)) / total) if total else 0.0


def _host() -> tuple[float, float]:
    """Seconds that all processors have worked, and that there have been."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    columns = [int(word) / os.sysconf("SC_CLK_TCK") for word in line.split()[1:9]]
    return sum(columns[column] for column in BUSY), sum(columns)


def _own() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
