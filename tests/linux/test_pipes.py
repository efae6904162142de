"""Pipes as a guest uses them."""

import errno
import fcntl
import os
from collections.abc import Iterator

import pytest

from tests.linux.streams import BUFFER, OUT, Guest

SIGPIPE = 13


@pytest.fixture
def guest() -> Iterator[Guest]:
    machine = Guest()
    yield machine
    machine.close()


def test_bytes_go_through(guest: Guest) -> None:
    reading, writing = guest.pipe()
    assert guest.write(writing, b"hello") == 5
    assert guest.read(reading) == b"hello"


def test_a_reader_waits_and_is_woken(guest: Guest) -> None:
    reading, writing = guest.pipe()
    child = guest.fork()
    assert guest.call("read", reading, BUFFER, 10) is None
    assert guest.write(writing, b"late", task=child) == 4
    assert guest.events() == 4
    assert guest.task.read(BUFFER, 4) == b"late"


def test_no_writer_left_is_the_end(guest: Guest) -> None:
    reading, writing = guest.pipe()
    guest.ok("close", writing)
    assert guest.read(reading) == b""


def test_no_reader_left_is_a_signal(guest: Guest) -> None:
    reading, writing = guest.pipe()
    guest.process.actions.actions[SIGPIPE] = guest.process.actions.get(SIGPIPE)._replace(handler=1)  # SIG_IGN
    guest.ok("close", reading)
    assert guest.write(writing, b"x") == -errno.EPIPE
    guest.process.actions.actions.clear()
    assert guest.write(writing, b"x") is None
    assert guest.process.exit_status == SIGPIPE


def test_nonblocking_never_waits(guest: Guest) -> None:
    reading, writing = guest.pipe(os.O_NONBLOCK)
    assert guest.call("read", reading, BUFFER, 1) == -errno.EAGAIN
    fcntl.fcntl(guest.file(writing).host, fcntl.F_SETPIPE_SZ, 4096)
    assert guest.write(writing, bytes(8192)) == 4096
    assert guest.write(writing, b"x") == -errno.EAGAIN


def test_a_full_pipe_takes_the_rest_later(guest: Guest) -> None:
    reading, writing = guest.pipe()
    fcntl.fcntl(guest.file(writing).host, fcntl.F_SETPIPE_SZ, 4096)
    child = guest.fork()
    assert guest.write(writing, bytes(6000)) is None
    assert guest.ok("read", reading, BUFFER, 5000, task=child) == 4096
    assert guest.events() == 6000


def test_how_much_is_there(guest: Guest) -> None:
    reading, writing = guest.pipe()
    guest.write(writing, b"12345")
    guest.ok("ioctl", reading, 0x541B, OUT)
    assert guest.task.read(OUT, 4) == b"\5\0\0\0"


def test_names_and_flags(guest: Guest) -> None:
    reading, writing = guest.pipe(os.O_CLOEXEC)
    assert guest.file(reading).path.startswith("pipe:[")
    assert guest.file(reading).path == guest.file(writing).path
    assert guest.task.descriptors.close_on_exec == {reading, writing}
    assert guest.call("pipe2", OUT, 0o40) == -errno.EINVAL


def test_a_bad_address_leaves_no_descriptor(guest: Guest) -> None:
    before = set(guest.task.descriptors.files)
    assert guest.call("pipe", 8) == -errno.EFAULT
    assert set(guest.task.descriptors.files) == before
