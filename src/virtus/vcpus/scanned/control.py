"""Jumps, calls and returns, near and far, through gates, to tasks; software interrupts and IRET.

Intel SDM volume 3A, 5.8 (transfers between privilege levels), and the instructions' pages in volume 2.
"""

from collections.abc import Callable
from typing import Final

from iced_x86 import Mnemonic, OpKind

from virtus.vcpus.scanned import delivery, descriptors, faults, stack, task_switch
from virtus.vcpus.scanned.cpu_state import (
    BIG,
    CODE_OR_DATA,
    CS,
    DS,
    ECX,
    EDX,
    ES,
    ESP,
    FLAGS_DEFINED,
    FLAGS_FIXED,
    FS,
    GRANULAR,
    GS,
    IF,
    MASK32,
    NT,
    PRESENT,
    SS,
    VM,
    VM86_SEGMENT,
    ZF,
)
from virtus.vcpus.scanned.cpu_state import OF as OVERFLOW
from virtus.vcpus.scanned.descriptors import (
    BUSY,
    CALL_GATE16,
    CALL_GATE32,
    ERROR_SELECTOR,
    RPL,
    TASK_GATE,
    TSS16,
    TSS32,
    Descriptor,
)
from virtus.vcpus.scanned.execution import Execution
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.integers import condition_of
from virtus.vcpus.scanned.operands import NEAR_BRANCHES, Compile, Operands, Operation, signed

GATE_PARAMETERS: Final = 31
SYSENTER_STACK: Final = 8  # from CS to SS (Intel SDM volume 2B, SYSENTER)
SYSEXIT_CODE, SYSEXIT_STACK = 16, 24
FLAT_CODE: Final = BIG | GRANULAR | PRESENT | CODE_OR_DATA | 0xB
FLAT_STACK: Final = BIG | GRANULAR | PRESENT | CODE_OR_DATA | 0x3
FLAT_DPL3: Final = 0x60


def _target(ops: Operands) -> tuple[int, int]:
    """A near branch's distance from the instruction's start, and the mask of EIP: instructions are decoded at 0."""
    mask = 0xFFFF if ops.instruction.op_kind(0) == OpKind.NEAR_BRANCH16 else MASK32
    return ops.instruction.near_branch_target & MASK32, mask


def jcc(ops: Operands) -> Operation:
    """Jcc."""
    (distance, mask), condition, execution = _target(ops), condition_of(ops), ops.execution
    state = execution.state

    def operation() -> None:
        if condition(state.eflags):
            execution.jump(state.eip + distance & mask)

    return operation


def jcxz(ops: Operands) -> Operation:
    """JCXZ and JECXZ."""
    (distance, mask), execution = _target(ops), ops.execution
    counted = 0xFFFF if ops.address_size == 2 else MASK32
    registers, state = execution.registers, execution.state

    def operation() -> None:
        if not registers[ECX] & counted:
            execution.jump(state.eip + distance & mask)

    return operation


def loop(ops: Operands) -> Operation:
    """LOOP, LOOPE and LOOPNE."""
    (distance, mask), execution = _target(ops), ops.execution
    counted = 0xFFFF if ops.address_size == 2 else MASK32
    registers, state = execution.registers, execution.state
    wanted = {Mnemonic.LOOPE: True, Mnemonic.LOOPNE: False}.get(ops.instruction.mnemonic)

    def operation() -> None:
        left = registers[ECX] - 1 & counted
        if left and (wanted is None or (state.eflags & ZF != 0) == wanted):
            execution.jump(state.eip + distance & mask)
        registers[ECX] = registers[ECX] & ~counted & MASK32 | left

    return operation


def jmp(ops: Operands) -> Operation:
    """JMP, near and far."""
    execution, instruction = ops.execution, ops.instruction
    state, kind = execution.state, instruction.op_kind(0)
    if kind in NEAR_BRANCHES:
        distance, mask = _target(ops)
        return lambda: execution.jump(state.eip + distance & mask)
    if instruction.is_jmp_far or instruction.is_jmp_far_indirect:
        pointer = _far_pointer(ops)
        return lambda: jump_far(execution, *pointer())
    read = ops.reader(0, ops.operand_size)
    return lambda: execution.jump(read())


def call(ops: Operands) -> Operation:
    """CALL, near and far."""
    execution, instruction, size = ops.execution, ops.instruction, ops.operand_size
    state, kind = execution.state, instruction.op_kind(0)
    if instruction.is_call_far or instruction.is_call_far_indirect:
        pointer = _far_pointer(ops)

        def far() -> None:
            selector, offset = pointer()
            call_far(execution, selector, offset, size)

        return far
    if kind in NEAR_BRANCHES:
        distance, mask = _target(ops)

        def relative() -> None:
            back = execution.next_eip
            execution.jump(state.eip + distance & mask)
            execution.push(back, size)

        return relative
    read = ops.reader(0, size)

    def indirect() -> None:
        back = execution.next_eip
        execution.jump(read())
        execution.push(back, size)

    return indirect


