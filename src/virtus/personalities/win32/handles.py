"""The one handle table of a process, and the protocol of objects that can be waited for."""

import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

FIRST_HANDLE: Final = 0x40
PUBLISHED: Final = 0x10_0000
"""Handles below it have a word in the guest's memory."""
WORDS_SIZE: Final = PUBLISHED // 4 * 8
WORD_KIND: Final = 32
"""Where in a word FILE_TYPE_* is; the host's descriptor is below."""
KNOWN, PLAIN, WRITABLE, NO_TERMINAL, QUICK = 1 << 40, 1 << 41, 1 << 42, 1 << 43, 1 << 44
"""That it is a file; a synchronous regular one, which the host's calls serve as they are; one that a call of the host
writes to, up to PIPE_BUF bytes if it is not PLAIN; that it is no terminal; and that machine code has opened it, and
nobody has an object for it."""
QUICK_FIRST, QUICK_HANDLES = 0xC_0000, 1024
"""Handles that only machine code gives (`quick_files`)."""
SEARCH, TAKEN = 1 << 45, 1 << 46
"""That it is an enumeration of files, and the rest of the word where it stands (`searches`); and nothing but that a
handle of machine code's is not free."""


def _is_quick(handle: int) -> bool:
    """Whether only machine code gives this handle."""
    return 0 <= handle - QUICK_FIRST < 4 * QUICK_HANDLES and not handle % 4


class Waitable(Protocol):
    """An object of the wait functions."""

    def signalled(self, thread: Any) -> bool:
        """Whether a wait by this thread would end at once."""
        ...

    def acquire(self, thread: Any) -> None:
        """What a satisfied wait does to the object: resets an event, counts a semaphore down, takes a mutex."""
        ...


class HandleTable:
    """Handles are multiples of 4; an object is closed with its last handle."""

    def __init__(self) -> None:
        self._objects: dict[int, Any] = {}
        self._inheritable: set[int] = set()
        self._next = FIRST_HANDLE
        self._publish: Callable[[int, int], None] | None = None
        self._adopt: Callable[[int], Any] | None = None
        self.lock = threading.RLock()

    def publish(self, store: Callable[[int, int], None], adopt: Callable[[int], Any]) -> None:
        """From now on, have what machine code may know of a handle stored: its number in the row of words (a fourth of
        it), and its word, 0 for nothing. Objects tell theirs by a method `word`. `adopt` makes the object of a handle
        that machine code has given, None for any other."""
        with self.lock:
            self._publish, self._adopt = store, adopt
            for handle, object in self._objects.items():
                self._tell(handle, object)

    def _tell(self, handle: int, object: Any) -> None:
        word = getattr(object, "word", None)
        if self._publish is not None and handle < PUBLISHED and (word is not None or _is_quick(handle)):
            known = 0 if word is None else word()
            self._publish(handle // 4, known or (TAKEN if _is_quick(handle) else 0))

    def add(self, object: Any, *, inheritable: bool = False) -> int:
        """A new handle."""
        with self.lock:
            handle = self._next
            self._next += 4
            if self._next == QUICK_FIRST:
                self._next = PUBLISHED
            self._objects[handle] = object
            if inheritable:
                self._inheritable.add(handle)
            self._tell(handle, object)
            return handle

    def place(self, handle: int, object: Any) -> None:
        """A handle that the process has been started with."""
        with self.lock:
            self._objects[handle] = object
            self._inheritable.add(handle)
            if not _is_quick(handle):
                self._next = max(self._next, handle + 4)
            self._tell(handle, object)

    def is_inheritable(self, handle: int) -> bool:
        """Whether children get it."""
        return handle in self._inheritable

    def set_inheritable(self, handle: int, inheritable: bool) -> None:
        """Whether children will get it."""
        (self._inheritable.add if inheritable else self._inheritable.discard)(handle)

    def objects(self) -> list[Any]:
        """Everything that a handle is open for, as often as handles are."""
        return list(self._objects.values())

    def inheritable(self) -> dict[int, Any]:
        """What a child gets under the same numbers."""
        return {handle: self._objects[handle] for handle in sorted(self._inheritable) if handle in self._objects}

    def get(self, handle: int) -> Any:
        """The object, or None."""
        found = self._objects.get(handle)
        if found is None and _is_quick(handle):
            return self._adopted(handle)
        return found

    def _adopted(self, handle: int) -> Any:
        with self.lock:
            found = self._objects.get(handle)
            if found is None and self._adopt is not None:
                found = self._adopt(handle)
                if found is not None:
                    self._objects[handle] = found
            return found

    def close(self, handle: int) -> bool:
        """Whether it was one."""
        if _is_quick(handle):
            self._adopted(handle)
        self._inheritable.discard(handle)
        found = self._objects.pop(handle, None)
        if self._publish is not None and handle < PUBLISHED and (hasattr(found, "word") or _is_quick(handle)):
            self._publish(handle // 4, 0)
        return found is not None
