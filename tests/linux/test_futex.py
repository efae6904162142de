"""Futexes: who sleeps, who is woken, and in what order."""

import errno
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.linux.fake import BASE, FakeContext, FakeMachine, context_of
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux import futex
from virtus.personalities.linux.task import Task

WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_BITSET, WAKE_BITSET = 0, 1, 3, 4, 5, 9, 10
LOCK_PI = 6
PRIVATE = 128
THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000  # CLONE_VM, FS, FILES, SIGHAND, THREAD
WORD, OTHER, TIME = BASE, BASE + 64, BASE + 128


@pytest.fixture
def machine() -> Iterator[FakeMachine]:
    made = FakeMachine("futex", "time_calls")
    yield made
    made.close()
    assert not futex._queues  # nothing stays behind


def thread(machine: FakeMachine) -> Task:
    """One more thread of the first process, in user mode."""
    tid = machine.call("clone", THREAD, 0, 0, 0, 0)
    assert tid is not None
    assert tid > 0
    return machine.kernel.tasks[tid]


def sleep(
    machine: FakeMachine, task: Task, address: int = WORD, operation: int = WAIT | PRIVATE, bits: int = 0
) -> None:
    assert machine.call("futex", address, operation, 0, 0, 0, bits, task=task) is None


def test_wait_returns_at_once_when_the_word_has_changed(machine: FakeMachine) -> None:
    machine.store(struct.pack("<I", 7), WORD)
    assert machine.call("futex", WORD, WAIT | PRIVATE, 6, 0) == -errno.EAGAIN


def test_wake_wakes_in_order_and_counts(machine: FakeMachine) -> None:
    threads = [thread(machine) for _ in range(3)]
    for each in threads:
        sleep(machine, each)
    assert machine.call("futex", WORD, WAKE | PRIVATE, 2) == 2
    assert [machine.result(each) for each in threads] == [0, 0, None]
    assert machine.call("futex", WORD, WAKE | PRIVATE, 2) == 1
    assert machine.call("futex", WORD, WAKE | PRIVATE, 2) == 0


def test_wake_of_another_address_wakes_nobody(machine: FakeMachine) -> None:
    sleeper = thread(machine)
    sleep(machine, sleeper)
    assert machine.call("futex", OTHER, WAKE | PRIVATE, 9) == 0
    assert machine.result(sleeper) is None
    machine.call("futex", WORD, WAKE | PRIVATE, 1)


def test_a_private_futex_is_of_one_address_space(machine: FakeMachine) -> None:
    sleeper = thread(machine)
    sleep(machine, sleeper)
    child = machine.fork()
    assert machine.call("futex", WORD, WAKE | PRIVATE, 9, task=child) == 0
    assert machine.call("futex", WORD, WAKE | PRIVATE, 9) == 1


def test_bitsets_choose_whom_to_wake(machine: FakeMachine) -> None:
    one, two = thread(machine), thread(machine)
    sleep(machine, one, operation=WAIT_BITSET | PRIVATE, bits=1)
    sleep(machine, two, operation=WAIT_BITSET | PRIVATE, bits=2)
    assert machine.call("futex", WORD, WAKE_BITSET | PRIVATE, 9, 0, 0, 2) == 1
    assert machine.result(one) is None
    assert machine.call("futex", WORD, WAKE_BITSET | PRIVATE, 9, 0, 0, 0) == -errno.EINVAL
    assert machine.call("futex", WORD, WAKE | PRIVATE, 9) == 1


@pytest.mark.parametrize("operation", [WAIT | PRIVATE, WAIT_BITSET | PRIVATE])
def test_timeouts_are_relative_for_wait_and_absolute_for_wait_bitset(machine: FakeMachine, operation: int) -> None:
    wait = 0.01
    until = wait if operation == WAIT | PRIVATE else time.monotonic() + wait
    machine.store(struct.pack("<qq", int(until), int(until % 1 * 1e9)), TIME)
    assert machine.call("futex", WORD, operation, 0, TIME, 0, 0xFFFFFFFF) is None
    deadline = time.monotonic() + 1
    while machine.result() is None and time.monotonic() < deadline:
        machine.kernel.scheduler.epoll.poll(0.1)
        machine.event()
    assert machine.result() == -errno.ETIMEDOUT


@pytest.mark.parametrize("pair", [(0, 1_000_000_000), (-1, 0)])
def test_a_timeout_that_is_none_is_refused(machine: FakeMachine, pair: tuple[int, int]) -> None:
    machine.store(struct.pack("<qq", *pair), TIME)
    assert machine.call("futex", WORD, WAIT | PRIVATE, 0, TIME) == -errno.EINVAL


