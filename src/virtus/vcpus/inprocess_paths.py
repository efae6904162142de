"""What a path names, and attributes by name, whole in machine code: see `inprocess_files`.

A usual path in ASCII is looked for as it stands (`host_path`). What is not found so may be there in another case,
unless the directory's names, as `personalities/win32/quick_files.py` has written them down at PEB+0xA20, say that it is
not (`surely_missing`). Links, and everything else, go on behind the end. What the program has given is touched before
anything is put on the stack: a fault is its own, in a function without a frame, and can be unwound. Numbers:
syscall_64.tbl (newfstatat 262); AT_SYMLINK_NOFOLLOW 0x100, AT_EMPTY_PATH 0x1000; ERROR_FILE_NOT_FOUND and
ERROR_PATH_NOT_FOUND are 2 and 3.
"""

from typing import Final

CODE_OF: Final[dict[str, str]] = {
    "host_path": (
        "4889ce"  # mov rsi, rcx
        "4531d2"  # xor r10d, r10d
        "31d2"  # xor edx, edx
        "4c8d9fe8030000"  # lea r11, [rdi+1000]
        "49b9ffffffff040400d4"  # mov r9, 0xD4000404FFFFFFFF
        "0fb706"  # movzx eax, word ptr [rsi]
        "83f85c"  # cmp eax, 0x5C
        "752b"  # jne get
        "66837e025c"  # cmp word ptr [rsi+2], 0x5C
        "0f8580000000"  # jne slow
        "66837e043f"  # cmp word ptr [rsi+4], 0x3F
        "7579"  # jne slow
        "66837e065c"  # cmp word ptr [rsi+6], 0x5C
        "7572"  # jne slow
        "ba01000000"  # mov edx, 1
        "4883c608"  # add rsi, 8
        "0fb706"  # movzx eax, word ptr [rsi]
        "85c0"  # test eax, eax
        "7462"  # je slow
        "eb10"  # jmp drive
        # get:
        "83f82e"  # cmp eax, 0x2E
        "7430"  # je dot
        "85c0"  # test eax, eax
        "7457"  # je slow
        "66837e023a"  # cmp word ptr [rsi+2], 0x3A
        "7537"  # jne part
        # drive:
        "83c820"  # or eax, 0x20
        "83f87a"  # cmp eax, 0x7A
        "7548"  # jne slow
        "66837e023a"  # cmp word ptr [rsi+2], 0x3A
        "7541"  # jne slow
        "66837e045c"  # cmp word ptr [rsi+4], 0x5C
        "753a"  # jne slow
        "4883c606"  # add rsi, 6
        "4989fa"  # mov r10, rdi
        "c6072f"  # mov byte ptr [rdi], 0x2F
        "48ffc7"  # inc rdi
        "eb12"  # jmp part
        # dot:
        "0fb74602"  # movzx eax, word ptr [rsi+2]
        "83f85c"  # cmp eax, 0x5C
        "7405"  # je skip
        "83f82f"  # cmp eax, 0x2F
        "7504"  # jne part
        # skip:
        "4883c604"  # add rsi, 4
        # part:
        "4989f8"  # mov r8, rdi
        # next:
        "0fb706"  # movzx eax, word ptr [rsi]
        "4883c602"  # add rsi, 2
        "83f840"  # cmp eax, 0x40
        "7310"  # jae letter
        "490fa3c1"  # bt r9, rax
        "7319"  # jnc put
        "85c0"  # test eax, eax
        "7448"  # je last
        # slow:
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # letter:
        "83f85c"  # cmp eax, 0x5C
        "741f"  # je again
        "83f87c"  # cmp eax, 0x7C
        "74f0"  # je slow
        "83f87f"  # cmp eax, 0x7F
        "77eb"  # ja slow
        # put:
        "83f82f"  # cmp eax, 0x2F
        "740c"  # je slash
        "8807"  # mov [rdi], al
        "48ffc7"  # inc rdi
        "4c39df"  # cmp rdi, r11
        "72c6"  # jb next
        "ebda"  # jmp slow
        # slash:
        "85d2"  # test edx, edx
        "75d6"  # jne slow
        # again:
        "4c39c7"  # cmp rdi, r8
        "74d1"  # je slow
        "0fb647ff"  # movzx eax, byte ptr [rdi-1]
        "83f82e"  # cmp eax, 0x2E
        "74c8"  # je slow
        "83f820"  # cmp eax, 0x20
        "74c3"  # je slow
        "4989fa"  # mov r10, rdi
        "c6072f"  # mov byte ptr [rdi], 0x2F
        "48ffc7"  # inc rdi
        "eb9f"  # jmp part
        # last:
        "4c39c7"  # cmp rdi, r8
        "74b3"  # je slow
        "0fb647ff"  # movzx eax, byte ptr [rdi-1]
        "83f82e"  # cmp eax, 0x2E
        "74aa"  # je slow
        "83f820"  # cmp eax, 0x20
        "74a5"  # je slow
        "c70700000000"  # mov dword ptr [rdi], 0
        "418b00"  # mov eax, [r8]
        "89c2"  # mov edx, eax
        "25dfdfdf00"  # and eax, 0xDFDFDF
        "3d434f4e00"  # cmp eax, 0x4E4F43
        "7426"  # je needed
        "3d50524e00"  # cmp eax, 0x4E5250
        "7439"  # je rest
        "3d41555800"  # cmp eax, 0x585541
        "7432"  # je rest
        "3d4e554c00"  # cmp eax, 0x4C554E
        "742b"  # je rest
        "3d434f4d00"  # cmp eax, 0x4D4F43
        "7424"  # je rest
        "3d4c505400"  # cmp eax, 0x54504C
        "741d"  # je rest
        # done:
        "31c0"  # xor eax, eax
        "c3"  # ret
        # needed:
        "89d1"  # mov ecx, edx
        "c1e918"  # shr ecx, 24
        "83c920"  # or ecx, 0x20
        "83f969"  # cmp ecx, 0x69
        "0f8457ffffff"  # je slow
        "83f96f"  # cmp ecx, 0x6F
        "0f844effffff"  # je slow
        # rest:
        "c1ea18"  # shr edx, 24
        "83fa41"  # cmp edx, 0x41
        "0f8242ffffff"  # jb slow
        "ebd5"  # jmp done
    ),
    "surely_missing": (
        "4989d1"  # mov r9, rdx
        "55"  # push rbp
        "bd02000000"  # mov ebp, 2
        # begin:
        "4d8d4201"  # lea r8, [r10+1]
        "4d85d2"  # test r10, r10
        "4c0f44c3"  # cmove r8, rbx
        "4889de"  # mov rsi, rbx
        "b900100000"  # mov ecx, 0x1000
        "4d85d2"  # test r10, r10
        "7411"  # je get
        "4939da"  # cmp r10, rbx
        "0f8414010000"  # je slow
        "41c60200"  # mov byte ptr [r10], 0
        "31c9"  # xor ecx, ecx
        "eb0a"  # jmp put
        # get:
        "498db180000000"  # lea rsi, [r9+0x80]
        "c60600"  # mov byte ptr [rsi], 0
        # put:
        "48c7c79cffffff"  # mov rdi, -100
        "4c89ca"  # mov rdx, r9
        "4152"  # push r10
        "4989ca"  # mov r10, rcx
        "b806010000"  # mov eax, 262
        "0f05"  # syscall
        "415a"  # pop r10
        "85c0"  # test eax, eax
        "7438"  # je next
        "83f8fe"  # cmp eax, -2
        "0f85dd000000"  # jne slow
        "4d85d2"  # test r10, r10
        "0f84d4000000"  # je slow
        "bd03000000"  # mov ebp, 3
        # up:
        "49ffca"  # dec r10
        "4939da"  # cmp r10, rbx
        "7608"  # jbe out
        "41803a2f"  # cmp byte ptr [r10], 0x2F
        "75f2"  # jne up
        "eb8a"  # jmp begin
        # out:
        "803b2f"  # cmp byte ptr [rbx], 0x2F
        "0f84b6000000"  # je slow
        "4531d2"  # xor r10d, r10d
        "e979ffffff"  # jmp begin
        # next:
        "65488b142560000000"  # mov rdx, gs:[0x60]
        "488b92200a0000"  # mov rdx, [rdx+0xA20]
        "4d8b5108"  # mov r10, [r9+8]
        "4181e2ff0f0000"  # and r10d, 4095
        "4c89d1"  # mov rcx, r10
        "48c1e105"  # shl rcx, 5
        "488d8c0a00400000"  # lea rcx, [rdx+rcx+0x4000]
        "49c1e208"  # shl r10, 8
        "4e8d941200400200"  # lea r10, [rdx+r10+0x24000]
        "498b01"  # mov rax, [r9]
        "483b01"  # cmp rax, [rcx]
        "7570"  # jne slow
        "498b4108"  # mov rax, [r9+8]
        "483b4108"  # cmp rax, [rcx+8]
        "7566"  # jne slow
        "498b4158"  # mov rax, [r9+0x58]
        "483b4110"  # cmp rax, [rcx+0x10]
        "755c"  # jne slow
        "498b4160"  # mov rax, [r9+0x60]
        "483b4118"  # cmp rax, [rcx+0x18]
        "7552"  # jne slow
        "beffffffff"  # mov esi, 0xFFFFFFFF
        # again:
        "410fb600"  # movzx eax, byte ptr [r8]
        "49ffc0"  # inc r8
        "85c0"  # test eax, eax
        "741c"  # je last
        "8d789f"  # lea edi, [rax-0x61]
        "83ff1a"  # cmp edi, 26
        "7303"  # jae part
        "83e820"  # sub eax, 0x20
        # part:
        "31f0"  # xor eax, esi
        "0fb6c0"  # movzx eax, al
        "c1ee08"  # shr esi, 8
        "33b48200040000"  # xor esi, [rdx+rax*4+0x400]
        "ebd9"  # jmp again
        # last:
        "f7d6"  # not esi
        "81e6ff070000"  # and esi, 2047
        "490fa332"  # bt [r10], rsi
        "7218"  # jc slow
        "498b4108"  # mov rax, [r9+8]
        "483b4108"  # cmp rax, [rcx+8]
        "750e"  # jne slow
        "498b4160"  # mov rax, [r9+0x60]
        "483b4118"  # cmp rax, [rcx+0x18]
        "7504"  # jne slow
        "89e8"  # mov eax, ebp
        "5d"  # pop rbp
        "c3"  # ret
        # slow:
        "31c0"  # xor eax, eax
        "5d"  # pop rbp
        "c3"  # ret
    ),
    "GetFileAttributesW": (
        "31c0"  # xor eax, eax
        "4885c9"  # test rcx, rcx
        "0f84ec000000"  # je slow
        # scan:
        "66833c4100"  # cmp word ptr [rcx+rax*2], 0
        "740e"  # je ready
        "ffc0"  # inc eax
        "3de8030000"  # cmp eax, 1000
        "72f0"  # jb scan
        "e9d7000000"  # jmp slow
        # ready:
        "48894c2408"  # mov [rsp+0x08], rcx
        "57"  # push rdi
        "56"  # push rsi
        "53"  # push rbx
        "4881ecb0040000"  # sub rsp, 0x4B0
        "488dbc24a0000000"  # lea rdi, [rsp+0xA0]
        "4889fb"  # mov rbx, rdi
        "48b80811111111111111"  # mov rax, 0x1111111111111108
        "ffd0"  # call rax
        "85c0"  # test eax, eax
        "0f859a000000"  # jne back
        "4c891424"  # mov [rsp], r10
        "48897c2408"  # mov [rsp+8], rdi
        "48c7c79cffffff"  # mov rdi, -100
        "4889de"  # mov rsi, rbx
        "488d542410"  # lea rdx, [rsp+0x10]
        "41ba00010000"  # mov r10d, 0x100
        "b806010000"  # mov eax, 262
        "0f05"  # syscall
        "4885c0"  # test rax, rax
        "7834"  # js failed
        "8b542428"  # mov edx, [rsp+0x28]
        "89d1"  # mov ecx, edx
        "81e100f00000"  # and ecx, 0xF000
        "81f900a00000"  # cmp ecx, 0xA000
        "745c"  # je back
        "b810000000"  # mov eax, 0x10
        "81f900400000"  # cmp ecx, 0x4000
        "7405"  # je part
        "b820000000"  # mov eax, 0x20
        # part:
        "8d4801"  # lea ecx, [rax+1]
        "f7c292000000"  # test edx, 0x92
        "0f44c1"  # cmove eax, ecx
        "eb31"  # jmp done
        # failed:
        "4883f8fe"  # cmp rax, -2
        "7536"  # jne back
        "4c8b1424"  # mov r10, [rsp]
        "488b7c2408"  # mov rdi, [rsp+8]
        "488d542410"  # lea rdx, [rsp+0x10]
        "48b80911111111111111"  # mov rax, 0x1111111111111109
        "ffd0"  # call rax
        "85c0"  # test eax, eax
        "7418"  # je back
        "6589042568000000"  # mov dword ptr gs:[0x68], eax
        "b8ffffffff"  # mov eax, 0xFFFFFFFF
        # done:
        "4881c4b0040000"  # add rsp, 0x4B0
        "5b"  # pop rbx
        "5e"  # pop rsi
        "5f"  # pop rdi
        "c3"  # ret
        # back:
        "4881c4b0040000"  # add rsp, 0x4B0
        "5b"  # pop rbx
        "5e"  # pop rsi
        "5f"  # pop rdi
        "488b4c2408"  # mov rcx, [rsp+0x08]
        # slow:
    ),
    "GetFileAttributesExW": (
        "85d2"  # test edx, edx
        "0f85ba010000"  # jne slow
        "4d85c0"  # test r8, r8
        "0f84b1010000"  # je slow
        "31c0"  # xor eax, eax
        "4885c9"  # test rcx, rcx
        "0f84a6010000"  # je slow
        # scan:
        "66833c4100"  # cmp word ptr [rcx+rax*2], 0
        "740e"  # je ready
        "ffc0"  # inc eax
        "3de8030000"  # cmp eax, 1000
        "72f0"  # jb scan
        "e991010000"  # jmp slow
        # ready:
        "f041830800"  # lock or dword ptr [r8], 0
        "f04183482000"  # lock or dword ptr [r8+32], 0
        "48894c2408"  # mov [rsp+0x08], rcx
        "4889542410"  # mov [rsp+0x10], rdx
        "4c89442418"  # mov [rsp+0x18], r8
        "57"  # push rdi
        "56"  # push rsi
        "53"  # push rbx
        "4881ecb0040000"  # sub rsp, 0x4B0
        "488dbc24a0000000"  # lea rdi, [rsp+0xA0]
        "4889fb"  # mov rbx, rdi
        "48b80811111111111111"  # mov rax, 0x1111111111111108
        "ffd0"  # call rax
        "85c0"  # test eax, eax
        "0f8535010000"  # jne back
        "4c891424"  # mov [rsp], r10
        "48897c2408"  # mov [rsp+8], rdi
        "48c7c79cffffff"  # mov rdi, -100
        "4889de"  # mov rsi, rbx
        "488d542410"  # lea rdx, [rsp+0x10]
        "41ba00010000"  # mov r10d, 0x100
        "b806010000"  # mov eax, 262
        "0f05"  # syscall
        "4885c0"  # test rax, rax
        "0f88ce000000"  # js failed
        "8b542428"  # mov edx, [rsp+0x28]
        "89d1"  # mov ecx, edx
        "81e100f00000"  # and ecx, 0xF000
        "81f900a00000"  # cmp ecx, 0xA000
        "0f84ef000000"  # je back
        "b810000000"  # mov eax, 0x10
        "488b7c2440"  # mov rdi, [rsp+0x40]
        "81f900400000"  # cmp ecx, 0x4000
        "7407"  # je part
        "b820000000"  # mov eax, 0x20
        "eb02"  # jmp next
        # part:
        "31ff"  # xor edi, edi
        # next:
        "8d4801"  # lea ecx, [rax+1]
        "f7c292000000"  # test edx, 0x92
        "0f44c1"  # cmove eax, ecx
        "4c8b8424e0040000"  # mov r8, [rsp+0x4E0]
        "418900"  # mov [r8], eax
        "41897820"  # mov [r8+32], edi
        "48c1ef20"  # shr rdi, 32
        "4189781c"  # mov [r8+28], edi
        "48be00803ed5deb19d01"  # mov rsi, 116444736000000000
        "b964000000"  # mov ecx, 100
        "4c694c245880969800"  # imul r9, [rsp+0x58], 10000000
        "4901f1"  # add r9, rsi
        "4c6954246880969800"  # imul r10, [rsp+0x68], 10000000
        "4901f2"  # add r10, rsi
        "4c695c247880969800"  # imul r11, [rsp+0x78], 10000000
        "4901f3"  # add r11, rsi
        "8b442460"  # mov eax, [rsp+0x60]
        "31d2"  # xor edx, edx
        "f7f1"  # div ecx
        "4901c1"  # add r9, rax
        "8b442470"  # mov eax, [rsp+0x70]
        "31d2"  # xor edx, edx
        "f7f1"  # div ecx
        "4901c2"  # add r10, rax
        "8b842480000000"  # mov eax, [rsp+0x80]
        "31d2"  # xor edx, edx
        "f7f1"  # div ecx
        "4901c3"  # add r11, rax
        "4d39d3"  # cmp r11, r10
        "4d0f47da"  # cmova r11, r10
        "4d39cb"  # cmp r11, r9
        "4d0f47d9"  # cmova r11, r9
        "4d895804"  # mov [r8+4], r11
        "4d89480c"  # mov [r8+12], r9
        "4d895014"  # mov [r8+20], r10
        "b801000000"  # mov eax, 1
        "eb2e"  # jmp done
        # failed:
        "4883f8fe"  # cmp rax, -2
        "7533"  # jne back
        "4c8b1424"  # mov r10, [rsp]
        "488b7c2408"  # mov rdi, [rsp+8]
        "488d542410"  # lea rdx, [rsp+0x10]
        "48b80911111111111111"  # mov rax, 0x1111111111111109
        "ffd0"  # call rax
        "85c0"  # test eax, eax
        "7415"  # je back
        "6589042568000000"  # mov dword ptr gs:[0x68], eax
        "31c0"  # xor eax, eax
        # done:
        "4881c4b0040000"  # add rsp, 0x4B0
        "5b"  # pop rbx
        "5e"  # pop rsi
        "5f"  # pop rdi
        "c3"  # ret
        # back:
        "4881c4b0040000"  # add rsp, 0x4B0
        "5b"  # pop rbx
        "5e"  # pop rsi
        "5f"  # pop rdi
        "488b4c2408"  # mov rcx, [rsp+0x08]
        "488b542410"  # mov rdx, [rsp+0x10]
        "4c8b442418"  # mov r8, [rsp+0x18]
        # slow:
    ),
}
ROUTINES: Final = {0x1111111111111108: "host_path", 0x1111111111111109: "surely_missing"}
"""No functions of Windows', and the numbers in whose place their addresses belong. A path at RCX to the buffer at RDI:
EAX 0 if that could be done, its last slash at R10, 0 for none. And Windows' error for RBX's path where it is surely not
there, in any case, 0 where that is not sure; it spoils the path, and RDX's buffer, of 144 bytes."""
NAMES: Final = frozenset(CODE_OF)
