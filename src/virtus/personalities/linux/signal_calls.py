"""System calls about signals: dispositions, masks, sending, waiting, and interval timers."""

import errno
from struct import Struct
from typing import Final

from virtus.personalities.linux import delivery, siginfo
from virtus.personalities.linux.abi.stacks import SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, BadFrame, on_alternate_stack
from virtus.personalities.linux.blocking import FOREVER, Blocking, Interrupted, Wait, WaitQueue, after
from virtus.personalities.linux.results import NO_RESULT
from virtus.personalities.linux.signals import SA_RESTORER, SIG_DFL, SIG_IGN, SIGNAL_COUNT, UNBLOCKABLE, Action
from virtus.personalities.linux.table import Int, Word, call
from virtus.personalities.linux.task import Process, Task

MASK_BYTES: Final = 8  # sizeof(sigset_t)
SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = 0, 1, 2  # include/uapi/asm-generic/signal-defs.h
KNOWN_FLAGS: Final = 0xD8000807  # UAPI_SA_FLAGS; others are cleared, so that programs can probe
MINSIGSTKSZ: Final = 2048
RLIMIT_SIGPENDING: Final = 11
NANOSECONDS: Final = 1_000_000_000

RESTORER_SIZE: Final = 32
"""Of a struct sigaction that names the code to return through; there is none where the kernel has a page for that."""
FAULTS: Final = (7, 11)  # SIGBUS, SIGSEGV
_STACK = Struct("<Qi4xQ")  # stack_t
_TIMESPEC = Struct("<qq")


def _check_size(size: int) -> None:
    if size != MASK_BYTES:
        raise OSError(errno.EINVAL, "")


def _read_mask(task: Task, address: int) -> int:
    return int.from_bytes(task.read(address, MASK_BYTES), "little") & ~UNBLOCKABLE


def _write_mask(task: Task, address: int, mask: int) -> None:
    task.write(address, (mask & 2**64 - 1).to_bytes(MASK_BYTES, "little"))


# Dispositions and masks


@call("rt_sigaction")
def rt_sigaction(task: Task, number: Int, new: Word, old: Word, size: Word) -> int:
    """sigaction(2)."""
    _check_size(size)
    if not 1 <= number <= SIGNAL_COUNT or (new and UNBLOCKABLE >> (number - 1) & 1):
        raise OSError(errno.EINVAL, "")
    process = task.process
    structure = task.kernel.abi.action
    before = process.actions.get(number)
    if new:
        handler, flags, *restorer, mask = structure.unpack(task.read(new, structure.size))
        known = KNOWN_FLAGS | SA_RESTORER if restorer else KNOWN_FLAGS
        action = Action(handler, flags & known, restorer[0] if restorer else 0, mask & ~UNBLOCKABLE)
        process.actions.actions[number] = action
        bit = 1 << (number - 1)
        if number in FAULTS and handler > SIG_IGN:
            task.context.precise_faults()
        if handler == SIG_IGN or (handler == SIG_DFL and delivery.IGNORED & bit):
            delivery.discard(process, bit)
    if old:
        restorer = [before.restorer] * (structure.size == RESTORER_SIZE)
        task.write(old, structure.pack(before.handler, before.flags, *restorer, before.mask))
    return 0


@call("rt_sigprocmask")
def rt_sigprocmask(task: Task, how: Int, new: Word, old: Word, size: Word) -> int:
    """sigprocmask(2)."""
    _check_size(size)
    before = task.blocked
    if new:
        mask = int.from_bytes(task.read(new, MASK_BYTES), "little") & ~UNBLOCKABLE
        if how == SIG_BLOCK:
            task.blocked = before | mask
        elif how == SIG_UNBLOCK:
            task.blocked = before & ~mask
        elif how == SIG_SETMASK:
            task.blocked = mask
        else:
            raise OSError(errno.EINVAL, "")
    if old:
        _write_mask(task, old, before)
    return 0


@call("rt_sigpending")
def rt_sigpending(task: Task, address: Word, size: Word) -> int:
    """sigpending(2)."""
    if size > MASK_BYTES:
        raise OSError(errno.EINVAL, "")
    pending = (task.pending.bits | task.process.pending.bits) & task.blocked
    task.write(address, pending.to_bytes(MASK_BYTES, "little")[:size])
    return 0


