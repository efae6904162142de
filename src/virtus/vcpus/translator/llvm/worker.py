"""The process that optimises in the background, and the conversation with it.

It is forked before the guest's root is entered, and before anything large is loaded; LLVM it imports itself, when the
first request comes. Messages have their length before them: both ends are ours, and what comes from
a guest is bytes in them. It ends when the other end of the socket is gone, having kept its translations on disk.
"""

import os
import signal
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from virtus.host import channel, dispositions
from virtus.host.channel import Channel
from virtus.isa.instruction_set import InstructionSet
from virtus.vcpus.translator.llvm.request import Farewell, Optimised, QuickCode, Request, Result, Urge, decoded, encoded
from virtus.vcpus.translator.quick_image import QuickImage

_LENGTH: Final = struct.Struct("<I")
LONGEST_WAIT_S: Final = 2.0
LONGEST_WORK_S: Final = 20
"""A unit that is being made when the guest ends is finished, but not for longer than this."""
NICE: Final = 1
"""Guests come first."""


class Keeper(Protocol):
    """Keeps translations, by image, for later runs (`cache.Cache`)."""

    def store(self, units: dict[str, list[Optimised]]) -> None:
        """Add optimised code."""
        ...

    def store_quick(self, made: dict[str, QuickImage]) -> None:
        """Add quick code."""
        ...

    def alone(self) -> bool:
        """Whether no other process works on after its guest's end; from now on this one does."""
        ...

    def store_wishes(self, entries: dict[str, list[int]]) -> None:
        """Guest addresses whose code was hot, and had not been optimised at the end, in place of former ones."""
        ...


