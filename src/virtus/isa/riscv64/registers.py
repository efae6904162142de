"""Registers of RV64GC: slots 0..31 are x0..x31, 32..63 are f0..f31; and what a system call's context has besides."""

from typing import Final

F: Final = 32
"""Slot of f0."""
RA, SP, GP, TP = 1, 2, 3, 4
A0: Final = 10
A7: Final = 17
CALL_REGISTERS: Final = (RA, SP, 8, 9, *range(A0, 16))
"""ra, sp, s0, s1 and a0 to a5: what nearly every function takes, returns, or saves (RISC-V ABIs Specification, 1.1)."""

X_NAMES: Final = (
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5",
    "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
)  # fmt: skip
F_NAMES: Final = (
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4", "fa5",
    "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
)  # fmt: skip
"""Names of the calling convention (RISC-V ABIs Specification, 1.1 and 1.2)."""
NAMES: Final = X_NAMES + F_NAMES

# What follows the registers in a context's words, as a system personality needs it.
PC: Final = 64
"""After the `ecall` when a system call comes out."""
SYSCALL_FIRST: Final = 65
"""a0 as it was at the call; a0 itself takes the result."""
SYSCALL_NUMBER: Final = 66
"""The call's number, or NO_SYSCALL."""
NO_SYSCALL: Final = 2**64 - 1
SYSCALL_ARGUMENTS: Final = (10, 11, 12, 13, 14, 15)
"""Where a system call's arguments are: a0 to a5; its number is in a7."""
GUEST_END: Final = 1 << 38
"""The end of user memory with three-level paging (Sv39, privileged architecture, 10.4)."""
