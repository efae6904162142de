"""Record locks: an independent model says what must hold, and the calls are made as a guest makes them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linux.fake import BASE, FakeContext, FakeMachine
from virtus.personalities.linux import locks
from virtus.personalities.linux.files import Descriptors
from virtus.personalities.linux.task import Process, Task

LOCK = BASE + 0x4000
SETLK, SETLKW, GETLK = 6, 7, 5
INODE = (0, 0)
SPAN = 24


class Two(FakeMachine):
    """A machine with two processes that have the same file open."""

    def __init__(self, path: Path) -> None:
        super().__init__("file_calls", "path_calls")
        process = Process(self.kernel, self.kernel.next_pid(), self.process)
        self.kernel.processes[process.pid] = process
        self.other = Task(self.kernel, process.pid, process, FakeContext())
        self.other.credentials, self.other.place = self.task.credentials, self.task.place
        self.other.descriptors = Descriptors()
        self.other.descriptors.sharers = 1
        process.limits = dict(self.process.limits)
        process.tasks[self.other.tid] = self.other
        self.kernel.attach(self.other, self.other.context)
        self.other.context.resume()
        for task in (self.task, self.other):
            task.write(BASE, os.fsencode(path) + b"\0")
            assert self.call("open", BASE, os.O_RDWR | os.O_CREAT, 0o600, task=task) == 0

    def lock(self, task: Task, command: int, kind: int, start: int, length: int) -> int | None:
        task.write(LOCK, locks.FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
        return self.call("fcntl", 0, command, LOCK, task=task)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    machine = Two(tmp_path / "file")
    yield machine
    for task in (machine.task, machine.other):
        task.descriptors.close_all(task)
    machine.close()
    assert not locks.held
    os.chdir("/")


def test_a_lock_keeps_others_out_and_says_who_holds_it(two: Two) -> None:
    assert two.lock(two.task, SETLK, locks.F_WRLCK, 10, 10) == 0
    assert two.lock(two.other, SETLK, locks.F_RDLCK, 19, 1) == -errno.EAGAIN
    assert two.lock(two.other, SETLK, locks.F_RDLCK, 20, 1) == 0
    assert two.lock(two.other, GETLK, locks.F_RDLCK, 0, 0) == 0
    assert locks.FLOCK.unpack(two.other.read(LOCK, 32)) == (locks.F_WRLCK, 0, 10, 10, two.task.process.pid)


def test_a_waiter_goes_on_when_the_lock_is_given_back(two: Two) -> None:
    assert two.lock(two.task, SETLK, locks.F_WRLCK, 0, 0) == 0
    assert two.lock(two.other, SETLKW, locks.F_WRLCK, 5, 1) is None
    assert two.other.wait is not None
    assert two.lock(two.task, SETLK, locks.F_UNLCK, 0, 0) == 0
    assert two.other.wait is None
    assert [lock.pid for lock in next(iter(locks.held.values()))] == [two.other.process.pid]


def test_waiting_in_a_circle_is_refused(two: Two) -> None:
    assert two.lock(two.task, SETLK, locks.F_WRLCK, 0, 1) == 0
    assert two.lock(two.other, SETLK, locks.F_WRLCK, 1, 1) == 0
    assert two.lock(two.other, SETLKW, locks.F_WRLCK, 0, 1) is None
    assert two.lock(two.task, SETLKW, locks.F_WRLCK, 1, 1) == -errno.EDEADLK


def test_closing_any_descriptor_of_the_file_ends_the_locks(two: Two) -> None:
    assert two.lock(two.task, SETLK, locks.F_WRLCK, 0, 0) == 0
    assert two.call("open", BASE, os.O_RDONLY, 0) == 1
    assert two.call("close", 1) == 0
    assert two.lock(two.other, SETLK, locks.F_WRLCK, 0, 0) == 0


def test_the_access_mode_limits_the_kind(two: Two) -> None:
    assert two.call("open", BASE, os.O_RDONLY, 0) == 1
    two.task.write(LOCK, locks.FLOCK.pack(locks.F_WRLCK, 0, 0, 0, 0))
    assert two.call("fcntl", 1, SETLK, LOCK) == -errno.EBADF
    two.task.write(LOCK, locks.FLOCK.pack(7, 0, 0, 0, 0))
    assert two.call("fcntl", 1, SETLK, LOCK) == -errno.EINVAL


def test_flock_belongs_to_the_description(two: Two) -> None:
    exclusive, unblocked = 2, 4
    assert two.call("flock", 0, exclusive) == 0
    assert two.call("flock", 0, exclusive | unblocked, task=two.other) == -errno.EAGAIN
    assert two.call("dup", 0) == 1
    assert two.call("close", 0) == 0
    assert two.call("flock", 0, exclusive | unblocked, task=two.other) == -errno.EAGAIN
    assert two.call("flock", 0, exclusive, task=two.other) is None
    assert two.call("close", 1) == 0
    assert two.other.wait is None


def test_description_locks_are_the_hosts(two: Two) -> None:
    ofd_set = 37
    assert two.lock(two.task, ofd_set, locks.F_WRLCK, 0, 0) == 0
    assert two.lock(two.other, ofd_set, locks.F_WRLCK, 0, 0) == -errno.EAGAIN
    assert two.call("close", 0) == 0
    assert two.lock(two.other, ofd_set, locks.F_WRLCK, 0, 0) == 0


kinds = st.sampled_from([locks.F_RDLCK, locks.F_WRLCK, locks.F_UNLCK])
ranges = st.tuples(st.integers(0, SPAN - 1), st.integers(1, SPAN)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(st.tuples(st.sampled_from("ab"), kinds, ranges), max_size=20))
def test_locks_are_what_a_byte_by_byte_model_says(steps: list[tuple[str, int, tuple[int, int]]]) -> None:
    locks.held.clear()
    model: dict[str, dict[int, int]] = {"a": {}, "b": {}}
    for owner, kind, (start, stop) in steps:
        other = model["b" if owner == "a" else "a"]
        blocked = kind != locks.F_UNLCK and any(
            other.get(at) == locks.F_WRLCK or (at in other and kind == locks.F_WRLCK) for at in range(start, stop)
        )
        wanted = locks.Lock(owner, 1, kind, start, stop - 1)
        if kind != locks.F_UNLCK:
            assert (locks.conflict(INODE, wanted) is not None) == blocked
        if blocked:
            continue
        locks.change(INODE, wanted)
        for at in range(start, stop):
            if kind == locks.F_UNLCK:
                model[owner].pop(at, None)
            else:
                model[owner][at] = kind
    seen: dict[str, dict[int, int]] = {"a": {}, "b": {}}
    for lock in locks.held.get(INODE, ()):
        for at in range(lock.start, lock.end + 1):
            assert at not in seen[str(lock.owner)], "an owner's locks overlap"
            seen[str(lock.owner)][at] = lock.kind
    locks.held.clear()
    assert seen == model
