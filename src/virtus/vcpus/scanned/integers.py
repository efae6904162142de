"""Integer instructions: moves, arithmetic, logic, exchanges, conditions."""

from collections.abc import Callable
from typing import Final

from iced_x86 import ConditionCode, Mnemonic

from virtus.vcpus.scanned import faults
from virtus.vcpus.scanned.cpu_state import AF, CF, DF, EAX, EBX, ECX, EDX, MASK32, OF, PF, SF, ZF
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.flags import CONDITIONS, KEEP, KEEP_WITH_CARRY, of_difference, of_result, of_sum
from virtus.vcpus.scanned.operands import Compile, Operands, Operation, signed

ENCODINGS: Final = {
    ConditionCode.O: 0, ConditionCode.NO: 1, ConditionCode.B: 2, ConditionCode.AE: 3, ConditionCode.E: 4,
    ConditionCode.NE: 5, ConditionCode.BE: 6, ConditionCode.A: 7, ConditionCode.S: 8, ConditionCode.NS: 9,
    ConditionCode.P: 10, ConditionCode.NP: 11, ConditionCode.L: 12, ConditionCode.GE: 13, ConditionCode.LE: 14,
    ConditionCode.G: 15,
}  # fmt: skip


def condition_of(ops: Operands) -> Callable[[int], object]:
    """Whether a conditional instruction's condition holds in EFLAGS."""
    return CONDITIONS[ENCODINGS[ops.instruction.condition_code]]


def mov(ops: Operands) -> Operation:
    """MOV between general registers, memory and immediates."""
    size = ops.size(0)
    read, write = ops.reader(1, size), ops.writer(0, size)
    return lambda: write(read())


def movzx(ops: Operands) -> Operation:
    """MOVZX."""
    read, write = ops.reader(1, ops.size(1)), ops.writer(0, ops.size(0))
    return lambda: write(read())


def movsx(ops: Operands) -> Operation:
    """MOVSX."""
    bits, mask = 8 * ops.size(1), (1 << 8 * ops.size(0)) - 1
    read, write = ops.reader(1, ops.size(1)), ops.writer(0, ops.size(0))
    return lambda: write(signed(read(), bits) & mask)


def lea(ops: Operands) -> Operation:
    """LEA."""
    mask = (1 << 8 * ops.size(0)) - 1
    offset, write = ops.offset(), ops.writer(0, ops.size(0))
    return lambda: write(offset() & mask)


def xchg(ops: Operands) -> Operation:
    """XCHG; memory is the first operand or none is."""
    size = ops.size(0)
    first, second = (1, 0) if ops.is_memory(1) else (0, 1)
    load, store = ops.changer(first, size)
    read, write = ops.reader(second, size), ops.writer(second, size)

    def operation() -> None:
        old, new = load(), read()
        store(new)
        write(old)

    return operation


def _sum(ops: Operands, *, carry: bool) -> Operation:
    size, state = ops.size(0), ops.execution.state
    bits, mask = 8 * size, (1 << 8 * size) - 1
    (load, store), source = ops.changer(0, size), ops.reader(1, size)

    def operation() -> None:
        right, left = source(), load()
        total = left + right
        if carry:
            total += state.eflags & CF
        store(total & mask)
        state.eflags = state.eflags & KEEP | of_sum(left, right, total, bits)

    return operation


def _difference(ops: Operands, *, borrow: bool) -> Operation:
    size, state = ops.size(0), ops.execution.state
    bits, mask = 8 * size, (1 << 8 * size) - 1
    (load, store), source = ops.changer(0, size), ops.reader(1, size)

    def operation() -> None:
        right, left = source(), load()
        difference = left - right
        if borrow:
            difference -= state.eflags & CF
        store(difference & mask)
        state.eflags = state.eflags & KEEP | of_difference(left, right, difference, bits)

    return operation


def add(ops: Operands) -> Operation:
    """ADD."""
    return _sum(ops, carry=False)


def adc(ops: Operands) -> Operation:
    """ADC."""
    return _sum(ops, carry=True)


def sub(ops: Operands) -> Operation:
    """SUB."""
    return _difference(ops, borrow=False)


def sbb(ops: Operands) -> Operation:
    """SBB."""
    return _difference(ops, borrow=True)


