"""Signals of the guest: dispositions, queues of pending signals, and which of them is to be delivered next."""

from collections import deque
from typing import Final, NamedTuple

SIG_DFL: Final = 0
SIG_IGN: Final = 1
SIGNAL_COUNT: Final = 64
REALTIME: Final = 32  # SIGRTMIN of the kernel: from here on signals queue
SA_NOCLDSTOP: Final = 1
SA_NOCLDWAIT: Final = 2
SA_SIGINFO: Final = 4
SA_RESTORER: Final = 0x04000000
SA_ONSTACK: Final = 0x08000000
SA_RESTART: Final = 0x10000000
SA_NODEFER: Final = 0x40000000
SA_RESETHAND: Final = 0x80000000
UNBLOCKABLE: Final = 1 << (9 - 1) | 1 << (19 - 1)  # SIGKILL, SIGSTOP


class Action(NamedTuple):
    """What sigaction(2) set."""

    handler: int = SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0


class SignalActions:
    """Dispositions of a process (shared with CLONE_SIGHAND)."""

    __slots__ = ("actions",)

    def __init__(self) -> None:
        self.actions: dict[int, Action] = {}

    def get(self, number: int) -> Action:
        """The disposition, default where none was set."""
        return self.actions.get(number, _DEFAULT)

    def copy(self) -> "SignalActions":
        """For fork."""
        other = SignalActions()
        other.actions = dict(self.actions)
        return other

    def reset_for_exec(self) -> None:
        """execve(2): handlers become default, what was ignored stays ignored."""
        self.actions = {number: Action(SIG_IGN) for number, action in self.actions.items() if action.handler == SIG_IGN}


_DEFAULT = Action()


class Pending:
    """Pending signals: one of each standard signal, a queue of real-time ones, each with its siginfo_t (128 bytes)."""

    __slots__ = ("bits", "queue")

    def __init__(self) -> None:
        self.bits = 0
        self.queue: deque[tuple[int, bytes]] = deque()

    def add(self, number: int, info: bytes) -> bool:
        """Queue a signal; False when a standard signal was pending already."""
        bit = 1 << (number - 1)
        if number < REALTIME and self.bits & bit:
            return False
        self.bits |= bit
        self.queue.append((number, info))
        return True

    def take(self, mask: int) -> tuple[int, bytes] | None:
        """Remove and return the next signal in `mask` (lowest number first, then in order), or None."""
        wanted = self.bits & mask
        if not wanted:
            return None
        number = (wanted & -wanted).bit_length()
        for at, (queued, info) in enumerate(self.queue):
            if queued == number:
                del self.queue[at]
                if all(other != number for other, _ in self.queue):
                    self.bits &= ~(1 << (number - 1))
                return number, info
        self.bits &= ~(1 << (number - 1))  # pragma: no cover - bits and queue always agree
        return None

    def discard(self, mask: int) -> None:
        """Drop every pending signal in `mask`."""
        self.bits &= ~mask
        self.queue = deque(entry for entry in self.queue if not mask >> (entry[0] - 1) & 1)
