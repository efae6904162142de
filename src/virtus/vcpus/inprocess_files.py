"""Functions of open files that are a call of the host's kernel, whole in machine code: see `inprocess_hot`.

A handle's word (`personalities/win32/handles.py`, found at PEB+0xA10) has the descriptor in its low half, bit 41 for a
synchronous regular file, and bit 42 for what may be written to at once; everything else goes on behind the end, and so
does what the kernel refuses: Python says why. Numbers of calls: syscall_64.tbl (read 0, write 1, fstat 5, lseek 8,
sched_yield 24); struct stat: asm/stat.h. RDI and RSI, which a call of Windows keeps, stay in the caller's home space.
"""

from typing import Final

CODE_OF: Final[dict[str, str]] = {
    "ReadFile": (
        "48837c242800"  # cmp qword ptr [rsp+0x28], 0
        "7569"  # jne slow
        "65488b042560000000"  # mov rax, gs:[0x60]
        "4881f900001000"  # cmp rcx, 0x100000
        "7357"  # jae slow
        "4c8b90100a0000"  # mov r10, [rax+0xA10]
        "89c8"  # mov eax, ecx
        "c1e802"  # shr eax, 2
        "498b04c2"  # mov rax, [r10+rax*8]
        "480fbae029"  # bt rax, 41
        "7340"  # jnc slow
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "48894c2418"  # mov [rsp+0x18], rcx
        "89c7"  # mov edi, eax
        "4889d6"  # mov rsi, rdx
        "4489c2"  # mov edx, r8d
        "31c0"  # xor eax, eax
        "0f05"  # syscall
        "4889f2"  # mov rdx, rsi
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "488b4c2418"  # mov rcx, [rsp+0x18]
        "4885c0"  # test rax, rax
        "780e"  # js slow
        "4d85c9"  # test r9, r9
        "7403"  # je done
        "418901"  # mov [r9], eax
        # done:
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "WriteFile": (
        "48837c242800"  # cmp qword ptr [rsp+0x28], 0
        "757c"  # jne slow
        "65488b042560000000"  # mov rax, gs:[0x60]
        "4881f900001000"  # cmp rcx, 0x100000
        "736a"  # jae slow
        "4c8b90100a0000"  # mov r10, [rax+0xA10]
        "89c8"  # mov eax, ecx
        "c1e802"  # shr eax, 2
        "498b04c2"  # mov rax, [r10+rax*8]
        "480fbae02a"  # bt rax, 42
        "7353"  # jnc slow
        "480fbae029"  # bt rax, 41
        "7209"  # jc get
        "4181f800100000"  # cmp r8d, 4096
        "7743"  # ja slow
        # get:
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "48894c2418"  # mov [rsp+0x18], rcx
        "89c7"  # mov edi, eax
        "4889d6"  # mov rsi, rdx
        "4489c2"  # mov edx, r8d
        "b801000000"  # mov eax, 1
        "0f05"  # syscall
        "4889f2"  # mov rdx, rsi
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "488b4c2418"  # mov rcx, [rsp+0x18]
        "4885c0"  # test rax, rax
        "780e"  # js slow
        "4d85c9"  # test r9, r9
        "7403"  # je done
        "418901"  # mov [r9], eax
        # done:
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "NtReadFile": (
        "4889d0"  # mov rax, rdx
        "4c09c0"  # or rax, r8
        "480b442440"  # or rax, [rsp+0x40]
        "0f8586000000"  # jne slow
        "65488b042560000000"  # mov rax, gs:[0x60]
        "4881f900001000"  # cmp rcx, 0x100000
        "7374"  # jae slow
        "4c8b90100a0000"  # mov r10, [rax+0xA10]
        "89c8"  # mov eax, ecx
        "c1e802"  # shr eax, 2
        "498b04c2"  # mov rax, [r10+rax*8]
        "480fbae029"  # bt rax, 41
        "735d"  # jnc slow
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "48894c2418"  # mov [rsp+0x18], rcx
        "89c7"  # mov edi, eax
        "488b742430"  # mov rsi, [rsp+0x30]
        "8b542438"  # mov edx, [rsp+0x38]
        "31c0"  # xor eax, eax
        "0f05"  # syscall
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "488b4c2418"  # mov rcx, [rsp+0x18]
        "4c8b542428"  # mov r10, [rsp+0x28]
        "4189d3"  # mov r11d, edx
        "ba00000000"  # mov edx, 0
        "4885c0"  # test rax, rax
        "781e"  # js slow
        "7512"  # jne done
        "4585db"  # test r11d, r11d
        "740d"  # je done
        "b8110000c0"  # mov eax, 0xC0000011
        "498902"  # mov [r10], rax
        "49895208"  # mov [r10+8], rdx
        "c3"  # ret
        # done:
        "498912"  # mov [r10], rdx
        "49894208"  # mov [r10+8], rax
        "31c0"  # xor eax, eax
        "c3"  # ret
        # slow:
    ),
    "NtWriteFile": (
        "4889d0"  # mov rax, rdx
        "4c09c0"  # or rax, r8
        "480b442440"  # or rax, [rsp+0x40]
        "0f8582000000"  # jne slow
        "65488b042560000000"  # mov rax, gs:[0x60]
        "4881f900001000"  # cmp rcx, 0x100000
        "7370"  # jae slow
        "4c8b90100a0000"  # mov r10, [rax+0xA10]
        "89c8"  # mov eax, ecx
        "c1e802"  # shr eax, 2
        "498b04c2"  # mov rax, [r10+rax*8]
        "8b542438"  # mov edx, [rsp+0x38]
        "480fbae02a"  # bt rax, 42
        "7353"  # jnc zero
        "480fbae029"  # bt rax, 41
        "7208"  # jc get
        "81fa00100000"  # cmp edx, 4096
        "7744"  # ja zero
        # get:
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "48894c2418"  # mov [rsp+0x18], rcx
        "89c7"  # mov edi, eax
        "488b742430"  # mov rsi, [rsp+0x30]
        "b801000000"  # mov eax, 1
        "0f05"  # syscall
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "488b4c2418"  # mov rcx, [rsp+0x18]
        "4885c0"  # test rax, rax
        "7813"  # js zero
        "4c8b542428"  # mov r10, [rsp+0x28]
        "49c70200000000"  # mov qword ptr [r10], 0
        "49894208"  # mov [r10+8], rax
        "31c0"  # xor eax, eax
        "c3"  # ret
        # zero:
        "31d2"  # xor edx, edx
        # slow:
    ),
    "SetFilePointerEx": (
        "4183f902"  # cmp r9d, 2
        "776c"  # ja slow
        "65488b042560000000"  # mov rax, gs:[0x60]
        "4881f900001000"  # cmp rcx, 0x100000
        "735a"  # jae slow
        "4c8b90100a0000"  # mov r10, [rax+0xA10]
        "89c8"  # mov eax, ecx
        "c1e802"  # shr eax, 2
        "498b04c2"  # mov rax, [r10+rax*8]
        "480fbae029"  # bt rax, 41
        "7343"  # jnc slow
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "48894c2418"  # mov [rsp+0x18], rcx
        "89c7"  # mov edi, eax
        "4889d6"  # mov rsi, rdx
        "4489ca"  # mov edx, r9d
        "b808000000"  # mov eax, 8
        "0f05"  # syscall
        "4889f2"  # mov rdx, rsi
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "488b4c2418"  # mov rcx, [rsp+0x18]
        "4885c0"  # test rax, rax
        "780e"  # js slow
        "4d85c0"  # test r8, r8
        "7403"  # je done
        "498900"  # mov [r8], rax
        # done:
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "GetFileSizeEx": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "4881f900001000"  # cmp rcx, 0x100000
        "7362"  # jae slow
        "4c8b90100a0000"  # mov r10, [rax+0xA10]
        "89c8"  # mov eax, ecx
        "c1e802"  # shr eax, 2
        "498b04c2"  # mov rax, [r10+rax*8]
        "480fbae029"  # bt rax, 41
        "734b"  # jnc slow
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "48894c2418"  # mov [rsp+0x18], rcx
        "89c7"  # mov edi, eax
        "b805000000"  # mov eax, 5
        "4881ec90000000"  # sub rsp, 0x90
        "4889e6"  # mov rsi, rsp
        "0f05"  # syscall
        "4c8b542430"  # mov r10, [rsp+0x30]
        "4881c490000000"  # add rsp, 0x90
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "488b4c2418"  # mov rcx, [rsp+0x18]
        "4885c0"  # test rax, rax
        "7809"  # js slow
        "4c8912"  # mov [rdx], r10
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "GetFileInformationByHandle": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "4881f900001000"  # cmp rcx, 0x100000
        "0f8329010000"  # jae slow
        "4c8b90100a0000"  # mov r10, [rax+0xA10]
        "89c8"  # mov eax, ecx
        "c1e802"  # shr eax, 2
        "498b04c2"  # mov rax, [r10+rax*8]
        "480fbae029"  # bt rax, 41
        "0f830e010000"  # jnc slow
        "448b5230"  # mov r10d, [rdx+48]
        "44895230"  # mov [rdx+48], r10d
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "48894c2418"  # mov [rsp+0x18], rcx
        "89c7"  # mov edi, eax
        "b805000000"  # mov eax, 5
        "4881eca8000000"  # sub rsp, 0xA8
        "4889e6"  # mov rsi, rsp
        "0f05"  # syscall
        "4885c0"  # test rax, rax
        "0f88bf000000"  # js back
        "48b800803ed5deb19d01"  # mov rax, 116444736000000000
        "4989d0"  # mov r8, rdx
        "b964000000"  # mov ecx, 100
        "4c694c244880969800"  # imul r9, [rsp+0x48], 10000000
        "4901c1"  # add r9, rax
        "4c6954245880969800"  # imul r10, [rsp+0x58], 10000000
        "4901c2"  # add r10, rax
        "4c695c246880969800"  # imul r11, [rsp+0x68], 10000000
        "4901c3"  # add r11, rax
        "8b442450"  # mov eax, [rsp+0x50]
        "31d2"  # xor edx, edx
        "f7f1"  # div ecx
        "4901c1"  # add r9, rax
        "8b442460"  # mov eax, [rsp+0x60]
        "31d2"  # xor edx, edx
        "f7f1"  # div ecx
        "4901c2"  # add r10, rax
        "8b442470"  # mov eax, [rsp+0x70]
        "31d2"  # xor edx, edx
        "f7f1"  # div ecx
        "4901c3"  # add r11, rax
        "4d39d3"  # cmp r11, r10
        "4d0f47da"  # cmova r11, r10
        "4d39cb"  # cmp r11, r9
        "4d0f47d9"  # cmova r11, r9
        "ba21000000"  # mov edx, 0x21
        "b820000000"  # mov eax, 0x20
        "f744241892000000"  # test dword ptr [rsp+0x18], 0x92
        "0f44c2"  # cmove eax, edx
        "418900"  # mov [r8], eax
        "4d895804"  # mov [r8+4], r11
        "4d89480c"  # mov [r8+12], r9
        "4d895014"  # mov [r8+20], r10
        "8b0424"  # mov eax, [rsp]
        "4189401c"  # mov [r8+28], eax
        "488b442430"  # mov rax, [rsp+0x30]
        "41894024"  # mov [r8+36], eax
        "48c1e820"  # shr rax, 32
        "41894020"  # mov [r8+32], eax
        "8b442410"  # mov eax, [rsp+0x10]
        "41894028"  # mov [r8+40], eax
        "488b442408"  # mov rax, [rsp+8]
        "41894030"  # mov [r8+48], eax
        "48c1e820"  # shr rax, 32
        "4189402c"  # mov [r8+44], eax
        "b801000000"  # mov eax, 1
        # back:
        "4881c4a8000000"  # add rsp, 0xA8
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "488b4c2418"  # mov rcx, [rsp+0x18]
        "83f801"  # cmp eax, 1
        "7501"  # jne slow
        "c3"  # ret
        # slow:
    ),
    "SwitchToThread": (
        "b818000000"  # mov eax, 24
        "0f05"  # syscall
        "b801000000"  # mov eax, 1
        "c3"  # ret
    ),
}
NAMES: Final = frozenset(CODE_OF)
"""What these are: code for a process that the host's kernel serves."""
