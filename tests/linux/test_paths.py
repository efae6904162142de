"""Paths: what the host resolves, what is walked here, and that both say the same."""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.linux.fake import BASE, FakeMachine
from virtus.personalities.linux import paths
from virtus.personalities.linux.proc.tree import Node

BUFFER = BASE + 0x4000
SECOND = BASE + 0x2000


class Guest(FakeMachine):
    """A machine that talks of paths."""

    def path(self, name: str | Path, at: int = BASE) -> int:
        self.task.write(at, os.fsencode(name) + b"\0")
        return at

    def on(self, call: str, name: str | Path, *arguments: int) -> int | None:
        return self.call(call, self.path(name), *arguments)

    def link_text(self, name: str | Path) -> str:
        size = self.on("readlink", name, BUFFER, 4096)
        assert size is not None
        assert size > 0, errno.errorcode[-size]
        return os.fsdecode(self.task.read(BUFFER, size))

    def cwd(self) -> str:
        size = self.call("getcwd", BUFFER, 4096)
        assert size is not None
        assert size > 0, errno.errorcode[-size]
        return os.fsdecode(self.task.read(BUFFER, size - 1))

    def text(self, name: str | Path) -> bytes:
        fd = self.on("open", name, os.O_RDONLY, 0)
        assert fd is not None
        assert fd >= 0, errno.errorcode[-fd]
        size = self.call("read", fd, BUFFER, 65536)
        assert size is not None
        self.call("close", fd)
        return self.task.read(BUFFER, size)


@pytest.fixture
def guest() -> Iterator[Guest]:
    machine = Guest("file_calls", "path_calls", "metadata_calls", "pipes")
    yield machine
    machine.task.descriptors.close_all(machine.task)
    machine.close()
    os.chdir("/")
    os.umask(0o022)


def test_making_naming_and_removing(guest: Guest, tmp_path: Path) -> None:
    assert guest.on("mkdir", tmp_path / "d", 0o755) == 0
    assert guest.on("mkdir", tmp_path / "d", 0o755) == -errno.EEXIST
    assert guest.call("symlink", guest.path("d", SECOND), guest.path(tmp_path / "l")) == 0
    assert guest.link_text(tmp_path / "l") == "d"
    assert guest.on("readlink", tmp_path / "d", BUFFER, 100) == -errno.EINVAL
    (tmp_path / "f").touch()
    assert guest.call("link", guest.path(tmp_path / "f"), guest.path(tmp_path / "g", SECOND)) == 0
    assert (tmp_path / "f").stat().st_nlink == 2
    assert guest.call("rename", guest.path(tmp_path / "g"), guest.path(tmp_path / "d" / "h", SECOND)) == 0
    assert guest.on("rmdir", tmp_path / "d") == -errno.ENOTEMPTY
    assert guest.on("unlink", tmp_path / "d" / "h") == 0
    assert guest.on("rmdir", tmp_path / "d") == 0
    assert guest.on("unlink", tmp_path / "nothing") == -errno.ENOENT
    assert guest.on("unlink", "") == -errno.ENOENT