def ret(ops: Operands) -> Operation:
    """RET near."""
    execution, size = ops.execution, ops.operand_size
    more = ops.instruction.immediate(0) & 0xFFFF if ops.instruction.op_count else 0

    def operation() -> None:
        execution.jump(execution.peek(0, size))
        execution.drop(size + more)

    return operation


def _far_pointer(ops: Operands) -> Callable[[], tuple[int, int]]:
    """What reads selector and offset."""
    instruction, size = ops.instruction, ops.operand_size
    kind = instruction.op_kind(0)
    if kind in (OpKind.FAR_BRANCH16, OpKind.FAR_BRANCH32):
        fixed = instruction.far_branch16 if kind == OpKind.FAR_BRANCH16 else instruction.far_branch32
        pointer = instruction.far_branch_selector, fixed
        return lambda: pointer
    place, memory = ops.place(size + 2, write=False), ops.execution.memory

    def read() -> tuple[int, int]:
        at = place()
        offset = memory.read(at, size)
        return memory.read(at + size & MASK32, 2), offset

    return read


def _direct_code(execution: Execution, selector: int, target: Descriptor) -> None:
    """Check a code segment that a jump or call names itself."""
    code, level = selector & ERROR_SELECTOR, execution.state.cpl
    if target.is_conforming:
        allowed = target.privilege <= level
    else:
        allowed = selector & RPL <= level and target.privilege == level
    if not allowed:
        raise GuestFault(faults.GP, code)
    if not target.present:
        raise GuestFault(faults.NP, code)


def _indirect_kind(execution: Execution, selector: int, target: Descriptor) -> int:
    """Check the privilege and presence of a gate or TSS; its type."""
    code, kind = selector & ERROR_SELECTOR, target.system_type
    if kind not in (CALL_GATE16, CALL_GATE32, TASK_GATE, TSS16, TSS32, TSS16 | BUSY, TSS32 | BUSY):
        raise GuestFault(faults.GP, code)
    if target.privilege < max(execution.state.cpl, selector & RPL):
        raise GuestFault(faults.GP, code)
    if not target.present:
        raise GuestFault(faults.NP, code)
    return kind


def _gate_code(execution: Execution, gate: Descriptor) -> tuple[int, Descriptor]:
    """The code segment behind a call gate."""
    selector = gate.gate_selector
    if descriptors.is_null(selector):
        raise GuestFault(faults.GP, 0)
    target = descriptors.find(execution, selector)
    if not target.is_code or target.privilege > execution.state.cpl:
        raise GuestFault(faults.GP, selector & ERROR_SELECTOR)
    if not target.present:
        raise GuestFault(faults.NP, selector & ERROR_SELECTOR)
    return selector, target


def _within(target: Descriptor, offset: int) -> None:
    if offset > target.limit:
        raise GuestFault(faults.GP, 0)


def jump_far(execution: Execution, selector: int, offset: int) -> None:
    """JMP to a far address."""
    state = execution.state
    if not state.segmented:
        if offset > execution.segments[CS].limit:
            raise GuestFault(faults.GP, 0)
        descriptors.load_unprotected(execution, CS, selector)
        execution.next_eip = offset
        return
    if descriptors.is_null(selector):
        raise GuestFault(faults.GP, 0)
    target = descriptors.find(execution, selector)
    if target.is_code:
        _direct_code(execution, selector, target)
    else:
        kind = _indirect_kind(execution, selector, target)
        if kind not in (CALL_GATE16, CALL_GATE32):
            _to_task(execution, selector, target, task_switch.Way.JUMP)
            return
        gate = target
        selector, target = _gate_code(execution, gate)
        if not target.is_conforming and target.privilege != state.cpl:
            raise GuestFault(faults.GP, selector & ERROR_SELECTOR)
        offset = gate.gate_offset
    _within(target, offset)
    descriptors.put_code(execution, selector, target, state.cpl)
    execution.next_eip = offset


def _to_task(execution: Execution, selector: int, target: Descriptor, way: task_switch.Way) -> None:
    if target.system_type == TASK_GATE:
        selector = target.gate_selector
    task_switch.switch(execution, selector, way)


