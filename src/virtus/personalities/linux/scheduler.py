"""Who sleeps for what: host descriptors, queues of the kernel's own, and the clock.

Guests are run by the host; what the kernel schedules is only their way back from a system call that waits. One epoll
set of the host holds every descriptor that a task waits for, and a timerfd for the earliest deadline; the vCPU reports
when the set has something ready, so that one wait of the kernel process sees guests and devices alike.
"""

import heapq
import os
import select
from collections.abc import Callable
from itertools import count
from time import monotonic_ns

from virtus.host import timerfd
from virtus.personalities.linux.blocking import Wait

_POLL_ERRORS = select.EPOLLHUP | select.EPOLLERR


class Timer:
    """A callback that is due at a time; `cancelled` ones are dropped when their time comes."""

    __slots__ = ("callback", "cancelled", "deadline")

    def __init__(self, deadline: int, callback: Callable[[], None]) -> None:
        self.deadline, self.callback, self.cancelled = deadline, callback, False


class Scheduler:
    """The sleeping tasks of one machine. `ready` is called with a wait and whether it was more than the clock."""

    def __init__(self, ready: Callable[[Wait, bool], None]) -> None:
        self._ready = ready
        self.epoll = select.epoll()
        self._clock = timerfd.create()
        self.epoll.register(self._clock, select.EPOLLIN)
        self._heap: list[tuple[int, int, Timer]] = []
        self._order = count()
        self._armed = 0
        self._waits: dict[int, dict[Wait, int]] = {}  # by host descriptor, with the events waited for
        self._registered: dict[int, int] = {}
        self._callbacks: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._timers: dict[Wait, Timer] = {}

    def at(self, deadline: int, callback: Callable[[], None]) -> Timer:
        """Call back at `deadline` (nanoseconds of the monotonic clock)."""
        timer = Timer(deadline, callback)
        heapq.heappush(self._heap, (deadline, next(self._order), timer))
        self._arm()
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget a timer; harmless when it has fired."""
        timer.cancelled = True

    def watch(self, host: int, events: int, callback: Callable[[int], None]) -> None:
        """Call back with the events whenever this host descriptor has some of `events`, until `unwatch`."""
        self._callbacks[host] = (events, callback)
        self._update(host)

    def unwatch(self, host: int) -> None:
        """End a `watch`."""
        self._callbacks.pop(host, None)
        self._update(host)

    def sleep(self, wait: Wait) -> None:
        """Begin to wait; `ready` will be called once, unless `forget` comes first."""
        for host, events in self._descriptors(wait):
            self._waits.setdefault(host, {})[wait] = events
            if not self._update(host):
                self._ready(wait, True)  # a file that is always ready
                return
        for queue in wait.queues:
            queue.waits[wait] = None
        if wait.deadline:
            self._timers[wait] = self.at(wait.deadline, lambda: self._ready(wait, False))

    def forget(self, wait: Wait) -> None:
        """The wait is over."""
        for queue in wait.queues:
            queue.waits.pop(wait, None)
        timer = self._timers.pop(wait, None)
        if timer is not None:
            timer.cancelled = True
        for host, _ in self._descriptors(wait):
            waits = self._waits.get(host)
            if waits is not None and waits.pop(wait, None) is not None:
                if not waits:
                    del self._waits[host]
                self._update(host)

    @staticmethod
    def _descriptors(wait: Wait) -> list[tuple[int, int]]:
        watched = list(wait.watched)
        if wait.readable >= 0:
            watched.append((wait.readable, select.EPOLLIN | select.EPOLLRDHUP))
        if wait.writable >= 0:
            watched.append((wait.writable, select.EPOLLOUT))
        return watched

    def _update(self, host: int) -> bool:
        """Bring the host's epoll set in line; False when the host cannot watch this descriptor (a regular file)."""
        wanted = self._callbacks.get(host, (0, None))[0]
        for events in self._waits.get(host, {}).values():
            wanted |= events
        try:
            if not wanted:
                if self._registered.pop(host, None) is not None:
                    self.epoll.unregister(host)
            elif host in self._registered:
                self.epoll.modify(host, wanted)
                self._registered[host] = wanted
            else:
                self.epoll.register(host, wanted)
                self._registered[host] = wanted
        except FileExistsError:
            self.epoll.modify(host, wanted)
            self._registered[host] = wanted
        except FileNotFoundError:  # closed and opened again meanwhile
            if wanted:
                self.epoll.register(host, wanted)
                self._registered[host] = wanted
        except PermissionError:
            return False
        except OSError:
            self._registered.pop(host, None)  # closed meanwhile
        return True

    def _arm(self) -> None:
        while self._heap and self._heap[0][2].cancelled:
            heapq.heappop(self._heap)
        first = self._heap[0][0] if self._heap else 0
        if first != self._armed:
            self._armed = first
            timerfd.arm(self._clock, first)

    def dispatch(self) -> None:
        """Handle everything that is ready now, without waiting."""
        for host, events in self.epoll.poll(0):
            if host == self._clock:
                continue
            callback = self._callbacks.get(host)
            if callback is not None and events & (callback[0] | _POLL_ERRORS):
                callback[1](events)
            for wait, wanted in list(self._waits.get(host, {}).items()):
                if events & (wanted | _POLL_ERRORS):
                    self._ready(wait, True)
        now = monotonic_ns()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if not timer.cancelled:
                timer.cancelled = True
                timer.callback()
        self._armed = -1
        self._arm()

    def look(self) -> None:
        """Wake who waits for a descriptor that is ready now: after a guest has written what another one waits for.

        The host would tell anyway; but only with two context switches more.
        """
        if self._waits:
            for host, events in self.epoll.poll(0):
                for wait, wanted in list(self._waits.get(host, {}).items()):
                    if events & (wanted | _POLL_ERRORS):
                        self._ready(wait, True)

    def close(self) -> None:
        """Give the host's descriptors back."""
        self.epoll.close()
        os.close(self._clock)
