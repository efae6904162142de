"""The next file of an enumeration, whole in machine code: see `inprocess_files`.

A search's handle has a word with bit 45 and, in pages, the address of its names (`personalities/win32/searches.py`):
how far it has come, the directory's descriptor, and from 16 on names, each with a zero behind, the last an empty one.
Links, which may be of directories, and names beyond ASCII go on behind the end. newfstatat is 262 in syscall_64.tbl.
"""

from typing import Final

CODE_OF: Final[dict[str, str]] = {
    "FindNextFileW": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "4881f900001000"  # cmp rcx, 0x100000
        "0f83ba010000"  # jae slow
        "4c8b80100a0000"  # mov r8, [rax+0xA10]
        "89c8"  # mov eax, ecx
        "c1e802"  # shr eax, 2
        "498b04c0"  # mov rax, [r8+rax*8]
        "480fbae02d"  # bt rax, 45
        "0f839f010000"  # jnc slow
        "48c1e013"  # shl rax, 19
        "48c1e807"  # shr rax, 7
        "4989c0"  # mov r8, rax
        "4d8b08"  # mov r9, [r8]
        "4d01c1"  # add r9, r8
        "41803900"  # cmp byte ptr [r9], 0
        "0f845a010000"  # je last
        "f0830a00"  # lock or dword ptr [rdx], 0
        "f0838a3402000000"  # lock or dword ptr [rdx+564], 0
        "48897c2408"  # mov [rsp+0x08], rdi
        "4889742410"  # mov [rsp+0x10], rsi
        "48894c2418"  # mov [rsp+0x18], rcx
        "4889542420"  # mov [rsp+0x20], rdx
        "4881eca8000000"  # sub rsp, 0xA8
        "418b7808"  # mov edi, [r8+8]
        "4c89ce"  # mov rsi, r9
        "4889e2"  # mov rdx, rsp
        "41ba00010000"  # mov r10d, 0x100
        "b806010000"  # mov eax, 262
        "0f05"  # syscall
        "488bbc24c8000000"  # mov rdi, [rsp+0xC8]
        "85c0"  # test eax, eax
        "0f851b010000"  # jne back
        "8b542418"  # mov edx, [rsp+0x18]
        "89d1"  # mov ecx, edx
        "81e100f00000"  # and ecx, 0xF000
        "81f900a00000"  # cmp ecx, 0xA000
        "0f8403010000"  # je back
        "31c9"  # xor ecx, ecx
        # copy:
        "410fb60409"  # movzx eax, byte ptr [r9+rcx]
        "a980000000"  # test eax, 0x80
        "0f85f1000000"  # jne back
        "6689444f2c"  # mov [rdi+rcx*2+44], ax
        "48ffc1"  # inc rcx
        "85c0"  # test eax, eax
        "75e4"  # jne copy
        "66898734020000"  # mov word ptr [rdi+564], ax
        "4d29c1"  # sub r9, r8
        "4901c9"  # add r9, rcx
        "488b742430"  # mov rsi, [rsp+0x30]
        "8b442418"  # mov eax, [rsp+0x18]
        "2500f00000"  # and eax, 0xF000
        "3d00400000"  # cmp eax, 0x4000
        "b820000000"  # mov eax, 0x20
        "7507"  # jne next
        "b810000000"  # mov eax, 0x10
        "31f6"  # xor esi, esi
        # next:
        "8d4801"  # lea ecx, [rax+1]
        "f7c292000000"  # test edx, 0x92
        "0f44c1"  # cmove eax, ecx
        "8907"  # mov [rdi], eax
        "897720"  # mov [rdi+32], esi
        "48c1ee20"  # shr rsi, 32
        "89771c"  # mov [rdi+28], esi
        "48c7472400000000"  # mov qword ptr [rdi+36], 0
        "4d8908"  # mov [r8], r9
        "48be00803ed5deb19d01"  # mov rsi, 116444736000000000
        "b964000000"  # mov ecx, 100
        "4c694c244880969800"  # imul r9, [rsp+0x48], 10000000
        "4901f1"  # add r9, rsi
        "4c6954245880969800"  # imul r10, [rsp+0x58], 10000000
        "4901f2"  # add r10, rsi
        "4c695c246880969800"  # imul r11, [rsp+0x68], 10000000
        "4901f3"  # add r11, rsi
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
        "4c895f04"  # mov [rdi+4], r11
        "4c894f0c"  # mov [rdi+12], r9
        "4c895714"  # mov [rdi+20], r10
        "4881c4a8000000"  # add rsp, 0xA8
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # last:
        "65c704256800000012000000"  # mov dword ptr gs:[0x68], 18
        "31c0"  # xor eax, eax
        "c3"  # ret
        # back:
        "4881c4a8000000"  # add rsp, 0xA8
        "488b7c2408"  # mov rdi, [rsp+0x08]
        "488b742410"  # mov rsi, [rsp+0x10]
        "488b4c2418"  # mov rcx, [rsp+0x18]
        "488b542420"  # mov rdx, [rsp+0x20]
        # slow:
    ),
}
NAMES: Final = frozenset(CODE_OF)
"""What these are: code for a process that the host's kernel serves."""