def call_far(execution: Execution, selector: int, offset: int, size: int) -> None:
    """CALL to a far address; `size` is that of what is pushed, unless a gate says otherwise."""
    state, segments = execution.state, execution.segments
    back = [segments[CS].selector, execution.next_eip]
    if not state.segmented:
        if offset > segments[CS].limit:
            raise GuestFault(faults.GP, 0)
        delivery.push_on_stack_of(execution, state.cpl, back, size)
        descriptors.load_unprotected(execution, CS, selector)
        execution.next_eip = offset
        return
    if descriptors.is_null(selector):
        raise GuestFault(faults.GP, 0)
    target, privilege = descriptors.find(execution, selector), state.cpl
    if target.is_code:
        _direct_code(execution, selector, target)
    else:
        kind = _indirect_kind(execution, selector, target)
        if kind not in (CALL_GATE16, CALL_GATE32):
            _to_task(execution, selector, target, task_switch.Way.CALL)
            return
        gate, size = target, 4 if kind == CALL_GATE32 else 2
        selector, target = _gate_code(execution, gate)
        offset = gate.gate_offset
        if not target.is_conforming and target.privilege < state.cpl:
            privilege = target.privilege
            count = gate.high & GATE_PARAMETERS
            parameters = [execution.peek(size * index, size) for index in range(count - 1, -1, -1)]
            back = [segments[SS].selector, execution.registers[ESP], *parameters, *back]
    _within(target, offset)
    delivery.push_on_stack_of(execution, privilege, back, size)
    descriptors.put_code(execution, selector, target, privilege)
    execution.next_eip = offset


def retf(ops: Operands) -> Operation:
    """RET far."""
    execution, size = ops.execution, ops.operand_size
    more = ops.instruction.immediate(0) & 0xFFFF if ops.instruction.op_count else 0

    def operation() -> None:
        offset, selector = execution.peek(0, size), execution.peek(size, size) & 0xFFFF
        if execution.state.segmented:
            return_far(execution, selector, offset, size, 2 * size + more, more)
            return
        if offset > execution.segments[CS].limit:
            raise GuestFault(faults.GP, 0)
        descriptors.load_unprotected(execution, CS, selector)
        execution.drop(2 * size + more)
        execution.next_eip = offset

    return operation


def return_far(execution: Execution, selector: int, offset: int, size: int, taken: int, released: int) -> None:
    """To the same or a less privileged level, with `taken` bytes off this stack and `released` off the outer one.

    For the outer level, ESP and SS follow on the stack.
    """
    state, segments = execution.state, execution.segments
    code, privilege = selector & ERROR_SELECTOR, selector & RPL
    if descriptors.is_null(selector):
        raise GuestFault(faults.GP, 0)
    target = descriptors.find(execution, selector)
    allowed = target.privilege <= privilege if target.is_conforming else target.privilege == privilege
    if not target.is_code or privilege < state.cpl or not allowed:
        raise GuestFault(faults.GP, code)
    if not target.present:
        raise GuestFault(faults.NP, code)
    _within(target, offset)
    if privilege == state.cpl:
        execution.drop(taken)
        descriptors.put_code(execution, selector, target, privilege)
    else:
        esp, stack_selector = execution.peek(taken, size), execution.peek(taken + size, size) & 0xFFFF
        outer = descriptors.check_stack(execution, stack_selector, privilege)
        descriptors.put_code(execution, selector, target, privilege)
        descriptors.put(execution, segments[SS], stack_selector, outer)
        mask = state.stack_mask
        execution.registers[ESP] = execution.registers[ESP] & ~mask | esp + released & mask
        descriptors.drop_privileged_segments(execution)
    execution.next_eip = offset


def iret(ops: Operands) -> Operation:
    """IRET."""
    execution, size = ops.execution, ops.operand_size
    return lambda: return_from_interrupt(execution, size)


def return_from_interrupt(execution: Execution, size: int) -> None:
    """IRET of 2 or 4 bytes: in any mode, to any mode."""
    state = execution.state
    if state.segmented and state.eflags & NT:
        task_switch.switch_back(execution)
        return
    stack.demand_flag_privilege(state)
    offset, selector, eflags = (execution.peek(size * index, size) for index in range(3))
    selector &= 0xFFFF
    if not state.segmented:
        if offset > execution.segments[CS].limit:
            raise GuestFault(faults.GP, 0)
        level = 3 if state.eflags & VM else 0
        execution.drop(3 * size)
        descriptors.load_unprotected(execution, CS, selector)
        stack.change_flags(state, eflags, size, privilege=level)
        execution.next_eip = offset
    elif size == 4 and eflags & VM and state.cpl == 0:
        _return_to_v86(execution, offset, selector, eflags)
    else:
        level = state.cpl
        return_far(execution, selector, offset, size, 3 * size, 0)
        stack.change_flags(state, eflags, size, privilege=level)


