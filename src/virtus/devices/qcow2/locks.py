"""Locks on image files as QEMU takes them, so that no two write to one, nor one reads what another writes.

Source: qemu.git block/file-posix.c (raw_apply_lock_bytes): byte 100 + N is locked, shared, by who uses permission N;
byte 200 + N by who does not want others to. They are of the open file, and gone with it, however it ends.
"""

import errno
import fcntl
import struct
from typing import Final

USES, DENIES = 100, 200
CONSISTENT_READ, WRITE, RESIZE = 0, 1, 3  # BLK_PERM_*, numbers of bits
FLOCK: Final = struct.Struct("hhqqi4x")


def lock(fd: int, *, writing: bool) -> None:
    """Take the file for as long as it is open; raises OSError(EBUSY) where somebody uses it otherwise."""
    uses = (CONSISTENT_READ, WRITE, RESIZE) if writing else (CONSISTENT_READ,)
    for byte in (*(USES + one for one in uses), *(DENIES + one for one in (WRITE, RESIZE))):
        if not _locked(fd, byte):
            return  # the file system has no locks
    if any(_taken(fd, DENIES + one) for one in uses) or any(_taken(fd, USES + one) for one in (WRITE, RESIZE)):
        raise OSError(errno.EBUSY, "it is in use by another process")


def _locked(fd: int, byte: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_RDLCK, 0, byte, 1, 0))
    except OSError:
        return False
    return True


def _taken(fd: int, byte: int) -> bool:
    """Whether somebody else has locked it."""
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, FLOCK.pack(fcntl.F_WRLCK, 0, byte, 1, 0))
    return bool(FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
