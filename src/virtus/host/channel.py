"""Connected pairs of sockets between our own processes, through which descriptors pass, too (unix(7)).

They are the interpreter's own sockets, without the module `socket`: that makes enumerations of all there is in the
host's headers first, which takes longer than a box takes to build.
"""

import _socket  # its names are those of the module `socket`
import struct
from _socket import SCM_RIGHTS, SOL_SOCKET
from collections.abc import Sequence
from typing import Final

Channel = _socket.socket
SHUT_WR: Final = _socket.SHUT_WR
sethostname = _socket.sethostname
_INT: Final = struct.Struct("i")
MSG_CMSG_CLOEXEC: Final = 0x40000000  # include/linux/socket.h


def pair() -> tuple[Channel, Channel]:
    """Two ends of a stream, closed on exec."""
    one, other = _socket.socketpair()
    return one, other


def any_socket() -> Channel:
    """A socket to ask the network's devices through (netdevice(7))."""
    return Channel(_socket.AF_INET, _socket.SOCK_DGRAM)


def send_descriptors(channel: Channel, data: bytes, descriptors: Sequence[int]) -> None:
    """Send bytes, and copies of descriptors with them."""
    packed = b"".join(_INT.pack(descriptor) for descriptor in descriptors)
    channel.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, packed)] if descriptors else [])


def receive_descriptors(channel: Channel, size: int, most: int) -> tuple[bytes, list[int]]:
    """Up to `size` bytes, and the descriptors that came with them, at most `most`: the caller's now, closed on exec."""
    data, messages, _, _ = channel.recvmsg(size, _socket.CMSG_LEN(most * _INT.size), MSG_CMSG_CLOEXEC)
    found: list[int] = []
    for level, kind, packed in messages:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            found += [number for (number,) in _INT.iter_unpack(packed[: len(packed) - len(packed) % _INT.size])]
    return data, found
