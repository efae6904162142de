"""The kernel's interface for riscv64: what differs from x86-64, against the C headers of a cross compiler too."""

import errno
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linux.fake import BASE, CODE, SIZE
from tests.linux.riscv64 import FLOATS_SIZE, RiscvMachine
from virtus.isa.riscv64 import linux_calls
from virtus.isa.riscv64 import registers as r
from virtus.personalities.linux import boot, program, siginfo
from virtus.personalities.linux.abi import abi_of, frames_riscv64
from virtus.personalities.linux.abi.riscv64 import RISCV64
from virtus.personalities.linux.abi.stacks import BadFrame
from virtus.personalities.linux.signals import SA_ONSTACK, SA_RESTART, SA_RESTORER, UNBLOCKABLE, Action
from virtus.personalities.linux.table import TABLE
from virtus.personalities.linux.task import Task

COMPILER = "riscv64-linux-gnu-gcc"
HANDLER, USR1, ILL, SEGV = 0x401000, 10, 4, 11
SCRATCH, ALT_STACK = BASE + 512, BASE + 0x10000
SIGCHLD = 17
PC_AT = siginfo.SIZE + 176  # of the frame: siginfo, then ucontext up to uc_mcontext


@pytest.fixture
def machine() -> Iterator[RiscvMachine]:
    made = RiscvMachine("poll_calls", "metadata_calls", "path_calls", "identity_calls", "limits_calls", "memory_calls",
                        "riscv_calls", "sysv")  # fmt: skip
    yield made
    made.close()


def catch(machine: RiscvMachine, number: int, flags: int = 0, mask: int = 0) -> None:
    action = machine.store(struct.pack("<QQQ", HANDLER, flags, mask))
    assert machine.call("rt_sigaction", number, action, 0, 8) == 0


def fork(machine: RiscvMachine) -> Task:
    pid = machine.call("clone", SIGCHLD, 0, 0, 0, 0)
    assert pid is not None
    return machine.kernel.tasks[pid]


