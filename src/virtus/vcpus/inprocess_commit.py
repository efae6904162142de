"""Committing pages of a reservation for reading and writing, whole in machine code: what Go does for each span.

The reservations and the journal of what has been committed are where PEB+0xA18 says, as
`personalities/win32/commit_journal.py` describes them; the personality reads the journal before it looks at regions.
The host's call is mprotect (10 in syscall_64.tbl). Everything else, and a full journal, goes on behind the end.
"""

from typing import Final

CODE_OF: Final[dict[str, str]] = {
    "VirtualAlloc": (
        "4181f800100000"  # cmp r8d, 0x1000
        "0f85ff000000"  # jne slow
        "4183f904"  # cmp r9d, 4
        "0f85f5000000"  # jne slow
        "4889c8"  # mov rax, rcx
        "48c1e82f"  # shr rax, 47
        "0f85e8000000"  # jne slow
        "4889d0"  # mov rax, rdx
        "48c1e828"  # shr rax, 40
        "0f85db000000"  # jne slow
        "4885c9"  # test rcx, rcx
        "0f84d2000000"  # je slow
        "4885d2"  # test rdx, rdx
        "0f84c9000000"  # je slow
        "4989ca"  # mov r10, rcx
        "4981e200f0ffff"  # and r10, -4096
        "4c8d9c11ff0f0000"  # lea r11, [rcx+rdx+4095]
        "4981e300f0ffff"  # and r11, -4096
        "65488b042560000000"  # mov rax, gs:[0x60]
        "488b80180a0000"  # mov rax, [rax+0xA18]
        "4c8b00"  # mov r8, [rax]
        "4c8d4810"  # lea r9, [rax+0x10]
        # again:
        "49ffc8"  # dec r8
        "0f8884000000"  # js back
        "4d3b11"  # cmp r10, [r9]
        "7206"  # jb next
        "4d3b5908"  # cmp r11, [r9+8]
        "7606"  # jbe get
        # next:
        "4983c110"  # add r9, 16
        "ebe6"  # jmp again
        # get:
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "48894c2418"  # mov [rsp+0x18], rcx
        "4889542420"  # mov [rsp+0x20], rdx
        "4c89d7"  # mov rdi, r10
        "4c89de"  # mov rsi, r11
        "4c29d6"  # sub rsi, r10
        "ba03000000"  # mov edx, 3
        "4d89d9"  # mov r9, r11
        "4989c0"  # mov r8, rax
        "b80a000000"  # mov eax, 10
        "0f05"  # syscall
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "488b4c2418"  # mov rcx, [rsp+0x18]
        "488b542420"  # mov rdx, [rsp+0x20]
        "4885c0"  # test rax, rax
        "752b"  # jne back
        "b801000000"  # mov eax, 1
        "f0490fc14008"  # lock xadd [r8+8], rax
        "483d00080000"  # cmp rax, 2048
        "7318"  # jae back
        "48c1e004"  # shl rax, 4
        "4d898c0008080000"  # mov [r8+rax+0x808], r9
        "4d89940000080000"  # mov [r8+rax+0x800], r10
        "4c89d0"  # mov rax, r10
        "c3"  # ret
        # back:
        "41b800100000"  # mov r8d, 0x1000
        "41b904000000"  # mov r9d, 4
        # slow:
    ),
}
NAMES: Final = frozenset(CODE_OF)
