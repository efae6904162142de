"""A Linux system call by its number, for those that neither Python nor libc offers as a function."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def direct_call(number: int, *arguments: int) -> int:
    """The call's result; raises OSError with its errno. Arguments are integers or addresses."""
    result: int = _syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
