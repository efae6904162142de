"""Instructions on descriptor tables and selectors: loading, storing and examining them.

Intel SDM volume 3A, 2.4, 5.10 and 7.2; the instructions' pages in volume 2.
"""

from collections.abc import Callable
from typing import Final

from iced_x86 import Mnemonic

from virtus.vcpus.scanned import descriptors, faults
from virtus.vcpus.scanned.cpu_state import MASK32, ZF
from virtus.vcpus.scanned.descriptors import (
    BUSY,
    CALL_GATE16,
    CALL_GATE32,
    ERROR_SELECTOR,
    LDT,
    LOCAL,
    RPL,
    TASK_GATE,
    TSS16,
    TSS32,
    Descriptor,
)
from virtus.vcpus.scanned.execution import Execution
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.operands import Compile, Operands, Operation


def _load_table(ops: Operands, name: str) -> Operation:
    """LGDT and LIDT: 16-bit operands carry 24 bits of base."""
    execution, place = ops.execution, ops.place(6, write=False)
    table = getattr(execution.state, name)
    mask = MASK32 if ops.operand_size == 4 else 0xFF_FFFF

    def operation() -> None:
        execution.demand_privilege()
        at = place()
        limit = execution.memory.read(at, 2)
        table.base = execution.memory.read(at + 2 & MASK32, 4) & mask
        table.limit = limit

    return operation


def _store_table(ops: Operands, name: str) -> Operation:
    """SGDT and SIDT: all 32 bits of the base, as processors since the 386 do."""
    execution, place = ops.execution, ops.place(6, write=True)
    table = getattr(execution.state, name)

    def operation() -> None:
        at = place()
        execution.memory.check_write(at, 6)
        execution.memory.write(at, 2, table.limit)
        execution.memory.write(at + 2 & MASK32, 4, table.base)

    return operation


def _demand_descriptors(execution: Execution) -> None:
    """#UD in modes without descriptors."""
    if not execution.state.segmented:
        raise GuestFault(faults.UD)


def lldt(ops: Operands) -> Operation:
    """LLDT."""
    execution, read = ops.execution, ops.reader(0, 2)

    def operation() -> None:
        _demand_descriptors(execution)
        execution.demand_privilege()
        selector = read() & 0xFFFF
        if descriptors.is_null(selector):
            execution.state.ldtr.clear(selector)
            return
        found = _system_descriptor(execution, selector)
        if found.system_type != LDT:
            raise GuestFault(faults.GP, selector & ERROR_SELECTOR)
        if not found.present:
            raise GuestFault(faults.NP, selector & ERROR_SELECTOR)
        execution.state.ldtr.load(selector, found.base, found.limit, found.attributes)

    return operation


def ltr(ops: Operands) -> Operation:
    """LTR: the task's descriptor becomes busy."""
    execution, read = ops.execution, ops.reader(0, 2)

    def operation() -> None:
        _demand_descriptors(execution)
        execution.demand_privilege()
        selector = read() & 0xFFFF
        if descriptors.is_null(selector):
            raise GuestFault(faults.GP, 0)
        found = _system_descriptor(execution, selector)
        if found.system_type not in (TSS16, TSS32):
            raise GuestFault(faults.GP, selector & ERROR_SELECTOR)
        if not found.present:
            raise GuestFault(faults.NP, selector & ERROR_SELECTOR)
        execution.memory.write_system(found.address + 4, 4, found.high | BUSY << 8)
        execution.state.tr.load(selector, found.base, found.limit, found.attributes | BUSY)

    return operation


def _system_descriptor(execution: Execution, selector: int) -> Descriptor:
    """A descriptor that must be in the global table."""
    if selector & LOCAL:
        raise GuestFault(faults.GP, selector & ERROR_SELECTOR)
    return descriptors.find(execution, selector)


def _store_selector(ops: Operands, name: str) -> Operation:
    """SLDT and STR."""
    execution, write = ops.execution, ops.writer(0, 2 if ops.is_memory(0) else ops.size(0))
    register = getattr(execution.state, name)

    def operation() -> None:
        _demand_descriptors(execution)
        write(register.selector)

    return operation


