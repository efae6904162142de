"""Share modes: who may open a file that is open already.

Each handle says what it does with the file, and what others may do meanwhile; both must agree with all that came before
(Microsoft: Creating and Opening Files, "File sharing"). Kept among the handles of one process.
"""

import os
import weakref
from itertools import chain
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
from virtus.personalities.win32.listings import LISTINGS
from virtus.personalities.win32.process import Process
from virtus.personalities.win32.quick_files import QuickFiles

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
    known = [modes for other, modes in list(others.items()) if other.handles] if others is not None else []
    quick = ((needed(use), lets) for use, lets in state.of(process, QuickFiles).elsewhere(status))
    return any(uses and (wanted & ~lets or uses & ~share) for uses, lets in chain(known, quick))


def enter(process: Process, file: File, status: os.stat_result, access: int, share: int) -> bool:
    """A file has been opened. Whether it may stay so: machine code may have opened it meanwhile."""
    uses = needed(access | (DELETE if file.delete_on_close else 0))
    if uses:
        files = state.of(process, Open).files
        files.setdefault((status.st_dev, status.st_ino), weakref.WeakKeyDictionary())[file] = uses, share
        if uses & ~SHARE_READ or not share & SHARE_READ:
            quick, number = state.of(process, QuickFiles), status.st_ino
            quick.restrict(number, 1)
            file.ended = lambda: quick.restrict(number, -1)
            return not conflict(process, status, access | (DELETE if file.delete_on_close else 0), share)
    return True


def serve_machine_code(process: Process, place: int, words: int) -> None:
    """Let machine code open files, and know of handles: `place` and `words` as `QuickFiles.attach` has them."""
    quick, memory = state.of(process, QuickFiles), process.memory
    quick.attach(memory, place, words)

    def adopt(handle: int) -> File | None:
        found = quick.adopt(handle)
        if found is None:
            return None
        file, share = found
        file.opened()
        enter(process, file, os.fstat(file.fd), file.access, share)
        return file

    process.handles.publish(lambda index, word: memory.set_u64(words + 8 * index, word), adopt)
    LISTINGS.tell = quick.looked_through


def deletable(process: Process, status: os.stat_result) -> bool:
    """Whether a name may be taken from a file, as its open handles see it."""
    return not conflict(process, status, DELETE, SHARE_READ | SHARE_WRITE | SHARE_DELETE)
