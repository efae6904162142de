"""System V semaphores: sets of counters, changed together or not at all."""

import errno
from functools import partial
from struct import Struct, pack, unpack
from typing import Final
from weakref import WeakKeyDictionary

from virtus.personalities.linux.blocking import FOREVER, Blocking, Wait, WaitQueue, after
from virtus.personalities.linux.ipc import (
    IDENTIFIERS_MAX,
    IPC_INFO,
    IPC_NOWAIT,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    READ,
    WRITE,
    Permission,
    Registry,
    now,
)
from virtus.personalities.linux.table import Int, Uint, Word, call
from virtus.personalities.linux.task import Process, Task
from virtus.personalities.linux.timespec import read_timespec

# include/uapi/linux/sem.h
SEM_UNDO: Final = 0x1000
GETPID, GETVAL, GETALL, GETNCNT, GETZCNT, SETVAL, SETALL = range(11, 18)
SEM_STAT, SEM_INFO, SEM_STAT_ANY = 18, 19, 20
SEMMSL: Final = 32000
SEMVMX: Final = 32767
SEMOPM: Final = 500
SEMBUF: Final = Struct("<Hhh")
SEMINFO: Final = Struct("<10i")

Operation = tuple[int, int, int]


class Semaphores:
    """One set."""

    def __init__(self, task: Task, key: int, mode: int, count: int) -> None:
        self.permission = Permission(task, key, mode)
        self.values = [0] * count
        self.pids = [0] * count
        self.changed = WaitQueue()
        self.waiting: dict[Task, Operation] = {}  # the operation each sleeper is stuck at
        self.operated_at = 0
        self.changed_at = now()
        self.removed = False
        self.undo: dict[Process, list[int]] = {}

    def pack(self, structure: Struct) -> bytes:
        """struct semid64_ds."""
        return self.permission.pack() + structure.pack(self.operated_at, self.changed_at, len(self.values))

    def attempt(self, task: Task, operations: list[Operation]) -> Operation | None:
        """Do all operations, or none and return the one that cannot be done now."""
        values = list(self.values)
        for operation in operations:
            number, change, _flags = operation
            if change == 0:
                if values[number]:
                    return operation
            elif values[number] + change < 0:
                return operation
            elif values[number] + change > SEMVMX:
                raise OSError(errno.ERANGE, "")
            values[number] += change
        self.values = values
        for number, change, flags in operations:
            self.pids[number] = task.process.pid
            if flags & SEM_UNDO and change:
                self._remember(task.process, number, -change)
        self.operated_at = now()
        if any(change for _, change, _ in operations):
            self.changed.wake()
        return None

    def _remember(self, process: Process, number: int, change: int) -> None:
        if process not in self.undo:
            self.undo[process] = [0] * len(self.values)
            process.watchers.append(partial(self.ended, process))
        self.undo[process][number] += change

    def ended(self, process: Process) -> None:
        """SEM_UNDO: what an ending process is to take back."""
        changes = self.undo.pop(process, None)
        if changes is not None and not self.removed:
            self.values = [
                min(max(value + change, 0), SEMVMX) for value, change in zip(self.values, changes, strict=True)
            ]
            self.changed.wake()

    def waiters(self, number: int, *, zero: bool) -> int:
        """How many sleep until a semaphore rises, or falls to zero."""
        return sum(at == number and (change == 0) == zero for at, change, _ in self.waiting.values())


_sets: WeakKeyDictionary[object, Registry[Semaphores]] = WeakKeyDictionary()


def _registry(task: Task) -> Registry[Semaphores]:
    registry = _sets.get(task.kernel)
    if registry is None:
        registry = _sets[task.kernel] = Registry(IDENTIFIERS_MAX)
    return registry


@call("semget")
def semget(task: Task, key: Int, count: Int, flags: Int) -> int:
    """semget(2)."""
    if not 0 <= count <= SEMMSL:
        raise OSError(errno.EINVAL, "")
    registry = _registry(task)
    found = registry.open(task, key, flags)
    if found is not None:
        if count > len(found[1].values):
            raise OSError(errno.EINVAL, "")
        return found[0]
    if not count:
        raise OSError(errno.EINVAL, "")
    return registry.add(Semaphores(task, key, flags, count))


def _wait(task: Task, semaphores: Semaphores, operations: list[Operation], stuck: Operation, deadline: int) -> Blocking:
    try:
        while True:
            semaphores.waiting[task] = stuck
            if not (yield Wait(queues=(semaphores.changed,), deadline=deadline, restart=False)):
                raise OSError(errno.EAGAIN, "")
            if semaphores.removed:
                raise OSError(errno.EIDRM, "")
            again = semaphores.attempt(task, operations)
            if again is None:
                return 0
            stuck = again
    finally:
        semaphores.waiting.pop(task, None)


