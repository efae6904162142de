"""System calls that move bytes between an open file and the guest's memory, and move the position.

The common case, one read or write that need not wait, is a call of the file's method and one copy. Regular files are
moved in pieces, so that a large request costs the kernel process no large memory.
"""

import errno
import os
import struct
from typing import Final

from virtus.personalities.linux import attribute_calls, descriptor_calls, directory_calls, transfer_calls
from virtus.personalities.linux.blocking import Blocking, Interrupted
from virtus.personalities.linux.files import File
from virtus.personalities.linux.table import Int, Long, Word, call
from virtus.personalities.linux.task import PAGE, Task

PARTS: Final = (attribute_calls, descriptor_calls, directory_calls, transfer_calls)
"""The rest of the calls on open files; each fills the table when it is imported."""
PIECE: Final = 1 << 20
FALLOC_FL_PUNCH_HOLE: Final = 2  # include/uapi/linux/falloc.h
MAX_RW_COUNT: Final = 0x7FFFF000  # include/linux/fs.h
IOV_MAX: Final = 1024  # UIO_MAXIOV, include/uapi/linux/uio.h
RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND = 1, 2, 4, 8, 16  # include/uapi/linux/fs.h
RWF_IGNORED: Final = RWF_HIPRI | RWF_DSYNC | RWF_SYNC
IOVEC: Final = struct.Struct("<QQ")


def for_reading(task: Task, fd: int) -> File:
    """The file of a descriptor that may be read; EBADF."""
    file = task.descriptors.files.get(fd)
    if file is None or not file.readable:
        raise OSError(errno.EBADF, "")
    return file


def for_writing(task: Task, fd: int) -> File:
    """The file of a descriptor that may be written; EBADF."""
    file = task.descriptors.files.get(fd)
    if file is None or not file.writable:
        raise OSError(errno.EBADF, "")
    return file


@call("read")
def read(task: Task, fd: Int, buffer: Word, count: Word) -> int | Blocking:
    """read(2)."""
    file = task.descriptors.files.get(fd)
    if file is None or not file.readable:
        return -errno.EBADF
    if count > PIECE:
        if file.poll_host() < 0:
            return _read_pieces(task, file, buffer, min(count, MAX_RW_COUNT))
        count = PIECE
    try:
        data = file.read(task, count)
    except BlockingIOError:
        if file.flags & os.O_NONBLOCK:
            return -errno.EAGAIN
        return _read_waiting(task, file, buffer, count)
    return _stored(task, file, buffer, data) if data else 0


def _stored(task: Task, file: File, buffer: int, data: bytes) -> int:
    """Give what was read to the guest; a regular file's position does not move for a bad address."""
    try:
        task.write(buffer, data)
    except OSError:
        if file.kind == "regular":
            file.seek(-len(data), os.SEEK_CUR)
        raise
    return len(data)


def _read_pieces(task: Task, file: File, buffer: int, count: int) -> int:
    done = 0
    while done < count:
        step = min(PIECE, count - done)
        try:
            data = file.read(task, step)
            if data:
                _stored(task, file, buffer + done, data)
        except OSError:
            if done:
                break
            raise
        done += len(data)
        if len(data) < step:
            break
    return done


def _read_waiting(task: Task, file: File, buffer: int, count: int) -> Blocking:
    file.hold()  # another thread may close the descriptor meanwhile
    try:
        while True:
            happened = yield file.wait_readable()
            try:
                data = file.read(task, count)
            except BlockingIOError:
                if happened:
                    continue
                raise
            task.write(buffer, data)
            return len(data)
    finally:
        file.drop()


