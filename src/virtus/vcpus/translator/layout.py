"""Where things are in the address space of a translated guest, and what translated code and the vCPU agree upon.

A guest thread is a stub process (`vcpus/stub.py`). Guest memory stands at its own addresses, below `GUEST_END`;
above it lie the parts of the machine::

    GUEST_END   256 GiB, as on a processor with three-level paging (RISC-V Sv39)
    STATES      one page a thread: its registers, and the words below
    STACKS      one host stack a thread, for translated code
    TABLE       for each guest address the host address of its translation: 8 bytes for 2 bytes of guest code
    FAST        the same for the entries that take registers along (`llvm.convention`), where there are such
    CODE        translated code, the same memory in every address space of the machine, not writable to guests
    COUNTERS    how often blocks have run; right after the code, within reach of its relative addresses

Translated code is entered with the host's C calling convention, as `word f(state)`: the state's address comes in RDI,
the address of the guest instruction to go on with is returned in RAX. A translation for a guest address may be called
or jumped to. When a guest function is called, its translation is called; whoever called compares what comes back with
the address the guest function was expected to come back to, and returns upward where it differs (longjmp, a switch of
stacks). All of a guest's registers stand in its state whenever one translation calls, jumps to or returns to another;
between optimised ones, some are taken along instead (`llvm.convention`).
"""

from typing import Final

PAGE: Final = 4096
GUEST_END: Final = 1 << 38

STATES: Final = 0x1000_0000_0000
STATE_BYTES: Final = PAGE
STACKS: Final = 0x1800_0000_0000
STACK_BYTES: Final = 64 << 20
TABLE: Final = 0x2000_0000_0000
TABLE_BYTES: Final = GUEST_END * 4
FAST: Final = 0x2800_0000_0000
CODE: Final = 0x3000_0000_0000
CODE_BYTES: Final = 1 << 30
COUNTERS: Final = CODE + CODE_BYTES
COUNTERS_BYTES: Final = 64 << 20
MOST_THREADS: Final = 1 << 16


def table_entry(pc: int, table: int = TABLE) -> int:
    """Where the host address of the translation of guest address `pc` stands; 0 is kept there when there is none."""
    return table + pc * 4


# The state block, in 64-bit words. 0..63 are the instruction set's registers.

PC: Final = 64
"""The guest address to go on with. Valid whenever the thread is out, and on entry of MISS, UNWIND and HOT."""
SYSCALL_FIRST: Final = 65
"""What the first argument register held at the system call (the result takes its place), for restarts."""
SYSCALL_NUMBER: Final = 66
"""The call's number while the thread is inside a system call, else 2**64 - 1."""
EXIT: Final = 67
"""Why the thread came out: one of the exits below, or for `leave_if` LEAVE_FIRST + its reason."""
MXCSR: Final = 68
"""The host's floating-point control and status while the thread is out (Intel SDM volume 1, 10.2.3)."""
STACK_LIMIT: Final = 69
"""A translation entered with RSP below this goes to UNWIND. All ones: somebody wants the thread out."""
INTERRUPT: Final = 70
"""Not 0: somebody wants the thread out. Looked at wherever code jumps backwards."""
RESERVED_ADDRESS: Final = 71
"""Of load-reserved; 2**64 - 1 for none."""
RESERVED_VALUE: Final = 72
STACK_TOP: Final = 73
"""Where the thread's host stack begins: RSP in ENTER's loop."""
LEAVE_AT: Final = 74
"""Address of LEAVE: `word leave(state)`. Comes out; the reason is in EXIT, where to go on in PC. Returns the PC to go
on with, which the caller compares with the one it expects."""
MISS_AT: Final = 75
"""Address of MISS: `word miss(state)`. Has the guest code at PC translated, and goes on there."""
UNWIND_AT: Final = 76
"""Address of UNWIND: jumped to at the entry of a translation, PC being its guest address; drops the host stack."""
HOT_AT: Final = 77
"""Address of HOT: jumped to by a block whose counter ran out, PC its guest address, RCX the host address of the block:
goes on with the table's entry if that is another one, else comes out to say so."""
ROUNDING: Final = 78
"""The guest's rounding mode, as the instruction set numbers it."""
JUMP_MISS_AT: Final = 79
"""Address of JUMP_MISS: like MISS, for computed jumps within a function; the jump's own address is in JUMP_FROM. So the
translators come to know where such jumps lead."""
JUMP_FROM: Final = 80
CALL_ENTER_AT, CALL_LEAVE_AT, CALL_UP_AT, CALL_UNWIND_AT, CALL_MISS_AT, CALL_JUMP_MISS_AT = range(81, 87)
"""Addresses of the pieces between optimised functions that take registers along and the rest (`call_stubs`)."""

# Exits

EXIT_SYSCALL: Final = 1  # PC is after the call
EXIT_MISS: Final = 2  # PC has no translation
EXIT_HOT: Final = 3  # the block at PC has run often
EXIT_INTERRUPT: Final = 4  # somebody wanted it out
EXIT_ILLEGAL: Final = 5  # an instruction that means nothing, at PC
EXIT_BREAKPOINT: Final = 6  # at PC
EXIT_FLUSH: Final = 7  # instructions may have changed; PC is the next one
EXIT_INTERPRET: Final = 8  # have the one instruction at PC interpreted, and go on after it
EXIT_JUMP_MISS: Final = 9  # as EXIT_MISS, after the computed jump at JUMP_FROM
LEAVE_FIRST: Final = 256
