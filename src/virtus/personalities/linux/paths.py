"""Paths: most are the host's to resolve, for the kernel process stands in the guest's root; /proc is ours.

The kernel process cannot leave the guest's root, and before each call it takes on the task's directory and identity
(`Kernel.assume`). So the fast way is to make the host's own *at call with the guest's own words. Three kinds of path
need more, and are walked here component by component: those in /proc (an empty directory for the host), those which
get there through a symbolic link (seen when the host found nothing and did cross a mount), and all paths of a task
that has changed its root.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from virtus.host import path_calls as host
from virtus.personalities.linux import known, sysroot
from virtus.personalities.linux.names import name_of_host
from virtus.personalities.linux.proc.root import ROOT
from virtus.personalities.linux.proc.tree import Directory, Link, Location, MagicLink, Node

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

AT_FDCWD: Final = host.AT_FDCWD
MOST_LINKS: Final = 40  # MAXSYMLINKS, include/linux/namei.h
NAME_MAX: Final = 255
ENOENT: Final = errno.ENOENT
_NO_DIRECTORY: Final = -1000  # no host directory to start from: walk
_MODE_AT: Final = 24  # st_mode in struct stat

Act = Callable[[int, bytes], int]
"""A host call on (directory descriptor, path): its result, or -errno."""

_status = host.Buffer(host.STATUS_SIZE)
_text = host.Buffer(4096)
_how = host.OpenHow(os.O_PATH | os.O_CLOEXEC, 0, host.RESOLVE_NO_XDEV)
_how_address = ctypes.addressof(_how)
_how_size = ctypes.sizeof(_how)


@cache
def proc_device() -> int:
    """The device number of what is mounted at /proc, by which the host's answers about it are recognised."""
    try:
        return os.stat("/proc").st_dev if os.path.ismount("/proc") else -1
    except OSError:
        return -1


def _refuse(node: Node) -> Any:
    """Nothing in /proc can be made, renamed or removed."""
    return -errno.EPERM


def at(
    task: "Task",
    dirfd: int,
    path: bytes,
    act: Act,
    *,
    follow: bool = True,
    inside: Callable[[Node], Any] = _refuse,
    learn: bool = False,
) -> Any:
    """Do `act` on the host's file that a path means, or `inside` on the node of /proc; the result of either.

    Raises OSError for what goes wrong on the way; `act` gives -errno for what the host says. `learn` when its ENOENT
    can only mean that this path leads to nothing.
    """
    if not path:
        return -ENOENT
    task.kernel.assume(task)
    if path[:5] != b"/proc" and task.place.root == "/":
        if path[0] == 47:  # "/"
            start = AT_FDCWD
        elif dirfd == AT_FDCWD:
            start = AT_FDCWD if task.place.directory >= 0 else _NO_DIRECTORY
        else:
            start = task.descriptors.get(dirfd).host
            if start < 0:
                start = _NO_DIRECTORY
        if start != _NO_DIRECTORY:
            result = act(start, path)
            if result != -ENOENT:
                return result
            if not crosses(start, path):
                if learn and path[0] == 47:
                    known.is_absent(task, path, follow=follow)
                return result
    return slowly(task, dirfd, path, act, follow=follow, inside=inside)


def slowly(
    task: "Task",
    dirfd: int,
    path: bytes,
    act: Act,
    *,
    follow: bool = True,
    inside: Callable[[Node], Any] = _refuse,
) -> Any:
    """`at`, by a walk of our own."""
    task.kernel.assume(task)
    found = walk(task, dirfd, path, follow=follow)
    if isinstance(found, MagicLink) and follow:
        leads = found.leads()
        if isinstance(leads, tuple):
            return act(*leads)
        found = leads
    return act(AT_FDCWD, found) if isinstance(found, bytes) else inside(found)


def crosses(start: int, path: bytes, *, follow: bool = True) -> bool:
    """Whether the host comes to another file system on its way. Where it found nothing that may have been /proc."""
    _how.flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    found = host.openat2(start, path, _how_address, _how_size)
    if found >= 0:
        os.close(found)
        return False
    return found in (-errno.EXDEV, -errno.ENOSYS)


