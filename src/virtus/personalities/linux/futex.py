"""futex(2): sleeping on a word of guest memory until another thread says that it changed.

Guest threads change the word themselves, in parallel with the kernel. Nothing is lost all the same: the kernel compares
and goes to sleep in one step, and a thread that changes the word asks for the wake-up afterwards, through the kernel.
A private futex is known by its address space and address, a shared one by what backs its memory.
"""

import errno
import os
import re
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux.blocking import FOREVER, Blocking, Wait, WaitQueue, after
from virtus.personalities.linux.table import Int, Uint, Word, call, refuse
from virtus.personalities.linux.task import Task
from virtus.personalities.linux.timespec import monotonic_deadline, read_timespec

# include/uapi/linux/futex.h
FUTEX_WAIT: Final = 0
FUTEX_WAKE: Final = 1
FUTEX_REQUEUE: Final = 3
FUTEX_CMP_REQUEUE: Final = 4
FUTEX_WAKE_OP: Final = 5
FUTEX_WAIT_BITSET: Final = 9
FUTEX_WAKE_BITSET: Final = 10
FUTEX_PRIVATE_FLAG: Final = 128
FUTEX_CLOCK_REALTIME: Final = 256
ANY_BIT: Final = 0xFFFFFFFF  # FUTEX_BITSET_MATCH_ANY
FUTEX_WAITERS: Final = 0x80000000
FUTEX_OWNER_DIED: Final = 0x40000000
FUTEX_TID_MASK: Final = 0x3FFFFFFF
FUTEX_OP_OPARG_SHIFT: Final = 8
ROBUST_LIST_LIMIT: Final = 2048

WORD: Final = Struct("<I")
ROBUST_HEAD: Final = Struct("<QqQ")  # struct robust_list_head: next, futex_offset, list_op_pending
POINTER: Final = Struct("<Q")

CLOCK_REALTIME: Final = 0
CLOCK_MONOTONIC: Final = 1

Key = tuple[Any, ...]

_queues: dict[Key, WaitQueue] = {}
"""Who sleeps on what. Keys name address-space objects and host inodes, so one table serves whatever asks."""
_shared_sleepers = 0
"""Sleepers on shared backing objects: while there are none, nobody has to find out what backs an address."""

_SHARED_MAPPING = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ..(?:.)s ([0-9a-f]+) ([0-9a-f:]+) (\d+)", re.MULTILINE)


class FutexWait(Wait):
    """A sleeper on a futex."""

    __slots__ = ("bitset", "key")

    def __init__(self, key: Key, queue: WaitQueue, bitset: int, deadline: int) -> None:
        # a timed wait that a handler interrupts ends with EINTR (futex(2)), an endless one may be restarted
        super().__init__(queues=(queue,), deadline=deadline, restart=not deadline)
        self.key, self.bitset = key, bitset


def _shared_key(task: Task, address: int) -> Key:
    """The key of a futex that other address spaces may share; private memory is known by its address space."""
    descriptor = os.open(f"{task.context.ident}/maps", os.O_RDONLY | os.O_CLOEXEC, dir_fd=task.kernel.procfs)
    with open(descriptor, "rb") as file:
        maps = file.read()
    for start, end, offset, device, inode in _SHARED_MAPPING.findall(maps):
        if int(start, 16) <= address < int(end, 16):
            return (device, inode, address - int(start, 16) + int(offset, 16))
    return (task.memory, address)


def _key(task: Task, address: int, private: int) -> Key:
    if address & 3:
        raise OSError(errno.EINVAL, "")
    return (task.memory, address) if private else _shared_key(task, address)


def _waker_keys(task: Task, address: int, private: int) -> tuple[Key, ...]:
    """Where sleepers on this address may be; asks the host for mappings only while somebody sleeps on a shared one."""
    if address & 3:
        raise OSError(errno.EINVAL, "")
    own: Key = (task.memory, address)
    if private or not _shared_sleepers:
        return (own,)
    return (_shared_key(task, address),)