class Background:
    """The translator's end, and the process: forked when something is first asked of it, which most short runs do not.

    Two processes have this object: the supervisor, which waits for `asked` and calls `start`, and the one that runs the
    guest, which calls `enter` and everything else.
    """

    def __init__(self, isa: InstructionSet, keep: Keeper | None = None) -> None:
        self._socket, self.asked = channel.pair()
        """`asked` can be read when there is something to do."""
        self._isa = isa
        self._keep = keep
        self._received = bytearray()
        self._to_send = bytearray()
        self._used = False
        self.gone = False

    def start(self, *without: Channel) -> int:
        """Fork the process, which holds none of these sockets: its pid."""
        pid = os.fork()
        if pid == 0:
            try:
                for each in (self._socket, *without):
                    each.close()
                _main(self.asked, self._isa, self._keep)
            finally:
                os._exit(0)
        self.asked.close()
        return pid

    def enter(self) -> None:
        """This is the process that runs the guest."""
        self.asked.close()
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The socket: something can be read when results have come."""
        return self._socket.fileno()

    def submit(self, request: Request | Urge | QuickCode | Farewell) -> None:
        """Have it made some time, or sooner; or kept. Never waits."""
        if isinstance(request, Farewell) and not self._used:
            return  # it was never there
        self._used = True
        data = encoded(request)
        self._to_send += _LENGTH.pack(len(data)) + data
        self.flush()

    def flush(self, *, wait: bool = False) -> None:
        """Send what could not be sent before; all of it, within seconds, where there is no later."""
        if wait and self._to_send:
            self._socket.settimeout(LONGEST_WAIT_S)
        while self._to_send and not self.gone:
            try:
                del self._to_send[: self._socket.send(memoryview(self._to_send)[: 1 << 16].tobytes())]
            except BlockingIOError:
                return
            except OSError:
                self.gone = True

    def collect(self) -> list[Result]:
        """What has been made since the last time."""
        self.flush()
        while not self.gone:
            try:
                piece = self._socket.recv(1 << 20)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            if not piece:
                self.gone = True
            self._received += piece
        results = []
        while len(self._received) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._received)
            if len(self._received) < _LENGTH.size + size:
                break
            results.append(decoded(bytes(self._received[_LENGTH.size : _LENGTH.size + size])))
            del self._received[: _LENGTH.size + size]
        return results

    def close(self) -> None:
        """Let it come to its end."""
        self._socket.close()
        self.asked.close()


def _main(connection: Channel, isa: InstructionSet, keep: Keeper | None) -> None:
    """The process: one thread reads requests, so that nobody waits to send them, the other works."""
    dispositions.set_default((signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT))
    dispositions.ignore((signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP))
    _leave_streams()
    os.nice(NICE)
    made = Made()
    answered = Answered()
    requests = Requests(answered.covers)
    threading.Thread(target=_read, args=(connection, requests, made, keep), daemon=True).start()
    while (request := requests.take()) is not None:
        nearby = not request.whole and (request.covered or answered.covers(request))
        result = answered.result(request) or _serve(isa, request, nearby=nearby)
        if result.optimised is not None:
            answered.add(request, result.optimised)
            made.add(request.image, result.optimised)
        requests.done()
        data = encoded(result)
        try:
            connection.sendall(_LENGTH.pack(len(data)) + data)
        except OSError:
            continue  # the other thread is about to end this
    if keep is not None:
        keep.store(made.taken())
    os._exit(0)


class Made:
    """What is to be kept."""

    def __init__(self) -> None:
        self.optimised: dict[str, list[Optimised]] = {}
        self.quick: dict[str, QuickImage] = {}
        self._change = threading.Lock()

    def add(self, image: str, unit: Optimised) -> None:
        """One more, unless it belongs to no image."""
        if image:
            with self._change:
                self.optimised.setdefault(image, []).append(unit)

    def taken(self) -> dict[str, list[Optimised]]:
        """The optimised code that has not been taken yet."""
        with self._change:
            units, self.optimised = self.optimised, {}
        return units

    def keep(self, keeper: Keeper, wishes: dict[str, list[int]]) -> None:
        """Keep what there is by now."""
        keeper.store_wishes(wishes)
        if self.quick:
            keeper.store_quick(self.quick)
        if units := self.taken():
            keeper.store(units)


class Requests:
    """What is to be done, the most urged first, then the first come.

    What lies within code that has been made already is left until it is urged: mostly a loop, and the next call of its
    function finds what was made. Code to be entered in the middle of a loop is slower than code entered from above.
    """

    def __init__(self, covered: Callable[[Request], bool]) -> None:
        self._covered = covered
        self._waiting: dict[int, list[Any]] = {}  # by number: how often urged, the request
        self._worked_on: Request | None = None
        self._images: set[str] = set()
        self._closed = False
        self._come = threading.Condition()

    def add(self, message: Request | Urge) -> None:
        """A message has come."""
        with self._come:
            if isinstance(message, Request):
                self._waiting[message.number] = [0, message]
                self._images.add(message.image)
            elif message.number in self._waiting:
                self._waiting[message.number][0] += 1
            self._come.notify()

    def take(self) -> Request | None:
        """The next one; waits for it. None when there will be none."""
        with self._come:
            while (number := self._next()) is None and not self._closed:
                self._come.wait()
            if self._closed or number is None:
                return None
            request: Request = self._waiting.pop(number)[1]
            self._worked_on = request
            return request

    def done(self) -> None:
        """What was taken last has been answered."""
        with self._come:
            self._worked_on = None

    def close(self) -> bool:
        """Give out no more; whether something is being worked on that will be of use to later runs."""
        with self._come:
            self._closed = True
            self._come.notify()
            return self._worked_on is not None and bool(self._worked_on.image)

    def left(self) -> dict[str, list[int]]:
        """For each image that there were requests for: the entries that are still to be made, the most wanted first."""
        with self._come:
            wanted = self._wanted()
            order = sorted(wanted, key=lambda number: (-wanted[number], number))
            requests = [self._waiting[number][1] for number in order]
            if self._worked_on is not None:
                requests.insert(0, self._worked_on)
            found: dict[str, list[int]] = {image: [] for image in self._images if image}
            for request in requests:
                if request.image and not request.precise:
                    found[request.image].append(request.entry)
            return found

    def _next(self) -> int | None:
        wanted = self._wanted()
        return max(wanted, key=lambda number: (wanted[number], -number)) if wanted else None

    def _wanted(self) -> dict[int, int]:
        """The requests that are worth an answer, and how often they were urged."""
        return {
            number: urged
            for number, (urged, request) in self._waiting.items()
            if urged or request.whole or not (request.covered or self._covered(request))
        }


class Answered:
    """What has been made already: a function is asked for at every loop in it, before the first answer has come."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, bool], tuple[Optimised, frozenset[tuple[int, int]]]] = {}
        self._ranges: set[tuple[int, int]] = set()

    @staticmethod
    def _jumps(request: Request, made: Optimised) -> frozenset[tuple[int, int]]:
        """What is known of the computed jumps in some code."""
        return frozenset(
            (at, to)
            for at, targets in request.jumps
            if any(low <= at < high for low, high in made.covers)
            for to in targets
        )

    def add(self, request: Request, made: Optimised) -> None:
        """Remember an answer."""
        self._ranges.update(made.covers)
        for pc in made.entries:
            self._made[pc, made.precise] = made, self._jumps(request, made)

    def covers(self, request: Request) -> bool:
        """Whether something has been made that contains the code at a request's entry."""
        return any(low <= request.entry < high for low, high in self._ranges)

    def result(self, request: Request) -> Result | None:
        """An answer without anything new, if all that is asked for has been made from the same code."""
        found = self._made.get((request.entry, request.precise))
        if found is None:
            return None
        made, jumps = found
        same = all(
            any(start <= low and data[low - start : low - start + len(code)] == code for start, data in request.code)
            for (low, _), code in zip(made.covers, made.code, strict=True)
        )
        return Result(request.number) if same and self._jumps(request, made) <= jumps else None


def _leave_streams() -> None:
    """Whoever reads the guest's output to its end must not wait for this process."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _read(
    connection: Channel,
    requests: "Requests",
    made: Made,
    keep: Keeper | None,
) -> None:
    """Take requests; when nobody is left to make any, keep what there is and end. What is being worked on then is left,
    unless the guest has ended by itself: large units take longer than short runs, and would never be made."""
    orderly = False
    try:
        while True:
            (size,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
            message = decoded(_exactly(connection, size))
            if isinstance(message, QuickCode):
                made.quick[message.image] = message.code
            elif isinstance(message, Farewell):
                orderly = True
            else:
                requests.add(message)
    except (OSError, EOFError):
        try:
            if keep is not None:
                made.keep(keep, requests.left())
            if keep is not None and orderly and keep.alone() and requests.close():
                signal.alarm(LONGEST_WORK_S)
                return  # the other thread ends this when it has finished
        except BaseException:
            os._exit(1)
        os._exit(0)


def _exactly(connection: Channel, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _serve(isa: InstructionSet, request: Request, *, nearby: bool) -> Result:
    """Whatever goes wrong with one request must not end the process: the guest goes on with what it has."""
    started = time.perf_counter()
    try:
        from virtus.vcpus.translator.llvm.compile import optimise

        made, count = optimise(isa, request, nearby=nearby)
    except Exception as error:
        return Result(request.number, error=f"{type(error).__name__}: {str(error)[:200]}")
    return Result(request.number, made, "", time.perf_counter() - started, count)
