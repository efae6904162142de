r"""Functions that only look at what a process's blocks say, whole in the guest's own machine code, for every engine.

The words are those that the personality keeps up to date (`process_blocks.py`, `handles.py`): at PEB+0xA00 the
console's code pages, at PEB+0xA10 the address of a word for each handle, with the kind of file in bits 32 to 39, bit 40
where that is known, and bit 43 for what is no terminal; the current directory is that of the process's parameters.
A path is made absolute here if it is relative, perhaps after ".\", and none of its names ends with a period or a blank
or, the last, begins as devices' do. What is unusual goes on behind the end, as in `inprocess_hot`.
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
    "GetFullPathNameW": (
        "48894c2408"  # mov [rsp+0x08], rcx
        "4889542410"  # mov [rsp+0x10], rdx
        "4c89442418"  # mov [rsp+0x18], r8
        "4c894c2420"  # mov [rsp+0x20], r9
        "4989ca"  # mov r10, rcx
        "6683392e"  # cmp word ptr [rcx], 0x2E
        "7512"  # jne get
        "0fb74102"  # movzx eax, word ptr [rcx+2]
        "83f82f"  # cmp eax, 0x2F
        "7405"  # je zero
        "83f85c"  # cmp eax, 0x5C
        "7504"  # jne get
        # zero:
        "4983c204"  # add r10, 4
        # get:
        "4d89d3"  # mov r11, r10
        # part:
        "4d89d8"  # mov r8, r11
        # again:
        "410fb703"  # movzx eax, word ptr [r11]
        "83f85c"  # cmp eax, 0x5C
        "7418"  # je back
        "83f82f"  # cmp eax, 0x2F
        "7413"  # je back
        "85c0"  # test eax, eax
        "740f"  # je back
        "83f83a"  # cmp eax, 0x3A
        "0f8477010000"  # je slow
        "4983c302"  # add r11, 2
        "ebdf"  # jmp again
        # back:
        "4d39c3"  # cmp r11, r8
        "0f8468010000"  # je slow
        "410fb74bfe"  # movzx ecx, word ptr [r11-2]
        "83f92e"  # cmp ecx, 0x2E
        "0f845a010000"  # je slow
        "83f920"  # cmp ecx, 0x20
        "0f8451010000"  # je slow
        "85c0"  # test eax, eax
        "7406"  # je last
        "4983c302"  # add r11, 2
        "ebb2"  # jmp part
        # last:
        "4c89d8"  # mov rax, r11
        "4c29c0"  # sub rax, r8
        "4883f806"  # cmp rax, 6
        "727f"  # jb out
        "48b8dfffdfffdfff0000"  # mov rax, 0xFFDFFFDFFFDF
        "492300"  # and rax, [r8]
        "48b943004f004e000000"  # mov rcx, 0x4E004F0043
        "4839c8"  # cmp rax, rcx
        "0f84f8000000"  # je reserved
        "48b9500052004e000000"  # mov rcx, 0x4E00520050
        "4839c8"  # cmp rax, rcx
        "0f84f7000000"  # je device
        "48b94100550058000000"  # mov rcx, 0x5800550041
        "4839c8"  # cmp rax, rcx
        "0f84e4000000"  # je device
        "48b94e0055004c000000"  # mov rcx, 0x4C0055004E
        "4839c8"  # cmp rax, rcx
        "0f84d1000000"  # je device
        "48b943004f004d000000"  # mov rcx, 0x4D004F0043
        "4839c8"  # cmp rax, rcx
        "0f84be000000"  # je device
        "48b94c00500054000000"  # mov rcx, 0x540050004C
        "4839c8"  # cmp rax, rcx
        "0f84ab000000"  # je device
        # out:
        "4d89c1"  # mov r9, r8
        "4d29d1"  # sub r9, r10
        "4d29d3"  # sub r11, r10
        "65488b042560000000"  # mov rax, gs:[0x60]
        "488b4020"  # mov rax, [rax+0x20]
        "0fb75038"  # movzx edx, word ptr [rax+0x38]
        "4c8b4040"  # mov r8, [rax+0x40]
        "498d0413"  # lea rax, [r11+rdx]
        "48d1e8"  # shr rax
        "483d007d0000"  # cmp rax, 32000
        "0f878b000000"  # ja slow
        "3b442410"  # cmp eax, [rsp+0x10]
        "735f"  # jae needed
        "488b4c2418"  # mov rcx, [rsp+0x18]
        "4885c9"  # test rcx, rcx
        "7455"  # je needed
        "4901d1"  # add r9, rdx
        "4901c9"  # add r9, rcx
        "488b4c2420"  # mov rcx, [rsp+0x20]
        "4885c9"  # test rcx, rcx
        "7403"  # je copy
        "4c8909"  # mov [rcx], r9
        # copy:
        "488b4c2418"  # mov rcx, [rsp+0x18]
        # next:
        "450fb708"  # movzx r9d, word ptr [r8]
        "66448909"  # mov [rcx], r9w
        "4983c002"  # add r8, 2
        "4883c102"  # add rcx, 2
        "83ea02"  # sub edx, 2
        "75eb"  # jne next
        # rest:
        "450fb70a"  # movzx r9d, word ptr [r10]
        "4183f92f"  # cmp r9d, 0x2F
        "7506"  # jne put
        "41b95c000000"  # mov r9d, 0x5C
        # put:
        "66448909"  # mov [rcx], r9w
        "4983c202"  # add r10, 2
        "4883c102"  # add rcx, 2
        "4983eb02"  # sub r11, 2
        "75de"  # jne rest
        "66c7010000"  # mov word ptr [rcx], 0
        "c3"  # ret
        # needed:
        "ffc0"  # inc eax
        "c3"  # ret
        # reserved:
        "410fb74806"  # movzx ecx, word ptr [r8+6]
        "83c920"  # or ecx, 0x20
        "83f969"  # cmp ecx, 0x69
        "7416"  # je slow
        "83f96f"  # cmp ecx, 0x6F
        "7411"  # je slow
        # device:
        "410fb74806"  # movzx ecx, word ptr [r8+6]
        "83e941"  # sub ecx, 0x41
        "83f93e"  # cmp ecx, 0x3E
        "0f8644ffffff"  # jbe out
        # slow:
        "488b4c2408"  # mov rcx, [rsp+0x08]
        "488b542410"  # mov rdx, [rsp+0x10]
        "4c8b442418"  # mov r8, [rsp+0x18]
        "4c8b4c2420"  # mov r9, [rsp+0x20]
    ),
}