@call("write")
def write(task: Task, fd: Int, buffer: Word, count: Word) -> int | Blocking:
    """write(2)."""
    file = task.descriptors.files.get(fd)
    if file is None or not file.writable:
        return -errno.EBADF
    if count > PIECE:
        return _write_pieces(task, file, buffer, min(count, MAX_RW_COUNT))
    data = task.read(buffer, count)
    try:
        done = file.write(task, data)
    except BlockingIOError:
        if file.flags & os.O_NONBLOCK:
            return -errno.EAGAIN
        return write_waiting(task, file, data)
    if done < count and not file.flags & os.O_NONBLOCK and file.poll_host() >= 0:
        return write_waiting(task, file, data, done)
    return done


def write_waiting(task: Task, file: File, data: bytes, done: int = 0) -> Blocking:
    """Write the rest of `data`; a file that makes writers wait takes everything, unless a signal comes between."""
    view = memoryview(data)
    file.hold()
    try:
        while done < len(data):
            try:
                if not (yield file.wait_writable()):
                    return done or -errno.EAGAIN
                done += file.write(task, bytes(view[done:]))
            except BlockingIOError:
                continue
            except Interrupted:
                if done:
                    return done
                raise
            except OSError:
                if done:
                    return done
                raise
    finally:
        file.drop()
    return done


def _write_pieces(task: Task, file: File, buffer: int, count: int) -> int | Blocking:
    if file.poll_host() >= 0:
        return _write_pieces_waiting(task, file, buffer, count)
    done = 0
    while done < count:
        step = min(PIECE, count - done)
        try:
            wrote = file.write(task, task.read(buffer + done, step))
        except OSError:
            if done:
                break
            raise
        done += wrote
        if wrote < step:
            break
    return done


def _write_pieces_waiting(task: Task, file: File, buffer: int, count: int) -> Blocking:
    done = 0
    while done < count:
        data = task.read(buffer + done, min(PIECE, count - done))
        try:
            wrote = file.write(task, data)
        except BlockingIOError:
            wrote = 0
        except OSError:
            if done:
                return done
            raise
        if wrote < len(data):
            if file.nonblocking:
                return done + wrote or -errno.EAGAIN
            wrote = yield from _rest(task, file, data, wrote, done)
        done += wrote
        if wrote < len(data):
            break
    return done


def _rest(task: Task, file: File, data: bytes, wrote: int, before: int) -> Blocking:
    """`write_waiting`, where an interruption after some bytes ends the call with what was written."""
    try:
        return (yield from write_waiting(task, file, data, wrote))
    except Interrupted:
        if before:
            return wrote
        raise


def offset_of(offset: int) -> int:
    """An offset argument; EINVAL for a negative one."""
    if offset < 0:
        raise OSError(errno.EINVAL, "")
    return offset


@call("pread64")
def pread64(task: Task, fd: Int, buffer: Word, count: Word, offset: Long) -> int:
    """pread(2)."""
    offset_of(offset)
    file = for_reading(task, fd)
    done = 0
    count = min(count, MAX_RW_COUNT)
    while True:
        step = min(PIECE, count - done)
        data = file.pread(task, step, offset + done)
        task.write(buffer + done, data)
        done += len(data)
        if len(data) < step or done >= count:
            return done


@call("pwrite64")
def pwrite64(task: Task, fd: Int, buffer: Word, count: Word, offset: Long) -> int:
    """pwrite(2)."""
    offset_of(offset)
    file = for_writing(task, fd)
    done = 0
    count = min(count, MAX_RW_COUNT)
    while True:
        step = min(PIECE, count - done)
        wrote = file.pwrite(task, task.read(buffer + done, step), offset + done)
        done += wrote
        if wrote < step or done >= count:
            return done


# Vectors


def vector(task: Task, address: int, count: int) -> list[tuple[int, int]]:
    """The (address, length) pairs of a struct iovec array, MAX_RW_COUNT bytes in all at most; raises EINVAL."""
    if not 0 <= count <= IOV_MAX:
        raise OSError(errno.EINVAL, "")
    pairs: list[tuple[int, int]] = []
    total = 0
    for base, length in IOVEC.iter_unpack(task.read(address, IOVEC.size * count)) if count else ():
        if length >> 63:
            raise OSError(errno.EINVAL, "")
        length = min(length, MAX_RW_COUNT - total)
        total += length
        pairs.append((base, length))
    return pairs


