"""The x86-64 signal frame: what the kernel puts on a guest's stack so that a handler runs, and takes back afterwards.

The layout is `struct rt_sigframe` of arch/x86/include/asm/sigframe.h with `struct ucontext` and `struct sigcontext_64`
of arch/x86/include/uapi/asm/sigcontext.h; the extended state lies above it, aligned as XSAVE wants it::

    old rsp
            red zone, 128 bytes (System V ABI, 3.2.2); none on an alternate stack
            XSAVE area, 64-byte aligned, FP_XSTATE_MAGIC2 after it
            siginfo_t
            ucontext: flags, link, stack_t, sigcontext, signal mask
    new rsp pretcode: the restorer's address, at which the handler returns     (rsp + 8) % 16 == 0
"""

import struct
from typing import TYPE_CHECKING, Final

from virtus.isa.x86 import registers as r
from virtus.personalities.linux import siginfo
from virtus.personalities.linux.abi.stacks import (
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    BadFrame,
    on_alternate_stack,
    signed_flags,
)
from virtus.personalities.linux.signals import SA_ONSTACK, SA_RESTORER, UNBLOCKABLE, Action

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

UC_FP_XSTATE: Final = 1  # arch/x86/include/uapi/asm/ucontext.h
UC_SIGCONTEXT_SS: Final = 2
UC_STRICT_RESTORE_SS: Final = 4

FP_XSTATE_MAGIC1: Final = 0x46505853  # arch/x86/include/uapi/asm/sigcontext.h
FP_XSTATE_MAGIC2: Final = 0x46505845
FXSAVE_SIZE: Final = 512  # Intel SDM volume 1, 10.5.1
XSAVE_HEADER: Final = 64  # ibid., 13.4.2
XSTATE_MAX: Final = 16384
SOFTWARE_WORDS: Final = 464  # of the FXSAVE area: left to software; XCR0 stands here in what ptrace gives
X87, SSE = 1, 2  # XSTATE_BV, Intel SDM volume 1, 13.4.2
MXCSR_AT, MXCSR_DEFAULT, FCW_DEFAULT = 24, 0x1F80, 0x37F
RED_ZONE: Final = 128

USER_CS: Final = 0x33  # arch/x86/include/asm/segment.h
DIRECTION: Final = 1 << 10  # EFLAGS, Intel SDM volume 1, 3.4.3
TRAP: Final = 1 << 8
RESUME: Final = 1 << 16
RESTORABLE_FLAGS: Final = 0x50DD5  # AC OF DF TF SF ZF AF PF CF RF: FIX_EFLAGS of arch/x86/kernel/signal.c

PAGE_FAULT, PROTECTION_FAULT = 14, 13  # exception vectors, Intel SDM volume 3, 6.15
VECTORS: Final = {4: 6, 5: 3, 7: 17, 8: 0}  # SIGILL, SIGTRAP, SIGBUS, SIGFPE
USER_ACCESS: Final = 4  # page-fault error code: from user mode
PROTECTED_PAGE: Final = 1  # the page is there, but not for this access

_GENERAL = (
    r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15,
    r.RDI, r.RSI, r.RBP, r.RBX, r.RDX, r.RAX, r.RCX, r.RSP, r.RIP, r.EFLAGS,
)  # fmt: skip
# pretcode; uc_flags, uc_link, ss_sp, ss_flags, ss_size; 18 registers; cs, gs, fs, ss; err, trapno, oldmask, cr2,
# fpstate; 8 reserved words; uc_sigmask
_FRAME = struct.Struct("<Q QQQi4xQ 18Q 4H 5Q 64x Q")
_SOFTWARE = struct.Struct("<IIQI")  # magic1, extended_size, xfeatures, xstate_size
FRAME_SIZE: Final = _FRAME.size + siginfo.SIZE

MASK64: Final = 2**64 - 1


def _trap(number: int, info: bytes) -> tuple[int, int, int]:
    """Error code, vector and CR2 for the sigcontext of a fault; ptrace does not tell whether it was a write."""
    code = siginfo.code_of(info)
    if number == 11 and 0 < code <= siginfo.SEGV_ACCERR:
        present = PROTECTED_PAGE if code == siginfo.SEGV_ACCERR else 0
        return USER_ACCESS | present, PAGE_FAULT, siginfo.address_of(info)
    if number == 11 and code == siginfo.SI_KERNEL:
        return 0, PROTECTION_FAULT, 0
    return 0, VECTORS.get(number, 0) if code > 0 else 0, 0


def _saved_state(task: "Task") -> bytearray:
    """The extended state as a signal frame holds it: with the words that tell its size, and the end marker."""
    state = bytearray(task.context.extended_state())
    size = len(state)
    features = int.from_bytes(state[SOFTWARE_WORDS : SOFTWARE_WORDS + 8], "little")
    state[SOFTWARE_WORDS:FXSAVE_SIZE] = bytes(FXSAVE_SIZE - SOFTWARE_WORDS)
    _SOFTWARE.pack_into(state, SOFTWARE_WORDS, FP_XSTATE_MAGIC1, size + 4, features, size)
    return state + FP_XSTATE_MAGIC2.to_bytes(4, "little")


