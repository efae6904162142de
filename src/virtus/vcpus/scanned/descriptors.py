"""Segment descriptors, and loading segment registers from them (Intel SDM volume 3A, 3.4 and 5.4 to 5.6)."""

from functools import lru_cache
from typing import Final

from virtus.vcpus.scanned import faults
from virtus.vcpus.scanned.cpu_state import (
    ACCESSED,
    ATTRIBUTES,
    CODE,
    CODE_OR_DATA,
    CS,
    DOWN_OR_CONFORMING,
    DPL,
    DPL_SHIFT,
    DS,
    ES,
    FS,
    GRANULAR,
    GS,
    MASK32,
    PRESENT,
    SS,
    TYPE,
    VM,
    VM86_SEGMENT,
    WRITABLE_OR_READABLE,
    Segment,
)
from virtus.vcpus.scanned.execution import Execution
from virtus.vcpus.scanned.faults import GuestFault

RPL, LOCAL, INDEX = 3, 4, 0xFFF8
ERROR_SELECTOR: Final = 0xFFFC  # what of a selector goes into an error code

# types of system descriptors (Intel SDM volume 3A, table 3-2)
TSS16, LDT, TSS16_BUSY, CALL_GATE16, TASK_GATE, INTERRUPT_GATE16, TRAP_GATE16 = 1, 2, 3, 4, 5, 6, 7
TSS32, TSS32_BUSY, CALL_GATE32, INTERRUPT_GATE32, TRAP_GATE32 = 9, 0xB, 0xC, 0xE, 0xF
BUSY: Final = 2


class Descriptor:
    """Eight bytes of a descriptor table, taken apart, and where they are. Use `descriptor`, which keeps them."""

    __slots__ = (
        "address",
        "attributes",
        "base",
        "gate_offset",
        "gate_selector",
        "high",
        "is_accessible",
        "is_code",
        "is_conforming",
        "is_data",
        "limit",
        "present",
        "privilege",
        "system_type",
    )

    def __init__(self, low: int, high: int, address: int) -> None:
        self.high, self.address = high, address
        self.base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF00_0000
        limit = low & 0xFFFF | high & 0xF_0000
        self.limit = limit << 12 | 0xFFF if high & GRANULAR << 8 else limit
        """The offset of the segment's last byte."""
        attributes = self.attributes = high >> 8 & ATTRIBUTES
        """As in Segment."""
        self.privilege = (attributes & DPL) >> DPL_SHIFT
        self.present = attributes & PRESENT != 0
        self.is_code = attributes & (CODE_OR_DATA | CODE) == CODE_OR_DATA | CODE
        self.is_data = attributes & (CODE_OR_DATA | CODE) == CODE_OR_DATA
        self.is_conforming = attributes & DOWN_OR_CONFORMING != 0
        """Of a code segment: whether less privileged code may jump to it, and stays so."""
        self.is_accessible = attributes & WRITABLE_OR_READABLE != 0
        """Of code or data: readable code or writable data."""
        self.system_type = -1 if attributes & CODE_OR_DATA else attributes & TYPE
        """The type of a system descriptor; -1 of code and data."""
        self.gate_selector = low >> 16
        self.gate_offset = low & 0xFFFF | (high & 0xFFFF_0000 if self.system_type & 8 else 0)
        """Where a gate leads in that segment; 16 bits of a 16-bit gate."""


descriptor = lru_cache(maxsize=1024)(Descriptor)
"""A Descriptor of its lower and upper half and its address."""


def is_null(selector: int) -> bool:
    """Whether a selector names no segment."""
    return selector & ERROR_SELECTOR == 0


def find(execution: Execution, selector: int, vector: int = faults.GP) -> Descriptor:
    """A selector's descriptor; beyond the table's end raises GuestFault(vector, selector)."""
    state = execution.state
    table = state.ldtr if selector & LOCAL else state.gdtr
    index = selector & INDEX
    usable = not selector & LOCAL or state.ldtr.attributes & PRESENT
    if not usable or index + 7 > table.limit:
        raise GuestFault(vector, selector & ERROR_SELECTOR)
    address = table.base + index & MASK32
    both = execution.memory.read_system(address, 8)
    return descriptor(both & MASK32, both >> 32, address)


def mark_accessed(execution: Execution, found: Descriptor) -> None:
    """Set the accessed bit in the table, where it is not."""
    if not found.attributes & ACCESSED:
        execution.memory.write_system(found.address + 4, 4, found.high | ACCESSED << 8)


def put(execution: Execution, segment: Segment, selector: int, found: Descriptor) -> None:
    """Load a segment register from a descriptor that was checked, and mark it accessed."""
    mark_accessed(execution, found)
    segment.load(selector, found.base, found.limit, found.attributes | ACCESSED)


def load_unprotected(execution: Execution, number: int, selector: int) -> None:
    """In real mode the base alone changes; in virtual-8086 mode all is as that mode has it."""
    segment = execution.segments[number]
    if execution.state.eflags & VM:
        segment.load(selector, selector << 4, 0xFFFF, VM86_SEGMENT)
    else:
        segment.load(selector, selector << 4, segment.limit, segment.attributes)


def check_stack(execution: Execution, selector: int, privilege: int, vector: int = faults.GP) -> Descriptor:
    """The descriptor of a stack for a privilege level; raises GuestFault(vector) or #SS."""
    code = selector & ERROR_SELECTOR
    if is_null(selector):
        raise GuestFault(vector, 0)
    found = find(execution, selector, vector)
    fits = found.is_data and found.is_accessible
    if not fits or selector & RPL != privilege or found.privilege != privilege:
        raise GuestFault(vector, code)
    if not found.present:
        raise GuestFault(faults.SS, code)
    return found


def check_data(execution: Execution, selector: int, vector: int = faults.GP) -> Descriptor:
    """The descriptor for DS, ES, FS or GS; raises GuestFault(vector) or #NP."""
    code = selector & ERROR_SELECTOR
    found = find(execution, selector, vector)
    if not found.is_data and not (found.is_code and found.is_accessible):
        raise GuestFault(vector, code)
    conforming = found.is_code and found.is_conforming
    if not conforming and found.privilege < max(selector & RPL, execution.state.cpl):
        raise GuestFault(vector, code)
    if not found.present:
        raise GuestFault(faults.NP, code)
    return found


def load(execution: Execution, number: int, selector: int) -> None:
    """Load any segment register but CS, as MOV and POP do."""
    state, segment = execution.state, execution.segments[number]
    if not state.segmented:
        load_unprotected(execution, number, selector)
    elif number == SS:
        put(execution, segment, selector, check_stack(execution, selector, state.cpl))
    elif is_null(selector):
        segment.clear(selector)
    else:
        put(execution, segment, selector, check_data(execution, selector))


def put_code(execution: Execution, selector: int, found: Descriptor, privilege: int) -> None:
    """Load CS from a descriptor that was checked, and with it the privilege level."""
    put(execution, execution.segments[CS], selector & ~RPL | privilege, found)
    execution.state.cpl = privilege


def drop_privileged_segments(execution: Execution) -> None:
    """After a return to less privilege: data segments that it may not use become null."""
    privilege = execution.state.cpl
    for number in (ES, DS, FS, GS):
        segment = execution.segments[number]
        conforming = segment.attributes & (CODE | DOWN_OR_CONFORMING) == CODE | DOWN_OR_CONFORMING
        if segment.attributes and not conforming and (segment.attributes & DPL) >> DPL_SHIFT < privilege:
            segment.clear()
