"""/proc: what it shows is the guest's, and parses as proc(5) says."""

import errno
import os
import stat
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linux.fake import BASE, FakeMachine
from virtus.personalities.linux.proc import process_contents, system_files
from virtus.personalities.linux.proc.files import pack_records
from virtus.personalities.linux.proc.root import ROOT
from virtus.personalities.linux.proc.tree import Directory, Node, Text

BUFFER = BASE + 0x4000


class Guest(FakeMachine):
    """A machine that reads files."""

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        self.task.write(BASE, os.fsencode(name) + b"\0")
        result = self.call("open", BASE, flags, 0)
        assert result is not None
        return result

    def text(self, name: str) -> bytes:
        fd = self.open(name)
        assert fd >= 0, errno.errorcode[-fd]
        size = self.call("read", fd, BUFFER, 1 << 16)
        assert size is not None
        self.call("close", fd)
        return self.task.read(BUFFER, size)

    def names(self, directory: str) -> list[str]:
        fd = self.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        assert fd >= 0, errno.errorcode[-fd]
        found = []
        while size := self.call("getdents64", fd, BUFFER, 4096):
            at = 0
            while at < size:
                length = struct.unpack("<H", self.task.read(BUFFER + at + 16, 2))[0]
                found.append(self.task.read(BUFFER + at + 19, length - 19).split(b"\0")[0].decode())
                at += length
        self.call("close", fd)
        return found


@pytest.fixture
def guest() -> Iterator[Guest]:
    machine = Guest("file_calls", "path_calls", "metadata_calls")
    yield machine
    machine.task.descriptors.close_all(machine.task)
    machine.close()
    os.chdir("/")


def test_only_the_guests_processes_are_there(guest: Guest) -> None:
    assert [name for name in guest.names("/proc") if name.isdecimal()] == ["1", "2"]
    assert guest.open(f"/proc/{os.getpid()}") == -errno.ENOENT
    assert guest.open("/proc/02") == -errno.ENOENT


def test_stat_has_its_52_fields(guest: Guest) -> None:
    guest.task.name = b"a b) c"
    text = guest.text("/proc/self/stat")
    head, _, tail = text.rpartition(b")")
    assert head == b"2 (a b) c"
    fields = tail.split()
    assert len(fields) == 50
    assert fields[:4] == [b"R", b"1", b"2", b"2"]


def test_status_names_the_credentials(guest: Guest) -> None:
    rows = dict(line.split(":\t", 1) for line in guest.text("/proc/self/status").decode().splitlines())
    assert rows["Uid"] == "1000\t1000\t1000\t1000"
    assert (rows["Pid"], rows["PPid"], rows["Threads"]) == ("2", "1", "1")
    assert rows["Umask"] == "0022"


def test_the_command_line_is_read_from_the_guests_memory(guest: Guest) -> None:
    guest.process.arguments = [b"a", b"b c"]
    assert guest.text("/proc/self/cmdline") == b"a\0b c\0"
    guest.task.write(BASE + 0x100, b"changed\0")
    guest.task.memory.arg_start, guest.task.memory.arg_end = BASE + 0x100, BASE + 0x108
    assert guest.text("/proc/self/cmdline") == b"changed\0"


def test_the_name_can_be_set(guest: Guest) -> None:
    fd = guest.open("/proc/self/comm", os.O_RDWR)
    guest.task.write(BUFFER, b"a-very-long-name-indeed\n")
    assert guest.call("write", fd, BUFFER, 24) == 24
    assert guest.task.name == b"a-very-long-nam"
    assert guest.text("/proc/2/task/2/comm") == b"a-very-long-nam\n"
    assert guest.open("/proc/self/stat", os.O_WRONLY) == -errno.EACCES


def test_descriptors_are_listed(guest: Guest) -> None:
    first = guest.open("/dev/null")
    assert str(first) in guest.names("/proc/self/fd")
    facts = guest.text(f"/proc/self/fdinfo/{first}").decode()
    assert "flags:\t0100000" in facts


def test_the_host_name_is_the_machines(guest: Guest) -> None:
    guest.kernel.hostname = "box"
    assert guest.text("/proc/sys/kernel/hostname") == b"box\n"
    assert b"box" in guest.text("/proc/version")


def test_limits_and_small_facts(guest: Guest) -> None:
    assert b"Max open files            1024                 4096                 files" in guest.text(
        "/proc/self/limits"
    )
    assert guest.text("/proc/self/cgroup") == b"0::/\n"
    assert len(guest.text("/proc/sys/kernel/random/uuid")) == 37
    assert guest.text("/proc/sys/kernel/random/boot_id") == guest.text("/proc/sys/kernel/random/boot_id")
    assert guest.text("/proc/loadavg").count(b" ") == 4


def test_a_text_read_in_parts_fits_together(guest: Guest) -> None:
    fd = guest.open("/proc/self/status")
    assert guest.call("read", fd, BUFFER, 10) == 10
    guest.task.name = b"other"
    rest = guest.call("read", fd, BUFFER + 10, 4096)
    assert rest is not None
    assert b"other" not in guest.task.read(BUFFER, rest + 10)
    assert guest.call("lseek", fd, 0, os.SEEK_SET) == 0
    assert guest.call("read", fd, BUFFER, 11) == 11
    assert guest.task.read(BUFFER, 11) == b"Name:\tother"


def test_every_node_says_what_it_is(guest: Guest) -> None:
    """Whatever is listed can be looked up, has a status, and reads or refuses with an OSError."""
    seen = 0

    def visit(directory: Directory) -> None:
        nonlocal seen
        for name, inode, kind in directory.rows(guest.task)[2:]:
            node = directory.lookup(guest.task, name)
            assert isinstance(node, Node), f"{directory.path}/{name}"
            status = node.status(7)
            assert (status.st_ino, stat.S_IFMT(status.st_mode) >> 12) == (inode, kind)
            seen += 1
            if isinstance(node, Directory):
                visit(node)
            elif isinstance(node, Text):
                assert isinstance(node.produce(), bytes)

    visit(ROOT)
    assert seen > 100


def test_mount_options_name_nothing_of_the_host() -> None:
    assert system_files.plain_options(b"rw,lowerdir=/secret,relatime,upperdir=/x") == b"rw,relatime"


def test_a_zombie_is_still_shown(guest: Guest) -> None:
    guest.process.tasks.clear()
    guest.process.exit_status = 256
    assert process_contents.stat(guest.process, None, 2).split()[2] == b"Z"
    assert b"State:\tZ (zombie)" in process_contents.status(guest.process, None, 2)


row = st.tuples(st.text("abcü", min_size=1, max_size=40), st.integers(1, 2**63), st.integers(0, 14))


@given(st.lists(row, max_size=20), st.integers(80, 400))
def test_directory_records_come_back_in_any_portions(rows: list[tuple[str, int, int]], count: int) -> None:
    at = 0
    found = []
    while at < len(rows):
        packed, following = pack_records(rows, at, count)
        assert at < following
        assert len(packed) <= count
        position = 0
        while position < len(packed):
            inode, offset, length, kind = struct.unpack_from("<QqHB", packed, position)
            assert length % 8 == 0
            name = packed[position + 19 : position + length].split(b"\0")[0].decode()
            found.append((name, inode, kind))
            position += length
        assert offset == following
        at = following
    assert found == rows
