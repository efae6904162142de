"""fork, vfork, clone, unshare and exit."""

import errno
import sys
from typing import Final

from virtus.isa.x86.layout import PAGE
from virtus.personalities.linux import delivery, lifecycle
from virtus.personalities.linux.abi.base import NO_SYSCALL
from virtus.personalities.linux.blocking import Blocking, Interrupted, Wait, WaitQueue
from virtus.personalities.linux.job_control import SIGCHLD
from virtus.personalities.linux.results import NO_RESULT
from virtus.personalities.linux.signals import SIGNAL_COUNT
from virtus.personalities.linux.table import Int, Word, call, refuse
from virtus.personalities.linux.task import Process, Task

CLONE_NEWTIME: Final = 0x80  # include/uapi/linux/sched.h
CSIGNAL: Final = 0xFF
CLONE_VM: Final = 0x100
CLONE_FS: Final = 0x200
CLONE_FILES: Final = 0x400
CLONE_SIGHAND: Final = 0x800
CLONE_PIDFD: Final = 0x1000
CLONE_VFORK: Final = 0x4000
CLONE_PARENT: Final = 0x8000
CLONE_THREAD: Final = 0x10000
CLONE_NEWNS: Final = 0x20000
CLONE_SYSVSEM: Final = 0x40000
CLONE_SETTLS: Final = 0x80000
CLONE_PARENT_SETTID: Final = 0x100000
CLONE_CHILD_CLEARTID: Final = 0x200000
CLONE_DETACHED: Final = 0x400000
CLONE_CHILD_SETTID: Final = 0x1000000
CLONE_CLEAR_SIGHAND: Final = 0x100000000
CLONE_INTO_CGROUP: Final = 0x200000000
NAMESPACES: Final = 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
CLONE3_FLAGS: Final = 0x3FFFFFFFF & ~(CLONE_DETACHED | CSIGNAL) | CLONE_NEWTIME
CLONE_ARGS_SIZES: Final = (64, 88)  # CLONE_ARGS_SIZE_VER0, VER2
RLIMIT_NPROC: Final = 6
RLIMIT_NOFILE: Final = 7
ROBUST_LIST_HEAD: Final = 24  # sizeof(struct robust_list_head), include/uapi/linux/futex.h


# Birth


def _check(flags: int) -> None:
    """The combinations that kernel/fork.c refuses."""
    if flags & NAMESPACES:
        raise OSError(errno.EPERM, "")
    if (flags & CLONE_SIGHAND and not flags & CLONE_VM) or (flags & CLONE_THREAD and not flags & CLONE_SIGHAND):
        raise OSError(errno.EINVAL, "")
    if flags & CLONE_PIDFD and flags & (CLONE_THREAD | CLONE_DETACHED):
        raise OSError(errno.EINVAL, "")
    if flags & CLONE_SIGHAND and flags & CLONE_CLEAR_SIGHAND:
        raise OSError(errno.EINVAL, "")


def _check_limit(task: Task) -> None:
    kernel = task.kernel
    count = len(kernel.tasks)
    most: int = kernel.spec.process_limit
    if count >= most:
        line = f"the machine's limit of {most} processes and threads was reached; more forks fail with EAGAIN"
        if not kernel.meter.notes[line]:
            print(f"virtus: {line}", file=sys.stderr, flush=True)
        kernel.meter.note(line)
        raise OSError(errno.EAGAIN, "")
    soft = task.process.limits.get(RLIMIT_NPROC)
    if soft is not None and count >= soft[0] and task.credentials.uid != 0:
        raise OSError(errno.EAGAIN, "")


