"""System calls on what a file is, not on what it holds: status, permissions, owners, times, extended attributes."""

import errno
import os
import stat
import struct
from typing import Final

from virtus.host import path_calls as host
from virtus.personalities.linux import known, sysroot
from virtus.personalities.linux.files import File
from virtus.personalities.linux.paths import AT_FDCWD, at, proc_device, slowly
from virtus.personalities.linux.proc.files import permitted, proc_device_number
from virtus.personalities.linux.proc.tree import Node
from virtus.personalities.linux.table import Int, Long, Uint, Word, call
from virtus.personalities.linux.task import Task

AT_SYMLINK_NOFOLLOW: Final = host.AT_SYMLINK_NOFOLLOW
AT_EMPTY_PATH: Final = host.AT_EMPTY_PATH
AT_NO_AUTOMOUNT: Final = 0x800
AT_STATX_SYNC: Final = 0x6000
STATUS: Final = struct.Struct("<QQQIIIxxxxQqqqqqqqqq24x")  # struct stat, arch/x86/include/uapi/asm/stat.h
STATX_BASIC: Final = 0x7FF  # STATX_BASIC_STATS
STATX: Final = struct.Struct("<IIQIIIHxxQQQQ")  # the start of struct statx, up to stx_attributes_mask
STATX_TIME: Final = struct.Struct("<qIxxxx")
PROC_SUPER_MAGIC: Final = 0x9FA0  # include/uapi/linux/magic.h
STATFS: Final = struct.Struct("<qqqqqqqqqqq32x")  # struct statfs, include/uapi/asm-generic/statfs.h
_NS: Final = 10**9

_status = host.Buffer(host.STATUS_SIZE)
_status_device = _status.view.cast("Q")
_statx = host.Buffer(host.STATX_SIZE)
_statfs = host.Buffer(host.STATFS_SIZE)
_times = host.Buffer(32)
_plain_stat = File.stat


def pack_status(status: os.stat_result) -> bytes:
    """`struct stat` of a status that did not come from the host as one."""
    return STATUS.pack(
        status.st_dev, status.st_ino, status.st_nlink, status.st_mode, status.st_uid, status.st_gid,
        status.st_rdev, status.st_size, status.st_blksize, status.st_blocks,
        *divmod(status.st_atime_ns, _NS), *divmod(status.st_mtime_ns, _NS), *divmod(status.st_ctime_ns, _NS),
    )  # fmt: skip


def _is_plain(file: File) -> bool:
    """The host's own status of its descriptor is the file's."""
    return file.host >= 0 and type(file).stat is _plain_stat


def _status_of_file(task: Task, file: File, buffer: int) -> int:
    if _is_plain(file):
        result = host.fstat(file.host, _status.address)
        if result == 0:
            task.write(buffer, task.kernel.abi.status(_status.view))
        return result
    task.write(buffer, task.kernel.abi.status(pack_status(file.stat())))
    return 0


def _node_status(node: Node) -> bytes:
    return pack_status(node.status(proc_device_number()))


def _status_at(task: Task, dirfd: int, path: bytes, buffer: int, flags: int) -> int:
    path = sysroot.redirected(task, path)

    def act(start: int, name: bytes) -> int:
        return host.newfstatat(start, name, _status.address, flags)

    follow = not flags & AT_SYMLINK_NOFOLLOW
    if path in (known.absent_beyond if follow else known.absent) and known.holds(task):
        return -errno.ENOENT
    result = at(task, dirfd, path, act, follow=follow, inside=_node_status, learn=True)
    if result == 0 and _status_device[0] == proc_device():
        result = slowly(task, dirfd, path, act, follow=follow, inside=_node_status)
    if result == 0:
        task.write(buffer, task.kernel.abi.status(_status.view))
        return 0
    if isinstance(result, bytes):
        task.write(buffer, task.kernel.abi.status(result))
        return 0
    return int(result)


@call("stat")
def stat_(task: Task, path: Word, buffer: Word) -> int:
    """stat(2)."""
    return _status_at(task, AT_FDCWD, task.read_string(path), buffer, 0)


@call("lstat")
def lstat(task: Task, path: Word, buffer: Word) -> int:
    """lstat(2)."""
    return _status_at(task, AT_FDCWD, task.read_string(path), buffer, AT_SYMLINK_NOFOLLOW)


@call("fstat")
def fstat(task: Task, fd: Int, buffer: Word) -> int:
    """fstat(2)."""
    return _status_of_file(task, task.descriptors.get(fd), buffer)


