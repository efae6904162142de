"""Sockets as a guest uses them, and the formats they come in."""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linux.fake import BASE
from tests.linux.streams import BUFFER, Guest
from virtus.personalities.linux import messages, rights, sockets
from virtus.personalities.linux.task import Task

AF_UNIX, AF_INET, AF_NETLINK, AF_PACKET = 1, 2, 16, 17
STREAM, DGRAM, RAW = 1, 2, 3
MSG_PEEK, MSG_DONTWAIT, MSG_WAITALL, MSG_CTRUNC = 2, 0x40, 0x100, 8
HEADER, VECTOR, CONTROL, NAME = BASE + 0x200, BASE + 0x300, BASE + 0x400, BASE + 0x800
LENGTH = BASE + 0x900


@pytest.fixture
def guest() -> Iterator[Guest]:
    machine = Guest()
    yield machine
    machine.close()


def message(guest: Guest, data: bytes | int, control: bytes | int = b"", *, task: Task | None = None) -> int:
    """A struct msghdr; numbers are the room to receive."""
    task = task or guest.task
    size = data if isinstance(data, int) else len(data)
    room = control if isinstance(control, int) else len(control)
    if isinstance(data, bytes):
        task.write(BUFFER, data)
    if isinstance(control, bytes):
        task.write(CONTROL, control)
    task.write(VECTOR, struct.pack("<QQ", BUFFER, size))
    task.write(HEADER, messages.MSGHDR.pack(0, 0, VECTOR, 1, CONTROL if room else 0, room, 0))
    return HEADER


def rights_of(*fds: int) -> bytes:
    return rights.compose([rights.Control(1, rights.SCM_RIGHTS, struct.pack(f"<{len(fds)}i", *fds))])


def received(guest: Guest, task: Task | None = None) -> tuple[bytes, int]:
    """Control data and flags that recvmsg stored."""
    task = task or guest.task
    length, flags = struct.unpack("<Qi", task.read(HEADER + messages.CONTROL_LENGTH_AT, 12))
    return task.read(CONTROL, length), flags


def listening(guest: Guest) -> tuple[int, bytes]:
    """An IPv4 socket that listens, and its address."""
    fd = guest.ok("socket", AF_INET, STREAM, 0)
    guest.task.write(NAME, struct.pack("<H2s4s8x", AF_INET, b"\0\0", b"\x7f\0\0\1"))
    guest.ok("bind", fd, NAME, 16)
    guest.ok("listen", fd, 5)
    guest.task.write(LENGTH, struct.pack("<i", 128))
    guest.ok("getsockname", fd, NAME, LENGTH)
    return fd, guest.task.read(NAME, 16)


def test_a_pair_talks(guest: Guest) -> None:
    one, two = guest.pair()
    guest.write(one, b"ping")
    assert guest.read(two) == b"ping"
    guest.ok("shutdown", one, 1)
    assert guest.read(two) == b""


def test_tcp_over_loopback(guest: Guest) -> None:
    server, address = listening(guest)
    client = guest.ok("socket", AF_INET, STREAM, 0)
    guest.task.write(NAME, address)
    result = guest.call("connect", client, NAME, 16)
    assert result == 0 or guest.events() == 0
    guest.task.write(LENGTH, struct.pack("<i", 128))
    accepted = guest.ok("accept4", server, NAME, LENGTH, os.O_CLOEXEC)
    assert accepted in guest.task.descriptors.close_on_exec
    assert struct.unpack("<H", guest.task.read(NAME, 2))[0] == AF_INET
    guest.write(client, b"over")
    assert guest.call("recvfrom", accepted, BUFFER, 10, 0, 0, 0) in (4, None)
    guest.events()
    assert guest.task.read(BUFFER, 4) == b"over"


def test_accept_waits_for_a_client(guest: Guest) -> None:
    server, address = listening(guest)
    child = guest.fork()
    assert guest.call("accept", server, 0, 0) is None
    client = guest.ok("socket", AF_INET, STREAM, 0, task=child)
    child.write(NAME, address)
    guest.call("connect", client, NAME, 16, task=child)
    assert guest.events() == client


def test_refused_connection(guest: Guest) -> None:
    server, address = listening(guest)
    guest.ok("close", server)
    client = guest.ok("socket", AF_INET, STREAM, 0)
    guest.task.write(NAME, address)
    result = guest.call("connect", client, NAME, 16)
    assert (guest.events() if result is None else result) == -errno.ECONNREFUSED


