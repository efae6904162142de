"""Memory of another process: process_vm_readv(2) and process_vm_writev(2), which honour its page protections."""

import ctypes
import errno
from collections.abc import Sequence
from typing import Final

WINDOW: Final = 1 << 20
"""Bytes moved at a time."""


class _Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_uint64), ("length", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)
_signature = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
_readv, _writev = _libc.process_vm_readv, _libc.process_vm_writev
_readv.argtypes = _writev.argtypes = _signature
_readv.restype = _writev.restype = ctypes.c_ssize_t

_window = bytearray(WINDOW)
_view = memoryview(_window)
_window_c = (ctypes.c_char * WINDOW).from_buffer(_window)
_local = _Iovec(ctypes.addressof(_window_c), 0)
_remote = _Iovec(0, 0)
_local_address, _remote_address = ctypes.addressof(_local), ctypes.addressof(_remote)


def read(pid: int, address: int, size: int) -> bytes:
    """`size` bytes; raises OSError(EFAULT) where any of it is not readable."""
    if size > WINDOW:
        return b"".join(
            read(pid, at, min(WINDOW, address + size - at)) for at in range(address, address + size, WINDOW)
        )
    _local.length = _remote.length = size
    _remote.base = address
    if _readv(pid, _local_address, 1, _remote_address, 1, 0) != size and size:
        raise OSError(errno.EFAULT, "")
    return _view[:size].tobytes()


def read_partial(pid: int, address: int, size: int) -> bytes:
    """As many of `size` bytes (at most `WINDOW`) as are readable from `address` on."""
    size = min(size, WINDOW)
    _local.length = _remote.length = size
    _remote.base = address
    got = _readv(pid, _local_address, 1, _remote_address, 1, 0)
    if got < 0 and size > 4096:  # a fault in the first page fails the whole call on some kernels
        return read_partial(pid, address, 4096 - (address & 4095))
    return _view[: max(got, 0)].tobytes()


def write(pid: int, address: int, data: bytes | bytearray | memoryview) -> None:
    """Store `data`; raises OSError(EFAULT) where any of it is not writable."""
    size = len(data)
    if size > WINDOW:
        view = memoryview(data)
        for at in range(0, size, WINDOW):
            write(pid, address + at, view[at : at + WINDOW])
        return
    _view[:size] = data
    _local.length = _remote.length = size
    _remote.base = address
    if _writev(pid, _local_address, 1, _remote_address, 1, 0) != size and size:
        raise OSError(errno.EFAULT, "")


MOST_PIECES: Final = 1024  # UIO_MAXIOV, include/uapi/linux/uio.h


def write_words(pid: int, words: Sequence[tuple[int, int]]) -> None:
    """Store 64-bit words, given as (address, value), wherever they belong; raises OSError(EFAULT)."""
    for start in range(0, len(words), MOST_PIECES):
        part = words[start : start + MOST_PIECES]
        count = len(part)
        values = (ctypes.c_uint64 * count)(*(value for _, value in part))
        remote = (_Iovec * count)(*(_Iovec(address, 8) for address, _ in part))
        local = _Iovec(ctypes.addressof(values), 8 * count)
        if _writev(pid, ctypes.addressof(local), 1, ctypes.addressof(remote), count, 0) != 8 * count:
            raise OSError(errno.EFAULT, "")
