"""What a machine's network card is plugged into: nothing, a switch between the machines of one user, or a tap device.

A switch is a directory of sockets, one a port. Each port learns which address is behind which other port, and sends a
frame there alone, or to all where it does not know; so there is no process in between that could be missing or killed.
A socket whose port has died is removed by whoever sends to it next.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import struct
from collections import deque
from pathlib import Path
from typing import Final, Protocol

from virtus.devices.offload import HEADER, NOTHING, finished
from virtus.errors import HostLacks, UsageError
from virtus.host.runtime_directory import runtime_directory

LEAST_FRAME: Final = 14  # the header: destination, source, type (IEEE 802.3, 3.2)
MOST_FRAME: Final = 65550  # a frame that the receiver segments, and its header
ADDRESS: Final = 6
GROUP_BIT: Final = 1  # of an address's first byte: broadcast and multicast
MOST_LEARNT: Final = 4096
LOOK_AGAIN_AFTER: Final = 64
"""After so many frames for everyone a port looks again who the others are; it does so for each new name anyway."""
BUFFER: Final = 4 << 20
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,48}")
TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETVNETHDRSZ: Final = 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 2, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
INTERFACE_REQUEST: Final = struct.Struct("16sH22x")


class Link(Protocol):
    """One end of a network cable. Whole Ethernet frames without their own check sum; never waits.

    `send` and `receive` carry frames that are complete. With the other two a card hands over, and takes, frames that
    are not (`offload`), each with its header.
    """

    def fileno(self) -> int:
        """What becomes readable when a frame has come."""
        ...

    def receive(self) -> bytes | None:
        """The next frame, None when there is none now."""
        ...

    def send(self, frame: bytes | bytearray | memoryview) -> bool:
        """Send a frame; False where it was dropped: too short or long, or nobody takes it."""
        ...

    def receive_unfinished(self) -> tuple[bytes, bytes] | None:
        """The next frame with the header that says what is left to do; None when there is none now."""
        ...

    def send_unfinished(self, header: bytes, frame: bytes | bytearray | memoryview) -> bool:
        """Send a frame that the receiver, or the host, is to finish; False where it was dropped."""
        ...

    def close(self) -> None:
        """Pull the plug. May be called twice."""
        ...


def attach(word: str) -> Link | None:
    """What `--net` names: none, switch:NAME or tap:INTERFACE. Raises UsageError, HostLacks."""
    kind, _, name = word.partition(":")
    if word == "none":
        return None
    if kind == "switch" and NAME.fullmatch(name):
        return SwitchPort(runtime_directory("switches") / name)
    if kind == "tap" and name:
        return Tap(name)
    raise UsageError("reading --net", f"{word!r} is nothing to plug in", "write none, switch:NAME or tap:INTERFACE")


class _Finishing:
    """Complete frames out of those that are not: for cards that can do nothing with them."""

    def __init__(self) -> None:
        self._finished: deque[bytes] = deque()

    def receive_unfinished(self) -> tuple[bytes, bytes] | None:
        """See Link."""
        raise NotImplementedError

    def send_unfinished(self, header: bytes, frame: bytes | bytearray | memoryview) -> bool:
        """See Link."""
        raise NotImplementedError

    def receive(self) -> bytes | None:
        """See Link."""
        while not self._finished:
            received = self.receive_unfinished()
            if received is None:
                return None
            self._finished.extend(finished(*received))
        return self._finished.popleft()

    def send(self, frame: bytes | bytearray | memoryview) -> bool:
        """See Link."""
        return self.send_unfinished(NOTHING, frame)


class SwitchPort(_Finishing):
    """A port of the switch in `directory`. See Link. What goes between ports is a frame behind its header."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        self._name = f"{os.getpid()}.{os.urandom(4).hex()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        try:
            self._socket.bind(str(directory / self._name))
        except OSError as error:
            self._socket.close()
            raise HostLacks("plugging into a switch", f"{directory}: {error.strerror}") from error
        self._others = set[str]()
        self._behind = dict[bytes, str]()  # by address: the port it was last seen at
        self._floods = 0
        self._look()

    def fileno(self) -> int:
        """See Link."""
        return self._socket.fileno()

    def receive_unfinished(self) -> tuple[bytes, bytes] | None:
        """See Link."""
        while True:
            try:
                data, sender = self._socket.recvfrom(HEADER.size + MOST_FRAME)
            except OSError:
                return None
            header, frame = data[: HEADER.size], data[HEADER.size :]
            if len(frame) < LEAST_FRAME or not isinstance(sender, str):
                continue
            port, source = os.path.basename(sender), frame[ADDRESS : 2 * ADDRESS]
            if not source[0] & GROUP_BIT and self._behind.get(source) != port:
                if len(self._behind) >= MOST_LEARNT:
                    self._behind.clear()
                self._behind[source] = port
            self._others.add(port)
            return header, frame

    def send_unfinished(self, header: bytes, frame: bytes | bytearray | memoryview) -> bool:
        """See Link."""
        if not LEAST_FRAME <= len(frame) <= MOST_FRAME:
            return False
        port = self._behind.get(bytes(frame[:ADDRESS]))
        if port is not None:
            known = self._send(header, frame, port)
            if known or port in self._others:
                return known  # its buffer is full: dropped, as by any switch
        if self._floods % LOOK_AGAIN_AFTER == 0 or not self._others:
            self._look()
        self._floods += 1
        return sum(self._send(header, frame, other) for other in sorted(self._others)) > 0

    def _send(self, header: bytes, frame: bytes | bytearray | memoryview, port: str) -> bool:
        path = f"{self._directory}/{port}"
        try:
            self._socket.sendmsg((header, frame), (), 0, path)
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):  # its process is gone
                self._forget(port)
                with contextlib.suppress(OSError):
                    os.unlink(path)
            return False
        return True

    def _forget(self, port: str) -> None:
        self._others.discard(port)
        for address in [address for address, at in self._behind.items() if at == port]:
            del self._behind[address]

    def _look(self) -> None:
        self._others = {entry for entry in os.listdir(self._directory) if entry != self._name}

    def close(self) -> None:
        """See Link."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            with contextlib.suppress(OSError):
                os.unlink(self._directory / self._name)


class Tap(_Finishing):
    """A tap interface of the host, made unless it is there: an Ethernet card of the host on the other end. See Link."""

    def __init__(self, interface: str) -> None:
        super().__init__()
        if not 0 < len(interface.encode()) < 16:  # IFNAMSIZ
            raise UsageError("reading --net", f"{interface!r} is no name of an interface")
        doing, remedy = f"opening the tap interface {interface}", f"ip tuntap add {interface} mode tap user $USER"
        try:
            self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise HostLacks(doing, f"/dev/net/tun: {error.strerror}", "modprobe tun") from error
        try:
            fcntl.ioctl(
                self._fd, TUNSETIFF, INTERFACE_REQUEST.pack(interface.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
            )
            fcntl.ioctl(self._fd, TUNSETVNETHDRSZ, struct.pack("<i", HEADER.size))
            fcntl.ioctl(self._fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
        except OSError as error:
            os.close(self._fd)
            raise HostLacks(doing, error.strerror or str(error), remedy) from error

    def fileno(self) -> int:
        """See Link."""
        return self._fd

    def receive_unfinished(self) -> tuple[bytes, bytes] | None:
        """See Link."""
        try:
            data = os.read(self._fd, HEADER.size + MOST_FRAME)
        except OSError:
            return None
        return data[: HEADER.size], data[HEADER.size :]

    def send_unfinished(self, header: bytes, frame: bytes | bytearray | memoryview) -> bool:
        """See Link."""
        if not LEAST_FRAME <= len(frame) <= MOST_FRAME:
            return False
        try:
            os.writev(self._fd, (header, frame))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """See Link."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
