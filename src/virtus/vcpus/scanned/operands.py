"""Operands of a decoded instruction as functions: what reads them, what writes them, where they are in memory."""

from collections.abc import Callable
from typing import Final

from iced_x86 import Instruction, MemorySizeExt, OpKind, Register, RegisterExt

from virtus.vcpus.scanned.cpu_state import CS, DS, ES, FS, GS, MASK32, SS
from virtus.vcpus.scanned.execution import Execution

Read = Callable[[], int]
Write = Callable[[int], None]
Operation = Callable[[], None]

SEGMENTS: Final[dict[int, int]] = {
    Register.ES: ES, Register.CS: CS, Register.SS: SS, Register.DS: DS, Register.FS: FS, Register.GS: GS
}  # fmt: skip
REGISTERS32: Final = {Register.EAX + number: number for number in range(8)}
REGISTERS16: Final = {Register.AX + number: number for number in range(8)}
REGISTERS8: Final = {Register.AL + number: number for number in range(8)}
ADDRESS_REGISTERS: Final = REGISTERS32 | REGISTERS16
NEAR_BRANCHES: Final = frozenset({OpKind.NEAR_BRANCH16, OpKind.NEAR_BRANCH32})
IMPLIED_SIZES: Final = frozenset({0})


class Operands:
    """One instruction's operands, bound to the processor that evaluates it."""

    def __init__(self, instruction: Instruction, execution: Execution, bits: int) -> None:
        """`bits` is the default size of code: 16 or 32."""
        self.instruction, self.execution, self.bits = instruction, execution, bits
        self.length = instruction.len

    def is_memory(self, index: int) -> bool:
        """Whether an operand is in memory."""
        return self.instruction.op_kind(index) == OpKind.MEMORY

    def register(self, index: int) -> int:
        """The decoder's name of a register operand, Register.NONE of any other."""
        if self.instruction.op_kind(index) == OpKind.REGISTER:
            return self.instruction.op_register(index)
        return Register.NONE

    def size(self, index: int) -> int:
        """Bytes of an operand."""
        instruction = self.instruction
        kind = instruction.op_kind(index)
        if kind == OpKind.REGISTER:
            return RegisterExt.size(instruction.op_register(index))
        if kind == OpKind.MEMORY:
            return MemorySizeExt.size(instruction.memory_size)
        raise ValueError(f"operand {index} of {instruction} has no size of its own")

    @property
    def operand_size(self) -> int:
        """2 or 4: the size that prefixes and the mode select, for instructions whose operands do not tell."""
        return 4 if (self.bits == 32) != self.has_operand_prefix else 2

    @property
    def has_operand_prefix(self) -> bool:
        """Whether prefix 66 is there. The decoder does not keep it, so `raw` does."""
        return self._prefix(0x66)

    @property
    def address_size(self) -> int:
        """2 or 4."""
        return 4 if (self.bits == 32) != self._prefix(0x67) else 2

    raw = b""
    """The instruction's bytes; set by whoever decodes."""

    def _prefix(self, wanted: int) -> bool:
        for byte in self.raw:
            if byte == wanted:
                return True
            if byte not in PREFIXES:
                return False
        return False

    def offset(self) -> Read:
        """The offset of the memory operand in its segment."""
        instruction, registers = self.instruction, self.execution.registers
        base = ADDRESS_REGISTERS.get(instruction.memory_base, -1)
        index = ADDRESS_REGISTERS.get(instruction.memory_index, -1)
        scale = instruction.memory_index_scale
        displacement = instruction.memory_displacement & MASK32
        if self.address_size == 2:
            displacement &= 0xFFFF
            if base < 0 and index < 0:
                return lambda: displacement
            if index < 0:
                return lambda: registers[base] + displacement & 0xFFFF
            if base < 0:
                return lambda: registers[index] + displacement & 0xFFFF
            return lambda: registers[base] + registers[index] + displacement & 0xFFFF
        if base < 0 and index < 0:
            return lambda: displacement
        if index < 0:
            return lambda: registers[base] + displacement & MASK32
        if base < 0:
            return lambda: registers[index] * scale + displacement & MASK32
        return lambda: registers[base] + registers[index] * scale + displacement & MASK32

    @property
    def segment(self) -> int:
        """The segment of the memory operand."""
        return SEGMENTS[self.instruction.memory_segment]

    def place(self, size: int, *, write: bool) -> Read:
        """The linear address of the memory operand, its segment's limit and rights checked."""
        offset, linear, number = self.offset(), self.execution.linear, self.segment
        segment = self.execution.segments[number]
        if write:

            def place_to_write() -> int:
                at = offset()
                return at if segment.flat_write else linear(number, at, size, True)

            return place_to_write

        def place_to_read() -> int:
            at = offset()
            return at if segment.flat_read else linear(number, at, size, False)

        return place_to_read

    def reader(self, index: int, size: int) -> Read:
        """What reads an operand, immediates truncated to `size`."""
        instruction, registers = self.instruction, self.execution.registers
        kind = instruction.op_kind(index)
        if kind == OpKind.REGISTER:
            return _read_register(registers, instruction.op_register(index))
        if kind == OpKind.MEMORY:
            place, read = self.place(size, write=False), self.execution.memory.read
            return lambda: read(place(), size)
        value = instruction.immediate(index) & (1 << 8 * size) - 1
        return lambda: value

    def writer(self, index: int, size: int) -> Write:
        """What writes an operand that is not read before."""
        instruction, registers = self.instruction, self.execution.registers
        if instruction.op_kind(index) == OpKind.REGISTER:
            return _write_register(registers, instruction.op_register(index))
        place, write = self.place(size, write=True), self.execution.memory.write
        return lambda value: write(place(), size, value)

    def changer(self, index: int, size: int) -> tuple[Read, Write]:
        """What reads an operand, and what then writes it: the writer may be called only after the reader.

        The reader of a memory operand faults where the writer would, so that nothing has happened then.
        """
        if self.instruction.op_kind(index) == OpKind.REGISTER:
            return self.reader(index, size), self.writer(index, size)
        place, memory = self.place(size, write=True), self.execution.memory
        read_to_change, store = memory.read_to_change, memory.write
        at = 0

        def read() -> int:
            nonlocal at
            at = place()
            return read_to_change(at, size)

        def write(value: int) -> None:
            store(at, size, value)

        return read, write