def _wake(kernel: Any, key: Key, count: int, bitset: int = ANY_BIT) -> int:
    queue = _queues.get(key)
    if queue is None:
        return 0
    woken = 0
    for wait in list(queue.waits):
        if woken >= count:
            break
        if isinstance(wait, FutexWait) and wait.bitset & bitset and wait.task is not None:
            queue.waits.pop(wait, None)  # at once: it must not be woken twice
            kernel.wake(wait)
            woken += 1
    return woken


def _sleep(key: Key, bitset: int, deadline: int) -> Blocking:
    global _shared_sleepers
    shared = len(key) == 3
    _shared_sleepers += shared
    queue = _queues.get(key)
    if queue is None:
        queue = _queues[key] = WaitQueue()
    wait = FutexWait(key, queue, bitset, deadline)
    try:
        if not (yield wait):
            raise OSError(errno.ETIMEDOUT, "")
        return 0
    finally:
        _shared_sleepers -= shared
        for left in wait.queues:
            left.waits.pop(wait, None)
            if not left.waits and _queues.get(wait.key) is left:
                del _queues[wait.key]


def _requeue(kernel: Any, source: Key, target: Key, wake: int, move: int) -> tuple[int, int]:
    """Wake some sleepers of `source` and let others sleep on `target`; how many of each."""
    woken = _wake(kernel, source, wake)
    moved = 0
    queue = _queues.get(source)
    if queue is not None and source != target:
        for wait in list(queue.waits):
            if moved >= move:
                break
            if isinstance(wait, FutexWait):
                del queue.waits[wait]
                other = _queues.get(target)
                if other is None:
                    other = _queues[target] = WaitQueue()
                other.waits[wait] = None
                wait.queues, wait.key = (other,), target
                moved += 1
        if not queue.waits:
            _queues.pop(source, None)
    return woken, moved


_OPERATIONS: Final[tuple[Callable[[int, int], int], ...]] = (
    lambda old, argument: argument,
    lambda old, argument: old + argument,
    lambda old, argument: old | argument,
    lambda old, argument: old & ~argument,
    lambda old, argument: old ^ argument,
)
_COMPARISONS: Final[tuple[Callable[[int, int], bool], ...]] = (
    lambda old, argument: old == argument,
    lambda old, argument: old != argument,
    lambda old, argument: old < argument,
    lambda old, argument: old <= argument,
    lambda old, argument: old > argument,
    lambda old, argument: old >= argument,
)


def _signed(value: int, bits: int) -> int:
    return (value & (1 << bits) - 1) - ((value & 1 << bits - 1) << 1)


def _wake_op(task: Task, keys: tuple[tuple[Key, ...], ...], counts: tuple[int, int], address: int, code: int) -> int:
    """FUTEX_WAKE_OP. The change is the host's, made in the guest's memory in one atomic step."""
    operation, comparison = code >> 28 & 7, code >> 24 & 15
    if operation >= len(_OPERATIONS) or comparison >= len(_COMPARISONS):
        raise OSError(errno.ENOSYS, "")
    argument, compared = _signed(code >> 12, 12), _signed(code, 12)
    if code >> 28 & FUTEX_OP_OPARG_SHIFT:
        argument = _signed(1 << (argument & 31), 32)
    old = _signed(WORD.unpack(task.read(address, 4))[0], 32)
    result = task.context.inject(
        NUMBERS["futex"], address, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0, address, code & 0xFFFFFFFF
    )
    if result < 0:
        raise OSError(-result, "")
    new = WORD.unpack(task.read(address, 4))[0]
    # what stood there just before is known only unless another thread came between: then wake rather than not
    disturbed = new != _OPERATIONS[operation](old, argument) & 0xFFFFFFFF
    woken = sum(_wake(task.kernel, key, counts[0]) for key in keys[0])
    if disturbed or _COMPARISONS[comparison](old, compared):
        woken += sum(_wake(task.kernel, key, counts[1]) for key in keys[1])
    return woken


def _deadline(task: Task, operation: int, realtime: int, timeout: int) -> int:
    if not timeout:
        return FOREVER
    when = read_timespec(task, timeout)
    if operation == FUTEX_WAIT:
        return after(when)
    return monotonic_deadline(CLOCK_REALTIME if realtime else CLOCK_MONOTONIC, when)


