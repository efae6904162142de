"""poll, select, epoll, and the descriptors that are made to be polled."""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linux.fake import BASE
from tests.linux.streams import BUFFER, OUT, Guest
from virtus.personalities.linux import delivery, events, siginfo
from virtus.personalities.linux.signals import Action

POLLIN, POLLOUT, POLLHUP, POLLNVAL = 1, 4, 0x10, 0x20
ADD, DELETE, MODIFY = 1, 2, 3
EPOLLET, EPOLLONESHOT = 1 << 31, 1 << 30
SIGUSR1, SIGCHLD = 10, 17
SETS, TIME = BASE + 0x200, BASE + 0x280


@pytest.fixture
def guest() -> Iterator[Guest]:
    machine = Guest()
    yield machine
    machine.close()


def ask(guest: Guest, *rows: tuple[int, int]) -> int:
    """A struct pollfd array at OUT."""
    guest.task.write(OUT, b"".join(struct.pack("<ihh", fd, wanted, -1) for fd, wanted in rows))
    return OUT


def answers(guest: Guest, count: int) -> list[int]:
    return [row[2] for row in struct.iter_unpack("<ihh", guest.task.read(OUT, 8 * count))]


def test_poll_tells_what_is_ready(guest: Guest) -> None:
    reading, writing = guest.pipe()
    assert guest.ok("poll", ask(guest, (reading, POLLIN), (writing, POLLOUT), (-1, POLLIN), (99, POLLIN)), 4, -1) == 2
    assert answers(guest, 4) == [0, POLLOUT, 0, POLLNVAL]
    guest.ok("close", writing)
    assert guest.ok("poll", ask(guest, (reading, 0)), 1, 0) == 1
    assert answers(guest, 1) == [POLLHUP]


def test_poll_of_one_pipe_twice(guest: Guest) -> None:
    reading, writing = guest.pipe()
    guest.write(writing, b"x")
    assert guest.ok("poll", ask(guest, (reading, POLLIN), (reading, 0), (reading, POLLIN)), 3, 0) == 2
    assert answers(guest, 3) == [POLLIN, 0, POLLIN]


def test_regular_files_are_always_ready(guest: Guest, tmp_path: Path) -> None:
    guest.task.write(BUFFER, os.fsencode(tmp_path / "file") + b"\0")
    fd = guest.ok("open", BUFFER, os.O_RDWR | os.O_CREAT, 0o600)
    assert guest.ok("poll", ask(guest, (fd, POLLIN | POLLOUT)), 1, -1) == 1
    assert answers(guest, 1) == [POLLIN | POLLOUT]
    assert guest.call("epoll_ctl", guest.ok("epoll_create1", 0), ADD, fd, BUFFER) == -errno.EPERM


def test_poll_waits_and_times_out(guest: Guest) -> None:
    reading, writing = guest.pipe()
    child = guest.fork()
    assert guest.call("poll", ask(guest, (reading, POLLIN)), 1, -1) is None
    guest.write(writing, b"x", task=child)
    assert guest.events() == 1
    assert answers(guest, 1) == [POLLIN]
    guest.read(reading)
    assert guest.call("poll", ask(guest, (reading, POLLIN)), 1, 5) is None
    assert guest.events() == 0
    assert answers(guest, 1) == [0]


def test_a_signal_ends_poll_whatever_sa_restart_says(guest: Guest) -> None:
    reading, _ = guest.pipe()
    guest.process.actions.actions[SIGUSR1] = Action(0x400000, 0x14000000, 0x400100)  # SA_RESTORER | SA_RESTART
    assert guest.call("poll", ask(guest, (reading, POLLIN)), 1, -1) is None
    delivery.post(guest.process, SIGUSR1)
    guest.event()
    assert not guest.asleep()
    assert guest.task.regs[16] == 0x400000  # RIP: in the handler, after which poll returns EINTR


