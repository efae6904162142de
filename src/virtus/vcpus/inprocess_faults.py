"""What a signal of guest code was: the registers that HANDLER has stored, as a fault of the processor's.

Sources: Linux's struct sigcontext and siginfo_t; Intel SDM volume 3, 6.15 for vectors and error codes.
"""

import mmap
from typing import Any, Final, Protocol

from virtus.vcpus import inprocess_code as code
from virtus.vcpus.inprocess_memory import HostMemory
from virtus.vcpus.program_state import FAST_FAIL, FETCH, NO_VECTOR, READ, RIP, STACK_FAULT, WRITE, CpuContext, CpuFault

_GREGS: Final = (13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17)
"""Linux's places (REG_*) of the processor's registers in their own order, then RIP and the flags."""
_GREG_ERROR, _GREG_TRAP = 19, 20
PAGE_FAULT, PROTECTION_FAULT, BREAKPOINT = 14, 13, 3
ERROR_WRITE, ERROR_FETCH = 2, 16
PRIVILEGED: Final = frozenset({0xF4, 0xFA, 0xFB, *range(0x6C, 0x70), *range(0xE4, 0xE8), *range(0xEC, 0xF0)})
"""First bytes of instructions that only a kernel may execute (Intel SDM volume 2)."""


class Thread(Protocol):
    """What is needed of a guest thread: its state, and where its stack ends. Addresses from `guard` to `low` tell of
    the stack's overflow."""

    state: int
    words: Any
    low: int
    guard: int


def describe(thread: Thread, memory: HostMemory) -> tuple[CpuFault, CpuContext]:
    """The fault, and the registers at it. After an overflow of the stack there is some more of it."""
    words = thread.words[code.FAULT_GENERAL // 8 : code.FAULT_GENERAL // 8 + 23].tolist()
    vectors = memory.read(thread.state + code.FAULT_VECTORS, 256)
    mxcsr = thread.words[code.FAULT_MXCSR // 8] & 0xFFFF_FFFF
    context = CpuContext([words[place] for place in _GREGS], vectors, mxcsr)
    trap, error, address = words[_GREG_TRAP], words[_GREG_ERROR], thread.words[code.FAULT_ADDRESS // 8]
    if trap == PAGE_FAULT:
        kind = FETCH if error & ERROR_FETCH else WRITE if error & ERROR_WRITE else READ
        if thread.guard <= address < thread.low:
            memory.protect(thread.guard, thread.low - thread.guard, mmap.PROT_READ | mmap.PROT_WRITE)
            thread.low = thread.guard
            return CpuFault(STACK_FAULT, address, kind), context
        return CpuFault(NO_VECTOR, address, kind), context
    if trap == PROTECTION_FAULT:
        return CpuFault(_protection(memory, context.general[RIP]), (1 << 64) - 1, READ), context
    if trap == BREAKPOINT:
        context.general[RIP] -= 1  # at the instruction, as for faults
    return CpuFault(trap, 0, 0), context


def _protection(memory: HostMemory, address: int) -> int:
    """What a general protection fault was: an instruction of kernels, `int` with a number, or a wild address."""
    try:
        first = memory.read(address, 2)
    except Exception:  # whatever `violation` makes: the code is gone
        return NO_VECTOR
    if first[0] == 0xCD:
        return first[1] if first[1] in (FAST_FAIL, BREAKPOINT) else NO_VECTOR
    return PROTECTION_FAULT if first[0] in PRIVILEGED else NO_VECTOR
