"""What the kernel knows of a guest's threads and processes.

A `Task` is one thread, a `Process` the thread group that the guest calls a process. What clone(2) may share between
tasks stands in objects of its own: `Descriptors`, `Place` (CLONE_FS), `Memory` (CLONE_VM), `SignalActions`.
"""

import errno
import os
from functools import cache
from typing import TYPE_CHECKING, Any

from virtus.exits import Context
from virtus.personalities.linux.blocking import Blocking, Wait, WaitQueue
from virtus.personalities.linux.files import Descriptors
from virtus.personalities.linux.signals import Pending, SignalActions

if TYPE_CHECKING:
    from virtus.personalities.linux.kernel import Kernel

PATH_MAX = 4096  # include/uapi/linux/limits.h
PAGE = 4096
CAPABILITY_LAST = 40  # CAP_CHECKPOINT_RESTORE, include/uapi/linux/capability.h
ALL_CAPABILITIES = (1 << CAPABILITY_LAST + 1) - 1


@cache
def processors() -> int:
    """The processors of the machine, as a mask: those that its supervisor was given."""
    return sum(1 << processor for processor in os.sched_getaffinity(0))


class Credentials:
    """User and groups of a task (credentials(7)); replaced as a whole, never changed, so that tasks may share one."""

    __slots__ = (
        "effective", "egid", "euid", "fsgid", "fsuid", "gid", "groups", "inheritable", "permitted", "sgid", "suid",
        "uid",
    )  # fmt: skip

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...]) -> None:
        self.uid = self.euid = self.suid = self.fsuid = uid
        self.gid = self.egid = self.sgid = self.fsgid = gid
        self.groups = groups
        self.permitted = self.effective = 0 if uid else ALL_CAPABILITIES  # bit masks (capabilities(7))
        self.inheritable = 0

    def changed(self, **fields: Any) -> "Credentials":
        """A copy with some fields changed."""
        other = Credentials(self.uid, self.gid, self.groups)
        for name in self.__slots__:
            setattr(other, name, fields.get(name, getattr(self, name)))
        return other


class Place:
    """Where a task's paths start (CLONE_FS): working directory, root and umask.

    `cwd` is the guest's path, `directory` a host O_PATH descriptor of it, or -1 inside a file system of our own
    (/proc).
    """

    __slots__ = ("cwd", "directory", "root", "umask")

    def __init__(self, cwd: str, directory: int, umask: int, root: str = "/") -> None:
        self.cwd, self.directory, self.umask, self.root = cwd, directory, umask, root

    def copy(self) -> "Place":
        """A place of its own that starts the same."""
        return Place(self.cwd, os.dup(self.directory) if self.directory >= 0 else -1, self.umask, self.root)

    def __del__(self) -> None:
        if self.directory >= 0:
            os.close(self.directory)


class Memory:
    """An address space as the kernel keeps it; the mappings themselves are the host's."""

    __slots__ = (
        "arg_end",
        "arg_start",
        "attached",
        "break_end",
        "break_start",
        "env_end",
        "env_start",
        "map_cursor",
        "sharers",
        "stack_top",
    )

    def __init__(self) -> None:
        self.break_start = self.break_end = 0
        self.arg_start = self.arg_end = self.env_start = self.env_end = 0
        self.stack_top = 0
        self.map_cursor = 0  # where `placement` has put the last mapping
        self.sharers = 1
        self.attached: dict[int, Any] = {}  # System V shared memory by address

    def copy(self) -> "Memory":
        """The same layout for a copied address space."""
        other = Memory()
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        other.sharers = 1
        other.attached = dict(self.attached)
        return other


