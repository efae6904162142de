"""Where GDB connects: a port of this host, or a socket in the file system; one client at a time.

A port is bound to 127.0.0.1, so that only users of this host can connect; but all of them can, and whoever does may do
what the guest may. A socket in the file system is its owner's alone.
"""

import os
import socket
from typing import Final

from virtus.errors import UsageError
from virtus.machine.debug.packets import BadPacket, Control, Decoder, encode

HOST: Final = "127.0.0.1"
PATIENCE_S: Final = 10.0
"""How long it is waited for a client that does not read what is sent."""
_CHUNK: Final = 1 << 16


def listen(where: str) -> tuple[socket.socket, str]:
    """Listen at a port, or at a path (which has a `/`); the socket, and how GDB is to name it. Raises UsageError."""
    try:
        if "/" in where:
            return _at_path(where), where
        return _at_port(where)
    except OSError as error:
        raise UsageError(f"waiting for GDB at {where}", os.strerror(error.errno or 0)) from error


def _at_port(where: str) -> tuple[socket.socket, str]:
    if not where.isascii() or not where.isdigit() or int(where) > 0xFFFF:
        raise UsageError("reading --gdb", f"{where!r} is neither a port nor a path", "for example --gdb 1234")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, int(where)))
    listener.listen(1)
    return listener, f"{HOST}:{listener.getsockname()[1]}"


def _at_path(where: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o077)
    try:
        listener.bind(where)
    finally:
        os.umask(before)
    listener.listen(1)
    return listener


class Connection:
    """A client, once it has connected. After an error `closed` is set, and nothing more is sent or received."""

    def __init__(self, peer: socket.socket) -> None:
        self.closed = False
        self._peer = peer
        self._decoder = Decoder()
        self._last = b""
        peer.settimeout(PATIENCE_S)
        if peer.family == socket.AF_INET:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """To wait for."""
        return self._peer.fileno()

    def send(self, payload: bytes) -> None:
        """Send a packet."""
        self._last = encode(payload)
        self._write(self._last)

    def repeat(self) -> None:
        """The last packet has not arrived whole."""
        self._write(self._last)

    def acknowledge(self, *, whole: bool) -> None:
        """Say that a packet has arrived, whole or damaged."""
        self._write(b"+" if whole else b"-")

    def _write(self, data: bytes) -> None:
        if not self.closed:
            try:
                self._peer.sendall(data)
            except OSError:
                self.closed = True

    def receive(self) -> list[bytes | Control]:
        """What has arrived; there must be something, or the end."""
        try:
            data = self._peer.recv(_CHUNK)
            if data:
                return list(self._decoder.feed(data))
        except (OSError, BadPacket):
            pass  # as good as gone
        self.closed = True
        return []

    def close(self) -> None:
        """Hang up."""
        self.closed = True
        self._peer.close()
