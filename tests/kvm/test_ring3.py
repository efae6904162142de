"""The vCPU at ring 3: what comes out, with which registers, and when; with no hypervisor behind it."""

import signal
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from virtus.exits import Reason
from virtus.host import cpuid as host_cpuid
from virtus.host import segments
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory
from virtus.memory.pool import FramePool
from virtus.memory.x86_paging import PRESENT, USER, WRITABLE, find_entry, is_canonical, translate
from virtus.vcpus import kvm as vcpus
from virtus.vcpus import kvm_context, monitor_pages
from virtus.vcpus.kvm import KvmVcpu
from virtus.vcpus.kvm_turns import Turns

RW = PRESENT | WRITABLE | USER
RAX, RBX, RDI, RSP, R11, RIP, RFLAGS = 0, 1, 5, 6, 11, 16, 17
CODE, DATA, READ_ONLY, NOTHING = 0x1000, 0x2000, 0x3000, 0x4000
SIZE = 8 << 20
LEAVES = {(1, 0): host_cpuid.leaf(1)}


class Bare:
    """A vCPU with one page each of code, data, and read-only data, at virtual addresses below 16 KiB."""

    def __init__(self, processors: int = 1) -> None:
        self.memory = GuestMemory(SIZE, "test")
        pool = FramePool(0, self.memory.frames)
        self.vcpu = KvmVcpu(self.memory, pool, LEAVES, frozenset(), processors)
        self.context = self.vcpu.context
        root, level3, level2, self.level1 = (pool.take() for _ in range(4))
        entries = self.memory.entries
        for slot, entry in self.vcpu.pages.entries.items():
            entries(root)[slot] = entry
        for table, below in ((root, level3), (level3, level2), (level2, self.level1)):
            entries(table)[0] = below << FRAME_SHIFT | RW
        self.frames = {}
        for address, flags in ((CODE, RW), (DATA, RW), (READ_ONLY, RW & ~WRITABLE)):
            self.frames[address] = pool.take()
            entries(self.level1)[address >> FRAME_SHIFT] = self.frames[address] << FRAME_SHIFT | flags
        self.spare = pool.take()
        self.root = root << FRAME_SHIFT

    def run(self, code: str, **registers: int) -> tuple[Reason, int]:
        self.memory.frame(self.frames[CODE])[: len(code) // 2] = bytes.fromhex(code)
        self.context.start(self.root, CODE, DATA + PAGE)
        for name, value in registers.items():
            self.context.regs[kvm_context.__dict__[name.upper()]] = value
        exit = self.vcpu.run()
        return exit.reason, exit.number

    def close(self) -> None:
        self.vcpu.close()
        self.memory.close()


@pytest.fixture(scope="module")
def bare() -> Iterator[Bare]:
    lacking = vcpus.usable()
    if lacking:
        pytest.skip(f"no KVM here: {lacking}")
    made = Bare()
    yield made
    made.close()


def test_a_syscall_comes_out_behind_it_as_whoever_is_running(bare: Bare) -> None:
    assert bare.run("0f05", rax=39, rbx=7) == (Reason.HYPERCALL, 39)
    assert (bare.context.regs[RIP], bare.context.regs[RBX], bare.context.regs[RSP]) == (CODE + 2, 7, DATA + PAGE)
    bare.context.user_root = bare.root
    bare.context.switch()
    try:
        assert bare.run("0f05", rax=39) == (Reason.SYSCALL, 39)
        assert not bare.context.compatibility
    finally:
        bare.context.switch()


@pytest.mark.parametrize(
    ("code", "vector", "error", "address"),
    [
        ("0f0b", 6, 0, None),  # ud2
        ("fa", 13, 0, None),  # cli
        ("488b042500400000", 14, 4, NOTHING),  # a load from nothing
        ("4889042500300000", 14, 7, READ_ONLY),  # a store to what is read-only
        ("f4", 13, 0, None),  # hlt
        ("31c9f7f1", 0, 0, None),  # a division by zero
        ("cc", 3, 0, None),  # int3
        ("cd80", 0x80, 0, None),  # int 0x80
        ("cd30", 13, 0x30 << 3 | 2, None),  # int 0x30, which has no gate
        ("0f20d8", 13, 0, None),  # mov rax, cr3
        ("66ba2000ec", 13, 0, None),  # in al, dx
    ],
)
def test_exceptions_come_out_with_the_guests_registers(
    bare: Bare, code: str, vector: int, error: int, address: int | None
) -> None:
    assert bare.run(code) == (Reason.FAULT, vector)
    assert bare.context.error_code & ~4 == error & ~4
    if address is not None:
        assert bare.context.fault_address == address
    behind = {"31c9f7f1": 2, "cc": 1, "cd80": 2, "66ba2000ec": 4}.get(code, 0)
    assert bare.context.regs[RIP] == CODE + behind
    assert bare.context.regs[RSP] == DATA + PAGE


def test_the_gates_port_is_none_of_the_guests(bare: Bare) -> None:
    assert bare.run("b0aae6e0") == (Reason.FAULT, 13)
    assert bare.context.regs[RIP] == CODE + 2
    assert bare.run("66bae000ee") == (Reason.FAULT, 13)
    assert bare.context.regs[RIP] == CODE + 4


def test_a_gate_that_the_guest_calls_is_a_syscall_and_no_more(bare: Bare) -> None:
    jump = "48b8" + struct.pack("<Q", monitor_pages.STUBS).hex() + "ffe0"
    assert bare.run(jump) == (Reason.HYPERCALL, monitor_pages.STUBS & 0xFFFFFFFF)
    vector = monitor_pages.STUBS + (monitor_pages.VECTOR_STUB + 14) * monitor_pages.STUB_SIZE
    jump = "48b8" + struct.pack("<Q", vector).hex() + "ffe0"
    assert bare.run(jump) == (Reason.FAULT, 13)  # its stack is not ours: it has made no trap frame


def test_registers_and_flags_are_kept_and_privileged_flags_are_not_taken(bare: Bare) -> None:
    bare.run("0f05", rflags=0x3000 | 0x4 | 0x40)
    assert bare.context.regs[RFLAGS] & 0x3044 == 0x44
    assert bare.context.regs[R11] & 0x3000 == 0


def test_a_changed_entry_counts_after_a_flush(bare: Bare) -> None:
    entries = bare.memory.entries(bare.level1)
    at, slot = (bare.level1 << FRAME_SHIFT) + 8 * 2, DATA >> FRAME_SHIFT
    bare.memory.entries(bare.frames[DATA])[0] = 1
    bare.memory.entries(bare.spare)[0] = 2
    load = "488b1c25002000000f05"  # mov rbx, [DATA];  syscall
    bare.run(load)
    assert bare.context.regs[RBX] == 1
    old, new = entries[slot], bare.spare << FRAME_SHIFT | RW
    for before, after, value in ((old, new, 2), (new, old, 1), (old, 0, None), (0, old, 1)):
        entries[slot] = after
        bare.context.entry_changed(at, before, after)
        bare.context.flush()
        reason, number = bare.run(load)
        if value is None:
            assert (reason, number) == (Reason.FAULT, 14)
        else:
            assert bare.context.regs[RBX] == value


def test_a_guest_that_never_comes_out_is_interrupted(bare: Bare) -> None:
    bare.context.wake_at(time.monotonic_ns() + 1_000_000)
    assert bare.run("ebfe") == (Reason.EVENT, 0)
    assert bare.context.regs[RIP] == CODE
    bare.context.kick()
    assert bare.vcpu.run().reason is Reason.EVENT
    threading.Timer(0.01, bare.context.kick).start()
    assert bare.vcpu.run().reason is Reason.EVENT


def test_a_sleeping_guest_wakes_by_time_or_descriptor(bare: Bare) -> None:
    bare.context.sleep([], time.monotonic_ns() + 1_000_000)
    assert not bare.context.running
    assert bare.vcpu.run().reason is Reason.EVENT
    assert bare.context.running


def test_closing_gives_the_threads_signals_back() -> None:
    if vcpus.usable():
        pytest.skip("no KVM here")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    made = Bare()
    assert vcpus.KICK in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    made.context.kick()
    made.close()
    made.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_addresses_are_walked_as_the_processor_does(bare: Bare) -> None:
    assert translate(bare.memory, bare.root, DATA + 5) == (bare.frames[DATA] << FRAME_SHIFT) + 5
    assert translate(bare.memory, bare.root, NOTHING) is None
    assert translate(bare.memory, bare.root, 1 << 40) is None
    assert find_entry(bare.memory, bare.root, DATA) == (bare.level1 << FRAME_SHIFT) + 16
    assert find_entry(bare.memory, SIZE, DATA) is None
    assert is_canonical((1 << 47) - 1) and not is_canonical(1 << 47) and is_canonical((1 << 64) - 1)


def test_guest_memory_has_bounds() -> None:
    memory = GuestMemory(2 * PAGE)
    assert (memory.frames, len(memory.frame(1)), len(memory.entries(1))) == (2, PAGE, 512)
    for number in (-1, 2, 1 << 40):
        with pytest.raises(IndexError):
            memory.frame(number)
        with pytest.raises(IndexError):
            memory.entries(number)
    memory.close()
    memory.close()
    with pytest.raises(ValueError):
        GuestMemory(PAGE + 1)
    pool = FramePool(3, 5)
    assert (pool.take(), pool.take()) == (3, 4)
    with pytest.raises(MemoryError):
        pool.take()


def test_bases_of_gs_are_exchanged_between_kernel_and_program(bare: Bare) -> None:
    context = bare.context
    context.user_root = bare.root
    context.gs_base = 0x1000
    descriptor = 0x04CFF380_00000FFF | 0x6789 << 16
    context.load_user_gs(0x63, descriptor)
    assert (context.gs_base, context.user_gs_base) == (0x1000, 0x0480_6789)
    context.switch()
    assert (context.gs_base, context.user_gs_base) == (0x0480_6789, 0x1000)
    context.switch()
    context.load_user_gs(0, 0)
    assert (context.gs_base, context.user_gs_base) == (0x1000, 0)


def test_processors_that_take_turns_have_selectors_of_their_own() -> None:
    """Linux takes the base of FS for lost when it finds a selector there: a thread of another processor crashed."""
    if vcpus.usable():
        pytest.skip("no KVM here")
    bare = Bare(2)
    second = bare.vcpu.another()
    turns = Turns([bare.vcpu, second])
    load = "b82b000000 8ee0 8ee8 8ed8 0f05"  # into fs, gs, ds
    contexts = bare.context, second.context

    def run(number: int, code: str) -> tuple[int, int]:
        code = code.replace(" ", "")
        bare.memory.frame(bare.frames[CODE])[: len(code) // 2] = bytes.fromhex(code)
        for context in contexts:
            context.parked = context.ident != number
        contexts[number].start(bare.root, CODE, DATA + PAGE)
        while turns.run().reason is not Reason.HYPERCALL:
            pass
        return contexts[number].regs[RBX], contexts[number].regs[RDI]

    try:
        run(0, load)
        assert run(1, "668ce3 668cef 0f05") == (0, 0)
        assert run(0, "668cdb 0f05")[0] in (0, 0x2B)  # ds: what it had loaded, where a guest can see its selectors
    finally:
        turns.close()
        bare.memory.close()
        segments.exchange(0)


def test_a_kernel_sets_the_base_of_fs_without_coming_out(bare: Bare) -> None:
    """Where gates are open; elsewhere, and for what is no base of a program's, it is a hypercall as any other."""
    inside = bare.vcpu.gates is not None and segments.ring3_sets_bases()
    twice = "0f05 b827000000 0f05".replace(" ", "")
    bare.context.fs_base = 0
    assert bare.run(twice, rax=25, rdi=0, rsi=0x7000_1234, rflags=0x41) == (Reason.HYPERCALL, 39 if inside else 25)
    assert bare.context.fs_base == (0x7000_1234 if inside else 0)
    assert bare.context.regs[RFLAGS] & 0x41 == 0x41
    for which, base in ((0, 1 << 47), (0, 1 << 63), (0, 0xFFFF_8000_0000_0000), (2, 0x1000), (3, 0x2B)):
        assert bare.run(twice, rax=25, rdi=which, rsi=base) == (Reason.HYPERCALL, 25)
        assert bare.context.regs[RDI] == which
    bare.context.user_root = bare.root
    bare.context.switch()
    try:
        assert bare.run(twice, rax=25, rdi=0, rsi=0x1000) == (Reason.SYSCALL, 25)
    finally:
        bare.context.switch()
    assert bare.context.fs_base == (0x7000_1234 if inside else 0)
