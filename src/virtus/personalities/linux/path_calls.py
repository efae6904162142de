"""System calls on paths: opening, making, naming, removing; and where a task is."""

import ctypes
import errno
import os
import stat
import struct
from typing import Any, Final

from virtus.host import path_calls as host
from virtus.personalities.linux import known, opening, sysroot
from virtus.personalities.linux.blocking import Blocking
from virtus.personalities.linux.names import name_of_host
from virtus.personalities.linux.paths import AT_FDCWD, at, crosses, proc_device, slowly, walk
from virtus.personalities.linux.proc.files import open_node, permitted
from virtus.personalities.linux.proc.tree import Directory, Link, MagicLink, Node
from virtus.personalities.linux.regular import RegularFile
from virtus.personalities.linux.table import Int, Uint, Word, call, refuse
from virtus.personalities.linux.task import Task

O_CREAT_FLAGS: Final = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
OPEN_HOW: Final = struct.Struct("<QQQ")  # struct open_how, include/uapi/linux/openat2.h
OPEN_HOW_MOST: Final = 4096  # a page, as fs/open.c
RESOLVE_KNOWN: Final = 0x3F
RESOLVE_CACHED: Final = 0x20
MFD_KNOWN: Final = 0x1F | 0x3F << 26  # include/uapi/linux/memfd.h, sizes of huge pages included
MFD_CLOEXEC: Final = 1
MFD_HUGETLB: Final = 4
FILE_KINDS: Final = frozenset({0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK})
DEVICE_KINDS: Final = frozenset({stat.S_IFCHR, stat.S_IFBLK})
PATH_MAX: Final = 4096

_link = host.Buffer(PATH_MAX)
_how = host.OpenHow()
_how_address = ctypes.addressof(_how)


@call("open")
def open_(task: Task, path: Word, flags: Int, mode: Uint) -> int | Blocking:
    """open(2)."""
    return opening.open_file(task, AT_FDCWD, task.read_string(path), flags, mode)


@call("openat")
def openat(task: Task, dirfd: Int, path: Word, flags: Int, mode: Uint) -> int | Blocking:
    """openat(2)."""
    return opening.open_file(task, dirfd, task.read_string(path), flags, mode)


@call("creat")
def creat(task: Task, path: Word, mode: Uint) -> int | Blocking:
    """creat(2)."""
    return opening.open_file(task, AT_FDCWD, task.read_string(path), O_CREAT_FLAGS, mode)


@call("openat2", note="paths to /proc through symbolic links are not found when `resolve` restricts the walk")
def openat2(task: Task, dirfd: Int, path: Word, how: Word, size: Word) -> int | Blocking:
    """openat2(2)."""
    if size < OPEN_HOW.size:
        return -errno.EINVAL
    if size > OPEN_HOW_MOST:
        return -errno.E2BIG
    raw = task.read(how, size)
    if any(raw[OPEN_HOW.size :]):
        return -errno.E2BIG
    flags, mode, resolve = OPEN_HOW.unpack_from(raw)
    if resolve & ~RESOLVE_KNOWN or flags >> 32 or mode & ~0o7777:
        return -errno.EINVAL
    if mode and not flags & (os.O_CREAT | opening.O_TMPFILE):
        return -errno.EINVAL
    name = task.read_string(path)
    if not resolve & ~RESOLVE_CACHED:
        return opening.open_file(task, dirfd, name, flags, mode)
    passed = opening.PASSED_FOR_PATH if flags & os.O_PATH else opening.PASSED
    always = os.O_CLOEXEC if flags & os.O_PATH else opening.ALWAYS

    def act(start: int, text: bytes) -> int:
        _how.flags, _how.mode, _how.resolve = flags & passed | always, mode, resolve
        return host.openat2(start, text, _how_address, OPEN_HOW.size)

    found = at(task, dirfd, name, act, inside=lambda node: open_node(task, node, flags))
    if not isinstance(found, int):
        return task.open_descriptor(found, close_on_exec=bool(flags & os.O_CLOEXEC))
    return found if found < 0 else opening.opened(task, found, flags, dirfd, name)


