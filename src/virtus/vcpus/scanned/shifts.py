"""Instructions on bits: shifts, rotations, tests and scans of bits, the order of bytes."""

from collections.abc import Callable
from typing import Final

from iced_x86 import Mnemonic, OpKind

from virtus.vcpus.scanned.cpu_state import CF, MASK32, OF, ZF
from virtus.vcpus.scanned.flags import KEEP, of_result
from virtus.vcpus.scanned.operands import Compile, Operands, Operation, signed


def _shift(kind: str) -> Compile:
    def compile_it(ops: Operands) -> Operation:
        size, state = ops.size(0), ops.execution.state
        bits, mask = 8 * size, (1 << 8 * size) - 1
        (load, store), counter = ops.changer(0, size), ops.reader(1, 1)

        def operation() -> None:
            count, value = counter() & 31, load()
            if not count:
                store(value)  # the store happens, and with it its faults
                return
            if kind == "shl":
                wide = value << count
                result, carry = wide & mask, wide >> bits & 1
                overflow = result >> bits - 1 ^ carry
            elif kind == "shr":
                result, carry = value >> count, value >> count - 1 & 1
                overflow = value >> bits - 1
            else:
                number = signed(value, bits)
                result, carry, overflow = number >> count & mask, number >> count - 1 & 1, 0
            store(result)
            state.eflags = state.eflags & KEEP | of_result(result, bits) | carry | overflow * OF

        return operation

    return compile_it


def _rotate(kind: str) -> Compile:
    def compile_it(ops: Operands) -> Operation:
        size, state = ops.size(0), ops.execution.state
        bits, mask = 8 * size, (1 << 8 * size) - 1
        through_carry = kind in ("rcl", "rcr")
        width = bits + 1 if through_carry else bits
        to_the_left = kind in ("rol", "rcl")
        (load, store), counter = ops.changer(0, size), ops.reader(1, 1)

        def operation() -> None:
            count, value = counter() & 31, load()
            turn = count % width
            if not count or (through_carry and not turn):
                store(value)
                return
            if through_carry:
                value |= (state.eflags & CF) << bits
            if not to_the_left:
                turn = width - turn
            turned = (value << turn | value >> width - turn) & (1 << width) - 1
            result = turned & mask
            if through_carry:
                carry = turned >> bits
            else:
                carry = result & 1 if to_the_left else result >> bits - 1
            top = result >> bits - 1
            overflow = top ^ carry if to_the_left else top ^ result >> bits - 2 & 1
            store(result)
            state.eflags = state.eflags & ~(CF | OF) | carry | overflow * OF

        return operation

    return compile_it


def _double_shift(*, left: bool) -> Compile:
    def compile_it(ops: Operands) -> Operation:
        size, state = ops.size(0), ops.execution.state
        bits, mask = 8 * size, (1 << 8 * size) - 1
        (load, store), fill, counter = ops.changer(0, size), ops.reader(1, size), ops.reader(2, 1)

        def operation() -> None:
            count, value = counter() & 31, load()
            if not count:
                store(value)
                return
            if left:  # for 16 bits and counts above 16 the result is undefined: the operands one behind the other
                wide = (value << bits | fill()) << bits | value
                result, carry = wide >> 2 * bits - count & mask, wide >> 3 * bits - count & 1
            else:
                wide = (value << bits | fill()) << bits | value
                result, carry = wide >> count & mask, wide >> count - 1 & 1
            store(result)
            overflow = OF if (result ^ value) >> bits - 1 else 0
            state.eflags = state.eflags & KEEP | of_result(result, bits) | carry | overflow

        return operation

    return compile_it


def _bit_test(change: Callable[[int, int], int] | None) -> Compile:
    """BT, BTS, BTR and BTC; a bit number in a register reaches beyond a memory operand."""

    def compile_it(ops: Operands) -> Operation:
        size, execution = ops.size(0), ops.execution
        state, bits = execution.state, 8 * size
        number = ops.reader(1, size)
        if not ops.is_memory(0) or ops.instruction.op_kind(1) != OpKind.REGISTER:
            load, store = ops.changer(0, size) if change else (ops.reader(0, size), None)

            def inside() -> None:
                bit, value = number() & bits - 1, load()
                if change is not None and store is not None:
                    store(change(value, 1 << bit))
                state.eflags = state.eflags & ~CF | value >> bit & 1

            return inside
        offset, linear, segment = ops.offset(), execution.linear, ops.segment
        mask = 0xFFFF if ops.address_size == 2 else MASK32

        def beyond() -> None:
            index = signed(number(), bits)
            at = offset() + (index >> bits.bit_length() - 1) * size & mask
            bit = index & bits - 1
            place = linear(segment, at, size, change is not None)
            if change is None:
                value = execution.memory.read(place, size)
            else:
                value = execution.memory.read_to_change(place, size)
                execution.memory.write(place, size, change(value, 1 << bit))
            state.eflags = state.eflags & ~CF | value >> bit & 1

        return beyond

    return compile_it


def _bit_scan(*, forward: bool) -> Compile:
    """BSF and BSR: for zero the destination keeps its value, as processors do."""

    def compile_it(ops: Operands) -> Operation:
        size, state = ops.size(0), ops.execution.state
        source, write = ops.reader(1, size), ops.writer(0, size)

        def operation() -> None:
            value = source()
            if value:
                write((value & -value).bit_length() - 1 if forward else value.bit_length() - 1)
                state.eflags &= ~ZF
            else:
                state.eflags |= ZF

        return operation

    return compile_it


def popcnt(ops: Operands) -> Operation:
    """POPCNT."""
    size, state = ops.size(0), ops.execution.state
    source, write = ops.reader(1, size), ops.writer(0, size)

    def operation() -> None:
        value = source()
        write(value.bit_count())
        state.eflags = state.eflags & KEEP | (0 if value else ZF)

    return operation


def bswap(ops: Operands) -> Operation:
    """BSWAP; of 16 bits it is undefined, and gives 0 as processors do."""
    size = ops.size(0)
    read, write = ops.reader(0, size), ops.writer(0, size)
    return lambda: write(int.from_bytes(read().to_bytes(4, "little"), "big") if size == 4 else 0)


M = Mnemonic
TABLE: Final[dict[int, Compile]] = {
    M.SHL: _shift("shl"), M.SAL: _shift("shl"), M.SHR: _shift("shr"), M.SAR: _shift("sar"),
    M.ROL: _rotate("rol"), M.ROR: _rotate("ror"), M.RCL: _rotate("rcl"), M.RCR: _rotate("rcr"),
    M.SHLD: _double_shift(left=True), M.SHRD: _double_shift(left=False),
    M.BT: _bit_test(None), M.BTS: _bit_test(int.__or__), M.BTC: _bit_test(int.__xor__),
    M.BTR: _bit_test(lambda value, bit: value & ~bit),
    M.BSF: _bit_scan(forward=True), M.BSR: _bit_scan(forward=False), M.POPCNT: popcnt, M.BSWAP: bswap,
}  # fmt: skip
