"""epoll with the caller's own 64 bits of data per descriptor, which Python's `select.epoll` keeps for itself."""

import ctypes
import os
from typing import Final

EVENT_SIZE: Final = 12
"""struct epoll_event is packed on x86-64 (include/uapi/linux/eventpoll.h): events, then 8 bytes of data."""
CTL_ADD, CTL_DEL, CTL_MOD = 1, 2, 3

_libc = ctypes.CDLL(None, use_errno=True)
_libc.epoll_ctl.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_char_p]
_libc.epoll_wait.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]


def create() -> int:
    """A new epoll set, close-on-exec."""
    fd: int = _libc.epoll_create1(os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "epoll_create1")
    return fd


def control(epoll: int, operation: int, fd: int, event: bytes) -> None:
    """epoll_ctl(2); `event` is a packed struct epoll_event."""
    if _libc.epoll_ctl(epoll, operation, fd, event):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def collect(epoll: int, most: int) -> bytes:
    """What is ready now, at most `most` packed events; never waits."""
    buffer = ctypes.create_string_buffer(EVENT_SIZE * most)
    count = _libc.epoll_wait(epoll, ctypes.addressof(buffer), most, 0)
    if count < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return buffer.raw[: EVENT_SIZE * count]
