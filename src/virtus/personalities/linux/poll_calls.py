"""poll, select and epoll.

A signal mask given with the call is in force while it waits (signal mask swapped atomically: pselect(2)). When a signal
ends the wait, the old mask is restored after its handler, as Linux does; otherwise at once.
"""

import errno
import os
from collections.abc import Callable
from struct import Struct, unpack
from time import monotonic_ns
from typing import Final

from virtus.personalities.linux import delivery, polling
from virtus.personalities.linux.blocking import FOREVER, Blocking, Interrupted, Wait, after
from virtus.personalities.linux.files import File
from virtus.personalities.linux.polling import EpollFile, Question
from virtus.personalities.linux.results import INTERRUPTED
from virtus.personalities.linux.signals import UNBLOCKABLE
from virtus.personalities.linux.table import Int, Uint, Word, call
from virtus.personalities.linux.task import Task
from virtus.personalities.linux.timespec import read_timespec, write_timespec, write_timeval

POLLFD: Final = Struct("<ihh")
MILLISECOND: Final = 1_000_000
RLIMIT_NOFILE: Final = 7
SIGSET_SIZE: Final = 8
FD_SETSIZE_BYTES: Final = 8
"""fd_set grows in words of 64 bits."""
READ_EVENTS: Final = (
    polling.POLLRDNORM | polling.POLLRDBAND | polling.POLLIN | polling.POLLHUP | polling.POLLERR
)  # fs/select.c
WRITE_EVENTS: Final = polling.POLLWRBAND | polling.POLLWRNORM | polling.POLLOUT | polling.POLLERR
EXCEPT_EVENTS: Final = polling.POLLPRI
EPOLL_EVENTS_MAX: Final = 2**31 // 12
EPOLL_AT_ONCE: Final = 1024


def _mask_of(task: Task, address: int, size: int) -> int | None:
    """The signal mask at `address`, None for none."""
    if not address:
        return None
    if size != SIGSET_SIZE:
        raise OSError(errno.EINVAL, "")
    mask: int = unpack("<Q", task.read(address, 8))[0]
    return mask & ~UNBLOCKABLE


def _waiting(
    task: Task,
    attempt: Callable[[], int],
    wait: Callable[[], Wait],
    *,
    deadline: int,
    mask: int | None,
    files: list[File],
) -> "int | Blocking":
    """Try, and if that gives 0, sleep and try again, until the deadline (-1: do not sleep).

    `files` are held while it sleeps: another thread may close them.
    """
    if mask is not None:
        before = task.blocked
        task.blocked = mask
        try:
            result = attempt()
            if not result and delivery.has_deliverable(task):
                task.restore_mask = before
                return INTERRUPTED
        except OSError:
            task.blocked = before
            raise
        if result or deadline < 0:
            task.blocked = before
            return result
        return _masked_sleep(task, attempt, wait, deadline, files, before)
    result = attempt()
    if result or deadline < 0:
        return result
    return _sleep(attempt, wait, deadline, files)


def _sleep(attempt: Callable[[], int], wait: Callable[[], Wait], deadline: int, files: list[File]) -> Blocking:
    for file in files:
        file.hold()
    try:
        while True:
            happened = yield wait()
            result = attempt()
            if result or not happened or (deadline and monotonic_ns() >= deadline):
                return result
    finally:
        for file in files:
            file.drop()


def _masked_sleep(
    task: Task,
    attempt: Callable[[], int],
    wait: Callable[[], Wait],
    deadline: int,
    files: list[File],
    before: int,
) -> Blocking:
    try:
        result = yield from _sleep(attempt, wait, deadline, files)
    except Interrupted:
        task.restore_mask = before
        raise
    except OSError:
        task.blocked = before
        raise
    task.blocked = before
    return result


# poll


def _poll(task: Task, address: int, count: int, deadline: int, mask: int | None) -> "int | Blocking":
    if count > task.limit(RLIMIT_NOFILE):
        raise OSError(errno.EINVAL, "")
    raw = task.read(address, count * POLLFD.size) if count else b""
    files = task.descriptors.files
    question = Question()
    held: list[File] = []
    asked: list[tuple[int, int, int, int]] = []  # fd, events, host, known answer
    for fd, events, _ in POLLFD.iter_unpack(raw):
        host, known = -1, 0
        if fd >= 0:
            file = files.get(fd)
            if file is None or file.flags & os.O_PATH:
                known = polling.POLLNVAL
            else:
                host = file.poll_host()
                if host < 0:
                    known = polling.ALWAYS & events
                else:
                    question.ask(host, events & 0xFFFF)
                    held.append(file)
        asked.append((fd, events, host, known))
    ready_already = any(known for _, _, _, known in asked)

    def attempt() -> int:
        answers = question.answer()
        found = 0
        out = bytearray(raw)
        at = 6
        for _, events, host, known in asked:
            result = known if host < 0 else answers.get(host, 0) & (events | polling.UNASKED) & 0x7FFF
            if result:
                found += 1
            out[at] = result & 0xFF
            out[at + 1] = result >> 8
            at += POLLFD.size
        if found or ready_already or deadline < 0:
            task.write(address, out)
        return found

    def wait() -> Wait:
        return question.wait(deadline)

    until = -1 if ready_already else deadline
    result = _waiting(task, attempt, wait, deadline=until, mask=mask, files=held)
    return result if isinstance(result, int) else _cleared(task, result, address, raw)


