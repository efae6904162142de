"""Signals: queues, dispositions, frames, restarts, stopping; through whole exits of a fake machine."""

import errno
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linux.fake import BASE, CODE, SIZE, FakeContext, FakeMachine
from virtus.isa.x86 import registers as r
from virtus.personalities.linux import delivery, siginfo
from virtus.personalities.linux.abi import frames_x86_64
from virtus.personalities.linux.signals import (
    REALTIME,
    SA_NODEFER,
    SA_ONSTACK,
    SA_RESETHAND,
    SA_RESTART,
    SA_RESTORER,
    SA_SIGINFO,
    SIG_IGN,
    UNBLOCKABLE,
    Action,
    Pending,
)
from virtus.personalities.linux.task import Task

HANDLER, RESTORER = 0x401000, 0x402000
USR1, USR2 = 10, 12
SCRATCH = BASE + 512
ALT_STACK = BASE + 0x10000
TSTP, CONT, KILL, STOP = 20, 18, 9, 19


@pytest.fixture
def machine() -> Iterator[FakeMachine]:
    made = FakeMachine()
    yield made
    made.close()


def catch(machine: FakeMachine, number: int, flags: int = 0, mask: int = 0, handler: int = HANDLER) -> None:
    action = struct.pack("<QQQQ", handler, flags | SA_RESTORER, RESTORER, mask)
    assert machine.call("rt_sigaction", number, machine.store(action), 0, 8) == 0


def block(machine: FakeMachine, *numbers: int, task: Task | None = None) -> None:
    mask = machine.store(sum(1 << (number - 1) for number in numbers).to_bytes(8, "little"))
    (task or machine.task).write(mask, machine.task.read(mask, 8))
    assert machine.call("rt_sigprocmask", 2, mask, 0, 8, task=task) == 0


def in_handler(task: Task) -> bool:
    return bool(task.regs[r.RIP] == HANDLER)


def leave_handler(machine: FakeMachine, task: Task | None = None) -> None:
    """What `ret` and the restorer do."""
    task = task or machine.task
    assert task.read(task.regs[r.RSP], 8) == RESTORER.to_bytes(8, "little")
    task.regs[r.RSP] += 8
    machine.call("rt_sigreturn", task=task)


# The queue


@given(st.lists(st.integers(1, 64)))
def test_pending_keeps_one_of_each_standard_signal_and_all_real_time_ones(numbers: list[int]) -> None:
    pending = Pending()
    for serial, number in enumerate(numbers):
        pending.add(number, bytes([serial % 256]))
    taken = []
    while (found := pending.take(-1)) is not None:
        taken.append(found)
    expected = sorted(number for number in numbers if number >= REALTIME)
    standard = sorted({number for number in numbers if number < REALTIME})
    assert [number for number, _ in taken] == standard + expected
    assert pending.bits == 0
    assert not pending.queue


@given(st.lists(st.integers(1, 64)), st.integers(0, 2**64 - 1))
def test_discarding_leaves_exactly_the_rest(numbers: list[int], mask: int) -> None:
    pending = Pending()
    for number in numbers:
        pending.add(number, b"")
    pending.discard(mask)
    assert all(not mask >> (number - 1) & 1 for number, _ in pending.queue)
    assert pending.bits == sum(1 << (number - 1) for number in {number for number, _ in pending.queue})


# siginfo_t


