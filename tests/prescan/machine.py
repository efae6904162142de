"""A processor over a little memory, for tests: flat segments, its state, evaluator and memory."""

from virtus.memory.guest_memory import GuestMemory
from virtus.vcpus.scanned import delivery
from virtus.vcpus.scanned.cpu_state import CR0_PE, CS, DPL, DPL_SHIFT, ESP, MASK32, CpuState
from virtus.vcpus.scanned.evaluator import Evaluator
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.memory_access import PagedMemory, PhysicalSpace

CODE_AT, DATA_AT, STACK_TOP = 0x1000, 0x4000, 0x8000
GDT_AT, IDT_AT, TSS_AT, LDT_AT = 0x9000, 0xA000, 0xB000, 0xC000
FLAT_CODE, FLAT_DATA = 0xC09B, 0xC093
CODE16, DATA16 = 0x009B, 0x0093
KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA, TASK = 0x08, 0x10, 0x1B, 0x23, 0x28


class Ports:
    """Ports that remember what was written, and answer reads from a list."""

    def __init__(self) -> None:
        self.written: list[tuple[int, int, int]] = []
        self.answers: list[int] = []

    def read(self, address: int, size: int) -> int:
        return self.answers.pop(0) if self.answers else 0xFF

    def write(self, address: int, size: int, value: int) -> None:
        self.written.append((address, size, value))


class Machine:
    """256 KiB of memory, protected mode without paging; `bits` is the size of code, data and stack."""

    def __init__(self, bits: int = 32, size: int = 1 << 18) -> None:
        self.ram = GuestMemory(size, "test")
        self.space = PhysicalSpace(self.ram)
        self.state = CpuState()
        self.ports, self.devices = Ports(), Ports()
        self.memory = PagedMemory(self.state, self.space, self.devices)
        self.evaluator = Evaluator(self.state, self.memory, self.ports)
        self.state.cr0 |= CR0_PE
        code, data = (FLAT_CODE, FLAT_DATA) if bits == 32 else (CODE16, DATA16)
        limit = MASK32 if bits == 32 else 0xFFFF
        for number, segment in enumerate(self.state.segments):
            selector = KERNEL_CODE if number == CS else KERNEL_DATA
            segment.load(selector, 0, limit, code if number == CS else data)
        self.state.registers[ESP] = STACK_TOP
        self.state.eip = CODE_AT

    def load(self, code: bytes, at: int = CODE_AT) -> None:
        self.ram.bytes[at : at + len(code)] = code

    def word(self, at: int, size: int = 4) -> int:
        return int.from_bytes(self.ram.bytes[at : at + size], "little")

    def set_word(self, at: int, value: int, size: int = 4) -> None:
        self.ram.bytes[at : at + size] = value.to_bytes(size, "little")

    def run(self, code: bytes, steps: int = 1) -> None:
        """Evaluate so many instructions of code at CODE_AT; faults come out."""
        self.load(code)
        self.memory.forget()
        for _ in range(steps):
            self.evaluator.step()

    def step(self) -> None:
        """Evaluate one instruction, and deliver its fault as the processor does."""
        try:
            self.evaluator.step()
        except GuestFault as fault:
            delivery.deliver_fault(self.evaluator.execution, fault)

    def describe_segment(self, selector: int, base: int, limit: int, attributes: int, table: int = GDT_AT) -> None:
        """Write a descriptor; `limit` counts pages where the attributes say so."""
        at = table + (selector & 0xFFF8)
        self.set_word(at, limit & 0xFFFF | (base & 0xFFFF) << 16)
        high = base >> 16 & 0xFF | (attributes & 0xF0FF) << 8 | limit & 0xF0000 | base & 0xFF000000
        self.set_word(at + 4, high)

    def gate(self, vector: int, kind: int, selector: int, offset: int, privilege: int = 0) -> None:
        """Write a gate of the IDT."""
        at = IDT_AT + 8 * vector
        self.set_word(at, offset & 0xFFFF | selector << 16)
        self.set_word(at + 4, (0x80 | privilege << DPL_SHIFT | kind) << 8 | offset & 0xFFFF0000)

    def with_tables(self) -> "Machine":
        """A GDT with flat segments of both privileges, a TSS that is loaded, and an IDT without gates."""
        state = self.state
        self.describe_segment(KERNEL_CODE, 0, 0xFFFFF, FLAT_CODE)
        self.describe_segment(KERNEL_DATA, 0, 0xFFFFF, FLAT_DATA)
        self.describe_segment(USER_CODE, 0, 0xFFFFF, FLAT_CODE | DPL)
        self.describe_segment(USER_DATA, 0, 0xFFFFF, FLAT_DATA | DPL)
        self.describe_segment(TASK, TSS_AT, 0x67, 0x8B)
        state.gdtr.base, state.gdtr.limit = GDT_AT, 0xFFF
        state.idtr.base, state.idtr.limit = IDT_AT, 0x7FF
        state.tr.load(TASK, TSS_AT, 0x67, 0x8B)
        self.set_word(TSS_AT + 4, STACK_TOP - 0x1000)
        self.set_word(TSS_AT + 8, KERNEL_DATA)
        return self

    def to_user(self) -> "Machine":
        """Privilege level 3."""
        for number, segment in enumerate(self.state.segments):
            selector, attributes = (USER_CODE, FLAT_CODE) if number == CS else (USER_DATA, FLAT_DATA)
            segment.load(selector, 0, MASK32, attributes | DPL)
        self.state.cpl = 3
        return self

    def page(self) -> "Machine":
        """Turn paging on: the first 4 MiB are mapped one to one for everybody, by a table at 0x11000."""
        directory, table = 0x10000, 0x11000
        self.set_word(directory, table | 7)
        for index in range(64):
            self.set_word(table + 4 * index, index << 12 | 7)
        self.state.cr3 = directory
        self.state.cr0 |= 0x8001_0000
        self.memory.flush()
        return self

    def close(self) -> None:
        self.ram.close()
