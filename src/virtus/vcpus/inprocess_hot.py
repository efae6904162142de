"""Functions that programs call all the time, whole in machine code: a few nanoseconds, and nobody is asked.

Each does what the function of the same name in the personality does in its usual case, on the same words of the
guest's memory; in any other case it goes on behind its end, where a jump to that function stands. Offsets are of the
TEB (winternl.h), the critical section, and the lock words that `personalities/win32/locks.py` describes.
"""

from typing import Final

from virtus.vcpus import (
    inprocess_commit,
    inprocess_files,
    inprocess_futex,
    inprocess_opening,
    inprocess_paths,
    inprocess_plain,
    inprocess_searches,
    program_answers,
)

CODE_OF: Final[dict[str, str]] = {
    "GetLastError RtlGetLastWin32Error": (
        "658b042568000000"  # mov eax, gs:[0x68]
        "c3"  # ret
    ),
    "SetLastError RtlSetLastWin32Error RestoreLastError": (
        "65890c2568000000"  # mov gs:[0x68], ecx
        "c3"  # ret
    ),
    "GetCurrentThreadId": (
        "658b042548000000"  # mov eax, gs:[0x48]
        "c3"  # ret
    ),
    "GetCurrentProcessId": (
        "658b042540000000"  # mov eax, gs:[0x40]
        "c3"  # ret
    ),
    "GetCurrentThread": (
        "48c7c0feffffff"  # mov rax, -2
        "c3"  # ret
    ),
    "GetCurrentProcess": (
        "48c7c0ffffffff"  # mov rax, -1
        "c3"  # ret
    ),
    "GetProcessHeap": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "488b4030"  # mov rax, [rax+0x30]
        "c3"  # ret
    ),
    "TlsGetValue": (
        "83f940"  # cmp ecx, 64
        "731b"  # jae slow
        "89c9"  # mov ecx, ecx
        "65488b042530000000"  # mov rax, gs:[0x30]
        "c7406800000000"  # mov dword ptr [rax+0x68], 0
        "488b84c880140000"  # mov rax, [rax+rcx*8+0x1480]
        "c3"  # ret
        # slow:
    ),
    "TlsSetValue": (
        "83f940"  # cmp ecx, 64
        "7319"  # jae slow
        "89c9"  # mov ecx, ecx
        "65488b042530000000"  # mov rax, gs:[0x30]
        "488994c880140000"  # mov [rax+rcx*8+0x1480], rdx
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "FlsGetValue FlsGetValue2": (
        "81f9f00f0000"  # cmp ecx, 4080
        "7323"  # jae slow
        "89c9"  # mov ecx, ecx
        "65488b042530000000"  # mov rax, gs:[0x30]
        "4c8b80c8170000"  # mov r8, [rax+0x17c8]
        "4d85c0"  # test r8, r8
        "740c"  # je slow
        "c7406800000000"  # mov dword ptr [rax+0x68], 0
        "498b04c8"  # mov rax, [r8+rcx*8]
        "c3"  # ret
        # slow:
    ),
    "FlsSetValue": (
        "81f9f00f0000"  # cmp ecx, 4080
        "7321"  # jae slow
        "89c9"  # mov ecx, ecx
        "65488b042530000000"  # mov rax, gs:[0x30]
        "4c8b80c8170000"  # mov r8, [rax+0x17c8]
        "4d85c0"  # test r8, r8
        "740a"  # je slow
        "498914c8"  # mov [r8+rcx*8], rdx
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "EnterCriticalSection RtlEnterCriticalSection": (
        "658b142548000000"  # mov edx, gs:[0x48]
        "48395110"  # cmp [rcx+16], rdx
        "741c"  # je again
        "b8ffffffff"  # mov eax, -1
        "4531c0"  # xor r8d, r8d
        "f0440fb14108"  # lock cmpxchg [rcx+8], r8d
        "7510"  # jne slow
        "c7410c01000000"  # mov dword ptr [rcx+12], 1
        "48895110"  # mov [rcx+16], rdx
        "c3"  # ret
        # again:
        "ff410c"  # inc dword ptr [rcx+12]
        "c3"  # ret
        # slow:
    ),
    "TryEnterCriticalSection RtlTryEnterCriticalSection": (
        "658b142548000000"  # mov edx, gs:[0x48]
        "48395110"  # cmp [rcx+16], rdx
        "7421"  # je again
        "b8ffffffff"  # mov eax, -1
        "4531c0"  # xor r8d, r8d
        "f0440fb14108"  # lock cmpxchg [rcx+8], r8d
        "751a"  # jne slow
        "c7410c01000000"  # mov dword ptr [rcx+12], 1
        "48895110"  # mov [rcx+16], rdx
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # again:
        "ff410c"  # inc dword ptr [rcx+12]
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "LeaveCriticalSection RtlLeaveCriticalSection": (
        "83790c01"  # cmp dword ptr [rcx+12], 1
        "7233"  # jb slow
        "7722"  # ja again
        "4c8b4110"  # mov r8, [rcx+16]
        "48c7411000000000"  # mov qword ptr [rcx+16], 0
        "c7410c00000000"  # mov dword ptr [rcx+12], 0
        "31c0"  # xor eax, eax
        "baffffffff"  # mov edx, -1
        "f00fb15108"  # lock cmpxchg [rcx+8], edx
        "7505"  # jne back
        "c3"  # ret
        # again:
        "ff490c"  # dec dword ptr [rcx+12]
        "c3"  # ret
        # back:
        "4c894110"  # mov [rcx+16], r8
        "c7410c01000000"  # mov dword ptr [rcx+12], 1
        # slow:
    ),
    "AcquireSRWLockExclusive RtlAcquireSRWLockExclusive": (
        "31c0"  # xor eax, eax
        "ba01000000"  # mov edx, 1
        "f0480fb111"  # lock cmpxchg [rcx], rdx
        "7501"  # jne slow
        "c3"  # ret
        # slow:
    ),
    "TryAcquireSRWLockExclusive RtlTryAcquireSRWLockExclusive": (
        "31c0"  # xor eax, eax
        "ba01000000"  # mov edx, 1
        "f0480fb111"  # lock cmpxchg [rcx], rdx
        "7506"  # jne slow
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "ReleaseSRWLockExclusive RtlReleaseSRWLockExclusive": (
        "b801000000"  # mov eax, 1
        "31d2"  # xor edx, edx
        "f0480fb111"  # lock cmpxchg [rcx], rdx
        "7501"  # jne slow
        "c3"  # ret
        # slow:
    ),
    "AcquireSRWLockShared RtlAcquireSRWLockShared": (
        "488b01"  # mov rax, [rcx]
        "a803"  # test al, 3
        "750c"  # jne slow
        "488d5010"  # lea rdx, [rax+16]
        "f0480fb111"  # lock cmpxchg [rcx], rdx
        "7501"  # jne slow
        "c3"  # ret
        # slow:
    ),
    "ReleaseSRWLockShared RtlReleaseSRWLockShared": (
        "488b01"  # mov rax, [rcx]
        "a803"  # test al, 3
        "750c"  # jne slow
        "488d50f0"  # lea rdx, [rax-16]
        "f0480fb111"  # lock cmpxchg [rcx], rdx
        "7501"  # jne slow
        "c3"  # ret
        # slow:
    ),
    "WakeConditionVariable WakeAllConditionVariable RtlWakeConditionVariable RtlWakeAllConditionVariable": (
        "48833900"  # cmp qword ptr [rcx], 0
        "7501"  # jne slow
        "c3"  # ret
        # slow:
    ),
    "HeapAlloc RtlAllocateHeap": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "483b4830"  # cmp rcx, [rax+0x30]
        "0f8502010000"  # jne slow
        "f7c2f6ffffff"  # test edx, 0xfffffff6
        "0f85f6000000"  # jne slow
        "4c89c0"  # mov rax, r8
        "48c1e828"  # shr rax, 40
        "0f85e9000000"  # jne slow
        "57"  # push rdi
        "56"  # push rsi
        "53"  # push rbx
        "4881eca0000000"  # sub rsp, 0xa0
        "0f293424"  # movaps [rsp+0x0], xmm6
        "0f297c2410"  # movaps [rsp+0x10], xmm7
        "440f29442420"  # movaps [rsp+0x20], xmm8
        "440f294c2430"  # movaps [rsp+0x30], xmm9
        "440f29542440"  # movaps [rsp+0x40], xmm10
        "440f295c2450"  # movaps [rsp+0x50], xmm11
        "440f29642460"  # movaps [rsp+0x60], xmm12
        "440f296c2470"  # movaps [rsp+0x70], xmm13
        "440f29b42480000000"  # movaps [rsp+0x80], xmm14
        "440f29bc2490000000"  # movaps [rsp+0x90], xmm15
        "4c89c3"  # mov rbx, r8
        "498d7820"  # lea rdi, [r8+32]
        "f6c208"  # test dl, 8
        "750c"  # jne zero
        "48b80111111111111111"  # mov rax, 0x1111111111111101
        "eb0f"  # jmp get
        # zero:
        "be01000000"  # mov esi, 1
        "48b80211111111111111"  # mov rax, 0x1111111111111102
        # get:
        "ffd0"  # call rax
        "4885c0"  # test rax, rax
        "7428"  # je out
        "488d4810"  # lea rcx, [rax+16]
        "48ba3248535554524956"  # mov rdx, 0x5649525455534832
        "f7c1ff0f0000"  # test ecx, 0xfff
        "7507"  # jne done
        "4883c110"  # add rcx, 16
        "48ffc2"  # inc rdx
        # done:
        "488959f0"  # mov [rcx-16], rbx
        "488951f8"  # mov [rcx-8], rdx
        "4889c8"  # mov rax, rcx
        # out:
        "0f283424"  # movaps xmm6, [rsp+0x0]
        "0f287c2410"  # movaps xmm7, [rsp+0x10]
        "440f28442420"  # movaps xmm8, [rsp+0x20]
        "440f284c2430"  # movaps xmm9, [rsp+0x30]
        "440f28542440"  # movaps xmm10, [rsp+0x40]
        "440f285c2450"  # movaps xmm11, [rsp+0x50]
        "440f28642460"  # movaps xmm12, [rsp+0x60]
        "440f286c2470"  # movaps xmm13, [rsp+0x70]
        "440f28b42480000000"  # movaps xmm14, [rsp+0x80]
        "440f28bc2490000000"  # movaps xmm15, [rsp+0x90]
        "4881c4a0000000"  # add rsp, 0xa0
        "5b"  # pop rbx
        "5e"  # pop rsi
        "5f"  # pop rdi
        "c3"  # ret
        # slow:
    ),
    "HeapFree RtlFreeHeap": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "483b4830"  # cmp rcx, [rax+0x30]
        "0f85df000000"  # jne slow
        "41f7c0ff0f0000"  # test r8d, 0xfff
        "0f84d2000000"  # je slow
        "48b83248535554524956"  # mov rax, 0x5649525455534832
        "4d8b50f8"  # mov r10, [r8-8]
        "4929c2"  # sub r10, rax
        "4983fa01"  # cmp r10, 1
        "0f87b7000000"  # ja slow
        "57"  # push rdi
        "56"  # push rsi
        "53"  # push rbx
        "4881eca0000000"  # sub rsp, 0xa0
        "0f293424"  # movaps [rsp+0x0], xmm6
        "0f297c2410"  # movaps [rsp+0x10], xmm7
        "440f29442420"  # movaps [rsp+0x20], xmm8
        "440f294c2430"  # movaps [rsp+0x30], xmm9
        "440f29542440"  # movaps [rsp+0x40], xmm10
        "440f295c2450"  # movaps [rsp+0x50], xmm11
        "440f29642460"  # movaps [rsp+0x60], xmm12
        "440f296c2470"  # movaps [rsp+0x70], xmm13
        "440f29b42480000000"  # movaps [rsp+0x80], xmm14
        "440f29bc2490000000"  # movaps [rsp+0x90], xmm15
        "49c740f800000000"  # mov qword ptr [r8-8], 0
        "49c1e204"  # shl r10, 4
        "498d78f0"  # lea rdi, [r8-16]
        "4c29d7"  # sub rdi, r10
        "48b80311111111111111"  # mov rax, 0x1111111111111103
        "ffd0"  # call rax
        "0f283424"  # movaps xmm6, [rsp+0x0]
        "0f287c2410"  # movaps xmm7, [rsp+0x10]
        "440f28442420"  # movaps xmm8, [rsp+0x20]
        "440f284c2430"  # movaps xmm9, [rsp+0x30]
        "440f28542440"  # movaps xmm10, [rsp+0x40]
        "440f285c2450"  # movaps xmm11, [rsp+0x50]
        "440f28642460"  # movaps xmm12, [rsp+0x60]
        "440f286c2470"  # movaps xmm13, [rsp+0x70]
        "440f28b42480000000"  # movaps xmm14, [rsp+0x80]
        "440f28bc2490000000"  # movaps xmm15, [rsp+0x90]
        "4881c4a0000000"  # add rsp, 0xa0
        "5b"  # pop rbx
        "5e"  # pop rsi
        "5f"  # pop rdi
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "HeapSize RtlSizeHeap": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "483b4830"  # cmp rcx, [rax+0x30]
        "7525"  # jne slow
        "41f7c0ff0f0000"  # test r8d, 0xfff
        "741c"  # je slow
        "48b83248535554524956"  # mov rax, 0x5649525455534832
        "4d8b50f8"  # mov r10, [r8-8]
        "4929c2"  # sub r10, rax
        "4983fa01"  # cmp r10, 1
        "7705"  # ja slow
        "498b40f0"  # mov rax, [r8-16]
        "c3"  # ret
        # slow:
    ),
    "HeapReAlloc RtlReAllocateHeap": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "483b4830"  # cmp rcx, [rax+0x30]
        "0f8584000000"  # jne slow
        "41f7c0ff0f0000"  # test r8d, 0xfff
        "747b"  # je slow
        "48b83248535554524956"  # mov rax, 0x5649525455534832
        "4d8b50f8"  # mov r10, [r8-8]
        "4929c2"  # sub r10, rax
        "4983fa01"  # cmp r10, 1
        "7764"  # ja slow
        "f7c2f6ffffff"  # test edx, 0xfffffff6
        "755c"  # jne slow
        "57"  # push rdi
        "56"  # push rsi
        "53"  # push rbx
        "4883ec30"  # sub rsp, 0x30
        "4c89c3"  # mov rbx, r8
        "4c89cf"  # mov rdi, r9
        "4889ce"  # mov rsi, rcx
        "4d89c8"  # mov r8, r9
        "48b80411111111111111"  # mov rax, 0x1111111111111104
        "ffd0"  # call rax
        "4885c0"  # test rax, rax
        "7430"  # je out
        "4989d8"  # mov r8, rbx
        "4989f1"  # mov r9, rsi
        "488b4bf0"  # mov rcx, [rbx-16]
        "4839f9"  # cmp rcx, rdi
        "480f47cf"  # cmova rcx, rdi
        "4889c7"  # mov rdi, rax
        "4889de"  # mov rsi, rbx
        "f3a4"  # rep movsb
        "4889c3"  # mov rbx, rax
        "4c89c9"  # mov rcx, r9
        "31d2"  # xor edx, edx
        "48b80511111111111111"  # mov rax, 0x1111111111111105
        "ffd0"  # call rax
        "4889d8"  # mov rax, rbx
        # out:
        "4883c430"  # add rsp, 0x30
        "5b"  # pop rbx
        "5e"  # pop rsi
        "5f"  # pop rdi
        "c3"  # ret
        # slow:
    ),
    "QueryPerformanceCounter RtlQueryPerformanceCounter": (
        "57"  # push rdi
        "56"  # push rsi
        "53"  # push rbx
        "4881ecb0000000"  # sub rsp, 0xb0
        "0f293424"  # movaps [rsp+0x0], xmm6
        "0f297c2410"  # movaps [rsp+0x10], xmm7
        "440f29442420"  # movaps [rsp+0x20], xmm8
        "440f294c2430"  # movaps [rsp+0x30], xmm9
        "440f29542440"  # movaps [rsp+0x40], xmm10
        "440f295c2450"  # movaps [rsp+0x50], xmm11
        "440f29642460"  # movaps [rsp+0x60], xmm12
        "440f296c2470"  # movaps [rsp+0x70], xmm13
        "440f29b42480000000"  # movaps [rsp+0x80], xmm14
        "440f29bc2490000000"  # movaps [rsp+0x90], xmm15
        "4889cb"  # mov rbx, rcx
        "bf01000000"  # mov edi, 1
        "488db424a0000000"  # lea rsi, [rsp+0xa0]
        "48b80611111111111111"  # mov rax, 0x1111111111111106
        "ffd0"  # call rax
        "488b8424a8000000"  # mov rax, [rsp+0xa8]
        "31d2"  # xor edx, edx
        "b964000000"  # mov ecx, 100
        "48f7f1"  # div rcx
        "48698c24a000000080969800"  # imul rcx, [rsp+0xa0], 10000000
        "4801c8"  # add rax, rcx
        "488903"  # mov [rbx], rax
        "0f283424"  # movaps xmm6, [rsp+0x0]
        "0f287c2410"  # movaps xmm7, [rsp+0x10]
        "440f28442420"  # movaps xmm8, [rsp+0x20]
        "440f284c2430"  # movaps xmm9, [rsp+0x30]
        "440f28542440"  # movaps xmm10, [rsp+0x40]
        "440f285c2450"  # movaps xmm11, [rsp+0x50]
        "440f28642460"  # movaps xmm12, [rsp+0x60]
        "440f286c2470"  # movaps xmm13, [rsp+0x70]
        "440f28b42480000000"  # movaps xmm14, [rsp+0x80]
        "440f28bc2490000000"  # movaps xmm15, [rsp+0x90]
        "4881c4b0000000"  # add rsp, 0xb0
        "5b"  # pop rbx
        "5e"  # pop rsi
        "5f"  # pop rdi
        "b801000000"  # mov eax, 1
        "c3"  # ret
    ),
}

