"""Sockets as objects: the host's, always without blocking, and waiting for them through the engine.

Without `--net host` the box has a loopback interface alone: whoever connects elsewhere gets WSAENETDOWN.
"""

import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from virtus.personalities.win32 import state
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.socket_addresses import (
    AF_INET,
    WSAENETDOWN,
    WSAENETUNREACH,
    WSAENOTSOCK,
    WSAETIMEDOUT,
    WSAEWOULDBLOCK,
    WSANOTINITIALISED,
    of_errno,
)

INVALID_SOCKET: Final = (1 << 64) - 1
SOCKET_ERROR: Final = -1
READ, WRITE = select.POLLIN, select.POLLOUT
Result = TypeVar("Result")


class SocketError(Exception):
    """A function of sockets fails with one of Winsock's errors."""

    def __init__(self, error: int) -> None:
        super().__init__(str(error))
        self.error = error


class Socket:
    """A socket. `family` is Windows' number; the host's socket never blocks, `blocking` is what the guest believes."""

    def __init__(self, host: socket.socket, family: int) -> None:
        host.setblocking(False)
        self.host, self.family = host, family
        self.blocking = True
        self.receive_ms = self.send_ms = 0
        self.event: object | None = None
        self.event_mask = 0
        self.reported = 0
        self.connecting = False
        # as of files that overlapped operations go on for: see `completion.py`
        self.overlapped, self.skip_success = True, False
        self.port: object | None = None
        self.key = self.busy = 0
        self.handles = 1

    @property
    def fd(self) -> int:
        """The host's descriptor."""
        return self.host.fileno()

    def ready(self, mask: int) -> int:
        """Which of POLLIN and POLLOUT, and POLLHUP and POLLERR, are there now."""
        poll = select.poll()
        poll.register(self.host.fileno(), mask)
        found = poll.poll(0)
        return found[0][1] if found else 0

    def signalled(self, thread: Thread) -> bool:
        """Whether there is something to read."""
        return bool(self.ready(READ))

    def acquire(self, thread: Thread) -> None:
        """Nothing changes."""

    def opened(self) -> None:
        """Another handle."""
        self.handles += 1

    def closed(self) -> None:
        """One handle less; with the last the host's socket is closed."""
        self.handles -= 1
        if self.handles <= 0:
            self.host.close()


class Watcher:
    """A thread of the host that wakes the engine when something happens to a socket that somebody waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoll: select.epoll | None = None

    def watch(self, process: Process, fd: int, mask: int) -> None:
        """Wake once when a descriptor is ready."""
        with self._lock:
            if self._epoll is None:
                self._epoll = select.epoll()
                threading.Thread(target=self._run, args=(process, self._epoll), daemon=True).start()
            events = mask | select.EPOLLONESHOT
            try:
                self._epoll.modify(fd, events)
            except OSError:
                try:
                    self._epoll.register(fd, events)
                except OSError:
                    process.engine.wake()  # a closed one: whoever waits looks again

    @staticmethod
    def _run(process: Process, epoll: select.epoll) -> None:
        while True:
            epoll.poll()
            process.engine.wake()


class Winsock:
    """How often a process has started Winsock."""

    def __init__(self) -> None:
        self.count = 0


def of(thread: Thread, handle: int) -> Socket:
    """The socket of a handle; raises SocketError."""
    if not state.of(thread.process, Winsock).count:
        raise SocketError(WSANOTINITIALISED)
    found = thread.process.handles.get(handle)
    if not isinstance(found, Socket):
        raise SocketError(WSAENOTSOCK)
    return found


def wait_for(thread: Thread, wanted: list[tuple[Socket, int]], deadline_ns: int | None) -> bool:
    """Until one of some sockets is ready for what is wanted of it; whether one is."""
    watcher = state.of(thread.process, Watcher)

    def ready() -> bool:
        if any(one.ready(mask) for one, mask in wanted):
            return True
        for one, mask in wanted:
            watcher.watch(thread.process, one.host.fileno(), mask)
        return False

    return thread.engine.wait(ready, deadline_ns)


def attempt(thread: Thread, found: Socket, mask: int, milliseconds: int, body: Callable[[], Result]) -> Result:
    """Do something to a socket, waiting for it as long as the guest wants; raises SocketError.

    `milliseconds` 0 is for ever.
    """
    deadline = time.monotonic_ns() + milliseconds * 1_000_000 if milliseconds else None
    while True:
        try:
            return body()
        except BlockingIOError:
            if not found.blocking:
                raise SocketError(WSAEWOULDBLOCK) from None
        except OSError as error:
            raise SocketError(of_errno(error.errno)) from None
        if not wait_for(thread, [(found, mask)], deadline):
            raise SocketError(WSAETIMEDOUT)


def connect(thread: Thread, found: Socket, address: object) -> None:
    """Connect; raises SocketError, WSAEWOULDBLOCK for what goes on without the guest."""
    try:
        found.host.connect(address)  # type: ignore[arg-type]  # of the family's own shape
    except BlockingIOError:
        found.connecting = True
        if not found.blocking:
            raise SocketError(WSAEWOULDBLOCK) from None
    except OSError as error:
        raise SocketError(unreachable(of_errno(error.errno))) from None
    if found.connecting:
        wait_for(thread, [(found, WRITE)], None)
        found.connecting = False
        number = found.host.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise SocketError(unreachable(of_errno(number)))


def unreachable(error: int) -> int:
    """WSAENETDOWN for an unreachable network where there is none."""
    return WSAENETDOWN if error == WSAENETUNREACH and not networked() else error


def networked() -> bool:
    """Whether there is an interface besides loopback."""
    return any(name != "lo" for _, name in socket.if_nameindex())


def new(thread: Thread, family: int, kind: int, protocol: int) -> int:
    """A handle of a new socket; raises SocketError."""
    if not state.of(thread.process, Winsock).count:
        raise SocketError(WSANOTINITIALISED)
    try:
        host = socket.socket(socket.AF_INET if family == AF_INET else socket.AF_INET6, kind, protocol)
    except OSError as error:
        raise SocketError(of_errno(error.errno)) from None
    handle: int = thread.process.handles.add(Socket(host, family))
    return handle