def _operate(task: Task, identifier: int, address: int, count: int, deadline: int) -> int | Blocking:
    if count < 1 or identifier < 0:
        raise OSError(errno.EINVAL, "")
    if count > SEMOPM:
        raise OSError(errno.E2BIG, "")
    operations = list(SEMBUF.iter_unpack(task.read(address, count * SEMBUF.size)))
    semaphores = _registry(task).get(identifier)
    if any(number >= len(semaphores.values) for number, _, _ in operations):
        raise OSError(errno.EFBIG, "")
    semaphores.permission.check(task, WRITE if any(change for _, change, _ in operations) else READ)
    stuck = semaphores.attempt(task, operations)
    if stuck is None:
        return 0
    if stuck[2] & IPC_NOWAIT:
        raise OSError(errno.EAGAIN, "")
    return _wait(task, semaphores, operations, stuck, deadline)


@call("semop")
def semop(task: Task, identifier: Int, address: Word, count: Uint) -> int | Blocking:
    """semop(2)."""
    return _operate(task, identifier, address, count, FOREVER)


@call("semtimedop")
def semtimedop(task: Task, identifier: Int, address: Word, count: Uint, timeout: Word) -> int | Blocking:
    """semtimedop(2)."""
    return _operate(task, identifier, address, count, after(read_timespec(task, timeout)) if timeout else FOREVER)


@call("semctl")
def semctl(task: Task, identifier: Int, number: Int, command: Int, argument: Word) -> int:
    """semctl(2)."""
    registry = _registry(task)
    if command in (IPC_INFO, SEM_INFO):
        rows = registry.items()
        used = (len(rows), sum(len(found.values) for _, found in rows)) if command == SEM_INFO else (20, SEMVMX)
        total = IDENTIFIERS_MAX * SEMMSL
        task.write(
            argument,
            SEMINFO.pack(total, IDENTIFIERS_MAX, total, total, SEMMSL, SEMOPM, SEMOPM, used[0], SEMVMX, used[1]),
        )
        return registry.highest
    if command in (SEM_STAT, SEM_STAT_ANY):
        identifier, semaphores = registry.at(identifier)
    else:
        semaphores = registry.get(identifier)
    permission = semaphores.permission
    if command in (IPC_STAT, SEM_STAT, SEM_STAT_ANY):
        if command != SEM_STAT_ANY:
            permission.check(task, READ)
        task.write(argument, semaphores.pack(task.kernel.abi.semaphores))
        return 0 if command == IPC_STAT else identifier
    if command == IPC_RMID:
        permission.check_owner(task)
        registry.remove(identifier)
        semaphores.removed = True
        semaphores.changed.wake()
        return 0
    if command == IPC_SET:
        permission.check_owner(task)
        permission.change(task.read(argument, 48))
        semaphores.changed_at = now()
        return 0
    return _value(task, semaphores, number, command, argument)


def _value(task: Task, semaphores: Semaphores, number: int, command: int, argument: int) -> int:
    """The commands on values."""
    count = len(semaphores.values)
    if command not in range(GETPID, SETALL + 1):
        raise OSError(errno.EINVAL, "")
    if command not in (GETALL, SETALL) and not 0 <= number < count:
        raise OSError(errno.EINVAL, "")
    semaphores.permission.check(task, WRITE if command in (SETVAL, SETALL) else READ)
    if command == GETVAL:
        return semaphores.values[number]
    if command == GETPID:
        return semaphores.pids[number]
    if command in (GETNCNT, GETZCNT):
        return semaphores.waiters(number, zero=command == GETZCNT)
    if command == GETALL:
        task.write(argument, pack(f"<{count}H", *semaphores.values))
        return 0
    values = list(semaphores.values)
    if command == SETVAL:
        value = argument & 0xFFFFFFFF
        values[number] = value
        for changes in semaphores.undo.values():
            changes[number] = 0
    else:
        values = list(unpack(f"<{count}H", task.read(argument, 2 * count)))
        semaphores.undo.clear()
    if max(values) > SEMVMX:
        raise OSError(errno.ERANGE, "")
    semaphores.values = values
    semaphores.pids[number if command == SETVAL else 0] = task.process.pid
    semaphores.changed_at = now()
    semaphores.changed.wake()
    return 0
