"""Processes and threads: birth, what is shared, the end, zombies and who waits for them."""

import errno
import struct
from collections.abc import Iterator

import pytest

from tests.linux.fake import BASE, SIZE, FakeMachine, context_of
from virtus.isa.x86 import registers as r
from virtus.personalities.linux import lifecycle
from virtus.personalities.linux.files import File
from virtus.personalities.linux.signals import SA_NOCLDWAIT, SA_RESTORER, SIG_IGN, Action
from virtus.personalities.linux.task import Task

SCRATCH = BASE + 512
THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000
VM, VFORK, SETTLS, PARENT_SETTID, CHILD_CLEARTID, CHILD_SETTID = 0x100, 0x4000, 0x80000, 0x100000, 0x200000, 0x1000000
CHLD, KILL, HUP, CONT, STOP = 17, 9, 1, 18, 19
WNOHANG = 1


@pytest.fixture
def machine() -> Iterator[FakeMachine]:
    made = FakeMachine()
    yield made
    made.close()


def thread(machine: FakeMachine, flags: int = 0, parent_tid: int = 0, child_tid: int = 0, tls: int = 0) -> Task:
    tid = machine.call("clone", THREAD | flags, BASE + SIZE - 0x8000, parent_tid, child_tid, tls)
    assert tid
    return machine.kernel.tasks[tid]


def status(machine: FakeMachine, at: int = SCRATCH) -> int:
    return int.from_bytes(machine.task.read(at, 4), "little")


# Birth


def test_fork_copies_and_the_child_sees_zero(machine: FakeMachine) -> None:
    machine.task.name = b"sh"
    child = machine.fork()
    assert (machine.result(child), child.tid, child.process.parent) == (0, 3, machine.process)
    assert machine.call("getppid", task=child) == 2
    child.write(BASE, b"x")
    assert machine.task.read(BASE, 1) == b"\0"
    assert child.descriptors is not machine.task.descriptors
    assert child.place is not machine.task.place
    assert child.name == b"sh"


def test_a_thread_shares_and_gets_its_own_stack_and_tls(machine: FakeMachine) -> None:
    made = thread(machine, SETTLS | PARENT_SETTID | CHILD_SETTID | CHILD_CLEARTID, SCRATCH, SCRATCH + 4, 0x7000)
    assert made.process is machine.process
    assert made.memory is machine.task.memory
    assert made.descriptors is machine.task.descriptors
    assert made.place is machine.task.place
    assert (made.regs[r.RSP], made.regs[r.FS_BASE]) == (BASE + SIZE - 0x8000, 0x7000)
    assert machine.task.read(SCRATCH, 8) == made.tid.to_bytes(4, "little") * 2
    assert machine.call("gettid", task=made) == made.tid
    assert machine.call("getpid", task=made) == 2


@pytest.mark.parametrize("flags", [0x800, 0x10000, 0x10800])
def test_impossible_combinations(machine: FakeMachine, flags: int) -> None:
    assert machine.call("clone", flags, 0, 0, 0, 0) == -errno.EINVAL


@pytest.mark.parametrize("bit", [17, 25, 26, 27, 28, 29, 30])
def test_namespaces_are_refused(machine: FakeMachine, bit: int) -> None:
    assert machine.call("clone", 1 << bit | CHLD, 0, 0, 0, 0) == -errno.EPERM
    assert machine.call("unshare", 1 << bit) == -errno.EPERM


def test_clone3(machine: FakeMachine) -> None:
    arguments = struct.pack("<11Q", 0, 0, 0, 0, CHLD, 0, 0, 0, 0, 0, 0)
    pid = machine.call("clone3", machine.store(arguments), 88)
    assert pid in machine.kernel.processes
    assert machine.call("clone3", machine.store(arguments), 63) == -errno.EINVAL
    assert machine.call("clone3", machine.store(arguments + b"\1"), 89) == -errno.E2BIG
    assert machine.call("clone3", machine.store(struct.pack("<11Q", 0xFF, *[0] * 10)), 88) == -errno.EINVAL


def test_vfork_suspends_the_parent_until_the_child_execs_or_ends(machine: FakeMachine) -> None:
    assert machine.call("vfork") is None
    child = machine.kernel.tasks[3]
    assert child.memory is machine.task.memory
    assert child.memory.sharers == 2
    lifecycle.leave_memory(child)
    machine.event()
    assert machine.result() == 3
    assert machine.task.memory.sharers == 1
    assert machine.call("vfork") is None
    machine.call("exit", 0, task=machine.kernel.tasks[4])
    assert machine.result() == 4


def test_a_suspended_parent_takes_its_signals_afterwards_but_dies_at_once(machine: FakeMachine) -> None:
    machine.process.actions.actions[10] = Action(0x1000, SA_RESTORER, 0x2000, 0)
    machine.call("vfork")
    child = machine.kernel.tasks[3]
    machine.call("kill", 2, 10, task=child)
    assert machine.result() is None
    assert machine.task.regs[r.RIP] != 0x1000
    machine.call("exit", 0, task=child)
    assert machine.task.regs[r.RIP] == 0x1000
    assert machine.task.blocked == 1 << 9
    machine.call("vfork")
    machine.call("kill", 2, 15, task=machine.kernel.tasks[4])
    assert machine.kernel.exit_status == 15


