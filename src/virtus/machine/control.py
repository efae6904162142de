"""The control interface of running machines: a socket each, where its user's other processes may ask for things.

A request is a line of JSON, ``{"command": NAME, ...}``; the answer another, ``{"result": ...}`` or ``{"error": [...]}``
(`VirtusError.words`). After `console` the connection carries the console's bytes, both ways. Only processes of the
machine's own user, and of root, are answered: the kernel tells who is at the other end (SO_PEERCRED, unix(7)), and the
directory is nobody else's. A socket whose machine was killed is removed by the next one who looks.
"""

import contextlib
import os
import re
import select
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from virtus.errors import HostLacks, UsageError, VirtusError, from_words
from virtus.host.runtime_directory import runtime_directory

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}")
CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: process, user, group
LONGEST_LINE: Final = 1 << 20
PATIENCE_S: Final = 60.0
"""Longest wait for an answer: to save a machine takes as long as to write its memory."""
Command = Callable[[Mapping[str, Any]], Any]
"""Answers a request with plain data; refuses by raising VirtusError."""


class ConsoleWanted(Exception):
    """Raised by a Command: from here on the connection is for the console, to which `take` gives it."""

    def __init__(self, take: Callable[[socket.socket], None]) -> None:
        super().__init__("the connection is for the console")
        self.take = take


class ControlSocket:
    """A machine's end. `poll` answers what has come, and never waits; `commands` are what can be asked for.

    Raises UsageError for a name that is none, or that a running machine has.
    """

    def __init__(self, name: str, commands: Mapping[str, Command]) -> None:
        if not NAME.fullmatch(name):
            raise UsageError(
                "reading --name", f"{name!r}", "letters, digits and . _ -, beginning with one of the first"
            )
        self.name, self._commands = name, commands
        self._path = runtime_directory("machines") / name
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._bind()
        except VirtusError:
            self._listener.close()
            raise
        self._listener.listen(8)
        self._connections: dict[socket.socket, bytearray] = {}
        self.watch: Callable[[int], None] = lambda descriptor: None  # called with each new descriptor to look at

    def _bind(self) -> None:
        doing = f"naming the machine {self.name}"
        for _ in range(2):
            try:
                self._listener.bind(str(self._path))
            except OSError:
                if _is_alive(self._path):
                    raise UsageError(doing, "a machine of that name is running", "give another --name") from None
                with contextlib.suppress(OSError):
                    self._path.unlink()
            else:
                return
        raise HostLacks(doing, f"{self._path} cannot be bound to")

    def descriptors(self) -> list[int]:
        """What becomes readable when there is something to `poll` for."""
        return [self._listener.fileno(), *(connection.fileno() for connection in self._connections)]

    def poll(self) -> None:
        """Answer every request that has come."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._admit(connection)
        for connection in list(self._connections):
            self._receive(connection)

    def _admit(self, connection: socket.socket) -> None:
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        _, user, _ = CREDENTIALS.unpack(peer)
        if user not in (0, os.geteuid()):
            connection.close()
            return
        connection.setblocking(False)
        self._connections[connection] = bytearray()
        self.watch(connection.fileno())

    def _receive(self, connection: socket.socket) -> None:
        received = self._connections[connection]
        try:
            data = connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        received += data
        if not data or len(received) > LONGEST_LINE:
            self._drop(connection)
            return
        while connection in self._connections and b"\n" in received:
            line, _, rest = received.partition(b"\n")
            received[:] = rest
            self._answer(connection, bytes(line))

    def _answer(self, connection: socket.socket, line: bytes) -> None:
        import json  # here and below: most machines are asked for nothing

        take = None
        try:
            answer: dict[str, Any] = {"result": self._does(line)}
        except ConsoleWanted as wanted:
            answer, take = {"result": None}, wanted.take
        except VirtusError as error:
            answer = {"error": error.words()}
        try:
            connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            self._drop(connection)  # it does not read
            return
        if take is not None:
            del self._connections[connection]
            take(connection)

    def _does(self, line: bytes) -> Any:
        import json

        doing = f"controlling {self.name}"
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            raise UsageError(doing, "no request in JSON")
        command = self._commands.get(str(request.get("command")))
        if command is None:
            known = ", ".join(sorted(self._commands))
            raise UsageError(doing, f"this machine does not know {request.get('command')!r}", f"it knows {known}")
        return command(request)

    def _drop(self, connection: socket.socket) -> None:
        del self._connections[connection]
        connection.close()

    def close(self) -> None:
        """Nobody can ask any more. May be called twice."""
        if self._listener.fileno() < 0:
            return
        for connection in list(self._connections):
            self._drop(connection)
        self._listener.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


# The other side


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(PATIENCE_S)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def _is_alive(path: Path) -> bool:
    try:
        _connect(path).close()
    except OSError:
        return False
    return True


def names() -> list[str]:
    """The machines that run now."""
    found = []
    for path in sorted(runtime_directory("machines").iterdir()):
        if _is_alive(path):
            found.append(path.name)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    return found


def ask(name: str, command: str, /, **words: Any) -> Any:
    """Ask a machine for something; its answer. Raises UsageError where there is no such machine, or what it raises."""
    with open_line(name) as connection:
        return _exchange(connection, name, {"command": command, **words})


def open_line(name: str) -> socket.socket:
    """A connection to a machine; raises UsageError where there is none of that name."""
    if not NAME.fullmatch(name):
        raise UsageError("finding the machine", f"{name!r} is no name")
    try:
        return _connect(runtime_directory("machines") / name)
    except OSError as error:
        raise UsageError(f"finding the machine {name}", "it does not run", "see `virtus domain list`") from error


def _exchange(connection: socket.socket, name: str, request: Mapping[str, Any]) -> Any:
    import json

    received = bytearray()
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        while not received.endswith(b"\n"):
            piece = connection.recv(1 << 16)
            if not piece:
                raise VirtusError(f"asking {name}", "it ended before it answered")
            received += piece
    except OSError as error:
        raise VirtusError(f"asking {name}", f"no answer: {error}") from error
    answer = json.loads(received)
    if "error" in answer:
        raise from_words(answer["error"])
    return answer["result"]


def attach(name: str, user_in: int, user_out: int, escape: bytes) -> None:
    """Connect two descriptors with a machine's console until `escape` is typed, or the machine ends."""
    import json

    with open_line(name) as connection:
        connection.sendall(json.dumps({"command": "console"}).encode() + b"\n")
        received = bytearray()
        while b"\n" not in received:
            piece = connection.recv(1)
            if not piece:
                return
            received += piece
        answer = json.loads(received)
        if "error" in answer:
            raise from_words(answer["error"])
        watched = [connection.fileno(), user_in]
        while True:
            ready = select.select(watched, [], [])[0]
            if connection.fileno() in ready:
                shown = connection.recv(1 << 16)
                if not shown:
                    return
                while shown:
                    shown = shown[os.write(user_out, shown) :]
            if user_in in ready:
                typed, escaped, _ = os.read(user_in, 1024).partition(escape)
                if not typed and not escaped:
                    watched.remove(user_in)  # nothing more is typed; what comes is still shown
                connection.sendall(typed)
                if escaped:
                    return
