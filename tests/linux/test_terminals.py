"""Terminals and job control, on pseudo-terminals of the host."""

import errno
import os
import select
import socket
import struct
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linux.streams import BUFFER, OUT, Guest
from virtus.personalities.linux import boot, delivery, stdio, terminals
from virtus.personalities.linux.signals import Action
from virtus.personalities.linux.task import Task

SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH = 1, 2, 3, 20, 21, 22, 28


@pytest.fixture
def guest() -> Iterator[Guest]:
    machine = Guest()
    yield machine
    machine.close()


def terminal_pair(guest: Guest, flags: int = 0) -> tuple[int, int]:
    """A master and its slave, as openpty(3) gets them."""
    guest.task.write(BUFFER, b"/dev/ptmx\0")
    master = guest.ok("open", BUFFER, os.O_RDWR | os.O_NOCTTY)
    guest.task.write(OUT, bytes(4))
    guest.ok("ioctl", master, terminals.TIOCSPTLCK, OUT)
    guest.ok("ioctl", master, terminals.TIOCGPTN, OUT)
    number = struct.unpack("<i", guest.task.read(OUT, 4))[0]
    guest.task.write(BUFFER, f"/dev/pts/{number}\0".encode())
    return master, guest.ok("open", BUFFER, os.O_RDWR | flags)


def terminal_of(guest: Guest, fd: int) -> terminals.Terminal:
    file = guest.file(fd)
    assert isinstance(file, terminals.TerminalFile)
    return file.terminal


def background(guest: Guest) -> Task:
    """A child in a process group of its own."""
    child = guest.fork()
    guest.ok("setpgid", 0, 0, task=child)
    return child


def number(guest: Guest, fd: int, request: int, task: Task | None = None) -> int:
    result = guest.call("ioctl", fd, request, OUT, task=task)
    assert result is not None
    if result < 0:
        return result
    value: int = struct.unpack("<i", (task or guest.task).read(OUT, 4))[0]
    return value


def test_the_first_terminal_of_a_session_leader_controls_it(guest: Guest) -> None:
    master, slave = terminal_pair(guest)
    assert guest.process.terminal is terminal_of(guest, slave) is terminal_of(guest, master)
    assert number(guest, slave, terminals.TIOCGPGRP) == guest.process.group
    assert number(guest, master, terminals.TIOCGSID) == guest.process.session
    guest.task.write(BUFFER, b"/dev/tty\0")
    mine = guest.ok("open", BUFFER, os.O_RDWR)
    assert terminal_of(guest, mine) is guest.process.terminal


def test_not_with_noctty(guest: Guest) -> None:
    _, slave = terminal_pair(guest, os.O_NOCTTY)
    assert guest.process.terminal is None
    assert number(guest, slave, terminals.TIOCGPGRP) == -errno.ENOTTY
    guest.task.write(BUFFER, b"/dev/tty\0")
    assert guest.call("open", BUFFER, os.O_RDWR) == -errno.ENXIO
    guest.ok("ioctl", slave, terminals.TIOCSCTTY, 0)
    assert guest.process.terminal is terminal_of(guest, slave)


def test_lines_and_echo(guest: Guest) -> None:
    master, slave = terminal_pair(guest)
    guest.write(master, b"line\n")
    assert guest.read(slave) == b"line\n"
    assert guest.read(master) == b"line\r\n"
    guest.write(slave, b"out\n")
    assert guest.read(master) == b"out\r\n"


def test_typed_characters_signal_the_foreground(guest: Guest) -> None:
    master, _slave = terminal_pair(guest)
    for signal in (SIGINT, SIGQUIT, SIGTSTP):
        guest.process.actions.actions[signal] = Action(0x400000, 0, 0)
        guest.task.blocked |= 1 << signal - 1
    guest.write(master, b"a\x03\x1c\x1a")
    pending = guest.process.pending.bits
    assert pending == sum(1 << signal - 1 for signal in (SIGINT, SIGQUIT, SIGTSTP))
    select.select([guest.file(master).host], [], [], 10)  # the host's terminals pass bytes on in their own time
    assert guest.read(master) == b"^Z"  # the host echoes, and drops what came before


