"""Functions that only look at what a process's blocks say, whole in the guest's own machine code, for every engine.

The words are those that the personality keeps up to date (`process_blocks.py`, `handles.py`): at PEB+0xA00 the
console's code pages, at PEB+0xA10 the address of a word for each handle, with the kind of file in bits 32 to 39, bit 40
where that is known, and bit 43 for what is no terminal. What is unusual goes on behind the end, as in `inprocess_hot`.
"""

from typing import Final

CODE_OF: Final[dict[str, str]] = {
    "GetFileType": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "4881f900001000"  # cmp rcx, 0x100000
        "732b"  # jae slow
        "488b90100a0000"  # mov rdx, [rax+0xA10]
        "89c8"  # mov eax, ecx
        "c1e802"  # shr eax, 2
        "488b04c2"  # mov rax, [rdx+rax*8]
        "480fbae028"  # bt rax, 40
        "7314"  # jnc slow
        "65c704256800000000000000"  # mov dword ptr gs:[0x68], 0
        "48c1e820"  # shr rax, 32
        "0fb6c0"  # movzx eax, al
        "c3"  # ret
        # slow:
    ),
    "GetConsoleMode": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "4881f900001000"  # cmp rcx, 0x100000
        "7326"  # jae slow
        "4c8b80100a0000"  # mov r8, [rax+0xA10]
        "89c8"  # mov eax, ecx
        "c1e802"  # shr eax, 2
        "498b04c0"  # mov rax, [r8+rax*8]
        "480fbae02b"  # bt rax, 43
        "730f"  # jnc slow
        "65c704256800000006000000"  # mov dword ptr gs:[0x68], 6
        "31c0"  # xor eax, eax
        "c3"  # ret
        # slow:
    ),
    "GetStdHandle": (
        "b8f6ffffff"  # mov eax, -10
        "29c8"  # sub eax, ecx
        "83f803"  # cmp eax, 3
        "7313"  # jae slow
        "65488b142560000000"  # mov rdx, gs:[0x60]
        "488b5220"  # mov rdx, [rdx+0x20]
        "488b44c220"  # mov rax, [rdx+rax*8+0x20]
        "c3"  # ret
        # slow:
    ),
    "GetConsoleCP": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "8b80000a0000"  # mov eax, [rax+0xA00]
        "c3"  # ret
    ),
    "GetConsoleOutputCP": (
        "65488b042560000000"  # mov rax, gs:[0x60]
        "8b80040a0000"  # mov eax, [rax+0xA04]
        "c3"  # ret
    ),
    "GetACP GetOEMCP": (
        "b8e9fd0000"  # mov eax, 65001
        "c3"  # ret
    ),
    "IsDBCSLeadByte": (
        "31c0"  # xor eax, eax
        "c3"  # ret
    ),
    "GetModuleHandleW GetModuleHandleA": (
        "4885c9"  # test rcx, rcx
        "750e"  # jne slow
        "65488b042560000000"  # mov rax, gs:[0x60]
        "488b4010"  # mov rax, [rax+0x10]
        "c3"  # ret
        # slow:
    ),
    "QueryDepthSList": (
        "0fb701"  # movzx eax, word ptr [rcx]
        "c3"  # ret
    ),
}
