"""Opening a file that is there, for reading or only to ask for it, and closing it: machine code, as `inprocess_files`.

A file that is opened so gets a handle among those of `personalities/win32/quick_files.py`, whose word has bit 44; the
personality makes its object of it when it first meets the handle. Files whose share modes may not allow it are told by
the bytes at 0x3000 of what PEB+0xA20 points to: looked at once more behind the handle's word, as the personality looks
at the words behind its byte, so that one of two who come at once finds the other. Everything else, and what the host
refuses, goes on behind the end.
Numbers: syscall_64.tbl (close 3, fstat 5, openat 257); O_CLOEXEC, O_NONBLOCK and O_NOCTTY are 0x80900.
"""

from typing import Final

CODE_OF: Final[dict[str, str]] = {
    "CreateFileW": (
        "f7c256ffed5f"  # test edx, 0x5FEDFF56
        "0f8560020000"  # jne slow
        "837c242803"  # cmp dword ptr [rsp+0x28], 3
        "0f8555020000"  # jne slow
        "f744243000002044"  # test dword ptr [rsp+0x30], 0x44200000
        "0f8547020000"  # jne slow
        "41f7c001000000"  # test r8d, 1
        "0f843a020000"  # je slow
        "4183f807"  # cmp r8d, 7
        "0f8730020000"  # ja slow
        "4d85c9"  # test r9, r9
        "740b"  # je get
        "4183791000"  # cmp dword ptr [r9+16], 0
        "0f8520020000"  # jne slow
        # get:
        "31c0"  # xor eax, eax
        "4885c9"  # test rcx, rcx
        "0f8415020000"  # je slow
        # scan:
        "66833c4100"  # cmp word ptr [rcx+rax*2], 0
        "740e"  # je ready
        "ffc0"  # inc eax
        "3de8030000"  # cmp eax, 1000
        "72f0"  # jb scan
        "e900020000"  # jmp slow
        # ready:
        "48894c2408"  # mov [rsp+0x08], rcx
        "4889542410"  # mov [rsp+0x10], rdx
        "4c89442418"  # mov [rsp+0x18], r8
        "4c894c2420"  # mov [rsp+0x20], r9
        "57"  # push rdi
        "56"  # push rsi
        "53"  # push rbx
        "4881ecb0040000"  # sub rsp, 0x4B0
        "488dbc24a0000000"  # lea rdi, [rsp+0xA0]
        "4889fb"  # mov rbx, rdi
        "48b80811111111111111"  # mov rax, 0x1111111111111108
        "ffd0"  # call rax
        "85c0"  # test eax, eax
        "0f85f0000000"  # jne back
        "4c891424"  # mov [rsp], r10
        "48897c2408"  # mov [rsp+8], rdi
        "48c7c79cffffff"  # mov rdi, -100
        "4889de"  # mov rsi, rbx
        "ba00090800"  # mov edx, 0x80900
        "b801010000"  # mov eax, 257
        "0f05"  # syscall
        "4885c0"  # test rax, rax
        "0f8855010000"  # js failed
        "89c3"  # mov ebx, eax
        "89c7"  # mov edi, eax
        "488d742410"  # lea rsi, [rsp+0x10]
        "b805000000"  # mov eax, 5
        "0f05"  # syscall
        "85c0"  # test eax, eax
        "0f85a7000000"  # jne close
        "654c8b042560000000"  # mov r8, gs:[0x60]
        "4d8b88100a0000"  # mov r9, [r8+0xA10]
        "4d8b80200a0000"  # mov r8, [r8+0xA20]
        "8b442428"  # mov eax, [rsp+0x28]
        "2500f00000"  # and eax, 0xF000
        "48be00000000011f0000"  # mov rsi, 0x1F0100000000
        "3d00800000"  # cmp eax, 0x8000
        "741e"  # je part
        "3d00400000"  # cmp eax, 0x4000
        "756f"  # jne close
        "f78424f804000000000002"  # test dword ptr [rsp+0x4F8], 0x2000000
        "7462"  # je close
        "48be0000000001190000"  # mov rsi, 0x190100000000
        # part:
        "8b9424d8040000"  # mov edx, [rsp+0x4D8]
        "f7c2210000a0"  # test edx, 0xA0000021
        "7414"  # je next
        "8b442418"  # mov eax, [rsp+0x18]
        "25ff0f0000"  # and eax, 4095
        "4180bc000030000000"  # cmp byte ptr [r8+rax+0x3000], 0
        "7535"  # jne close
        # next:
        "41ba40000000"  # mov r10d, 64
        # again:
        "b801000000"  # mov eax, 1
        "f0490fc100"  # lock xadd [r8], rax
        "25ff030000"  # and eax, 1023
        "4189c3"  # mov r11d, eax
        "31c0"  # xor eax, eax
        "48b90000000000400000"  # mov rcx, 0x400000000000
        "f04b0fb18cd900001800"  # lock cmpxchg [r9+r11*8+0x180000], rcx
        "7431"  # je put
        "41ffca"  # dec r10d
        "75d1"  # jne again
        # close:
        "89df"  # mov edi, ebx
        "b803000000"  # mov eax, 3
        "0f05"  # syscall
        # back:
        "4881c4b0040000"  # add rsp, 0x4B0
        "5b"  # pop rbx
        "5e"  # pop rsi
        "5f"  # pop rdi
        "488b4c2408"  # mov rcx, [rsp+0x08]
        "488b542410"  # mov rdx, [rsp+0x10]
        "4c8b442418"  # mov r8, [rsp+0x18]
        "4c8b4c2420"  # mov r9, [rsp+0x20]
        "e9b0000000"  # jmp slow
        # put:
        "8b8424e0040000"  # mov eax, [rsp+0x4E0]
        "438994d800100000"  # mov [r8+r11*8+0x1000], edx
        "438984d804100000"  # mov [r8+r11*8+0x1004], eax
        "4809de"  # or rsi, rbx
        "4889f1"  # mov rcx, rsi
        "4b878cd900001800"  # xchg [r9+r11*8+0x180000], rcx
        "f7c2210000a0"  # test edx, 0xA0000021
        "7427"  # je opened
        "8b442418"  # mov eax, [rsp+0x18]
        "25ff0f0000"  # and eax, 4095
        "4180bc000030000000"  # cmp byte ptr [r8+rax+0x3000], 0
        "7413"  # je opened
        "4889f0"  # mov rax, rsi
        "31c9"  # xor ecx, ecx
        "f04b0fb18cd900001800"  # lock cmpxchg [r9+r11*8+0x180000], rcx
        "7482"  # je close
        "eb89"  # jmp back
        # opened:
        "4a8d049d00000c00"  # lea rax, [r11*4+0xC0000]
        "65c704256800000000000000"  # mov dword ptr gs:[0x68], 0
        "eb3b"  # jmp done
        # failed:
        "4883f8fe"  # cmp rax, -2
        "0f8569ffffff"  # jne back
        "4c8b1424"  # mov r10, [rsp]
        "488b7c2408"  # mov rdi, [rsp+8]
        "488d542410"  # lea rdx, [rsp+0x10]
        "48b80911111111111111"  # mov rax, 0x1111111111111109
        "ffd0"  # call rax
        "85c0"  # test eax, eax
        "0f8447ffffff"  # je back
        "6589042568000000"  # mov dword ptr gs:[0x68], eax
        "48c7c0ffffffff"  # mov rax, -1
        # done:
        "4881c4b0040000"  # add rsp, 0x4B0
        "5b"  # pop rbx
        "5e"  # pop rsi
        "5f"  # pop rdi
        "c3"  # ret
        # slow:
    ),
    "CloseHandle": (
        "488d810000f4ff"  # lea rax, [rcx-0xC0000]
        "483d00100000"  # cmp rax, 4096
        "7346"  # jae slow
        "f6c103"  # test cl, 3
        "7541"  # jne slow
        "65488b142560000000"  # mov rdx, gs:[0x60]
        "488b92100a0000"  # mov rdx, [rdx+0xA10]
        "488d144a"  # lea rdx, [rdx+rcx*2]
        "488b02"  # mov rax, [rdx]
        "480fbae02c"  # bt rax, 44
        "7323"  # jnc slow
        "4531c0"  # xor r8d, r8d
        "f04c0fb102"  # lock cmpxchg [rdx], r8
        "7519"  # jne slow
        "48897c2408"  # mov [rsp+0x08], rdi
        "89c7"  # mov edi, eax
        "b803000000"  # mov eax, 3
        "0f05"  # syscall
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "NtClose": (
        "488d810000f4ff"  # lea rax, [rcx-0xC0000]
        "483d00100000"  # cmp rax, 4096
        "7343"  # jae slow
        "f6c103"  # test cl, 3
        "753e"  # jne slow
        "65488b142560000000"  # mov rdx, gs:[0x60]
        "488b92100a0000"  # mov rdx, [rdx+0xA10]
        "488d144a"  # lea rdx, [rdx+rcx*2]
        "488b02"  # mov rax, [rdx]
        "480fbae02c"  # bt rax, 44
        "7320"  # jnc slow
        "4531c0"  # xor r8d, r8d
        "f04c0fb102"  # lock cmpxchg [rdx], r8
        "7516"  # jne slow
        "48897c2408"  # mov [rsp+0x08], rdi
        "89c7"  # mov edi, eax
        "b803000000"  # mov eax, 3
        "0f05"  # syscall
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "31c0"  # xor eax, eax
        "c3"  # ret
        # slow:
    ),
    "GetFileSize": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "4881f900001000"  # cmp rcx, 0x100000
        "7375"  # jae slow
        "4c8b90100a0000"  # mov r10, [rax+0xA10]
        "89c8"  # mov eax, ecx
        "c1e802"  # shr eax, 2
        "498b04c2"  # mov rax, [r10+rax*8]
        "480fbae029"  # bt rax, 41
        "735e"  # jnc slow
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
        "781c"  # js slow
        "4489d0"  # mov eax, r10d
        "4885d2"  # test rdx, rdx
        "7407"  # je done
        "49c1ea20"  # shr r10, 32
        "448912"  # mov [rdx], r10d
        # done:
        "65c704256800000000000000"  # mov dword ptr gs:[0x68], 0
        "c3"  # ret
        # slow:
    ),
}
NAMES: Final = frozenset(CODE_OF)
"""What these are: code for a process that the host's kernel serves."""