def _examined(execution: Execution, selector: int) -> Descriptor | None:
    """The descriptor that LAR, LSL, VERR and VERW look at, where there is one."""
    _demand_descriptors(execution)
    if descriptors.is_null(selector):
        return None
    try:
        return descriptors.find(execution, selector)
    except GuestFault as fault:
        if fault.vector == faults.GP:
            return None
        raise


def _visible(execution: Execution, selector: int, found: Descriptor) -> bool:
    """Whether the privilege suffices to see a descriptor."""
    if found.is_code and found.is_conforming:
        return True
    return found.privilege >= max(execution.state.cpl, selector & RPL)


LAR_TYPES: Final = frozenset({-1, TSS16, LDT, TSS16 | BUSY, CALL_GATE16, TASK_GATE, TSS32, TSS32 | BUSY, CALL_GATE32})
LSL_TYPES: Final = frozenset({-1, TSS16, LDT, TSS16 | BUSY, TSS32, TSS32 | BUSY})
LAR_BITS: Final = 0x00F0_FF00


def _look_up(ops: Operands, types: frozenset[int], value_of: Callable[[Descriptor], int]) -> Operation:
    execution, size = ops.execution, ops.size(0)
    read, write, mask = ops.reader(1, 2), ops.writer(0, size), (1 << 8 * size) - 1
    state = execution.state

    def operation() -> None:
        selector = read() & 0xFFFF
        found = _examined(execution, selector)
        if found is None or found.system_type not in types or not _visible(execution, selector, found):
            state.eflags &= ~ZF
        else:
            write(value_of(found) & mask)
            state.eflags |= ZF

    return operation


def lar(ops: Operands) -> Operation:
    """LAR."""
    return _look_up(ops, LAR_TYPES, lambda found: found.high & LAR_BITS)


def lsl(ops: Operands) -> Operation:
    """LSL."""
    return _look_up(ops, LSL_TYPES, lambda found: found.limit)


def _verify(ops: Operands, accessible: Callable[[Descriptor], bool]) -> Operation:
    execution, read = ops.execution, ops.reader(0, 2)
    state = execution.state

    def operation() -> None:
        selector = read() & 0xFFFF
        found = _examined(execution, selector)
        fits = found is not None and accessible(found) and _visible(execution, selector, found)
        state.eflags = state.eflags & ~ZF | (ZF if fits else 0)

    return operation


def verr(ops: Operands) -> Operation:
    """VERR."""
    return _verify(ops, lambda found: found.is_data or (found.is_code and found.is_accessible))


def verw(ops: Operands) -> Operation:
    """VERW."""
    return _verify(ops, lambda found: found.is_data and found.is_accessible)


def arpl(ops: Operands) -> Operation:
    """ARPL."""
    execution, (load, store), read = ops.execution, ops.changer(0, 2), ops.reader(1, 2)
    state = execution.state

    def operation() -> None:
        _demand_descriptors(execution)
        level, selector = read() & RPL, load()
        if selector & RPL < level:
            store(selector & ~RPL | level)
            state.eflags |= ZF
        else:
            state.eflags &= ~ZF

    return operation


M = Mnemonic
TABLE: Final[dict[int, Compile]] = {
    M.LGDT: lambda ops: _load_table(ops, "gdtr"), M.LIDT: lambda ops: _load_table(ops, "idtr"),
    M.SGDT: lambda ops: _store_table(ops, "gdtr"), M.SIDT: lambda ops: _store_table(ops, "idtr"),
    M.LLDT: lldt, M.LTR: ltr,
    M.SLDT: lambda ops: _store_selector(ops, "ldtr"), M.STR: lambda ops: _store_selector(ops, "tr"),
    M.LAR: lar, M.LSL: lsl, M.VERR: verr, M.VERW: verw, M.ARPL: arpl,
}  # fmt: skip
