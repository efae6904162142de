"""timerfd_create(2) and timerfd_settime(2), which Python offers only from 3.13 on."""

import ctypes
import os
from typing import Final

CLOCK_MONOTONIC: Final = 1  # include/uapi/linux/time.h
TFD_TIMER_ABSTIME: Final = 1  # include/uapi/linux/timerfd.h
NANOSECONDS: Final = 1_000_000_000


class Itimerspec(ctypes.Structure):
    """struct itimerspec: interval, then value, in seconds and nanoseconds."""

    _fields_ = (
        ("interval_seconds", ctypes.c_int64),
        ("interval_nanoseconds", ctypes.c_int64),
        ("seconds", ctypes.c_int64),
        ("nanoseconds", ctypes.c_int64),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.timerfd_settime.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


def create(clock: int = CLOCK_MONOTONIC, flags: int = os.O_CLOEXEC | os.O_NONBLOCK) -> int:
    """A new timer descriptor, disarmed."""
    fd: int = _libc.timerfd_create(clock, flags)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    return fd


def arm(fd: int, deadline: int) -> None:
    """Have the timer expire once at `deadline` nanoseconds of its clock; 0 disarms it. Clears earlier expirations."""
    value = Itimerspec(0, 0, *divmod(deadline, NANOSECONDS))
    if _libc.timerfd_settime(fd, TFD_TIMER_ABSTIME, ctypes.addressof(value), None):
        raise OSError(ctypes.get_errno(), "timerfd_settime")


def set_time(fd: int, flags: int, value: bytes) -> bytes:
    """timerfd_settime(2) with a raw struct itimerspec; the old one."""
    old = ctypes.create_string_buffer(ctypes.sizeof(Itimerspec))
    new = ctypes.create_string_buffer(value, ctypes.sizeof(Itimerspec))
    if _libc.timerfd_settime(fd, flags, ctypes.addressof(new), ctypes.addressof(old)):
        raise OSError(ctypes.get_errno(), "timerfd_settime")
    return old.raw


def get_time(fd: int) -> bytes:
    """timerfd_gettime(2): a raw struct itimerspec."""
    value = ctypes.create_string_buffer(ctypes.sizeof(Itimerspec))
    if _libc.timerfd_gettime(fd, ctypes.c_void_p(ctypes.addressof(value))):
        raise OSError(ctypes.get_errno(), "timerfd_gettime")
    return value.raw
