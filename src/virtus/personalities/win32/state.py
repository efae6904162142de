"""What a family of functions remembers of a process: its regions, heaps, slots, keys. Made when first asked for."""

from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

Part = TypeVar("Part")


class _Weakly(Protocol):
    """Whatever can be a key here."""

    def __hash__(self) -> int: ...


_PARTS: WeakKeyDictionary[Any, dict[type[Any], Any]] = WeakKeyDictionary()


def of(owner: _Weakly, kind: type[Part]) -> Part:
    """The owner's (a process's or thread's) only object of a class; the class is called without arguments.

    Two threads that ask first at the same time get the same object.
    """
    parts = getattr(owner, "parts", None)  # of those that are asked all the time: see Process and Thread
    if parts is None:
        parts = _PARTS.get(owner)
    if parts is None:
        parts = _PARTS.setdefault(owner, {})
    found = parts.get(kind)
    if found is None:
        found = parts.setdefault(kind, kind())
    return found  # type: ignore[no-any-return]  # the dictionary holds objects of many classes
