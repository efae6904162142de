"""System V shared memory, semaphores and message queues."""

import errno
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linux.fake import BASE, FakeContext, FakeMachine
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux import message_queues, semaphores, shared_memory
from virtus.personalities.linux.abi.x86_64 import X86_64
from virtus.personalities.linux.task import Credentials, Task

PRIVATE, CREATE, EXCLUSIVE, NOWAIT = 0, 0o1000, 0o2000, 0o4000
RMID, SET, STAT = 0, 1, 2
DATA, OUT = BASE, BASE + 8192


@pytest.fixture
def machine() -> Iterator[FakeMachine]:
    made = FakeMachine("sysv")
    yield made
    made.close()


def got(machine: FakeMachine, name: str, *arguments: int, task: Task | None = None) -> int:
    """The call's result, which there must be at once."""
    result = machine.call(name, *arguments, task=task)
    assert result is not None
    return result


@pytest.mark.parametrize(("name", "extra"), [("shmget", (4096,)), ("semget", (1,)), ("msgget", ())])
def test_keys(machine: FakeMachine, name: str, extra: tuple[int, ...]) -> None:
    assert got(machine, name, 7, *extra, 0o600) == -errno.ENOENT
    made = got(machine, name, 7, *extra, CREATE | 0o600)
    assert made >= 0
    assert got(machine, name, 7, *extra, 0o600) == made
    assert got(machine, name, 7, *extra, CREATE | EXCLUSIVE | 0o600) == -errno.EEXIST
    assert got(machine, name, PRIVATE, *extra, 0o600) != made
    control = {"shmget": "shmctl", "semget": "semctl", "msgget": "msgctl"}[name]
    arguments = (made, 0, RMID) if name == "semget" else (made, RMID, 0)
    assert got(machine, control, *arguments) == 0
    assert got(machine, control, *arguments) == -errno.EINVAL
    again = got(machine, name, 7, *extra, CREATE | 0o600)
    assert again != made  # an old identifier must not name a new object
    assert got(machine, control, *((again, 0, RMID) if name == "semget" else (again, RMID, 0))) == 0


def test_permissions(machine: FakeMachine) -> None:
    made = got(machine, "msgget", 7, CREATE | 0o640)
    stranger = machine.fork()
    stranger.credentials = Credentials(2000, 2000, (1000,))
    machine.store(struct.pack("<q", 1) + b"x")
    stranger.write(DATA, struct.pack("<q", 1) + b"x")
    assert got(machine, "msgget", 7, 0o040, task=stranger) == made
    assert got(machine, "msgget", 7, 0o060, task=stranger) == -errno.EACCES
    assert got(machine, "msgsnd", made, DATA, 1, 0, task=stranger) == -errno.EACCES
    assert got(machine, "msgctl", made, RMID, 0, task=stranger) == -errno.EPERM


def test_shared_memory_is_mapped_from_one_file(machine: FakeMachine) -> None:
    made = got(machine, "shmget", PRIVATE, 5000, 0o600)
    assert got(machine, "shmat", made, 0, 0) == 0  # the fake host puts everything at 0
    context = machine.task.context
    assert isinstance(context, FakeContext)
    number, address, size, protection, flags, host, offset = context.injected[-1]
    assert (number, address, size, protection, flags, offset) == (NUMBERS["mmap"], 0, 8192, 3, 1, 0)
    assert host >= 0
    assert got(machine, "shmctl", made, STAT, OUT) == 0
    fields = shared_memory.SHMID_DS.unpack(machine.task.read(OUT + 48, shared_memory.SHMID_DS.size))
    assert (fields[0], fields[4], fields[6]) == (5000, machine.process.pid, 1)
    child = machine.fork()
    assert got(machine, "shmctl", made, STAT, OUT) == 0
    assert shared_memory.SHMID_DS.unpack(machine.task.read(OUT + 48, 64))[6] == 2
    assert got(machine, "shmctl", made, RMID, 0) == 0
    assert got(machine, "shmdt", 0) == 0
    assert got(machine, "shmdt", 0) == -errno.EINVAL
    assert got(machine, "shmctl", made, STAT, OUT) == 0  # the child still has it
    assert got(machine, "shmdt", 0, task=child) == 0
    assert got(machine, "shmctl", made, STAT, OUT) == -errno.EINVAL


