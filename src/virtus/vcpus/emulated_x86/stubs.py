"""Functions of ours as an emulated program sees them: code of its own processor, at addresses of its own.

A function that is answered here stores its register arguments where Windows' convention has room for them, and halts:
so its arguments are one run of memory. Source of the convention: Microsoft, x64 calling convention.
"""

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
)
LEAVE: Final = HALT + b"\x90\xc3"  # hlt; nop; ret: a processor that halted stands at no address that it goes on from


ENTRY_CODE: Final = (ENTRY + LEAVE).ljust(SLOT, HALT)
"""A slot that stores the arguments and halts."""
HALTED: Final = len(ENTRY) + len(HALT)
"""Where the processor stands in a slot when it has halted there."""
GOES_ON: Final = HALTED + 1
