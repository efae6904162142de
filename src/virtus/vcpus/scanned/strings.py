"""String instructions and their repetition (Intel SDM volume 1, 7.3.9): a round at a time, each done or not begun."""

from collections.abc import Callable
from typing import Final

from iced_x86 import Mnemonic

from virtus.memory.guest_memory import PAGE
from virtus.vcpus.scanned.cpu_state import DF, EAX, ECX, EDI, EDX, ES, ESI, MASK32, ZF
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.flags import KEEP, of_difference
from virtus.vcpus.scanned.operands import Compile, Operands, Operation

ROUNDS: Final = 1024
"""After this many, a repeated instruction lets interrupts in; EIP stays at it."""

Round = Callable[[int], None]  # with what is added to the index registers
Block = Callable[[int], int]  # does up to so many rounds at once, upwards; how many it has done


class String:
    """What the instructions have in common: sizes, segments, index registers."""

    def __init__(self, ops: Operands, size: int) -> None:
        self.ops, self.size, self.execution = ops, size, ops.execution
        self.registers, self.state = ops.execution.registers, ops.execution.state
        self.mask = 0xFFFF if ops.address_size == 2 else MASK32
        self.value_mask = (1 << 8 * size) - 1

    def source(self) -> int:
        """What ESI leads to."""
        return self.execution.read(self.ops.segment, self.registers[ESI] & self.mask, self.size)

    def destination(self) -> int:
        """What EDI leads to."""
        return self.execution.read(ES, self.registers[EDI] & self.mask, self.size)

    def store(self, value: int) -> None:
        """Where EDI leads."""
        self.execution.write(ES, self.registers[EDI] & self.mask, self.size, value)

    def advance(self, register: int, step: int) -> None:
        """Change an index register or the counter, of the address size alone."""
        registers, mask = self.registers, self.mask
        registers[register] = registers[register] & ~mask & MASK32 | registers[register] + step & mask

    def compare(self, left: int, right: int) -> None:
        """Set the flags."""
        flags = of_difference(left, right, left - right, 8 * self.size)
        self.state.eflags = self.state.eflags & KEEP | flags


def _movs(string: String) -> Round:
    def once(step: int) -> None:
        string.store(string.source())
        string.advance(ESI, step)
        string.advance(EDI, step)

    return once


def _stos(string: String) -> Round:
    def once(step: int) -> None:
        string.store(string.registers[EAX] & string.value_mask)
        string.advance(EDI, step)

    return once


def _lods(string: String) -> Round:
    def once(step: int) -> None:
        value = string.source()
        string.registers[EAX] = string.registers[EAX] & ~string.value_mask | value
        string.advance(ESI, step)

    return once


def _cmps(string: String) -> Round:
    def once(step: int) -> None:
        left, right = string.source(), string.destination()
        string.compare(left, right)
        string.advance(ESI, step)
        string.advance(EDI, step)

    return once


def _scas(string: String) -> Round:
    def once(step: int) -> None:
        string.compare(string.registers[EAX] & string.value_mask, string.destination())
        string.advance(EDI, step)

    return once


def _ins(string: String) -> Round:
    execution = string.execution

    def once(step: int) -> None:
        port = string.registers[EDX] & 0xFFFF
        execution.demand_port(port, string.size)
        place = execution.linear(ES, string.registers[EDI] & string.mask, string.size, True)
        execution.memory.check_write(place, string.size)  # the port is not read for a page fault's sake
        execution.memory.write(place, string.size, execution.ports.read(port, string.size) & string.value_mask)
        string.advance(EDI, step)

    return once


def _outs(string: String) -> Round:
    execution = string.execution

    def once(step: int) -> None:
        port = string.registers[EDX] & 0xFFFF
        execution.demand_port(port, string.size)
        execution.ports.write(port, string.size, string.source())
        string.advance(ESI, step)

    return once