def test_shared_memory_arguments(machine: FakeMachine) -> None:
    assert got(machine, "shmget", PRIVATE, 0, 0o600) == -errno.EINVAL
    made = got(machine, "shmget", 9, 4096, CREATE | 0o600)
    assert got(machine, "shmget", 9, 8192, 0) == -errno.EINVAL
    assert got(machine, "shmat", made, 100, 0) == -errno.EINVAL
    assert got(machine, "shmat", 4711, 0, 0) == -errno.EINVAL
    assert got(machine, "shmctl", made, 99, 0) == -errno.EINVAL


def operations(machine: FakeMachine, *rows: tuple[int, int, int], task: Task | None = None) -> int:
    data = b"".join(struct.pack("<Hhh", *row) for row in rows)
    (task or machine.task).write(DATA, data)
    return len(rows)


def value(machine: FakeMachine, made: int, number: int = 0) -> int:
    return got(machine, "semctl", made, number, semaphores.GETVAL)


def test_semaphores_change_together_or_not_at_all(machine: FakeMachine) -> None:
    made = got(machine, "semget", PRIVATE, 2, 0o600)
    count = operations(machine, (0, 3, 0), (1, -1, NOWAIT))
    assert got(machine, "semop", made, DATA, count) == -errno.EAGAIN
    assert (value(machine, made, 0), value(machine, made, 1)) == (0, 0)
    count = operations(machine, (0, 3, 0), (1, 1, 0), (1, -1, NOWAIT))
    assert got(machine, "semop", made, DATA, count) == 0
    assert (value(machine, made, 0), value(machine, made, 1)) == (3, 0)
    operations(machine, (2, 1, 0))
    assert got(machine, "semop", made, DATA, 1) == -errno.EFBIG


def test_a_sleeper_takes_what_another_gives(machine: FakeMachine) -> None:
    made = got(machine, "semget", PRIVATE, 1, 0o600)
    child = machine.fork()
    operations(machine, (0, -2, 0), task=child)
    assert machine.call("semop", made, DATA, 1, task=child) is None
    assert got(machine, "semctl", made, 0, semaphores.GETNCNT) == 1
    for left in (1, 0):
        operations(machine, (0, 1, 0))
        assert got(machine, "semop", made, DATA, 1) == 0
        assert value(machine, made) == left
    assert machine.result(child) == 0
    assert got(machine, "semctl", made, 0, semaphores.GETPID) == child.process.pid


def test_waiting_for_zero(machine: FakeMachine) -> None:
    made = got(machine, "semget", PRIVATE, 1, 0o600)
    assert got(machine, "semctl", made, 0, semaphores.SETVAL, 1) == 0
    child = machine.fork()
    operations(machine, (0, 0, 0), task=child)
    assert machine.call("semop", made, DATA, 1, task=child) is None
    assert got(machine, "semctl", made, 0, semaphores.GETZCNT) == 1
    assert got(machine, "semctl", made, 0, semaphores.SETVAL, 0) == 0
    assert machine.result(child) == 0


def test_removal_wakes_the_sleepers(machine: FakeMachine) -> None:
    made = got(machine, "semget", PRIVATE, 1, 0o600)
    child = machine.fork()
    operations(machine, (0, -1, 0), task=child)
    machine.call("semop", made, DATA, 1, task=child)
    assert got(machine, "semctl", made, 0, RMID) == 0
    assert machine.result(child) == -errno.EIDRM


def test_an_ending_process_takes_its_operations_back(machine: FakeMachine) -> None:
    made = got(machine, "semget", PRIVATE, 1, 0o600)
    child = machine.fork()
    operations(machine, (0, 5, semaphores.SEM_UNDO), task=child)
    assert got(machine, "semop", made, DATA, 1, task=child) == 0
    assert value(machine, made) == 5
    machine.ended(child)
    assert value(machine, made) == 0