def cmp(ops: Operands) -> Operation:
    """CMP."""
    size, state = ops.size(0), ops.execution.state
    bits = 8 * size
    load, source = ops.reader(0, size), ops.reader(1, size)

    def operation() -> None:
        left, right = load(), source()
        state.eflags = state.eflags & KEEP | of_difference(left, right, left - right, bits)

    return operation


def _logic(combine: Callable[[int, int], int]) -> Compile:
    def compile_it(ops: Operands) -> Operation:
        size, state = ops.size(0), ops.execution.state
        bits = 8 * size
        (load, store), source = ops.changer(0, size), ops.reader(1, size)

        def operation() -> None:
            right = source()
            result = combine(load(), right)
            store(result)
            state.eflags = state.eflags & KEEP | of_result(result, bits)

        return operation

    return compile_it


def test(ops: Operands) -> Operation:
    """TEST."""
    size, state = ops.size(0), ops.execution.state
    bits = 8 * size
    load, source = ops.reader(0, size), ops.reader(1, size)

    def operation() -> None:
        state.eflags = state.eflags & KEEP | of_result(load() & source(), bits)

    return operation


def _step_by_one(step: int) -> Compile:
    def compile_it(ops: Operands) -> Operation:
        size, state = ops.size(0), ops.execution.state
        bits, mask = 8 * size, (1 << 8 * size) - 1
        load, store = ops.changer(0, size)
        flags_of = of_sum if step > 0 else of_difference

        def operation() -> None:
            left = load()
            total = left + step
            store(total & mask)
            state.eflags = state.eflags & KEEP_WITH_CARRY | flags_of(left, 1, total, bits) & ~CF

        return operation

    return compile_it


def neg(ops: Operands) -> Operation:
    """NEG."""
    size, state = ops.size(0), ops.execution.state
    bits, mask = 8 * size, (1 << 8 * size) - 1
    load, store = ops.changer(0, size)

    def operation() -> None:
        right = load()
        store(-right & mask)
        state.eflags = state.eflags & KEEP | of_difference(0, right, -right, bits)

    return operation


def not_(ops: Operands) -> Operation:
    """NOT."""
    size = ops.size(0)
    mask = (1 << 8 * size) - 1
    load, store = ops.changer(0, size)
    return lambda: store(load() ^ mask)


def mul(ops: Operands) -> Operation:
    """MUL: SF, ZF, AF and PF are undefined, and follow the lower half."""
    size, state, registers = ops.size(0), ops.execution.state, ops.execution.registers
    bits, mask = 8 * size, (1 << 8 * size) - 1
    source = ops.reader(0, size)

    def operation() -> None:
        product = (registers[EAX] & mask) * source()
        _store_product(registers, product, bits)
        over = CF | OF if product >> bits else 0
        state.eflags = state.eflags & KEEP | of_result(product & mask, bits) | over

    return operation


def imul(ops: Operands) -> Operation:
    """IMUL with one, two and three operands; SF, ZF, AF and PF are undefined, and follow the lower half."""
    size, state, registers = ops.size(0), ops.execution.state, ops.execution.registers
    bits, mask = 8 * size, (1 << 8 * size) - 1
    count = ops.instruction.op_count
    if count == 1:
        source = ops.reader(0, size)

        def widening() -> None:
            product = signed(registers[EAX] & mask, bits) * signed(source(), bits)
            _store_product(registers, product & (1 << 2 * bits) - 1, bits)
            over = 0 if product == signed(product & mask, bits) else CF | OF
            state.eflags = state.eflags & KEEP | of_result(product & mask, bits) | over

        return widening
    left, right = ops.reader(count - 2, size), ops.reader(count - 1, size)
    write = ops.writer(0, size)

    def operation() -> None:
        product = signed(left(), bits) * signed(right(), bits)
        result = product & mask
        write(result)
        over = 0 if product == signed(result, bits) else CF | OF
        state.eflags = state.eflags & KEEP | of_result(result, bits) | over

    return operation


def _store_product(registers: list[int], product: int, bits: int) -> None:
    if bits == 8:
        registers[EAX] = registers[EAX] & 0xFFFF_0000 | product
    elif bits == 16:
        registers[EAX] = registers[EAX] & 0xFFFF_0000 | product & 0xFFFF
        registers[EDX] = registers[EDX] & 0xFFFF_0000 | product >> 16
    else:
        registers[EAX], registers[EDX] = product & MASK32, product >> 32