def _cleared(task: Task, steps: Blocking, address: int, raw: bytes) -> Blocking:
    """A poll that ends without events leaves no old ones in `revents`."""
    result = yield from steps
    if not result and raw:
        out = bytearray(raw)
        for at in range(6, len(out), POLLFD.size):
            out[at] = out[at + 1] = 0
        task.write(address, out)
    return result


@call("poll")
def poll(task: Task, address: Word, count: Uint, timeout: Int) -> "int | Blocking":
    """poll(2)."""
    deadline = FOREVER if timeout < 0 else -1 if timeout == 0 else after(timeout * MILLISECOND)
    return _poll(task, address, count, deadline, None)


@call("ppoll")
def ppoll(task: Task, address: Word, count: Uint, timeout: Word, mask: Word, size: Word) -> "int | Blocking":
    """ppoll(2)."""
    deadline = _deadline(task, timeout)
    result = _poll(task, address, count, deadline, _mask_of(task, mask, size))
    return _with_rest(task, result, deadline, lambda rest: write_timespec(task, timeout, rest)) if timeout else result


def _deadline(task: Task, address: int) -> int:
    if not address:
        return FOREVER
    return after(read_timespec(task, address)) if any(task.read(address, 16)) else -1


def _with_rest(task: Task, result: "int | Blocking", deadline: int, store: Callable[[int], None]) -> "int | Blocking":
    """Store the time that is left, as Linux does for select, pselect and ppoll."""
    if isinstance(result, int):
        _store_rest(deadline, store)
        return result
    return _rest_later(result, deadline, store)


def _rest_later(steps: Blocking, deadline: int, store: Callable[[int], None]) -> Blocking:
    try:
        return (yield from steps)
    finally:
        _store_rest(deadline, store)


def _store_rest(deadline: int, store: Callable[[int], None]) -> None:
    try:
        store(max(deadline - monotonic_ns(), 0) if deadline > 0 else 0)
    except OSError:
        return  # not to be written: Linux does not mind either


# select


def _select(
    task: Task, count: int, addresses: tuple[int, int, int], deadline: int, mask: int | None
) -> "int | Blocking":
    if count < 0:
        raise OSError(errno.EINVAL, "")
    files = task.descriptors.files
    count = min(count, max(max(files, default=-1) + 1, 64) + 63 & ~63)  # as Linux: no further than the table reaches
    size = (count + 63) // 64 * FD_SETSIZE_BYTES
    question = Question()
    held: list[File] = []
    asked: list[tuple[int, int, int, int]] = []  # which set, fd, host, events
    for which, (address, events) in enumerate(zip(addresses, (READ_EVENTS, WRITE_EVENTS, EXCEPT_EVENTS), strict=True)):
        if not address:
            continue
        bits = int.from_bytes(task.read(address, size), "little") & (1 << count) - 1
        while bits:
            low = bits & -bits
            bits ^= low
            fd = low.bit_length() - 1
            file = files.get(fd)
            if file is None:
                raise OSError(errno.EBADF, "")
            host = file.poll_host()
            if host >= 0:
                question.ask(host, events)
                held.append(file)
            asked.append((which, fd, host, events))

    def attempt() -> int:
        answers = question.answer()
        sets = [0, 0, 0]
        found = 0
        for which, fd, host, events in asked:
            ready = polling.ALWAYS if host < 0 else answers.get(host, 0)
            if ready & events:
                sets[which] |= 1 << fd
                found += 1
        if found or deadline < 0:
            store(sets)
        return found

    def store(sets: list[int]) -> None:
        for address, bits in zip(addresses, sets, strict=True):
            if address:
                task.write(address, bits.to_bytes(size, "little"))

    result = _waiting(task, attempt, lambda: question.wait(deadline), deadline=deadline, mask=mask, files=held)
    return result if isinstance(result, int) else _emptied(result, store)


