"""A child: a host process whose lower 4 GiB are a guest's linear address space, and whose instructions are the guest's.

It is a 64-bit process with nothing mapped but one page of code at the very top (`isa/x86/layout.py`), and below that
one that it reads lists of calls from; the guest runs in compatibility mode, at the processor's own speed and privilege
level 3. What the guest must not do natively stops it; the monitor builds the address space by system calls that it has
the child execute.

Three things keep a guest from the host, whatever code it gets to run, 64-bit code through selector 0x33 included:
PTRACE_SYSEMU stops at every system call before the host executes it, the filter below kills the child for any call but
those of the stub's own page, and nothing else is there to be reached: no mapping, no descriptor but the memory's.
"""

import ctypes
import errno
import mmap
import os
import signal
import struct
from typing import Final

from virtus.errors import HostLacks, MachineBroken
from virtus.host import dispositions, ptrace
from virtus.isa.x86 import registers as r
from virtus.isa.x86.layout import STUB_START
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.memory.guest_memory import GuestMemory
from virtus.vcpus import stub

LINEAR_SPACE: Final = 1 << 32
MEMORY_AT, CODE_AT = 3, 4
"""Descriptors of a child: the guest's physical memory, and what the scanner has made of code."""
COMPAT_CS: Final = 0x23  # __USER32_CS (arch/x86/include/asm/segment.h)
DATA_SELECTOR: Final = 0x2B  # __USER_DS
TRAP_AT: Final = STUB_START + 2  # behind `syscall`: the address that a call comes from, as seccomp(2) sees it
FILTER_AT: Final = STUB_START + 64
CALLS_AT: Final = STUB_START - mmap.PAGESIZE
"""Where a child reads calls that it is to make in a row."""
LOOP_AT: Final = STUB_START + 512
CALL: Final = struct.Struct("<q6Q")
Call = tuple[int, int, int, int, int, int, int]
"""A call's number and its six arguments."""
MOST_CALLS: Final = mmap.PAGESIZE // CALL.size - 1
NO_MORE_CALLS: Final = -4096  # which no call returns
LOOP: Final = (
    b"\x48\xbb" + struct.pack("<Q", CALLS_AT)  # mov rbx, CALLS
    + bytes.fromhex("488b03 4885c0 7823")  # again: mov rax, [rbx]; test rax, rax; js done
    + bytes.fromhex("488b7b08 488b7310 488b5318 4c8b5320 4c8b4328 4c8b4b30")  # mov rdi, [rbx + 8], and so on
    + bytes.fromhex("0f05 4883c338 4885c0 79d5 cc")  # syscall; add rbx, 56; test rax, rax; jns again; done: int3
)  # fmt: skip
LOOP_TRAP_AT: Final = LOOP_AT + LOOP.index(b"\x0f\x05") + 2
LDT_AT: Final = STUB_START + 1024
LOCAL_USER: Final = 7  # of a selector: the local table, level 3
BIASES: Final = 16
"""Code segments in a child's LDT: the base of number n is n << 28."""
USER_DESC: Final = struct.Struct("<IIII")  # struct user_desc (arch/x86/include/uapi/asm/ldt.h)
SEGMENT_FLAGS: Final = 1 | 2 << 1 | 1 << 4 | 1 << 6  # 32-bit, code, limit in pages, usable
DATA_FLAGS: Final = 1 | 0 << 1 | 1 << 4 | 1 << 6  # likewise, data that can be written
ALL_PAGES: Final = 0xF_FFFF
WRITE_LDT: Final = 0x11  # modify_ldt(2)
TICK: Final = 4000
"""Microseconds of a child's processor time between two stops for the monitor to look around."""
ITIMER_VIRTUAL: Final = 1  # include/uapi/linux/time.h
PR_SET_NO_NEW_PRIVS: Final = 38
SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW = 0x8000_0000, 0x7FFF_0000
AUDIT_ARCH_X86_64: Final = 0xC000_003E
MAP_SHARED, MAP_FIXED = 1, 0x10
EXIT_SOFTWARE: Final = 70  # EX_SOFTWARE of sysexits.h

