"""The stub: a host process that lends a guest its address space and its instructions, and nothing else.

It starts as a copy of the kernel process that shares the kernel's descriptor table (so that the kernel's files can be
mapped by injection), and is then stripped: every mapping of the host goes, down to one page of code at the top of the
user address range, on which the kernel has system calls executed that build the guest's address space.
"""

import ctypes
import mmap
import os
import signal
import struct
from typing import Final

from virtus.host import dispositions, ptrace
from virtus.isa.x86 import registers as r
from virtus.isa.x86.layout import STUB_START
from virtus.isa.x86.linux_calls import NUMBERS

CODE: Final = bytes.fromhex("0f05 cc")  # syscall; int3: the trap brings it back to the kernel
SYSCALL_AT: Final = STUB_START

CLONE_VM: Final = 0x100  # include/uapi/linux/sched.h
CLONE_FILES: Final = 0x400
CLONE_PTRACE: Final = 0x2000
CLONE_PARENT: Final = 0x8000

PR_SET_PDEATHSIG: Final = 1  # include/uapi/linux/prctl.h
PR_SET_NO_NEW_PRIVS: Final = 38
RSEQ_FLAG_UNREGISTER: Final = 1

USER_CS, USER_SS, FLAGS = 0x33, 0x2B, 0x202  # arch/x86/include/asm/segment.h; interrupts on
MXCSR_DEFAULT: Final = 0x1F80
FCW_DEFAULT: Final = 0x37F

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
MAP_FIXED: Final = 0x10


def clean_xstate(state: bytes) -> bytes:
    """The XSAVE area with every component in its initial state (Intel SDM volume 1, 13.6)."""
    clean = bytearray(len(state))
    struct.pack_into("<H", clean, 0, FCW_DEFAULT)
    struct.pack_into("<I", clean, 24, MXCSR_DEFAULT)
    clean[464:512] = state[464:512]  # the software-reserved words carry the enabled features
    return bytes(clean)


def spawn() -> int:
    """Fork the first stub and return its thread id; it is traced, stopped, and still full of the host's mappings.

    Raises OSError where the host forbids tracing one's own children.
    """
    for function in (_libc.syscall, _libc.mmap, _libc.mprotect, _libc.prctl, _libc.ptrace):
        assert function  # resolved before the fork: the child must not need the loader
    pid: int = _libc.syscall(ctypes.c_long(NUMBERS["clone"]), ctypes.c_ulong(CLONE_FILES | signal.SIGCHLD), 0, 0, 0, 0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "creating the stub process")
    if pid == 0:
        _become_stub()
    stopped, status = os.waitpid(pid, ptrace.WALL)
    if stopped != pid or not os.WIFSTOPPED(status):
        raise OSError(1, f"the stub process ended with status {status:#x} instead of stopping for its tracer")
    ptrace.ptrace(ptrace.PTRACE_SETOPTIONS, pid, 0, ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_EXITKILL)
    return pid


def _become_stub() -> None:
    """The child's side; ends in a stop, never returns."""
    try:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        dispositions.set_default()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.setsid()  # what the user's terminal sends to all of a job is the kernel's to pass on, not the stubs'
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
        _libc.mmap(STUB_START, 4096, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        ctypes.memmove(STUB_START, CODE, len(CODE))
        _libc.mprotect(STUB_START, 4096, mmap.PROT_READ | mmap.PROT_EXEC)
        ptrace.ptrace(ptrace.PTRACE_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
    finally:
        os._exit(70)  # EX_SOFTWARE: only reached when something above failed


def zero_registers(registers: memoryview) -> None:
    """What a fresh user context starts with."""
    for index in range(r.COUNT):
        registers[index] = 0
    registers[r.CS], registers[r.SS], registers[r.EFLAGS] = USER_CS, USER_SS, FLAGS
    registers[r.ORIG_RAX] = r.NO_SYSCALL


def rseq_configuration(tid: int) -> tuple[int, int, int]:
    """Address, size and signature of the restartable-sequence area a tracee has registered; zeros for none."""
    area = ctypes.create_string_buffer(24)
    try:
        ptrace.ptrace(ptrace.PTRACE_GET_RSEQ_CONFIGURATION, tid, 24, ctypes.addressof(area))
    except OSError:
        return 0, 0, 0  # a kernel before 5.13, or without rseq
    pointer, size, signature, _flags, _pad = struct.unpack("<QIIII", area.raw)
    return pointer, size, signature