def _divide(ops: Operands, *, with_sign: bool) -> Operation:
    size, registers = ops.size(0), ops.execution.registers
    bits, mask = 8 * size, (1 << 8 * size) - 1
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if with_sign else (0, mask)
    source = ops.reader(0, size)

    def operation() -> None:
        divisor = source()
        if not divisor:
            raise GuestFault(faults.DE)
        if bits == 8:
            dividend = registers[EAX] & 0xFFFF
        else:
            dividend = (registers[EDX] & mask) << bits | registers[EAX] & mask
        if with_sign:
            dividend, divisor = signed(dividend, 2 * bits), signed(divisor, bits)
        quotient = abs(dividend) // abs(divisor)
        if (dividend < 0) != (divisor < 0):
            quotient = -quotient
        if not least <= quotient <= most:
            raise GuestFault(faults.DE)
        remainder = (dividend - quotient * divisor) & mask
        quotient &= mask
        if bits == 8:
            registers[EAX] = registers[EAX] & 0xFFFF_0000 | remainder << 8 | quotient
        else:
            keep = MASK32 & ~mask
            registers[EAX] = registers[EAX] & keep | quotient
            registers[EDX] = registers[EDX] & keep | remainder

    return operation


def div(ops: Operands) -> Operation:
    """DIV; leaves the flags, which are undefined."""
    return _divide(ops, with_sign=False)


def idiv(ops: Operands) -> Operation:
    """IDIV; leaves the flags, which are undefined."""
    return _divide(ops, with_sign=True)


def xadd(ops: Operands) -> Operation:
    """XADD."""
    size, state = ops.size(0), ops.execution.state
    bits, mask = 8 * size, (1 << 8 * size) - 1
    (load, store), read, write = ops.changer(0, size), ops.reader(1, size), ops.writer(1, size)

    def operation() -> None:
        left, right = load(), read()
        total = left + right
        if ops.is_memory(0):
            store(total & mask)
            write(left)
        else:  # the sum wins where both are the same register
            write(left)
            store(total & mask)
        state.eflags = state.eflags & KEEP | of_sum(left, right, total, bits)

    return operation


def cmpxchg(ops: Operands) -> Operation:
    """CMPXCHG; memory is written in either case."""
    size, state, registers = ops.size(0), ops.execution.state, ops.execution.registers
    bits, mask = 8 * size, (1 << 8 * size) - 1
    (load, store), read = ops.changer(0, size), ops.reader(1, size)

    def operation() -> None:
        value, wanted = load(), registers[EAX] & mask
        if value == wanted:
            store(read())
        else:
            store(value)
            registers[EAX] = registers[EAX] & ~mask | value
        state.eflags = state.eflags & KEEP | of_difference(wanted, value, wanted - value, bits)

    return operation


def cmpxchg8b(ops: Operands) -> Operation:
    """CMPXCHG8B."""
    state, registers = ops.execution.state, ops.execution.registers
    load, store = ops.changer(0, 8)

    def operation() -> None:
        value = load()
        if value == registers[EDX] << 32 | registers[EAX]:
            store(registers[ECX] << 32 | registers[EBX])
            state.eflags |= ZF
        else:
            store(value)
            registers[EAX], registers[EDX] = value & MASK32, value >> 32
            state.eflags &= ~ZF

    return operation


def setcc(ops: Operands) -> Operation:
    """SETcc."""
    condition, state, write = condition_of(ops), ops.execution.state, ops.writer(0, 1)
    return lambda: write(1 if condition(state.eflags) else 0)


def cmovcc(ops: Operands) -> Operation:
    """CMOVcc: the source is read in either case."""
    condition, state, size = condition_of(ops), ops.execution.state, ops.size(0)
    read, write = ops.reader(1, size), ops.writer(0, size)

    def operation() -> None:
        value = read()
        if condition(state.eflags):
            write(value)

    return operation


def xlatb(ops: Operands) -> Operation:
    """XLAT."""
    registers, execution, number = ops.execution.registers, ops.execution, ops.segment
    mask = 0xFFFF if ops.address_size == 2 else MASK32

    def operation() -> None:
        offset = registers[EBX] + (registers[EAX] & 0xFF) & mask
        registers[EAX] = registers[EAX] & ~0xFF | execution.read(number, offset, 1)

    return operation


def _convert(change: Callable[[list[int]], None]) -> Compile:
    def compile_it(ops: Operands) -> Operation:
        registers = ops.execution.registers
        return lambda: change(registers)

    return compile_it


