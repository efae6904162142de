"""Functions of ours as an emulated program sees them: code of its own processor, at addresses of its own.

A function that is answered here stores its register arguments where Windows' convention has room for them, and halts:
so its arguments are one run of memory. The few that programs call all the time need nobody: they are whole functions
in the guest's code. Source of the convention: Microsoft, x64 calling convention; of offsets: `TEB_*`.
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

TEB_SELF, TEB_PROCESS, TEB_THREAD, TEB_PEB, TEB_LAST_ERROR = 0x30, 0x40, 0x48, 0x60, 0x68
TEB_TLS_SLOTS, TEB_TLS_EXPANSION = 0x1480, 0x1780
TLS_DIRECT: Final = 64
"""Indices of TLS that lie in the TEB itself (Microsoft: TLS_MINIMUM_AVAILABLE)."""
PEB_PROCESS_HEAP: Final = 0x30

HOT: Final[dict[str, bytes]] = {
    "GetLastError": bytes.fromhex(
        "65488b042530000000"  # mov rax, gs:[TEB_SELF]
        "8b4068"  # mov eax, [rax+TEB_LAST_ERROR]
        "c3"
    ),
    "SetLastError": bytes.fromhex(
        "65488b042530000000"  # mov rax, gs:[TEB_SELF]
        "894868"  # mov [rax+TEB_LAST_ERROR], ecx
        "c3"
    ),
    "GetCurrentThreadId": bytes.fromhex("658b042548000000" "c3"),  # mov eax, gs:[TEB_THREAD]
    "GetCurrentProcessId": bytes.fromhex("658b042540000000" "c3"),  # mov eax, gs:[TEB_PROCESS]
    "GetCurrentThread": bytes.fromhex("48c7c0feffffff" "c3"),  # mov rax, -2
    "GetCurrentProcess": bytes.fromhex("48c7c0ffffffff" "c3"),  # mov rax, -1
    "GetProcessHeap": bytes.fromhex(
        "65488b042560000000"  # mov rax, gs:[TEB_PEB]
        "488b4030"  # mov rax, [rax+PEB_PROCESS_HEAP]
        "c3"
    ),
}  # fmt: skip


def entry(number: int) -> bytes:
    """A slot that stores the arguments and halts with its number in EAX."""
    return (ENTRY + struct.pack("<I", number) + LEAVE).ljust(SLOT, HALT)
