"""Arithmetic on decimal digits: the adjustments behind and in front of binary instructions."""

from typing import Final

from iced_x86 import Mnemonic

from virtus.vcpus.scanned import faults
from virtus.vcpus.scanned.cpu_state import AF, CF, EAX, ZF
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.flags import KEEP, PARITY, of_result
from virtus.vcpus.scanned.operands import Compile, Operands, Operation


def _adjust_decimal(*, subtract: bool) -> Compile:
    """DAA and DAS (Intel SDM volume 2A); OF is undefined and becomes 0."""

    def compile_it(ops: Operands) -> Operation:
        state, registers = ops.execution.state, ops.execution.registers

        def operation() -> None:
            old, eflags = registers[EAX] & 0xFF, state.eflags
            value, carry, auxiliary, step = old, 0, 0, -1 if subtract else 1
            if old & 0xF > 9 or eflags & AF:
                value += 6 * step
                carry, auxiliary = (CF if eflags & CF or not 0 <= value <= 0xFF else 0), AF
            if old > 0x99 or eflags & CF:
                value += 0x60 * step
                carry = CF
            value &= 0xFF
            registers[EAX] = registers[EAX] & ~0xFF | value
            state.eflags = eflags & KEEP | of_result(value, 8) | carry | auxiliary

        return operation

    return compile_it


def _adjust_ascii(*, subtract: bool) -> Compile:
    """AAA and AAS (Intel SDM volume 2A); OF, SF, ZF and PF are undefined, and follow AL."""

    def compile_it(ops: Operands) -> Operation:
        state, registers = ops.execution.state, ops.execution.registers

        def operation() -> None:
            value, eflags, carry = registers[EAX] & 0xFFFF, state.eflags, 0
            if value & 0xF > 9 or eflags & AF:
                value += -0x106 if subtract else 0x106
                carry = CF | AF
            value &= 0xFF0F
            registers[EAX] = registers[EAX] & ~0xFFFF | value
            state.eflags = eflags & KEEP | carry | PARITY[value & 0xFF] | (0 if value & 0xFF else ZF)

        return operation

    return compile_it


def aam(ops: Operands) -> Operation:
    """AAM."""
    state, registers, base = ops.execution.state, ops.execution.registers, ops.instruction.immediate(0) & 0xFF

    def operation() -> None:
        if not base:
            raise GuestFault(faults.DE)
        tens, ones = divmod(registers[EAX] & 0xFF, base)
        registers[EAX] = registers[EAX] & ~0xFFFF | tens << 8 | ones
        state.eflags = state.eflags & KEEP | of_result(ones, 8)

    return operation


def aad(ops: Operands) -> Operation:
    """AAD."""
    state, registers, base = ops.execution.state, ops.execution.registers, ops.instruction.immediate(0) & 0xFF

    def operation() -> None:
        value = (registers[EAX] & 0xFF) + (registers[EAX] >> 8 & 0xFF) * base & 0xFF
        registers[EAX] = registers[EAX] & ~0xFFFF | value
        state.eflags = state.eflags & KEEP | of_result(value, 8)

    return operation


M = Mnemonic
TABLE: Final[dict[int, Compile]] = {
    M.DAA: _adjust_decimal(subtract=False), M.DAS: _adjust_decimal(subtract=True),
    M.AAA: _adjust_ascii(subtract=False), M.AAS: _adjust_ascii(subtract=True), M.AAM: aam, M.AAD: aad,
}  # fmt: skip