@call("newfstatat")
def newfstatat(task: Task, dirfd: Int, path: Word, buffer: Word, flags: Int) -> int:
    """fstatat(2)."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT):
        return -errno.EINVAL
    name = task.read_string(path)
    if not name and flags & AT_EMPTY_PATH:
        if dirfd == AT_FDCWD:
            name = b"."
        else:
            return _status_of_file(task, task.descriptors.get(dirfd), buffer)
    return _status_at(task, dirfd, name, buffer, flags & AT_SYMLINK_NOFOLLOW)


def _pack_statx(status: os.stat_result) -> bytes:
    packed = STATX.pack(
        STATX_BASIC, status.st_blksize, 0, status.st_nlink, status.st_uid, status.st_gid, status.st_mode,
        status.st_ino, status.st_size, status.st_blocks, 0,
    )  # fmt: skip
    times = (status.st_atime_ns, 0, status.st_ctime_ns, status.st_mtime_ns)
    packed += b"".join(STATX_TIME.pack(*divmod(value, _NS)) for value in times)
    devices = (os.major(status.st_rdev), os.minor(status.st_rdev), os.major(status.st_dev), os.minor(status.st_dev))
    return (packed + struct.pack("<IIII", *devices)).ljust(host.STATX_SIZE, b"\0")


@call("statx")
def statx(task: Task, dirfd: Int, path: Word, flags: Int, mask: Uint, buffer: Word) -> int:
    """statx(2)."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC) or mask & 0x80000000:
        return -errno.EINVAL
    if flags & AT_STATX_SYNC == AT_STATX_SYNC:
        return -errno.EINVAL
    name = task.read_string(path) if path or not flags & AT_EMPTY_PATH else b""
    if not name and flags & AT_EMPTY_PATH:
        if dirfd == AT_FDCWD:
            name = b"."
        else:
            file = task.descriptors.get(dirfd)
            if not _is_plain(file):
                task.write(buffer, _pack_statx(file.stat()))
                return 0
            result = host.statx(file.host, b"", flags, mask, _statx.address)
            if result == 0:
                task.write(buffer, _statx.view)
            return result

    name = sysroot.redirected(task, name)

    def act(start: int, text: bytes) -> int:
        return host.statx(start, text, flags, mask, _statx.address)

    def inside(node: Node) -> bytes:
        return _pack_statx(node.status(proc_device_number()))

    follow = not flags & AT_SYMLINK_NOFOLLOW
    found = at(task, dirfd, name, act, follow=follow, inside=inside, learn=True)
    if found == 0:
        major, minor = struct.unpack_from("<II", _statx.view, 136)  # stx_dev_major, stx_dev_minor
        if os.makedev(major, minor) == proc_device():
            found = slowly(task, dirfd, name, act, follow=follow, inside=inside)
    if found == 0:
        task.write(buffer, _statx.view)
        return 0
    if isinstance(found, bytes):
        task.write(buffer, found)
        return 0
    return int(found)


# Access


def _allowed(status: os.stat_result, mode: int, uid: int, gid: int, groups: tuple[int, ...]) -> bool:
    bits = status.st_mode
    if uid == 0:
        return not mode & 1 or bool(bits & 0o111) or stat.S_ISDIR(bits)
    shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid or status.st_gid in groups else 0
    return (bits >> shift) & mode == mode


