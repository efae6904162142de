"""The riscv64 signal frame: `struct rt_sigframe` of arch/riscv/kernel/signal.c.

On the guest's stack, 16-byte aligned, from low to high: siginfo_t (128 bytes), then ucontext: flags, link, stack_t,
signal mask in 128 bytes, padding, and the sigcontext: pc and x1..x31, then the floating-point state in 528 bytes
(arch/riscv/include/uapi/asm/ucontext.h, sigcontext.h, ptrace.h). Handlers return through the page at TRAMPOLINE.
"""

import struct
from typing import TYPE_CHECKING, Final

from virtus.isa.riscv64 import registers as r
from virtus.personalities.linux import siginfo
from virtus.personalities.linux.abi.stacks import (
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    BadFrame,
    on_alternate_stack,
    signed_flags,
)
from virtus.personalities.linux.signals import SA_ONSTACK, UNBLOCKABLE, Action

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

TRAMPOLINE: Final = r.GUEST_END - (1 << 20)
"""Above the stack."""
TRAMPOLINE_CODE: Final = bytes.fromhex("9308b008 73000000")  # li a7, 139 (rt_sigreturn); ecall

# uc_flags, uc_link, ss_sp, ss_flags, ss_size, uc_sigmask in 128 bytes; padding to 16; 32 general registers
_CONTEXT = struct.Struct("<QQQi4xQQ120x8x32Q")
FLOATS_SIZE: Final = 264  # struct __riscv_d_ext_state
_FLOATS_SPACE: Final = 528  # union __riscv_fp_state
FRAME_SIZE: Final = siginfo.SIZE + _CONTEXT.size + _FLOATS_SPACE


def build(task: "Task", number: int, info: bytes, action: Action, mask: int) -> None:
    """Have the task enter its handler when it goes on; `mask` is what rt_sigreturn is to block again.

    Raises BadFrame where the guest's memory does not take the frame.
    """
    regs = task.regs
    pointer = regs[r.SP]
    start, stack_flags, size = task.alternate_stack
    inside = on_alternate_stack(task, pointer)
    entering = False
    if action.flags & SA_ONSTACK and not stack_flags & SS_DISABLE and size and not inside:
        pointer = start + size
        entering = True
    pointer = pointer - FRAME_SIZE & ~15
    if pointer < 0 or ((inside or entering) and not start <= pointer <= start + size):
        raise BadFrame
    context = _CONTEXT.pack(0, 0, start, signed_flags(stack_flags), size, mask, regs[r.PC], *regs[1:32])
    frame = info[: siginfo.SIZE] + context + task.context.extended_state().ljust(_FLOATS_SPACE, b"\0")
    try:
        task.write(pointer, frame)
    except OSError as error:
        raise BadFrame from error
    if stack_flags & SS_AUTODISARM:
        task.alternate_stack = (0, SS_DISABLE, 0)
    regs[r.RA], regs[r.SP], regs[r.PC] = TRAMPOLINE, pointer, action.handler
    regs[r.A0], regs[r.A0 + 1], regs[r.A0 + 2] = number, pointer, pointer + siginfo.SIZE
    regs[r.SYSCALL_NUMBER] = r.NO_SYSCALL


def restore(task: "Task") -> None:
    """rt_sigreturn(2): take registers, signal mask and alternate stack from the frame; raises BadFrame."""
    regs = task.regs
    try:
        frame = task.read(regs[r.SP] + siginfo.SIZE, _CONTEXT.size + FLOATS_SIZE)
        _, _, stack, stack_flags, stack_size, mask, counter, *general = _CONTEXT.unpack_from(frame)
        task.context.set_extended_state(frame[_CONTEXT.size :])
    except OSError as error:
        raise BadFrame from error
    for index, value in enumerate(general, 1):
        regs[index] = value
    regs[r.PC], regs[r.SYSCALL_NUMBER] = counter, r.NO_SYSCALL
    task.blocked = mask & ~UNBLOCKABLE
    stack_flags &= 0xFFFFFFFF
    if not on_alternate_stack(task, regs[r.SP]) and stack_flags & ~(SS_AUTODISARM | SS_ONSTACK | SS_DISABLE) == 0:
        if stack_flags & SS_DISABLE:
            task.alternate_stack = (0, SS_DISABLE, 0)
        else:
            task.alternate_stack = (stack, stack_flags & SS_AUTODISARM, stack_size)
