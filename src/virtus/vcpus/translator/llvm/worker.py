"""The process that optimises in the background, and the conversation with it.

It is forked before the guest's root is entered, and before anything large is loaded; LLVM it imports itself, when the
first request comes. Messages are pickled objects with their length before them: both ends are ours, and what comes from
a guest is bytes in them. It ends when the other end of the socket is gone, having kept its translations on disk.
"""

import os
import pickle
import queue
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final

from virtus.isa.instruction_set import InstructionSet
from virtus.vcpus.translator.llvm.request import Optimised, Request, Result

_LENGTH: Final = struct.Struct("<I")
NICE: Final = 5
"""Guests come first."""

Keep = Callable[[dict[str, list[Optimised]]], None]
"""Keeps translations, by image, for later runs."""


class Background:
    """The translator's end. `start` forks; everything else belongs to the process that runs the guest."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._socket = connection
        self.pid = pid
        self._received = bytearray()
        self._to_send = bytearray()
        self.gone = False

    @classmethod
    def start(cls, isa: InstructionSet, keep: Keep | None = None) -> "Background":
        """Fork the process."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                _main(theirs, isa, keep)
            finally:
                os._exit(0)
        theirs.close()
        ours.setblocking(False)
        return cls(ours, pid)

    def fileno(self) -> int:
        """The socket: something can be read when results have come."""
        return self._socket.fileno()

    def submit(self, request: Request) -> None:
        """Have it made some time. Never waits."""
        data = pickle.dumps(request)
        self._to_send += _LENGTH.pack(len(data)) + data
        self.flush()

    def flush(self) -> None:
        """Send what could not be sent before."""
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
            results.append(pickle.loads(bytes(self._received[_LENGTH.size : _LENGTH.size + size])))
            del self._received[: _LENGTH.size + size]
        return results

    def close(self) -> None:
        """Let it come to its end."""
        self._socket.close()


def _main(connection: socket.socket, isa: InstructionSet, keep: Keep | None) -> None:
    """The process: one thread reads requests, so that nobody waits to send them, the other works."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _leave_streams()
    os.nice(NICE)
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    made: dict[str, list[Optimised]] = {}
    threading.Thread(target=_read, args=(connection, requests, made, keep), daemon=True).start()
    while True:
        request = requests.get()
        result = _serve(isa, request)
        if result.optimised is not None and request.image:
            made.setdefault(request.image, []).append(result.optimised)
        data = pickle.dumps(result)
        try:
            connection.sendall(_LENGTH.pack(len(data)) + data)
        except OSError:
            continue  # the other thread is about to end this


def _leave_streams() -> None:
    """Whoever reads the guest's output to its end must not wait for this process."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _read(
    connection: socket.socket,
    requests: "queue.SimpleQueue[Request]",
    made: dict[str, list[Optimised]],
    keep: Keep | None,
) -> None:
    """Take requests; when nobody is left to make any, keep what there is and end, whatever is being worked on."""
    try:
        while True:
            (size,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
            requests.put(pickle.loads(_exactly(connection, size)))
    except (OSError, EOFError):
        try:
            if keep is not None and made:
                keep(dict(made))
        finally:
            os._exit(0)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _serve(isa: InstructionSet, request: Request) -> Result:
    """Whatever goes wrong with one request must not end the process: the guest goes on with what it has."""
    started = time.perf_counter()
    try:
        from virtus.vcpus.translator.llvm.compile import optimise

        made, count = optimise(isa, request)
    except Exception as error:
        return Result(request.number, error=f"{type(error).__name__}: {str(error)[:200]}")
    return Result(request.number, made, "", time.perf_counter() - started, count)
