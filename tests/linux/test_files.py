"""Open files through the calls a guest makes, on a kernel without a host's stubs."""

import errno
import gc
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.linux.fake import BASE, FakeMachine

BUFFER = BASE + 0x4000
SECOND = BASE + 0x8000


class Guest(FakeMachine):
    """A machine that talks of paths and bytes."""

    def path(self, name: str | Path, at: int = BASE) -> int:
        self.task.write(at, os.fsencode(name) + b"\0")
        return at

    def open(self, name: str | Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        result = self.call("open", self.path(name), flags, mode)
        assert result is not None
        return result

    def read(self, fd: int, count: int) -> bytes:
        result = self.call("read", fd, BUFFER, count)
        assert result is not None
        assert result >= 0, errno.errorcode[-result]
        return self.task.read(BUFFER, result)

    def write(self, fd: int, data: bytes) -> int | None:
        self.task.write(BUFFER, data)
        return self.call("write", fd, BUFFER, len(data))


@pytest.fixture
def guest() -> Iterator[Guest]:
    machine = Guest("file_calls", "path_calls", "metadata_calls", "pipes")
    yield machine
    machine.task.descriptors.close_all(machine.task)
    machine.close()
    os.chdir("/")


def test_a_written_file_reads_back(guest: Guest, tmp_path: Path) -> None:
    fd = guest.open(tmp_path / "new", os.O_RDWR | os.O_CREAT)
    assert guest.write(fd, b"hello") == 5
    assert guest.call("lseek", fd, 1, os.SEEK_SET) == 1
    assert guest.read(fd, 100) == b"ello"
    assert guest.read(fd, 100) == b""
    assert guest.call("close", fd) == 0
    assert guest.call("close", fd) == -errno.EBADF
    assert (tmp_path / "new").read_bytes() == b"hello"


def test_the_access_mode_is_kept_to(guest: Guest, tmp_path: Path) -> None:
    reading = guest.open(tmp_path / "f", os.O_RDONLY | os.O_CREAT)
    writing = guest.open(tmp_path / "f", os.O_WRONLY)
    assert guest.write(reading, b"x") == -errno.EBADF
    assert guest.call("read", writing, BUFFER, 1) == -errno.EBADF
    place = guest.open(tmp_path / "f", os.O_PATH)
    assert guest.call("read", place, BUFFER, 1) == -errno.EBADF
    assert guest.call("fchmod", place, 0o600) == -errno.EBADF
    assert guest.call("fstat", place, BUFFER) == 0


def test_positioned_and_vectored_transfers(guest: Guest, tmp_path: Path) -> None:
    fd = guest.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    guest.task.write(BUFFER, b"abcdef")
    guest.task.write(SECOND, struct.pack("<QQQQ", BUFFER, 2, BUFFER + 4, 2))
    assert guest.call("writev", fd, SECOND, 2) == 4
    assert guest.call("pwrite64", fd, BUFFER, 2, 10) == 2
    assert (tmp_path / "f").read_bytes() == b"abef" + bytes(6) + b"ab"
    assert guest.call("pread64", fd, BUFFER, 3, 1) == 3
    assert guest.task.read(BUFFER, 3) == b"bef"
    guest.task.write(SECOND, struct.pack("<QQQQ", BUFFER, 1, BUFFER + 8, 3))
    assert guest.call("preadv", fd, SECOND, 2, 0, 0) == 4
    assert (guest.task.read(BUFFER, 1), guest.task.read(BUFFER + 8, 3)) == (b"a", b"bef")
    assert guest.call("readv", fd, SECOND, 1025) == -errno.EINVAL
    assert guest.call("pread64", fd, BUFFER, 1, -1) == -errno.EINVAL


def test_a_bad_address_does_not_move_the_position(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    fd = guest.open(tmp_path / "f")
    assert guest.call("read", fd, 8, 4) == -errno.EFAULT
    assert guest.read(fd, 10) == b"12345"
    assert guest.call("open", 8, 0, 0) == -errno.EFAULT


def test_large_reads_come_in_pieces(guest: Guest, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "f").write_bytes(data)
    fd = guest.open(tmp_path / "f")
    assert guest.call("read", fd, BUFFER, 1 << 40) == 100_000
    assert guest.task.read(BUFFER, 100_000) == data


def test_duplicates_share_the_position_and_not_the_flag(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    fd = guest.open(tmp_path / "f", os.O_RDONLY | os.O_CLOEXEC)
    other = guest.call("dup", fd)
    assert other is not None
    assert guest.read(fd, 2) == b"12"
    assert guest.read(other, 2) == b"34"
    assert (guest.call("fcntl", fd, 1, 0), guest.call("fcntl", other, 1, 0)) == (1, 0)
    assert guest.call("dup2", fd, fd) == fd
    assert guest.call("dup3", fd, fd, 0) == -errno.EINVAL
    assert guest.call("dup2", fd, 1024) == -errno.EBADF
    assert guest.call("dup3", fd, 77, os.O_CLOEXEC) == 77
    assert guest.call("fcntl", fd, 0, 100) == 100
    assert guest.call("close_range", 50, 0xFFFFFFFF, 0) == 0
    assert guest.call("close", 77) == -errno.EBADF
    assert guest.call("close", fd) == 0
    assert guest.read(other, 2) == b"5"


def test_dup2_onto_itself_through_another_descriptor_keeps_the_file_open(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"123")
    fd = guest.open(tmp_path / "f")
    assert guest.call("dup2", fd, 9) == 9
    assert guest.call("close", fd) == 0
    assert guest.call("dup2", 9, 9) == 9
    assert guest.read(9, 3) == b"123"


def test_status_flags(guest: Guest, tmp_path: Path) -> None:
    fd = guest.open(tmp_path / "f", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    assert guest.call("fcntl", fd, 3, 0) == os.O_RDWR | 0o100000
    assert guest.write(fd, b"abc") == 3
    assert guest.call("fcntl", fd, 4, os.O_APPEND | os.O_NONBLOCK) == 0
    assert guest.call("fcntl", fd, 3, 0) == os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | 0o100000
    assert guest.call("lseek", fd, 0, 0) == 0
    assert guest.write(fd, b"d") == 1
    assert (tmp_path / "f").read_bytes() == b"abcd"
    assert guest.call("fcntl", fd, 99, 0) == -errno.EINVAL


def test_status_of_files_is_the_hosts(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert guest.call("stat", guest.path(tmp_path / "f"), BUFFER) == 0
    expected = (tmp_path / "f").stat()
    device, inode, links, mode, uid, gid = struct.unpack("<QQQIII", guest.task.read(BUFFER, 36))
    assert (device, inode, links) == (expected.st_dev, expected.st_ino, 1)
    assert (mode, uid, gid) == (expected.st_mode, expected.st_uid, expected.st_gid)
    assert struct.unpack("<q", guest.task.read(BUFFER + 48, 8)) == (5,)
    assert guest.call("newfstatat", -100, guest.path(""), BUFFER, 0) == -errno.ENOENT
    assert guest.call("newfstatat", -100, guest.path(tmp_path), BUFFER, 0x8000) == -errno.EINVAL


def test_statx_agrees_with_stat(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert guest.call("statx", -100, guest.path(tmp_path / "f"), 0, 0x7FF, BUFFER) == 0
    mode = struct.unpack("<H", guest.task.read(BUFFER + 28, 2))[0]
    assert mode == (tmp_path / "f").stat().st_mode
    assert guest.call("statx", -100, guest.path("/proc/self/stat"), 0, 0x7FF, BUFFER) == 0
    assert stat.S_ISREG(struct.unpack("<H", guest.task.read(BUFFER + 28, 2))[0])


def test_directory_records_name_what_is_there(guest: Guest, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).touch()
    fd = guest.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    names: set[bytes] = set()
    while size := guest.call("getdents64", fd, BUFFER, 64):
        assert size > 0
        at = 0
        while at < size:
            length = struct.unpack("<H", guest.task.read(BUFFER + at + 16, 2))[0]
            names.add(guest.task.read(BUFFER + at + 19, length - 19).split(b"\0")[0])
            at += length
    assert names == {b".", b"..", b"one", b"two", b"three"}
    assert guest.call("getdents64", fd, BUFFER, 3) in (0, -errno.EINVAL)
    assert guest.call("read", fd, BUFFER, 3) == -errno.EISDIR


def test_old_directory_records_carry_the_type_last(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    fd = guest.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    size = guest.call("getdents", fd, BUFFER, 4096)
    assert size is not None
    found = {}
    at = 0
    while at < size:
        length = struct.unpack("<H", guest.task.read(BUFFER + at + 16, 2))[0]
        row = guest.task.read(BUFFER + at, length)
        found[row[18:].split(b"\0")[0]] = row[-1]
        at += length
    assert found == {b".": 4, b"..": 4, b"one": 8}


def test_sendfile_and_copy_file_range(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"0123456789")
    source = guest.open(tmp_path / "from")
    target = guest.open(tmp_path / "to", os.O_RDWR | os.O_CREAT)
    guest.task.write(SECOND, struct.pack("<q", 4))
    assert guest.call("sendfile", target, source, SECOND, 100) == 6
    assert struct.unpack("<q", guest.task.read(SECOND, 8)) == (10,)
    assert guest.call("sendfile", target, source, 0, 2) == 2
    assert guest.read(source, 1) == b"2"
    assert guest.call("copy_file_range", source, 0, target, 0, 3, 0) == 3
    assert (tmp_path / "to").read_bytes() == b"45678901345"


def test_splice_moves_between_pipe_and_file(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"0123456789")
    source = guest.open(tmp_path / "from")
    assert guest.call("pipe2", SECOND, 0) == 0
    read_end, write_end = struct.unpack("<ii", guest.task.read(SECOND, 8))
    assert guest.call("splice", source, 0, write_end, 0, 4, 0) == 4
    assert guest.read(read_end, 100) == b"0123"
    target = guest.open(tmp_path / "to", os.O_WRONLY | os.O_CREAT)
    assert guest.call("splice", source, 0, target, 0, 4, 0) == -errno.EINVAL
    assert guest.call("splice", read_end, 0, write_end, 0, 4, 2) in (-errno.EAGAIN, -errno.EINVAL)


def test_memfd_is_a_file_without_a_name(guest: Guest) -> None:
    fd = guest.call("memfd_create", guest.path("box"), 2)
    assert fd is not None
    assert guest.write(fd, b"data") == 4
    assert guest.call("ftruncate", fd, 2) == 0
    assert guest.call("fcntl", fd, 1033, 2) == 0  # F_SEAL_SHRINK
    assert guest.call("ftruncate", fd, 1) == -errno.EPERM
    assert guest.call("readlink", guest.path(f"/proc/self/fd/{fd}"), BUFFER, 100) == len("/memfd:box (deleted)")


def test_the_file_size_limit_signals(guest: Guest, tmp_path: Path) -> None:
    guest.process.limits[1] = (4, 4)
    guest.call("rt_sigprocmask", 0, 0, 0, 8)
    guest.task.blocked = 1 << 24  # SIGXFSZ stays pending
    fd = guest.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    assert guest.write(fd, b"123456") == 4
    assert guest.write(fd, b"56") == -errno.EFBIG
    assert guest.task.pending.bits == 1 << 24


def test_devices(guest: Guest) -> None:
    null = guest.open("/dev/null", os.O_RDWR)
    assert guest.write(null, b"away") == 4
    assert guest.read(null, 10) == b""
    zero = guest.open("/dev/zero")
    assert guest.read(zero, 3) == bytes(3)
    full = guest.open("/dev/full", os.O_WRONLY)
    assert guest.write(full, b"x") == -errno.ENOSPC
    assert guest.call("ioctl", null, 0x5401, BUFFER) == -errno.ENOTTY


def test_a_fifo_waits_for_its_other_end(guest: Guest, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    assert guest.call("mknod", guest.path(fifo), stat.S_IFIFO | 0o600, 0) == 0
    assert guest.call("open", guest.path(fifo), os.O_WRONLY | os.O_NONBLOCK, 0) == -errno.ENXIO
    assert guest.call("open", guest.path(fifo), os.O_RDONLY, 0) is None
    assert guest.task.wait is not None
    child = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)  # its reader is open on the host by now
    os.close(child)


def test_a_fifo_of_one_process_opens_both_ways(guest: Guest, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    both = guest.open(tmp_path / "fifo", os.O_RDWR)
    writing = guest.open(tmp_path / "fifo", os.O_WRONLY)
    reading = guest.open(tmp_path / "fifo", os.O_RDONLY)
    assert min(both, writing, reading) >= 0
    assert guest.write(writing, b"through") == 7
    assert guest.read(reading, 100) == b"through"


def test_devices_cannot_be_made(guest: Guest, tmp_path: Path) -> None:
    assert guest.call("mknod", guest.path(tmp_path / "d"), stat.S_IFCHR | 0o600, os.makedev(1, 3)) == -errno.EPERM
    assert not (tmp_path / "d").exists()


def test_no_descriptor_is_lost_when_the_table_is_full(guest: Guest, tmp_path: Path) -> None:
    guest.process.limits[7] = (3, 3)
    for _ in range(3):
        assert guest.open(tmp_path) >= 0
    gc.collect()  # what other tests left may close descriptors at any time
    before = len(os.listdir("/proc/self/fd"))
    assert guest.call("open", guest.path(tmp_path), 0, 0) == -errno.EMFILE
    assert len(os.listdir("/proc/self/fd")) == before
