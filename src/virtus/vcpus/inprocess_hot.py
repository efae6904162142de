"""Functions that programs call all the time, whole in machine code: a few nanoseconds, and nobody is asked.

Each does what the function of the same name in the personality does in its usual case, on the same words of the
guest's memory; in any other case it goes on behind its end, where a jump to that function stands. Offsets are of the
TEB (winternl.h), the critical section, and the lock words that `personalities/win32/locks.py` describes.
"""

from typing import Final

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
}

CODE: Final[dict[str, bytes]] = {name: bytes.fromhex(text) for names, text in CODE_OF.items() for name in names.split()}


def with_rest(code: bytes, rest: int) -> bytes:
    """The code, followed by a jump to the function that serves every case."""
    return code + b"\x49\xbb" + rest.to_bytes(8, "little") + b"\x41\xff\xe3"  # mov r11, rest; jmp r11
