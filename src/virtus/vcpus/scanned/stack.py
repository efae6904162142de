"""Instructions of the stack: PUSH and POP in all their forms, ENTER and LEAVE (Intel SDM volume 1, chapter 6)."""

from typing import Final

from iced_x86 import Mnemonic, Register

from virtus.vcpus.scanned import descriptors, faults
from virtus.vcpus.scanned.cpu_state import (
    AC,
    DF,
    EAX,
    EBP,
    EDI,
    ESP,
    FLAGS_FIXED,
    ID,
    IF,
    IOPL,
    IOPL_SHIFT,
    MASK32,
    NT,
    RF,
    SS,
    STATUS_FLAGS,
    TF,
    VM,
    CpuState,
)
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.operands import SEGMENTS, Compile, Operands, Operation

POPPED: Final = STATUS_FLAGS | TF | DF | NT | AC | ID
"""What POPF and IRET change at any privilege level."""


def push(ops: Operands) -> Operation:
    """PUSH of a register, memory, an immediate or a segment register."""
    size, execution = ops.operand_size, ops.execution
    if ops.register(0) in SEGMENTS:
        segment = execution.segments[SEGMENTS[ops.register(0)]]
        return lambda: execution.push(segment.selector, size)
    read = ops.reader(0, size)
    return lambda: execution.push(read(), size)


def pop(ops: Operands) -> Operation:
    """POP; an address that uses ESP does so after it was incremented."""
    size, execution = ops.operand_size, ops.execution
    registers = execution.registers
    if ops.register(0) in SEGMENTS:
        number = SEGMENTS[ops.register(0)]

        def pop_segment() -> None:
            selector = execution.peek(0, size) & 0xFFFF
            mask = execution.state.stack_mask
            descriptors.load(execution, number, selector)
            old = registers[ESP]
            registers[ESP] = old & ~mask | old + size & mask
            if number == SS:
                execution.state.interrupt_shadow = True

        return pop_segment
    write = ops.writer(0, size)

    def operation() -> None:
        value, before = execution.peek(0, size), registers[ESP]
        execution.drop(size)
        try:
            write(value)
        except GuestFault:
            registers[ESP] = before
            raise

    return operation


def pusha(ops: Operands) -> Operation:
    """PUSHA: all or nothing."""
    size, execution = ops.operand_size, ops.execution
    registers = execution.registers

    def operation() -> None:
        values = list(registers)
        try:
            for value in values:
                execution.push(value, size)
        except GuestFault:
            registers[ESP] = values[ESP]
            raise

    return operation


def popa(ops: Operands) -> Operation:
    """POPA: ESP's own value is skipped."""
    size, execution = ops.operand_size, ops.execution
    registers, keep = execution.registers, MASK32 if size == 2 else 0

    def operation() -> None:
        values = [execution.peek(size * index, size) for index in range(8)]
        for number, value in zip(range(EDI, EAX - 1, -1), values, strict=True):
            if number != ESP:
                registers[number] = registers[number] & keep & 0xFFFF_0000 | value
        execution.drop(8 * size)

    return operation


def demand_flag_privilege(state: CpuState) -> None:
    """#GP(0) for PUSHF, POPF, INT n and IRET in virtual-8086 mode below I/O privilege 3 (volume 3B, 20.2.7)."""
    if state.eflags & VM and state.eflags & IOPL != IOPL:
        raise GuestFault(faults.GP, 0)


def change_flags(state: CpuState, value: int, size: int, *, privilege: int | None = None) -> None:
    """EFLAGS as POPF and IRET set them at a privilege level, the current one if None. `size` 2 keeps the upper half."""
    level = state.cpl if privilege is None else privilege
    mask = POPPED
    if level <= (state.eflags & IOPL) >> IOPL_SHIFT:
        mask |= IF
    if level == 0:
        mask |= IOPL
    if size == 2:
        mask &= 0xFFFF
    else:
        mask |= RF
    state.eflags = state.eflags & ~mask | value & mask | FLAGS_FIXED


def pushf(ops: Operands) -> Operation:
    """PUSHF: VM and RF are stored as 0."""
    size, execution = ops.operand_size, ops.execution
    state = execution.state

    def operation() -> None:
        demand_flag_privilege(state)
        execution.push(state.eflags & ~(VM | RF), size)

    return operation


def popf(ops: Operands) -> Operation:
    """POPF: VM stays, RF is cleared."""
    size, execution = ops.operand_size, ops.execution
    state = execution.state

    def operation() -> None:
        demand_flag_privilege(state)
        value = execution.peek(0, size)
        execution.drop(size)
        change_flags(state, value & ~RF, size)

    return operation


def enter(ops: Operands) -> Operation:
    """ENTER (Intel SDM volume 2A)."""
    size, execution = ops.operand_size, ops.execution
    room, level = ops.instruction.immediate(0) & 0xFFFF, ops.instruction.immediate(1) & 31
    registers, mask = execution.registers, 0xFFFF if size == 2 else MASK32

    def operation() -> None:
        stack_mask, before, frame = execution.state.stack_mask, registers[ESP], registers[EBP]
        try:
            execution.push(frame & mask, size)
            top = registers[ESP]
            for index in range(1, level):
                execution.push(execution.read(SS, frame - size * index & stack_mask, size), size)
            if level:
                execution.push(top & mask, size)
            new = registers[ESP] - room & stack_mask
            execution.memory.check_write(execution.linear(SS, new, size, True), size)
        except GuestFault:
            registers[ESP] = before
            raise
        registers[EBP] = frame & ~mask | top & mask
        registers[ESP] = registers[ESP] & ~stack_mask | new

    return operation


def leave(ops: Operands) -> Operation:
    """LEAVE."""
    size, execution = ops.operand_size, ops.execution
    registers, mask = execution.registers, 0xFFFF if size == 2 else MASK32

    def operation() -> None:
        stack_mask = execution.state.stack_mask
        frame = registers[EBP] & stack_mask
        value = execution.read(SS, frame, size)
        registers[ESP] = registers[ESP] & ~stack_mask | frame + size & stack_mask
        registers[EBP] = registers[EBP] & ~mask | value

    return operation


def lds(ops: Operands) -> Operation:
    """LDS, LES, LFS, LGS and LSS: a far pointer into a register and the segment register that the name says."""
    size, execution = ops.size(0), ops.execution
    number = _FAR_LOADS[ops.instruction.mnemonic]
    offset, write, segment = ops.offset(), ops.writer(0, size), ops.segment

    def operation() -> None:
        at = offset()
        place = execution.linear(segment, at, size + 2, False)
        value, selector = execution.memory.read(place, size), execution.memory.read(place + size & MASK32, 2)
        descriptors.load(execution, number, selector)
        write(value)
        if number == SS:
            execution.state.interrupt_shadow = True

    return operation


M = Mnemonic
_FAR_LOADS: Final = {
    M.LDS: SEGMENTS[Register.DS],
    M.LES: SEGMENTS[Register.ES],
    M.LFS: SEGMENTS[Register.FS],
    M.LGS: SEGMENTS[Register.GS],
    M.LSS: SEGMENTS[Register.SS],
}
TABLE: Final[dict[int, Compile]] = {
    M.PUSH: push, M.POP: pop, M.PUSHA: pusha, M.PUSHAD: pusha, M.POPA: popa, M.POPAD: popa,
    M.PUSHF: pushf, M.PUSHFD: pushf, M.POPF: popf, M.POPFD: popf, M.ENTER: enter, M.LEAVE: leave,
    **dict.fromkeys(_FAR_LOADS, lds),
}  # fmt: skip