@given(st.integers(1, 64), st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_a_queued_signal_tells_who_and_what(number: int, pid: int, uid: int, value: int) -> None:
    info = siginfo.queued(number, siginfo.SI_QUEUE, pid, uid, value)
    assert len(info) == siginfo.SIZE
    assert struct.unpack_from("<iii", info) == (number, 0, siginfo.SI_QUEUE)
    assert struct.unpack_from("<iIQ", info, 16) == (pid, uid, value)


@given(st.integers(0, 2**64 - 1))
def test_a_fault_tells_where(address: int) -> None:
    info = siginfo.fault(11, siginfo.SEGV_MAPERR, address)
    assert siginfo.address_of(info) == address
    assert siginfo.code_of(info) == siginfo.SEGV_MAPERR


# Handlers


def test_a_handler_runs_with_the_abi_s_registers_and_returns_to_where_it_was(machine: FakeMachine) -> None:
    catch(machine, USR1, SA_SIGINFO)
    task = machine.task
    task.regs[r.RBX], task.regs[r.EFLAGS] = 0x1234, 0x202 | frames_x86_64.DIRECTION
    before = task.regs.tobytes()
    stack = task.regs[r.RSP]
    assert machine.call("kill", 2, USR1) == 0
    assert in_handler(task)
    assert task.regs[r.RDI] == USR1
    assert (task.regs[r.RSP] + 8) % 16 == 0
    assert task.regs[r.RSP] + frames_x86_64.FRAME_SIZE < stack - frames_x86_64.RED_ZONE
    assert not task.regs[r.EFLAGS] & frames_x86_64.DIRECTION
    info = task.read(task.regs[r.RSI], siginfo.SIZE)
    assert struct.unpack_from("<iiixxxxi", info) == (USR1, 0, siginfo.SI_USER, 2)
    assert task.blocked == 1 << (USR1 - 1)
    leave_handler(machine)
    assert task.blocked == 0
    after = memoryview(before).cast("Q").tolist()
    for index in (r.RBX, r.RSP, r.RIP, r.EFLAGS, r.RDX):
        assert task.regs[index] == after[index]
    assert machine.result() == 0


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=18, max_size=18), st.integers(0, 2**64 - 1), st.binary(max_size=400)
)
def test_a_frame_brings_back_what_it_took(values: list[int], mask: int, vector: bytes) -> None:
    machine = FakeMachine()
    try:
        task = machine.task
        for index, value in zip(frames_x86_64._GENERAL, values, strict=True):
            if index != r.RSP:
                task.regs[index] = value
        context = task.context
        assert isinstance(context, FakeContext)
        context.xstate[: len(vector)] = vector
        registers, state = list(task.regs), context.extended_state()
        action = Action(HANDLER, SA_RESTORER, RESTORER, 0)
        frames_x86_64.build(task, USR1, siginfo.kernel(USR1), action, mask)
        context.xstate[:] = bytes(len(state))
        for index in frames_x86_64._GENERAL:
            if index != r.RSP:
                task.regs[index] = 0
        task.regs[r.RSP] += 8
        frames_x86_64.restore(task)
        flags = frames_x86_64.RESTORABLE_FLAGS
        for index in frames_x86_64._GENERAL:
            keep = flags if index == r.EFLAGS else 2**64 - 1
            assert task.regs[index] & keep == registers[index] & keep
        assert task.blocked == mask & ~UNBLOCKABLE
        assert bytes(context.xstate[:464]) == state[:464]
        assert context.xstate[512] == state[512] | frames_x86_64.SSE
        assert bytes(context.xstate[513:]) == state[513:]
    finally:
        machine.close()


def test_a_frame_cannot_change_what_is_the_system_s(machine: FakeMachine) -> None:
    catch(machine, USR1)
    task = machine.task
    machine.call("kill", 2, USR1)
    frame = task.regs[r.RSP]
    flags_at = frame + 8 + 40 + 17 * 8
    task.write(flags_at, (0x3000 | 1 << 9 | 1 << 17).to_bytes(8, "little"))  # IOPL 3, no interrupts, VM
    task.write(flags_at + 8, b"\xff" * 8)  # selectors
    leave_handler(machine)
    assert task.regs[r.EFLAGS] & 0x23200 == 0x200
    assert (task.regs[r.CS], task.regs[r.SS]) == (0x33, 0x2B)


def test_a_stack_without_room_kills_with_segv(machine: FakeMachine) -> None:
    catch(machine, USR1)
    machine.task.regs[r.RSP] = BASE + 100
    machine.call("kill", 2, USR1)
    assert machine.kernel.exit_status == 11


def test_the_alternate_stack_is_used_and_reported(machine: FakeMachine) -> None:
    catch(machine, USR1, SA_ONSTACK)
    stack = machine.store(struct.pack("<Qi4xQ", ALT_STACK, 0, 0x8000))
    assert machine.call("sigaltstack", stack, 0) == 0
    machine.call("kill", 2, USR1)
    assert ALT_STACK < machine.task.regs[r.RSP] < ALT_STACK + 0x8000
    assert machine.call("sigaltstack", 0, SCRATCH) == 0
    assert struct.unpack("<Qi4xQ", machine.task.read(SCRATCH, 24)) == (ALT_STACK, 1, 0x8000)
    assert machine.call("sigaltstack", stack, 0) == -errno.EPERM


