"""Scheduling: the host schedules the guest's threads, so affinity, policy and niceness are set on their stubs."""

import ctypes
import errno
import os
from collections.abc import Iterator
from struct import Struct
from typing import Final

from virtus.host.direct_call import direct_call
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux.table import Int, Long, Uint, Word, call, refuse
from virtus.personalities.linux.task import Task, processors

INIT: Final = 1
PRIO_PROCESS, PRIO_PGRP, PRIO_USER = 0, 1, 2  # include/uapi/linux/resource.h
NICE_ZERO: Final = 20  # getpriority(2) returns 20 - nice, so that no result looks like an error
IOPRIO_WHO_PROCESS, IOPRIO_WHO_PGRP, IOPRIO_WHO_USER = 1, 2, 3  # include/uapi/linux/ioprio.h
MASK_MAX: Final = 8192  # bytes of a processor mask that are looked at; more than any host's
SCHED_ATTR_MAX: Final = 4096  # a page: the most that sched_setattr(2) takes
SCHED_PARAM: Final = Struct("<i")
SCHED_ATTR_SIZE_0: Final = 48  # SCHED_ATTR_SIZE_VER0, include/uapi/linux/sched/types.h
PROCESSOR: Final = 36  # field "processor" of /proc/PID/stat, counted from the state

_area = ctypes.create_string_buffer(MASK_MAX)
_buffer = memoryview(_area).cast("B")
_address = ctypes.addressof(_area)


def _thread(task: Task, tid: int) -> Task:
    """The thread that a number names, 0 the caller itself; raises ESRCH."""
    if tid < 0:
        raise OSError(errno.EINVAL, "")
    found = task if not tid else task.kernel.tasks.get(tid)
    if found is None:
        raise OSError(errno.EPERM if tid == INIT else errno.ESRCH, "")
    return found


def _ident(task: Task, tid: int) -> int:
    """The host's number of a thread that is only asked about; init, which has none, is the kernel process itself."""
    return os.getpid() if tid == INIT else _thread(task, tid).context.ident


def _may_change(task: Task, other: Task) -> None:
    mine, theirs = task.credentials, other.credentials
    if mine.euid not in (0, theirs.uid, theirs.euid):
        raise OSError(errno.EPERM, "")


@call("sched_yield")
def sched_yield(task: Task) -> int:
    """sched_yield(2): every system call lets others run."""
    return 0


@call("sched_setaffinity", note="remembered and shown; the vCPU places threads itself")
def sched_setaffinity(task: Task, tid: Int, size: Uint, address: Word) -> int:
    """sched_setaffinity(2)."""
    if tid < 0:
        raise OSError(errno.ESRCH, "")
    other = _thread(task, tid)
    _may_change(task, other)
    wanted = int.from_bytes(task.read(address, min(size, MASK_MAX)), "little") & processors()
    if not wanted:
        raise OSError(errno.EINVAL, "")
    other.processors = wanted
    return 0


