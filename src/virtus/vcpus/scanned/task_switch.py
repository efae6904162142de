"""Switches between hardware tasks: jumps, calls, interrupts and returns that lead to a task state segment.

Intel SDM volume 3A, 7.3; 16-bit segments are laid out as in 7.6, 32-bit ones as in 7.2.1.
"""

from enum import Enum
from typing import Final

from virtus.vcpus.scanned import descriptors, faults
from virtus.vcpus.scanned.cpu_state import (
    CR0_PG,
    CR0_TS,
    CS,
    DS,
    ES,
    FLAGS_DEFINED,
    FLAGS_FIXED,
    FS,
    GS,
    NT,
    PRESENT,
    SS,
    TYPE,
    VM,
    VM86_SEGMENT,
)
from virtus.vcpus.scanned.descriptors import BUSY, ERROR_SELECTOR, LOCAL, RPL, TSS16, TSS32, Descriptor
from virtus.vcpus.scanned.execution import Execution
from virtus.vcpus.scanned.faults import GuestFault

LEAST_LIMIT16, LEAST_LIMIT32 = 0x2B, 0x67
CR3_AT32: Final = 0x1C
EIP_AT32, EIP_AT16 = 0x20, 0x0E
SELECTORS_AT32, SELECTORS_AT16 = 0x48, 0x22
LDT_AT32, LDT_AT16 = 0x60, 0x2A
ORDER32: Final = (ES, CS, SS, DS, FS, GS)
ORDER16: Final = (ES, CS, SS, DS)


class Way(Enum):
    """What leads to the other task: a call or an interrupt comes back, a return is that."""

    JUMP = "jump"
    CALL = "call"
    RETURN = "return"


def switch(execution: Execution, selector: int, way: Way, *, vector: int = faults.GP) -> int:
    """Enter the task of a TSS; `execution.next_eip` is where the old one will go on. Returns 2 or 4: its word size.

    Raises GuestFault: of `vector` or #NP before anything has changed, of #TS, #NP and #SS inside of the new task.
    """
    state = execution.state
    if selector & LOCAL:
        raise GuestFault(vector, selector & ERROR_SELECTOR)
    target = descriptors.find(execution, selector, vector)
    kind = target.system_type
    expected = (TSS16 | BUSY, TSS32 | BUSY) if way is Way.RETURN else (TSS16, TSS32)
    if kind not in expected:
        raise GuestFault(vector, selector & ERROR_SELECTOR)
    if not target.present:
        raise GuestFault(faults.NP, selector & ERROR_SELECTOR)
    wide = kind & ~BUSY == TSS32
    if target.limit < (LEAST_LIMIT32 if wide else LEAST_LIMIT16):
        raise GuestFault(faults.TS, selector & ERROR_SELECTOR)
    saved = _read(execution, target.base, wide)
    old_selector = state.tr.selector
    _save(execution, leaves_busy=way is Way.CALL, clears_nested=way is Way.RETURN)
    if way is not Way.RETURN:
        busy = descriptors.find(execution, selector)
        execution.memory.write_system(busy.address + 4, 4, busy.high | BUSY << 8)
        if way is Way.CALL:
            execution.memory.write_system(target.base, 2, old_selector)
    state.tr.load(selector, target.base, target.limit, target.attributes | BUSY)
    state.cr0 |= CR0_TS
    _enter(execution, saved, wide, nested=way is Way.CALL)
    return 4 if wide else 2


def switch_back(execution: Execution) -> None:
    """IRET with NT set: to the task that the back link names."""
    link = execution.memory.read_system(execution.state.tr.base, 2)
    switch(execution, link, Way.RETURN, vector=faults.TS)


def _words(wide: bool) -> tuple[int, int, int]:
    return (4, EIP_AT32, SELECTORS_AT32) if wide else (2, EIP_AT16, SELECTORS_AT16)


