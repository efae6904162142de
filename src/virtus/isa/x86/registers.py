"""x86-64 registers in the order of the host's `struct user_regs_struct` (arch/x86/include/asm/user_64.h)."""

from typing import Final

R15: Final = 0
R14: Final = 1
R13: Final = 2
R12: Final = 3
RBP: Final = 4
RBX: Final = 5
R11: Final = 6
R10: Final = 7
R9: Final = 8
R8: Final = 9
RAX: Final = 10
RCX: Final = 11
RDX: Final = 12
RSI: Final = 13
RDI: Final = 14
ORIG_RAX: Final = 15
RIP: Final = 16
CS: Final = 17
EFLAGS: Final = 18
RSP: Final = 19
SS: Final = 20
FS_BASE: Final = 21
GS_BASE: Final = 22
DS: Final = 23
ES: Final = 24
FS: Final = 25
GS: Final = 26
COUNT: Final = 27

SYSCALL_ARGUMENTS: Final = (RDI, RSI, RDX, R10, R8, R9)
"""Where a system call's arguments are, in order (System V ABI AMD64 supplement, A.2.1)."""
NO_SYSCALL: Final = 2**64 - 1
"""ORIG_RAX when the context is not inside a system call."""
