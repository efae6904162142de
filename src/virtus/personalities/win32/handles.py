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
KNOWN, PLAIN, WRITABLE, NO_TERMINAL = 1 << 40, 1 << 41, 1 << 42, 1 << 43
"""That it is a file; a synchronous regular one, which the host's calls serve as they are; one that a call of the host
writes to, up to PIPE_BUF bytes if it is not PLAIN; and that it is no terminal."""


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
        self.lock = threading.RLock()

    def publish(self, store: Callable[[int, int], None]) -> None:
        """From now on, have what machine code may know of a handle stored: its number in the row of words (a fourth of
        it), and its word, 0 for nothing. Objects tell theirs by a method `word`."""
        with self.lock:
            self._publish = store
            for handle, object in self._objects.items():
                self._tell(handle, object)

    def _tell(self, handle: int, object: Any) -> None:
        word = getattr(object, "word", None)
        if self._publish is not None and word is not None and handle < PUBLISHED:
            self._publish(handle // 4, word())

    def add(self, object: Any, *, inheritable: bool = False) -> int:
        """A new handle."""
        with self.lock:
            handle = self._next
            self._next += 4
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
        return self._objects.get(handle)

    def close(self, handle: int) -> bool:
        """Whether it was one."""
        self._inheritable.discard(handle)
        found = self._objects.pop(handle, None)
        if self._publish is not None and handle < PUBLISHED and hasattr(found, "word"):
            self._publish(handle // 4, 0)
        return found is not None
