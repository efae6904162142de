"""Machine code between a Windows program that runs in our process and us: calls both ways, faults, and guarded memory.

A guest thread has two stacks, the guest's and ours, and a block of words, its state, which GS finds while guest code
runs. ENTER goes from ours to the guest's, RETURNED back; CALL from the guest's to a function of ours and back. A signal
of guest code is taken by HANDLER, which stores the registers and sends the thread through FAULT, as if it had called
function 0. What happens after a call that does not return is PENDING. Sources: Microsoft, x64 calling convention;
System V ABI, AMD64 supplement, 3.2; Linux's struct ucontext and sigcontext (arch/x86/include/uapi/asm).
"""

from typing import Final

HOST_RSP, FRAME, PENDING, INSIDE = 0x00, 0x08, 0x10, 0x18
"""Offsets in the state: our stack pointer, the innermost call's frame, what is pending, whether guest code runs."""
NOTHING_PENDING, GO_ON, LEAVE = 0, 1, 2
FAULT_SIGNAL, FAULT_ADDRESS, FAULT_CODE = 0x20, 0x28, 0x30
GENERAL, NEXT, FLAGS, MXCSR, VECTORS = 0x40, 0xC0, 0xC8, 0xD0, 0x100
"""Registers to go on with: general ones in the processor's order, then RIP, the flags, MXCSR and XMM0 to XMM15."""
HOST_MXCSR, TABLE = 0xD8, 0xE0
FAULT_GENERAL, FAULT_MXCSR, FAULT_VECTORS = 0x200, 0x2C0, 0x300
"""Registers at a fault: general ones in Linux's order (enum of REG_*)."""
STATE_SIZE: Final = 0x400

FRAME_LINK, FRAME_RSP, FRAME_SAVED, FRAME_NUMBER = 0x00, 0x08, 0x10, 0x50
FRAME_MXCSR, FRAME_XMM6, FRAME_XMM0 = 0x58, 0x60, 0x100
"""Offsets in a call's frame: the frame before, the guest's stack pointer, and what the guest's caller expects back."""
FRAME_SIZE: Final = 0x140
SAVED: Final = (3, 5, 6, 7, 12, 13, 14, 15)
"""Which general registers a frame has from FRAME_SAVED on: RBX, RBP, RSI, RDI, R12 to R15."""
GS_STATE: Final = 0x3F00
"""Where in the TEB the state's address is; by the word behind a thread goes on. Windows has nothing there."""
REFUSED: Final = 0x8DEAD0000000BEEF
"""What a guarded access gives where memory may not be used, and hardly ever otherwise."""