def _access(task: Task, dirfd: int, path: bytes, mode: int, flags: int) -> int:
    if mode & ~7 or flags & ~(host.AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        return -errno.EINVAL
    credentials = task.credentials
    real = not flags & host.AT_EACCESS
    uid, gid = (credentials.uid, credentials.gid) if real else (credentials.euid, credentials.egid)
    follow = not flags & AT_SYMLINK_NOFOLLOW
    same = uid == credentials.fsuid and gid == credentials.fsgid
    host_flags = flags & AT_SYMLINK_NOFOLLOW | host.AT_EACCESS

    path = sysroot.redirected(task, path)

    def act(start: int, name: bytes) -> int:
        if same:
            return host.faccessat2(start, name, mode, host_flags)
        result = host.faccessat2(start, name, 0, host_flags)
        if result == 0 and mode:
            status = os.stat(name, dir_fd=None if start == AT_FDCWD else start, follow_symlinks=follow)
            if not _allowed(status, mode, uid, gid, credentials.groups):
                return -errno.EACCES
        return result

    def inside(node: Node) -> int:
        return 0 if permitted(task, node, mode) else -errno.EACCES

    if not path and flags & AT_EMPTY_PATH:
        if dirfd == AT_FDCWD:
            path = b"."
        else:
            file = task.descriptors.get(dirfd)
            return 0 if _allowed(file.stat(), mode, uid, gid, credentials.groups) else -errno.EACCES
    if path in (known.absent_beyond if follow else known.absent) and known.holds(task):
        return -errno.ENOENT
    result: int = at(task, dirfd, path, act, follow=follow, inside=inside, learn=True)
    return result


@call("access")
def access(task: Task, path: Word, mode: Int) -> int:
    """access(2)."""
    return _access(task, AT_FDCWD, task.read_string(path), mode, 0)


@call("faccessat")
def faccessat(task: Task, dirfd: Int, path: Word, mode: Int) -> int:
    """faccessat(2)."""
    return _access(task, dirfd, task.read_string(path), mode, 0)


@call("faccessat2")
def faccessat2(task: Task, dirfd: Int, path: Word, mode: Int, flags: Int) -> int:
    """faccessat2(2)."""
    return _access(task, dirfd, task.read_string(path), mode, flags)


# Permissions and owners


def _change_mode(task: Task, dirfd: int, path: bytes, mode: int, flags: int = 0) -> int:
    follow = not flags & AT_SYMLINK_NOFOLLOW

    def act(start: int, name: bytes) -> int:
        if flags:
            return host.fchmodat2(start, name, mode, flags)
        return host.fchmodat(start, name, mode)

    result: int = at(task, dirfd, path, act, follow=follow)
    known.changed()
    return result


@call("chmod")
def chmod(task: Task, path: Word, mode: Uint) -> int:
    """chmod(2)."""
    return _change_mode(task, AT_FDCWD, task.read_string(path), mode & 0o7777)


@call("fchmodat")
def fchmodat(task: Task, dirfd: Int, path: Word, mode: Uint) -> int:
    """fchmodat(2)."""
    return _change_mode(task, dirfd, task.read_string(path), mode & 0o7777)


@call("fchmodat2")
def fchmodat2(task: Task, dirfd: Int, path: Word, mode: Uint, flags: Uint) -> int:
    """fchmodat2(2)."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        return -errno.EINVAL
    name = task.read_string(path)
    if not name and flags & AT_EMPTY_PATH:
        return fchmod(task, dirfd, mode)
    return _change_mode(task, dirfd, name, mode & 0o7777, flags & AT_SYMLINK_NOFOLLOW)


@call("fchmod")
def fchmod(task: Task, fd: Int, mode: Uint) -> int:
    """fchmod(2)."""
    file = real_file(task, fd)
    os.fchmod(file.host, mode & 0o7777)
    return 0


def real_file(task: Task, fd: int) -> File:
    """The file of a descriptor that stands on the host; EBADF for a mere place, EPERM for what is in /proc."""
    file = task.descriptors.get(fd)
    if file.flags & os.O_PATH:
        raise OSError(errno.EBADF, "")
    if file.host < 0:
        raise OSError(errno.EPERM, "")
    task.kernel.assume(task)
    known.changed()  # permissions may be
    return file


def _owner_result(task: Task, result: int) -> int:
    """The host says EINVAL of users that its namespace does not have; who may not give files away gets EPERM first."""
    return -errno.EPERM if result == -errno.EINVAL and task.credentials.fsuid else result


def _change_owner(task: Task, dirfd: int, path: bytes, uid: int, gid: int, flags: int = 0) -> int:
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        return -errno.EINVAL
    if not path and flags & AT_EMPTY_PATH:
        task.kernel.assume(task)
        known.changed()
        return _owner_result(task, host.fchownat(task.descriptors.get(dirfd).host, b"", uid, gid, AT_EMPTY_PATH))
    result: int = at(
        task,
        dirfd,
        path,
        lambda start, name: host.fchownat(start, name, uid, gid, flags & AT_SYMLINK_NOFOLLOW),
        follow=not flags & AT_SYMLINK_NOFOLLOW,
    )
    known.changed()
    return _owner_result(task, result)


@call("chown")
def chown(task: Task, path: Word, uid: Int, gid: Int) -> int:
    """chown(2)."""
    return _change_owner(task, AT_FDCWD, task.read_string(path), uid, gid)


@call("lchown")
def lchown(task: Task, path: Word, uid: Int, gid: Int) -> int:
    """lchown(2)."""
    return _change_owner(task, AT_FDCWD, task.read_string(path), uid, gid, AT_SYMLINK_NOFOLLOW)


@call("fchownat")
def fchownat(task: Task, dirfd: Int, path: Word, uid: Int, gid: Int, flags: Int) -> int:
    """fchownat(2)."""
    return _change_owner(task, dirfd, task.read_string(path), uid, gid, flags)


@call("fchown")
def fchown(task: Task, fd: Int, uid: Int, gid: Int) -> int:
    """fchown(2)."""
    return host.fchownat(real_file(task, fd).host, b"", uid, gid, AT_EMPTY_PATH)  # takes ids that os.fchown refuses


# Times


def _set_times(task: Task, dirfd: int, path: int, times: bytes, flags: int) -> int:
    """`times` as utimensat(2) takes them: two struct timespec, or nothing for now."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        return -errno.EINVAL
    address = 0
    if times:
        _times.view[:] = times
        address = _times.address
    name = task.read_string(path) if path else b""
    if not path or (not name and flags & AT_EMPTY_PATH):
        if dirfd == AT_FDCWD and not path:
            return -errno.EFAULT
        task.kernel.assume(task)
        file = task.descriptors.get(dirfd)
        if file.host < 0:
            return -errno.EPERM
        if file.flags & os.O_PATH and not flags & AT_EMPTY_PATH:
            return -errno.EBADF
        return host.utimensat(task.kernel.procfs, b"self/fd/%d" % file.host, address, 0)
    result: int = at(
        task,
        dirfd,
        name,
        lambda start, text: host.utimensat(start, text, address, flags & AT_SYMLINK_NOFOLLOW),
        follow=not flags & AT_SYMLINK_NOFOLLOW,
    )
    return result


@call("utimensat")
def utimensat(task: Task, dirfd: Int, path: Word, times: Word, flags: Int) -> int:
    """utimensat(2)."""
    return _set_times(task, dirfd, path, task.read(times, 32) if times else b"", flags)


def _from_microseconds(task: Task, times: int) -> bytes:
    """Two struct timeval as two struct timespec."""
    if not times:
        return b""
    values = struct.unpack("<qqqq", task.read(times, 32))
    if not (0 <= values[1] < 10**6 and 0 <= values[3] < 10**6):
        raise OSError(errno.EINVAL, "")
    return struct.pack("<qqqq", values[0], values[1] * 1000, values[2], values[3] * 1000)


@call("utimes")
def utimes(task: Task, path: Word, times: Word) -> int:
    """utimes(2)."""
    return _set_times(task, AT_FDCWD, path, _from_microseconds(task, times), 0)


@call("futimesat")
def futimesat(task: Task, dirfd: Int, path: Word, times: Word) -> int:
    """futimesat(2)."""
    return _set_times(task, dirfd, path, _from_microseconds(task, times), 0)


@call("utime")
def utime(task: Task, path: Word, times: Word) -> int:
    """utime(2)."""
    if not times:
        return _set_times(task, AT_FDCWD, path, b"", 0)
    accessed, modified = struct.unpack("<qq", task.read(times, 16))
    return _set_times(task, AT_FDCWD, path, struct.pack("<qqqq", accessed, 0, modified, 0), 0)


# Size and file system


@call("truncate")
def truncate(task: Task, path: Word, size: Long) -> int:
    """truncate(2)."""
    if size < 0:
        return -errno.EINVAL
    name = task.read_string(path)

    def act(start: int, text: bytes) -> int:
        descriptor = host.openat(start, text, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0)
        if descriptor < 0:
            return -errno.EINVAL if descriptor == -errno.ENXIO else descriptor
        try:
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)
        return 0

    result: int = at(task, AT_FDCWD, name, act, inside=lambda node: -errno.EINVAL)
    return result


