"""Plain stores into page tables, done for the guest: the kernel writes as if the table were writable, and faults.

Not everything in a kernel goes through hypercalls; `xchg` and locked bit operations on an entry do not. The instruction
is decoded, its effect computed, and the new entry checked like any other. Source: xen/arch/x86/pv/ro-page-fault.c.
"""

from typing import TYPE_CHECKING, Any, Final

from virtus.memory.guest_memory import FRAME_SHIFT
from virtus.memory.x86_paging import FRAME_MASK, PRESENT
from virtus.memory.x86_paging import WRITABLE as ENTRY_WRITABLE
from virtus.personalities.xen.abi import Refused
from virtus.personalities.xen.frames import Kind
from virtus.personalities.xen.instructions import LONGEST, UNKNOWN, Instruction, decode

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain

RAX, RIP, RFLAGS = 0, 16, 17
CARRY, PARITY, ZERO, SIGN, OVERFLOW = 1, 4, 0x40, 0x80, 0x800
MASK64: Final = (1 << 64) - 1
WRITE_FAULT: Final = 3  # present, write


class PteWrites:
    """Does such stores for one domain."""

    def __init__(self, domain: "Domain") -> None:
        self._domain = domain

    @property
    def _regs(self) -> Any:
        return self._domain.cpu.context.regs

    def store(self, address: int, error: int) -> bool:
        """Do the store that faulted at `address`, if it was into a table in use; whether it was."""
        if error & WRITE_FAULT != WRITE_FAULT:
            return False
        domain, frames = self._domain, self._domain.frames
        try:
            entry = domain.memory.words[domain.access.entry_address(address) >> 3]
            frame = (entry & FRAME_MASK) >> FRAME_SHIFT
            if not entry & PRESENT or entry & ENTRY_WRITABLE:
                return False
            frames.check(frame, domain.ident)
            if not frames.uses[frame] or not Kind.L1 <= frames.kind[frame] <= Kind.L4:
                return False
            code = domain.access.read(self._regs[RIP], LONGEST)
            length = self._execute(decode(code), (frame << FRAME_SHIFT) + (address & 0xFFF))
        except Refused as refusal:
            domain.note(f"store into a page table refused: {refusal}")
            return False
        self._regs[RIP] += length
        return True

    def _execute(self, one: Instruction, physical: int) -> int:
        """Compute what the instruction stores, store it, and set its flags; its length. Raises Refused."""
        if not one.in_memory:
            raise Refused(UNKNOWN, "no operand in memory")
        opcode, behind = one.opcode, one.behind_operand()
        narrow = opcode in (0x88, 0xC6, 0x86, 0x0FB0, 0x80, 0x08, 0x20, 0x30)
        size = 1 if narrow else one.size
        if physical % size:
            raise Refused(UNKNOWN, "a store across entries")
        if one.rex == 0 and size == 1 and opcode in (0x88, 0x86, 0x0FB0, 0x08, 0x20, 0x30) and one.byte() >> 5 & 1:
            raise Refused(UNKNOWN, "a store from AH, CH, DH or BH")
        shift, mask = 8 * (physical & 7), (1 << 8 * size) - 1
        whole = self._domain.memory.words[physical >> 3]
        old = whole >> shift & mask
        regs = self._regs
        if opcode in (0x88, 0x89):
            new = regs[one.register]
        elif opcode in (0xC6, 0xC7) and one.extension == 0:
            width = 1 if opcode == 0xC6 else min(size, 4)
            new, behind = one.immediate(behind, width), behind + width
        elif opcode in (0x86, 0x87):
            new = regs[one.register]
        elif opcode in (0x0FB0, 0x0FB1):
            return self._compare_and_exchange(one, physical, whole, shift, mask, size, behind)
        elif opcode in (0x0FAB, 0x0FB3, 0x0FBB):
            operation = {0x0FAB: 5, 0x0FB3: 6, 0x0FBB: 7}[opcode]
            new = self._bit(operation, old, regs[one.register] & 8 * size - 1)
        elif opcode == 0x0FBA and one.extension >= 5:
            new, behind = self._bit(one.extension, old, one.immediate(behind, 1) & 8 * size - 1), behind + 1
        elif opcode in (0x80, 0x81, 0x83) and one.extension in (1, 4, 6):
            width = min(size, 4) if opcode == 0x81 else 1
            new = self._logic(one.extension, old, one.immediate(behind, width), mask)
            behind += width
        elif opcode in (0x08, 0x09, 0x20, 0x21, 0x30, 0x31):
            new = self._logic(opcode >> 3 & 7, old, regs[one.register], mask)
        else:
            raise Refused(UNKNOWN, f"an instruction {one.code.hex()} that is not known to write to tables")
        self._store(physical, whole & ~(mask << shift) | (new & mask) << shift)
        if opcode in (0x86, 0x87):
            self._set_register(one.register, old, size)
        return behind

    def _store(self, physical: int, entry: int) -> None:
        self._domain.tables.write(physical & ~7, entry)

    def _set_register(self, register: int, value: int, size: int) -> None:
        kept = 0 if size >= 4 else self._regs[register] & ~((1 << 8 * size) - 1) & MASK64
        self._regs[register] = kept | value

    def _compare_and_exchange(
        self, one: Instruction, physical: int, whole: int, shift: int, mask: int, size: int, behind: int
    ) -> int:
        old, regs = whole >> shift & mask, self._regs
        if regs[RAX] & mask == old:
            self._store(physical, whole & ~(mask << shift) | (regs[one.register] & mask) << shift)
            self._flags(ZERO, ZERO)
        else:
            self._set_register(RAX, old, size)
            self._flags(ZERO, 0)
        return behind

    def _bit(self, operation: int, old: int, number: int) -> int:
        self._flags(CARRY, old >> number & CARRY)
        return {5: old | 1 << number, 6: old & ~(1 << number), 7: old ^ 1 << number}[operation]

    def _logic(self, operation: int, old: int, other: int, mask: int) -> int:
        new = {1: old | other, 4: old & other, 6: old ^ other}[operation] & mask
        flags = (0 if new else ZERO) | (SIGN if new > mask >> 1 else 0)
        flags |= PARITY if not (new & 0xFF).bit_count() & 1 else 0
        self._flags(CARRY | PARITY | ZERO | SIGN | OVERFLOW, flags)
        return new

    def _flags(self, which: int, values: int) -> None:
        self._regs[RFLAGS] = self._regs[RFLAGS] & ~which | values
