"""Gates that do not lead out: a program's call or page fault reaches its kernel, and its kernel's return the program,
without leaving KVM; and a kernel that switches threads sets the base of FS. For hosts whose KVM is software: there a
world switch costs 29 µs, an instruction at ring 0, which is emulated, less than one, and a `syscall` stays at ring 3.

A breakpoint in a page of ours brings a call or a return to ring 0, where address space, base of GS and state change.
What touches the guest's memory runs at ring 3, natively and with the guest's rights. Whoever jumps into the page from
elsewhere comes no further: at ring 0 the state decides what may happen, and nobody else can write it.

Frames as in xen/arch/x86/x86_64/entry.S (create_bounce_frame); what a return looks like: struct iret_context.
"""

import re
import struct
from typing import Final

KERNEL, PROGRAM, PROGRAM_LEAVES, KERNEL_READY = range(4)
"""Who runs (the word `state`): a kernel or a program all of whose gates lead out, and those for whom these are open."""
OF_KERNEL: Final = (KERNEL, KERNEL_READY)
WORDS: Final = (
    "state", "kernel_root", "user_root", "stack", "call", "fault", "faulted_at", "rax", "error", "rip", "bases",
)  # fmt: skip
WORD: Final = {name: number for number, name in enumerate(WORDS)}
RETURN_CALL: Final = 23  # __HYPERVISOR_iret
PENDING_AT, MASK_AT, FAULT_ADDRESS_AT = 0, 1, 16  # in the guest's struct vcpu_info
USER_CODE, USER_STACK = 0x33, 0x2B

SOURCE: Final = """
call:              # ring 3, by syscall. Whose is it?
  833d {shown.state} 01        # cmp dword [state], PROGRAM
  0f84 {program}               # je program
  83f8 19                      # cmp eax, __HYPERVISOR_set_segment_base
  0f84 {set_base}              # je set_base
  83f8 17                      # cmp eax, RETURN_CALL
  0f85 {leave_call}            # jne leave_call
  833d {shown.state} 03        # cmp dword [state], KERNEL_READY
  0f85 {leave_call}            # jne leave_call
  48837c2428 33                # cmp qword [rsp+40], USER_CODE
  0f85 {leave_call}            # jne leave_call
  48837c2440 2b                # cmp qword [rsp+64], USER_STACK
  0f85 {leave_call}            # jne leave_call
  8b4c2430                     # mov ecx, [rsp+48]
  81e1 00731b00                # and ecx, VIP VIF VM RF NT IOPL IF TF
  81f9 00020000                # cmp ecx, IF
  0f85 {leave_call}            # jne leave_call
  488b4c2420                   # mov rcx, [rsp+32]
  48c1e92f                     # shr rcx, 47
  0f85 {leave_call}            # jne leave_call: no address of a program's
  488b4c2410                   # mov rcx, [rsp+16]
  4c8b5c2408                   # mov r11, [rsp+8]
  f7442418 00010000            # test dword [rsp+24], VGCF_in_syscall
  0f84 {as_it_was}             # jz as_it_was
  488b4c2420                   # mov rcx, [rsp+32]
  4c8b5c2430                   # mov r11, [rsp+48]
as_it_was:
  4889e0                       # mov rax, rsp
  ff742430                     # push qword [rsp+48]
  9d                           # popfq
  488b6038                     # mov rsp, [rax+56]
program:
  cc                           # int3
leave_call:
  e9 {out_call}                # jmp out_call
set_base:
  833d {shown.bases} 01        # cmp dword [bases], 1
  0f85 {leave_call}            # jne leave_call
  833d {shown.state} 02        # cmp dword [state], PROGRAM_LEAVES
  0f84 {leave_call}            # je leave_call: a program's call of this number
  85ff                         # test edi, edi
  0f85 {leave_call}            # jne leave_call: not SEGBASE_FS
  4889f7                       # mov rdi, rsi
  48c1ef2f                     # shr rdi, 47
  0f85 {far_base}              # jne far_base: no address of a program's
  f3480faed6                   # wrfsbase rsi
  31c0                         # xor eax, eax
  4153                         # push r11
  9d                           # popfq
  ffe1                         # jmp rcx
far_base:
  31ff                         # xor edi, edi
  e9 {out_call}                # jmp out_call

breakpoint:        # ring 0; the frame: rip cs rflags rsp ss
  817c2404 8080ffff            # cmp dword [rsp+4], the upper half of this page's address
  0f85 {out_breakpoint}        # jne out_breakpoint
  833d {own.state} 01          # cmp dword [state], PROGRAM
  0f84 {enter}                 # je enter
  833d {own.state} 03          # cmp dword [state], KERNEL_READY
  0f85 {out_breakpoint}        # jne out_breakpoint
  803d {own.pending} 00        # cmp byte [pending], 0
  0f85 {out_return}            # jne out_return
  c605 {own.mask} 00           # mov byte [mask], 0
  ff7020                       # push qword [rax+32]
  8f0424                       # pop qword [rsp]: rip
  ff30                         # push qword [rax]
  0f01f8                       # swapgs
  488b05 {own.user_root}       # mov rax, [user_root]
  0f22d8                       # mov cr3, rax
  58                           # pop rax
  c605 {own.state} 01          # mov byte [state], PROGRAM
  48cf                         # iretq
enter:
  0f01f8                       # swapgs
  c605 {own.state} 03          # mov byte [state], KERNEL_READY
  c605 {own.mask} 01           # mov byte [mask], 1
  488905 {own.rax}             # mov [rax], rax
  488b05 {own.kernel_root}     # mov rax, [kernel_root]
  0f22d8                       # mov cr3, rax
  c70424 {low.entered}         # mov dword [rsp], entered
  81642410 ff88fbff            # and dword [rsp+16], not (AC NT IOPL DF TF), as `syscall` does
  48cf                         # iretq

page_fault:        # ring 0; the frame: error rip cs rflags rsp ss
  833d {own.state} 01          # cmp dword [state], PROGRAM
  0f85 {out_fault}             # jne out_fault
  f7442418 00010400            # test dword [rsp+24], AC TF
  0f85 {out_fault}             # jnz out_fault
  807c2410 33                  # cmp byte [rsp+16], USER_CODE
  0f85 {out_fault}             # jne out_fault
  0f01f8                       # swapgs
  c605 {own.state} 03          # mov byte [state], KERNEL_READY
  488905 {own.rax}             # mov [rax], rax
  8f05 {own.error}             # pop qword [error]
  8f05 {own.rip}               # pop qword [rip]
  ff35 {own.faulted_at}        # push qword [faulted_at]
  0f20d0                       # mov rax, cr2
  488905 {own.fault_address}   # mov [fault_address], rax
  c605 {own.mask} 01           # mov byte [mask], 1
  488b05 {own.kernel_root}     # mov rax, [kernel_root]
  0f22d8                       # mov cr3, rax
  48cf                         # iretq

entered:           # ring 3, in the kernel's address space, with the program's stack pointer
  4889e0                       # mov rax, rsp
  488b25 {shown.stack}         # mov rsp, [stack]
  6a2b                         # push USER_STACK
  50                           # push rax
  4153                         # push r11
  6a33                         # push USER_CODE
  51                           # push rcx
  4153                         # push r11
  51                           # push rcx
  488b05 {shown.rax}           # mov rax, [rax]
  ff25 {shown.call}            # jmp [call]
faulted:           # the same
  4889e0                       # mov rax, rsp
  488b25 {shown.stack}         # mov rsp, [stack]
  6a2b                         # push USER_STACK
  50                           # push rax
  9c                           # pushfq
  6a33                         # push USER_CODE
  ff35 {shown.rip}             # push qword [rip]
  ff35 {shown.error}           # push qword [error]
  4153                         # push r11
  51                           # push rcx
  488b05 {shown.rax}           # mov rax, [rax]
  ff25 {shown.fault}           # jmp [fault]
"""
TOKEN: Final = re.compile(r"\{([\w.]+)\}")