def compiled(text: str) -> None:
    """Have the cross compiler check the assertions of a C text; skip where there is none."""
    compiler = shutil.which(COMPILER)
    if compiler is None:
        pytest.skip(f"{COMPILER} is not installed")
    command = [compiler, "-fsyntax-only", "-x", "c", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Numbers and structures


def test_numbers_are_those_of_the_headers() -> None:
    checks = (
        f'#ifdef __NR_{name}\n_Static_assert(__NR_{name} == {number}, "{name}");\n#endif'
        for name, number in linux_calls.NUMBERS.items()
    )
    compiled("\n".join(("#include <asm/unistd.h>", *checks)) + "\n")


def test_every_number_has_one_name_and_an_answer() -> None:
    boot.load_handlers("riscv64")
    assert len(set(linux_calls.NUMBERS.values())) == len(linux_calls.NUMBERS)
    assert {number: name for name, number in linux_calls.NUMBERS.items()} == linux_calls.NAMES
    assert set(linux_calls.NUMBERS) <= set(TABLE)


def test_structures_are_those_of_the_headers() -> None:
    frame = frames_riscv64
    compiled(
        f"""
        #define _GNU_SOURCE
        #include <stddef.h>
        #include <asm/stat.h>
        #include <asm/signal.h>
        #include <asm/sigcontext.h>
        #include <asm/ucontext.h>
        #include <linux/eventpoll.h>
        #include <linux/sem.h>
        #define AT(type, field, at) _Static_assert(offsetof(struct type, field) == at, #field)
        #define SIZE(type, size) _Static_assert(sizeof(struct type) == size, #type)
        SIZE(stat, 128); AT(stat, st_mode, 16); AT(stat, st_nlink, 20); AT(stat, st_rdev, 32); AT(stat, st_size, 48);
        AT(stat, st_blksize, 56); AT(stat, st_blocks, 64); AT(stat, st_atime, 72);
        SIZE(epoll_event, {RISCV64.event.size}); AT(epoll_event, data, 8);
        AT(semid64_ds, sem_otime, 48); AT(semid64_ds, sem_ctime, 56); AT(semid64_ds, sem_nsems, 64);
        SIZE(semid64_ds, {48 + RISCV64.semaphores.size});
        SIZE(ucontext, {frame.FRAME_SIZE - siginfo.SIZE});
        AT(ucontext, uc_sigmask, 40); AT(ucontext, uc_mcontext, {PC_AT - siginfo.SIZE});
        AT(ucontext, uc_mcontext.sc_fpregs, {frame.FRAME_SIZE - siginfo.SIZE - 528});
        AT(ucontext, uc_mcontext.sc_fpregs.d.fcsr, {frame.FRAME_SIZE - siginfo.SIZE - 528 + 256});
        """
    )


def test_status_has_the_generic_layout(machine: RiscvMachine, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(5000))
    path = machine.store(os.fsencode(file) + b"\0")
    assert machine.call("newfstatat", -100, path, SCRATCH, 0) == 0
    expected = file.stat()
    fields = struct.unpack("<QQIIIIQ8xqi4xqqQqQqQ8x", machine.task.read(SCRATCH, 128))
    assert fields[:6] == (
        expected.st_dev, expected.st_ino, expected.st_mode, expected.st_nlink, expected.st_uid, expected.st_gid
    )  # fmt: skip
    assert fields[6:10] == (expected.st_rdev, expected.st_size, expected.st_blksize, expected.st_blocks)
    assert fields[12] * 10**9 + fields[13] == expected.st_mtime_ns


def test_epoll_events_are_not_packed(machine: RiscvMachine) -> None:
    epoll = machine.call("epoll_create1", 0)
    assert machine.call("pipe2", SCRATCH, 0) == 0
    _, write = struct.unpack("<ii", machine.task.read(SCRATCH, 8))
    event = machine.store(struct.pack("<I4xQ", 4, 0x1122334455667788))  # EPOLLOUT
    assert machine.call("epoll_ctl", epoll or 0, 1, write, event) == 0
    assert machine.call("epoll_pwait", epoll or 0, SCRATCH, 8, 0, 0, 8) == 1
    assert struct.unpack("<I4xQ", machine.task.read(SCRATCH, 16)) == (4, 0x1122334455667788)


# Calls


def test_the_machine_calls_itself_riscv64(machine: RiscvMachine) -> None:
    assert machine.call("uname", SCRATCH) == 0
    assert machine.task.read(SCRATCH + 4 * 65, 8) == b"riscv64\0"
    information = RISCV64.cpu_information().decode()
    assert "isa\t\t: rv64imafdc_zicsr_zifencei_zba_zbb_zbs\nmmu\t\t: sv39\n" in information


def test_clone_takes_the_thread_pointer_before_the_child_s_number(machine: RiscvMachine) -> None:
    flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x80000 | 0x100000 | 0x1000000
    tid = machine.call("clone", flags, BASE + SIZE - 0x8000, SCRATCH, 0x7000, SCRATCH + 4)
    assert tid == 3
    made = machine.kernel.tasks[3]
    assert (made.regs[r.SP], made.regs[r.TP], made.regs[r.A0]) == (BASE + SIZE - 0x8000, 0x7000, 0)
    assert machine.task.read(SCRATCH, 8) == (3).to_bytes(4, "little") * 2


def test_calls_of_older_interfaces_have_no_number(machine: RiscvMachine) -> None:
    assert not {"open", "stat", "fork", "pipe", "poll", "arch_prctl", "renameat"} & set(linux_calls.NUMBERS)
    for number in (38, 1024, 2**64 - 1):  # renameat(2) never was one of riscv64's
        machine.task.regs[r.SYSCALL_NUMBER] = number
        machine.call_number(number)
        assert machine.result() == -errno.ENOSYS


def test_extensions_are_told(machine: RiscvMachine) -> None:
    pairs = machine.store(b"".join(struct.pack("<qQ", key, 99) for key in (3, 4, 5, 0, 1000, -7)))
    assert machine.call("riscv_hwprobe", pairs, 6, 0, 0, 0) == 0
    answers = list(struct.iter_unpack("<qQ", machine.task.read(pairs, 96)))
    assert answers == [(3, 1), (4, 0b111011), (5, 3), (0, 0), (-1, 0), (-1, 0)]
    assert machine.call("riscv_hwprobe", pairs, 1, 0, 0, 2) == -errno.EINVAL
    assert machine.call("riscv_hwprobe", 2**64 - 8, 1, 0, 0, 0) == -errno.EFAULT


def test_instructions_are_flushed(machine: RiscvMachine) -> None:
    assert machine.call("riscv_flush_icache", BASE, BASE + 64, 1) == 0
    assert machine.context.flushed
    assert machine.call("riscv_flush_icache", BASE, BASE + 64, 2) == -errno.EINVAL


def test_the_host_writes_only_where_the_guest_could(machine: RiscvMachine) -> None:
    beyond = r.GUEST_END - 8
    assert machine.call("getitimer", 1, beyond) == -errno.EFAULT
    assert machine.call("setitimer", 1, 0, beyond) == -errno.EFAULT
    assert machine.call("setitimer", 1, r.GUEST_END << 7, 0) == -errno.EFAULT
    assert machine.call("mincore", BASE, 4097, r.GUEST_END - 1) == -errno.ENOMEM
    assert machine.context.injected == []


def test_locking_all_memory_is_not_for_the_whole_stub(machine: RiscvMachine) -> None:
    assert machine.call("mlockall", 3) == 0
    assert machine.call("mlockall", 4) == -errno.EINVAL
    assert machine.call("munlockall") == 0
    assert machine.context.injected == []


# Signals


def test_a_reason_that_linux_does_not_know_is_an_illegal_instruction(machine: RiscvMachine) -> None:
    catch(machine, ILL)
    machine.left(0)
    assert machine.task.regs[r.PC] == HANDLER
    assert machine.task.regs[r.A0] == ILL


@pytest.mark.parametrize(("number", "precise"), [(SEGV, True), (7, True), (USR1, False)])
def test_who_handles_faults_has_them_exact(machine: RiscvMachine, number: int, precise: bool) -> None:
    catch(machine, number)
    assert machine.context.precise is precise
    old = machine.store(bytes(40), SCRATCH)
    assert machine.call("rt_sigaction", number, 0, old, 8) == 0
    assert struct.unpack("<QQQQ", machine.task.read(old, 32)) == (HANDLER, 0, 0, 0)  # three words, and no more


def test_there_is_no_restorer(machine: RiscvMachine) -> None:
    catch(machine, USR1, SA_RESTORER | SA_RESTART)
    assert machine.process.actions.get(USR1) == Action(HANDLER, SA_RESTART, 0, 0)


def test_a_handler_finds_its_arguments_and_returns_through_the_trampoline(machine: RiscvMachine) -> None:
    catch(machine, USR1)
    task = machine.task
    task.regs[r.TP], stack = 0x1234, task.regs[r.SP]
    assert machine.call("kill", 2, USR1) == USR1  # in its place: the handler's first argument
    regs = task.regs
    frame = regs[r.SP]
    assert (regs[r.PC], regs[r.A0], regs[r.RA]) == (HANDLER, USR1, frames_riscv64.TRAMPOLINE)
    assert (regs[r.A0 + 1], regs[r.A0 + 2]) == (frame, frame + siginfo.SIZE)
    assert frame % 16 == 0
    assert frame + frames_riscv64.FRAME_SIZE <= stack
    assert int.from_bytes(task.read(frame + PC_AT, 8), "little") == CODE
    assert machine.call("rt_sigreturn") == 0
    assert (regs[r.PC], regs[r.SP], regs[r.TP]) == (CODE, stack, 0x1234)


def test_the_trampoline_is_what_unwinders_look_for() -> None:
    """li a7, 139; ecall: libgcc's riscv/linux-unwind.h knows a signal frame by these words."""
    assert struct.unpack("<II", frames_riscv64.TRAMPOLINE_CODE) == (0x08B00893, 0x00000073)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=31, max_size=31),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=FLOATS_SIZE, max_size=FLOATS_SIZE),
)
def test_a_frame_brings_back_what_it_took(values: list[int], counter: int, mask: int, floats: bytes) -> None:
    machine = RiscvMachine()
    try:
        task, regs, context = machine.task, machine.task.regs, machine.context
        for index, value in enumerate(values, 1):
            regs[index] = value if index != r.SP else BASE + SIZE - 64
        regs[r.PC] = counter
        context.xstate[:] = floats
        before = list(regs)
        frames_riscv64.build(task, USR1, siginfo.kernel(USR1), Action(HANDLER), mask)
        frame = regs[r.SP]
        for index in range(1, 32):
            regs[index] = 0
        regs[r.SP], context.xstate[:] = frame, bytes(FLOATS_SIZE)
        frames_riscv64.restore(task)
        assert list(regs) == before
        assert bytes(context.xstate) == floats
        assert task.blocked == mask & ~UNBLOCKABLE
    finally:
        machine.close()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1), st.binary(max_size=frames_riscv64.FRAME_SIZE))
