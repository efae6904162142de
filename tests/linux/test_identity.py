"""Who a task is: the rules of credentials(7), checked against what Linux documents."""

import errno
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linux.fake import BASE, FakeMachine
from virtus.personalities.linux import identity_calls
from virtus.personalities.linux.task import ALL_CAPABILITIES, Credentials

KEEP = 0xFFFFFFFF
A, B, C = BASE, BASE + 8, BASE + 16


@pytest.fixture
def machine() -> Iterator[FakeMachine]:
    made = FakeMachine("identity_calls")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def everybody_is_mapped(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """These tests are about the rules; which ids a namespace has is the host's to say."""
    if "real_map" not in request.fixturenames:
        monkeypatch.setattr(identity_calls, "_mapped", lambda task, name, number: number < 100_000)
        monkeypatch.setattr(identity_calls, "_groups_allowed", lambda task: True)


@pytest.fixture
def real_map() -> None:
    """Asks for the host's own map."""


@pytest.fixture
def root(machine: FakeMachine) -> FakeMachine:
    machine.task.credentials = Credentials(0, 0, (0, 4))
    return machine


def ids(machine: FakeMachine) -> tuple[int, int, int, int]:
    mine = machine.task.credentials
    return mine.uid, mine.euid, mine.suid, mine.fsuid


def test_ordinary_ids(machine: FakeMachine) -> None:
    assert [machine.call(name) for name in ("getuid", "geteuid", "getgid", "getegid")] == [1000] * 4
    assert machine.call("getresuid", A, B, C) == 0
    assert struct.unpack("<I4xI4xI", machine.task.read(A, 20)) == (1000, 1000, 1000)


def test_an_ordinary_user_stays_what_it_is(machine: FakeMachine) -> None:
    assert machine.call("setuid", 0) == -errno.EPERM
    assert machine.call("setuid", 1000) == 0
    assert machine.call("setresuid", 1000, 1001, KEEP) == -errno.EPERM
    assert machine.call("setreuid", KEEP, KEEP) == 0
    assert machine.call("setgid", 0) == -errno.EPERM
    assert machine.call("setgroups", 0, 0) == -errno.EPERM
    assert machine.call("setfsuid", 5) == 1000
    assert ids(machine) == (1000, 1000, 1000, 1000)


def test_unmapped_ids_are_invalid_before_they_are_forbidden(machine: FakeMachine) -> None:
    assert machine.call("setuid", 100_000) == -errno.EINVAL
    assert machine.call("setresgid", 100_000, KEEP, KEEP) == -errno.EINVAL


def test_root_becomes_somebody_for_good(root: FakeMachine) -> None:
    assert root.call("setuid", 1000) == 0
    assert ids(root) == (1000, 1000, 1000, 1000)
    assert root.task.credentials.permitted == root.task.credentials.effective == 0
    assert root.call("setuid", 0) == -errno.EPERM


def test_root_lends_its_rights_and_takes_them_back(root: FakeMachine) -> None:
    assert root.call("setresuid", KEEP, 1000, KEEP) == 0
    assert ids(root) == (0, 1000, 0, 1000)
    assert root.process.dumpable == 0
    assert root.task.credentials.effective == 0
    assert root.task.credentials.permitted == ALL_CAPABILITIES
    assert root.call("setreuid", 1000, 0) == 0
    assert root.task.credentials.effective == ALL_CAPABILITIES


def test_setreuid_saves_the_effective_id(root: FakeMachine) -> None:
    assert root.call("setreuid", 1000, 1001) == 0
    assert ids(root) == (1000, 1001, 1001, 1001)
    assert root.call("setreuid", 1001, 1000) == 0  # swapping is what it is for


@given(st.tuples(*[st.sampled_from([0, 1, 2, 3, KEEP])] * 3), st.tuples(*[st.sampled_from([1, 2, 3])] * 3))
def test_without_capability_setresuid_only_permutes(wanted: tuple[int, int, int], mine: tuple[int, int, int]) -> None:
    if all(each == KEEP or each in mine for each in wanted):
        assert set(identity_calls._res(wanted, mine, False)) <= set(mine)
    else:
        with pytest.raises(PermissionError):
            identity_calls._res(wanted, mine, False)


def test_groups(root: FakeMachine) -> None:
    assert root.call("getgroups", 0, 0) == 2
    assert root.call("getgroups", 1, A) == -errno.EINVAL
    root.store(struct.pack("<3I", 9, 5, 7))
    assert root.call("setgroups", 3, BASE) == 0
    assert root.call("getgroups", 3, A) == 3
    assert struct.unpack("<3I", root.task.read(A, 12)) == (5, 7, 9)
    assert root.call("setgroups", 70_000, BASE) == -errno.EINVAL


def test_capabilities_can_only_be_given_up(root: FakeMachine) -> None:
    root.store(struct.pack("<Ii", 0x20080522, 0), A)
    assert root.call("capget", A, B) == 0
    effective, permitted, inheritable, high, _, _ = struct.unpack("<6I", root.task.read(B, 24))
    assert effective == permitted == 0xFFFFFFFF
    assert inheritable == 0
    assert high == 0x1FF
    root.store(struct.pack("<6I", 1, 3, 0, 0, 0, 0), B)
    assert root.call("capset", A, B) == 0
    assert (root.task.credentials.effective, root.task.credentials.permitted) == (1, 3)
    root.store(struct.pack("<6I", 7, 7, 0, 0, 0, 0), B)
    assert root.call("capset", A, B) == -errno.EPERM


def test_an_unknown_capability_version_is_told_the_newest(machine: FakeMachine) -> None:
    machine.store(struct.pack("<Ii", 1, 0), A)
    assert machine.call("capget", A, 0) == 0
    assert struct.unpack("<I", machine.task.read(A, 4))[0] == 0x20080522
    machine.store(struct.pack("<Ii", 1, 0), A)
    assert machine.call("capset", A, B) == -errno.EINVAL


def test_exec_settles_the_identity() -> None:
    lent = Credentials(0, 0, ()).changed(euid=1000, fsuid=1000, effective=0)
    after = identity_calls.after_exec(lent)
    assert (after.suid, after.effective) == (1000, 0)
    assert identity_calls.after_exec(Credentials(0, 0, ()).changed(effective=0)).effective == ALL_CAPABILITIES


def test_names(root: FakeMachine) -> None:
    root.store(b"inside")
    assert root.call("sethostname", BASE, 6) == 0
    assert root.call("sethostname", BASE, 65) == -errno.EINVAL
    assert root.call("uname", BASE + 256) == 0
    fields = [root.task.read(BASE + 256 + 65 * at, 65).rstrip(b"\0") for at in range(6)]
    assert fields[:3] == [b"Linux", b"inside", os.uname().release.encode()]
    assert fields[4:] == [b"x86_64", b"(none)"]


def test_an_ordinary_user_names_nothing(machine: FakeMachine) -> None:
    assert machine.call("sethostname", BASE, 6) == -errno.EPERM
    assert machine.kernel.hostname == "virtus"


def test_personality_is_kept(machine: FakeMachine) -> None:
    assert machine.call("personality", 0x0040000) == 0
    assert machine.call("personality", KEEP) == 0x0040000
    assert machine.call("personality", 8) == -errno.EINVAL
    child = machine.fork()
    assert machine.call("personality", KEEP, task=child) == 0x0040000


def test_sysinfo_counts_our_own_threads(machine: FakeMachine) -> None:
    assert machine.call("sysinfo", BASE) == 0
    fields = identity_calls.SYSINFO.unpack(machine.task.read(BASE, identity_calls.SYSINFO.size))
    assert identity_calls.SYSINFO.size == 112
    assert fields[identity_calls.SYSINFO_PROCESSES] == 2
    assert fields[-1] in (1, 4096)
    assert 0 < fields[5] <= fields[4]


@pytest.mark.parametrize("count", [0, 1, 256, 70_000])
def test_getrandom(machine: FakeMachine, count: int) -> None:
    assert machine.call("getrandom", BASE, count, 0) == count
    assert machine.call("getrandom", BASE, count, 8) == -errno.EINVAL
    if count > 8:
        assert machine.task.read(BASE, count) != bytes(count)


def test_the_hosts_own_map_is_asked(machine: FakeMachine, real_map: None) -> None:
    assert identity_calls._mapped(machine.task, "uid_map", os.getuid())
    assert not identity_calls._mapped(machine.task, "uid_map", KEEP)