@pytest.mark.parametrize(
    ("family", "kind", "protocol", "error"),
    [
        (AF_PACKET, RAW, 0, errno.EAFNOSUPPORT),
        (AF_INET, RAW, 1, errno.EPERM),
        (AF_NETLINK, RAW, 9, errno.EPROTONOSUPPORT),
        (40, STREAM, 0, errno.EAFNOSUPPORT),
        (AF_UNIX, STREAM | 0x100, 0, errno.EINVAL),
    ],
)
def test_refused_families(guest: Guest, family: int, kind: int, protocol: int, error: int) -> None:
    assert guest.call("socket", family, kind, protocol) == -error


def test_netlink_is_read_only() -> None:
    sockets.check_netlink(struct.pack("<IHHII", 16, 18, 0, 0, 0))  # RTM_GETLINK
    with pytest.raises(PermissionError):
        sockets.check_netlink(struct.pack("<IHHII", 16, 18, 0, 0, 0) + struct.pack("<IHHII", 16, 20, 0, 0, 0))


@given(st.binary(max_size=200))
def test_netlink_check_never_fails_otherwise(data: bytes) -> None:
    try:
        sockets.check_netlink(data)
    except PermissionError:
        return


def test_waitall_and_peek(guest: Guest) -> None:
    one, two = guest.pair()
    child = guest.fork()
    guest.write(one, b"abc")
    assert guest.ok("recvfrom", two, BUFFER, 10, MSG_PEEK, 0, 0) == 3
    assert guest.call("recvfrom", two, BUFFER, 6, MSG_WAITALL, 0, 0) is None
    guest.write(one, b"defg", task=child)
    assert guest.events() == 6
    assert guest.task.read(BUFFER, 6) == b"abcdef"
    assert guest.call("recvfrom", two, BUFFER, 6, MSG_DONTWAIT, 0, 0) == 1
    assert guest.call("recvfrom", two, BUFFER, 6, MSG_DONTWAIT, 0, 0) == -errno.EAGAIN


def test_a_receive_timeout(guest: Guest) -> None:
    one, _two = guest.pair()
    guest.task.write(BUFFER, struct.pack("<qq", 0, 20_000))
    guest.ok("setsockopt", one, 1, 20, BUFFER, 16)
    assert guest.call("recvfrom", one, BUFFER, 6, 0, 0, 0) is None
    assert guest.events() == -errno.EAGAIN
    guest.task.write(LENGTH, struct.pack("<i", 16))
    guest.ok("getsockopt", one, 1, 20, BUFFER, LENGTH)
    assert struct.unpack("<qq", guest.task.read(BUFFER, 16)) == (0, 20_000)


def test_a_large_send_goes_on(guest: Guest) -> None:
    one, two = guest.pair()
    child = guest.fork()
    size = 200_000
    for fd, option in ((one, 7), (two, 8)):  # SO_SNDBUF, SO_RCVBUF
        guest.task.write(BUFFER, struct.pack("<i", 4096))
        guest.ok("setsockopt", fd, 1, option, BUFFER, 4)
    assert guest.call("sendto", one, BASE, size, 0, 0, 0) is None
    got = 0
    while got < size:
        count = guest.call("recvfrom", two, BASE, size, MSG_DONTWAIT, 0, 0, task=child)
        assert count
        if count > 0:
            got += count
        guest.events(within=0.001)
    assert guest.result() == size


def test_files_travel_with_their_identity(guest: Guest) -> None:
    one, two = guest.pair()
    reading, writing = guest.pipe()
    sent = guest.file(reading)
    guest.ok("sendmsg", one, message(guest, b"x", rights_of(reading, writing)), 0)
    guest.ok("close", reading)
    assert guest.ok("recvmsg", two, message(guest, 10, 64), 0x40000000) == 1
    control, flags = received(guest)
    (arrived,) = rights.parse(control)
    fds = struct.unpack("<2i", arrived.data)
    assert guest.file(fds[0]) is sent
    assert not flags & MSG_CTRUNC
    assert set(fds) <= guest.task.descriptors.close_on_exec
    guest.event()  # the stand-ins are gone, and their references with them
    assert rights.unix(guest.kernel).travelling == 0
    assert sent.references == 1


def test_files_lost_on_their_way_are_released(guest: Guest) -> None:
    one, two = guest.pair()
    reading, writing = guest.pipe()
    guest.ok("sendmsg", one, message(guest, b"x", rights_of(writing)), 0)
    guest.ok("close", writing)
    guest.ok("close", two)
    guest.event()
    assert rights.unix(guest.kernel).travelling == 0
    assert guest.read(reading) == b""  # nobody holds the writing end any more


def test_files_without_room_are_cut(guest: Guest) -> None:
    one, two = guest.pair()
    guest.ok("sendmsg", one, message(guest, b"x", rights_of(one, two)), 0)
    guest.ok("recvmsg", two, message(guest, 1, 20), 0)
    control, flags = received(guest)
    assert flags & MSG_CTRUNC
    assert len(next(rights.parse(control)).data) == 4