def _read_link(task: Task, dirfd: int, path: bytes, buffer: int, size: int) -> int:
    path = sysroot.redirected(task, path)
    if size <= 0 or (path in known.no_links and known.holds(task)):
        return -errno.EINVAL
    if path in known.absent and known.holds(task):
        return -errno.ENOENT

    def act(start: int, text: bytes) -> int:
        return host.readlinkat(start, text, _link.address, PATH_MAX)

    def inside(node: Node) -> int:
        if not isinstance(node, Link | MagicLink):
            return -errno.EINVAL
        target = node.text(task)
        _link.view[: len(target)] = target
        return len(target)

    if not path and dirfd != AT_FDCWD:  # O_PATH | O_NOFOLLOW descriptors of links
        file = task.descriptors.get(dirfd)
        result = host.readlinkat(file.host, b"", _link.address, PATH_MAX)
    else:
        result = at(task, dirfd, path, act, follow=False, inside=inside, learn=True)
    if result == -errno.EINVAL:
        if path[:1] == b"/" and not crosses(AT_FDCWD, path, follow=False):
            known.is_no_link(task, path)
    elif result > 0:
        result = min(result, size)
        task.write(buffer, _link.view[:result])
    return result


@call("readlink")
def readlink(task: Task, path: Word, buffer: Word, size: Int) -> int:
    """readlink(2)."""
    return _read_link(task, AT_FDCWD, task.read_string(path), buffer, size)


@call("readlinkat")
def readlinkat(task: Task, dirfd: Int, path: Word, buffer: Word, size: Int) -> int:
    """readlinkat(2)."""
    return _read_link(task, dirfd, task.read_string(path), buffer, size)


def _exists(node: Node) -> int:
    return -errno.EEXIST


def _make_directory(task: Task, dirfd: int, path: int, mode: int) -> int:
    result: int = at(
        task,
        dirfd,
        task.read_string(path),
        lambda start, text: host.mkdirat(start, text, mode & 0o7777),
        follow=False,
        inside=_exists,
    )
    known.made()
    return result


@call("mkdir")
def mkdir(task: Task, path: Word, mode: Uint) -> int:
    """mkdir(2)."""
    return _make_directory(task, AT_FDCWD, path, mode)


@call("mkdirat")
def mkdirat(task: Task, dirfd: Int, path: Word, mode: Uint) -> int:
    """mkdirat(2)."""
    return _make_directory(task, dirfd, path, mode)


def _make_node(task: Task, dirfd: int, path: int, mode: int) -> int:
    kind = stat.S_IFMT(mode)
    if kind in DEVICE_KINDS:
        task.kernel.meter.note("mknod of a device refused: guests have the devices in /dev and no others")
        return -errno.EPERM
    if kind not in FILE_KINDS:
        return -errno.EPERM if kind == stat.S_IFDIR else -errno.EINVAL
    result: int = at(
        task,
        dirfd,
        task.read_string(path),
        lambda start, text: host.mknodat(start, text, mode, 0),
        follow=False,
        inside=_exists,
    )
    known.made()
    return result


@call("mknod", note="EPERM for devices")
def mknod(task: Task, path: Word, mode: Uint, device: Word) -> int:
    """mknod(2)."""
    return _make_node(task, AT_FDCWD, path, mode)


@call("mknodat", note="EPERM for devices")
def mknodat(task: Task, dirfd: Int, path: Word, mode: Uint, device: Word) -> int:
    """mknodat(2)."""
    return _make_node(task, dirfd, path, mode)


def _unlink(task: Task, dirfd: int, path: int, flags: int) -> int:
    result: int = at(
        task,
        dirfd,
        task.read_string(path),
        lambda start, text: host.unlinkat(start, text, flags),
        follow=False,
    )
    known.removed()
    return result


@call("unlink")
def unlink(task: Task, path: Word) -> int:
    """unlink(2)."""
    return _unlink(task, AT_FDCWD, path, 0)


@call("unlinkat")
def unlinkat(task: Task, dirfd: Int, path: Word, flags: Int) -> int:
    """unlinkat(2)."""
    return _unlink(task, dirfd, path, flags)


@call("rmdir")
def rmdir(task: Task, path: Word) -> int:
    """rmdir(2)."""
    return _unlink(task, AT_FDCWD, path, host.AT_REMOVEDIR)