def _clone(
    task: Task, flags: int, exit_signal: int, stack: int, parent_tid: int, child_tid: int, tls: int, pidfd: int
) -> "int | Blocking":
    _check(flags)
    if flags & CLONE_SETTLS and tls >= task.kernel.abi.user_end:
        raise OSError(errno.EPERM, "")
    if flags & CLONE_PIDFD:
        task.descriptors.lowest(0, task.limit(RLIMIT_NOFILE))
    if flags & CLONE_PARENT and task.process.parent is task.kernel.init:
        raise OSError(errno.EINVAL, "")
    _check_limit(task)
    context = task.context.fork(share_memory=bool(flags & CLONE_VM))
    if flags & CLONE_THREAD:
        process = task.process
        child = lifecycle.new_task(task, task.kernel.next_pid(), process, context)
    else:
        process = lifecycle.new_process(task, parent=task.process.parent if flags & CLONE_PARENT else None)
        process.exit_signal = task.process.exit_signal if flags & CLONE_PARENT else exit_signal
        process.actions = task.process.actions if flags & CLONE_SIGHAND else task.process.actions.copy()
        if flags & CLONE_CLEAR_SIGHAND:
            process.actions.reset_for_exec()
        child = lifecycle.new_task(task, process.pid, process, context)
    _share(task, child, flags)
    regs = child.regs
    abi = task.kernel.abi
    regs[abi.result], regs[abi.original] = 0, NO_SYSCALL
    if stack:
        regs[abi.stack] = stack
    if flags & CLONE_SETTLS:
        abi.set_thread_pointer(regs, tls)
    if flags & CLONE_CHILD_CLEARTID:
        child.clear_child_tid = child_tid
    lifecycle.enrol(child)
    if flags & CLONE_PIDFD:
        _give_pidfd(task, process, pidfd)
    word = child.tid.to_bytes(4, "little")
    if flags & CLONE_PARENT_SETTID:
        _store(task, parent_tid, word)
    if flags & CLONE_CHILD_SETTID:
        _store(child, child_tid, word)
    queue = lifecycle.lend_memory(process) if flags & CLONE_VFORK and not flags & CLONE_THREAD else None
    child.kernel.to_user_mode(child)
    if queue is not None:
        return _until_memory_is_back(task, process, queue, child.tid)
    return child.tid


def _share(task: Task, child: Task, flags: int) -> None:
    """What parent and child have in common, and what is copied."""
    if flags & CLONE_VM:
        child.memory = task.memory
        child.memory.sharers += 1
    else:
        child.memory = task.memory.copy()
    if flags & CLONE_FILES:
        child.descriptors = task.descriptors
        child.descriptors.sharers += 1
    else:
        child.descriptors = task.descriptors.copy()
        child.descriptors.sharers = 1
    child.place = task.place if flags & CLONE_FS else task.place.copy()
    if not flags & CLONE_VM or flags & CLONE_VFORK:
        child.alternate_stack = task.alternate_stack


def _store(task: Task, address: int, data: bytes) -> None:
    """A word that clone(2) leaves in memory; like Linux, it does not mind when it cannot."""
    try:
        task.write(address, data)
    except OSError:
        return


def _give_pidfd(task: Task, process: Process, address: int) -> None:
    from virtus.personalities.linux import events  # most programs never ask for one

    fd = task.open_descriptor(events.PidFile(process, 0), close_on_exec=True)
    _store(task, address, fd.to_bytes(4, "little"))


def _until_memory_is_back(task: Task, child: Process, queue: WaitQueue, tid: int) -> Blocking:
    """The parent of vfork(2) sleeps, for nothing but its own death, until the child execs or ends."""
    blocked = task.blocked
    task.blocked |= delivery.handled_mask(task.process)
    try:
        while child.vfork_done is queue:
            try:
                yield Wait(queues=(queue,))
            except Interrupted:
                if delivery.has_fatal(task):
                    raise
                task.blocked |= task.pending.bits | task.process.pending.bits
    finally:
        task.blocked = blocked
    return tid


@call("fork")
def fork(task: Task) -> int:
    """fork(2)."""
    result = _clone(task, 0, SIGCHLD, 0, 0, 0, 0, 0)
    assert isinstance(result, int)
    return result


@call("vfork")
def vfork(task: Task) -> "int | Blocking":
    """vfork(2): the child runs in the parent's memory, the parent sleeps."""
    return _clone(task, CLONE_VM | CLONE_VFORK, SIGCHLD, 0, 0, 0, 0, 0)