def test_any_bytes_for_a_frame_are_taken_or_refused(pointer: int, content: bytes) -> None:
    machine = RiscvMachine()
    try:
        machine.store(content)
        for place in (pointer, BASE):
            machine.task.regs[r.SP] = place
            try:
                frames_riscv64.restore(machine.task)
            except BadFrame:
                assert place != BASE
            assert not machine.task.blocked & UNBLOCKABLE
    finally:
        machine.close()


def test_the_alternate_stack_is_used_and_not_overrun(machine: RiscvMachine) -> None:
    catch(machine, USR1, SA_ONSTACK)
    stack = machine.store(struct.pack("<Qi4xQ", ALT_STACK, 0, 0x8000))
    assert machine.call("sigaltstack", stack, 0) == 0
    machine.call("kill", 2, USR1)
    assert ALT_STACK < machine.task.regs[r.SP] < ALT_STACK + 0x8000
    machine.task.regs[r.SP], machine.task.blocked = ALT_STACK + 256, 0
    machine.call("kill", 2, USR1)
    assert machine.kernel.exit_status == SEGV


@pytest.mark.parametrize("restart", [True, False])
def test_a_waiting_call_is_restarted_where_the_handler_says_so(machine: RiscvMachine, restart: bool) -> None:
    catch(machine, USR1, SA_RESTART if restart else 0)
    child = fork(machine)
    assert machine.call("wait4", -1, SCRATCH, 0, 0) is None
    machine.call("kill", 2, USR1, task=child)
    assert machine.task.regs[r.PC] == HANDLER
    machine.call("rt_sigreturn")
    assert machine.task.regs[r.PC] == CODE - 4 * restart
    assert machine.result() == (-1 if restart else -errno.EINTR)  # the call's first argument again


