"""The nodes of /proc: directories, texts made when they are read, links, and links that are the thing itself.

Nodes are made when they are looked up and keep nothing but what they are about; a process that has ended simply is not
found any more.
"""

import errno
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Mapping
from time import time_ns
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtus.personalities.linux.files import File
    from virtus.personalities.linux.kernel import Kernel
    from virtus.personalities.linux.task import Task

Location = tuple[int, bytes]
"""A host directory descriptor and a path from it: where host calls find a file."""

DT_DIR, DT_REG, DT_LNK = 4, 8, 10  # include/linux/fs_types.h
BLOCK: Final = 1024  # what stat shows as the block size of a proc file


class Node:
    """Something with a name in /proc. `path` is absolute; `owner` the (user, group) it shows."""

    type = stat.S_IFREG

    def __init__(self, path: str, mode: int, owner: tuple[int, int] = (0, 0)) -> None:
        self.path, self.mode, self.owner = path, mode, owner

    def status(self, device: int) -> os.stat_result:
        """What stat(2) shows."""
        inode = zlib.crc32(self.path.encode()) | 0x1_0000_0000
        links = 2 if self.type == stat.S_IFDIR else 1
        uid, gid = self.owner
        now = time_ns()
        basic = (self.type | self.mode, inode, device, links, uid, gid, 0, *[now // 10**9] * 3)
        more = {"st_blksize": BLOCK, "st_blocks": 0, "st_rdev": 0}
        return os.stat_result(basic, more | dict.fromkeys(("st_atime_ns", "st_mtime_ns", "st_ctime_ns"), now))

    def lookup(self, task: "Task", name: str) -> "Node | None":
        """The child of this name, for directories."""
        raise OSError(errno.ENOTDIR, "")


class Text(Node):
    """A file whose content is made when it is read; `accept` takes what is written to it."""

    def __init__(
        self,
        path: str,
        produce: Callable[[], bytes],
        accept: Callable[[bytes], None] | None = None,
        *,
        mode: int = 0o444,
        owner: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(path, mode | (0o200 if accept else 0), owner)
        self.produce, self.accept = produce, accept


class Link(Node):
    """A symbolic link whose text says where it leads."""

    type = stat.S_IFLNK

    def __init__(self, path: str, target: str, owner: tuple[int, int] = (0, 0)) -> None:
        super().__init__(path, 0o777, owner)
        self.target = target

    def text(self, task: "Task") -> bytes:
        """readlink(2)."""
        return os.fsencode(self.target)


class MagicLink(Node):
    """A link that leads to an object, whatever its text says (proc(5): fd, cwd, exe, root)."""

    type = stat.S_IFLNK
    file: "File | None" = None
    """The open file that it leads to, for fd/N."""

    def __init__(
        self,
        path: str,
        text: Callable[[], bytes],
        leads: "Callable[[], Location | Node]",
        owner: tuple[int, int] = (0, 0),
        mode: int = 0o777,
    ) -> None:
        super().__init__(path, mode, owner)
        self._text, self.leads = text, leads

    def text(self, task: "Task") -> bytes:
        """readlink(2)."""
        return self._text()


Maker = Callable[["Task", str], "Node | None"]
"""Makes the child of a name, given its whole path."""


class Directory(Node):
    """A directory of fixed children, or of what `names` and `find` say now."""

    type = stat.S_IFDIR

    def __init__(
        self,
        path: str,
        children: Mapping[str, Maker],
        *,
        names: "Callable[[Task], Iterable[tuple[str, int]]] | None" = None,
        find: "Callable[[Task, str], Node | None] | None" = None,
        owner: tuple[int, int] = (0, 0),
        mode: int = 0o555,
        parent: "Node | None" = None,
    ) -> None:
        super().__init__(path, mode, owner)
        self._children, self._names, self._find = children, names, find
        self.parent = parent

    def lookup(self, task: "Task", name: str) -> Node | None:
        """The child of this name, None for none."""
        maker = self._children.get(name)
        if maker is not None:
            return maker(task, f"{self.path}/{name}")
        return self._find(task, name) if self._find is not None else None

    def rows(self, task: "Task") -> list[tuple[str, int, int]]:
        """(name, inode, type) of what is in it, `.` and `..` first."""
        rows = [(".", _inode(self.path), DT_DIR), ("..", _inode(os.path.dirname(self.path)), DT_DIR)]
        for name in self._children:
            node = self.lookup(task, name)
            if node is not None:
                rows.append((name, _inode(node.path), node.type >> 12))
        if self._names is not None:
            rows += [(name, _inode(f"{self.path}/{name}"), kind) for name, kind in self._names(task)]
        return rows


def _inode(path: str) -> int:
    return zlib.crc32(path.encode()) | 0x1_0000_0000


def constant(content: str | bytes) -> Maker:
    """A file that always reads the same."""
    data = content.encode() if isinstance(content, str) else content
    return lambda task, path: Text(path, lambda: data)


def of_kernel(produce: "Callable[[Kernel], bytes]") -> Maker:
    """A file made from the kernel's state."""
    return lambda task, path: Text(path, lambda: produce(task.kernel))


def of_host(name: str) -> Maker:
    """A fact of the machine that the host's own procfs states."""
    return lambda task, path: Text(path, lambda: read_host(task.kernel, name)) if has_host(task.kernel, name) else None


def read_host(kernel: "Kernel", name: str) -> bytes:
    """A file of the host's procfs for the machine's PID namespace."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=kernel.procfs)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def has_host(kernel: "Kernel", name: str) -> bool:
    """Whether the host's procfs has it."""
    try:
        os.stat(name, dir_fd=kernel.procfs)
    except OSError:
        return False
    return True


def directory(children: Mapping[str, Maker]) -> Maker:
    """A directory of fixed children."""
    return lambda task, path: Directory(path, children)
