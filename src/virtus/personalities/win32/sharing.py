"""Share modes: who may open a file that is open already.

Each handle says what it does with the file, and what others may do meanwhile; both must agree with all that came before
(Microsoft: Creating and Opening Files, "File sharing"). Kept among the handles of one process.
"""

import os
import weakref
from typing import Final

from virtus.personalities.win32 import state
from virtus.personalities.win32.file_objects import (
    APPEND_DATA,
    DELETE,
    GENERIC_ALL,
    GENERIC_READ,
    GENERIC_WRITE,
    READ_DATA,
    WRITE_DATA,
    File,
)
from virtus.personalities.win32.process import Process

SHARE_READ, SHARE_WRITE, SHARE_DELETE = 1, 2, 4
EXECUTE, GENERIC_EXECUTE = 0x20, 0x2000_0000
KINDS: Final = (
    (SHARE_READ, READ_DATA | EXECUTE | GENERIC_READ | GENERIC_EXECUTE | GENERIC_ALL),
    (SHARE_WRITE, WRITE_DATA | APPEND_DATA | GENERIC_WRITE | GENERIC_ALL),
    (SHARE_DELETE, DELETE | GENERIC_ALL),
)
"""A share mode, and the access that needs it."""


class Open:
    """Open files by the host's identity of them: what each does, and what it lets others do."""

    def __init__(self) -> None:
        self.files: dict[tuple[int, int], weakref.WeakKeyDictionary[File, tuple[int, int]]] = {}


def needed(access: int) -> int:
    """The share modes that access needs of others; 0 for attributes alone."""
    return sum(mode for mode, bits in KINDS if access & bits)


def conflict(process: Process, status: os.stat_result, access: int, share: int) -> bool:
    """Whether a file cannot be opened so, because of how it is open already."""
    wanted = needed(access)
    if not wanted:
        return False
    others = state.of(process, Open).files.get((status.st_dev, status.st_ino))
    if others is None:
        return False
    return any(wanted & ~lets or uses & ~share for other, (uses, lets) in list(others.items()) if other.handles)


def enter(process: Process, file: File, status: os.stat_result, access: int, share: int) -> None:
    """A file has been opened."""
    uses = needed(access | (DELETE if file.delete_on_close else 0))
    if uses:
        files = state.of(process, Open).files
        files.setdefault((status.st_dev, status.st_ino), weakref.WeakKeyDictionary())[file] = uses, share


def deletable(process: Process, status: os.stat_result) -> bool:
    """Whether a name may be taken from a file, as its open handles see it."""
    return not conflict(process, status, DELETE, SHARE_READ | SHARE_WRITE | SHARE_DELETE)