def gather(task: Task, pairs: list[tuple[int, int]]) -> bytes:
    """The guest's bytes that a vector names."""
    return b"".join([task.read(base, length) for base, length in pairs if length])


def scatter(task: Task, pairs: list[tuple[int, int]], data: bytes) -> int:
    """Store `data` where a vector says; its length."""
    view = memoryview(data)
    at = 0
    for base, length in pairs:
        if at >= len(data):
            break
        task.write(base, view[at : at + length])
        at += length
    return len(data)


@call("readv")
def readv(task: Task, fd: Int, address: Word, count: Int) -> int | Blocking:
    """readv(2)."""
    file = for_reading(task, fd)
    pairs = vector(task, address, count)
    total = sum(length for _, length in pairs)
    if total > PIECE and file.poll_host() < 0:
        done = 0
        for base, length in pairs:
            got = _read_pieces(task, file, base, length)
            done += got
            if got < length:
                break
        return done
    try:
        return scatter(task, pairs, file.read(task, min(total, PIECE)))
    except BlockingIOError:
        if file.nonblocking:
            raise
        return _readv_waiting(task, file, pairs, min(total, PIECE))


def _readv_waiting(task: Task, file: File, pairs: list[tuple[int, int]], total: int) -> Blocking:
    file.hold()
    try:
        while True:
            happened = yield file.wait_readable()
            try:
                return scatter(task, pairs, file.read(task, total))
            except BlockingIOError:
                if not happened:
                    raise
    finally:
        file.drop()


@call("writev")
def writev(task: Task, fd: Int, address: Word, count: Int) -> int | Blocking:
    """writev(2)."""
    file = for_writing(task, fd)
    pairs = vector(task, address, count)
    if sum(length for _, length in pairs) > 16 * PIECE:
        base, length = next(pair for pair in pairs if pair[1])
        return _write_pieces(task, file, base, length)  # a partial result, as a signal would cause
    data = gather(task, pairs)
    try:
        done = file.write(task, data)
    except BlockingIOError:
        if file.nonblocking:
            raise
        return write_waiting(task, file, data)
    if done < len(data) and not file.nonblocking and file.poll_host() >= 0:
        return write_waiting(task, file, data, done)
    return done


def _check_flags(flags: int, allowed: int) -> None:
    if flags & ~allowed:
        raise OSError(errno.EOPNOTSUPP, "")


@call("preadv")
def preadv(task: Task, fd: Int, address: Word, count: Int, low: Long, high: Long) -> int:
    """preadv(2)."""
    offset_of(low)
    file = for_reading(task, fd)
    pairs = vector(task, address, count)
    return scatter(task, pairs, file.pread(task, min(sum(length for _, length in pairs), 16 * PIECE), low))


@call("pwritev")
def pwritev(task: Task, fd: Int, address: Word, count: Int, low: Long, high: Long) -> int:
    """pwritev(2)."""
    offset_of(low)
    file = for_writing(task, fd)
    pairs = vector(task, address, count)
    return file.pwrite(task, gather(task, pairs), low)


@call("preadv2", note="RWF_NOWAIT only where nothing would wait")
def preadv2(task: Task, fd: Int, address: Word, count: Int, low: Long, high: Long, flags: Int) -> int | Blocking:
    """preadv2(2)."""
    _check_flags(flags, RWF_IGNORED | RWF_NOWAIT)
    if low == -1:
        if flags & RWF_NOWAIT:
            file = for_reading(task, fd)
            pairs = vector(task, address, count)
            return scatter(task, pairs, file.read(task, min(sum(length for _, length in pairs), PIECE)))
        return readv(task, fd, address, count)
    return preadv(task, fd, address, count, low, high)