_LOAD, _EQUAL, _GREATER, _RETURN = 0x20, 0x15, 0x25, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGT|K, BPF_RET|K
_NR, _ARCH, _IP_LOW, _IP_HIGH, _ADDRESS_HIGH, _LENGTH_HIGH = 0, 4, 8, 12, 20, 28  # struct seccomp_data

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def filter_program() -> bytes:
    """Classic BPF: mmap and munmap of the lower 4 GiB and modify_ldt, called from the stub's page, and nothing else."""
    checks = [(_ARCH, AUDIT_ARCH_X86_64), (_IP_HIGH, TRAP_AT >> 32), (_ADDRESS_HIGH, 0)]
    rows = [(_LOAD, 0, 0, _IP_LOW), (_EQUAL, 2, 0, TRAP_AT & 0xFFFF_FFFF), (_EQUAL, 1, 0, LOOP_TRAP_AT & 0xFFFF_FFFF)]
    rows += [(_RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS)]
    for offset, value in checks:
        rows += [(_LOAD, 0, 0, offset), (_EQUAL, 1, 0, value), (_RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS)]
    rows += [(_LOAD, 0, 0, _LENGTH_HIGH), (_GREATER, 0, 1, 1), (_RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS)]
    rows += [(_LOAD, 0, 0, _NR)]
    for call in ("mmap", "munmap", "modify_ldt"):
        rows += [(_EQUAL, 0, 1, NUMBERS[call]), (_RETURN, 0, 0, SECCOMP_RET_ALLOW)]
    rows += [(_RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS)]
    return b"".join(struct.pack("<HBBI", *row) for row in rows)


