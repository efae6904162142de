"""Functions of ours as an emulated program sees them: code of its own processor, at addresses of its own.

A function that is answered here stores its register arguments where Windows' convention has room for them, and halts:
so its arguments are one run of memory. Source of the convention: Microsoft, x64 calling convention.
"""

import struct
from typing import Final

SLOT: Final = 32
RETURN_SLOT: Final = 0
"""The first slot halts at once: a call of ours into the guest returns there."""
HALT: Final = b"\xf4"
ENTRY: Final = bytes.fromhex(
    "48894c2408"  # mov [rsp+8], rcx
    "4889542410"  # mov [rsp+16], rdx
    "4c89442418"  # mov [rsp+24], r8
    "4c894c2420"  # mov [rsp+32], r9
    "b8"  # mov eax, number
)
LEAVE: Final = HALT + b"\xc3"  # hlt; ret


def entry(number: int) -> bytes:
    """A slot that stores the arguments and halts with its number in EAX."""
    return (ENTRY + struct.pack("<I", number) + LEAVE).ljust(SLOT, HALT)