def assemble(at: int, shown: int, own: int, info: int, outside: dict[str, int]) -> tuple[bytes, dict[str, int]]:
    """The gates for this address and their labels.

    The words lie at `own` for ring 0 and are seen by ring 3 at `shown`; `info` is where ring 0 finds the guest's struct
    vcpu_info, and `outside` are the addresses of what leads out.
    """
    lines = [line.partition("#")[0].strip() for line in SOURCE.splitlines()]
    symbols = dict(outside)
    symbols["own.pending"], symbols["own.mask"] = info + PENDING_AT, info + MASK_AT
    symbols["own.fault_address"] = info + FAULT_ADDRESS_AT
    for number, name in enumerate(WORDS):
        symbols[f"shown.{name}"], symbols[f"own.{name}"] = shown + 8 * number, own + 8 * number
    place = at
    for line in lines:
        if line.endswith(":"):
            symbols[line[:-1]] = place
            symbols[f"low.{line[:-1]}"] = place & 0xFFFFFFFF
        else:
            place += len(bytes.fromhex(TOKEN.sub("00000000", line)))
    code = bytearray()
    for line in lines:
        if not line or line.endswith(":"):
            continue
        end = at + len(code) + len(bytes.fromhex(TOKEN.sub("00000000", line)))

        def operand(match: re.Match[str], end: int = end) -> str:
            value = symbols[match[1]]
            packed = struct.pack("<I", value) if match[1].startswith("low.") else struct.pack("<i", value - end)
            return packed.hex()

        code += bytes.fromhex(TOKEN.sub(operand, line))
    return bytes(code), symbols
