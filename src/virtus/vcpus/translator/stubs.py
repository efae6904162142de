"""The machine code at the beginning of the code region: how a thread enters translated code, and how it comes out.

`layout` says what each piece promises. A `syscall` instruction stops the thread for its tracer, who forgets the call
(PTRACE_SYSEMU); it destroys RCX and R11 only.
"""

from typing import Final

from virtus.vcpus.translator import layout

# RBX, which translated code preserves, is the state while ENTER's loop has the thread; TABLE is 0x2000_0000_0000.
#
#   enter:  mov rbx, rdi;  ldmxcsr [rbx+MXCSR]
#   next:   mov rdi, rbx;  mov rax, [rbx+PC]
#           test al, 1;  jnz nothing                        half an instruction is nowhere
#           mov rcx, rax;  shr rcx, 38;  jnz nothing        nor is there any beyond GUEST_END
#           mov rdx, TABLE;  mov rdx, [rdx+rax*4];  test rdx, rdx;  jz nothing
#           call rdx;  mov [rbx+PC], rax;  jmp next
#   nothing: mov qword [rbx+EXIT], EXIT_MISS;  stmxcsr [rbx+MXCSR];  syscall
#           ldmxcsr [rbx+MXCSR];  jmp next
#   leave:  stmxcsr [rdi+MXCSR];  syscall;  ldmxcsr [rdi+MXCSR];  mov rax, [rdi+PC];  ret
#   miss:   mov qword [rdi+EXIT], EXIT_MISS;  stmxcsr [rdi+MXCSR];  syscall;  ldmxcsr [rdi+MXCSR]
#   found:  mov rax, [rdi+PC];  test al, 1;  jnz miss;  mov rcx, rax;  shr rcx, 38;  jnz miss
#           mov rdx, TABLE;  mov rdx, [rdx+rax*4];  test rdx, rdx;  jz miss;  jmp rdx
#   unwind: mov rbx, rdi;  cmp dword [rbx+INTERRUPT], 0;  je drop
#           mov qword [rbx+EXIT], EXIT_INTERRUPT;  stmxcsr [rbx+MXCSR];  syscall;  ldmxcsr [rbx+MXCSR]
#   drop:   mov rsp, [rbx+STACK_TOP];  jmp next
#   hot:    mov rax, [rdi+PC];  mov rdx, TABLE;  mov rdx, [rdx+rax*4];  test rdx, rdx;  jz cool
#           cmp rdx, rcx;  je cool;  jmp rdx
#   cool:   mov qword [rdi+EXIT], EXIT_HOT;  stmxcsr [rdi+MXCSR];  syscall;  ldmxcsr [rdi+MXCSR];  jmp found
#   jump_miss: mov qword [rdi+EXIT], EXIT_JUMP_MISS;  stmxcsr [rdi+MXCSR];  syscall;  ldmxcsr [rdi+MXCSR];  jmp found
CODE: Final = bytes.fromhex(
    "4889fb 0fae9320020000 4889df 488b8300020000 a801 7527 4889c1 48c1e926 751e 48ba0000000000200000 488b1482"
    "4885d2 740b ffd2 48898300020000 ebcb 48c7831802000002000000 0fae9b20020000 0f05 0fae9320020000 ebae 0f1f4000"
    "0fae9f20020000 0f05 0fae9720020000 488b8700020000 c3 0f1f840000000000"
    "48c7871802000002000000 0fae9f20020000 0f05 0fae9720020000"
    "488b8700020000 a801 75da 4889c1 48c1e926 75d1 48ba0000000000200000 488b1482 4885d2 74be ffe2"
    "66662e0f1f840000000000 90"
    "4889fb 83bb3002000000 741b 48c7831802000004000000 0fae9b20020000 0f05 0fae9320020000"
    "488ba348020000 e907ffffff 66662e0f1f84000000000066 90"
    "488b8700020000 48ba0000000000200000 488b1482 4885d2 7407 4839ca 7402 ffe2"
    "48c7871802000003000000 0fae9f20020000 0f05 0fae9720020000 e94affffff"
    "66662e0f1f8400000000000f1f400048c78718020000090000000fae9f200200000f050fae9720020000e91bffffff"
)
_ENTER, _LEAVE, _MISS, _UNWIND, _HOT, _JUMP_MISS = 0x00, 0x60, 0x80, 0xD0, 0x110, 0x160
_AFTER_SYSTEM_CALLS: Final = (0x53, 0x69, 0x94, 0xF0, 0x145, 0x174)


class Stubs:
    """The pieces, for the address they have been put at."""

    def __init__(self, place: int) -> None:
        self.code = CODE
        self.enter = place + _ENTER
        self.system_calls = frozenset(place + offset for offset in _AFTER_SYSTEM_CALLS)
        """Where the instruction pointer is after each of the `syscall` instructions."""
        self.words = {
            layout.LEAVE_AT: place + _LEAVE,
            layout.MISS_AT: place + _MISS,
            layout.UNWIND_AT: place + _UNWIND,
            layout.HOT_AT: place + _HOT,
            layout.JUMP_MISS_AT: place + _JUMP_MISS,
        }
        """What every thread's state says of them."""