BLOCK: Final = 0x5649525455534832
"""Before a block of the process's heap that machine code has made: its size, and this, or one more where the block
begins 32 bytes behind what malloc gave instead of 16. (None begins a page: before one that does there may be nothing.)
Blocks that the personality's own allocator has made go on behind, and so do other heaps."""
TAGS: Final = {0x1111111111111101: "malloc", 0x1111111111111102: "calloc", 0x1111111111111103: "free",
                0x1111111111111106: "clock_gettime"}  # fmt: skip
"""Numbers in the code in whose place the address of a function of the C library belongs."""
OWN_TAGS: Final = {0x1111111111111104: "HeapAlloc", 0x1111111111111105: "HeapFree", 0x1111111111111107: "WaitOnAddress"}
"""And of one of these."""
ROUTINES: Final = inprocess_paths.ROUTINES
"""And of code that is no function of Windows'."""
ON_THE_HOST: Final = (
    inprocess_files, inprocess_paths, inprocess_opening, inprocess_searches, inprocess_futex, inprocess_commit,
)  # fmt: skip
PARTS: Final = (inprocess_plain, *ON_THE_HOST, program_answers)
HOST_CALLS: Final = frozenset(name for module in ON_THE_HOST for name in module.NAMES)
"""Functions that are calls of the host's kernel."""
CODE: Final[dict[str, bytes]] = {
    name: bytes.fromhex(text)
    for part in (CODE_OF, *(module.CODE_OF for module in PARTS))
    for names, text in part.items()
    for name in names.split()
}


def calls_others(code: bytes) -> bool:
    """Whether an address has to be put into it first."""
    return any(tag.to_bytes(8, "little") in code for tag in (*TAGS, *OWN_TAGS, *ROUTINES))


def with_rest(code: bytes, rest: int) -> bytes:
    """The code, followed by a jump to the function that serves every case."""
    return code + b"\x49\xbb" + rest.to_bytes(8, "little") + b"\x41\xff\xe3"  # mov r11, rest; jmp r11
