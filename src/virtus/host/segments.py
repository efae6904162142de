"""Segments: the selectors of this thread, which are a guest's where KVM is software, and what the processor can do.

Such a KVM gives each virtual processor its own bases of FS and GS, but not the selectors that a guest loads natively: a
kernel that has loaded one leaves it to the next. On VMX and SVM they are the processor's affair, and here always null.
Sources: Intel SDM volume 2A (MOV to segment registers); arch_prctl(2).
"""

import ctypes
import signal
from collections.abc import Callable
from functools import cache
from typing import Final

from virtus.host.machine_code import MachineCode

#   xor eax, eax;  mov ax, fs;  shl rax, 16;  mov ax, gs;  shl rax, 16;  mov ax, ds;  shl rax, 16;  mov ax, es
#   mov es, edi;  shr rdi, 16;  mov ds, edi;  shr rdi, 16;  mov gs, edi;  ret
_EXCHANGE: Final = bytes.fromhex(
    "31c0 668ce0 48c1e010 668ce8 48c1e010 668cd8 48c1e010 668cc0 8ec7 48c1ef10 8edf 48c1ef10 8eef c3"
)
_FS_SHIFT: Final = 48
AT_HWCAP2: Final = 26  # getauxval(3)
HWCAP2_FSGSBASE: Final = 1 << 1  # arch/x86/include/uapi/asm/hwcap2.h
#   sub rsp, 8;  mov rsi, rsp;  mov edi, ARCH_GET_FS;  mov eax, arch_prctl;  syscall;  xor eax, eax;  mov fs, eax
#   mov rsi, [rsp];  mov edi, ARCH_SET_FS;  mov eax, arch_prctl;  syscall;  add rsp, 8;  ret
_NULL_FS: Final = bytes.fromhex(
    "4883ec08 4889e6 bf03100000 b89e000000 0f05 31c0 8ee0 488b3424 bf02100000 b89e000000 0f05 4883c408 c3"
)
#   mov esi, 4096;  mov edi, ARCH_SET_GS;  mov eax, arch_prctl;  syscall;  xor eax, eax;  mov gs, eax
#   sub rsp, 8;  mov rsi, rsp;  mov edi, ARCH_GET_GS;  mov eax, arch_prctl;  syscall
#   xor esi, esi;  mov edi, ARCH_SET_GS;  mov eax, arch_prctl;  syscall;  pop rax;  ret
_NULL_GS: Final = bytes.fromhex(
    "be00100000 bf01100000 b89e000000 0f05 31c0 8ee8 4883ec08 4889e6 bf04100000 b89e000000 0f05"
    "31f6 bf01100000 b89e000000 0f05 58 c3"
)


@cache
def _code(code: bytes) -> tuple[MachineCode, Callable[..., int]]:
    made = MachineCode(code)
    return made, made.function(ctypes.c_uint64)


def exchange(wanted: int) -> int:
    """Load ES, DS and GS with what an earlier call gave (0: null), and FS with null; what all were before.

    C code keeps nothing behind ES, DS and GS in 64-bit mode. FS it does: its base stays as it was.
    """
    before = _code(_EXCHANGE)[1](wanted) & (1 << 64) - 1
    if before >> _FS_SHIFT:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # no handler without its base
        _code(_NULL_FS)[1](0)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return before


@cache
def null_clears_base() -> bool:
    """Whether a segment's base is 0 once its selector is null: AMD's processors before Zen 2 leave it as it is."""
    return not _code(_NULL_GS)[1](0)


@cache
def ring3_sets_bases() -> bool:
    """Whether the host lets anybody set the base of FS by an instruction (WRFSBASE)."""
    libc = ctypes.CDLL(None)
    libc.getauxval.restype, libc.getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return bool(libc.getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)