@call("futex", note="without the priority-inheritance operations (ENOSYS)")
def futex(
    task: Task, address: Word, request: Int, value: Uint, timeout: Word, address2: Word, value3: Uint
) -> int | Blocking:
    """futex(2)."""
    operation = request & 127
    private = request & FUTEX_PRIVATE_FLAG
    realtime = request & FUTEX_CLOCK_REALTIME
    count = max(_signed(value, 32), 1)  # Linux wakes one for a count of 0 or less
    if operation in (FUTEX_WAIT, FUTEX_WAIT_BITSET):
        bitset = ANY_BIT if operation == FUTEX_WAIT else value3
        if not bitset:
            raise OSError(errno.EINVAL, "")
        deadline = _deadline(task, operation, realtime, timeout)
        key = _key(task, address, private)
        if WORD.unpack(task.read(address, 4))[0] != value:
            raise OSError(errno.EAGAIN, "")
        return _sleep(key, bitset, deadline)
    if realtime:
        raise OSError(errno.ENOSYS, "")
    if operation in (FUTEX_WAKE, FUTEX_WAKE_BITSET):
        bitset = ANY_BIT if operation == FUTEX_WAKE else value3
        if not bitset:
            raise OSError(errno.EINVAL, "")
        return sum(_wake(task.kernel, key, count, bitset) for key in _waker_keys(task, address, private))
    if operation in (FUTEX_REQUEUE, FUTEX_CMP_REQUEUE):
        first, second = _signed(value, 32), _signed(timeout, 32)  # the timeout's register carries the second count
        if first < 0 or second < 0:
            raise OSError(errno.EINVAL, "")
        source, target = _key(task, address, private), _key(task, address2, private)
        if operation == FUTEX_CMP_REQUEUE and WORD.unpack(task.read(address, 4))[0] != value3:
            raise OSError(errno.EAGAIN, "")
        woken, moved = _requeue(task.kernel, source, target, first, second)
        return woken + (moved if operation == FUTEX_CMP_REQUEUE else 0)
    if operation == FUTEX_WAKE_OP:
        keys = _waker_keys(task, address, private), _waker_keys(task, address2, private)
        return _wake_op(task, keys, (count, max(_signed(timeout, 32), 1)), address2, value3)
    task.kernel.meter.note(f"futex operation {operation} refused: no priority inheritance")
    raise OSError(errno.ENOSYS, "")


def wake_address(task: Task, address: int, count: int) -> int:
    """FUTEX_WAKE from inside the kernel, for the word that a thread's end clears; returns how many were woken."""
    if address & 3:
        return 0
    return sum(_wake(task.kernel, key, count) for key in _waker_keys(task, address, 0))


def _owner_died(task: Task, address: int) -> None:
    """Mark one robust futex of an ending thread. A thread that sets FUTEX_WAITERS meanwhile finds the word changed
    when it comes to sleep, so that reading and writing in two steps loses nobody."""
    if address & 3:
        return
    word = WORD.unpack(task.read(address, 4))[0]
    if word & FUTEX_TID_MASK == task.tid:
        task.write(address, WORD.pack(word & FUTEX_WAITERS | FUTEX_OWNER_DIED))
        if word & FUTEX_WAITERS:
            wake_address(task, address, 1)


def walk_robust_list(task: Task) -> None:
    """Mark the robust futexes that an ending thread still holds (Documentation/locking/robust-futex-ABI.rst)."""
    head, task.robust_list = task.robust_list, 0
    if not head:
        return
    try:
        entry, offset, pending = ROBUST_HEAD.unpack(task.read(head, ROBUST_HEAD.size))
        for _ in range(ROBUST_LIST_LIMIT):
            if entry & ~1 == head:  # bit 0 marks priority-inheritance futexes
                break
            following = POINTER.unpack(task.read(entry & ~1, 8))[0]
            if entry != pending:
                _owner_died(task, (entry & ~1) + offset & 2**64 - 1)
            entry = following
        if pending:
            _owner_died(task, (pending & ~1) + offset & 2**64 - 1)
    except OSError:
        return  # a list that cannot be read ends here, as on Linux


refuse(
    errno.ENOSYS,
    "the newer futex interface is not offered; futex(2) is",
    "futex_waitv",
    "futex_wake",
    "futex_wait",
    "futex_requeue",
)