def test_ppoll_swaps_the_mask(guest: Guest) -> None:
    reading, _ = guest.pipe()
    guest.task.blocked = 1 << SIGUSR1 - 1
    guest.process.actions.actions[SIGUSR1] = Action(0x400000, 0x04000000, 0x400100)
    delivery.post(guest.process, SIGUSR1)
    guest.task.write(BUFFER, bytes(8))
    guest.call("ppoll", ask(guest, (reading, POLLIN)), 1, 0, BUFFER, 8)
    assert not guest.process.pending.bits  # it was taken
    assert guest.task.regs[16] == 0x400000
    assert guest.task.restore_mask is None
    guest.task.blocked = 1
    guest.task.write(TIME, struct.pack("<qq", 0, 0))
    assert guest.ok("ppoll", ask(guest, (reading, POLLIN)), 1, TIME, BUFFER, 8) == 0
    assert guest.task.blocked == 1


def test_select(guest: Guest) -> None:
    reading, writing = guest.pipe()
    guest.task.write(SETS, (1 << reading).to_bytes(8, "little") + (1 << writing).to_bytes(8, "little"))
    guest.task.write(TIME, struct.pack("<qq", 10, 0))
    assert guest.ok("select", writing + 1, SETS, SETS + 8, 0, TIME) == 1
    assert guest.task.read(SETS, 16) == bytes(8) + (1 << writing).to_bytes(8, "little")
    assert 9 <= struct.unpack("<qq", guest.task.read(TIME, 16))[0] <= 10  # what is left
    guest.task.write(SETS, (1 << 50).to_bytes(8, "little"))
    assert guest.call("select", 64, SETS, 0, 0, 0) == -errno.EBADF
    assert guest.call("select", -1, 0, 0, 0, 0) == -errno.EINVAL


def test_select_waits(guest: Guest) -> None:
    reading, writing = guest.pipe()
    child = guest.fork()
    guest.task.write(SETS, (1 << reading).to_bytes(8, "little"))
    assert guest.call("pselect6", reading + 1, SETS, 0, 0, 0, 0) is None
    guest.write(writing, b"x", task=child)
    assert guest.events() == 1
    guest.read(reading)
    guest.task.write(TIME, struct.pack("<qq", 0, 3_000_000))
    assert guest.call("pselect6", reading + 1, SETS, 0, 0, TIME, 0) is None
    assert guest.events() == 0
    assert guest.task.read(SETS, 8) == bytes(8)
    assert guest.task.read(TIME, 16) == bytes(16)


@settings(max_examples=20)
@given(st.sets(st.integers(0, 200)), st.integers(0, 220))
def test_select_looks_at_the_first_descriptors_only(fds: set[int], count: int) -> None:
    guest = Guest()
    try:
        guest.task.write(SETS, sum(1 << fd for fd in fds).to_bytes(32, "little"))
        guest.task.write(TIME, bytes(16))
        result = guest.call("select", count, SETS, 0, 0, TIME)
        shown = min(count, 64)  # an empty table is one word long
        assert result == (-errno.EBADF if any(fd < shown for fd in fds) else 0)
    finally:
        guest.close()


def event(guest: Guest, mask: int, data: int) -> int:
    guest.task.write(BUFFER, struct.pack("<IQ", mask, data))
    return BUFFER


def ready(guest: Guest, epoll: int) -> list[tuple[int, int]]:
    count = guest.ok("epoll_wait", epoll, OUT, 10, 0)
    return list(struct.iter_unpack("<IQ", guest.task.read(OUT, 12 * count)))


def test_epoll_carries_the_data(guest: Guest) -> None:
    epoll = guest.ok("epoll_create1", 0)
    reading, writing = guest.pipe()
    guest.ok("epoll_ctl", epoll, ADD, writing, event(guest, POLLOUT, 2**63 + 5))
    assert ready(guest, epoll) == [(POLLOUT, 2**63 + 5)]
    assert guest.call("epoll_ctl", epoll, ADD, writing, BUFFER) == -errno.EEXIST
    guest.ok("epoll_ctl", epoll, MODIFY, writing, event(guest, POLLIN, 1))
    assert ready(guest, epoll) == []
    assert guest.call("epoll_ctl", epoll, MODIFY, reading, BUFFER) == -errno.ENOENT
    guest.ok("epoll_ctl", epoll, DELETE, writing, 0)
    assert guest.call("epoll_ctl", epoll, DELETE, writing, 0) == -errno.ENOENT