def _emptied(steps: Blocking, store: Callable[[list[int]], None]) -> Blocking:
    result = yield from steps
    if not result:
        store([0, 0, 0])
    return result


@call("select")
def select(task: Task, count: Int, read: Word, write: Word, other: Word, timeout: Word) -> "int | Blocking":
    """select(2)."""
    deadline = FOREVER
    if timeout:
        seconds, microseconds = unpack("<qq", task.read(timeout, 16))
        if seconds < 0 or microseconds < 0:
            raise OSError(errno.EINVAL, "")
        length = min(seconds, 1 << 32) * 1_000_000_000 + min(microseconds, 1 << 50) * 1000
        deadline = after(length) if length else -1
    result = _select(task, count, (read, write, other), deadline, None)
    return _with_rest(task, result, deadline, lambda rest: write_timeval(task, timeout, rest)) if timeout else result


@call("pselect6")
def pselect6(
    task: Task, count: Int, read: Word, write: Word, other: Word, timeout: Word, mask_at: Word
) -> "int | Blocking":
    """pselect(2); `mask_at` holds the mask's address and its size."""
    mask = None
    if mask_at:
        mask = _mask_of(task, *unpack("<QQ", task.read(mask_at, 16)))
    deadline = _deadline(task, timeout)
    result = _select(task, count, (read, write, other), deadline, mask)
    return _with_rest(task, result, deadline, lambda rest: write_timespec(task, timeout, rest)) if timeout else result


# epoll


@call("epoll_create")
def epoll_create(task: Task, size: Int) -> int:
    """epoll_create(2)."""
    if size <= 0:
        raise OSError(errno.EINVAL, "")
    return task.open_descriptor(EpollFile())


@call("epoll_create1")
def epoll_create1(task: Task, flags: Int) -> int:
    """epoll_create1(2)."""
    if flags & ~os.O_CLOEXEC:
        raise OSError(errno.EINVAL, "")
    return task.open_descriptor(EpollFile(), close_on_exec=bool(flags & os.O_CLOEXEC))


@call("epoll_ctl", note="sets nest one level less deep than on Linux")
def epoll_ctl(task: Task, epoll: Int, operation: Int, fd: Int, event: Word) -> int:
    """epoll_ctl(2)."""
    structure = task.kernel.abi.event
    raw = bytes(polling.EVENT.size)
    if operation != 2:
        raw = polling.EVENT.pack(*structure.unpack(task.read(event, structure.size)))
    set_file = task.descriptors.get(epoll)
    file = task.descriptors.get(fd)
    if file.poll_host() < 0:
        raise OSError(errno.EPERM, "")
    if not isinstance(set_file, EpollFile):
        raise OSError(errno.EINVAL, "")
    set_file.control(operation, fd, file, raw)
    return 0


def _epoll_wait(task: Task, fd: int, address: int, most: int, deadline: int, mask: int | None) -> "int | Blocking":
    if not 0 < most <= EPOLL_EVENTS_MAX:
        raise OSError(errno.EINVAL, "")
    file = task.descriptors.of_kind(fd, EpollFile)
    structure = task.kernel.abi.event

    def attempt() -> int:
        events = file.collect(min(most, EPOLL_AT_ONCE))
        if events and structure.size != polling.EVENT.size:
            task.write(address, b"".join(structure.pack(*event) for event in polling.EVENT.iter_unpack(events)))
        elif events:
            task.write(address, events)
        return len(events) // polling.EVENT.size

    def wait() -> Wait:
        return Wait(readable=file.host, deadline=deadline, restart=False)

    return _waiting(task, attempt, wait, deadline=deadline, mask=mask, files=[file])


def _milliseconds(timeout: int) -> int:
    return FOREVER if timeout < 0 else -1 if timeout == 0 else after(timeout * MILLISECOND)


@call("epoll_wait")
def epoll_wait(task: Task, epoll: Int, address: Word, most: Int, timeout: Int) -> "int | Blocking":
    """epoll_wait(2)."""
    return _epoll_wait(task, epoll, address, most, _milliseconds(timeout), None)


@call("epoll_pwait")
def epoll_pwait(
    task: Task, epoll: Int, address: Word, most: Int, timeout: Int, mask: Word, size: Word
) -> "int | Blocking":
    """epoll_pwait(2)."""
    return _epoll_wait(task, epoll, address, most, _milliseconds(timeout), _mask_of(task, mask, size))


@call("epoll_pwait2")
def epoll_pwait2(
    task: Task, epoll: Int, address: Word, most: Int, timeout: Word, mask: Word, size: Word
) -> "int | Blocking":
    """epoll_pwait2(2)."""
    return _epoll_wait(task, epoll, address, most, _deadline(task, timeout), _mask_of(task, mask, size))
