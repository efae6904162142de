"""Segment descriptors, and loading segment registers from them (Intel SDM volume 3A, 3.4 and 5.4 to 5.6)."""

from typing import Final, NamedTuple

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


class Descriptor(NamedTuple):
    """Eight bytes of a descriptor table, and where they are."""

    low: int
    high: int
    address: int

    @property
    def base(self) -> int:
        """The segment's linear base."""
        return self.low >> 16 | (self.high & 0xFF) << 16 | self.high & 0xFF00_0000

    @property
    def limit(self) -> int:
        """The offset of the segment's last byte."""
        limit = self.low & 0xFFFF | self.high & 0xF_0000
        return limit << 12 | 0xFFF if self.high & GRANULAR << 8 else limit

    @property
    def attributes(self) -> int:
        """As in Segment."""
        return self.high >> 8 & ATTRIBUTES

    @property
    def privilege(self) -> int:
        """DPL."""
        return self.high >> 8 + DPL_SHIFT & 3

    @property
    def present(self) -> bool:
        """P."""
        return self.high & PRESENT << 8 != 0

    @property
    def is_code(self) -> bool:
        """A code segment."""
        return self.attributes & (CODE_OR_DATA | CODE) == CODE_OR_DATA | CODE

    @property
    def is_data(self) -> bool:
        """A data segment."""
        return self.attributes & (CODE_OR_DATA | CODE) == CODE_OR_DATA

    @property
    def is_conforming(self) -> bool:
        """Of a code segment: whether less privileged code may jump to it, and stays so."""
        return self.attributes & DOWN_OR_CONFORMING != 0

    @property
    def is_accessible(self) -> bool:
        """Of code or data: readable code or writable data."""
        return self.attributes & WRITABLE_OR_READABLE != 0

    @property
    def system_type(self) -> int:
        """The type of a system descriptor; -1 of code and data."""
        return -1 if self.attributes & CODE_OR_DATA else self.attributes & TYPE

    @property
    def gate_selector(self) -> int:
        """Where a gate leads."""
        return self.low >> 16

    @property
    def gate_offset(self) -> int:
        """Where in that segment; 16 bits of a 16-bit gate."""
        wide = self.system_type & 8
        return self.low & 0xFFFF | (self.high & 0xFFFF_0000 if wide else 0)


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
    read = execution.memory.read_system
    return Descriptor(read(address, 4), read(address + 4, 4), address)


def mark_accessed(execution: Execution, descriptor: Descriptor) -> None:
    """Set the accessed bit in the table, where it is not."""
    if not descriptor.attributes & ACCESSED:
        execution.memory.write_system(descriptor.address + 4, 4, descriptor.high | ACCESSED << 8)


def put(execution: Execution, segment: Segment, selector: int, descriptor: Descriptor) -> None:
    """Load a segment register from a descriptor that was checked, and mark it accessed."""
    mark_accessed(execution, descriptor)
    segment.load(selector, descriptor.base, descriptor.limit, descriptor.attributes | ACCESSED)


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
    descriptor = find(execution, selector, vector)
    fits = descriptor.is_data and descriptor.is_accessible
    if not fits or selector & RPL != privilege or descriptor.privilege != privilege:
        raise GuestFault(vector, code)
    if not descriptor.present:
        raise GuestFault(faults.SS, code)
    return descriptor


def check_data(execution: Execution, selector: int, vector: int = faults.GP) -> Descriptor:
    """The descriptor for DS, ES, FS or GS; raises GuestFault(vector) or #NP."""
    code = selector & ERROR_SELECTOR
    descriptor = find(execution, selector, vector)
    if not descriptor.is_data and not (descriptor.is_code and descriptor.is_accessible):
        raise GuestFault(vector, code)
    conforming = descriptor.is_code and descriptor.is_conforming
    if not conforming and descriptor.privilege < max(selector & RPL, execution.state.cpl):
        raise GuestFault(vector, code)
    if not descriptor.present:
        raise GuestFault(faults.NP, code)
    return descriptor


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


def put_code(execution: Execution, selector: int, descriptor: Descriptor, privilege: int) -> None:
    """Load CS from a descriptor that was checked, and with it the privilege level."""
    put(execution, execution.segments[CS], selector & ~RPL | privilege, descriptor)
    execution.state.cpl = privilege


def drop_privileged_segments(execution: Execution) -> None:
    """After a return to less privilege: data segments that it may not use become null."""
    privilege = execution.state.cpl
    for number in (ES, DS, FS, GS):
        segment = execution.segments[number]
        conforming = segment.attributes & (CODE | DOWN_OR_CONFORMING) == CODE | DOWN_OR_CONFORMING
        if segment.attributes and not conforming and (segment.attributes & DPL) >> DPL_SHIFT < privilege:
            segment.clear()