def test_all_values_at_once(machine: FakeMachine) -> None:
    made = got(machine, "semget", PRIVATE, 3, 0o600)
    machine.store(struct.pack("<3H", 1, 2, 3))
    assert got(machine, "semctl", made, 0, semaphores.SETALL, DATA) == 0
    assert got(machine, "semctl", made, 0, semaphores.GETALL, OUT) == 0
    assert struct.unpack("<3H", machine.task.read(OUT, 6)) == (1, 2, 3)
    assert got(machine, "semctl", made, 0, semaphores.SETVAL, 40_000) == -errno.ERANGE
    assert got(machine, "semctl", made, 0, STAT, OUT) == 0
    assert X86_64.semaphores.unpack(machine.task.read(OUT + 48, X86_64.semaphores.size))[2] == 3


def send(machine: FakeMachine, made: int, kind: int, text: bytes, flags: int = 0) -> int | None:
    machine.store(struct.pack("<q", kind) + text)
    return machine.call("msgsnd", made, DATA, len(text), flags)


def receive(machine: FakeMachine, made: int, kind: int, flags: int = NOWAIT, size: int = 100) -> bytes | int:
    length = got(machine, "msgrcv", made, OUT, size, kind, flags)
    return length if length < 0 else machine.task.read(OUT + 8, length)


def test_messages_by_type(machine: FakeMachine) -> None:
    made = got(machine, "msgget", PRIVATE, 0o600)
    for kind, text in ((3, b"three"), (1, b"one"), (2, b"two"), (1, b"uno")):
        assert send(machine, made, kind, text) == 0
    assert receive(machine, made, 2) == b"two"
    assert receive(machine, made, -2) == b"one"
    assert receive(machine, made, 3, NOWAIT | message_queues.MSG_EXCEPT) == b"uno"
    assert receive(machine, made, 0, NOWAIT, 3) == -errno.E2BIG
    assert receive(machine, made, 0, NOWAIT | message_queues.MSG_NOERROR, 3) == b"thr"
    assert receive(machine, made, 0) == -errno.ENOMSG


def test_a_full_queue_waits_for_room(machine: FakeMachine) -> None:
    made = got(machine, "msgget", PRIVATE, 0o600)
    for _ in range(2):
        assert send(machine, made, 1, bytes(8192)) == 0
    assert send(machine, made, 1, b"x", NOWAIT) == -errno.EAGAIN
    child = machine.fork()
    child.write(DATA, struct.pack("<q", 1) + b"x")
    assert machine.call("msgsnd", made, DATA, 1, 0, task=child) is None
    assert receive(machine, made, 0, size=8192) == bytes(8192)
    assert machine.result(child) == 0
    assert got(machine, "msgctl", made, STAT, OUT) == 0
    fields = message_queues.MSQID_DS.unpack(machine.task.read(OUT + 48, message_queues.MSQID_DS.size))
    assert fields[3:6] == (8193, 2, message_queues.MSGMNB)


def test_a_receiver_waits(machine: FakeMachine) -> None:
    made = got(machine, "msgget", PRIVATE, 0o600)
    child = machine.fork()
    assert machine.call("msgrcv", made, OUT, 10, 0, 0, task=child) is None
    assert send(machine, made, 5, b"hello") == 0
    assert machine.result(child) == 5
    assert child.read(OUT, 13) == struct.pack("<q", 5) + b"hello"


@pytest.mark.parametrize(("kind", "size"), [(0, 1), (-1, 1), (1, 8193)])
def test_bad_messages(machine: FakeMachine, kind: int, size: int) -> None:
    made = got(machine, "msgget", PRIVATE, 0o600)
    machine.store(struct.pack("<q", kind))
    assert got(machine, "msgsnd", made, DATA, size, 0) == -errno.EINVAL


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 3)), min_size=1, max_size=6))
def test_an_attempt_never_leaves_a_negative_value(rows: list[tuple[int, int]]) -> None:
    machine = FakeMachine("sysv")
    try:
        made = semaphores.Semaphores(machine.task, 0, 0o600, 4)
        made.values = [2, 0, 1, 3]
        before = list(made.values)
        stuck = made.attempt(machine.task, [(number, change, 0) for number, change in rows])
        assert min(made.values) >= 0
        assert (made.values == before) if stuck else sum(made.values) == sum(before) + sum(c for _, c in rows)
    finally:
        machine.close()