def walk(task: "Task", dirfd: int, path: bytes, *, follow: bool) -> bytes | Node:
    """The host's absolute path without symbolic links on the way, or the node of /proc.

    A last component that does not exist, on the host's side, is not looked for: the call to come will say so.
    """
    root = b"" if task.place.root == "/" else os.fsencode(task.place.root)
    here: bytes | Node = root if path[:1] == b"/" else _start(task, dirfd)
    todo = path.split(b"/")[::-1]
    slash = path[-1:] == b"/"
    links = 0
    while todo:
        name = todo.pop()
        if name in (b"", b"."):
            continue
        if len(name) > NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, "")
        last = not any(todo)
        if name == b"..":
            here = _parent(here, root)
            continue
        target: bytes | None = None
        if isinstance(here, Node):
            child = here.lookup(task, os.fsdecode(name))
            if child is None:
                raise OSError(ENOENT, "")
            if last and not follow and not slash:
                return child
            if isinstance(child, MagicLink):
                if last and not slash:
                    return child
                here = _through(task, child)
                continue
            if isinstance(child, Link):
                target = child.text(task)
            else:
                here = child
        else:
            full = here + b"/" + name
            if full == b"/proc":
                here = ROOT
                continue
            result = host.newfstatat(AT_FDCWD, full, _status.address, host.AT_SYMLINK_NOFOLLOW)
            if result == -ENOENT and last:
                return full + b"/" if slash else full
            if result < 0:
                raise OSError(-result, "")
            kind = stat.S_IFMT(int.from_bytes(_status.view[_MODE_AT : _MODE_AT + 4], "little"))
            if kind == stat.S_IFLNK and (follow or slash or not last):
                length = host.readlinkat(AT_FDCWD, full, _text.address, _text.size)
                if length < 0:
                    raise OSError(-length, "")
                target = _text.take(length)
            elif kind != stat.S_IFDIR and not last:
                raise OSError(errno.ENOTDIR, "")
            else:
                here = full
        if target is not None:
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, "")
            todo += target.split(b"/")[::-1]
            if target[:1] == b"/":
                here = root
            slash = slash or (last and target[-1:] == b"/")
    if isinstance(here, Node):
        if slash and not isinstance(here, Directory):
            raise OSError(errno.ENOTDIR, "")
        return here
    return here + b"/" if slash or not here else here


def _start(task: "Task", dirfd: int) -> bytes | Node:
    """Where a relative path begins."""
    if dirfd == AT_FDCWD:
        if task.place.directory < 0:
            found = walk(task, AT_FDCWD, task.place.cwd.encode(), follow=True)
            return found.rstrip(b"/") if isinstance(found, bytes) else found
        return os.getcwdb().rstrip(b"/")
    file = task.descriptors.get(dirfd)
    node = getattr(file, "node", None)
    if isinstance(node, Node):
        return node
    if file.host < 0:
        raise OSError(errno.ENOTDIR, "")
    name = name_of_host(task.kernel, file.host)
    if name[:1] != b"/":
        raise OSError(errno.ENOTDIR, "")
    return name.rstrip(b"/")


def _parent(here: bytes | Node, root: bytes) -> bytes | Node:
    if isinstance(here, Node):
        above = os.path.dirname(here.path)
        if here is ROOT or above == "/":
            return b""
        return ROOT if above == "/proc" else _ByPath(above)
    return here if here == root else here.rpartition(b"/")[0]


class _ByPath(Node):
    """A directory of /proc that is known by its path, on the way up."""

    type = stat.S_IFDIR

    def __init__(self, path: str) -> None:
        super().__init__(path, 0o555)

    def lookup(self, task: "Task", name: str) -> Node | None:
        """The child, found from the top."""
        found: Node | None = ROOT
        for part in [*self.path.split("/")[2:], name]:
            found = found.lookup(task, part) if found is not None else None
        return found


def _through(task: "Task", link: MagicLink) -> bytes | Node:
    """The directory that a magic link leads to, to go on from."""
    leads = link.leads()
    if isinstance(leads, Node):
        return leads
    start, path = leads
    if start != AT_FDCWD:
        path = name_of_host(task.kernel, int(path.rpartition(b"/")[2]))
    if path[:5] == b"/proc":
        return walk(task, AT_FDCWD, path, follow=True)
    return path.rstrip(b"/")


def open_host(task: "Task", path: str, flags: int, at: int = AT_FDCWD) -> int:
    """Open one of the guest's files for the kernel itself: a host descriptor. Raises OSError; EACCES in /proc."""

    def act(start: int, name: bytes) -> int:
        return host.openat(start, name, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0)

    name = sysroot.redirected(task, os.fsencode(path))
    result: int = _at(task, at, name, act, inside=lambda node: -errno.EACCES)
    if result < 0:
        raise OSError(-result, "")
    return result


_at = at


def descriptor_of(location: Location) -> int:
    """The host descriptor that a location in the host's /proc/self/fd names, -1 for an ordinary path."""
    start, path = location
    return int(path.rpartition(b"/")[2]) if start != AT_FDCWD and path[:8] == b"self/fd/" else -1