def test_bad_addresses(machine: FakeMachine) -> None:
    assert machine.call("futex", WORD + 1, WAIT | PRIVATE, 0, 0) == -errno.EINVAL
    assert machine.call("futex", 0x8000_0000, WAIT | PRIVATE, 0, 0) == -errno.EFAULT


def test_requeue_moves_sleepers(machine: FakeMachine) -> None:
    threads = [thread(machine) for _ in range(3)]
    for each in threads:
        sleep(machine, each)
    assert machine.call("futex", WORD, CMP_REQUEUE | PRIVATE, 1, 9, OTHER, 1) == -errno.EAGAIN
    assert machine.call("futex", WORD, CMP_REQUEUE | PRIVATE, 1, 9, OTHER, 0) == 3
    assert [machine.result(each) for each in threads] == [0, None, None]
    assert machine.call("futex", WORD, WAKE | PRIVATE, 9) == 0
    assert machine.call("futex", OTHER, WAKE | PRIVATE, 9) == 2


def test_a_requeued_sleeper_that_dies_leaves_its_new_queue(machine: FakeMachine) -> None:
    sleeper = thread(machine)
    sleep(machine, sleeper)
    assert machine.call("futex", WORD, REQUEUE | PRIVATE, 0, 9, OTHER) == 0
    machine.ended(sleeper)
    assert machine.call("futex", OTHER, WAKE | PRIVATE, 9) is None  # the whole process is gone with it


def test_wake_op_has_the_host_change_the_word(machine: FakeMachine) -> None:
    one, two = thread(machine), thread(machine)
    sleep(machine, one)
    sleep(machine, two, OTHER)
    code = 0 << 28 | 4 << 24 | 0 << 12 | 0  # set to 0, wake when the old value was greater than 0
    assert machine.call("futex", WORD, WAKE_OP | PRIVATE, 1, 1, OTHER, code) == 1
    assert machine.result(one) == 0
    assert machine.result(two) is None
    context = machine.task.context
    assert isinstance(context, FakeContext)
    assert context.injected[-1] == (NUMBERS["futex"], OTHER, WAKE_OP | PRIVATE, 0, 0, OTHER, code)
    machine.call("futex", OTHER, WAKE | PRIVATE, 1)


def test_priority_inheritance_is_not_offered(machine: FakeMachine) -> None:
    assert machine.call("futex", WORD, LOCK_PI | PRIVATE, 0, 0) == -errno.ENOSYS


def test_a_shared_futex_is_known_by_its_file() -> None:
    """Two addresses of one mapping of this very process are the same futex when they have the same offset."""
    machine = FakeMachine("futex")
    descriptor = os.memfd_create("shared")
    try:
        os.ftruncate(descriptor, 8192)
        with mmap.mmap(descriptor, 8192) as first, mmap.mmap(descriptor, 8192) as second:
            context_of(machine.task).ident = os.getpid()
            text = Path(f"/proc/{os.getpid()}/maps").read_text(encoding="utf-8")
            rows = [int(line.split("-")[0], 16) for line in text.splitlines() if "memfd:shared" in line]
            keys = {futex._key(machine.task, row + 4, 0) for row in rows}
            assert len(first) == len(second)
            assert len(keys) == 1 or len(rows) == 1
            assert futex._key(machine.task, rows[0], 0) not in keys
    finally:
        os.close(descriptor)
        machine.close()


def test_a_dying_thread_marks_its_robust_futexes(machine: FakeMachine) -> None:
    head, entry, offset = BASE + 512, BASE + 640, 16
    owner, waiter = thread(machine), thread(machine)
    word = entry + offset
    machine.store(struct.pack("<QqQ", entry, offset, 0), head)
    machine.store(struct.pack("<Q", head), entry)
    machine.store(struct.pack("<I", owner.tid | futex.FUTEX_WAITERS), word)
    assert machine.call("futex", word, WAIT | PRIVATE, owner.tid | futex.FUTEX_WAITERS, 0, task=waiter) is None
    owner.robust_list = head
    futex.walk_robust_list(owner)
    assert struct.unpack("<I", machine.task.read(word, 4))[0] == futex.FUTEX_WAITERS | futex.FUTEX_OWNER_DIED
    while machine.kernel._ready:
        machine.kernel._go_on(*machine.kernel._ready.popleft())
    assert machine.result(waiter) == 0


def test_a_circular_robust_list_ends(machine: FakeMachine) -> None:
    entry = BASE + 640
    machine.store(struct.pack("<QqQ", entry, 16, 0), BASE + 512)
    machine.store(struct.pack("<Q", entry), entry)
    machine.task.robust_list = BASE + 512
    futex.walk_robust_list(machine.task)
    assert machine.task.robust_list == 0