def test_epoll_edges_and_one_shots(guest: Guest) -> None:
    epoll = guest.ok("epoll_create1", 0)
    reading, writing = guest.pipe()
    guest.ok("epoll_ctl", epoll, ADD, reading, event(guest, POLLIN | EPOLLET, 7))
    guest.write(writing, b"x")
    assert ready(guest, epoll) == [(POLLIN, 7)]
    assert ready(guest, epoll) == []
    guest.ok("epoll_ctl", epoll, MODIFY, reading, event(guest, POLLIN | EPOLLONESHOT, 8))
    assert ready(guest, epoll) == [(POLLIN, 8)]
    assert ready(guest, epoll) == []


def test_epoll_of_one_file_under_two_numbers(guest: Guest) -> None:
    epoll = guest.ok("epoll_create1", 0)
    _reading, writing = guest.pipe()
    other = guest.ok("dup", writing)
    guest.ok("epoll_ctl", epoll, ADD, writing, event(guest, POLLOUT, 1))
    guest.ok("epoll_ctl", epoll, ADD, other, event(guest, POLLOUT, 2))
    assert sorted(data for _, data in ready(guest, epoll)) == [1, 2]
    guest.ok("close", writing)
    guest.ok("close", other)
    assert ready(guest, epoll) == []


def test_a_number_used_again_is_another_file(guest: Guest) -> None:
    epoll = guest.ok("epoll_create1", 0)
    reading, writing = guest.pipe()
    guest.ok("epoll_ctl", epoll, ADD, writing, event(guest, POLLOUT, 1))
    guest.ok("close", reading)
    guest.ok("close", writing)
    again, more = guest.pipe()
    assert (again, more) == (reading, writing)
    assert guest.call("epoll_ctl", epoll, MODIFY, writing, BUFFER) == -errno.ENOENT
    guest.ok("epoll_ctl", epoll, ADD, writing, event(guest, POLLOUT, 2))
    assert ready(guest, epoll) == [(POLLOUT, 2)]


def test_epoll_waits(guest: Guest) -> None:
    epoll = guest.ok("epoll_create1", 0)
    reading, writing = guest.pipe()
    child = guest.fork()
    guest.ok("epoll_ctl", epoll, ADD, reading, event(guest, POLLIN, 3))
    assert guest.call("epoll_wait", epoll, OUT, 1, -1) is None
    guest.write(writing, b"x", task=child)
    assert guest.events() == 1
    guest.read(reading)
    assert guest.call("epoll_wait", epoll, OUT, 1, 3) is None
    assert guest.events() == 0


def test_epoll_in_epoll_and_circles(guest: Guest) -> None:
    inner, outer = guest.ok("epoll_create1", 0), guest.ok("epoll_create1", os.O_CLOEXEC)
    reading, writing = guest.pipe()
    guest.ok("epoll_ctl", inner, ADD, reading, event(guest, POLLIN, 1))
    guest.ok("epoll_ctl", outer, ADD, inner, event(guest, POLLIN, 2))
    guest.write(writing, b"x")
    assert ready(guest, outer) == [(POLLIN, 2)]
    assert guest.call("epoll_ctl", inner, ADD, outer, BUFFER) == -errno.ELOOP
    assert guest.call("epoll_ctl", inner, ADD, inner, BUFFER) == -errno.EINVAL


def test_eventfd(guest: Guest) -> None:
    fd = guest.ok("eventfd2", 3, os.O_NONBLOCK)
    assert guest.read(fd, 8) == struct.pack("<Q", 3)
    assert guest.call("read", fd, BUFFER, 8) == -errno.EAGAIN
    assert guest.call("read", fd, BUFFER, 4) == -errno.EINVAL
    assert guest.write(fd, struct.pack("<Q", 2**64 - 1)) == -errno.EINVAL