def _read(execution: Execution, base: int, wide: bool) -> tuple[list[int], list[int], int, int]:
    """EIP, EFLAGS and the eight registers; selectors; the LDT's; CR3."""
    read = execution.memory.read_system
    size, at, selectors_at = _words(wide)
    values = [read(base + at + size * index, size) for index in range(10)]
    selectors = [read(base + selectors_at + size * index, 2) for index in range(6 if wide else 4)]
    return values, selectors, read(base + (LDT_AT32 if wide else LDT_AT16), 2), read(base + CR3_AT32, 4) if wide else 0


def _save(execution: Execution, *, leaves_busy: bool, clears_nested: bool) -> None:
    """Store the old task, and free its descriptor unless it is to be returned to."""
    state, write = execution.state, execution.memory.write_system
    wide = state.tr.attributes & TYPE & ~BUSY == TSS32
    size, at, selectors_at = _words(wide)
    mask = (1 << 8 * size) - 1
    eflags = state.eflags & ~NT if clears_nested else state.eflags
    for index, value in enumerate((execution.next_eip, eflags, *state.registers)):
        write(state.tr.base + at + size * index, size, value & mask)
    for index, number in enumerate(ORDER32 if wide else ORDER16):
        write(state.tr.base + selectors_at + size * index, 2, execution.segments[number].selector)
    if not leaves_busy:
        old = descriptors.find(execution, state.tr.selector, faults.TS)
        write(old.address + 4, 4, old.high & ~(BUSY << 8))


def _enter(execution: Execution, saved: tuple[list[int], list[int], int, int], wide: bool, *, nested: bool) -> None:
    """Load the new task: first all that cannot fail, then what its own faults tell of."""
    state, segments = execution.state, execution.segments
    values, selectors, local, cr3 = saved
    if wide and state.cr0 & CR0_PG:
        state.cr3 = cr3
        execution.memory.flush()
    if wide:
        state.registers[:] = values[2:]
    else:
        state.registers[:] = [old & 0xFFFF_0000 | new for old, new in zip(state.registers, values[2:], strict=True)]
    state.eip = execution.next_eip = values[0]
    kept = state.eflags & 0xFFFF_0000 if not wide else 0
    state.eflags = (kept | values[1]) & FLAGS_DEFINED | FLAGS_FIXED | (NT if nested else 0)
    order = ORDER32 if wide else ORDER16
    for number, selector in zip(order, selectors, strict=True):
        segments[number].clear(selector)
    if not wide:
        segments[FS].clear()
        segments[GS].clear()
    state.ldtr.clear(local)
    if state.eflags & VM:
        state.cpl = 3
        for number, selector in zip(order, selectors, strict=True):
            segments[number].load(selector, selector << 4, 0xFFFF, VM86_SEGMENT)
        _load_ldt(execution, local)
        return
    state.cpl = selectors[CS] & RPL
    _load_ldt(execution, local)
    _load_code(execution, selectors[CS])
    stack = descriptors.check_stack(execution, selectors[SS], state.cpl, faults.TS)
    descriptors.put(execution, segments[SS], selectors[SS], stack)
    for number, selector in zip(order, selectors, strict=True):
        if number not in (CS, SS) and not descriptors.is_null(selector):
            descriptors.put(
                execution, segments[number], selector, descriptors.check_data(execution, selector, faults.TS)
            )


def _load_ldt(execution: Execution, selector: int) -> None:
    if descriptors.is_null(selector):
        return
    found: Descriptor | None = None if selector & LOCAL else descriptors.find(execution, selector, faults.TS)
    if found is None or found.system_type != descriptors.LDT or not found.attributes & PRESENT:
        raise GuestFault(faults.TS, selector & ERROR_SELECTOR)
    execution.state.ldtr.load(selector, found.base, found.limit, found.attributes)


def _load_code(execution: Execution, selector: int) -> None:
    code = selector & ERROR_SELECTOR
    if descriptors.is_null(selector):
        raise GuestFault(faults.TS, 0)
    found = descriptors.find(execution, selector, faults.TS)
    privilege = selector & RPL
    allowed = found.privilege <= privilege if found.is_conforming else found.privilege == privilege
    if not found.is_code or not allowed:
        raise GuestFault(faults.TS, code)
    if not found.present:
        raise GuestFault(faults.NP, code)
    descriptors.put_code(execution, selector, found, privilege)