# Programs


class _Held:
    """Contents of a program file that stands nowhere, as a descriptor."""

    def __init__(self, machine: int, address: int, size: int = 4096) -> None:
        self.host = os.memfd_create("program")
        header = struct.pack(
            "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, machine, 1, 0x10000, 64, 0, 0, 64, 56, 1, 0, 0, 0
        )
        os.write(self.host, header + struct.pack("<IIQQQQQQ", 1, 6, 0, address, address, 0, size, 4096))

    def __enter__(self) -> int:
        return self.host

    def __exit__(self, *_: object) -> None:
        os.close(self.host)


@pytest.mark.parametrize(
    ("processor", "address", "runs"),
    [
        (243, 0x10000, True),
        (243, r.GUEST_END - 4096, True),
        (243, r.GUEST_END, False),
        (243, 0x2000_0000_0000, False),
        (62, 0x10000, False),
    ],
)
def test_only_programs_for_the_machine_and_its_address_space(processor: int, address: int, runs: bool) -> None:
    with _Held(processor, address) as host:
        if runs:
            assert program.Image(host, "p", RISCV64).program.span[0] == address
        else:
            with pytest.raises(OSError, match=str(errno.ENOEXEC)):
                program.Image(host, "p", RISCV64)


def test_a_new_program_s_registers(machine: RiscvMachine) -> None:
    regs = machine.task.regs
    regs[5], regs[r.F + 3] = 7, 9
    RISCV64.start(regs, 0x10400, 0x3FFF0000)
    assert [regs[index] for index in range(64) if regs[index]] == [0x3FFF0000]
    assert (regs[r.PC], regs[r.SP]) == (0x10400, 0x3FFF0000)


def test_the_stack_says_what_the_processor_can_do(machine: RiscvMachine) -> None:
    auxiliary = dict(RISCV64.auxiliary())
    assert auxiliary[16] == sum(1 << "abcdefghijklmnopqrstuvwxyz".index(letter) for letter in "imafdc")
    pointer = program.build_stack(machine.task, BASE + 0x8000, b"p", [b"a"], [], list(auxiliary.items()))
    words = struct.unpack("<32Q", machine.task.read(pointer, 256))
    keys = words[4::2]
    assert words[0] == 1
    assert 15 not in keys[: keys.index(0)]  # AT_PLATFORM


def test_unknown_machines_are_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError):
        abi_of("vax")