def _cbw(registers: list[int]) -> None:
    registers[EAX] = registers[EAX] & ~0xFFFF | signed(registers[EAX] & 0xFF, 8) & 0xFFFF


def _cwde(registers: list[int]) -> None:
    registers[EAX] = signed(registers[EAX] & 0xFFFF, 16) & MASK32


def _cwd(registers: list[int]) -> None:
    registers[EDX] = registers[EDX] & ~0xFFFF | (0xFFFF if registers[EAX] & 0x8000 else 0)


def _cdq(registers: list[int]) -> None:
    registers[EDX] = MASK32 if registers[EAX] >> 31 else 0


def _flags(change: Callable[[int], int]) -> Compile:
    def compile_it(ops: Operands) -> Operation:
        state = ops.execution.state

        def operation() -> None:
            state.eflags = change(state.eflags)

        return operation

    return compile_it


def lahf(ops: Operands) -> Operation:
    """LAHF."""
    state = ops.execution.state
    return lambda: state.set8(4, state.eflags & (SF | ZF | AF | PF | CF) | 2)


def sahf(ops: Operands) -> Operation:
    """SAHF."""
    state, taken = ops.execution.state, SF | ZF | AF | PF | CF

    def operation() -> None:
        state.eflags = state.eflags & ~taken | state.get8(4) & taken

    return operation


def salc(ops: Operands) -> Operation:
    """SALC, undocumented: AL is all carry."""
    state = ops.execution.state
    return lambda: state.set8(0, 0xFF if state.eflags & CF else 0)


def nothing(ops: Operands) -> Operation:
    """NOP, PAUSE, prefetches and fences: with one processor there is nothing to do."""
    return lambda: None


M = Mnemonic
TABLE: Final[dict[int, Compile]] = {
    M.MOV: mov, M.MOVZX: movzx, M.MOVSX: movsx, M.LEA: lea, M.XCHG: xchg, M.XLATB: xlatb,
    M.ADD: add, M.ADC: adc, M.SUB: sub, M.SBB: sbb, M.CMP: cmp, M.TEST: test, M.NEG: neg, M.NOT: not_,
    M.AND: _logic(int.__and__), M.OR: _logic(int.__or__), M.XOR: _logic(int.__xor__),
    M.INC: _step_by_one(1), M.DEC: _step_by_one(-1),
    M.MUL: mul, M.IMUL: imul, M.DIV: div, M.IDIV: idiv,
    M.XADD: xadd, M.CMPXCHG: cmpxchg, M.CMPXCHG8B: cmpxchg8b,
    M.CBW: _convert(_cbw), M.CWDE: _convert(_cwde), M.CWD: _convert(_cwd), M.CDQ: _convert(_cdq),
    M.CLC: _flags(lambda flags: flags & ~CF), M.STC: _flags(lambda flags: flags | CF),
    M.CMC: _flags(lambda flags: flags ^ CF),
    M.CLD: _flags(lambda flags: flags & ~DF), M.STD: _flags(lambda flags: flags | DF),
    M.LAHF: lahf, M.SAHF: sahf, M.SALC: salc,
    M.NOP: nothing, M.PAUSE: nothing, M.PREFETCHNTA: nothing, M.PREFETCHT0: nothing, M.PREFETCHT1: nothing,
    M.PREFETCHT2: nothing, M.PREFETCHW: nothing, M.LFENCE: nothing, M.MFENCE: nothing, M.SFENCE: nothing,
}  # fmt: skip
for _mnemonic in (M.SETO, M.SETNO, M.SETB, M.SETAE, M.SETE, M.SETNE, M.SETBE, M.SETA,
                  M.SETS, M.SETNS, M.SETP, M.SETNP, M.SETL, M.SETGE, M.SETLE, M.SETG):  # fmt: skip
    TABLE[_mnemonic] = setcc
for _mnemonic in (M.CMOVO, M.CMOVNO, M.CMOVB, M.CMOVAE, M.CMOVE, M.CMOVNE, M.CMOVBE, M.CMOVA,
                  M.CMOVS, M.CMOVNS, M.CMOVP, M.CMOVNP, M.CMOVL, M.CMOVGE, M.CMOVLE, M.CMOVG):  # fmt: skip
    TABLE[_mnemonic] = cmovcc
