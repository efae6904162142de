"""Registers between the guest's state and a child: what the processor holds meanwhile, and what is virtual."""

from typing import Final

from virtus.isa.x86 import registers as r
from virtus.vcpus.scanned.child import DATA_SELECTOR, code_selector
from virtus.vcpus.scanned.cpu_state import AF, CF, DF, DS, ES, FS, GS, MASK32, OF, PF, SF, ZF, CpuState

NATIVE_FLAGS: Final = CF | PF | AF | ZF | SF | OF | DF
"""What of EFLAGS the processor has while guest code runs; all else is virtual. AC is: level 0 is never checked."""
HOST_FLAGS: Final = 0x202

_GENERAL: Final = (r.RAX, r.RCX, r.RDX, r.RBX, r.RSP, r.RBP, r.RSI, r.RDI)


def load(regs: memoryview, state: CpuState, bias: int) -> None:
    """Fill a child's registers, in a code segment whose base is `bias` << 28, as guest code finds them."""
    segments = state.segments
    for name, value in zip(_GENERAL, state.registers, strict=True):
        regs[name] = value
    regs[r.RIP] = state.eip
    regs[r.EFLAGS] = state.eflags & NATIVE_FLAGS | HOST_FLAGS
    regs[r.CS], regs[r.SS] = code_selector(bias), DATA_SELECTOR
    regs[r.DS] = DATA_SELECTOR if segments[DS].attributes else 0
    regs[r.ES] = DATA_SELECTOR if segments[ES].attributes else 0
    for number, selector, base in ((FS, r.FS, r.FS_BASE), (GS, r.GS, r.GS_BASE)):
        segment = segments[number]
        regs[selector] = DATA_SELECTOR if segment.attributes else 0
        regs[base] = segment.base


def store(regs: memoryview, state: CpuState) -> int:
    """Take registers and flags over from a child that stopped; the address where it did."""
    state.registers[:] = [regs[name] & MASK32 for name in _GENERAL]
    state.eflags = state.eflags & ~NATIVE_FLAGS | regs[r.EFLAGS] & NATIVE_FLAGS
    eip: int = regs[r.RIP] & MASK32
    return eip
