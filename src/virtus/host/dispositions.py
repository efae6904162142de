"""What signals do to this process (signal(7)).

`signal.signal` makes an enumeration's member of every number and handler it sees; a process that sets all of them when
it starts waits longer for that than for the host.
"""

import _signal  # type: ignore[import-not-found]  # what `signal` wraps
from collections.abc import Iterable
from typing import Final

OF_THREADS: Final = (32, 33)
"""Signals that libc keeps for its threads (nptl(7))."""
CATCHABLE: Final = tuple(
    number for number in range(1, _signal.NSIG) if number not in (_signal.SIGKILL, _signal.SIGSTOP, *OF_THREADS)
)


def set_default(numbers: Iterable[int] = CATCHABLE) -> None:
    """Have these do what they do in a new process."""
    for number in numbers:
        _signal.signal(number, _signal.SIG_DFL)


def ignore(numbers: Iterable[int]) -> None:
    """Have these do nothing."""
    for number in numbers:
        _signal.signal(number, _signal.SIG_IGN)
