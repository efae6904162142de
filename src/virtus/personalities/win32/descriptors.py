"""Waiting for descriptors of the host on behalf of guest threads, all of them on one thread of the host.

An operation that would have to wait is left here; it is tried when its descriptor is ready, and its end told to the
engine. So neither a guest thread that takes turns with others nor one that goes on meanwhile holds anything up.
"""

import os
import select
import threading
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32 import state
from virtus.personalities.win32.process import Process, Thread

ENDED: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL


def ready(fd: int, *, write: bool) -> bool:
    """Whether reading or writing would not wait. A descriptor that is none is ready: its use will say what is wrong."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT if write else select.POLLIN)
    return bool(poll.poll(0))


class Waiting:
    """One operation that waits. `attempt` is called when the descriptor is ready, until it gives true: for reading or
    writing, or for other events of poll(2)."""

    def __init__(self, fd: int, write: bool, attempt: Callable[[], bool], events: int = 0) -> None:
        self.fd, self.attempt = fd, attempt
        self.events = events or (select.POLLOUT if write else select.POLLIN)


class Descriptors:
    """What waits for descriptors in a process."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []
        self._lock = threading.Lock()
        self._started = False
        self._reader = self._writer = -1

    def add(self, waiting: Waiting) -> None:
        """Have an operation tried when its descriptor is ready."""
        with self._lock:
            self._waiting.append(waiting)
            if not self._started:
                self._started = True
                self._reader, self._writer = os.pipe()
                os.set_blocking(self._reader, False)
                os.set_blocking(self._writer, False)
                threading.Thread(target=self._run, daemon=True).start()
        self._stir()

    def remove(self, waiting: Waiting) -> bool:
        """Give up; whether it was still waiting, and will not be tried any more."""
        with self._lock:
            if waiting not in self._waiting:
                return False
            self._waiting.remove(waiting)
        self._stir()
        return True

    def look_again(self) -> None:
        """A descriptor that somebody may wait for has been closed."""
        if self._started:
            self._stir()

    def _stir(self) -> None:
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            pass  # it has been told often enough

    def _run(self) -> None:
        while True:
            with self._lock:
                waiting = list(self._waiting)
            poll = select.poll()
            masks = {self._reader: select.POLLIN}
            for each in waiting:
                masks[each.fd] = masks.get(each.fd, 0) | each.events
            for fd, mask in masks.items():
                poll.register(fd, mask)
            found = dict(poll.poll())
            if self._reader in found:
                os.read(self._reader, 4096)
            for each in waiting:
                events = found.get(each.fd, 0)
                if events & (each.events | ENDED):
                    self._try(each)

    def _try(self, each: Waiting) -> None:
        with self._lock:
            if each not in self._waiting:
                return
            self._waiting.remove(each)
        if not each.attempt():
            with self._lock:
                self._waiting.append(each)


def of(process: Process) -> Descriptors:
    """The process's."""
    return state.of(process, Descriptors)


def wait(thread: Thread, fd: int, *, write: bool, deadline_ns: int | None = None) -> bool:
    """Let the calling guest thread wait until a descriptor is ready, or for the deadline; whether it is ready."""
    if ready(fd, write=write):
        return True
    done = threading.Event()

    def attempt() -> bool:
        done.set()
        thread.engine.wake()
        return True

    waiting = Waiting(fd, write, attempt)
    descriptors = of(thread.process)
    descriptors.add(waiting)
    if thread.engine.wait(done.is_set, deadline_ns):
        return True
    descriptors.remove(waiting)
    return done.is_set()
