"""What vCPUs for a program tell of it: its registers, and what stopped it."""

from typing import Final

from virtus.records import dataclass

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, RIP, FLAGS = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17
"""Places in a context's `general` words: the processor's numbers of its registers, then RIP and the flags."""
NO_VECTOR: Final = -1
READ, WRITE, FETCH = 16, 17, 18
"""Kinds of access to memory, by the numbers of Unicorn's enum uc_mem_type."""
STACK_FAULT: Final = 12
"""The vector by which an overflow of the guest's stack is told, as a 16-bit processor would."""
FAST_FAIL: Final = 0x29
"""The vector of `int 0x29`, by which Windows programs end themselves (Microsoft: __fastfail)."""


@dataclass(slots=True)
class CpuContext:
    """All registers of a program: `general` in the order of `RAX`...`FLAGS`, `vectors` of 16 bytes each, and MXCSR."""

    general: list[int]
    vectors: bytes
    mxcsr: int


@dataclass(frozen=True, slots=True)
class CpuFault:
    """What stopped the program: `vector` of the processor, NO_VECTOR for an access to memory it has no right to.

    `kind` is READ, WRITE or FETCH, and `page` the address.
    """

    vector: int
    page: int
    kind: int

    @property
    def write(self) -> bool:
        """Whether it was a store."""
        return self.kind == WRITE