def test_the_limit_of_processes(capsys: pytest.CaptureFixture[str]) -> None:
    machine = FakeMachine(process_limit=2)
    machine.fork()
    assert machine.call("fork") == -errno.EAGAIN
    assert machine.call("fork") == -errno.EAGAIN
    assert capsys.readouterr().err.count("limit of 2 processes") == 1
    assert sum(machine.meter.notes.values()) == 2
    machine.close()


# The end


def test_the_machine_ends_with_its_first_process(machine: FakeMachine) -> None:
    assert machine.call("exit_group", 7) is None
    assert machine.kernel.exit_status == 7 << 8
    assert not machine.kernel.running


def test_a_zombie_is_reaped_by_its_parent_alone(machine: FakeMachine) -> None:
    child = machine.fork()
    grandchild = machine.fork(task=child)
    machine.call("exit_group", 5, task=grandchild)
    assert machine.call("wait4", grandchild.tid, 0, 0, 0) == -errno.ECHILD
    assert machine.call("wait4", -1, SCRATCH, 0, 0, task=child) == grandchild.tid
    assert int.from_bytes(child.read(SCRATCH, 4), "little") == 5 << 8
    assert grandchild.tid not in machine.kernel.processes


def test_wait_sleeps_until_a_child_ends_and_is_told_by_a_signal(machine: FakeMachine) -> None:
    child = machine.fork()
    assert machine.call("wait4", -1, SCRATCH, WNOHANG, 0) == 0
    assert machine.call("wait4", -1, SCRATCH, 0, 0) is None
    machine.call("exit_group", 1, task=child)
    assert machine.result() == child.tid
    assert status(machine) == 1 << 8
    assert machine.call("wait4", -1, SCRATCH, 0, 0) == -errno.ECHILD


def test_waitid_tells_how_and_can_look_without_reaping(machine: FakeMachine) -> None:
    child = machine.fork()
    machine.call("kill", child.tid, KILL)
    machine.settle()
    nowait, exited = 0x01000000, 4
    for options in (exited | nowait, exited):
        assert machine.call("waitid", 1, child.tid, SCRATCH, options, 0) == 0
        signo, _, code, pid, uid, value = struct.unpack("<iii4xiIi", machine.task.read(SCRATCH, 28))
        assert (signo, code, pid, uid, value) == (CHLD, 2, child.tid, 1000, KILL)
    assert machine.call("waitid", 1, child.tid, SCRATCH, exited, 0) == -errno.ECHILD
    assert machine.call("waitid", 0, 0, SCRATCH, WNOHANG, 0) == -errno.EINVAL


@pytest.mark.parametrize("action", [Action(SIG_IGN), Action(0, SA_NOCLDWAIT)])
def test_a_parent_that_ignores_its_children_gets_no_zombies(machine: FakeMachine, action: Action) -> None:
    machine.process.actions.actions[CHLD] = action
    child = machine.fork()
    assert machine.call("wait4", -1, 0, 0, 0) is None
    machine.call("exit_group", 0, task=child)
    assert machine.result() == -errno.ECHILD
    assert child.tid not in machine.kernel.processes


def test_orphans_go_to_init_which_reaps_them(machine: FakeMachine) -> None:
    child = machine.fork()
    grandchild, zombie = machine.fork(task=child), machine.fork(task=child)
    machine.call("exit_group", 0, task=zombie)
    machine.call("exit_group", 0, task=child)
    assert machine.call("getppid", task=grandchild) == 1
    assert zombie.tid not in machine.kernel.processes
    machine.call("exit_group", 0, task=grandchild)
    assert grandchild.tid not in machine.kernel.processes


def test_a_subreaper_takes_orphans(machine: FakeMachine) -> None:
    assert machine.call("prctl", 36, 1) == 0
    child = machine.fork()
    grandchild = machine.fork(task=child)
    machine.call("exit_group", 0, task=child)
    assert machine.call("getppid", task=grandchild) == 2
    machine.call("exit_group", 3, task=grandchild)
    assert machine.call("wait4", grandchild.tid, 0, 0, 0) == grandchild.tid


def test_the_death_signal(machine: FakeMachine) -> None:
    child = machine.fork()
    grandchild = machine.fork(task=child)
    assert machine.call("prctl", 1, KILL, task=grandchild) == 0
    machine.call("exit_group", 0, task=child)
    machine.settle()
    assert grandchild.process.exit_status == KILL