def test_an_alternate_stack_that_overflows_kills(machine: FakeMachine) -> None:
    catch(machine, USR1, SA_ONSTACK | SA_NODEFER)
    assert machine.call("sigaltstack", machine.store(struct.pack("<Qi4xQ", ALT_STACK, 0, 2048)), 0) == 0
    for _ in range(3):
        machine.call("kill", 2, USR1)
    assert machine.kernel.exit_status == 11


def test_resethand_and_nodefer(machine: FakeMachine) -> None:
    catch(machine, USR1, SA_RESETHAND | SA_NODEFER)
    machine.call("kill", 2, USR1)
    assert in_handler(machine.task)
    assert machine.task.blocked == 0
    machine.call("kill", 2, USR1)
    assert machine.kernel.exit_status == USR1


def test_two_signals_stack_and_the_mask_holds_back_the_second(machine: FakeMachine) -> None:
    catch(machine, USR1, mask=1 << (USR2 - 1))
    catch(machine, USR2, handler=HANDLER + 16)
    machine.call("kill", 2, USR1)
    machine.call("kill", 2, USR2)
    assert in_handler(machine.task)
    leave_handler(machine)
    assert machine.task.regs[r.RIP] == HANDLER + 16
    leave_handler(machine)
    assert machine.task.regs[r.RIP] == CODE


# Faults


def test_a_fault_reaches_its_handler_with_its_address(machine: FakeMachine) -> None:
    catch(machine, 11, SA_SIGINFO)
    machine.signal(11, info=siginfo.fault(11, siginfo.SEGV_ACCERR, 0xDEAD000))
    task = machine.task
    assert in_handler(task)
    assert siginfo.address_of(task.read(task.regs[r.RSI], 128)) == 0xDEAD000
    sigcontext = task.regs[r.RDX] + 40
    error, vector, _, address = struct.unpack("<4Q", task.read(sigcontext + 152, 32))
    assert (error & 1, vector, address) == (1, 14, 0xDEAD000)


@pytest.mark.parametrize("how", ["blocked", "ignored", "default"])
def test_a_fault_that_nobody_handles_kills(machine: FakeMachine, how: str) -> None:
    if how == "ignored":
        catch(machine, 11, handler=SIG_IGN)
    elif how == "blocked":
        catch(machine, 11)
        block(machine, 11)
    machine.signal(11, info=siginfo.fault(11, siginfo.SEGV_MAPERR, 8))
    assert machine.kernel.exit_status == 11


def test_a_fault_inside_the_fault_s_handler_kills(machine: FakeMachine) -> None:
    catch(machine, 11)
    machine.signal(11, info=siginfo.fault(11, siginfo.SEGV_MAPERR, 8))
    machine.signal(11, info=siginfo.fault(11, siginfo.SEGV_MAPERR, 8))
    assert machine.kernel.exit_status == 11


# Waiting calls


def test_a_sleeping_call_ends_with_eintr(machine: FakeMachine) -> None:
    catch(machine, USR1, SA_RESTART)
    child = machine.fork()
    assert machine.call("pause") is None
    assert machine.call("kill", 2, USR1, task=child) == 0
    assert in_handler(machine.task)
    leave_handler(machine)
    assert machine.result() == -errno.EINTR


@pytest.mark.parametrize("restart", [True, False])
def test_a_waiting_call_is_restarted_where_the_handler_says_so(machine: FakeMachine, restart: bool) -> None:
    catch(machine, USR1, SA_RESTART if restart else 0)
    child = machine.fork()
    assert machine.call("wait4", -1, 0, 0, 0) is None
    machine.call("kill", 2, USR1, task=child)
    assert in_handler(machine.task)
    leave_handler(machine)
    if restart:
        assert machine.task.regs[r.RIP] == CODE - 2
        assert machine.result() == 61  # wait4 again
    else:
        assert machine.task.regs[r.RIP] == CODE
        assert machine.result() == -errno.EINTR


def test_sigsuspend_handles_under_its_own_mask_and_returns_to_the_old_one(machine: FakeMachine) -> None:
    catch(machine, USR1)
    block(machine, USR1, USR2)
    child = machine.fork()
    machine.call("kill", 2, USR1, task=child)
    assert not in_handler(machine.task)
    machine.call("rt_sigsuspend", machine.store(bytes(8)), 8)
    assert in_handler(machine.task)
    assert machine.task.blocked == 1 << (USR1 - 1)
    leave_handler(machine)
    assert machine.result() == -errno.EINTR
    assert machine.task.blocked == 1 << (USR1 - 1) | 1 << (USR2 - 1)