Compile = Callable[[Operands], Operation]
"""An instruction's operands to what it does; each module of instructions has a table of these by mnemonic."""

PREFIXES: Final = frozenset({0x66, 0x67, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0xF0, 0xF2, 0xF3})


def signed(value: int, bits: int) -> int:
    """A number of `bits` bits in two's complement."""
    return value - (1 << bits) if value >> bits - 1 else value


def _read_register(registers: list[int], register: int) -> Read:
    if register in REGISTERS32:
        number = REGISTERS32[register]
        return lambda: registers[number]
    if register in REGISTERS16:
        number = REGISTERS16[register]
        return lambda: registers[number] & 0xFFFF
    if register in REGISTERS8:
        number, shift = REGISTERS8[register] & 3, (REGISTERS8[register] & 4) << 1
        if shift:
            return lambda: registers[number] >> 8 & 0xFF
        return lambda: registers[number] & 0xFF
    raise ValueError(f"register {register} is not a general one")


def _write_register(registers: list[int], register: int) -> Write:
    if register in REGISTERS32:
        number = REGISTERS32[register]

        def write32(value: int) -> None:
            registers[number] = value

        return write32
    if register in REGISTERS16:
        number = REGISTERS16[register]

        def write16(value: int) -> None:
            registers[number] = registers[number] & 0xFFFF_0000 | value

        return write16
    if register in REGISTERS8:
        number, shift = REGISTERS8[register] & 3, (REGISTERS8[register] & 4) << 1
        keep = MASK32 & ~(0xFF << shift)

        def write8(value: int) -> None:
            registers[number] = registers[number] & keep | value << shift

        return write8
    raise ValueError(f"register {register} is not a general one")