def stub_page() -> bytes:
    """The one page a child keeps: the code to make calls with, the filter, and a timer's setting."""
    program = filter_program()
    header = struct.pack("<H6xQ", len(program) // 8, FILTER_AT + 64)  # struct sock_fprog
    interval = struct.pack("<qqqq", 0, TICK, 0, TICK)  # struct itimerval
    segments = b"".join(USER_DESC.pack(bias, bias << 28, ALL_PAGES, SEGMENT_FLAGS) for bias in range(BIASES))
    page = stub.CODE.ljust(64, b"\xcc") + header.ljust(32, b"\0") + interval + program
    page = page.ljust(LOOP_AT - STUB_START, b"\xcc") + LOOP
    return (page.ljust(LDT_AT - STUB_START, b"\xcc") + segments).ljust(mmap.PAGESIZE, b"\xcc")


def code_selector(bias: int) -> int:
    """The selector of a code segment whose base is `bias` << 28."""
    return COMPAT_CS if not bias else bias << 3 | LOCAL_USER


def data_segment(number: int, base: int) -> bytes:
    """The struct user_desc of all of the linear address space from a base on, as entry `number`."""
    return USER_DESC.pack(number, base, ALL_PAGES, DATA_FLAGS)


class Child:
    """One stopped or running child. `regs` is a view of its registers (`isa/x86/registers.py`)."""

    def __init__(self, family: "Children", tid: int) -> None:
        self._family, self.tid = family, tid
        self._array = (ctypes.c_uint64 * r.COUNT)()
        self._address = ctypes.addressof(self._array)
        self.regs = memoryview(self._array).cast("B").cast("Q")
        self.alive = True

    def go(self, request: int = ptrace.PTRACE_SYSEMU) -> int:
        """Run until it stops; the signal it stopped with (SYSCALL_STOP for a system call, which was not executed).

        SIGUSR1 is a kick, SIGVTALRM a tick. Raises MachineBroken when somebody has killed it.
        """
        block = self._family.block
        self.regs[r.ORIG_RAX] = r.NO_SYSCALL
        block[0], block[1], block[2], block[3], block[4], block[6] = (
            self.tid, request, 0, self._address, self.tid, self._address,
        )  # fmt: skip
        return self._stopped(self._family.step())

    def _stopped(self, result: int) -> int:
        block = self._family.block
        while result == -errno.EINTR:  # a signal of ours: come back, so that its handler runs
            os.kill(self.tid, signal.SIGUSR1)
            block[0] = 0
            result = self._family.step()
        status = block[5] & 0xFFFF_FFFF
        if result != self.tid or status & 0xFF != 0x7F:
            self.alive = result != self.tid
            raise MachineBroken("running the guest", f"its process ended with status {status & 0xFFFF:#x}")
        return status >> 8 & 0xFF

    def inject(self, call: str, *arguments: int) -> int:
        """Have it execute one system call; the raw result. `regs` stays."""
        family = self._family
        regs = family.call_regs
        for index, value in zip(r.SYSCALL_ARGUMENTS, arguments, strict=False):
            regs[index] = value & r.NO_SYSCALL
        regs[r.RAX], regs[r.RIP] = NUMBERS[call], stub.SYSCALL_AT
        return self._called()

    def _called(self) -> int:
        """Have it run with the registers of a call until it traps; what is in RAX then."""
        family = self._family
        family.call_regs[r.ORIG_RAX] = r.NO_SYSCALL
        block = family.block
        block[0], block[1], block[2], block[3], block[4], block[6] = (
            self.tid, ptrace.PTRACE_CONT, 0, family.call_address, self.tid, family.call_address,
        )  # fmt: skip
        while self._stopped(family.step()) != signal.SIGTRAP:
            block[0], block[3] = self.tid, 0  # a tick or a kick: it goes on where it was
            family.interrupted = True
        result = family.call_regs[r.RAX]
        return result - 2**64 if result >> 63 else result

    def map(self, linear: int, size: int, protection: int, descriptor: int, offset: int) -> bool:
        """Show a part of a memory at a linear address; False where the host forbids it (the lowest pages)."""
        result = self.inject("mmap", linear, size, protection, MAP_SHARED | MAP_FIXED, descriptor, offset)
        return result == linear

    def call_all(self, calls: list[Call]) -> int:
        """Have it execute calls, by numbers and arguments, in their order; how many were before one that failed."""
        family = self._family
        for start in range(0, len(calls), MOST_CALLS):
            part = calls[start : start + MOST_CALLS]
            at = 0
            for call in part:
                CALL.pack_into(family.calls, at, *call)
                at += CALL.size
            CALL.pack_into(family.calls, at, NO_MORE_CALLS, 0, 0, 0, 0, 0, 0)
            family.call_regs[r.RIP] = LOOP_AT
            if self._called() != NO_MORE_CALLS:
                return start + (family.call_regs[r.RBX] - CALLS_AT) // CALL.size - 1
        return len(calls)

    def unmap(self, linear: int, size: int) -> None:
        """Forget what is mapped."""
        self.inject("munmap", linear, size)

    def set_data_segment(self, number: int, at: int) -> int | None:
        """Make an entry of its local descriptor table what `data_segment` gave, which it can read at a linear address;
        the selector, None where the host forbids it."""
        result = self.inject("modify_ldt", WRITE_LDT, at, USER_DESC.size) & 0xFFFF_FFFF
        return None if result else number << 3 | LOCAL_USER

    def siginfo(self) -> tuple[int, int]:
        """si_code and si_addr of the signal it stopped with (siginfo_t of sigaction(2))."""
        _, _, code, address = struct.unpack_from("<iii4xQ", ptrace.get_siginfo(self.tid))
        return code, address

    def kick(self) -> None:
        """Have it stop soon with SIGUSR1; from any thread."""
        if self.alive:
            try:
                os.kill(self.tid, signal.SIGUSR1)
            except ProcessLookupError:
                self.alive = False

    def kill(self) -> None:
        """End it. May be called twice."""
        if self.alive:
            self.alive = False
            try:
                os.kill(self.tid, signal.SIGKILL)
                os.waitpid(self.tid, ptrace.WALL)
            except (ProcessLookupError, ChildProcessError):
                pass  # it has ended already


class Children:
    """Makes children: copies of a template that never runs guest code."""

    def __init__(self, memory_fd: int, code_fd: int) -> None:
        """Raises HostLacks where the host forbids tracing one's own children."""
        stepper = ptrace.Stepper(waits=True)
        self.block, self.step = stepper.block, stepper.step
        self._stepper = stepper
        self._array = (ctypes.c_uint64 * r.COUNT)()
        self.call_address = ctypes.addressof(self._array)
        self.call_regs = memoryview(self._array).cast("B").cast("Q")
        stub.zero_registers(self.call_regs)
        self.interrupted = False
        """A tick or a kick came while a call was executed."""
        self.made = 0
        self._calls = GuestMemory(mmap.PAGESIZE, "calls")
        self.calls = self._calls.bytes
        try:
            self._template = Child(self, _spawn(memory_fd, code_fd, self._calls.fd))
        except OSError as error:
            raise HostLacks(
                "starting the guest's process", f"tracing it is forbidden: {error.strerror}", "allow ptrace(2)"
            ) from error
        template = self._template
        pointer, size, signature = stub.rseq_configuration(template.tid)
        if pointer:
            template.inject("rseq", pointer, size, stub.RSEQ_FLAG_UNREGISTER, signature)
        template.inject("munmap", 0, CALLS_AT)
        for bias in range(BIASES):
            size = USER_DESC.size
            self.can_bias = template.inject("modify_ldt", WRITE_LDT, LDT_AT + bias * size, size) & 0xFFFF_FFFF == 0
        self.initial_xstate = stub.clean_xstate(ptrace.get_xstate(template.tid))

    def fresh(self) -> Child:
        """A new child: stopped, its 4 GiB empty, behind the filter. Raises HostLacks."""
        flags = stub.CLONE_PARENT | stub.CLONE_PTRACE | signal.SIGCHLD
        tid = self._template.inject("clone", flags, 0, 0, 0, 0)
        if tid <= 0:
            raise HostLacks("starting the guest's process", os.strerror(-tid), "allow more processes")
        child = Child(self, tid)
        block = self.block
        block[0], block[4], block[6] = 0, tid, self.call_address
        child._stopped(self.step())
        child.inject("setitimer", ITIMER_VIRTUAL, FILTER_AT + 32, 0)
        child.inject("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        result = child.inject("seccomp", SECCOMP_SET_MODE_FILTER, 0, FILTER_AT)
        if result < 0:
            child.kill()
            raise HostLacks("filtering the guest's system calls", os.strerror(-result), "use a kernel with seccomp")
        ptrace.set_xstate(tid, self.initial_xstate)
        regs = child.regs
        stub.zero_registers(regs)
        regs[r.CS], regs[r.SS], regs[r.DS], regs[r.ES] = COMPAT_CS, DATA_SELECTOR, DATA_SELECTOR, DATA_SELECTOR
        self.made += 1
        return child

    def close(self) -> None:
        """End the template; the children are their owners'. May be called twice."""
        self._template.kill()
        self._calls.close()


def _spawn(memory_fd: int, code_fd: int, calls_fd: int) -> int:
    """Fork the template: traced, stopped, still full of mappings of ours but with the two descriptors alone."""
    page = stub_page()
    assert _libc.syscall
    tid: int = _libc.syscall(ctypes.c_long(NUMBERS["clone"]), ctypes.c_ulong(signal.SIGCHLD), 0, 0, 0, 0)
    if tid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if tid == 0:
        _become_template(page, memory_fd, code_fd, calls_fd)
    stopped, status = os.waitpid(tid, ptrace.WALL)
    if stopped != tid or not os.WIFSTOPPED(status):
        raise OSError(errno.EPERM, f"it ended with status {status:#x} instead of stopping for its tracer")
    ptrace.ptrace(ptrace.PTRACE_SETOPTIONS, tid, 0, ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_EXITKILL)
    return tid


def _become_template(page: bytes, memory_fd: int, code_fd: int, calls_fd: int) -> None:
    """The child's side; ends in a stop, never returns."""
    try:
        _libc.prctl(stub.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _libc.mmap.restype = ctypes.c_void_p
        _libc.mmap.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_long,
        ]
        _libc.mmap(CALLS_AT, mmap.PAGESIZE, mmap.PROT_READ, MAP_SHARED | MAP_FIXED, calls_fd, 0)
        high = os.dup(code_fd) if code_fd <= CODE_AT else code_fd
        low = os.dup(memory_fd) if memory_fd <= CODE_AT else memory_fd
        os.dup2(low, MEMORY_AT)
        os.dup2(high, CODE_AT)
        os.closerange(0, MEMORY_AT)
        os.closerange(CODE_AT + 1, os.sysconf("SC_OPEN_MAX"))
        dispositions.set_default()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
        _libc.mmap(STUB_START, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        ctypes.memmove(STUB_START, page, len(page))
        _libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        _libc.mprotect(STUB_START, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC)
        ptrace.ptrace(ptrace.PTRACE_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
    finally:
        os._exit(EXIT_SOFTWARE)
