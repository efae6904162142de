"""What a debugger sees: the threads of one process, their registers and memory, and why they have stopped."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from virtus.records import dataclass, field


@dataclass(frozen=True, slots=True)
class Stop:
    """Why everything stands still."""

    thread: int
    signal: int
    """As Linux numbers them."""
    detail: str = ""
    """GDB's words for it besides the signal, for example `swbreak:` or `watch:1234`."""


@dataclass(frozen=True, slots=True)
class Action:
    """How a thread is to go on."""

    step: bool = False
    signal: int = 0
    """To be delivered to it first, as Linux numbers them; 0 for none."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Who is to go on, and how; threads that are not named do as `others` says, None being to stay where they are."""

    threads: Mapping[int, Action] = field(default_factory=dict)
    others: Action | None = None

    def action(self, thread: int) -> Action | None:
        """What this thread is to do."""
        return self.threads.get(thread, self.others)


class Debuggee(Protocol):
    """A process that stands still while any of these is called."""

    def threads(self) -> list[int]:
        """Their numbers, the process's own first; never empty while it lives."""
        ...

    def registers(self, thread: int) -> "memoryview[int]":
        """The words of the thread's state block; raises KeyError when it is gone."""
        ...

    def may_change(self, thread: int) -> bool:
        """Whether its registers may be changed: not while it is inside a system call."""
        ...

    def describe(self, thread: int) -> str:
        """A thread in a few words, for a list of threads."""
        ...

    def read(self, address: int, size: int) -> bytes:
        """As much memory as can be read from `address` on, at most `size` bytes."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Change memory; raises OSError where that cannot be."""
        ...

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """Stop before any of these instructions, and at no other."""
        ...

    def set_watchpoints(self, watchpoints: frozenset[tuple[str, int, int]]) -> None:
        """Stop after these accesses: GDB's kind (`watch`, `rwatch`, `awatch`), address, size."""
        ...

    def pass_signals(self, numbers: frozenset[int]) -> None:
        """These signals reach the program without a stop."""
        ...

    def executable(self) -> str:
        """The program's path in the guest's root."""
        ...

    def auxiliary(self) -> bytes:
        """The auxiliary vector it was started with."""
        ...

    def signal_information(self, thread: int) -> bytes:
        """`siginfo_t` of the signal it has stopped with; empty for none."""
        ...

    def figures(self) -> dict[str, int]:
        """What it did so far."""
        ...


class System(Protocol):
    """What a personality knows of the process that is debugged: the machine's first."""

    def contexts(self) -> dict[int, Any]:
        """The contexts of its threads, by their numbers; the process's own first."""
        ...

    def executable(self) -> str:
        """See Debuggee."""
        ...

    def auxiliary(self) -> bytes:
        """See Debuggee."""
        ...

    def describe(self, thread: int) -> str:
        """See Debuggee."""
        ...

    def signal(self, thread: int, number: int) -> None:
        """Send a thread a signal, which is not reported."""
        ...

    def report_signals(self, report: Callable[[int, int], None] | None) -> None:
        """From now on have threads wait when they take a signal, and call `report` with thread and number."""
        ...

    def information(self, thread: int) -> bytes:
        """`siginfo_t` of a signal that was reported and is not decided on; empty for none."""
        ...

    def decide(self, thread: int, number: int) -> None:
        """Let a thread go on whose signal was reported, with this one in its place; 0 for none."""
        ...

    def kill(self) -> None:
        """End the machine."""
        ...

    def status(self) -> int | None:
        """How it has ended, as wait4(2) has it; None while it lives."""
        ...

    def open(self, path: str) -> int:
        """A descriptor to read a file of the guest's root by; raises OSError."""
        ...