@call("pwritev2", note="writes are synchronous only as the file is")
def pwritev2(task: Task, fd: Int, address: Word, count: Int, low: Long, high: Long, flags: Int) -> int | Blocking:
    """pwritev2(2)."""
    _check_flags(flags, RWF_IGNORED | RWF_APPEND)
    if flags & RWF_APPEND:
        file = for_writing(task, fd)
        return file.pwrite(task, gather(task, vector(task, address, count)), file.stat().st_size)
    if low == -1:
        return writev(task, fd, address, count)
    return pwritev(task, fd, address, count, low, high)


# Position and size


@call("lseek")
def lseek(task: Task, fd: Int, offset: Long, whence: Int) -> int:
    """lseek(2)."""
    file = task.descriptors.get(fd)
    return file.seek(offset, whence)


@call("ftruncate")
def ftruncate(task: Task, fd: Int, size: Long) -> int:
    """ftruncate(2)."""
    file = task.descriptors.get(fd)
    if size < 0 or not file.writable:
        return -errno.EBADF if file.flags & os.O_PATH else -errno.EINVAL
    file.truncate(size)
    return 0


@call("fallocate")
def fallocate(task: Task, fd: Int, mode: Int, offset: Long, length: Long) -> int:
    """fallocate(2)."""
    file = for_writing(task, fd)
    if offset < 0 or length <= 0:
        return -errno.EINVAL
    if file.kind != "regular":
        return -errno.ESPIPE if file.kind == "pipe" else -errno.ENODEV
    beyond = offset + length > os.sysconf("SC_AVPHYS_PAGES") * PAGE
    if beyond and not mode & FALLOC_FL_PUNCH_HOLE and not os.fstatvfs(file.host).f_blocks:
        # a memfd has no size limit, and shows so: the host would fill all memory, with the kernel inside the call
        return -errno.ENOSPC
    return transfer_calls.host_fallocate(file.host, mode, offset, length)


def _synchronize(task: Task, fd: int) -> int:
    file = task.descriptors.get(fd)
    if file.flags & os.O_PATH:
        return -errno.EBADF
    if file.kind not in ("regular", "directory"):
        return -errno.EINVAL
    os.fsync(file.host)
    return 0


@call("fsync")
def fsync(task: Task, fd: Int) -> int:
    """fsync(2)."""
    return _synchronize(task, fd)


@call("fdatasync")
def fdatasync(task: Task, fd: Int) -> int:
    """fdatasync(2)."""
    return _synchronize(task, fd)


@call("sync_file_range")
def sync_file_range(task: Task, fd: Int, offset: Long, length: Long, flags: Int) -> int:
    """sync_file_range(2): all of the file."""
    if flags & ~7 or offset < 0 or length < 0:
        return -errno.EINVAL
    return _synchronize(task, fd) if flags else 0


@call("syncfs", note="the guest's files reach the host's cache; writing them out is left to the host")
def syncfs(task: Task, fd: Int) -> int:
    """syncfs(2)."""
    task.descriptors.get(fd)
    return 0


@call("sync", note="the guest's files reach the host's cache; writing them out is left to the host")
def sync(task: Task) -> int:
    """sync(2): a guest cannot make the host wait for all of its disks."""
    return 0


@call("fadvise64")
def fadvise64(task: Task, fd: Int, offset: Long, length: Long, advice: Int) -> int:
    """posix_fadvise(2)."""
    file = task.descriptors.get(fd)
    if file.kind in ("pipe", "socket"):
        return -errno.ESPIPE
    if not 0 <= advice <= 5 or length < 0:
        return -errno.EINVAL
    if file.kind == "regular":
        os.posix_fadvise(file.host, offset, length, advice)
    return 0


@call("readahead")
def readahead(task: Task, fd: Int, offset: Long, count: Word) -> int:
    """readahead(2)."""
    file = for_reading(task, fd)
    if file.kind != "regular":
        return -errno.EINVAL
    os.posix_fadvise(file.host, offset, min(count, 1 << 40), os.POSIX_FADV_WILLNEED)
    return 0
