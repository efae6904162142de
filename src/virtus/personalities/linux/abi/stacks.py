"""Alternate signal stacks (sigaltstack(2)), the same on every processor."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

SS_ONSTACK: Final = 1  # include/uapi/linux/signal.h
SS_DISABLE: Final = 2
SS_AUTODISARM: Final = 1 << 31


class BadFrame(Exception):
    """The guest's stack has no room for a frame, or holds none that could be restored."""


def on_alternate_stack(task: "Task", pointer: int) -> bool:
    """Whether a stack pointer lies in the alternate stack."""
    start, flags, size = task.alternate_stack
    return not flags & SS_AUTODISARM and start < pointer <= start + size


def signed_flags(flags: int) -> int:
    """stack_t's flags as the int they are there."""
    return (flags & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