def test_sigtimedwait_takes_a_blocked_signal_with_its_value(machine: FakeMachine) -> None:
    block(machine, USR1)
    child = machine.fork()
    wanted = machine.store((1 << (USR1 - 1)).to_bytes(8, "little"))
    assert machine.call("rt_sigtimedwait", wanted, SCRATCH, 0, 8) is None
    child.write(SCRATCH, siginfo.queued(USR1, siginfo.SI_QUEUE, 3, 1000, 77))
    assert machine.call("rt_sigqueueinfo", 2, USR1, SCRATCH, task=child) == 0
    assert machine.result() == USR1
    assert struct.unpack_from("<Q", machine.task.read(SCRATCH, 128), 24) == (77,)
    zero = machine.store(bytes(16), BASE + 64)
    assert machine.call("rt_sigtimedwait", wanted, 0, zero, 8) == -errno.EAGAIN


def test_sigtimedwait_ends_with_eintr_for_another_signal(machine: FakeMachine) -> None:
    catch(machine, USR2, SA_RESTART)
    block(machine, USR1)
    child = machine.fork()
    wanted = machine.store((1 << (USR1 - 1)).to_bytes(8, "little"))
    assert machine.call("rt_sigtimedwait", wanted, 0, 0, 8) is None
    machine.call("kill", 2, USR2, task=child)
    assert in_handler(machine.task)
    leave_handler(machine)
    assert machine.result() == -errno.EINTR


# Sending


def test_the_kernel_s_own_codes_cannot_be_pretended(machine: FakeMachine) -> None:
    child = machine.fork()
    child.write(SCRATCH, siginfo.kernel(USR1))
    assert machine.call("rt_sigqueueinfo", 2, USR1, SCRATCH, task=child) == -errno.EPERM


def test_signals_to_other_users_are_refused(machine: FakeMachine) -> None:
    child = machine.fork()
    child.credentials = child.credentials.changed(uid=7, euid=7, suid=7)
    assert machine.call("kill", 2, USR1, task=child) == -errno.EPERM
    assert machine.call("kill", 2, CONT, task=child) == 0  # the same session


@pytest.mark.parametrize(("pid", "error"), [(999, errno.ESRCH), (-999, errno.ESRCH)])
def test_nobody_there(machine: FakeMachine, pid: int, error: int) -> None:
    assert machine.call("kill", pid, 0) == -error
    assert machine.call("kill", 2, 65) == -errno.EINVAL


def test_init_is_out_of_reach(machine: FakeMachine) -> None:
    machine.task.credentials = machine.task.credentials.changed(euid=0)
    assert machine.call("kill", 1, KILL) == 0
    assert machine.kernel.processes[1].alive


def test_a_kill_wakes_a_sleeper_and_ends_a_runner(machine: FakeMachine) -> None:
    sleeper, runner = machine.fork(), machine.fork()
    assert machine.call("pause", task=sleeper) is None
    for child in (sleeper, runner):
        assert machine.call("kill", child.tid, KILL) == 0
    machine.settle()
    assert sleeper.process.exit_status == runner.process.exit_status == KILL


def test_ignored_signals_are_not_even_queued(machine: FakeMachine) -> None:
    child = machine.fork()
    assert machine.call("pause") is None
    machine.call("kill", 2, 28, task=child)  # SIGWINCH
    assert machine.process.pending.bits == 0
    assert machine.result() is None


def test_ignoring_discards_what_is_pending(machine: FakeMachine) -> None:
    block(machine, USR1)
    machine.call("kill", 2, USR1)
    catch(machine, USR1, handler=SIG_IGN)
    assert machine.process.pending.bits == 0


def test_a_thread_s_signal_is_its_own(machine: FakeMachine) -> None:
    catch(machine, USR1)
    flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000
    tid = machine.call("clone", flags, BASE + SIZE - 0x8000, 0, 0, 0)
    assert tid
    thread = machine.kernel.tasks[tid]
    machine.call("tgkill", 2, tid, USR1)
    machine.settle()
    assert in_handler(thread)
    assert not in_handler(machine.task)


