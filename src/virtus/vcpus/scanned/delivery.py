"""Exceptions and interrupts: how the processor enters their handlers (Intel SDM volume 3A, chapter 6, and 3B, 20.3)."""

from typing import Final

from virtus.vcpus.scanned import descriptors, faults, task_switch
from virtus.vcpus.scanned.cpu_state import (
    AC,
    CS,
    DS,
    ES,
    ESP,
    FS,
    GS,
    IF,
    MASK32,
    NT,
    RF,
    SS,
    TF,
    TYPE,
    VM,
)
from virtus.vcpus.scanned.descriptors import (
    BUSY,
    ERROR_SELECTOR,
    INTERRUPT_GATE16,
    INTERRUPT_GATE32,
    TASK_GATE,
    TRAP_GATE16,
    TRAP_GATE32,
    TSS32,
    Descriptor,
)
from virtus.vcpus.scanned.execution import Execution
from virtus.vcpus.scanned.faults import GuestFault, TripleFault

EXTERNAL, IN_IDT = 1, 2  # bits of error codes that tell of selectors (Intel SDM volume 3A, 6.13)
REAL_MODE_VECTOR_SIZE: Final = 4
CONTRIBUTORY: Final = frozenset({faults.DE, faults.TS, faults.NP, faults.SS, faults.GP})
BENIGN_IN_DOUBLE: Final = frozenset({faults.PF})
GATES: Final = (TASK_GATE, INTERRUPT_GATE16, TRAP_GATE16, INTERRUPT_GATE32, TRAP_GATE32)


def deliver_fault(execution: Execution, fault: GuestFault) -> None:
    """Enter the handler of an exception; what goes wrong on the way becomes a double fault (table 6-5).

    The instruction that faulted is at `state.eip`. Raises TripleFault.
    """
    state = execution.state
    while True:
        if fault.vector == faults.PF and fault.address is not None:
            state.cr2 = fault.address
        try:
            deliver(execution, fault.vector, state.eip, fault.error_code)
        except GuestFault as second:
            if fault.vector == faults.DF:
                raise TripleFault from second
            fault = _combined(fault, second)
        else:
            return


def _combined(first: GuestFault, second: GuestFault) -> GuestFault:
    contributory = second.vector in CONTRIBUTORY
    if (first.vector in CONTRIBUTORY and contributory) or (
        first.vector == faults.PF and (contributory or second.vector == faults.PF)
    ):
        return GuestFault(faults.DF, 0)
    return second


def deliver_interrupt(execution: Execution, vector: int) -> None:
    """Enter the handler of an interrupt from outside. Raises TripleFault."""
    state = execution.state
    state.halted = False
    try:
        deliver(execution, vector, state.eip)
    except GuestFault as fault:
        deliver_fault(execution, fault)


def deliver(
    execution: Execution, vector: int, return_eip: int, error_code: int | None = None, *, software: bool = False
) -> None:
    """Enter a handler, which will return to `return_eip`; sets `state.eip`. Raises GuestFault with nothing changed.

    `software` is INT n, INT3 and INTO: its gate's privilege counts.
    """
    state = execution.state
    if not state.protected:
        _deliver_real(execution, vector, return_eip)
    else:
        try:
            _deliver_protected(execution, vector, return_eip, error_code, software)
        except GuestFault as fault:
            if software or fault.vector == faults.PF or fault.error_code is None:
                raise
            raise GuestFault(fault.vector, fault.error_code | EXTERNAL) from fault
    execution.delivered = True
    state.eip = execution.next_eip
    state.interrupt_shadow = False


def _deliver_real(execution: Execution, vector: int, return_eip: int) -> None:
    """Through the table of far addresses; there are no error codes (volume 3B, 20.1.4)."""
    state = execution.state
    at = vector * REAL_MODE_VECTOR_SIZE
    if at + 3 > state.idtr.limit:
        raise GuestFault(faults.GP, 0)
    address = execution.memory.read_system(state.idtr.base + at, 4)
    before = state.registers[ESP]
    try:
        for value in (state.eflags, execution.segments[CS].selector, return_eip):
            execution.push(value & 0xFFFF, 2)
    except GuestFault:
        state.registers[ESP] = before
        raise
    state.eflags &= ~(IF | TF | AC)
    descriptors.load_unprotected(execution, CS, address >> 16)
    execution.next_eip = address & 0xFFFF