@call("sigaltstack")
def sigaltstack(task: Task, new: Word, old: Word) -> int:
    """sigaltstack(2)."""
    inside = on_alternate_stack(task, task.regs[task.kernel.abi.stack])
    start, flags, size = task.alternate_stack
    if new:
        pointer, wanted, length = _STACK.unpack(task.read(new, _STACK.size))
        wanted &= 0xFFFFFFFF
        if inside:
            raise OSError(errno.EPERM, "")
        if wanted & ~SS_AUTODISARM not in (0, SS_ONSTACK, SS_DISABLE):
            raise OSError(errno.EINVAL, "")
        if wanted & SS_DISABLE:
            task.alternate_stack = (0, SS_DISABLE, 0)
        elif length < MINSIGSTKSZ:
            raise OSError(errno.ENOMEM, "")
        else:
            task.alternate_stack = (pointer, wanted & SS_AUTODISARM, length)
    if old:
        shown = flags & (SS_AUTODISARM | SS_DISABLE) | (SS_ONSTACK if inside else 0)
        task.write(old, _STACK.pack(start, (shown ^ 1 << 31) - (1 << 31), size))
    return 0


@call("rt_sigreturn")
def rt_sigreturn(task: Task) -> int:
    """sigreturn(2): back from a handler."""
    try:
        task.kernel.abi.frames.restore(task)
    except BadFrame:
        delivery.force(task, delivery.SIGSEGV, siginfo.kernel(delivery.SIGSEGV))
    return NO_RESULT


# Sending


def _check_number(number: int) -> None:
    if not 0 <= number <= SIGNAL_COUNT:
        raise OSError(errno.EINVAL, "")


def _find(task: Task, pid: int) -> Process:
    """The process of a process or thread number; raises ESRCH."""
    process = task.kernel.processes.get(pid)
    if process is None:
        thread = task.kernel.tasks.get(pid)
        if thread is None:
            raise OSError(errno.ESRCH, "")
        process = thread.process
    return process


def _send_to_all(task: Task, processes: list[Process], number: int) -> int:
    """Send where allowed; EPERM when that was nobody, ESRCH when there was nobody."""
    if not processes:
        raise OSError(errno.ESRCH, "")
    allowed = [process for process in processes if delivery.may_signal(task, process, number)]
    if not allowed:
        raise OSError(errno.EPERM, "")
    if number:
        info = siginfo.sent(number, task)
        for process in allowed:
            delivery.post(process, number, info)
    return 0


@call("kill")
def kill(task: Task, pid: Int, number: Int) -> int:
    """kill(2)."""
    _check_number(number)
    kernel, own = task.kernel, task.process
    if pid > 0:
        return _send_to_all(task, [_find(task, pid)], number)
    if pid == -1:
        everyone = [process for process in kernel.processes.values() if process.pid > 1 and process is not own]
        return _send_to_all(task, everyone, number)
    group = own.group if pid == 0 else -pid
    return _send_to_all(task, [process for process in kernel.processes.values() if process.group == group], number)


def _thread(task: Task, group: int, tid: int, number: int) -> Task | None:
    """The thread a signal is for, None for a leader that has ended before its process; raises ESRCH and EPERM."""
    _check_number(number)
    if tid <= 0:
        raise OSError(errno.EINVAL, "")
    found = task.kernel.tasks.get(tid)
    process = found.process if found is not None else task.kernel.processes.get(tid)
    if process is None or (group > 0 and process.pid != group):
        raise OSError(errno.ESRCH, "")
    if not delivery.may_signal(task, process, number):
        raise OSError(errno.EPERM, "")
    return found


@call("tkill")
def tkill(task: Task, tid: Int, number: Int) -> int:
    """tkill(2)."""
    target = _thread(task, 0, tid, number)
    if target is not None:
        delivery.post_thread(target, number, siginfo.sent(number, task, siginfo.SI_TKILL))
    return 0


