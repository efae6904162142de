"""The seam between the kernel's handlers and a processor's own interface."""

import struct
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

NO_SYSCALL: Final = 2**64 - 1
"""In the register `original`, when a context is not inside a system call."""
HIGHEST_NAMED: Final = 1023


class Abi:
    """One processor's. Registers are indexes into a context's `regs`."""

    machine: str
    """As uname(2) has it."""
    elf_machine: int
    platform: bytes | None
    """AT_PLATFORM."""
    names: Mapping[int, str]
    numbers: Mapping[str, int]
    arguments: tuple[int, ...]
    """Registers of a system call's arguments."""
    entry: tuple[int, int]
    """Two registers that are equal whenever a system call came through the processor's own entry."""
    result: int
    """The register that takes the result."""
    original: int
    """Not NO_SYSCALL while a context is inside a system call."""
    counter: int
    """The program counter."""
    stack: int
    """The stack pointer."""
    user_end: int
    """Guests own what lies below."""
    frames: ModuleType
    """`build` and `restore` signal frames; `BadFrame`."""
    clone_backwards: bool
    """clone(2) takes the thread pointer before the child's number (CONFIG_CLONE_BACKWARDS)."""
    action: struct.Struct
    """struct sigaction as the kernel takes it: handler, flags, the restorer where there is one, mask."""
    event: struct.Struct
    """struct epoll_event: events, data."""
    semaphores: struct.Struct
    """struct semid64_ds after its permissions: otime, ctime, nsems."""
    places: bool
    """Whether the kernel chooses where mappings go; else the host does."""

    def unknown(self, number: int) -> str:
        """The meter's word for a call that has no name; a guest cannot fill the meter by making up numbers."""
        return f"unknown call {number}" if number <= HIGHEST_NAMED else "a call of an impossible number"

    def again(self, regs: Any) -> None:
        """Have the system call made once more."""
        raise NotImplementedError

    def start(self, regs: Any, entry: int, pointer: int) -> None:
        """All registers as a new program finds them."""
        raise NotImplementedError

    def set_thread_pointer(self, regs: Any, value: int) -> None:
        """What CLONE_SETTLS sets."""
        raise NotImplementedError

    def status(self, host: Any) -> Any:
        """struct stat as guests know it, from the host's (x86-64)."""
        return host

    def auxiliary(self) -> list[tuple[int, int]]:
        """What the auxiliary vector says of the processor."""
        raise NotImplementedError

    def trampoline(self, task: "Task") -> None:
        """Map what a program needs besides its own, at exec."""

    def cpu_information(self) -> bytes | None:
        """/proc/cpuinfo; None where the host's own is the truth."""
        return None