def _between(task: Task, first: tuple[int, bytes], second: tuple[int, bytes], act: Any, *, follow: bool = False) -> int:
    """A call on two paths: `act(start, path, start, path)`. EXDEV between /proc and the rest, EPERM inside it."""

    def outer(start: int, path: bytes) -> int:
        result: int = at(
            task,
            *second,
            lambda other, target: act(start, path, other, target),
            follow=False,
            inside=lambda node: -errno.EXDEV,
        )
        return result

    result: int = at(task, *first, outer, follow=follow)
    known.changed()
    return result


def _rename(task: Task, old: tuple[int, bytes], new: tuple[int, bytes], flags: int) -> int:
    def act(start: int, path: bytes, other: int, target: bytes) -> int:
        return host.renameat2(start, path, other, target, flags)

    return _between(task, old, new, act)


@call("rename")
def rename(task: Task, old: Word, new: Word) -> int:
    """rename(2)."""
    return _rename(task, (AT_FDCWD, task.read_string(old)), (AT_FDCWD, task.read_string(new)), 0)


@call("renameat")
def renameat(task: Task, old_dirfd: Int, old: Word, new_dirfd: Int, new: Word) -> int:
    """renameat(2)."""
    return _rename(task, (old_dirfd, task.read_string(old)), (new_dirfd, task.read_string(new)), 0)


@call("renameat2")
def renameat2(task: Task, old_dirfd: Int, old: Word, new_dirfd: Int, new: Word, flags: Uint) -> int:
    """renameat2(2)."""
    if flags & 4:  # RENAME_WHITEOUT makes a device
        return -errno.EPERM
    return _rename(task, (old_dirfd, task.read_string(old)), (new_dirfd, task.read_string(new)), flags)


def _hard_link(task: Task, old: tuple[int, bytes], new: tuple[int, bytes], flags: int) -> int:
    if flags & ~(host.AT_SYMLINK_FOLLOW | host.AT_EMPTY_PATH):
        return -errno.EINVAL
    if not old[1] and flags & host.AT_EMPTY_PATH:
        file = task.descriptors.get(old[0])
        task.kernel.assume(task)

        def from_open(start: int, path: bytes) -> int:
            held = b"self/fd/%d" % file.host
            return host.linkat(task.kernel.procfs, held, start, path, host.AT_SYMLINK_FOLLOW)

        result: int = at(task, *new, from_open, follow=False, inside=_exists)
        known.made()
        return result
    follow = bool(flags & host.AT_SYMLINK_FOLLOW)

    def act(start: int, path: bytes, other: int, target: bytes) -> int:
        return host.linkat(start, path, other, target, host.AT_SYMLINK_FOLLOW if follow else 0)

    return _between(task, old, new, act, follow=follow)


@call("link")
def link(task: Task, old: Word, new: Word) -> int:
    """link(2)."""
    return _hard_link(task, (AT_FDCWD, task.read_string(old)), (AT_FDCWD, task.read_string(new)), 0)


@call("linkat")
def linkat(task: Task, old_dirfd: Int, old: Word, new_dirfd: Int, new: Word, flags: Int) -> int:
    """linkat(2)."""
    return _hard_link(task, (old_dirfd, task.read_string(old)), (new_dirfd, task.read_string(new)), flags)


def _symbolic_link(task: Task, target: int, dirfd: int, path: int) -> int:
    text = task.read_string(target)
    if not text:
        return -errno.ENOENT
    result: int = at(
        task,
        dirfd,
        task.read_string(path),
        lambda start, name: host.symlinkat(text, start, name),
        follow=False,
        inside=_exists,
    )
    known.made()
    return result


@call("symlink")
def symlink(task: Task, target: Word, path: Word) -> int:
    """symlink(2)."""
    return _symbolic_link(task, target, AT_FDCWD, path)


@call("symlinkat")
def symlinkat(task: Task, target: Word, dirfd: Int, path: Word) -> int:
    """symlinkat(2)."""
    return _symbolic_link(task, target, dirfd, path)


# Where a task is


def _go_to(task: Task, directory: int, cwd: str) -> int:
    place = task.place
    old = place.directory
    place.cwd, place.directory = cwd, directory
    if old >= 0:
        os.close(old)
    return 0