def test_a_short_buffer_gets_a_shortened_link(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("0123456789")
    assert guest.on("readlink", tmp_path / "l", BUFFER, 4) == 4
    assert guest.task.read(BUFFER, 4) == b"0123"
    assert guest.on("readlink", tmp_path / "l", BUFFER, 0) == -errno.EINVAL


def test_relative_paths_start_where_the_task_is(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert guest.on("chdir", tmp_path / "a") == 0
    assert guest.cwd() == str(tmp_path / "a")
    assert guest.on("mkdir", "c", 0o755) == 0
    assert (tmp_path / "a" / "c").is_dir()
    fd = guest.on("open", "b", os.O_RDONLY | os.O_DIRECTORY, 0)
    assert fd is not None
    assert guest.call("mkdirat", fd, guest.path("d"), 0o755) == 0
    assert guest.call("fchdir", fd) == 0
    assert guest.cwd() == str(tmp_path / "a" / "b")
    assert guest.call("openat", 99, guest.path("x"), 0, 0) == -errno.EBADF
    assert guest.call("getcwd", BUFFER, 3) == -errno.ERANGE


def test_the_umask_is_the_tasks(guest: Guest, tmp_path: Path) -> None:
    assert guest.call("umask", 0o077) == 0o022
    assert guest.on("mkdir", tmp_path / "d", 0o777) == 0
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700


def test_proc_self_is_the_reader(guest: Guest) -> None:
    assert guest.link_text("/proc/self") == "2"
    assert guest.text("/proc/self/comm") == b"\n"
    assert guest.text("/proc/./self/../self/comm") == b"\n"
    assert guest.on("open", "/proc/self/nothing", 0, 0) == -errno.ENOENT
    assert guest.on("open", "/proc/self/comm/below", 0, 0) == -errno.ENOTDIR
    assert guest.on("unlink", "/proc/self/comm") == -errno.EPERM


def test_the_walk_follows_links_into_proc(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "p").symlink_to("/proc")
    (tmp_path / "l").symlink_to("p/self/comm")
    found = paths.walk(guest.task, -100, os.fsencode(tmp_path / "l"), follow=True)
    assert isinstance(found, Node)
    assert found.path == "/proc/2/comm"
    with pytest.raises(FileNotFoundError):
        paths.walk(guest.task, -100, os.fsencode(tmp_path / "p" / "1234"), follow=True)


def test_open_descriptors_lead_to_their_files(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    fd = guest.on("open", tmp_path / "f", os.O_RDONLY, 0)
    assert guest.link_text(f"/proc/self/fd/{fd}") == str(tmp_path / "f")
    assert guest.text(f"/proc/thread-self/fd/{fd}") == b"content"
    (tmp_path / "f").unlink()
    assert guest.text(f"/proc/2/fd/{fd}") == b"content"
    assert guest.link_text(f"/proc/self/fd/{fd}") == f"{tmp_path / 'f'} (deleted)"
    assert guest.on("stat", f"/proc/self/fd/{fd}", BUFFER) == 0
    assert guest.on("readlink", "/proc/self/fd/99", BUFFER, 10) == -errno.ENOENT
    assert guest.on("readlink", "/proc/self/fd/0" + str(fd), BUFFER, 10) == -errno.ENOENT


def test_a_nameless_file_gets_a_name_through_proc(guest: Guest, tmp_path: Path) -> None:
    fd = guest.on("open", tmp_path, os.O_TMPFILE | os.O_RDWR, 0o600)
    assert fd is not None
    assert fd >= 0
    old = guest.path(f"/proc/self/fd/{fd}")
    assert guest.call("linkat", -100, old, -100, guest.path(tmp_path / "named", SECOND), 0x400) == 0
    assert (tmp_path / "named").exists()
    assert guest.call("linkat", -100, guest.path("/proc/self/comm"), -100, SECOND, 0) == -errno.EPERM


def test_directories_are_gone_through_by_magic_links(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"here")
    assert guest.on("chdir", tmp_path) == 0
    assert guest.text("/proc/self/cwd/f") == b"here"
    assert guest.text(f"/proc/self/root{tmp_path}/f") == b"here"
    assert guest.link_text("/proc/self/cwd") == str(tmp_path)


def test_a_task_can_be_inside_proc(guest: Guest) -> None:
    assert guest.on("chdir", "/proc/self") == 0
    assert guest.cwd() == "/proc/2"
    assert guest.text("comm") == b"\n"
    assert guest.text("../self/comm") == b"\n"
    assert guest.on("open", "../../dev/null", 0, 0) == 0
    assert guest.on("chdir", "..") == 0
    assert guest.cwd() == "/proc"
    assert guest.on("chdir", "..") == 0
    assert guest.cwd() == "/"
    assert guest.on("chdir", "/proc/self/comm") == -errno.ENOTDIR


def test_proc_directories_serve_as_places(guest: Guest) -> None:
    fd = guest.on("open", "/proc/self", os.O_RDONLY | os.O_DIRECTORY, 0)
    assert fd is not None
    inner = guest.call("openat", fd, guest.path("comm"), os.O_RDONLY, 0)
    assert inner is not None
    assert inner > 0
    assert guest.call("newfstatat", fd, guest.path("status"), BUFFER, 0) == 0
    assert guest.call("fchdir", fd) == 0
    assert guest.cwd() == "/proc/2"


def test_a_changed_root_cannot_be_left(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").write_bytes(b"inside")
    (tmp_path / "f").write_bytes(b"outside")
    (tmp_path / "in" / "up").symlink_to("../../f")
    (tmp_path / "in" / "absolute").symlink_to("/f")
    guest.task.credentials = guest.task.credentials.changed(euid=0, fsuid=0)
    assert guest.on("chroot", tmp_path / "in") == 0
    assert guest.on("chdir", "/") == 0
    assert guest.cwd() == "/"
    for name in ("/f", "f", "../f", "/../../f", "absolute", "/absolute"):
        assert guest.text(name) == b"inside", name
    assert guest.on("open", "up", 0, 0) in (0, -errno.ENOENT)
    assert guest.on("open", str(tmp_path / "f"), 0, 0) == -errno.ENOENT
    assert guest.on("open", "/proc/self/comm", 0, 0) == -errno.ENOENT


def test_only_the_superuser_changes_the_root(guest: Guest, tmp_path: Path) -> None:
    assert guest.on("chroot", tmp_path) == -errno.EPERM
    assert guest.on("chroot", "") == -errno.ENOENT


def test_links_without_end(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert guest.on("open", tmp_path / "a", 0, 0) == -errno.ELOOP
    with pytest.raises(OSError) as raised:
        paths.walk(guest.task, -100, os.fsencode(tmp_path / "a"), follow=True)
    assert raised.value.errno == errno.ELOOP


def test_times_and_permissions(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    guest.task.write(BUFFER, struct.pack("<qqqq", 1, 5, 2, 6))
    assert guest.call("utimensat", -100, guest.path(tmp_path / "f"), BUFFER, 0) == 0
    assert (tmp_path / "f").stat().st_mtime_ns == 2 * 10**9 + 6
    guest.task.write(BUFFER, struct.pack("<qqqq", 1, 5, 2, 6))
    assert guest.on("utimes", tmp_path / "f", BUFFER) == 0
    assert (tmp_path / "f").stat().st_mtime_ns == 2 * 10**9 + 6000
    guest.task.write(BUFFER, struct.pack("<qqqq", 1, 10**6, 2, 6))
    assert guest.on("utimes", tmp_path / "f", BUFFER) == -errno.EINVAL
    assert guest.on("chmod", tmp_path / "f", 0o604) == 0
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o604
    assert guest.on("truncate", tmp_path / "f", 7) == 0
    assert (tmp_path / "f").stat().st_size == 7
    assert guest.on("access", tmp_path / "f", 8) == -errno.EINVAL
    assert guest.on("access", tmp_path / "g", 0) == -errno.ENOENT


def test_openat2_keeps_beneath(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    fd = guest.on("open", tmp_path / "d", os.O_PATH, 0)
    assert fd is not None
    guest.task.write(BUFFER, struct.pack("<QQQ", 0, 0, 8))  # RESOLVE_BENEATH
    assert guest.call("openat2", fd, guest.path("../f"), BUFFER, 24) == -errno.EXDEV
    guest.task.write(BUFFER, struct.pack("<QQQ", 0, 0, 0))
    assert (guest.call("openat2", fd, guest.path("../f"), BUFFER, 24) or 0) > 0
    assert guest.call("openat2", fd, guest.path("../f"), BUFFER, 16) == -errno.EINVAL


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree")
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "f").write_bytes(b"f")
    (top / "l").symlink_to("d")
    (top / "up").symlink_to("d/e/../../d")
    (top / "d" / "m").symlink_to("../l/f")
    (top / "gone").symlink_to("d/nothing")
    return top


names = st.sampled_from(["d", "e", "f", "l", "m", "up", "gone", "..", ".", "", "x"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(names, min_size=1, max_size=6), st.booleans())
def test_the_walk_agrees_with_the_host(guest: Guest, tree: Path, parts: list[str], follow: bool) -> None:
    path = os.fsencode(tree) + b"/d/e/../../" + "/".join(parts).encode()

    def identity(name: bytes) -> tuple[int, int] | int:
        try:
            status = os.stat(name, follow_symlinks=follow)
        except OSError as error:
            return error.errno or 0
        return status.st_dev, status.st_ino

    found: bytes | Node | int
    try:
        found = paths.walk(guest.task, -100, path, follow=follow)
    except OSError as error:
        found = error.errno or 0
    expected = identity(path)
    assert (identity(found) if isinstance(found, bytes) else found) == expected
