"""The one handle table of a process, and the protocol of objects that can be waited for."""

import threading
from typing import Any, Final, Protocol

FIRST_HANDLE: Final = 0x40


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
        self.lock = threading.RLock()

    def add(self, object: Any, *, inheritable: bool = False) -> int:
        """A new handle."""
        with self.lock:
            handle = self._next
            self._next += 4
            self._objects[handle] = object
            if inheritable:
                self._inheritable.add(handle)
            return handle

    def place(self, handle: int, object: Any) -> None:
        """A handle that the process has been started with."""
        with self.lock:
            self._objects[handle] = object
            self._inheritable.add(handle)
            self._next = max(self._next, handle + 4)

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
        return self._objects.pop(handle, None) is not None
