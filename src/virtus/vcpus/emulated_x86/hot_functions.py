"""Functions that programs call all the time, as guest code: nobody is asked where nothing is contended.

What does not end with a return falls through its end, where a jump to the function as others see it follows: the case
is not simple. The words that these work on, and their rules, are those that the personality has in its own
implementations. Source of offsets: Microsoft, winternl.h (TEB, PEB) and winnt.h (RTL_CRITICAL_SECTION).

    gs:[0x30] TEB   0x40 process   0x48 thread   0x60 PEB   0x68 last error   0x1480 TLS slots   PEB+0x30 heap
    critical section: +8 lock count, +12 recursion, +16 owner
"""

from typing import Final

HOT: Final[dict[str, bytes]] = {
    "GetLastError": bytes.fromhex(
        "65488b042530000000"  # mov rax, gs:[0x30]
        "8b4068"  # mov eax, [rax+0x68]
        "c3"  # ret
    ),
    "SetLastError": bytes.fromhex(
        "65488b042530000000"  # mov rax, gs:[0x30]
        "894868"  # mov [rax+0x68], ecx
        "c3"  # ret
    ),
    "GetCurrentThreadId": bytes.fromhex(
        "658b042548000000"  # mov eax, gs:[0x48]
        "c3"  # ret
    ),
    "GetCurrentProcessId": bytes.fromhex(
        "658b042540000000"  # mov eax, gs:[0x40]
        "c3"  # ret
    ),
    "GetCurrentThread": bytes.fromhex(
        "48c7c0feffffff"  # mov rax, -2
        "c3"  # ret
    ),
    "GetCurrentProcess": bytes.fromhex(
        "48c7c0ffffffff"  # mov rax, -1
        "c3"  # ret
    ),
    "GetProcessHeap": bytes.fromhex(
        "65488b042560000000"  # mov rax, gs:[0x60]
        "488b4030"  # mov rax, [rax+0x30]
        "c3"  # ret
    ),
    "EnterCriticalSection": bytes.fromhex(
        "65488b042548000000"  # mov rax,QWORD PTR gs:0x48
        "48394110"  # cmp QWORD PTR [rcx+0x10],rax
        "741f"  # je +0x2e
        "4889c2"  # mov rdx,rax
        "b8ffffffff"  # mov eax,0xffffffff
        "4531c0"  # xor r8d,r8d
        "f0440fb14108"  # lock cmpxchg DWORD PTR [rcx+0x8],r8d
        "7510"  # jne +0x32
        "48895110"  # mov QWORD PTR [rcx+0x10],rdx
        "c7410c01000000"  # mov DWORD PTR [rcx+0xc],0x1
        "c3"  # ret
        "ff410c"  # inc DWORD PTR [rcx+0xc]
        "c3"  # ret
    ),
    "TryEnterCriticalSection": bytes.fromhex(
        "65488b042548000000"  # mov rax,QWORD PTR gs:0x48
        "48394110"  # cmp QWORD PTR [rcx+0x10],rax
        "7424"  # je +0x33
        "4889c2"  # mov rdx,rax
        "b8ffffffff"  # mov eax,0xffffffff
        "4531c0"  # xor r8d,r8d
        "f0440fb14108"  # lock cmpxchg DWORD PTR [rcx+0x8],r8d
        "751a"  # jne +0x3c
        "48895110"  # mov QWORD PTR [rcx+0x10],rdx
        "c7410c01000000"  # mov DWORD PTR [rcx+0xc],0x1
        "b801000000"  # mov eax,0x1
        "c3"  # ret
        "ff410c"  # inc DWORD PTR [rcx+0xc]
        "b801000000"  # mov eax,0x1
        "c3"  # ret
    ),
    "LeaveCriticalSection": bytes.fromhex(
        "65488b042548000000"  # mov rax,QWORD PTR gs:0x48
        "48394110"  # cmp QWORD PTR [rcx+0x10],rax
        "7543"  # jne +0x52
        "83790c01"  # cmp DWORD PTR [rcx+0xc],0x1
        "7539"  # jne +0x4e
        "83790800"  # cmp DWORD PTR [rcx+0x8],0x0
        "7537"  # jne +0x52
        "c7410c00000000"  # mov DWORD PTR [rcx+0xc],0x0
        "48c7411000000000"  # mov QWORD PTR [rcx+0x10],0x0
        "31c0"  # xor eax,eax
        "baffffffff"  # mov edx,0xffffffff
        "f00fb15108"  # lock cmpxchg DWORD PTR [rcx+0x8],edx
        "7419"  # je +0x51
        "65488b042548000000"  # mov rax,QWORD PTR gs:0x48
        "48894110"  # mov QWORD PTR [rcx+0x10],rax
        "c7410c01000000"  # mov DWORD PTR [rcx+0xc],0x1
        "eb04"  # jmp +0x52
        "ff490c"  # dec DWORD PTR [rcx+0xc]
        "c3"  # ret
    ),
    "AcquireSRWLockExclusive": bytes.fromhex(
        "31c0"  # xor eax,eax
        "ba01000000"  # mov edx,0x1
        "f0480fb111"  # lock cmpxchg QWORD PTR [rcx],rdx
        "7501"  # jne +0xf
        "c3"  # ret
    ),
    "ReleaseSRWLockExclusive": bytes.fromhex(
        "b801000000"  # mov eax,0x1
        "31d2"  # xor edx,edx
        "f0480fb111"  # lock cmpxchg QWORD PTR [rcx],rdx
        "7501"  # jne +0xf
        "c3"  # ret
    ),
    "TryAcquireSRWLockExclusive": bytes.fromhex(
        "31c0"  # xor eax,eax
        "ba01000000"  # mov edx,0x1
        "f0480fb111"  # lock cmpxchg QWORD PTR [rcx],rdx
        "0f94c0"  # sete al
        "0fb6c0"  # movzx eax,al
        "c3"  # ret
    ),
    "AcquireSRWLockShared": bytes.fromhex(
        "488b01"  # mov rax,QWORD PTR [rcx]
        "a803"  # test al,0x3
        "750c"  # jne +0x13
        "488d5010"  # lea rdx,[rax+0x10]
        "f0480fb111"  # lock cmpxchg QWORD PTR [rcx],rdx
        "7501"  # jne +0x13
        "c3"  # ret
    ),
    "ReleaseSRWLockShared": bytes.fromhex(
        "488b01"  # mov rax,QWORD PTR [rcx]
        "a803"  # test al,0x3
        "750c"  # jne +0x13
        "488d50f0"  # lea rdx,[rax-0x10]
        "f0480fb111"  # lock cmpxchg QWORD PTR [rcx],rdx
        "7501"  # jne +0x13
        "c3"  # ret
    ),
    "TlsGetValue": bytes.fromhex(
        "83f940"  # cmp ecx,0x40
        "731b"  # jae +0x20
        "65488b042530000000"  # mov rax,QWORD PTR gs:0x30
        "c7406800000000"  # mov DWORD PTR [rax+0x68],0x0
        "89c9"  # mov ecx,ecx
        "488b84c880140000"  # mov rax,QWORD PTR [rax+rcx*8+0x1480]
        "c3"  # ret
    ),
    "TlsSetValue": bytes.fromhex(
        "83f940"  # cmp ecx,0x40
        "7319"  # jae +0x1e
        "65488b042530000000"  # mov rax,QWORD PTR gs:0x30
        "89c9"  # mov ecx,ecx
        "488994c880140000"  # mov QWORD PTR [rax+rcx*8+0x1480],rdx
        "b801000000"  # mov eax,0x1
        "c3"  # ret
    ),
}