class Process:
    """A thread group. A zombie when `exit_status` is set and its parent has not waited for it yet."""

    def __init__(self, kernel: "Kernel", pid: int, parent: "Process | None") -> None:
        self.kernel = kernel
        self.pid = pid
        self.parent = parent
        self.children: dict[int, Process] = {}
        self.tasks: dict[int, Task] = {}
        self.group: int = parent.group if parent else pid
        self.session: int = parent.session if parent else pid
        self.terminal: Any = parent.terminal if parent else None  # the controlling terminal (terminals.Terminal)
        self.actions = SignalActions()
        self.pending = Pending()  # signals sent to the process as a whole
        self.exit_status: int | None = None  # as wait4(2) reports it
        self.exiting = False  # exit_group(2) has begun
        self.stopped_by = 0  # the signal that stopped it, 0 when running
        self.stop_reported = True  # for WUNTRACED
        self.continued = False  # for WCONTINUED
        self.exit_signal = 17  # SIGCHLD
        self.child_events = WaitQueue()  # woken when a child changes state
        self.vfork_done: WaitQueue | None = None  # woken when a vfork child has left its parent's memory
        self.limits: dict[int, tuple[int, int]] = dict(parent.limits) if parent else {}
        self.executable: str = parent.executable if parent else ""
        self.arguments: list[bytes] = list(parent.arguments) if parent else []
        self.environment: list[bytes] = []
        self.auxiliary: bytes = parent.auxiliary if parent else b""  # the auxiliary vector, as its program found it
        self.start_ns = 0
        self.user_us = self.system_us = 0  # of ended threads
        self.children_user_us = self.children_system_us = 0  # of waited-for children
        self.max_rss_kib = self.children_max_rss_kib = 0
        self.timers: dict[Any, Any] = {}  # interval and POSIX timers
        self.watchers: list[Any] = []  # pidfds: called when the process ends
        self.has_execed = False
        self.dumpable = 1
        self.subreaper = False
        self.personality: int = parent.personality if parent else 0
        self.no_new_privileges = False
        self.held: dict[Task, None] = {}  # tasks that wait at the door to user mode while it is stopped
        self.signal_waits: dict[Task, tuple[int, WaitQueue]] = {}  # sigtimedwait: the set each task waits for
        self.leader_status = 0  # the leader's own exit status, when it ended before its threads
        self.last_credentials: Credentials | None = None  # of a zombie

    @property
    def leader(self) -> "Task | None":
        """The thread whose id is the process's, while it lives."""
        return self.tasks.get(self.pid)

    @property
    def alive(self) -> bool:
        """Not yet a zombie."""
        return self.exit_status is None


class Task:
    """One thread of the guest."""

    __slots__ = (
        "__weakref__",
        "alternate_stack",
        "blocked",
        "clear_child_tid",
        "context",
        "credentials",
        "death_signal",
        "descriptors",
        "kernel",
        "memory",
        "name",
        "pending",
        "place",
        "process",
        "processors",
        "regs",
        "restore_mask",
        "robust_list",
        "state",
        "steps",
        "tid",
        "wait",
    )  # fmt: skip

    def __init__(self, kernel: "Kernel", tid: int, process: Process, context: Context) -> None:
        self.kernel = kernel
        self.tid = tid
        self.process = process
        self.context = context
        self.regs = context.regs
        self.name = b""
        self.descriptors: Descriptors = Descriptors()
        self.place: Place = Place("/", -1, 0o022)
        self.memory: Memory = Memory()
        self.credentials: Credentials = Credentials(0, 0, ())
        self.blocked = 0  # signal mask, bit n-1 for signal n
        self.pending = Pending()  # signals sent to this thread
        self.restore_mask: int | None = None  # mask to restore after sigsuspend, ppoll ... (TIF_RESTORE_SIGMASK)
        self.alternate_stack = (0, 2, 0)  # address, flags (SS_DISABLE), size
        self.clear_child_tid = 0
        self.robust_list = 0
        self.processors = processors()  # as sched_setaffinity(2) left it
        self.death_signal = 0
        self.steps: Blocking | None = None  # the system call it is inside of, when that waits
        self.wait: Wait | None = None  # what it sleeps for
        self.state = "R"  # as /proc shows it: R running, S sleeping, T stopped, Z zombie

    def read(self, address: int, size: int) -> bytes:
        """Guest memory; raises EFAULT."""
        return self.context.read(address, size)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Guest memory; raises EFAULT."""
        self.context.write(address, data)

    def read_string(self, address: int, limit: int = PATH_MAX) -> bytes:
        """A NUL-terminated string; raises EFAULT, or ENAMETOOLONG past `limit` bytes."""
        if not address:
            raise OSError(errno.EFAULT, "")
        text = b""
        while len(text) < limit:
            # never across a page whose neighbour may be absent; paths are mostly short
            step = min(256 if not text else PAGE, PAGE - (address & (PAGE - 1)))
            piece = self.context.read(address, step)
            end = piece.find(b"\0")
            if end >= 0:
                text += piece[:end]
                break
            text += piece
            address += step
        if len(text) >= limit:
            raise OSError(errno.ENAMETOOLONG, "")
        return text

    def read_path(self, address: int) -> str:
        """A path argument, as Python's own functions take it (surrogate-escaped UTF-8)."""
        return os.fsdecode(self.read_string(address))

    def limit(self, resource: int) -> int:
        """The soft limit of a resource (RLIMIT_*), in its unit."""
        return self.process.limits[resource][0]

    def open_descriptor(self, file: Any, *, close_on_exec: bool = False) -> int:
        """Put a file into the table; a file that finds no place is released again."""
        try:
            return self.descriptors.add(file, self.limit(7), close_on_exec=close_on_exec)  # RLIMIT_NOFILE
        except OSError:
            if not file.references:
                file.released()
            raise
