"""What instructions are evaluated on: the state, memory through segments, the stack, ports."""

from collections.abc import Callable

from virtus.vcpus.scanned import faults
from virtus.vcpus.scanned.cpu_state import (
    CODE,
    DOWN_OR_CONFORMING,
    ESP,
    IOPL,
    IOPL_SHIFT,
    MASK32,
    SS,
    VM,
    WRITABLE_OR_READABLE,
    CpuState,
)
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.memory_access import Devices, LinearMemory

TSS_IO_MAP = 0x66  # offset of the I/O map's base (Intel SDM volume 3A, figure 7-2)
TSS32_TYPES = (0x9, 0xB)
TSS32_SIZE = 0x68

Cpuid = Callable[[int, int], tuple[int, int, int, int]]
"""What CPUID answers, by leaf and subleaf: EAX, EBX, ECX, EDX."""


def no_cpuid(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """A processor that tells nothing."""
    return 0, 0, 0, 0


def nothing() -> None:
    """What is called where nobody wants to know."""


class Execution:
    """One processor evaluating instructions. `next_eip` is where the next one is, unless an instruction changes it."""

    def __init__(self, state: CpuState, memory: LinearMemory, ports: Devices) -> None:
        self.state, self.memory, self.ports = state, memory, ports
        self.registers = state.registers
        self.segments = state.segments
        self.next_eip = 0
        self.delivered = False
        """Set by whatever enters a handler: a single step is not seen behind INT n."""
        self.cpuid: Cpuid = no_cpuid
        self.progress: Callable[[], None] = nothing
        """Called when a repeated instruction has done one of its rounds, which will not be undone."""
        self.repeat_port: Callable[[int, int, int, bool, int], int] = self._repeat_port
        """Several accesses to a port at once: port, size of each, count, whether writes, and their values behind each
        other, the first lowest; the values read in the same way."""
        self.time_changed: Callable[[], None] = nothing
        """Called when the guest has set its time stamp counter, or who may read it."""

    def linear(self, number: int, offset: int, size: int, write: bool) -> int:
        """The linear address of `size` bytes in a segment; raises #GP(0) or #SS(0) (Intel SDM volume 3A, 5.3)."""
        segment = self.segments[number]
        if segment.flat_write if write else segment.flat_read:
            return offset
        state, attributes = self.state, segment.attributes
        if not attributes:
            raise GuestFault(faults.SS if number == SS else faults.GP, 0)
        if state.segmented:
            if attributes & CODE:
                if write or not attributes & WRITABLE_OR_READABLE:
                    raise GuestFault(faults.GP, 0)
            elif write and not attributes & WRITABLE_OR_READABLE:
                raise GuestFault(faults.SS if number == SS else faults.GP, 0)
        last = offset + size - 1
        if attributes & (CODE | DOWN_OR_CONFORMING) == DOWN_OR_CONFORMING:
            inside = offset > segment.limit and last <= (MASK32 if segment.big else 0xFFFF)
        else:
            inside = last <= segment.limit
        if not inside:
            raise GuestFault(faults.SS if number == SS else faults.GP, 0)
        return segment.base + offset & MASK32

    def _repeat_port(self, port: int, size: int, count: int, write: bool, value: int) -> int:
        bits, found = 8 * size, 0
        for shift in range(0, count * bits, bits):
            if write:
                self.ports.write(port, size, value >> shift & (1 << bits) - 1)
            else:
                found |= (self.ports.read(port, size) & (1 << bits) - 1) << shift
        return found

    def read(self, number: int, offset: int, size: int) -> int:
        """A number in a segment."""
        return self.memory.read(self.linear(number, offset, size, False), size)

    def write(self, number: int, offset: int, size: int, value: int) -> None:
        """Store one."""
        self.memory.write(self.linear(number, offset, size, True), size, value)

    def push(self, value: int, size: int) -> None:
        """Onto the stack: the store comes first, so that a fault leaves ESP alone."""
        mask = self.state.stack_mask
        old = self.registers[ESP]
        new = old - size & mask
        self.memory.write(self.linear(SS, new, size, True), size, value & (1 << 8 * size) - 1)
        self.registers[ESP] = old & ~mask | new

    def peek(self, offset: int, size: int) -> int:
        """What is on the stack `offset` bytes above its top."""
        return self.read(SS, self.registers[ESP] + offset & self.state.stack_mask, size)

    def drop(self, size: int) -> None:
        """Take bytes off the stack."""
        mask = self.state.stack_mask
        old = self.registers[ESP]
        self.registers[ESP] = old & ~mask | old + size & mask

    def jump(self, eip: int) -> None:
        """Go on at an offset of the code segment; raises #GP(0) beyond its limit."""
        if eip > self.segments[1].limit:
            raise GuestFault(faults.GP, 0)
        self.next_eip = eip

    def demand_privilege(self) -> None:
        """#GP(0) unless at privilege level 0, which virtual-8086 mode never is."""
        if self.state.cpl:
            raise GuestFault(faults.GP, 0)

    def demand_port(self, port: int, size: int) -> None:
        """#GP(0) unless the task may use these ports (Intel SDM volume 1, 19.5)."""
        state = self.state
        if not state.protected:
            return
        if not state.eflags & VM and state.cpl <= (state.eflags & IOPL) >> IOPL_SHIFT:
            return
        task = state.tr
        if task.attributes & 0xF not in TSS32_TYPES or task.limit < TSS32_SIZE - 1:
            raise GuestFault(faults.GP, 0)
        at = self.memory.read_system(task.base + TSS_IO_MAP, 2) + (port >> 3)
        if at + 1 > task.limit:
            raise GuestFault(faults.GP, 0)
        allowed = self.memory.read_system(task.base + at, 2)
        if allowed >> (port & 7) & (1 << size) - 1:
            raise GuestFault(faults.GP, 0)