def _return_to_v86(execution: Execution, offset: int, selector: int, eflags: int) -> None:
    state = execution.state
    esp, *selectors = (execution.peek(4 * index, 4) for index in range(3, 9))
    if offset > 0xFFFF:
        raise GuestFault(faults.GP, 0)
    state.eflags = eflags & FLAGS_DEFINED | FLAGS_FIXED
    state.cpl = 3
    for number, value in zip((CS, SS, ES, DS, FS, GS), (selector, *selectors), strict=True):
        execution.segments[number].load(value & 0xFFFF, (value & 0xFFFF) << 4, 0xFFFF, VM86_SEGMENT)
    execution.registers[ESP] = esp
    execution.next_eip = offset


def _interrupt(execution: Execution, vector: int, *, checked: bool = True) -> None:
    """A software interrupt, returning behind the instruction."""
    if checked:
        stack.demand_flag_privilege(execution.state)
    delivery.deliver(execution, vector, execution.next_eip, software=True)


def int_n(ops: Operands) -> Operation:
    """INT n."""
    execution, vector = ops.execution, ops.instruction.immediate(0) & 0xFF
    return lambda: _interrupt(execution, vector)


def int3(ops: Operands) -> Operation:
    """INT3; not subject to the I/O privilege of virtual-8086 mode."""
    execution = ops.execution
    return lambda: _interrupt(execution, faults.BP, checked=False)


def int1(ops: Operands) -> Operation:
    """INT1: a debug exception, which no gate's privilege stops."""
    execution = ops.execution
    return lambda: delivery.deliver(execution, faults.DB, execution.next_eip)


def into(ops: Operands) -> Operation:
    """INTO."""
    execution = ops.execution

    def operation() -> None:
        if execution.state.eflags & OVERFLOW:
            _interrupt(execution, faults.OF, checked=False)

    return operation


def bound(ops: Operands) -> Operation:
    """BOUND."""
    execution, size = ops.execution, ops.size(0)
    bits, memory = 8 * size, execution.memory
    index, place = ops.reader(0, size), ops.place(2 * size, write=False)

    def operation() -> None:
        at = place()
        lower, upper = signed(memory.read(at, size), bits), signed(memory.read(at + size & MASK32, size), bits)
        if not lower <= signed(index(), bits) <= upper:
            raise GuestFault(faults.BR)

    return operation


def undefined(ops: Operands) -> Operation:
    """UD0, UD1 and UD2."""

    def operation() -> None:
        raise GuestFault(faults.UD)

    return operation


def sysenter(ops: Operands) -> Operation:
    """SYSENTER."""
    execution = ops.execution
    state = execution.state

    def operation() -> None:
        selector = state.sysenter_cs & ~RPL
        if not state.protected or not selector:
            raise GuestFault(faults.GP, 0)
        state.eflags &= ~(VM | IF)
        state.cpl = 0
        execution.segments[CS].load(selector, 0, MASK32, FLAT_CODE)
        execution.segments[SS].load(selector + SYSENTER_STACK, 0, MASK32, FLAT_STACK)
        execution.registers[ESP] = state.sysenter_esp
        execution.next_eip = state.sysenter_eip

    return operation


def sysexit(ops: Operands) -> Operation:
    """SYSEXIT."""
    execution = ops.execution
    state, registers = execution.state, execution.registers

    def operation() -> None:
        selector = state.sysenter_cs & ~RPL
        if not state.protected or not selector or state.cpl:
            raise GuestFault(faults.GP, 0)
        state.cpl = 3
        execution.segments[CS].load(selector + SYSEXIT_CODE | 3, 0, MASK32, FLAT_CODE | FLAT_DPL3)
        execution.segments[SS].load(selector + SYSEXIT_STACK | 3, 0, MASK32, FLAT_STACK | FLAT_DPL3)
        registers[ESP] = registers[ECX]
        execution.next_eip = registers[EDX]

    return operation


M = Mnemonic
TABLE: Final[dict[int, Compile]] = {
    M.JMP: jmp, M.CALL: call, M.RET: ret, M.RETF: retf, M.IRET: iret, M.IRETD: iret,
    M.JCXZ: jcxz, M.JECXZ: jcxz, M.LOOP: loop, M.LOOPE: loop, M.LOOPNE: loop,
    M.INT: int_n, M.INT3: int3, M.INT1: int1, M.INTO: into, M.BOUND: bound,
    M.UD0: undefined, M.UD1: undefined, M.UD2: undefined, M.SYSENTER: sysenter, M.SYSEXIT: sysexit,
    **dict.fromkeys((M.JO, M.JNO, M.JB, M.JAE, M.JE, M.JNE, M.JBE, M.JA), jcc),
    **dict.fromkeys((M.JS, M.JNS, M.JP, M.JNP, M.JL, M.JGE, M.JLE, M.JG), jcc),
}  # fmt: skip
