"""Guest threads of an emulated program: threads of the host that take turns, since there is one processor.

Whoever has the turn keeps it until it waits, until it ends, or until its slice is over; so no two guest instructions
run at once, and every instruction of a guest is atomic to the others.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

SLICE_S: Final = 0.01
"""How long a guest thread keeps the processor while others could run."""
LONGEST_SLEEP_S: Final = 0.05
"""What somebody waits for is looked at again after that time even if nobody has said that it changed."""


class GuestThread:
    """One guest thread. `context` is the vCPU's room for its registers while another has the turn."""

    def __init__(self, context: int) -> None:
        self.context = context
        self.turn = threading.Semaphore(0)
        self.ready: Callable[[], bool] | None = None  # None: it could run
        self.deadline: int | None = None
        self.satisfied = False
        self.begun = False
        self.teb = 0
        self.low = self.high = 0  # of the guest's stack
        self.calls: list[tuple[int, int, Any]] = []
        """Of each call of the guest: its stack pointer after the return, and the one of who called us, or its fault."""
        self.fault: Any = None


class Turns:
    """Who has the turn. `leave` and `enter` save and load the registers of a thread."""

    def __init__(self, leave: Callable[[GuestThread], None], enter: Callable[[GuestThread], None]) -> None:
        self._leave, self._enter = leave, enter
        self._others: deque[GuestThread] = deque()
        self._changed = threading.Event()
        self._local = threading.local()
        self.count = 0

    @property
    def current(self) -> GuestThread:
        """The guest thread that the calling thread of the host is."""
        thread: GuestThread = self._local.thread
        return thread

    def adopt(self, thread: GuestThread) -> None:
        """The calling thread of the host is this guest thread from now on, and has the turn."""
        self._local.thread = thread
        self.count += 1

    def start(self, thread: GuestThread, body: Callable[[], None], host_stack: int) -> None:
        """A new guest thread, which gets its turn later. `body` runs on it and must not raise."""

        def run() -> None:
            self._local.thread = thread
            thread.turn.acquire()
            self._enter(thread)
            try:
                body()
            finally:
                self.end()

        self.count += 1
        self._others.append(thread)
        before = threading.stack_size(host_stack)
        try:
            threading.Thread(target=run, daemon=True).start()
        finally:
            threading.stack_size(before)
        self._changed.set()

    def wake(self) -> None:
        """What somebody waits for may have become true; from any thread."""
        self._changed.set()

    def pass_on(self) -> bool:
        """Let another run, if one can; whether one did. The caller's registers are kept meanwhile."""
        own = self.current
        follower = self._runnable()
        if follower is None:
            return False
        self._others.append(own)
        self._hand_over(own, follower)
        return True

    def wait(self, ready: Callable[[], bool], deadline: int | None) -> bool:
        """Until `ready` or the deadline (time.monotonic_ns); whether it was ready. Others run meanwhile."""
        if ready():
            return True
        own = self.current
        own.ready, own.deadline, own.satisfied = ready, deadline, False
        while True:
            follower = self._runnable()
            if follower is not None:
                self._others.append(own)
                self._hand_over(own, follower)
                return own.satisfied
            if self._could_run(own):
                return own.satisfied
            self._sleep(own)

    def end(self) -> None:
        """The calling thread's turn is over for good."""
        self.count -= 1
        while self._others:
            follower = self._runnable()
            if follower is not None:
                follower.turn.release()
                return
            self._sleep(None)

    def _hand_over(self, own: GuestThread, follower: GuestThread) -> None:
        self._leave(own)
        follower.turn.release()
        own.turn.acquire()
        self._enter(own)

    def _runnable(self) -> GuestThread | None:
        """The next one that could run, taken out of the queue."""
        for _ in range(len(self._others)):
            thread = self._others.popleft()
            if self._could_run(thread):
                return thread
            self._others.append(thread)
        return None

    @staticmethod
    def _could_run(thread: GuestThread) -> bool:
        """Whether its wait is over; asks once more only if it was not."""
        if thread.ready is None:
            return True
        thread.satisfied = thread.ready()
        if thread.satisfied or (thread.deadline is not None and time.monotonic_ns() >= thread.deadline):
            thread.ready = None
            return True
        return False

    def _sleep(self, own: GuestThread | None) -> None:
        """Nobody can run: until something may have changed."""
        deadlines = [thread.deadline for thread in (*self._others, own) if thread and thread.deadline is not None]
        seconds = LONGEST_SLEEP_S
        if deadlines:
            seconds = min(seconds, max(0.0, (min(deadlines) - time.monotonic_ns()) / 1e9))
        self._changed.wait(seconds)
        self._changed.clear()
