"""Where contexts run: on the kernel's own processor, until they could use more than one.

A system call hands the processor from the guest to the kernel and back. On one processor that is a context switch; to
another one it is a wake-up of an idle processor, which costs several times as much (on virtual hosts ten times). While
one context runs at a time nothing is lost by staying; as soon as several are busy, all may go where the host puts them.
"""

import ctypes
import os
from collections.abc import Iterable
from typing import Final

PATIENCE: Final = 2
"""Looks in a row that must find the same before contexts are moved."""

_libc = ctypes.CDLL(None)


class Placement:
    """Keeps a machine on one processor, or lets it spread."""

    def __init__(self) -> None:
        self._all = os.sched_getaffinity(0)
        self._together = True
        self._looks = 0
        self._gather(())

    def _gather(self, contexts: Iterable[int]) -> None:
        home = {_current_processor(self._all)}
        self._assign(contexts, home)

    @staticmethod
    def _assign(contexts: Iterable[int], processors: set[int]) -> None:
        for tid in (0, *contexts):
            try:
                os.sched_setaffinity(tid, processors)
            except OSError:
                continue  # it has just ended, or the host forbids it: only speed is lost

    def balance(self, running: int, contexts: Iterable[int]) -> None:
        """Look at how many contexts are running now; called some ten times a second."""
        if (running > 1) == self._together and len(self._all) > 1:
            self._looks += 1
            if self._looks >= PATIENCE:
                self._looks = 0
                self._together = not self._together
                if self._together:
                    self._gather(list(contexts))
                else:
                    self._assign(list(contexts), self._all)
        else:
            self._looks = 0


def _current_processor(allowed: set[int]) -> int:
    """The processor this process runs on now."""
    processor: int = _libc.sched_getcpu()
    return processor if processor in allowed else min(allowed)
