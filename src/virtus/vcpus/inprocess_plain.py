"""Functions that only look at their arguments, the clock or a flag, whole in machine code: see `inprocess_hot`.

Text in ASCII alone is the same in UTF-8 and in every code page that a program of ours can have as its own; what is not
goes on behind the end, from its beginning. Once-blocks are those of `personalities/win32/once.py`.
"""

from typing import Final

CODE_OF: Final[dict[str, str]] = {
    "QueryPerformanceFrequency RtlQueryPerformanceFrequency": (
        "48c70180969800"  # mov qword ptr [rcx], 10000000
        "b801000000"  # mov eax, 1
        "c3"  # ret
    ),
    "GetTickCount64": (
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
        "bf07000000"  # mov edi, 7
        "488db424a0000000"  # lea rsi, [rsp+0xa0]
        "48b80611111111111111"  # mov rax, 0x1111111111111106
        "ffd0"  # call rax
        "488b8424a8000000"  # mov rax, [rsp+0xa8]
        "31d2"  # xor edx, edx
        "b940420f00"  # mov ecx, 1000000
        "48f7f1"  # div rcx
        "48698c24a0000000e8030000"  # imul rcx, [rsp+0xa0], 1000
        "4801c8"  # add rax, rcx
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
        "c3"  # ret
    ),
    "GetTickCount": (
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
        "bf07000000"  # mov edi, 7
        "488db424a0000000"  # lea rsi, [rsp+0xa0]
        "48b80611111111111111"  # mov rax, 0x1111111111111106
        "ffd0"  # call rax
        "488b8424a8000000"  # mov rax, [rsp+0xa8]
        "31d2"  # xor edx, edx
        "b940420f00"  # mov ecx, 1000000
        "48f7f1"  # div rcx
        "48698c24a0000000e8030000"  # imul rcx, [rsp+0xa0], 1000
        "01c8"  # add eax, ecx
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
        "c3"  # ret
    ),
    "GetSystemTimeAsFileTime GetSystemTimePreciseAsFileTime": (
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
        "31ff"  # xor edi, edi
        "488db424a0000000"  # lea rsi, [rsp+0xa0]
        "48b80611111111111111"  # mov rax, 0x1111111111111106
        "ffd0"  # call rax
        "488b8424a8000000"  # mov rax, [rsp+0xa8]
        "31d2"  # xor edx, edx
        "b964000000"  # mov ecx, 100
        "48f7f1"  # div rcx
        "48698c24a000000080969800"  # imul rcx, [rsp+0xa0], 10000000
        "4801c8"  # add rax, rcx
        "48b900803ed5deb19d01"  # mov rcx, 116444736000000000
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
        "c3"  # ret
    ),
    "EncodePointer": (
        "48b8c4612e8adf59375f"  # mov rax, 0x5f3759df8a2e61c4
        "4831c8"  # xor rax, rcx
        "48c1c811"  # ror rax, 17
        "c3"  # ret
    ),
    "DecodePointer": (
        "48b8c4612e8adf59375f"  # mov rax, 0x5f3759df8a2e61c4
        "48c1c111"  # rol rcx, 17
        "4831c8"  # xor rax, rcx
        "c3"  # ret
    ),
    "IsProcessorFeaturePresent": (
        "31c0"  # xor eax, eax
        "83f940"  # cmp ecx, 64
        "7309"  # jae done
        "89c9"  # mov ecx, ecx
        "0fb6817402fe7f"  # movzx eax, byte ptr [rcx+0x7ffe0274]
        # done:
        "c3"  # ret
    ),
    "InitOnceBeginInitialize": (
        "488b01"  # mov rax, [rcx]
        "4189c2"  # mov r10d, eax
        "4183e203"  # and r10d, 3
        "4183fa02"  # cmp r10d, 2
        "7519"  # jne slow
        "41c70000000000"  # mov dword ptr [r8], 0
        "4d85c9"  # test r9, r9
        "7407"  # je done
        "4883e0fc"  # and rax, -4
        "498901"  # mov [r9], rax
        # done:
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "InitOnceExecuteOnce": (
        "488b01"  # mov rax, [rcx]
        "4189c2"  # mov r10d, eax
        "4183e203"  # and r10d, 3
        "4183fa02"  # cmp r10d, 2
        "7512"  # jne slow
        "4d85c9"  # test r9, r9
        "7407"  # je done
        "4883e0fc"  # and rax, -4
        "498901"  # mov [r9], rax
        # done:
        "b801000000"  # mov eax, 1
        "c3"  # ret
        # slow:
    ),
    "MultiByteToWideChar": (
        "f7c2f7ffffff"  # test edx, -9
        "7566"  # jne slow
        "83f903"  # cmp ecx, 3
        "7608"  # jbe get
        "81f9e9fd0000"  # cmp ecx, 65001
        "7559"  # jne slow
        # get:
        "4585c9"  # test r9d, r9d
        "7454"  # je slow
        "4d85c0"  # test r8, r8
        "744f"  # je slow
        "4c8b542428"  # mov r10, [rsp+0x28]
        "837c243000"  # cmp dword ptr [rsp+0x30], 0
        "7c43"  # jl slow
        "740a"  # je zero
        "4d85d2"  # test r10, r10
        "743c"  # je slow
        "4d39c2"  # cmp r10, r8
        "7437"  # je slow
        # zero:
        "4531db"  # xor r11d, r11d
        # again:
        "430fb60418"  # movzx eax, byte ptr [r8+r11]
        "83f87f"  # cmp eax, 0x7f
        "772a"  # ja slow
        "837c243000"  # cmp dword ptr [rsp+0x30], 0
        "740c"  # je back
        "443b5c2430"  # cmp r11d, [rsp+0x30]
        "731c"  # jae slow
        "664389045a"  # mov [r10+r11*2], ax
        # back:
        "49ffc3"  # inc r11
        "4585c9"  # test r9d, r9d
        "7807"  # js out
        "4539cb"  # cmp r11d, r9d
        "72d6"  # jb again
        "eb04"  # jmp done
        # out:
        "85c0"  # test eax, eax
        "75d0"  # jne again
        # done:
        "4489d8"  # mov eax, r11d
        "c3"  # ret
        # slow:
    ),
    "WideCharToMultiByte": (
        "f7c27fffffff"  # test edx, -129
        "7571"  # jne slow
        "83f903"  # cmp ecx, 3
        "7608"  # jbe get
        "81f9e9fd0000"  # cmp ecx, 65001
        "7564"  # jne slow
        # get:
        "488b442438"  # mov rax, [rsp+0x38]
        "480b442440"  # or rax, [rsp+0x40]
        "7558"  # jne slow
        "4585c9"  # test r9d, r9d
        "7453"  # je slow
        "4d85c0"  # test r8, r8
        "744e"  # je slow
        "4c8b542428"  # mov r10, [rsp+0x28]
        "837c243000"  # cmp dword ptr [rsp+0x30], 0
        "7c42"  # jl slow
        "740a"  # je zero
        "4d85d2"  # test r10, r10
        "743b"  # je slow
        "4d39c2"  # cmp r10, r8
        "7436"  # je slow
        # zero:
        "4531db"  # xor r11d, r11d
        # again:
        "430fb70458"  # movzx eax, word ptr [r8+r11*2]
        "83f87f"  # cmp eax, 0x7f
        "7729"  # ja slow
        "837c243000"  # cmp dword ptr [rsp+0x30], 0
        "740b"  # je back
        "443b5c2430"  # cmp r11d, [rsp+0x30]
        "731b"  # jae slow
        "4388041a"  # mov [r10+r11], al
        # back:
        "49ffc3"  # inc r11
        "4585c9"  # test r9d, r9d
        "7807"  # js out
        "4539cb"  # cmp r11d, r9d
        "72d7"  # jb again
        "eb04"  # jmp done
        # out:
        "85c0"  # test eax, eax
        "75d1"  # jne again
        # done:
        "4489d8"  # mov eax, r11d
        "c3"  # ret
        # slow:
    ),
}
