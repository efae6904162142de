"""Sockets by raw address and raw control data, as recvmsg(2) and its kin take them.

Python's own `socket` module translates addresses and options; a kernel that answers for another one must not.
"""

import ctypes
import errno
import os
from typing import Final, NamedTuple

SOCK_CLOEXEC: Final = 0o2000000  # include/linux/net.h
SOCK_NONBLOCK: Final = 0o4000
MSG_DONTWAIT: Final = 0x40  # include/linux/socket.h
MSG_NOSIGNAL: Final = 0x4000
MSG_CMSG_CLOEXEC: Final = 0x40000000
ADDRESS_MAX: Final = 128  # sizeof(struct sockaddr_storage)
CONTROL_MAX: Final = 65536


class _Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    """struct msghdr, as libc has it on 64-bit systems."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Received(NamedTuple):
    """What one recvmsg(2) gave. `size` is its result, more than `data` holds with MSG_TRUNC."""

    data: bytes
    size: int
    address: bytes
    control: bytes
    flags: int


_libc = ctypes.CDLL(None, use_errno=True)
for _name in ("recvmsg", "sendmsg"):
    getattr(_libc, _name).argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    getattr(_libc, _name).restype = ctypes.c_ssize_t
for _name in ("bind", "connect"):
    getattr(_libc, _name).argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
for _name in ("getsockname", "getpeername"):
    getattr(_libc, _name).argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_libc.accept4.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
_libc.setsockopt.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
_libc.getsockopt.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]

_address = ctypes.create_string_buffer(ADDRESS_MAX)
_length = ctypes.c_uint32()
_control = ctypes.create_string_buffer(CONTROL_MAX)
_vector = _Iovec()
_message = _Msghdr(vectors=ctypes.addressof(_vector), vector_count=1)
_window = bytearray(1 << 16)


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def create(family: int, kind: int, protocol: int) -> int:
    """socket(2): non-blocking, close-on-exec."""
    return _checked(_libc.socket(family, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol))


def pair(family: int, kind: int, protocol: int) -> tuple[int, int]:
    """socketpair(2): both non-blocking, close-on-exec."""
    both = (ctypes.c_int * 2)()
    _checked(_libc.socketpair(family, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol, both))
    return both[0], both[1]


def bind(fd: int, address: bytes) -> None:
    """bind(2)."""
    _checked(_libc.bind(fd, address, len(address)))


def connect(fd: int, address: bytes) -> None:
    """connect(2)."""
    _checked(_libc.connect(fd, address, len(address)))


def listen(fd: int, backlog: int) -> None:
    """listen(2)."""
    _checked(_libc.listen(fd, ctypes.c_int(backlog)))


def shutdown(fd: int, how: int) -> None:
    """shutdown(2)."""
    _checked(_libc.shutdown(fd, ctypes.c_int(how)))


def accept(fd: int) -> tuple[int, bytes]:
    """accept4(2): the new socket, non-blocking and close-on-exec, and the peer's address."""
    _length.value = ADDRESS_MAX
    new = _checked(
        _libc.accept4(fd, ctypes.addressof(_address), ctypes.addressof(_length), SOCK_NONBLOCK | SOCK_CLOEXEC)
    )
    return new, _address.raw[: min(_length.value, ADDRESS_MAX)]


def own_name(fd: int) -> bytes:
    """getsockname(2)."""
    _length.value = ADDRESS_MAX
    _checked(_libc.getsockname(fd, ctypes.addressof(_address), ctypes.addressof(_length)))
    return _address.raw[: min(_length.value, ADDRESS_MAX)]


def peer_name(fd: int) -> bytes:
    """getpeername(2)."""
    _length.value = ADDRESS_MAX
    _checked(_libc.getpeername(fd, ctypes.addressof(_address), ctypes.addressof(_length)))
    return _address.raw[: min(_length.value, ADDRESS_MAX)]


def set_option(fd: int, level: int, name: int, value: bytes) -> None:
    """setsockopt(2)."""
    _checked(_libc.setsockopt(fd, level, name, value, len(value)))


def get_option(fd: int, level: int, name: int, initial: bytes) -> bytes:
    """getsockopt(2) into a buffer that holds `initial` before (some options read it)."""
    buffer = ctypes.create_string_buffer(initial, len(initial) + 1)
    _length.value = len(initial)
    _checked(_libc.getsockopt(fd, level, name, ctypes.addressof(buffer), ctypes.addressof(_length)))
    return buffer.raw[: min(_length.value, len(initial))]


def receive(fd: int, size: int, flags: int, *, control_size: int = 0) -> Received:
    """recvmsg(2) without waiting. Descriptors that come in the control data are close-on-exec, and the caller's."""
    global _window
    if size > len(_window):
        _window = bytearray(size)
    window = (ctypes.c_char * len(_window)).from_buffer(_window)
    _vector.base, _vector.length = ctypes.addressof(window), size
    _message.name, _message.name_length = ctypes.addressof(_address), ADDRESS_MAX
    control_size = min(control_size, CONTROL_MAX)
    _message.control, _message.control_length = ctypes.addressof(_control) if control_size else None, control_size
    _message.flags = 0
    got = _libc.recvmsg(fd, ctypes.addressof(_message), flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
    del window  # so that the window may grow again
    if got < 0:
        error = ctypes.get_errno()
        raise OSError(error, "")
    return Received(
        bytes(memoryview(_window)[: min(got, size)]),
        got,
        _address.raw[: min(_message.name_length, ADDRESS_MAX)],
        _control.raw[: _message.control_length] if control_size else b"",
        _message.flags & ~MSG_CMSG_CLOEXEC,
    )


def send(fd: int, data: bytes, flags: int, *, address: bytes = b"", control: bytes = b"") -> int:
    """sendmsg(2) without waiting and without SIGPIPE; how many bytes were taken."""
    _vector.base, _vector.length = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value, len(data)
    if len(control) > CONTROL_MAX:
        raise OSError(errno.ENOBUFS, "")
    name = ctypes.create_string_buffer(address, len(address)) if address else None
    _message.name, _message.name_length = ctypes.addressof(name) if name else None, len(address)
    ctypes.memmove(_control, control, len(control))
    _message.control, _message.control_length = ctypes.addressof(_control) if control else None, len(control)
    _message.flags = 0
    sent: int = _libc.sendmsg(fd, ctypes.addressof(_message), flags | MSG_DONTWAIT | MSG_NOSIGNAL)
    if sent < 0:
        error = ctypes.get_errno()
        raise OSError(error, "")
    return sent