def _proc_statfs() -> bytes:
    return STATFS.pack(PROC_SUPER_MAGIC, 4096, 0, 0, 0, 0, 0, 0, 255, 4096, 0x100E)


def _file_system(task: Task, host_descriptor: int, buffer: int) -> int:
    result = host.fstatfs(host_descriptor, _statfs.address)
    if result == 0:
        task.write(buffer, _statfs.view)
    return result


@call("statfs")
def statfs(task: Task, path: Word, buffer: Word) -> int:
    """statfs(2)."""

    def act(start: int, name: bytes) -> int:
        descriptor = host.openat(start, name, os.O_PATH | os.O_CLOEXEC, 0)
        if descriptor < 0:
            return descriptor
        try:
            return _file_system(task, descriptor, buffer)
        finally:
            os.close(descriptor)

    def inside(node: Node) -> int:
        task.write(buffer, _proc_statfs())
        return 0

    result: int = at(task, AT_FDCWD, task.read_string(path), act, inside=inside)
    return result


@call("fstatfs")
def fstatfs(task: Task, fd: Int, buffer: Word) -> int:
    """fstatfs(2)."""
    file = task.descriptors.get(fd)
    if file.host >= 0:
        return _file_system(task, file.host, buffer)
    task.write(buffer, _proc_statfs())
    return 0