@call("tgkill")
def tgkill(task: Task, group: Int, tid: Int, number: Int) -> int:
    """tgkill(2)."""
    if group <= 0:
        raise OSError(errno.EINVAL, "")
    target = _thread(task, group, tid, number)
    if target is not None:
        delivery.post_thread(target, number, siginfo.sent(number, task, siginfo.SI_TKILL))
    return 0


def _given_info(task: Task, address: int, number: int, pid: int) -> bytes:
    """A siginfo_t from the guest, which must not pretend to be the kernel's; raises EPERM."""
    info = bytearray(task.read(address, siginfo.SIZE))
    info[:4] = number.to_bytes(4, "little", signed=True)
    code = siginfo.code_of(bytes(info))
    if (code >= 0 or code == siginfo.SI_TKILL) and pid != task.process.pid:
        raise OSError(errno.EPERM, "")
    return bytes(info)


def _check_queue(task: Task, process: Process) -> None:
    limit = task.process.limits.get(RLIMIT_SIGPENDING)
    if limit is not None and len(process.pending.queue) >= limit[0]:
        raise OSError(errno.EAGAIN, "")


@call("rt_sigqueueinfo")
def rt_sigqueueinfo(task: Task, pid: Int, number: Int, address: Word) -> int:
    """rt_sigqueueinfo(2)."""
    info = _given_info(task, address, number, pid)
    _check_number(number)
    process = _find(task, pid)
    if not delivery.may_signal(task, process, number):
        raise OSError(errno.EPERM, "")
    _check_queue(task, process)
    delivery.post(process, number, info)
    return 0


@call("rt_tgsigqueueinfo")
def rt_tgsigqueueinfo(task: Task, group: Int, tid: Int, number: Int, address: Word) -> int:
    """rt_tgsigqueueinfo(2)."""
    if group <= 0:
        raise OSError(errno.EINVAL, "")
    info = _given_info(task, address, number, group)
    target = _thread(task, group, tid, number)
    if target is not None:
        _check_queue(task, target.process)
        delivery.post_thread(target, number, info)
    return 0


# Waiting


def _for_a_handler() -> Blocking:
    while True:
        yield Wait(restart=False)


@call("pause")
def pause(task: Task) -> Blocking:
    """pause(2)."""
    return _for_a_handler()


@call("rt_sigsuspend")
def rt_sigsuspend(task: Task, address: Word, size: Word) -> Blocking:
    """sigsuspend(2)."""
    _check_size(size)
    mask = _read_mask(task, address)
    task.restore_mask, task.blocked = task.blocked, mask
    return _for_a_handler()


@call("rt_sigtimedwait")
def rt_sigtimedwait(task: Task, wanted: Word, info: Word, timeout: Word, size: Word) -> "int | Blocking":
    """sigtimedwait(2)."""
    _check_size(size)
    mask = _read_mask(task, wanted)
    deadline = FOREVER
    if timeout:
        seconds, nanoseconds = _TIMESPEC.unpack(task.read(timeout, _TIMESPEC.size))
        if seconds < 0 or not 0 <= nanoseconds < NANOSECONDS:
            raise OSError(errno.EINVAL, "")
        if seconds or nanoseconds:
            deadline = after(seconds * NANOSECONDS + nanoseconds)
    found = delivery.take(task, mask)
    if found is not None:
        return _taken(task, found, info)
    if timeout and deadline == FOREVER:
        raise OSError(errno.EAGAIN, "")
    return _await_signal(task, mask, info, deadline)


def _taken(task: Task, found: tuple[int, bytes], address: int) -> int:
    number, info = found
    if address:
        task.write(address, info)
    return number


def _await_signal(task: Task, mask: int, info: int, deadline: int) -> Blocking:
    queue = WaitQueue()
    waits = task.process.signal_waits
    waits[task] = (mask, queue)
    try:
        while True:
            in_time = yield Wait(queues=(queue,), deadline=deadline, restart=False)
            found = delivery.take(task, mask)
            if found is not None:
                return _taken(task, found, info)
            if not in_time:
                raise OSError(errno.EAGAIN, "")
    except Interrupted:
        found = delivery.take(task, mask)
        if found is None:
            raise OSError(errno.EINTR, "") from None
        return _taken(task, found, info)
    finally:
        waits.pop(task, None)