@call("clone", note="namespace flags are refused: EPERM")
def clone(task: Task, flags: Word, stack: Word, parent_tid: Word, child_tid: Word, tls: Word) -> "int | Blocking":
    """clone(2) with the argument order of x86-64; other processors have the last two the other way round."""
    flags &= 0xFFFFFFFF
    if task.kernel.abi.clone_backwards:
        child_tid, tls = tls, child_tid
    if flags & CLONE_PIDFD and flags & CLONE_PARENT_SETTID:
        raise OSError(errno.EINVAL, "")
    return _clone(task, flags & ~CSIGNAL, flags & CSIGNAL, stack, parent_tid, child_tid, tls, parent_tid)


@call("clone3", note="namespace and cgroup flags, and chosen process numbers, are refused: EPERM")
def clone3(task: Task, address: Word, size: Word) -> "int | Blocking":
    """clone3(2)."""
    if size > PAGE:
        raise OSError(errno.E2BIG, "")
    if size < CLONE_ARGS_SIZES[0]:
        raise OSError(errno.EINVAL, "")
    data = task.read(address, size)
    if any(data[CLONE_ARGS_SIZES[1] :]):
        raise OSError(errno.E2BIG, "")
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, 88, 8)]
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, _ = words
    if flags & ~CLONE3_FLAGS or exit_signal > SIGNAL_COUNT or (flags & (CLONE_THREAD | CLONE_PARENT) and exit_signal):
        raise OSError(errno.EINVAL, "")
    if bool(stack) != bool(stack_size):
        raise OSError(errno.EINVAL, "")
    if flags & (CLONE_INTO_CGROUP | CLONE_NEWTIME) or set_tid or set_tid_size:
        raise OSError(errno.EPERM, "")
    return _clone(task, flags, exit_signal, stack + stack_size, parent_tid, child_tid, tls, pidfd)


@call("unshare", note="descriptor table and place only; namespaces are refused: EPERM")
def unshare(task: Task, flags: Word) -> int:
    """unshare(2)."""
    if flags & (NAMESPACES | CLONE_NEWTIME):
        raise OSError(errno.EPERM, "")
    if flags & ~(CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_VM | CLONE_SIGHAND | CLONE_THREAD):
        raise OSError(errno.EINVAL, "")
    if flags & (CLONE_VM | CLONE_SIGHAND | CLONE_THREAD) and len(task.process.tasks) > 1:
        raise OSError(errno.EINVAL, "")
    if flags & CLONE_FILES:
        lifecycle.own_descriptors(task)
    if flags & CLONE_FS:
        task.place = task.place.copy()
    return 0


# The end


@call("exit")
def exit_(task: Task, code: Int) -> int:
    """exit(2): of one thread."""
    lifecycle.exit_task(task, (code & 0xFF) << 8)
    return NO_RESULT


@call("exit_group")
def exit_group(task: Task, code: Int) -> int:
    """exit_group(2): of the process."""
    lifecycle.exit_process(task.process, code)
    return NO_RESULT


# What a thread leaves behind


@call("set_tid_address")
def set_tid_address(task: Task, address: Word) -> int:
    """set_tid_address(2)."""
    task.clear_child_tid = address
    return task.tid


@call("set_robust_list")
def set_robust_list(task: Task, head: Word, size: Word) -> int:
    """set_robust_list(2)."""
    if size != ROBUST_LIST_HEAD:
        raise OSError(errno.EINVAL, "")
    task.robust_list = head
    return 0


@call("get_robust_list")
def get_robust_list(task: Task, pid: Int, head: Word, size: Word) -> int:
    """get_robust_list(2)."""
    other = task.kernel.tasks.get(pid) if pid else task
    if other is None:
        raise OSError(errno.ESRCH, "")
    if other.process is not task.process and not delivery.may_signal(task, other.process, 0):
        raise OSError(errno.EPERM, "")
    task.write(size, ROBUST_LIST_HEAD.to_bytes(8, "little"))
    task.write(head, other.robust_list.to_bytes(8, "little"))
    return 0


refuse(
    errno.EPERM, "a guest does not look into other processes", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp"
)
refuse(errno.EPERM, "namespaces are the machine's own", "setns")
