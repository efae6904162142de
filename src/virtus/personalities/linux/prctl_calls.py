"""prctl(2) and arch_prctl(2): attributes of a process or thread that have no call of their own."""

import errno
from typing import Final

from virtus.isa.x86 import registers as r
from virtus.personalities.linux.signals import SIGNAL_COUNT
from virtus.personalities.linux.table import Int, Word, call
from virtus.personalities.linux.task import Task

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG: Final = 1
PR_GET_PDEATHSIG: Final = 2
PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4
PR_GET_KEEPCAPS: Final = 7
PR_SET_KEEPCAPS: Final = 8
PR_GET_TIMING: Final = 13
PR_SET_TIMING: Final = 14
PR_SET_NAME: Final = 15
PR_GET_NAME: Final = 16
PR_GET_SECCOMP: Final = 21
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_GET_TSC: Final = 25
PR_GET_SECUREBITS: Final = 27
PR_SET_TIMERSLACK: Final = 29
PR_GET_TIMERSLACK: Final = 30
PR_SET_CHILD_SUBREAPER: Final = 36
PR_GET_CHILD_SUBREAPER: Final = 37
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39
PR_GET_TID_ADDRESS: Final = 40
PR_SET_THP_DISABLE: Final = 41
PR_GET_THP_DISABLE: Final = 42
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_IS_SET: Final = 1
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
PR_SET_VMA: Final = 0x53564D41
PR_SET_PTRACER: Final = 0x59616D61
PR_TSC_ENABLE: Final = 1
LAST_CAPABILITY: Final = 40  # CAP_CHECKPOINT_RESTORE, include/uapi/linux/capability.h
TIMER_SLACK: Final = 50_000  # ns, the default of init/init_task.c
NAME_BYTES: Final = 16  # TASK_COMM_LEN

# arch/x86/include/uapi/asm/prctl.h
ARCH_SET_GS: Final = 0x1001
ARCH_SET_FS: Final = 0x1002
ARCH_GET_FS: Final = 0x1003
ARCH_GET_GS: Final = 0x1004
ARCH_GET_CPUID: Final = 0x1011


def _answer(task: Task, address: int, value: int) -> int:
    task.write(address, value.to_bytes(4, "little"))
    return 0


@call("prctl", note="names, death signal, dumpable, no_new_privs, subreaper and what reads as Linux's default")
def prctl(task: Task, option: Int, first: Word, second: Word, third: Word, fourth: Word) -> int:
    """prctl(2)."""
    process = task.process
    rest = second or third or fourth
    if option == PR_SET_NAME:
        task.name = _name(task, first)
    elif option == PR_GET_NAME:
        task.write(first, task.name[: NAME_BYTES - 1].ljust(NAME_BYTES, b"\0"))
    elif option == PR_SET_PDEATHSIG:
        if first > SIGNAL_COUNT:
            raise OSError(errno.EINVAL, "")
        task.death_signal = first
    elif option == PR_GET_PDEATHSIG:
        return _answer(task, first, task.death_signal)
    elif option == PR_GET_DUMPABLE:
        return process.dumpable
    elif option == PR_SET_DUMPABLE:
        if first > 1:
            raise OSError(errno.EINVAL, "")
        process.dumpable = first
    elif option == PR_SET_NO_NEW_PRIVS:
        if first != 1 or rest:
            raise OSError(errno.EINVAL, "")
        process.no_new_privileges = True
    elif option == PR_GET_NO_NEW_PRIVS:
        if first or rest:
            raise OSError(errno.EINVAL, "")
        return int(process.no_new_privileges)
    elif option == PR_SET_CHILD_SUBREAPER:
        process.subreaper = bool(first)
    elif option == PR_GET_CHILD_SUBREAPER:
        return _answer(task, first, int(process.subreaper))
    elif option == PR_GET_TID_ADDRESS:
        task.write(first, task.clear_child_tid.to_bytes(8, "little"))
    else:
        return _constant(task, option, first, second)
    return 0


def _name(task: Task, address: int) -> bytes:
    """At most 15 bytes; longer names are cut."""
    raw = task.context.read_partial(address, NAME_BYTES - 1)
    if not raw:
        raise OSError(errno.EFAULT, "")
    return raw.split(b"\0", 1)[0]


def _constant(task: Task, option: int, first: int, second: int) -> int:
    """Options that always read the same here, or may be set to nothing else."""
    if option in (PR_GET_KEEPCAPS, PR_GET_TIMING, PR_GET_SECCOMP, PR_GET_SECUREBITS, PR_GET_THP_DISABLE):
        return 0
    if option in (PR_SET_TIMERSLACK, PR_SET_THP_DISABLE, PR_SET_VMA, PR_SET_PTRACER):
        return 0  # advice
    if option == PR_GET_TIMERSLACK:
        return TIMER_SLACK
    if option == PR_SET_KEEPCAPS and first <= 1:
        return 0
    if option == PR_SET_TIMING and first == 0:
        return 0
    if option == PR_GET_TSC:
        return _answer(task, first, PR_TSC_ENABLE)
    if option == PR_CAPBSET_READ and first <= LAST_CAPABILITY:
        return 1
    if option == PR_CAPBSET_DROP and first <= LAST_CAPABILITY:
        if task.credentials.euid != 0:
            raise OSError(errno.EPERM, "")
        return 0
    if option == PR_CAP_AMBIENT and first in (PR_CAP_AMBIENT_CLEAR_ALL, PR_CAP_AMBIENT_IS_SET):
        if first == PR_CAP_AMBIENT_IS_SET and second > LAST_CAPABILITY:
            raise OSError(errno.EINVAL, "")
        return 0
    if option == PR_SET_SECCOMP:
        task.kernel.meter.note("prctl PR_SET_SECCOMP refused: guests have no seccomp filters")
    raise OSError(errno.EINVAL, "")


@call("arch_prctl", note="segment bases only")
def arch_prctl(task: Task, option: Int, address: Word) -> int:
    """arch_prctl(2)."""
    regs = task.regs
    if option in (ARCH_SET_FS, ARCH_SET_GS):
        if address >= task.kernel.abi.user_end:
            raise OSError(errno.EPERM, "")
        regs[r.FS_BASE if option == ARCH_SET_FS else r.GS_BASE] = address
    elif option in (ARCH_GET_FS, ARCH_GET_GS):
        task.write(address, int(regs[r.FS_BASE if option == ARCH_GET_FS else r.GS_BASE]).to_bytes(8, "little"))
    elif option == ARCH_GET_CPUID:
        return 1
    else:
        raise OSError(errno.EINVAL, "")
    return 0