@call("sched_getaffinity")
def sched_getaffinity(task: Task, tid: Int, size: Uint, address: Word) -> int:
    """sched_getaffinity(2): the number of bytes of the mask."""
    if tid < 0:
        raise OSError(errno.ESRCH, "")
    needed = -(-processors().bit_length() // 64) * 8  # bytes, in words
    if size < needed or size % 8:
        raise OSError(errno.EINVAL, "")
    mask = processors() if tid == INIT else _thread(task, tid).processors
    task.write(address, mask.to_bytes(needed, "little"))
    return needed


@call("sched_getscheduler")
def sched_getscheduler(task: Task, tid: Int) -> int:
    """sched_getscheduler(2)."""
    return direct_call(NUMBERS["sched_getscheduler"], _ident(task, tid))


@call("sched_setscheduler")
def sched_setscheduler(task: Task, tid: Int, policy: Int, address: Word) -> int:
    """sched_setscheduler(2)."""
    if not address:
        raise OSError(errno.EINVAL, "")
    other = _thread(task, tid)
    _may_change(task, other)
    _buffer[:4] = task.read(address, 4)
    return direct_call(NUMBERS["sched_setscheduler"], other.context.ident, policy, _address)


@call("sched_getparam")
def sched_getparam(task: Task, tid: Int, address: Word) -> int:
    """sched_getparam(2)."""
    if not address:
        raise OSError(errno.EINVAL, "")
    direct_call(NUMBERS["sched_getparam"], _ident(task, tid), _address)
    task.write(address, _buffer[:4])
    return 0


@call("sched_setparam")
def sched_setparam(task: Task, tid: Int, address: Word) -> int:
    """sched_setparam(2)."""
    if not address:
        raise OSError(errno.EINVAL, "")
    other = _thread(task, tid)
    _may_change(task, other)
    _buffer[:4] = task.read(address, 4)
    return direct_call(NUMBERS["sched_setparam"], other.context.ident, _address)


@call("sched_getattr")
def sched_getattr(task: Task, tid: Int, address: Word, size: Uint, flags: Uint) -> int:
    """sched_getattr(2)."""
    if not address or not SCHED_ATTR_SIZE_0 <= size <= SCHED_ATTR_MAX or flags:
        raise OSError(errno.EINVAL, "")
    direct_call(NUMBERS["sched_getattr"], _ident(task, tid), _address, size, 0)
    task.write(address, _buffer[: min(size, int.from_bytes(_buffer[:4], "little"))])
    return 0


@call("sched_setattr")
def sched_setattr(task: Task, tid: Int, address: Word, flags: Uint) -> int:
    """sched_setattr(2)."""
    if not address or flags:
        raise OSError(errno.EINVAL, "")
    other = _thread(task, tid)
    _may_change(task, other)
    size = int.from_bytes(task.read(address, 4), "little") or SCHED_ATTR_SIZE_0
    if size > SCHED_ATTR_MAX:
        raise OSError(errno.E2BIG, "")
    _buffer[:size] = task.read(address, size)
    return direct_call(NUMBERS["sched_setattr"], other.context.ident, _address, 0)


@call("sched_rr_get_interval")
def sched_rr_get_interval(task: Task, tid: Int, address: Word) -> int:
    """sched_rr_get_interval(2)."""
    direct_call(NUMBERS["sched_rr_get_interval"], _ident(task, tid), _address)
    task.write(address, _buffer[:16])
    return 0


@call("sched_get_priority_max")
def sched_get_priority_max(task: Task, policy: Int) -> int:
    """sched_get_priority_max(2)."""
    return direct_call(NUMBERS["sched_get_priority_max"], policy)


@call("sched_get_priority_min")
def sched_get_priority_min(task: Task, policy: Int) -> int:
    """sched_get_priority_min(2)."""
    return direct_call(NUMBERS["sched_get_priority_min"], policy)


def _named(task: Task, which: int, who: int) -> Iterator[Task]:
    """The threads that getpriority(2) and ioprio_get(2) name."""
    if which == PRIO_PROCESS:
        found = task if not who else task.kernel.tasks.get(who)
        if found is not None:
            yield found
    elif which == PRIO_PGRP:
        group = who or task.process.group
        for process in task.kernel.processes.values():
            if process.group == group:
                yield from process.tasks.values()
    elif which == PRIO_USER:
        uid = who or task.credentials.uid
        for process in task.kernel.processes.values():
            yield from (thread for thread in process.tasks.values() if thread.credentials.uid == uid)
    else:
        raise OSError(errno.EINVAL, "")


@call("getpriority")
def getpriority(task: Task, which: Int, who: Int) -> int:
    """getpriority(2), as the call itself has it: 20 - nice."""
    values = [os.getpriority(os.PRIO_PROCESS, other.context.ident) for other in _named(task, which, who)]
    if not values:
        raise OSError(errno.ESRCH, "")
    return NICE_ZERO - min(values)


@call("setpriority", note="a guest's root may not lower niceness where the host does not let the caller")
def setpriority(task: Task, which: Int, who: Int, nice: Int) -> int:
    """setpriority(2)."""
    found = False
    for other in _named(task, which, who):
        found = True
        _may_change(task, other)
        os.setpriority(os.PRIO_PROCESS, other.context.ident, nice)
    if not found:
        raise OSError(errno.ESRCH, "")
    return 0


@call("ioprio_get")
def ioprio_get(task: Task, which: Int, who: Int) -> int:
    """ioprio_get(2)."""
    values = [
        direct_call(NUMBERS["ioprio_get"], IOPRIO_WHO_PROCESS, other.context.ident)
        for other in _named(task, which - 1, who)
    ]
    if not values:
        raise OSError(errno.ESRCH, "")
    return min(values)


@call("ioprio_set")
def ioprio_set(task: Task, which: Int, who: Int, priority: Int) -> int:
    """ioprio_set(2)."""
    found = False
    for other in _named(task, which - 1, who):
        found = True
        _may_change(task, other)
        direct_call(NUMBERS["ioprio_set"], IOPRIO_WHO_PROCESS, other.context.ident, priority)
    if not found:
        raise OSError(errno.ESRCH, "")
    return 0


@call("getcpu")
def getcpu(task: Task, processor: Word, node: Word, cache: Word) -> int:
    """getcpu(2): the processor the thread last ran on; one node."""
    descriptor = os.open(f"{task.context.ident}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=task.kernel.procfs)
    try:
        fields = os.read(descriptor, 1024).rpartition(b")")[2].split()
    finally:
        os.close(descriptor)
    if processor:
        task.write(processor, int(fields[PROCESSOR]).to_bytes(4, "little"))
    if node:
        task.write(node, bytes(4))
    return 0


@call("membarrier")
def membarrier(task: Task, command: Int, flags: Uint, processor: Int) -> int:
    """membarrier(2): the host's, made in the guest's own address space, which its barriers are about."""
    return task.context.inject(NUMBERS["membarrier"], command, flags, processor)


@call("get_mempolicy", note="as a machine with one memory node")
def get_mempolicy(task: Task, mode: Word, mask: Word, bits: Word, address: Word, flags: Long) -> int:
    """get_mempolicy(2)."""
    if mode:
        task.write(mode, bytes(4))  # MPOL_DEFAULT, or node 0
    if mask:
        task.write(mask, bytes((bits + 63) // 64 * 8 if bits < 8 * MASK_MAX else 8))
    return 0


refuse(errno.ENOSYS, "no restartable sequences, as on a kernel without them", "rseq")
refuse(
    errno.ENOSYS,
    "one memory node, as on a kernel without NUMA",
    *("mbind", "set_mempolicy", "set_mempolicy_home_node", "migrate_pages", "move_pages"),
)