def test_exit_ends_a_thread_and_exit_group_all(machine: FakeMachine) -> None:
    child = machine.fork()
    tid = machine.call("clone", THREAD | CHILD_CLEARTID, BASE + SIZE - 0x8000, 0, SCRATCH, 0, task=child)
    assert tid
    other = machine.kernel.tasks[tid]
    child.write(SCRATCH, b"\1\0\0\0")
    machine.call("exit", 9, task=other)
    assert child.read(SCRATCH, 4) == bytes(4)
    assert child.process.alive
    assert context_of(other).killed
    tid = machine.call("clone", THREAD, BASE + SIZE - 0x8000, 0, 0, 0, task=child)
    assert tid
    machine.call("exit_group", 4, task=machine.kernel.tasks[tid])
    assert child.process.exit_status == 4 << 8
    assert context_of(child).killed


def test_a_leader_that_ends_first_gives_the_status(machine: FakeMachine) -> None:
    other = thread(machine)
    machine.call("exit", 6)
    assert machine.kernel.running
    machine.call("exit", 1, task=other)
    assert machine.kernel.exit_status == 6 << 8


def test_a_stub_killed_from_outside_is_a_killed_process(machine: FakeMachine) -> None:
    child = machine.fork()
    machine.ended(child)
    assert child.process.exit_status == KILL


def test_execve_leaves_only_the_caller_and_makes_it_the_leader(machine: FakeMachine) -> None:
    other = thread(machine)
    lifecycle.end_other_threads(other)
    assert machine.process.tasks == {2: other}
    assert other.tid == 2
    assert machine.kernel.tasks == {2: other}


def test_descriptors_close_with_the_last_task_that_shares_them(machine: FakeMachine) -> None:
    closed = []

    class Noticed(File):
        def released(self) -> None:
            closed.append(self)

    machine.task.descriptors.put(5, Noticed(-1, 0))
    child = machine.fork()
    tid = machine.call("clone", THREAD, BASE + SIZE - 0x8000, 0, 0, 0, task=child)
    assert tid
    machine.call("exit", 0, task=machine.kernel.tasks[tid])
    assert not closed
    machine.call("exit_group", 0, task=child)
    assert machine.task.descriptors.files[5].references == 1
    machine.call("exit_group", 0)
    assert len(closed) == 1


# Groups and sessions


def test_setpgid_and_its_refusals(machine: FakeMachine) -> None:
    child = machine.fork()
    assert machine.call("setpgid", child.tid, 0) == 0
    assert machine.call("getpgid", child.tid) == child.tid
    assert machine.call("setpgid", child.tid, 999) == -errno.EPERM
    assert machine.call("setpgid", 2, 0) == -errno.EPERM  # a session leader
    assert machine.call("setpgid", 2, 0, task=child) == -errno.ESRCH
    assert machine.call("setpgid", child.tid, -1) == -errno.EINVAL
    child.process.has_execed = True
    assert machine.call("setpgid", child.tid, 2) == -errno.EACCES


def test_setsid(machine: FakeMachine) -> None:
    assert machine.call("setsid") == -errno.EPERM
    child = machine.fork()
    assert machine.call("setsid", task=child) == child.tid
    assert machine.call("getsid", child.tid) == child.tid
    assert machine.call("setpgid", child.tid, 0) == -errno.EPERM


def test_a_group_orphaned_with_stopped_members_is_hung_up(machine: FakeMachine) -> None:
    shell = machine.fork()
    machine.call("setsid", task=shell)
    job = machine.fork(task=shell)
    machine.call("setpgid", job.tid, job.tid, task=shell)
    machine.call("kill", job.tid, STOP)
    machine.settle()
    assert job.process.stopped_by
    machine.call("exit_group", 0, task=shell)
    machine.settle()
    assert job.process.exit_status == HUP


# prctl


def test_names(machine: FakeMachine) -> None:
    assert machine.call("prctl", 15, machine.store(b"a rather long name\0")) == 0
    assert machine.call("prctl", 16, SCRATCH) == 0
    assert machine.task.read(SCRATCH, 16) == b"a rather long n\0"


def test_no_new_privileges_cannot_be_taken_back(machine: FakeMachine) -> None:
    assert machine.call("prctl", 39, 0, 0, 0, 0) == 0
    assert machine.call("prctl", 38, 1, 0, 0, 0) == 0
    assert machine.call("prctl", 38, 0, 0, 0, 0) == -errno.EINVAL
    assert machine.call("prctl", 39, 0, 0, 0, 0) == 1
    child = machine.fork()
    assert machine.call("prctl", 39, 0, 0, 0, 0, task=child) == 1


def test_unknown_options_and_seccomp_are_refused(machine: FakeMachine) -> None:
    assert machine.call("prctl", 22, 2, 0, 0, 0) == -errno.EINVAL
    assert machine.call("prctl", 9999, 0, 0, 0, 0) == -errno.EINVAL


def test_segment_bases(machine: FakeMachine) -> None:
    assert machine.call("arch_prctl", 0x1002, 0x7000) == 0
    assert machine.task.regs[r.FS_BASE] == 0x7000
    assert machine.call("arch_prctl", 0x1003, SCRATCH) == 0
    assert machine.task.read(SCRATCH, 8) == (0x7000).to_bytes(8, "little")
    assert machine.call("arch_prctl", 0x1002, 1 << 63) == -errno.EPERM
