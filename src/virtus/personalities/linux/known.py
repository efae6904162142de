"""What the host has said of paths and would say again: nothing there, or no symbolic link.

Compilers ask for the same hundred directories thousands of times (realpath(3) of every header), and for headers in all
the places where they are not. Only guests' calls change the guest's root, and all of them pass through this kernel; so
an answer holds until one of them could have changed it, and each says so with `made`, `removed` or `changed`. Only
absolute paths that stay within the root's own layers are remembered: a volume may be changed from outside.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

MOST: Final = 1 << 15
"""Paths remembered of each kind; past it all are forgotten."""

absent: set[bytes] = set()
"""No such name (a symbolic link that leads nowhere is one)."""
absent_beyond: set[bytes] = set()
"""Nothing there when links are followed."""
no_links: set[bytes] = set()
"""Exists and is no symbolic link."""
_credentials: object = None  # what may be searched differs between users


def holds(task: "Task") -> bool:
    """Whether what is remembered was said to a task like this one."""
    return task.credentials is _credentials and task.place.root == "/"


def _remember(task: "Task", kind: set[bytes], path: bytes) -> None:
    global _credentials
    if task.credentials is not _credentials or len(kind) >= MOST:
        changed()
        _credentials = task.credentials
    kind.add(path)


def is_absent(task: "Task", path: bytes, *, follow: bool) -> None:
    """The host found nothing."""
    _remember(task, absent_beyond, path)
    if not follow:
        _remember(task, absent, path)


def is_no_link(task: "Task", path: bytes) -> None:
    """The host found something else than a symbolic link."""
    _remember(task, no_links, path)


def made() -> None:
    """A name has come to be."""
    absent.clear()
    absent_beyond.clear()


def removed() -> None:
    """A name has gone."""
    no_links.clear()


def changed() -> None:
    """Names or permissions have changed."""
    made()
    removed()