def _gate(execution: Execution, vector: int, software: bool) -> Descriptor:
    state, code = execution.state, vector * 8 | IN_IDT
    if vector * 8 + 7 > state.idtr.limit:
        raise GuestFault(faults.GP, code)
    address = state.idtr.base + vector * 8 & MASK32
    both = execution.memory.read_system(address, 8)
    gate = descriptors.descriptor(both & MASK32, both >> 32, address)
    if gate.system_type not in GATES or (software and gate.privilege < state.cpl):
        raise GuestFault(faults.GP, code)
    if not gate.present:
        raise GuestFault(faults.NP, code)
    return gate


def _deliver_protected(
    execution: Execution, vector: int, return_eip: int, error_code: int | None, software: bool
) -> None:
    gate = _gate(execution, vector, software)
    if gate.system_type == TASK_GATE:
        execution.next_eip = return_eip
        size = task_switch.switch(execution, gate.gate_selector, task_switch.Way.CALL, vector=faults.TS)
        if error_code is not None:
            execution.push(error_code, size)
        return
    state, segments = execution.state, execution.segments
    selector = gate.gate_selector
    code = selector & ERROR_SELECTOR
    if descriptors.is_null(selector):
        raise GuestFault(faults.GP, 0)
    target = descriptors.find(execution, selector)
    if not target.is_code or target.privilege > state.cpl:
        raise GuestFault(faults.GP, code)
    if not target.present:
        raise GuestFault(faults.NP, code)
    privilege = state.cpl if target.is_conforming else target.privilege
    from_v86 = state.virtual_8086
    if from_v86 and privilege:
        raise GuestFault(faults.GP, code)
    size = 4 if gate.system_type & 8 else 2
    if gate.gate_offset > target.limit:
        raise GuestFault(faults.GP, 0)
    frame = [state.eflags, segments[CS].selector, return_eip]
    if privilege != state.cpl:
        frame = [segments[SS].selector, state.registers[ESP], *frame]
    if from_v86:
        frame = [segments[number].selector for number in (GS, FS, DS, ES)] + frame
    if error_code is not None:
        frame.append(error_code)
    push_on_stack_of(execution, privilege, frame, size)
    if from_v86:
        for number in (GS, FS, DS, ES):
            segments[number].clear()
    state.eflags &= ~(TF | VM | RF | NT)
    if gate.system_type in (INTERRUPT_GATE16, INTERRUPT_GATE32):
        state.eflags &= ~IF
    descriptors.put_code(execution, selector, target, privilege)
    execution.next_eip = gate.gate_offset


def push_on_stack_of(execution: Execution, privilege: int, frame: list[int], size: int) -> None:
    """Push values, of a more privileged level onto the stack that the TSS names for it; raises #TS, #SS, #PF.

    A fault leaves the old stack, and the privilege level, as they were.
    """
    state, stack = execution.state, execution.segments[SS]
    before = state.registers[ESP], state.cpl, state.eflags, stack.values()
    try:
        if privilege != state.cpl:
            selector, esp = stack_of(execution, privilege)
            descriptor = descriptors.check_stack(execution, selector, privilege, faults.TS)
            state.eflags &= ~VM  # the new stack is addressed as in protected mode
            state.cpl = privilege
            descriptors.put(execution, stack, selector, descriptor)
            state.registers[ESP] = esp
        for value in frame:
            execution.push(value, size)
    except GuestFault:
        state.registers[ESP], state.cpl, state.eflags = before[:3]
        stack.load(*before[3])
        raise


def stack_of(execution: Execution, privilege: int) -> tuple[int, int]:
    """SS and ESP that the TSS has for a privilege level below 3; raises #TS."""
    task = execution.state.tr
    read = execution.memory.read_system
    if task.attributes & TYPE & ~BUSY == TSS32:
        at, size = 4 + 8 * privilege, 4
    else:
        at, size = 2 + 4 * privilege, 2
    if at + size + 1 > task.limit:
        raise GuestFault(faults.TS, task.selector & ERROR_SELECTOR)
    return read(task.base + at + size, 2), read(task.base + at, size)