def test_bad_descriptors_do_not_travel(guest: Guest) -> None:
    one, _two = guest.pair()
    assert guest.call("sendmsg", one, message(guest, b"x", rights_of(one, 99)), 0) == -errno.EBADF
    guest.event()
    assert rights.unix(guest.kernel).travelling == 0


def test_a_socket_sent_over_itself(guest: Guest) -> None:
    one, two = guest.pair()
    guest.ok("sendmsg", one, message(guest, b"x", rights_of(two)), 0)
    guest.ok("recvmsg", two, message(guest, 1, 64), 0)
    (arrived,) = rights.parse(received(guest)[0])
    assert guest.file(struct.unpack("<i", arrived.data)[0]) is guest.file(two)


def test_peer_credentials(guest: Guest, tmp_path: Path) -> None:
    address = struct.pack("<H", AF_UNIX) + os.fsencode(tmp_path / "socket") + b"\0"
    server = guest.ok("socket", AF_UNIX, STREAM, 0)
    guest.task.write(NAME, address)
    guest.ok("bind", server, NAME, len(address))
    guest.ok("listen", server, 5)
    child = guest.fork()
    child.write(NAME, address)
    client = guest.ok("socket", AF_UNIX, STREAM, 0, task=child)
    guest.ok("connect", client, NAME, len(address), task=child)
    accepted = guest.ok("accept", server, 0, 0)
    assert peer(guest, accepted, guest.task) == (child.process.pid, 1000, 1000)
    assert peer(guest, client, child) == (guest.process.pid, 1000, 1000)


def peer(guest: Guest, fd: int, task: Task) -> tuple[int, ...]:
    task.write(LENGTH, struct.pack("<i", 12))
    guest.ok("getsockopt", fd, 1, 17, BUFFER, LENGTH, task=task)
    return struct.unpack("<iII", task.read(BUFFER, 12))


def test_options_that_hold_addresses_are_refused(guest: Guest) -> None:
    one, _two = guest.pair()
    assert guest.call("setsockopt", one, 1, 26, BUFFER, 16) == -errno.EPERM  # SO_ATTACH_FILTER
    tcp = guest.ok("socket", AF_INET, STREAM, 0)
    guest.task.write(LENGTH, struct.pack("<i", 64))
    assert guest.call("getsockopt", tcp, 6, 35, BUFFER, LENGTH) == -errno.EPERM  # TCP_ZEROCOPY_RECEIVE
    assert guest.call("getsockopt", tcp, 0, 64, BUFFER, LENGTH) == -errno.ENOPROTOOPT  # IPT_SO_GET_INFO


def test_no_socket(guest: Guest) -> None:
    reading, _ = guest.pipe()
    assert guest.call("listen", reading, 1) == -errno.ENOTSOCK
    assert guest.call("listen", 99, 1) == -errno.EBADF


def test_many_messages(guest: Guest) -> None:
    one, two = guest.pair(DGRAM)
    for text in (b"a", b"bc"):
        guest.write(one, text)
    headers = BASE + 0x1000
    for at in range(3):
        guest.task.write(VECTOR + 16 * at, struct.pack("<QQ", BUFFER + 16 * at, 16))
        guest.task.write(headers + 64 * at, messages.MSGHDR.pack(0, 0, VECTOR + 16 * at, 1, 0, 0, 0))
    assert guest.ok("recvmmsg", two, headers, 3, 0x10000, 0) == 2  # MSG_WAITFORONE
    assert struct.unpack("<I", guest.task.read(headers + 64 + 56, 4))[0] == 2
    assert guest.ok("sendmmsg", one, headers, 3, 0) == 3


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.binary(max_size=40)), max_size=6))
def test_control_data_round_trip(rows: list[tuple[int, int, bytes]]) -> None:
    wanted = [rights.Control(*row) for row in rows]
    assert list(rights.parse(rights.compose(wanted))) == wanted


@given(st.binary(max_size=200))
def test_control_data_of_any_bytes(raw: bytes) -> None:
    try:
        found = list(rights.parse(raw))
    except OSError as error:
        assert error.errno == errno.EINVAL
        return
    assert sum(len(row.data) + 16 for row in found) <= len(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"\1", b"\1\0", b"\1\0\0abstract", b"\1\0" + b"x" * 126, b"\2\0/tmp", b"\1\0/a\0b"]
)
def test_addresses_of_any_shape(guest: Guest, raw: bytes) -> None:
    assert sockets.unix_address(guest.task, raw)[0] == raw
