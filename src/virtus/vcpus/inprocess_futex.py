"""Waiting on an address and waking there, whole in machine code: the host's futex, without the interpreter's lock.

A futex is an aligned word of 32 bits, and what is waited on may be a part of one: waiters and wakers of the same part
find each other by a bit of FUTEX_WAIT_BITSET's mask (futex(2)). Waits for 8 bytes, and native ones with a time, go on
behind the end; Python looks at the value again and again there. Numbers: syscall_64.tbl (futex 202, clock_gettime 228);
linux/futex.h (FUTEX_WAIT_BITSET and FUTEX_WAKE_BITSET, 9 and 10, private to the process, 128); ERROR_TIMEOUT is 1460.
"""

from typing import Final

CODE_OF: Final[dict[str, str]] = {
    "WaitOnAddress": (
        "4983f804"  # cmp r8, 4
        "7410"  # je get
        "49ffc8"  # dec r8
        "4983f802"  # cmp r8, 2
        "0f83f4000000"  # jae back
        "49ffc0"  # inc r8
        # get:
        "4889c8"  # mov rax, rcx
        "4883e0fc"  # and rax, -4
        "83e103"  # and ecx, 3
        "4989c2"  # mov r10, rax
        "8b00"  # mov eax, [rax]
        "89442418"  # mov [rsp+0x18], eax
        "41bb01000000"  # mov r11d, 1
        "41d3e3"  # shl r11d, cl
        "c1e103"  # shl ecx, 3
        "d3e8"  # shr eax, cl
        "4183f802"  # cmp r8d, 2
        "740a"  # je part
        "7710"  # ja zero
        "0fb6c0"  # movzx eax, al
        "0fb60a"  # movzx ecx, byte ptr [rdx]
        "eb0a"  # jmp next
        # part:
        "0fb7c0"  # movzx eax, ax
        "0fb70a"  # movzx ecx, word ptr [rdx]
        "eb02"  # jmp next
        # zero:
        "8b0a"  # mov ecx, [rdx]
        # next:
        "39c8"  # cmp eax, ecx
        "0f8599000000"  # jne done
        "4c895c2420"  # mov [rsp+0x20], r11
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "4c89d7"  # mov rdi, r10
        "4883ec28"  # sub rsp, 0x28
        "4531d2"  # xor r10d, r10d
        "4183f9ff"  # cmp r9d, -1
        "7451"  # je copy
        "4889fa"  # mov rdx, rdi
        "bf01000000"  # mov edi, 1
        "488d742410"  # lea rsi, [rsp+0x10]
        "b8e4000000"  # mov eax, 228
        "0f05"  # syscall
        "4889d7"  # mov rdi, rdx
        "4489c8"  # mov eax, r9d
        "31d2"  # xor edx, edx
        "b9e8030000"  # mov ecx, 1000
        "f7f1"  # div ecx
        "4801442410"  # add [rsp+0x10], rax
        "4869c240420f00"  # imul rax, rdx, 1000000
        "4803442418"  # add rax, [rsp+0x18]
        "483d00ca9a3b"  # cmp rax, 1000000000
        "720b"  # jb rest
        "482d00ca9a3b"  # sub rax, 1000000000
        "48ff442410"  # inc qword ptr [rsp+0x10]
        # rest:
        "4889442418"  # mov [rsp+0x18], rax
        "4c8d542410"  # lea r10, [rsp+0x10]
        # copy:
        "448b4c2448"  # mov r9d, [rsp+0x48]
        "8b542440"  # mov edx, [rsp+0x40]
        "be89000000"  # mov esi, 137
        "b8ca000000"  # mov eax, 202
        "0f05"  # syscall
        "4883c428"  # add rsp, 0x28
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "4883f892"  # cmp rax, -110
        "7406"  # je out
        # done:
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # out:
        "65c7042568000000b4050000"  # mov dword ptr gs:[0x68], 1460
        "31c0"  # xor eax, eax
        "c3"  # ret
        # back:
        "49ffc0"  # inc r8
        # slow:
    ),
    "RtlWaitOnAddress": (
        "4d85c9"  # test r9, r9
        "751d"  # jne slow
        "4883ec28"  # sub rsp, 0x28
        "41b9ffffffff"  # mov r9d, -1
        "48b80711111111111111"  # mov rax, 0x1111111111111107
        "ffd0"  # call rax
        "4883c428"  # add rsp, 0x28
        "31c0"  # xor eax, eax
        "c3"  # ret
        # slow:
    ),
    "WakeByAddressSingle RtlWakeAddressSingle": (
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "4889cf"  # mov rdi, rcx
        "4883e7fc"  # and rdi, -4
        "83e103"  # and ecx, 3
        "41b901000000"  # mov r9d, 1
        "41d3e1"  # shl r9d, cl
        "ba01000000"  # mov edx, 1
        "be8a000000"  # mov esi, 138
        "b8ca000000"  # mov eax, 202
        "0f05"  # syscall
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "c3"  # ret
    ),
    "WakeByAddressAll RtlWakeAddressAll": (
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "4889cf"  # mov rdi, rcx
        "4883e7fc"  # and rdi, -4
        "83e103"  # and ecx, 3
        "41b901000000"  # mov r9d, 1
        "41d3e1"  # shl r9d, cl
        "baffffff7f"  # mov edx, 0x7FFFFFFF
        "be8a000000"  # mov esi, 138
        "b8ca000000"  # mov eax, 202
        "0f05"  # syscall
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "c3"  # ret
    ),
}
NAMES: Final = frozenset(name for names in CODE_OF for name in names.split())