CODE: Final[tuple[tuple[str, str], ...]] = (
    ("enter", (  # uint64_t enter(state *rdi, function rsi, stack rdx, const uint64_t arguments[4] rcx, const frame *r8)
        "55"  # push rbp
        "53"  # push rbx
        "4154"  # push r12
        "4155"  # push r13
        "4156"  # push r14
        "4157"  # push r15
        "ff37"  # push qword ptr [rdi+HOST_RSP]
        "ff7708"  # push qword ptr [rdi+FRAME]
        "4883ec08"  # sub rsp, 8
        "0fae1c24"  # stmxcsr [rsp]
        "488927"  # mov [rdi+HOST_RSP], rsp
        "4989fa"  # mov r10, rdi
        "654c891425003f0000"  # mov gs:[0x3F00], r10
        "49c7421801000000"  # mov qword ptr [r10+INSIDE], 1
        "4889d4"  # mov rsp, rdx
        "4889f0"  # mov rax, rsi
        "410fae5058"  # ldmxcsr [r8+0x58]
        "498b5810"  # mov rbx, [r8+0x10]
        "498b6818"  # mov rbp, [r8+0x18]
        "498b7020"  # mov rsi, [r8+0x20]
        "498b7828"  # mov rdi, [r8+0x28]
        "4d8b6030"  # mov r12, [r8+0x30]
        "4d8b6838"  # mov r13, [r8+0x38]
        "4d8b7040"  # mov r14, [r8+0x40]
        "4d8b7848"  # mov r15, [r8+0x48]
        "488b5108"  # mov rdx, [rcx+8]
        "4c8b4110"  # mov r8, [rcx+16]
        "4c8b4918"  # mov r9, [rcx+24]
        "488b09"  # mov rcx, [rcx]
        "ffe0"  # jmp rax
    )),
    ("returned", (  # where a guest function that `enter` called returns to
        "654c8b1425003f0000"  # mov r10, gs:[0x3F00]
    )),
    ("leave", (  # give up the innermost activation
        # leave:
        "498b22"  # mov rsp, [r10+HOST_RSP]
        "49c7421800000000"  # mov qword ptr [r10+INSIDE], 0
        "0fae1424"  # ldmxcsr [rsp]
        "4883c408"  # add rsp, 8
        "418f4208"  # pop qword ptr [r10+FRAME]
        "418f02"  # pop qword ptr [r10+HOST_RSP]
        "415f"  # pop r15
        "415e"  # pop r14
        "415d"  # pop r13
        "415c"  # pop r12
        "5b"  # pop rbx
        "5d"  # pop rbp
        "c3"  # ret
    )),
    ("call", (  # a function of ours is called; EAX is its number in the table
        "48894c2408"  # mov [rsp+8], rcx
        "4889542410"  # mov [rsp+16], rdx
        "4c89442418"  # mov [rsp+24], r8
        "4c894c2420"  # mov [rsp+32], r9
    )),
    ("body", (  # the same without arguments, for faults
        # body:
        "654c8b1425003f0000"  # mov r10, gs:[0x3F00]
        "4989e3"  # mov r11, rsp
        "498b22"  # mov rsp, [r10+HOST_RSP]
        "4881ec40010000"  # sub rsp, 0x140
        "4c895c2408"  # mov [rsp+0x08], r11
        "48895c2410"  # mov [rsp+0x10], rbx
        "48896c2418"  # mov [rsp+0x18], rbp
        "4889742420"  # mov [rsp+0x20], rsi
        "48897c2428"  # mov [rsp+0x28], rdi
        "4c89642430"  # mov [rsp+0x30], r12
        "4c896c2438"  # mov [rsp+0x38], r13
        "4c89742440"  # mov [rsp+0x40], r14
        "4c897c2448"  # mov [rsp+0x48], r15
        "4889442450"  # mov [rsp+0x50], rax
        "0fae5c2458"  # stmxcsr [rsp+0x58]
        "0f29742460"  # movaps [rsp+0x60], xmm6
        "0f297c2470"  # movaps [rsp+0x70], xmm7
        "440f29842480000000"  # movaps [rsp+0x80], xmm8
        "440f298c2490000000"  # movaps [rsp+0x90], xmm9
        "440f299424a0000000"  # movaps [rsp+0xA0], xmm10
        "440f299c24b0000000"  # movaps [rsp+0xB0], xmm11
        "440f29a424c0000000"  # movaps [rsp+0xC0], xmm12
        "440f29ac24d0000000"  # movaps [rsp+0xD0], xmm13
        "440f29b424e0000000"  # movaps [rsp+0xE0], xmm14
        "440f29bc24f0000000"  # movaps [rsp+0xF0], xmm15
        "0f29842400010000"  # movaps [rsp+0x100], xmm0
        "0f298c2410010000"  # movaps [rsp+0x110], xmm1
        "0f29942420010000"  # movaps [rsp+0x120], xmm2
        "0f299c2430010000"  # movaps [rsp+0x130], xmm3
        "498b5a08"  # mov rbx, [r10+FRAME]
        "48891c24"  # mov [rsp], rbx
        "49896208"  # mov [r10+FRAME], rsp
        "49c7421800000000"  # mov qword ptr [r10+INSIDE], 0
        "4c89d3"  # mov rbx, r10
        "4889e5"  # mov rbp, rsp
        "0fae93d8000000"  # ldmxcsr [rbx+HOST_MXCSR]
        "c1e004"  # shl eax, 4
        "480383e0000000"  # add rax, [rbx+TABLE]
        "4c8b6808"  # mov r13, [rax+8]
        "488b00"  # mov rax, [rax]
        "4d85ed"  # test r13, r13
        "0f85b2000000"  # jne many
        # arguments:
        "4889cf"  # mov rdi, rcx
        "4889d6"  # mov rsi, rdx
        "4c89c2"  # mov rdx, r8
        "4c89c9"  # mov rcx, r9
        "4d8b4328"  # mov r8, [r11+0x28]
        "4d8b4b30"  # mov r9, [r11+0x30]
        "ffd0"  # call rax
        "4c8b5d00"  # mov r11, [rbp]
        "4c895b08"  # mov [rbx+FRAME], r11
        "48837b1000"  # cmp qword ptr [rbx+PENDING], 0
        "0f85a2000000"  # jne pending
        "6548891c25003f0000"  # mov gs:[0x3F00], rbx
        "48c7431801000000"  # mov qword ptr [rbx+INSIDE], 1
        "0fae5558"  # ldmxcsr [rbp+0x58]
        "0f288500010000"  # movaps xmm0, [rbp+0x100]
        "0f287560"  # movaps xmm6, [rbp+0x60]
        "0f287d70"  # movaps xmm7, [rbp+0x70]
        "440f288580000000"  # movaps xmm8, [rbp+0x80]
        "440f288d90000000"  # movaps xmm9, [rbp+0x90]
        "440f2895a0000000"  # movaps xmm10, [rbp+0xA0]
        "440f289db0000000"  # movaps xmm11, [rbp+0xB0]
        "440f28a5c0000000"  # movaps xmm12, [rbp+0xC0]
        "440f28add0000000"  # movaps xmm13, [rbp+0xD0]
        "440f28b5e0000000"  # movaps xmm14, [rbp+0xE0]
        "440f28bdf0000000"  # movaps xmm15, [rbp+0xF0]
        "488b6508"  # mov rsp, [rbp+0x08]
        "488b5d10"  # mov rbx, [rbp+0x10]
        "488b7520"  # mov rsi, [rbp+0x20]
        "488b7d28"  # mov rdi, [rbp+0x28]
        "4c8b6530"  # mov r12, [rbp+0x30]
        "4c8b6d38"  # mov r13, [rbp+0x38]
        "4c8b7540"  # mov r14, [rbp+0x40]
        "4c8b7d48"  # mov r15, [rbp+0x48]
        "488b6d18"  # mov rbp, [rbp+0x18]
        "c3"  # ret
    )),
    ("many", (  # a function of more than six arguments: those behind go onto our stack
        # many:
        "41f6c501"  # test r13b, 1
        "7404"  # je even
        "4883ec08"  # sub rsp, 8
        # even:
        "43ff74eb30"  # push qword ptr [r11+0x30+r13*8]
        "49ffcd"  # dec r13
        "75f6"  # jne even
        "e935ffffff"  # jmp arguments
    )),
    ("pending", (  # the guest does not go on behind the call
        # pending:
        "4989da"  # mov r10, rbx
        "49837a1002"  # cmp qword ptr [r10+PENDING], 2
        "49c7421000000000"  # mov qword ptr [r10+PENDING], 0
        "0f84ecfdffff"  # je leave
        "654c891425003f0000"  # mov gs:[0x3F00], r10
        "498b22"  # mov rsp, [r10+HOST_RSP]
        "410f288200010000"  # movaps xmm0, [r10+VECTORS+0x00]
        "410f288a10010000"  # movaps xmm1, [r10+VECTORS+0x10]
        "410f289220010000"  # movaps xmm2, [r10+VECTORS+0x20]
        "410f289a30010000"  # movaps xmm3, [r10+VECTORS+0x30]
        "410f28a240010000"  # movaps xmm4, [r10+VECTORS+0x40]
        "410f28aa50010000"  # movaps xmm5, [r10+VECTORS+0x50]
        "410f28b260010000"  # movaps xmm6, [r10+VECTORS+0x60]
        "410f28ba70010000"  # movaps xmm7, [r10+VECTORS+0x70]
        "450f288280010000"  # movaps xmm8, [r10+VECTORS+0x80]
        "450f288a90010000"  # movaps xmm9, [r10+VECTORS+0x90]
        "450f2892a0010000"  # movaps xmm10, [r10+VECTORS+0xA0]
        "450f289ab0010000"  # movaps xmm11, [r10+VECTORS+0xB0]
        "450f28a2c0010000"  # movaps xmm12, [r10+VECTORS+0xC0]
        "450f28aad0010000"  # movaps xmm13, [r10+VECTORS+0xD0]
        "450f28b2e0010000"  # movaps xmm14, [r10+VECTORS+0xE0]
        "450f28baf0010000"  # movaps xmm15, [r10+VECTORS+0xF0]
        "410fae92d0000000"  # ldmxcsr [r10+MXCSR]
        "498b82c0000000"  # mov rax, [r10+NEXT]
        "6548890425083f0000"  # mov gs:[0x3F08], rax
        "41ffb2c8000000"  # push qword ptr [r10+FLAGS]
        "9d"  # popfq
        "49c7421801000000"  # mov qword ptr [r10+INSIDE], 1
        "498b4240"  # mov rax, [r10+GENERAL+0x00]
        "498b4a48"  # mov rcx, [r10+GENERAL+0x08]
        "498b5250"  # mov rdx, [r10+GENERAL+0x10]
        "498b5a58"  # mov rbx, [r10+GENERAL+0x18]
        "498b6260"  # mov rsp, [r10+GENERAL+0x20]
        "498b6a68"  # mov rbp, [r10+GENERAL+0x28]
        "498b7270"  # mov rsi, [r10+GENERAL+0x30]
        "498b7a78"  # mov rdi, [r10+GENERAL+0x38]
        "4d8b8280000000"  # mov r8, [r10+GENERAL+0x40]
        "4d8b8a88000000"  # mov r9, [r10+GENERAL+0x48]
        "4d8b9a98000000"  # mov r11, [r10+GENERAL+0x58]
        "4d8ba2a0000000"  # mov r12, [r10+GENERAL+0x60]
        "4d8baaa8000000"  # mov r13, [r10+GENERAL+0x68]
        "4d8bb2b0000000"  # mov r14, [r10+GENERAL+0x70]
        "4d8bbab8000000"  # mov r15, [r10+GENERAL+0x78]
        "4d8b9290000000"  # mov r10, [r10+GENERAL+0x50]
        "65ff2425083f0000"  # jmp qword ptr gs:[0x3F08]
    )),
    ("fault", (  # where a signal's handler sends the guest
        # fault:
        "b800000000"  # mov eax, 0
        "e907fdffff"  # jmp body
    )),
    ("handler", (  # void handler(int signal edi, siginfo_t *rsi, ucontext_t *rdx), on a stack of its own
        "488b82a8000000"  # mov rax, [rdx+168]
        "488d0d95000000"  # lea rcx, [rip+guarded]
        "4839c8"  # cmp rax, rcx
        "7214"  # jb elsewhere
        "488d0ddc000000"  # lea rcx, [rip+refused]
        "4839c8"  # cmp rax, rcx
        "7308"  # jae elsewhere
        "48898aa8000000"  # mov [rdx+168], rcx
        "c3"  # ret
        # elsewhere:
        "654c8b1425003f0000"  # mov r10, gs:[0x3F00]
        "49837a1801"  # cmp qword ptr [r10+INSIDE], 1
        "756b"  # jne ours
        "89f8"  # mov eax, edi
        "49894220"  # mov [r10+FAULT_SIGNAL], rax
        "488b4610"  # mov rax, [rsi+16]
        "49894228"  # mov [r10+FAULT_ADDRESS], rax
        "48634608"  # movsxd rax, dword ptr [rsi+8]
        "49894230"  # mov [r10+FAULT_CODE], rax
        "fc"  # cld
        "488d7228"  # lea rsi, [rdx+40]
        "498dba00020000"  # lea rdi, [r10+FAULT_GENERAL]
        "b917000000"  # mov ecx, 23
        "f348a5"  # rep movsq
        "488bb2e0000000"  # mov rsi, [rdx+224]
        "8b4618"  # mov eax, [rsi+24]
        "498982c0020000"  # mov [r10+FAULT_MXCSR], rax
        "4881c6a0000000"  # add rsi, 160
        "498dba00030000"  # lea rdi, [r10+FAULT_VECTORS]
        "b920000000"  # mov ecx, 32
        "f348a5"  # rep movsq
        "488d0567ffffff"  # lea rax, [rip+fault]
        "488982a8000000"  # mov [rdx+168], rax
        "4881a2b0000000fffaffff"  # and qword ptr [rdx+176], -0x501
        "c3"  # ret
        # ours:
        "f4"  # hlt
    )),
    ("copy", (  # uint64_t copy(to rdi, from rsi, size rdx)
        # guarded:
        "4889d1"  # mov rcx, rdx
        "f3a4"  # rep movsb
        "31c0"  # xor eax, eax
        "c3"  # ret
    )),
    ("load8", (  # uint64_t load8(address rdi)
        "488b07"  # mov rax, [rdi]
        "c3"  # ret
    )),
    ("load4", (
        "8b07"  # mov eax, [rdi]
        "c3"  # ret
    )),
    ("load2", (
        "0fb707"  # movzx eax, word ptr [rdi]
        "c3"  # ret
    )),
    ("store8", (  # uint64_t store8(address rdi, value rsi)
        "488937"  # mov [rdi], rsi
        "31c0"  # xor eax, eax
        "c3"  # ret
    )),
    ("store4", (
        "8937"  # mov [rdi], esi
        "31c0"  # xor eax, eax
        "c3"  # ret
    )),
    ("store2", (
        "668937"  # mov [rdi], si
        "31c0"  # xor eax, eax
        "c3"  # ret
    )),
    ("exchange8", (  # uint64_t exchange8(address rdi, expected rsi, new rdx)
        "4889f0"  # mov rax, rsi
        "f0480fb117"  # lock cmpxchg [rdi], rdx
        "c3"  # ret
    )),
    ("exchange4", (
        "89f0"  # mov eax, esi
        "f00fb117"  # lock cmpxchg [rdi], edx
        "89c0"  # mov eax, eax
        "c3"  # ret
    )),
    ("length1", (  # uint64_t length1(address rdi): bytes before the first that is 0
        "31c0"  # xor eax, eax
        # bytes:
        "803c0700"  # cmp byte ptr [rdi+rax], 0
        "7405"  # je narrow
        "48ffc0"  # inc rax
        "ebf5"  # jmp bytes
        # narrow:
        "c3"  # ret
    )),
    ("length2", (  # the same of units of 2 bytes
        "31c0"  # xor eax, eax
        # units:
        "66833c4700"  # cmp word ptr [rdi+rax*2], 0
        "7405"  # je wide
        "48ffc0"  # inc rax
        "ebf4"  # jmp units
        # wide:
        "c3"  # ret
    )),
    ("refused", (  # an access of those above was not allowed
        # refused:
        "48b8efbe000000d0ea8d"  # mov rax, 0x8DEAD0000000BEEF
        "c3"  # ret
    )),
)  # fmt: skip

OFFSETS: Final[dict[str, int]] = {}
"""Where in the code each part begins."""


def _join() -> bytes:
    code = b""
    for name, text in CODE:
        OFFSETS[name] = len(code)
        code += bytes.fromhex(text)
    return code


BYTES: Final = _join()
STUB_SIZE: Final = 16


def stub(number: int, place: int) -> bytes:
    """What a guest calls for function `number` of the table, `place` bytes behind the beginning of BYTES."""
    move = b"\xb8" + number.to_bytes(4, "little")  # mov eax, number
    distance = OFFSETS["call"] - (place + 10)
    return (move + b"\xe9" + distance.to_bytes(4, "little", signed=True)).ljust(STUB_SIZE, b"\xcc")  # jmp call
