"""The guest's /dev, /sys and the like: a few harmless nodes of the host in a small tmpfs."""

import fcntl
import os
import stat
from typing import Final

from virtus.host import mounts

NODES: Final = ("null", "zero", "full", "random", "urandom", "tty")
LINKS: Final = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx", "core": "/proc/kcore",
}  # fmt: skip
PROCESSORS: Final = "/sys/devices/system/cpu"
TTY_GROUP: Final = 5
MASKED: Final = ("kcore", "keys", "sysrq-trigger", "timer_list", "sched_debug", "kmsg", "latency_stats", "acpi", "scsi")
READ_ONLY: Final = ("sys", "irq", "bus", "fs", "asound")


class HostNodes:
    """Copies of the host's device nodes, taken while the host's tree is still there."""

    def __init__(self) -> None:
        self._trees = {name: mounts.copy_tree(f"/dev/{name}") for name in NODES if os.path.exists(f"/dev/{name}")}
        self._console = _console_tree()
        self._processors = mounts.copy_tree(PROCESSORS) if os.path.isdir(PROCESSORS) else -1

    def populate(self) -> None:
        """Build /dev and /sys in the new root."""
        for directory in ("/dev", "/proc", "/sys"):
            os.makedirs(directory, exist_ok=True)
        mounts.mount("dev", "/dev", "tmpfs", mounts.MS_NOSUID | mounts.MS_NOEXEC, "mode=755,size=64k")
        if self._console >= 0:
            self._trees["console"] = self._console
        for name, tree in self._trees.items():
            path = f"/dev/{name}"
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
            mounts.attach(tree, path)
            mounts.make_read_only(path)  # the node is the host's own: its mode and owner are not the guest's to change
        for name, target in LINKS.items():
            os.symlink(target, f"/dev/{name}")
        os.mkdir("/dev/shm")
        mounts.mount("shm", "/dev/shm", "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=1777,size=10%")
        os.mkdir("/dev/pts")
        flags = mounts.MS_NOSUID | mounts.MS_NOEXEC
        try:
            mounts.mount("devpts", "/dev/pts", "devpts", flags, f"newinstance,ptmxmode=0666,mode=0620,gid={TTY_GROUP}")
        except OSError:  # that group is not mapped for an ordinary user
            mounts.mount("devpts", "/dev/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=0620")
        os.mkdir("/dev/mqueue")
        mounts.mount("sys", "/sys", "tmpfs", flags | mounts.MS_NODEV, "mode=755,size=64k")
        if self._processors >= 0:
            os.makedirs(PROCESSORS)
            mounts.attach(self._processors, PROCESSORS)
            mounts.make_read_only(PROCESSORS)


def _console_tree() -> int:
    """The terminal among the standard streams, which a guest finds as /dev/console; -1 for none."""
    for fd in range(3):
        try:
            return mounts.copy_tree(os.ttyname(fd))
        except OSError:
            continue  # closed, no terminal, or one of another devpts instance
    return -1


def replace_inherited_devices() -> None:
    """Have standard streams that are devices of the host be the same devices of the guest's /dev.

    Whoever holds a descriptor may change the mode of what it was opened by: of the host's /dev/null, for all its users.
    """
    for fd in range(3):
        try:
            status = os.fstat(fd)
        except OSError:
            continue  # closed
        if not stat.S_ISCHR(status.st_mode):
            continue
        for name in NODES[:-1]:  # not tty: a terminal's number is not that of /dev/tty
            try:
                if os.stat(f"/dev/{name}").st_rdev == status.st_rdev:
                    flags = fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK)
                    own = os.open(f"/dev/{name}", flags | os.O_CLOEXEC)
                    os.dup2(own, fd)
                    os.close(own)
                    break
            except OSError:
                continue  # the host has no such device


def hide_console() -> None:
    """Cover /dev/console, for guests whose calls on it the host would answer itself."""
    if os.path.exists("/dev/console"):
        mounts.attach(mounts.copy_tree("/dev/null"), "/dev/console")


def mask_proc() -> None:
    """Hide from a guest with the host's own procfs what speaks of the whole host."""
    for name in MASKED:
        path = f"/proc/{name}"
        if os.path.isdir(path):
            mounts.mount("none", path, "tmpfs", mounts.MS_RDONLY, "size=0k")
        elif os.path.exists(path):
            mounts.attach(mounts.copy_tree("/dev/null"), path)
    for name in READ_ONLY:
        path = f"/proc/{name}"
        if os.path.isdir(path):
            mounts.attach(mounts.copy_tree(path), path)
            mounts.make_read_only(path)