def _enter_proc(task: Task, node: Node) -> int:
    if not isinstance(node, Directory):
        return -errno.ENOTDIR
    if not permitted(task, node, 1):
        return -errno.EACCES
    return _go_to(task, -1, node.path)


def _open_directory(start: int, path: bytes) -> int:
    descriptor = host.openat(start, path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0)
    if descriptor < 0:
        return descriptor
    # a directory may be opened as a place without the right to search it, which chdir(2) asks for
    searchable = host.faccessat2(descriptor, b".", 0, host.AT_EACCESS)
    if searchable < 0:
        os.close(descriptor)
        return searchable
    return descriptor


@call("chdir")
def chdir(task: Task, path: Word) -> int:
    """chdir(2)."""
    name = task.read_string(path)

    found: int = at(task, AT_FDCWD, name, _open_directory, inside=lambda node: _Entered(_enter_proc(task, node)))
    if isinstance(found, _Entered):
        return int(found)
    if found < 0:
        return found
    if os.fstat(found).st_dev == proc_device():
        os.close(found)
        entered: int = slowly(task, AT_FDCWD, name, _open_directory, inside=lambda node: _enter_proc(task, node))
        return int(entered)
    return _go_to(task, found, os.fsdecode(name_of_host(task.kernel, found)))


class _Entered(int):
    """The result of having gone into /proc, where there is no host descriptor."""


@call("fchdir")
def fchdir(task: Task, fd: Int) -> int:
    """fchdir(2)."""
    file = task.descriptors.get(fd)
    node = getattr(file, "node", None)
    if isinstance(node, Node):
        return _enter_proc(task, node)
    if file.host < 0:
        return -errno.ENOTDIR
    task.kernel.assume(task)
    found = _open_directory(file.host, b".")
    if found < 0:
        return found
    return _go_to(task, found, os.fsdecode(name_of_host(task.kernel, found)))


@call("getcwd")
def getcwd(task: Task, buffer: Word, size: Word) -> int:
    """getcwd(2): the length, with the terminating NUL."""
    place = task.place
    if place.directory >= 0:
        task.kernel.assume(task)
        name = os.getcwdb()
    else:
        name = os.fsencode(place.cwd)
    if place.root != "/":
        root = os.fsencode(place.root)
        inside = name == root or name.startswith(root + b"/")
        name = (name[len(root) :] or b"/") if inside else b"(unreachable)" + name
    if size < len(name) + 1:
        return -errno.ERANGE
    task.write(buffer, name + b"\0")
    return len(name) + 1


@call("chroot")
def chroot(task: Task, path: Word) -> int:
    """chroot(2)."""
    name = task.read_string(path)
    if not name:
        return -errno.ENOENT
    if task.credentials.euid != 0:
        return -errno.EPERM
    task.kernel.assume(task)
    found = walk(task, AT_FDCWD, name, follow=True)
    if isinstance(found, Node):
        return -errno.EPERM
    descriptor = _open_directory(AT_FDCWD, found or b"/")
    if descriptor < 0:
        return descriptor
    root = name_of_host(task.kernel, descriptor)
    os.close(descriptor)
    task.place.root = os.fsdecode(root)
    return 0


@call("umask")
def umask(task: Task, mask: Int) -> int:
    """umask(2)."""
    old = task.place.umask
    task.place.umask = mask & 0o777
    return old


@call("memfd_create", note="no huge pages")
def memfd_create(task: Task, name: Word, flags: Uint) -> int:
    """memfd_create(2)."""
    if flags & ~MFD_KNOWN:
        return -errno.EINVAL
    text = task.read_string(name, 250)
    if flags & MFD_HUGETLB:
        return -errno.EOPNOTSUPP
    task.kernel.assume(task)
    descriptor = host.memfd_create(text, flags | MFD_CLOEXEC)
    if descriptor < 0:
        return descriptor
    file = RegularFile(descriptor, os.O_RDWR | opening.O_LARGEFILE)
    return task.open_descriptor(file, close_on_exec=bool(flags & MFD_CLOEXEC))


refuse(errno.EOPNOTSUPP, "files have no handles here", "name_to_handle_at")
refuse(errno.EPERM, "a handle would open files past every permission", "open_by_handle_at")
