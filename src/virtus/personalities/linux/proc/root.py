"""The top of /proc."""

from typing import TYPE_CHECKING

from virtus.personalities.linux.proc import process_files
from virtus.personalities.linux.proc.system_files import SYSTEM
from virtus.personalities.linux.proc.tree import Directory, Node

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task


def _find(task: "Task", name: str) -> Node | None:
    return process_files.process_directory(task.kernel, name)


def _names(task: "Task") -> list[tuple[str, int]]:
    return process_files.process_names(task.kernel)


ROOT = Directory(
    "/proc",
    {
        "self": lambda task, path: process_files.self_links(task)["self"],
        "thread-self": lambda task, path: process_files.self_links(task)["thread-self"],
        **SYSTEM,
    },
    names=_names,
    find=_find,
)
"""/proc itself: the same for all, seen by a task."""
