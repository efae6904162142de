"""inotify(7): being told of changes in files."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def create() -> int:
    """A new inotify instance, non-blocking and close-on-exec."""
    return _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))


def add_watch(fd: int, path: bytes, mask: int) -> int:
    """inotify_add_watch(2): the watch's number."""
    return _checked(_libc.inotify_add_watch(fd, path, mask))


def remove_watch(fd: int, watch: int) -> None:
    """inotify_rm_watch(2)."""
    _checked(_libc.inotify_rm_watch(fd, watch))
