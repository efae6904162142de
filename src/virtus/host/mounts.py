"""Mounts of the host: mount(2) and its successors that work on descriptors (open_tree, move_mount, mount_setattr)."""

import ctypes
import os
import re
from typing import Final

from virtus.records import dataclass

MS_RDONLY: Final = 1  # include/uapi/linux/mount.h
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
OPEN_TREE_CLONE: Final = 1
AT_FDCWD: Final = -100
AT_RECURSIVE: Final = 0x8000
AT_EMPTY_PATH: Final = 0x1000
MOVE_MOUNT_F_EMPTY_PATH: Final = 4
MOUNT_ATTR_RDONLY: Final = 1
MOUNT_ATTR_NODEV: Final = 4
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR, _PIVOT_ROOT = 428, 429, 442, 155  # syscall_64.tbl
ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
"""A byte in mountinfo that stands for itself nowhere else."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, doing: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(data))
    _check(_libc.mount(*arguments), f"mounting {kind or source} on {target}")


def make_private() -> None:
    """Let no mount from here on be seen outside, nor the other way round."""
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "making mounts private")


def unmount(target: str) -> None:
    """Detach a mount from the tree; open files in it live on."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"unmounting {target}")


def copy_tree(source: str) -> int:
    """A descriptor of a detached copy of the mounts at and below `source`."""
    flags = OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC
    call = _libc.syscall(_OPEN_TREE, AT_FDCWD, os.fsencode(source), ctypes.c_uint(flags))
    return _check(call, f"copying the mount of {source}")


def attach(tree: int, target: str) -> None:
    """Attach what `copy_tree` gave at `target`, and close it."""
    flags = ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH)
    try:
        _check(_libc.syscall(_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), flags), f"mounting on {target}")
    finally:
        os.close(tree)


def make_read_only(target: str) -> None:
    """Make the mounts at and below `target` read-only."""
    _restrict(AT_FDCWD, os.fsencode(target), AT_RECURSIVE, MOUNT_ATTR_RDONLY, f"making {target} read-only")


def restrict_copy(tree: int, attributes: int) -> None:
    """Give what `copy_tree` gave further MOUNT_ATTR_* restrictions; files that are open through it keep theirs."""
    _restrict(tree, b"", AT_RECURSIVE | AT_EMPTY_PATH, attributes, "restricting a mount")


def _restrict(directory: int, path: bytes, flags: int, attributes: int, doing: str) -> None:
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)  # struct mount_attr
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    _check(_libc.syscall(_MOUNT_SETATTR, directory, path, ctypes.c_uint(flags), ctypes.byref(wanted), size), doing)


def pivot_root(new_root: str) -> None:
    """Make `new_root` the root of this mount namespace, and let go of the old one."""
    os.chdir(new_root)
    _check(_libc.syscall(_PIVOT_ROOT, b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo (proc_pid_mountinfo(5))."""

    point: str
    kind: str


def mounts() -> list[Mount]:
    """The mounts of this namespace, in the order they were made."""
    with open("/proc/self/mountinfo", "rb") as stream:
        return [parse_mount(line) for line in stream]


def parse_mount(line: bytes) -> Mount:
    """One line of mountinfo; blanks and the like are octal escapes there."""
    fields = line.split(b" ")
    point = ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
    return Mount(os.fsdecode(point), fields[fields.index(b"-") + 1].decode())
