"""What jumps, system instructions and control and status registers mean.

Source: RISC-V ISA manual, volume I, chapters "RV32I" (2.5, 2.8), "Zicsr", "Counters", "F" (20.2), "Zifencei".
"""

from typing import Final

from virtus.isa.builder import BREAKPOINT, ILLEGAL, Builder, Predicate, Word
from virtus.isa.riscv64.instruction import Instruction
from virtus.isa.riscv64.meaning import Meaning, means, read, write

LINKS: Final = (1, 5)
"""Registers that calls leave the return address in (2.5.1, return-address prediction)."""
FFLAGS, FRM, FCSR = 0x001, 0x002, 0x003
CYCLE, TIME, INSTRET = 0xC00, 0xC01, 0xC02
FLAG_BITS: Final = 31


@means("illegal")
def _illegal(b: Builder, i: Instruction) -> None:
    b.trap(ILLEGAL)


@means("ecall")
def _ecall(b: Builder, i: Instruction) -> None:
    b.system_call()


@means("ebreak")
def _ebreak(b: Builder, i: Instruction) -> None:
    b.trap(BREAKPOINT)


@means("fence.i")
def _fence_i(b: Builder, i: Instruction) -> None:
    b.flush_instructions()


def _branches(predicate: Predicate) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        b.branch(b.compare(predicate, read(b, i.rs1), read(b, i.rs2)), b.pc + i.immediate)

    return meaning


means("beq")(_branches("eq"))
means("bne")(_branches("ne"))
means("blt")(_branches("slt"))
means("bge")(_branches("sge"))
means("bltu")(_branches("ult"))
means("bgeu")(_branches("uge"))


@means("jal")
def _jal(b: Builder, i: Instruction) -> None:
    target, link = b.pc + i.immediate, b.pc + i.size
    write(b, i.rd, b.const(link))
    if i.rd in LINKS:
        b.call(target, link)
    else:
        b.jump(target)


@means("jalr")
def _jalr(b: Builder, i: Instruction) -> None:
    target, link = b.and_(b.add(read(b, i.rs1), b.const(i.immediate)), b.const(-2)), b.pc + i.size
    write(b, i.rd, b.const(link))
    if i.rd in LINKS:
        b.call_to(target, link)
    else:
        b.jump_to(target, is_return=i.rs1 in LINKS and not i.rd)


def _old(b: Builder, register: int) -> Word | None:
    """What a control and status register reads; None where there is none for user mode."""
    if register == FFLAGS:
        return b.get_float_flags()
    if register == FRM:
        return b.get_rounding()
    if register == FCSR:
        return b.or_(b.get_float_flags(), b.shift_left(b.get_rounding(), b.const(5)))
    if register == CYCLE:
        return b.counter("cycle")
    if register == TIME:
        return b.counter("time")
    return b.counter("instructions") if register == INSTRET else None


def _store(b: Builder, register: int, value: Word) -> None:
    if register in (FFLAGS, FCSR):
        b.set_float_flags(b.and_(value, b.const(FLAG_BITS)))
    if register == FRM:
        b.set_rounding(value)
    elif register == FCSR:
        b.set_rounding(b.shift_right(value, b.const(5)))


def _control(kind: str, *, immediate: bool) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        register = i.immediate
        writes = kind == "csrrw" or i.rs1 != 0
        if register not in (FFLAGS, FRM, FCSR) and (writes or register not in (CYCLE, TIME, INSTRET)):
            b.trap(ILLEGAL)
            return
        old = _old(b, register)
        operand = b.const(i.rs1) if immediate else read(b, i.rs1)
        if writes:
            if kind == "csrrs":
                operand = b.or_(old, operand)
            elif kind == "csrrc":
                operand = b.and_(old, b.xor(operand, b.const(-1)))
            _store(b, register, operand)
        write(b, i.rd, old)

    return meaning


for _kind in ("csrrw", "csrrs", "csrrc"):
    means(_kind)(_control(_kind, immediate=False))
    means(_kind + "i")(_control(_kind, immediate=True))
