"""Resource limits: the guest's table, and what follows it on the host."""

import errno
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.linux.fake import BASE, FakeMachine, context_of
from virtus.personalities.linux import limits_calls
from virtus.personalities.linux.task import Credentials

NEW, OLD = BASE, BASE + 16
AS, NOFILE, CORE = 9, 7, 4


@pytest.fixture
def machine() -> Iterator[FakeMachine]:
    made = FakeMachine("limits_calls")
    yield made
    made.close()


def limit(machine: FakeMachine, number: int) -> tuple[int, int]:
    assert machine.call("getrlimit", number, OLD) == 0
    soft, hard = struct.unpack("<QQ", machine.task.read(OLD, 16))
    return soft, hard


def test_setting_and_reading_back(machine: FakeMachine) -> None:
    machine.store(struct.pack("<QQ", 100, 200), NEW)
    assert machine.call("setrlimit", NOFILE, NEW) == 0
    assert limit(machine, NOFILE) == (100, 200)
    assert machine.call("prlimit64", 0, NOFILE, 0, OLD) == 0
    assert struct.unpack("<QQ", machine.task.read(OLD, 16)) == (100, 200)


def test_what_is_refused(machine: FakeMachine) -> None:
    machine.store(struct.pack("<QQ", 300, 200), NEW)
    assert machine.call("setrlimit", NOFILE, NEW) == -errno.EINVAL
    assert machine.call("setrlimit", 16, NEW) == -errno.EINVAL
    machine.store(struct.pack("<QQ", 1, 5000), NEW)
    assert machine.call("setrlimit", NOFILE, NEW) == -errno.EPERM
    assert machine.call("prlimit64", 4711, NOFILE, 0, OLD) == -errno.ESRCH
    assert limit(machine, NOFILE) == (1024, 4096)


def test_root_may_raise(machine: FakeMachine) -> None:
    machine.task.credentials = Credentials(0, 0, ())
    machine.store(struct.pack("<QQ", 1, 5000), NEW)
    assert machine.call("setrlimit", NOFILE, NEW) == 0
    machine.store(struct.pack("<QQ", 1, limits_calls.NR_OPEN + 1), NEW)
    assert machine.call("setrlimit", NOFILE, NEW) == -errno.EPERM


def test_children_inherit(machine: FakeMachine) -> None:
    machine.store(struct.pack("<QQ", 0, 0), NEW)
    assert machine.call("setrlimit", CORE, NEW) == 0
    child = machine.fork()
    assert child.process.limits[CORE] == (0, 0)


def test_the_first_process_has_the_callers_limits() -> None:
    limits = limits_calls.initial_limits()
    assert sorted(limits) == list(range(16))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limits[NOFILE] == (soft & 2**64 - 1, hard & 2**64 - 1)
    assert all(0 <= soft <= hard for soft, hard in limits.values())


def test_the_host_keeps_what_only_it_can_count(machine: FakeMachine) -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as stub:
        context_of(machine.task).ident = stub.pid
        machine.kernel.attach(machine.task, machine.task.context)
        machine.store(struct.pack("<QQ", 1 << 40, 1 << 41), NEW)
        assert machine.call("setrlimit", AS, NEW) == 0
        assert resource.prlimit(stub.pid, resource.RLIMIT_AS) == (1 << 40, 1 << 41)
        before = resource.prlimit(stub.pid, resource.RLIMIT_NOFILE)
        machine.store(struct.pack("<QQ", 3, 3), NEW)
        assert machine.call("setrlimit", NOFILE, NEW) == 0
        assert resource.prlimit(stub.pid, resource.RLIMIT_NOFILE) == before  # descriptors are the kernel's own
        stub.communicate(os.linesep.encode())


def test_limits_follow_to_a_fresh_stub(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "prlimit", lambda pid, number, pair: asked.append((number, pair[0])))
    monkeypatch.setattr(limits_calls, "_host", dict.fromkeys(limits_calls.ON_THE_HOST, (2**64 - 1, 2**64 - 1)))
    limits_calls.enforce_on_fresh(machine.task)
    assert asked == []
    machine.process.limits[AS] = (5, 6)
    limits_calls.enforce_on_fresh(machine.task)
    assert asked == [(AS, 5)]