def _room(string: String, number: int, register: int, count: int, write: bool) -> tuple[int, int]:
    """How many of `count` elements lie in one page and in the segment, and the linear address of the first."""
    offset, size = string.registers[register] & string.mask, string.size
    linear = string.execution.linear(number, offset, size, write)
    count = min(count, (PAGE - (linear & PAGE - 1)) // size, (string.mask + 1 - offset) // size)
    try:
        string.execution.linear(number, offset, max(count, 1) * size, write)
    except GuestFault:
        return 0, linear  # the segment ends: one by one as far as it goes
    return count, linear


def _ins_block(string: String) -> Block:
    execution = string.execution

    def block(count: int) -> int:
        port, size = string.registers[EDX] & 0xFFFF, string.size
        execution.demand_port(port, size)
        count, place = _room(string, ES, EDI, count, True)
        if count > 1:
            execution.memory.check_write(place, count * size)
            execution.memory.write_block(place, count * size, execution.repeat_port(port, size, count, False, 0))
            string.advance(EDI, count * size)
        return count

    return block


def _outs_block(string: String) -> Block:
    execution = string.execution

    def block(count: int) -> int:
        port, size = string.registers[EDX] & 0xFFFF, string.size
        execution.demand_port(port, size)
        count, place = _room(string, string.ops.segment, ESI, count, False)
        if count > 1:
            read, bits = execution.memory.read, 8 * size
            value = sum(read(place + number * size, size) << number * bits for number in range(count))
            execution.repeat_port(port, size, count, True, value)
            string.advance(ESI, count * size)
        return count

    return block


def _compile(
    make: Callable[[String], Round],
    size: int,
    *,
    compares: bool = False,
    make_block: Callable[[String], Block] | None = None,
) -> Compile:
    def compile_it(ops: Operands) -> Operation:
        string = String(ops, size)
        once, state, registers, mask = make(string), string.state, string.registers, string.mask
        execution = ops.execution
        repeat_while_equal = ops.instruction.has_rep_prefix or not compares
        block = None if make_block is None else make_block(string)

        def step() -> int:
            return -size if state.eflags & DF else size

        if not ops.instruction.has_rep_prefix and not ops.instruction.has_repne_prefix:
            return lambda: once(step())

        def repeated() -> None:
            by = step()
            if block is not None and by > 0 and registers[ECX] & mask > 1:
                done = block(min(registers[ECX] & mask, ROUNDS))
                if done <= 1:  # over the end of a page, or of the segment
                    once(by)
                    done = 1
                string.advance(ECX, -done)
                execution.progress()
                if registers[ECX] & mask:
                    execution.next_eip = state.eip
                return
            for _ in range(ROUNDS):
                if not registers[ECX] & mask:
                    return
                once(by)
                string.advance(ECX, -1)
                execution.progress()
                if compares and (state.eflags & ZF != 0) != repeat_while_equal:
                    return
            if registers[ECX] & mask:
                execution.next_eip = state.eip

        return repeated

    return compile_it


M = Mnemonic
TABLE: Final[dict[int, Compile]] = {
    M.MOVSB: _compile(_movs, 1), M.MOVSW: _compile(_movs, 2), M.MOVSD: _compile(_movs, 4),
    M.STOSB: _compile(_stos, 1), M.STOSW: _compile(_stos, 2), M.STOSD: _compile(_stos, 4),
    M.LODSB: _compile(_lods, 1), M.LODSW: _compile(_lods, 2), M.LODSD: _compile(_lods, 4),
    M.CMPSB: _compile(_cmps, 1, compares=True), M.CMPSW: _compile(_cmps, 2, compares=True),
    M.CMPSD: _compile(_cmps, 4, compares=True),
    M.SCASB: _compile(_scas, 1, compares=True), M.SCASW: _compile(_scas, 2, compares=True),
    M.SCASD: _compile(_scas, 4, compares=True),
    M.INSB: _compile(_ins, 1, make_block=_ins_block), M.INSW: _compile(_ins, 2, make_block=_ins_block),
    M.INSD: _compile(_ins, 4, make_block=_ins_block),
    M.OUTSB: _compile(_outs, 1, make_block=_outs_block), M.OUTSW: _compile(_outs, 2, make_block=_outs_block),
    M.OUTSD: _compile(_outs, 4, make_block=_outs_block),
}  # fmt: skip
"""MOVSD and CMPSD are also names of SSE2 instructions, which whoever decodes tells apart."""
