"""Resource limits: a table of the guest's own, seeded from the caller's; some are kept by the host on the stubs."""

import errno
import resource
from struct import Struct
from typing import Final

from virtus.personalities.linux.table import Int, Uint, Word, call
from virtus.personalities.linux.task import Process, Task

INFINITY: Final = 2**64 - 1  # RLIM64_INFINITY, include/uapi/linux/resource.h
RLIMITS: Final = 16  # RLIM_NLIMITS, include/uapi/asm-generic/resource.h
RLIMIT_CPU: Final = 0
RLIMIT_DATA: Final = 2
RLIMIT_NOFILE: Final = 7
RLIMIT_MEMLOCK: Final = 8
RLIMIT_AS: Final = 9
NR_OPEN: Final = 1 << 20  # the default of /proc/sys/fs/nr_open
CAP_SYS_RESOURCE: Final = 1 << 24  # include/uapi/linux/capability.h
ON_THE_HOST: Final = (RLIMIT_CPU, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_AS)
"""What only the host can count. Each thread is a stub of its own: processor time is limited thread by thread."""
OF_THE_SPACE: Final = frozenset({RLIMIT_DATA, RLIMIT_AS})
"""What counts a stub's address space. That of an emulated program holds far more than the guest's own: there
`placement` and brk(2) keep them."""
PAIR: Final = Struct("<QQ")

Limits = dict[int, tuple[int, int]]

_host: Limits = {}
"""What every stub starts with."""


def initial_limits() -> Limits:
    """The caller's own limits, for a guest's first process."""
    limits = {
        number: (soft & INFINITY, hard & INFINITY)
        for number, (soft, hard) in ((number, resource.getrlimit(number)) for number in range(RLIMITS))
    }
    _host.clear()
    _host.update({number: limits[number] for number in ON_THE_HOST})
    return limits


def _for_host(value: int) -> int:
    return value if value < 2**63 else resource.RLIM_INFINITY


def _enforce(process: Process, number: int, limit: tuple[int, int]) -> None:
    """Have the host keep a limit on every thread's stub. What the host does not let be raised stays as it is there."""
    if process.kernel.abi.places and number in OF_THE_SPACE:
        return
    pair = (_for_host(limit[0]), _for_host(limit[1]))
    for task in process.tasks.values():
        try:
            resource.prlimit(task.context.ident, number, pair)
        except PermissionError:
            task.kernel.meter.note("a resource limit above the host's own has no effect")
        except ProcessLookupError:
            pass  # it is ending


def enforce_on_fresh(task: Task) -> None:
    """A task has got a new context: the limits that the host keeps follow it there."""
    for number in ON_THE_HOST:
        limit = task.process.limits[number]
        if limit != _host.get(number):
            _enforce(task.process, number, limit)


def _change(task: Task, process: Process, number: int, soft: int, hard: int) -> None:
    if soft > hard or number >= RLIMITS:
        raise OSError(errno.EINVAL, "")
    if number == RLIMIT_NOFILE and hard > NR_OPEN:
        raise OSError(errno.EPERM, "")
    if hard > process.limits[number][1] and not task.credentials.effective & CAP_SYS_RESOURCE:
        raise OSError(errno.EPERM, "")
    process.limits[number] = (soft, hard)
    if number in ON_THE_HOST:
        # a processor-time limit of 0 would kill at once; Linux takes it for one second
        _enforce(process, number, (max(soft, 1), max(hard, 1)) if number == RLIMIT_CPU else (soft, hard))


def _process(task: Task, pid: int) -> Process:
    """Whose limits a pid names, as prlimit(2) allows it."""
    if not pid:
        return task.process
    other = task.kernel.tasks.get(pid)
    if other is None:
        raise OSError(errno.ESRCH, "")
    mine, theirs = task.credentials, other.credentials
    same = {theirs.uid, theirs.euid, theirs.suid} == {mine.uid} and {theirs.gid, theirs.egid, theirs.sgid} == {mine.gid}
    if other.process is not task.process and not same and not mine.effective & CAP_SYS_RESOURCE:
        raise OSError(errno.EPERM, "")
    return other.process


@call("getrlimit")
def getrlimit(task: Task, number: Uint, address: Word) -> int:
    """getrlimit(2)."""
    if number >= RLIMITS:
        raise OSError(errno.EINVAL, "")
    task.write(address, PAIR.pack(*task.process.limits[number]))
    return 0


@call("setrlimit")
def setrlimit(task: Task, number: Uint, address: Word) -> int:
    """setrlimit(2)."""
    _change(task, task.process, number, *PAIR.unpack(task.read(address, PAIR.size)))
    return 0


@call("prlimit64")
def prlimit64(task: Task, pid: Int, number: Uint, new: Word, old: Word) -> int:
    """prlimit(2)."""
    if number >= RLIMITS:
        raise OSError(errno.EINVAL, "")
    wanted = PAIR.unpack(task.read(new, PAIR.size)) if new else None
    process = _process(task, pid)
    before = process.limits[number]
    if wanted:
        _change(task, process, number, *wanted)
    if old:
        task.write(old, PAIR.pack(*before))
    return 0