def test_raw_terminals_signal_nobody(guest: Guest) -> None:
    master, slave = terminal_pair(guest)
    host = guest.file(slave).host
    settings = termios.tcgetattr(host)
    settings[3] &= ~termios.ISIG
    termios.tcsetattr(host, termios.TCSANOW, settings)
    guest.write(master, b"\x03")
    assert not guest.process.pending.bits


@given(st.binary(max_size=30), st.binary(min_size=19, max_size=19))
def test_typed_signals_of_any_bytes(data: bytes, characters: bytes) -> None:
    found = terminals.typed_signals(data, characters)
    special = {characters[0], characters[1], characters[10]} - {0}
    assert len(found) == sum(byte in special for byte in data)


def test_a_background_reader_is_stopped(guest: Guest) -> None:
    master, slave = terminal_pair(guest)
    child = background(guest)
    guest.write(master, b"line\n")
    assert guest.call("read", slave, BUFFER, 10, task=child) is None
    assert child.process.stopped_by == SIGTTIN
    guest.task.write(OUT, struct.pack("<i", child.process.group))
    guest.ok("ioctl", slave, terminals.TIOCSPGRP, OUT)
    guest.ok("kill", child.process.pid, 18)
    # it makes its call again
    assert child.regs[16] == 0x400000 - 2
    assert guest.ok("read", slave, BUFFER, 10, task=child) == 5


def test_a_background_reader_that_ignores_it_gets_an_error(guest: Guest) -> None:
    _master, slave = terminal_pair(guest)
    child = background(guest)
    child.process.actions.actions[SIGTTIN] = Action(1)
    assert guest.call("read", slave, BUFFER, 10, task=child) == -errno.EIO


def test_background_changes(guest: Guest) -> None:
    _master, slave = terminal_pair(guest)
    child = background(guest)
    guest.ok("ioctl", slave, terminals.TCGETS, BUFFER, task=child)
    assert guest.write(slave, b"out", task=child) == 3  # without TOSTOP
    child.write(OUT, struct.pack("<i", child.process.group))
    assert guest.call("ioctl", slave, terminals.TIOCSPGRP, OUT, task=child) is None
    assert child.process.stopped_by == SIGTTOU
    guest.ok("kill", child.process.pid, 18)
    child.blocked = 1 << SIGTTOU - 1
    assert guest.call("ioctl", slave, 0x5402, BUFFER, task=child) == 0
    guest.ok("ioctl", slave, terminals.TIOCSPGRP, OUT, task=child)
    assert number(guest, slave, terminals.TIOCGPGRP) == child.process.group


def test_foreground_groups_are_of_the_session(guest: Guest) -> None:
    _master, slave = terminal_pair(guest)
    child = guest.fork()
    guest.ok("setsid", task=child)
    guest.task.write(OUT, struct.pack("<i", child.process.pid))
    assert guest.call("ioctl", slave, terminals.TIOCSPGRP, OUT) == -errno.EPERM
    guest.task.write(OUT, struct.pack("<i", 4000))
    assert guest.call("ioctl", slave, terminals.TIOCSPGRP, OUT) == -errno.ESRCH
    assert guest.call("ioctl", slave, terminals.TIOCSCTTY, 0, task=child) == -errno.EPERM


def test_a_new_size_is_told(guest: Guest) -> None:
    master, slave = terminal_pair(guest)
    guest.process.actions.actions[SIGWINCH] = Action(0x400000, 0, 0)
    guest.task.blocked = 1 << SIGWINCH - 1
    guest.task.write(BUFFER, struct.pack("<HHHH", 50, 120, 0, 0))
    guest.ok("ioctl", master, terminals.TIOCSWINSZ, BUFFER)
    assert guest.process.pending.bits == 1 << SIGWINCH - 1
    guest.process.pending.discard(-1)
    guest.ok("ioctl", slave, terminals.TIOCSWINSZ, BUFFER)
    assert not guest.process.pending.bits  # nothing has changed
    guest.ok("ioctl", slave, terminals.TIOCGWINSZ, OUT)
    assert guest.task.read(OUT, 4) == struct.pack("<HH", 50, 120)


def test_hang_up(guest: Guest) -> None:
    master, slave = terminal_pair(guest)
    guest.process.actions.actions[SIGHUP] = Action(0x400000, 0, 0)
    guest.task.blocked = 1 << SIGHUP - 1
    guest.ok("close", master)
    assert guest.process.pending.bits & 1 << SIGHUP - 1
    assert guest.read(slave) == b""
    assert guest.write(slave, b"x") == -errno.EIO