def build(task: "Task", number: int, info: bytes, action: Action, mask: int) -> None:
    """Have the task enter its handler when it goes on; `mask` is what rt_sigreturn is to block again.

    Raises BadFrame where the guest's memory does not take the frame.
    """
    regs = task.regs
    if not action.flags & SA_RESTORER:
        raise BadFrame  # the 64-bit ABI has no other way back
    pointer = regs[r.RSP]
    start, stack_flags, size = task.alternate_stack
    inside = on_alternate_stack(task, pointer)
    entering = False
    if action.flags & SA_ONSTACK and not stack_flags & SS_DISABLE and size and not inside:
        pointer = start + size
        entering = True
    else:
        pointer -= RED_ZONE
    state = _saved_state(task)
    fpstate = pointer - len(state) & ~63
    pointer = (fpstate - FRAME_SIZE & ~15) - 8
    if pointer < 0 or ((inside or entering) and not start < pointer <= start + size):
        raise BadFrame
    error, vector, address = _trap(number, info)
    selectors = regs[r.CS] & 0xFFFF, regs[r.GS] & 0xFFFF, regs[r.FS] & 0xFFFF, regs[r.SS] & 0xFFFF
    frame = _FRAME.pack(
        action.restorer,
        UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS, 0,
        start, signed_flags(stack_flags), size,
        *[regs[index] for index in _GENERAL],
        *selectors,
        error, vector, task.blocked, address, fpstate,
        mask,
    )  # fmt: skip
    data = bytearray(fpstate + len(state) - pointer)
    data[: _FRAME.size] = frame
    data[_FRAME.size : FRAME_SIZE] = info
    data[fpstate - pointer :] = state
    try:
        task.write(pointer, data)
    except OSError as error_:
        raise BadFrame from error_
    if stack_flags & SS_AUTODISARM:
        task.alternate_stack = (0, SS_DISABLE, 0)
    regs[r.RDI], regs[r.RSI], regs[r.RDX] = number, pointer + _FRAME.size, pointer + 8
    regs[r.RAX], regs[r.ORIG_RAX] = 0, r.NO_SYSCALL
    regs[r.RSP], regs[r.RIP] = pointer, action.handler
    regs[r.CS] = USER_CS
    regs[r.EFLAGS] &= ~(DIRECTION | TRAP | RESUME)


def restore(task: "Task") -> None:
    """rt_sigreturn(2): take registers, signal mask and alternate stack from the frame; raises BadFrame.

    What a frame may not change stays: selectors, the segment bases, and the flags that are the system's.
    """
    regs = task.regs
    try:
        frame = _FRAME.unpack(task.read(regs[r.RSP] - 8 & MASK64, _FRAME.size))
        _, _, _, stack, stack_flags, stack_size = frame[:6]
        general = frame[6:24]
        fpstate, mask = frame[32], frame[33]
        state = _stored_state(task, fpstate)
    except OSError as error:
        raise BadFrame from error
    flags = regs[r.EFLAGS] & ~RESTORABLE_FLAGS | general[17] & RESTORABLE_FLAGS
    for index, value in zip(_GENERAL, general, strict=True):
        regs[index] = value
    regs[r.EFLAGS], regs[r.ORIG_RAX] = flags, r.NO_SYSCALL
    try:
        task.context.set_extended_state(state)
    except OSError as error:
        raise BadFrame from error
    task.blocked = mask & ~UNBLOCKABLE
    stack_flags &= 0xFFFFFFFF
    if not on_alternate_stack(task, regs[r.RSP]) and stack_flags & ~(SS_AUTODISARM | SS_ONSTACK | SS_DISABLE) == 0:
        if stack_flags & SS_DISABLE:
            task.alternate_stack = (0, SS_DISABLE, 0)
        else:
            task.alternate_stack = (stack, stack_flags & SS_AUTODISARM, stack_size)


def _stored_state(task: "Task", fpstate: int) -> bytes:
    """The extended state of a frame, made complete where it is legacy FXSAVE only, or absent; raises OSError."""
    if not fpstate:
        state = bytearray(len(task.context.extended_state()))
        struct.pack_into("<H", state, 0, FCW_DEFAULT)
        struct.pack_into("<I", state, MXCSR_AT, MXCSR_DEFAULT)
        return bytes(state)
    legacy = task.read(fpstate, FXSAVE_SIZE)
    magic, extended, _, size = _SOFTWARE.unpack_from(legacy, SOFTWARE_WORDS)
    if magic == FP_XSTATE_MAGIC1 and FXSAVE_SIZE + XSAVE_HEADER <= size <= XSTATE_MAX and extended == size + 4:
        state = bytearray(task.read(fpstate, size + 4))
        if int.from_bytes(state[size:], "little") == FP_XSTATE_MAGIC2:
            state[FXSAVE_SIZE] |= SSE  # MXCSR is restored even where no vector register was in use
            return bytes(state[:size])
    state = bytearray(len(task.context.extended_state()))
    state[:FXSAVE_SIZE] = legacy
    state[FXSAVE_SIZE] = X87 | SSE
    return bytes(state)