def test_a_process_s_signal_goes_to_a_thread_that_does_not_block_it(machine: FakeMachine) -> None:
    catch(machine, USR1)
    flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000
    tid = machine.call("clone", flags, BASE + SIZE - 0x8000, 0, 0, 0)
    assert tid
    block(machine, USR1)
    machine.call("kill", 2, USR1)
    machine.settle()
    assert in_handler(machine.kernel.tasks[tid])


# Stopping


def test_stop_holds_runners_and_continue_lets_them_go(machine: FakeMachine) -> None:
    child = machine.fork()
    assert machine.call("kill", child.tid, STOP) == 0
    machine.settle()
    assert machine.result(child) is None
    assert machine.call("wait4", child.tid, SCRATCH, 2, 0) == child.tid
    assert machine.task.read(SCRATCH, 4) == (STOP << 8 | 0x7F).to_bytes(4, "little")
    assert machine.call("wait4", child.tid, SCRATCH, 3, 0) == 0  # reported once
    assert machine.call("kill", child.tid, CONT) == 0
    assert machine.result(child) is not None
    assert machine.call("wait4", child.tid, SCRATCH, 8, 0) == child.tid
    assert machine.task.read(SCRATCH, 4) == b"\xff\xff\0\0"


def test_a_stopped_sleeper_sleeps_on_and_is_held_when_its_call_ends(machine: FakeMachine) -> None:
    child = machine.fork()
    assert machine.call("wait4", child.tid, 0, 0, 0) is None
    machine.call("kill", 2, STOP, task=child)
    machine.call("exit_group", 3, task=child)
    assert machine.result() is None
    delivery.post(machine.process, CONT)
    assert machine.result() == child.tid


def test_a_stopped_process_can_be_killed(machine: FakeMachine) -> None:
    child = machine.fork()
    machine.call("kill", child.tid, STOP)
    machine.settle()
    machine.call("kill", child.tid, 15)
    machine.settle()
    assert child.process.alive
    machine.call("kill", child.tid, KILL)
    machine.settle()
    assert child.process.exit_status == KILL


def test_terminal_stops_do_not_stop_an_orphaned_group(machine: FakeMachine) -> None:
    child = machine.fork()
    assert machine.call("setsid", task=child) == child.tid
    machine.call("kill", child.tid, TSTP)
    machine.settle()
    assert not child.process.stopped_by
    machine.call("kill", 2, TSTP)
    assert machine.process.stopped_by == TSTP


# Timers


def test_alarm_arms_and_tells_what_was_left(machine: FakeMachine) -> None:
    assert machine.call("alarm", 100) == 0
    assert machine.call("alarm", 0) == 100
    assert machine.call("alarm", 0) == 0


def test_a_real_timer_expires_and_repeats(machine: FakeMachine) -> None:
    catch(machine, 14)
    value = machine.store(struct.pack("<4q", 0, 1000, 0, 1))
    assert machine.call("setitimer", 0, value, 0) == 0
    for _ in range(2):
        machine.kernel.scheduler.epoll.poll(0.2)
        machine.event()
        machine.settle()
        assert in_handler(machine.task)
        leave_handler(machine)
    assert machine.call("setitimer", 0, machine.store(bytes(32)), SCRATCH) == 0
    assert struct.unpack("<4q", machine.task.read(SCRATCH, 32))[:2] == (0, 1000)
    assert machine.call("setitimer", 0, machine.store(struct.pack("<4q", 0, 0, 0, 10**6)), 0) == -errno.EINVAL


def test_processor_timers_are_the_host_s_and_their_signals_come_back(machine: FakeMachine) -> None:
    catch(machine, 26)
    context = machine.task.context
    assert isinstance(context, FakeContext)
    assert machine.call("setitimer", 1, SCRATCH, 0) == 0
    assert context.injected == [(38, 1, SCRATCH, 0)]
    machine.signal(26)
    assert in_handler(machine.task)


def test_an_interruption_without_a_handler_is_none(machine: FakeMachine) -> None:
    catch(machine, USR1)
    child = machine.fork()
    assert machine.call("pause") is None
    machine.process.pending.add(USR1, siginfo.kernel(USR1))
    machine.kernel.interrupt(machine.task)
    machine.process.pending.discard(-1)  # another thread was faster
    machine.event()
    assert machine.task.regs[r.RIP] == CODE - 2
    assert machine.result() == 34  # pause again
    assert child.process.alive
