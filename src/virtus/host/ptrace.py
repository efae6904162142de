"""ptrace(2): the requests that virtus uses, and `Stepper`, which resumes a tracee and waits for the next stop at once.

Constants are those of include/uapi/linux/ptrace.h and arch/x86/include/uapi/asm/ptrace-abi.h.
"""

import ctypes
import errno
import os
from typing import Final

from virtus.host.machine_code import MachineCode

PTRACE_TRACEME: Final = 0
PTRACE_CONT: Final = 7
PTRACE_SINGLESTEP: Final = 9
PTRACE_GETREGS: Final = 12
PTRACE_SETREGS: Final = 13
PTRACE_SYSCALL: Final = 24
PTRACE_SYSEMU: Final = 31
PTRACE_SETOPTIONS: Final = 0x4200
PTRACE_GETSIGINFO: Final = 0x4202
PTRACE_GETREGSET: Final = 0x4204
PTRACE_SETREGSET: Final = 0x4205
PTRACE_GET_RSEQ_CONFIGURATION: Final = 0x420F
PTRACE_O_TRACESYSGOOD: Final = 1
PTRACE_O_EXITKILL: Final = 1 << 20
SYSCALL_STOP: Final = 0x80 | 5  # SIGTRAP | 0x80 with PTRACE_O_TRACESYSGOOD
NT_X86_XSTATE: Final = 0x202  # include/uapi/linux/elf.h
SIGINFO_SIZE: Final = 128
XSTATE_MAX: Final = 16384  # more than any XSAVE area today (AMX: 11 KiB)
WALL: Final = 0x40000000  # __WALL, include/uapi/linux/wait.h
REGISTER_BYTES: Final = 27 * 8  # struct user_regs_struct

_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long


def ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> int:
    """One request; raises OSError (ESRCH: the tracee is gone or not stopped)."""
    result: int = _ptrace(request, tid, address, data)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace request {request:#x} on {tid}: {os.strerror(number)}")
    return result


class _Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_xstate = ctypes.create_string_buffer(XSTATE_MAX)
_xstate_vector = _Iovec(ctypes.addressof(_xstate), XSTATE_MAX)


def get_xstate(tid: int) -> bytes:
    """A stopped tracee's floating-point and vector state, in the non-compacted XSAVE layout."""
    _xstate_vector.length = XSTATE_MAX
    ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, ctypes.addressof(_xstate_vector))
    return _xstate.raw[: _xstate_vector.length]


def set_xstate(tid: int, state: bytes) -> None:
    """Load what `get_xstate` gave; raises OSError(EINVAL) for what the processor refuses."""
    if len(state) > XSTATE_MAX:
        raise OSError(errno.EINVAL, "XSAVE state too long")
    ctypes.memmove(_xstate, state, len(state))
    _xstate_vector.length = len(state)
    ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, ctypes.addressof(_xstate_vector))


def get_siginfo(tid: int) -> bytes:
    """siginfo_t of the signal a tracee stopped with."""
    info = ctypes.create_string_buffer(SIGINFO_SIZE)
    ptrace(PTRACE_GETSIGINFO, tid, 0, ctypes.addressof(info))
    return info.raw


# The hot path of every ptrace machine: set registers, resume, wait for whoever stops next, get its registers: four
# host calls that cost more in Python than in the kernel. The block's words are named in Stepper below.
#
#   step:   push rbx;  mov rbx, rdi
#           mov rsi, [rbx];     test rsi, rsi;  jz wait             nobody to resume
#           mov r10, [rbx+24];  test r10, r10;  jz resume           registers unchanged
#           mov edi, 13 (PTRACE_SETREGS);  xor edx, edx;  mov eax, 101 (ptrace);  syscall
#   resume: mov rdi, [rbx+8];  mov rsi, [rbx];  xor edx, edx;  mov r10, [rbx+16];  mov eax, 101;  syscall
#   wait:   mov rdi, [rbx+32];  lea rsi, [rbx+40];  mov edx, 0x40000000 (__WALL)
#           xor r10d, r10d;  mov eax, 61 (wait4);  syscall
#           mov [rbx+56], rax;  test rax, rax;  jle out
#           cmp byte [rbx+40], 0x7f;  jne out                       not a stop
#           mov rsi, rax;  mov edi, 12 (PTRACE_GETREGS);  xor edx, edx;  mov r10, [rbx+48];  mov eax, 101;  syscall
#   out:    mov rax, [rbx+56];  pop rbx;  ret
STEP_CODE: Final = bytes.fromhex(
    "53 4889fb 488b33 4885f6 742b 4c8b5318 4d85d2 740e bf0d000000 31d2 b865000000 0f05"
    "488b7b08 488b33 31d2 4c8b5310 b865000000 0f05"
    "488b7b20 488d7328 ba00000040 4531d2 b83d000000 0f05"
    "48894338 4885c0 7e1b 807b287f 7515 4889c6 bf0c000000 31d2 4c8b5330 b865000000 0f05"
    "488b4338 5b c3"
)


class Stepper:
    """Resume one tracee and wait for the next stop of any, or of a certain one, in a single crossing."""

    RESUME, REQUEST, SIGNAL, SET, WAIT, STATUS, GET, STOPPED = range(8)

    def __init__(self, *, waits: bool = False) -> None:
        """With `waits`, other threads of ours run while a tracee does; the crossing is a little slower."""
        self._code = MachineCode(STEP_CODE)
        self._array = (ctypes.c_uint64 * 8)()
        self.block = memoryview(self._array).cast("B").cast("Q")
        self._address = ctypes.addressof(self._array)
        self._step = self._code.function(ctypes.c_void_p, waits=waits)

    def step(self) -> int:
        """Do what the block says; the thread id that stopped or ended, or -errno of wait4."""
        return self._step(self._address)