def test_timerfd(guest: Guest) -> None:
    fd = guest.ok("timerfd_create", 1, 0)
    guest.task.write(BUFFER, struct.pack("<qqqq", 0, 0, 0, 2_000_000))
    guest.ok("timerfd_settime", fd, 0, BUFFER, OUT)
    assert guest.call("read", fd, BUFFER, 8) is None
    assert guest.events() == 8
    assert guest.task.read(BUFFER, 8) == struct.pack("<Q", 1)
    guest.ok("timerfd_gettime", fd, OUT)
    assert guest.task.read(OUT, 32) == bytes(32)
    assert guest.call("timerfd_settime", fd, 0, BUFFER, 0) == 0
    guest.task.write(BUFFER, struct.pack("<qqqq", 0, 0, 0, 10**9))
    assert guest.call("timerfd_settime", fd, 0, BUFFER, 0) == -errno.EINVAL


def test_signalfd(guest: Guest) -> None:
    guest.task.blocked = 1 << SIGUSR1 - 1
    guest.task.write(BUFFER, struct.pack("<Q", 1 << SIGUSR1 - 1))
    fd = guest.ok("signalfd4", -1, BUFFER, 8, os.O_NONBLOCK)
    assert guest.call("read", fd, BUFFER, 128) == -errno.EAGAIN
    delivery.post(guest.process, SIGUSR1, siginfo.sent(SIGUSR1, guest.task))
    assert guest.ok("poll", ask(guest, (fd, POLLIN)), 1, 0) == 1
    info = guest.read(fd, 300)
    assert len(info) == 128
    assert struct.unpack("<IiiII", info[:20]) == (SIGUSR1, 0, 0, guest.process.pid, 1000)
    assert guest.ok("poll", ask(guest, (fd, POLLIN)), 1, 0) == 0


def test_signalfd_wakes_a_reader(guest: Guest) -> None:
    guest.task.blocked = 1 << SIGUSR1 - 1
    guest.task.write(BUFFER, struct.pack("<Q", 1 << SIGUSR1 - 1))
    fd = guest.ok("signalfd4", -1, BUFFER, 8, 0)
    assert guest.call("read", fd, BUFFER, 128) is None
    delivery.post(guest.process, SIGUSR1)
    assert guest.events() == 128


@given(st.integers(1, 64), st.binary(min_size=128, max_size=128))
def test_signal_info_of_any_bytes(number: int, info: bytes) -> None:
    converted = events.signal_info(number, info)
    assert len(converted) == 128
    assert struct.unpack("<I", converted[:4])[0] == number


def test_pidfd(guest: Guest) -> None:
    child = guest.fork()
    fd = guest.ok("pidfd_open", child.process.pid, 0)
    assert guest.ok("poll", ask(guest, (fd, POLLIN)), 1, 0) == 0
    guest.ok("pidfd_send_signal", fd, 0, 0, 0)
    guest.ok("pidfd_send_signal", fd, 9, 0, 0)
    guest.settle()
    assert guest.ok("poll", ask(guest, (fd, POLLIN)), 1, 0) == 1
    assert guest.ok("waitid", 3, fd, 0, 4, 0) == 0
    assert guest.call("pidfd_send_signal", fd, 0, 0, 0) == -errno.ESRCH
    assert guest.call("pidfd_open", child.process.pid, 0) == -errno.ESRCH


def test_inotify(guest: Guest, tmp_path: Path) -> None:
    fd = guest.ok("inotify_init1", os.O_NONBLOCK)
    guest.task.write(BUFFER, os.fsencode(tmp_path) + b"\0")
    watch = guest.ok("inotify_add_watch", fd, BUFFER, 0x100)  # IN_CREATE
    (tmp_path / "new").touch()
    row = guest.read(fd, 4096)
    assert struct.unpack("<iI", row[:8]) == (watch, 0x100)
    assert row[16:19] == b"new"
    guest.ok("inotify_rm_watch", fd, watch)
    assert guest.call("inotify_rm_watch", fd, 99) == -errno.EINVAL


def test_refused(guest: Guest) -> None:
    assert guest.call("pidfd_getfd", 0, 0, 0) == -errno.EPERM
    assert guest.call("userfaultfd", 0) == -errno.ENOSYS
