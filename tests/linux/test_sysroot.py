"""Libraries of a foreign processor: looked up in the sysroot first, and only looked up."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.linux.fake import BASE
from tests.linux.riscv64 import RiscvMachine
from virtus.personalities.linux import paths
from virtus.personalities.linux.sysroot import redirected

LIBRARY, ONLY_HERE = b"/lib/libfor-this-test.so.1", b"/lib64/ld-for-this-test.so"
O_RDWR, O_CREAT = 2, 0o100
NAME, BUFFER = BASE, BASE + 0x1000


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[RiscvMachine]:
    made = RiscvMachine("metadata_calls", "path_calls", "file_calls")
    for name in (LIBRARY, ONLY_HERE, b"/etc/ld.so.conf", b"/etc/passwd", b"/library"):
        file = Path(str(tmp_path) + os.fsdecode(name))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"of the sysroot")
    Path(tmp_path, "lib", "link").symlink_to("libfor-this-test.so.1")
    made.kernel.sysroots = ("/nowhere", str(tmp_path))
    made.task.credentials = made.task.credentials.changed(uid=os.getuid(), fsuid=os.geteuid(), fsgid=os.getegid())
    yield made
    made.close()


def call(machine: RiscvMachine, name: str, path: bytes, *arguments: int) -> int:
    result = machine.call(name, -100, machine.store(path + b"\0", NAME), *arguments)
    assert result is not None
    return result


def test_looking_finds_the_sysroot_s(machine: RiscvMachine) -> None:
    for path in (LIBRARY, ONLY_HERE, b"/etc/ld.so.conf"):
        assert call(machine, "newfstatat", path, BUFFER, 0) == 0
        assert struct.unpack_from("<q", machine.task.read(BUFFER, 128), 48)[0] == 14
        assert call(machine, "statx", path, 0, 0x7FF, BUFFER) == 0
        assert call(machine, "faccessat", path, 4) == 0
        fd = call(machine, "openat", path, 0, 0)
        assert machine.call("read", fd, BUFFER, 64) == 14
    assert call(machine, "readlinkat", b"/lib/link", BUFFER, 64) == 21
    os.close(paths.open_host(machine.task, os.fsdecode(LIBRARY), os.O_RDONLY))


def test_what_is_not_there_is_the_guest_s_own(machine: RiscvMachine, tmp_path: Path) -> None:
    assert call(machine, "faccessat", b"/lib/libnowhere.so", 0) == -2
    assert redirected(machine.task, b"/etc/passwd") == b"/etc/passwd"
    assert redirected(machine.task, b"/library") == b"/library"
    assert redirected(machine.task, LIBRARY) == os.fsencode(tmp_path) + LIBRARY
    machine.kernel.sysroots = ()
    assert call(machine, "faccessat", LIBRARY, 0) == -2


def test_changing_does_not_reach_it(machine: RiscvMachine, tmp_path: Path) -> None:
    assert call(machine, "unlinkat", LIBRARY, 0) == -2
    assert call(machine, "openat", LIBRARY, O_RDWR, 0) == -2
    assert call(machine, "fchmodat", LIBRARY, 0) == -2
    assert Path(str(tmp_path) + os.fsdecode(LIBRARY)).read_bytes() == b"of the sysroot"


def test_a_changed_root_has_no_sysroot(machine: RiscvMachine, tmp_path: Path) -> None:
    machine.task.place.root = str(tmp_path)
    assert redirected(machine.task, LIBRARY) == LIBRARY
