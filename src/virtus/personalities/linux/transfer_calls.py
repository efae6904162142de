"""System calls that move bytes from one open file to another."""

import errno
import os
import select
import struct
from typing import Final

from virtus.host import path_calls as host
from virtus.personalities.linux import file_calls
from virtus.personalities.linux.blocking import Blocking, Interrupted, Wait
from virtus.personalities.linux.files import File
from virtus.personalities.linux.table import Int, Uint, Word, call
from virtus.personalities.linux.task import Task

PIECE: Final = 1 << 16
MOST: Final = 0x7FFFF000
SPLICE_F_NONBLOCK: Final = 2  # include/linux/splice.h
SPLICE_KNOWN: Final = 0xF
_OFFSET: Final = struct.Struct("<q")

host_fallocate = host.fallocate


def _offset(task: Task, address: int) -> int | None:
    if not address:
        return None
    offset: int = _OFFSET.unpack(task.read(address, 8))[0]
    if offset < 0:
        raise OSError(errno.EINVAL, "")
    return offset


@call("sendfile")
def sendfile(task: Task, out_fd: Int, in_fd: Int, offset_at: Word, count: Word) -> int | Blocking:
    """sendfile(2)."""
    source, target = file_calls.for_reading(task, in_fd), file_calls.for_writing(task, out_fd)
    if source.kind not in ("regular", "proc", "device"):
        return -errno.EINVAL
    if target.flags & os.O_APPEND:
        return -errno.EINVAL
    return _send(task, source, target, offset_at, _offset(task, offset_at), min(count, MOST))


def _send(task: Task, source: File, target: File, offset_at: int, offset: int | None, count: int) -> Blocking:
    done = 0
    position = source.seek(0, os.SEEK_CUR) if offset is None else offset
    try:
        while done < count:
            data = source.pread(task, min(PIECE, count - done), position)
            if not data:
                break
            try:
                wrote = target.write(task, data)
            except BlockingIOError:
                wrote = 0
            position += wrote
            done += wrote
            if wrote < len(data):
                if target.poll_host() < 0:
                    break
                if target.nonblocking:
                    if not done:
                        raise BlockingIOError(errno.EAGAIN, "")
                    break
                yield target.wait_writable()
    except (OSError, Interrupted):
        if not done:
            raise
    finally:
        if offset is None:
            source.seek(position, os.SEEK_SET)
        else:
            task.write(offset_at, _OFFSET.pack(position))
    return done


@call("copy_file_range")
def copy_file_range(task: Task, in_fd: Int, in_at: Word, out_fd: Int, out_at: Word, count: Word, flags: Uint) -> int:
    """copy_file_range(2): the host copies, or shares the blocks."""
    if flags:
        return -errno.EINVAL
    source, target = file_calls.for_reading(task, in_fd), file_calls.for_writing(task, out_fd)
    if "directory" in (source.kind, target.kind):
        return -errno.EISDIR
    if source.kind != "regular" or target.kind != "regular":
        return -errno.EINVAL
    if target.flags & os.O_APPEND:
        return -errno.EBADF
    start, end = _offset(task, in_at), _offset(task, out_at)
    done = os.copy_file_range(source.host, target.host, min(count, MOST), start, end)
    if start is not None:
        task.write(in_at, _OFFSET.pack(start + done))
    if end is not None:
        task.write(out_at, _OFFSET.pack(end + done))
    return done


@call("splice")
def splice(task: Task, in_fd: Int, in_at: Word, out_fd: Int, out_at: Word, count: Word, flags: Uint) -> int | Blocking:
    """splice(2): between the host's own pipe and file, without a copy."""
    source, target = file_calls.for_reading(task, in_fd), file_calls.for_writing(task, out_fd)
    if flags & ~SPLICE_KNOWN or (source.kind != "pipe" and target.kind != "pipe"):
        return -errno.EINVAL
    if (in_at and source.kind == "pipe") or (out_at and target.kind == "pipe"):
        return -errno.ESPIPE
    if source.host < 0 or target.host < 0 or target.flags & os.O_APPEND:
        return -errno.EINVAL
    return _splice(task, (source, in_at), (target, out_at), min(count, MOST), flags)


def _splice(task: Task, source: tuple[File, int], target: tuple[File, int], count: int, flags: int) -> Blocking:
    start, end = _offset(task, source[1]), _offset(task, target[1])
    if not count:
        return 0
    while True:
        try:
            done = os.splice(source[0].host, target[0].host, count, start, end, flags | SPLICE_F_NONBLOCK)
            break
        except BlockingIOError:
            if flags & SPLICE_F_NONBLOCK or source[0].nonblocking or target[0].nonblocking:
                raise
            # either may be the one that is not ready; the other is asked again soon
            yield _either(source[0], target[0])
    if start is not None:
        task.write(source[1], _OFFSET.pack(start + done))
    if end is not None:
        task.write(target[1], _OFFSET.pack(end + done))
    return done


def _either(source: File, target: File) -> Wait:
    """Wait for the side that is not ready."""
    if source.poll_host() >= 0 and not _ready(source.host, 1):
        return source.wait_readable()
    return target.wait_writable() if target.poll_host() >= 0 else source.wait_readable()


def _ready(descriptor: int, events: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, events)
    return bool(poll.poll(0))


@call("tee")
def tee(task: Task, in_fd: Int, out_fd: Int, count: Word, flags: Uint) -> int | Blocking:
    """tee(2)."""
    source, target = file_calls.for_reading(task, in_fd), file_calls.for_writing(task, out_fd)
    if flags & ~SPLICE_KNOWN or source.kind != "pipe" or target.kind != "pipe":
        return -errno.EINVAL
    return _tee(source, target, min(count, MOST), flags)


def _tee(source: File, target: File, count: int, flags: int) -> Blocking:
    while (done := host.tee(source.host, target.host, count, flags | SPLICE_F_NONBLOCK)) == -errno.EAGAIN:
        if flags & SPLICE_F_NONBLOCK:
            break
        yield _either(source, target)
    return done


@call("vmsplice", note="copies, as writev and readv do")
def vmsplice(task: Task, fd: Int, address: Word, count: Word, flags: Uint) -> int | Blocking:
    """vmsplice(2)."""
    file = task.descriptors.get(fd)
    if file.kind != "pipe":
        return -errno.EBADF
    if file.writable:
        return file_calls.writev(task, fd, address, count)
    return file_calls.readv(task, fd, address, count)
