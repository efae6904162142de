"""Memory protection keys (pkeys(7)): with them a page can be executable and not readable."""

import ctypes
from typing import Final

PKEY_ALLOC, PKEY_FREE = 330, 331  # arch/x86/entry/syscalls/syscall_64.tbl
NO_RIGHTS: Final = 0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def can_hide_code() -> bool:
    """Whether PROT_EXEC alone makes memory that cannot be read (mprotect(2))."""
    key: int = _libc.syscall(PKEY_ALLOC, 0, NO_RIGHTS)
    if key < 0:
        return False
    _libc.syscall(PKEY_FREE, key)
    return True
