"""A POSIX timer whose signal goes to one thread (timer_create(2), SIGEV_THREAD_ID): it ends that thread's KVM_RUN."""

import ctypes
import os
import struct
from typing import Final

CLOCK_MONOTONIC: Final = 1
SIGEV_THREAD_ID: Final = 4  # include/uapi/asm-generic/siginfo.h
SIGEVENT_SIZE: Final = 64
TIMESPECS: Final = struct.Struct("<qqqq")  # struct itimerspec: interval, then value

_libc = ctypes.CDLL(None, use_errno=True)


class ThreadTimer:
    """One timer; it expires once after `set`."""

    def __init__(self, number: int, thread: int) -> None:
        """Signal `number` will go to the thread with this id (threading.get_native_id)."""
        event = struct.pack("<QiiI", 0, number, SIGEV_THREAD_ID, thread).ljust(SIGEVENT_SIZE, b"\0")
        self._timer = ctypes.c_void_p()
        if _libc.timer_create(CLOCK_MONOTONIC, event, ctypes.byref(self._timer)):
            error = ctypes.get_errno()
            raise OSError(error, f"timer_create: {os.strerror(error)}")
        self._open = True

    def set(self, nanoseconds: int) -> None:
        """Expire this long from now, at least a nanosecond; an earlier setting is forgotten."""
        seconds, rest = divmod(max(nanoseconds, 1), 1_000_000_000)
        _libc.timer_settime(self._timer, 0, TIMESPECS.pack(0, 0, seconds, rest), None)

    def close(self) -> None:
        """Delete the timer. May be called twice."""
        if self._open:
            _libc.timer_delete(self._timer)
            self._open = False