def test_leaving_the_terminal(guest: Guest) -> None:
    _master, slave = terminal_pair(guest)
    child = background(guest)
    guest.ok("ioctl", slave, terminals.TIOCNOTTY, 0, task=child)
    assert child.process.terminal is None
    assert guest.call("ioctl", slave, terminals.TIOCNOTTY, 0, task=child) == -errno.ENOTTY
    guest.process.actions.actions[SIGHUP] = Action(1)
    guest.ok("ioctl", slave, terminals.TIOCNOTTY, 0)
    assert guest.process.terminal is None
    assert terminal_of(guest, slave).session == 0


def test_a_read_with_a_time_limit(guest: Guest) -> None:
    _master, slave = terminal_pair(guest)
    host = guest.file(slave).host
    settings = termios.tcgetattr(host)
    settings[3] &= ~termios.ICANON
    settings[6][termios.VMIN], settings[6][termios.VTIME] = 0, 1
    termios.tcsetattr(host, termios.TCSANOW, settings)
    assert guest.call("read", slave, BUFFER, 10) is None
    assert guest.events() == 0


def test_typing_for_the_user_is_refused(guest: Guest) -> None:
    _master, slave = terminal_pair(guest)
    for request in (terminals.TIOCSTI, terminals.TIOCLINUX, terminals.TIOCCONS):
        assert guest.call("ioctl", slave, request, BUFFER) == -errno.EPERM
    assert guest.call("ioctl", slave, 0x4B30, BUFFER) == -errno.ENOTTY  # KDSETLED


def test_the_slave_from_its_master(guest: Guest) -> None:
    master, _slave = terminal_pair(guest)
    peer = guest.ok("ioctl", master, terminals.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    assert terminal_of(guest, peer) is terminal_of(guest, master)
    assert peer in guest.task.descriptors.close_on_exec


def test_the_console(guest: Guest) -> None:
    master, slave = os.openpty()
    try:
        for fd in range(3):
            guest.task.descriptors.put(fd, stdio.standard_file(guest.kernel, slave, guest.process))
        assert guest.kernel.console is guest.process.terminal is terminal_of(guest, 2)
        os.write(master, b"typed\n")
        assert guest.read(0) == b"typed\n"
        assert os.get_blocking(slave)  # the caller's description is as it was
        guest.process.actions.actions[SIGINT] = Action(0x400000, 0, 0)
        guest.task.blocked = 1 << SIGINT - 1
        guest.kernel.console.signal(SIGINT)
        assert guest.process.pending.bits == 1 << SIGINT - 1
    finally:
        os.close(master)
        os.close(slave)


def test_when_the_user_s_terminal_is_gone_what_is_stopped_goes_on(guest: Guest) -> None:
    master, slave = os.openpty()
    try:
        guest.task.descriptors.put(0, stdio.standard_file(guest.kernel, slave, guest.process))
        guest.task.blocked = 1 << SIGHUP - 1  # like a shell in the middle of vfork(2)
        child = guest.fork()
        delivery.post(child.process, SIGTSTP)
        assert child.process.stopped_by == SIGTSTP
        boot.signal_from_outside(guest.kernel, SIGHUP)
        assert not child.process.stopped_by
        assert guest.process.pending.bits == 1 << SIGHUP - 1
    finally:
        os.close(master)
        os.close(slave)


def test_inherited_pipes_and_sockets(guest: Guest) -> None:
    reading, writing = os.pipe()
    one, two = socket.socketpair()
    try:
        guest.task.descriptors.put(0, stdio.standard_file(guest.kernel, reading))
        guest.task.descriptors.put(1, stdio.standard_file(guest.kernel, writing))
        guest.task.descriptors.put(2, stdio.standard_file(guest.kernel, one.fileno()))
        guest.write(1, b"through")
        assert guest.read(0) == b"through"
        child = guest.fork()
        assert guest.call("read", 0, BUFFER, 1) is None
        two.send(b"x")
        assert guest.ok("read", 2, BUFFER, 9, task=child) == 1
        assert guest.call("recvfrom", 2, BUFFER, 9, 0x40, 0, 0, task=child) == -errno.EAGAIN
        assert os.get_blocking(reading)
        assert one.getblocking()
    finally:
        os.close(reading)
        os.close(writing)
        one.close()
        two.close()
