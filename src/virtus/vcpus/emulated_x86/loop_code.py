"""A loop of x86-64 instructions as a function of LLVM's language.

What is not here is refused, and the loop stays with Unicorn. The function leaves the loop where the program does,
before an access to memory that must be looked at (no right, an end of a page, code that is written), and when it is
asked to: registers, flags and memory are then as the processor has them. Rounding is to nearest and exceptions are
masked; who calls makes sure of that. The status bits of MXCSR are not kept. Source: Intel SDM volume 2.
"""

from collections.abc import Callable
from typing import Any, Final

from iced_x86 import ConditionCode, FlowControl, Instruction, Mnemonic, OpKind, Register, RegisterInfo
from llvmlite import ir

from virtus.vcpus.emulated_x86.memory import PAGE

I1, I8, I32, I64, I128 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.IntType(128)
DOUBLE, FLOAT = ir.DoubleType(), ir.FloatType()
PAIR, QUAD = ir.VectorType(DOUBLE, 2), ir.VectorType(FLOAT, 4)
FLAGS_WORD, RIP_WORD, MXCSR_WORD, VECTORS_WORD, STATE_WORDS = 16, 17, 18, 20, 52
"""Places in the state: sixteen general registers, flags, RIP, MXCSR, and sixteen vectors of two words."""
SPACE_BITS: Final = 42
BITS: Final = {"CF": 0, "PF": 2, "AF": 4, "ZF": 6, "SF": 7, "OF": 11}
ALL_FLAGS: Final = sum(1 << bit for bit in BITS.values())
HIGH_BYTES: Final = (Register.AH, Register.CH, Register.DH, Register.BH)

ARITHMETIC: Final = {
    Mnemonic.ADD: "add", Mnemonic.SUB: "sub", Mnemonic.CMP: "sub", Mnemonic.AND: "and_", Mnemonic.OR: "or_",
    Mnemonic.XOR: "xor", Mnemonic.TEST: "and_",
}  # fmt: skip
NOTHING: Final = (Mnemonic.NOP, Mnemonic.PAUSE, Mnemonic.ENDBR64)
COMPARES: Final = (Mnemonic.CMP, Mnemonic.TEST)
SHIFTS: Final = {Mnemonic.SHL: "shl", Mnemonic.SHR: "lshr", Mnemonic.SAR: "ashr"}
MOVES: Final = {
    Mnemonic.MOVAPS, Mnemonic.MOVAPD, Mnemonic.MOVUPS, Mnemonic.MOVUPD, Mnemonic.MOVDQA, Mnemonic.MOVDQU,
}  # fmt: skip
_FLOATING: Final = {"ADD": "fadd", "SUB": "fsub", "MUL": "fmul", "DIV": "fdiv", "MIN": "min", "MAX": "max"}
SCALAR: Final = {
    getattr(Mnemonic, name + suffix): (how, kind)
    for name, how in _FLOATING.items()
    for suffix, kind in (("SD", DOUBLE), ("SS", FLOAT))
}
PACKED: Final = {
    getattr(Mnemonic, name + suffix): (how, kind)
    for name, how in _FLOATING.items()
    for suffix, kind in (("PD", PAIR), ("PS", QUAD))
}
BITWISE: Final = {
    Mnemonic.XORPS: "xor", Mnemonic.XORPD: "xor", Mnemonic.PXOR: "xor", Mnemonic.ANDPS: "and_",
    Mnemonic.ANDPD: "and_", Mnemonic.PAND: "and_", Mnemonic.ORPS: "or_", Mnemonic.ORPD: "or_", Mnemonic.POR: "or_",
}  # fmt: skip
LANES: Final = {
    Mnemonic.PADDB: ("add", 8), Mnemonic.PADDW: ("add", 16), Mnemonic.PADDD: ("add", 32), Mnemonic.PADDQ: ("add", 64),
    Mnemonic.PSUBB: ("sub", 8), Mnemonic.PSUBW: ("sub", 16), Mnemonic.PSUBD: ("sub", 32), Mnemonic.PSUBQ: ("sub", 64),
    Mnemonic.PMULLW: ("mul", 16), Mnemonic.PMULLD: ("mul", 32),
}  # fmt: skip


class Refused(Exception):
    """An instruction that is not translated here."""


class Loop:
    """The translation of one loop: `blocks` by address, each its instructions; `head` is one of them."""

    def __init__(
        self, blocks: dict[int, list[Instruction]], head: int, *, base: int, rights: int, stop: int, name: str
    ) -> None:
        self.module = ir.Module(name=name)
        signature = ir.FunctionType(I64, [I64.as_pointer()])
        self.function = ir.Function(self.module, signature, name=name)
        self._state = self.function.args[0]
        self._base, self._rights, self._stop = base, rights, stop
        self._head = head
        entry = self.function.append_basic_block("entry")
        self._b = ir.IRBuilder(entry)
        self._general: dict[int, Any] = {}
        self._vectors: dict[int, Any] = {}
        self._written: set[tuple[str, int]] = set()
        self._flags = {name: self._b.alloca(I1, name=name) for name in BITS}
        self._turns = self._b.alloca(I64, name="turns")
        self._b.store(I64(0), self._turns)
        self._leaving: dict[int, Any] = {}
        for number in range(16):
            self._general[number] = self._b.alloca(I64)
            self._vectors[number] = self._b.alloca(PAIR)
        self._load_all()
        self._blocks = {address: self.function.append_basic_block(f"at_{address:x}") for address in blocks}
        self._b.branch(self._blocks[head])
        for address, instructions in blocks.items():
            self._block(address, instructions)

    # State --------------------------------------------------------------------------------------------------------

    def _word(self, index: int) -> Any:
        return self._b.gep(self._state, [I64(index)])

    def _load_all(self) -> None:
        b = self._b
        flags = b.load(self._word(FLAGS_WORD))
        for name, bit in BITS.items():
            b.store(b.trunc(b.lshr(flags, I64(bit)), I1), self._flags[name])
        for number in range(16):
            b.store(b.load(self._word(number)), self._general[number])
            vector = b.bitcast(self._word(VECTORS_WORD + 2 * number), PAIR.as_pointer())
            b.store(b.load(vector, align=8), self._vectors[number])

    def _leave(self, address: int) -> Any:
        """The block that stores everything and goes on at `address`."""
        if address not in self._leaving:
            block = self._leaving[address] = self.function.append_basic_block(f"leave_{address:x}")
            with self._b.goto_block(block):
                b = self._b
                flags = b.and_(b.load(self._word(FLAGS_WORD)), I64(~ALL_FLAGS & (1 << 64) - 1))
                for name, bit in BITS.items():
                    flags = b.or_(flags, b.shl(b.zext(b.load(self._flags[name]), I64), I64(bit)))
                b.store(flags, self._word(FLAGS_WORD))
                b.store(I64(address), self._word(RIP_WORD))
                for number in range(16):
                    b.store(b.load(self._general[number]), self._word(number))
                    vector = b.bitcast(self._word(VECTORS_WORD + 2 * number), PAIR.as_pointer())
                    b.store(b.load(self._vectors[number]), vector, align=8)
                b.ret(b.load(self._turns))
        return self._leaving[address]

    def _go(self, source: int, address: int) -> Any:
        """Where a jump goes: a block, or out. To the head and backwards only where nobody wants us to stop."""
        if address not in self._blocks:
            return self._leave(address)
        if address != self._head and address > source:
            return self._blocks[address]
        again = self.function.append_basic_block("again")
        with self._b.goto_block(again):
            b = self._b
            b.store(b.add(b.load(self._turns), I64(1)), self._turns)
            place = b.inttoptr(I64(self._stop), I8.as_pointer())
            stop = b.load_atomic(place, "monotonic", 1)  # at every turn: another thread sets it
            asked = b.icmp_unsigned("!=", stop, I8(0))
            b.cbranch(asked, self._leave(address), self._blocks[address])
        return again

    # Memory -------------------------------------------------------------------------------------------------------

    def _address(self, instruction: Instruction) -> Any:
        if instruction.memory_segment in (Register.FS, Register.GS):
            raise Refused("a segment")
        b = self._b
        if instruction.is_ip_rel_memory_operand:
            return I64(instruction.ip_rel_memory_address)
        value = I64(instruction.memory_displacement)
        if instruction.memory_base != Register.NONE:
            value = b.add(value, self._full(instruction.memory_base))
        if instruction.memory_index != Register.NONE:
            scale = I64(instruction.memory_index_scale)
            value = b.add(value, b.mul(self._full(instruction.memory_index), scale))
        return value

    def _full(self, register: Any) -> Any:
        info = RegisterInfo(register)
        if info.size != 8:
            raise Refused("an address of 32 bits")
        return self._b.load(self._general[_number(register)])

    def _checked(self, instruction: Instruction, address: Any, size: int, *, write: bool) -> Any:
        """A host pointer to guest memory; out of the loop, before the instruction, where that must not be used so."""
        b = self._b
        inside = b.icmp_unsigned("==", b.lshr(address, I64(SPACE_BITS)), I64(0))
        page = b.and_(b.lshr(address, I64(12)), I64((1 << SPACE_BITS - 12) - 1))
        rights = b.load(b.inttoptr(b.add(I64(self._rights), page), I8.as_pointer()))
        wanted = b.and_(rights, I8(6 if write else 1))  # no stores where code may be
        allowed = b.icmp_unsigned("==", wanted, I8(2 if write else 1))
        fits = b.icmp_unsigned("<=", b.and_(address, I64(PAGE - 1)), I64(PAGE - size))
        good = self.function.append_basic_block()
        b.cbranch(b.and_(b.and_(inside, allowed), fits), good, self._leave(instruction.ip))
        b.position_at_end(good)
        return b.add(I64(self._base), address)

    def _load(self, instruction: Instruction, kind: Any, size: int) -> Any:
        place = self._checked(instruction, self._address(instruction), size, write=False)
        return self._b.load(self._b.inttoptr(place, kind.as_pointer()), align=1)

    def _store(self, instruction: Instruction, value: Any, size: int) -> None:
        place = self._checked(instruction, self._address(instruction), size, write=True)
        self._b.store(value, self._b.inttoptr(place, value.type.as_pointer()), align=1)

    # Operands -----------------------------------------------------------------------------------------------------

    def _size(self, instruction: Instruction, index: int) -> int:
        """Bytes of an integer operand."""
        if instruction.op_kind(index) == OpKind.REGISTER:
            register = instruction.op_register(index)
            if register in HIGH_BYTES or not Register.AL <= register <= Register.R15:
                raise Refused("a register")
            return RegisterInfo(register).size
        if instruction.op_kind(index) == OpKind.MEMORY:
            size = _MEMORY_SIZES.get(instruction.memory_size)
            if size is not None:
                return size
        raise Refused("an operand")

    def _read(self, instruction: Instruction, index: int, size: int) -> Any:
        kind = ir.IntType(8 * size)
        what = instruction.op_kind(index)
        if what == OpKind.REGISTER:
            if self._size(instruction, index) != size:
                raise Refused("operands of different sizes")
            value = self._b.load(self._general[_number(instruction.op_register(index))])
            return value if size == 8 else self._b.trunc(value, kind)
        if what == OpKind.MEMORY:
            return self._load(instruction, kind, size)
        return kind(instruction.immediate(index) & (1 << 8 * size) - 1)

    def _write(self, instruction: Instruction, index: int, value: Any, size: int) -> None:
        if instruction.op_kind(index) == OpKind.MEMORY:
            self._store(instruction, value, size)
            return
        self._set(instruction.op_register(index), value, size)

    def _set(self, register: Any, value: Any, size: int) -> None:
        b = self._b
        place = self._general[_number(register)]
        if size == 4:
            value = b.zext(value, I64)
        elif size < 4:
            kept = b.and_(b.load(place), I64(-1 << 8 * size & (1 << 64) - 1))
            value = b.or_(kept, b.zext(value, I64))
        b.store(value, place)

    def _vector(self, instruction: Instruction, index: int, kind: Any, size: int = 16) -> Any:
        """A vector operand, or the low part of one, as `kind`."""
        if instruction.op_kind(index) == OpKind.MEMORY:
            return self._load(instruction, kind, size)
        value = self._b.load(self._vectors[self._number(instruction.op_register(index))])
        if size == 16:
            return self._b.bitcast(value, kind) if kind != PAIR else value
        lanes = ir.VectorType(kind, 16 // size)
        return self._b.extract_element(self._b.bitcast(value, lanes) if lanes != PAIR else value, I32(0))

    @staticmethod
    def _number(register: int) -> int:
        if not Register.XMM0 <= register <= Register.XMM15:
            raise Refused("a vector register")
        return register - Register.XMM0

    def _set_vector(self, register: int, value: Any) -> None:
        value = value if value.type == PAIR else self._b.bitcast(value, PAIR)
        self._b.store(value, self._vectors[self._number(register)])

    def _set_low(self, register: int, value: Any) -> None:
        """The low lane; the others stay."""
        lanes = ir.VectorType(value.type, 2 if value.type in (DOUBLE, I64) else 4)
        before = self._b.bitcast(self._b.load(self._vectors[self._number(register)]), lanes)
        self._set_vector(register, self._b.insert_element(before, value, I32(0)))

    # Flags --------------------------------------------------------------------------------------------------------

    def _flag(self, name: str, value: Any) -> None:
        self._b.store(value, self._flags[name])

    def _result_flags(self, result: Any) -> None:
        b = self._b
        self._flag("ZF", b.icmp_unsigned("==", result, result.type(0)))
        self._flag("SF", b.icmp_signed("<", result, result.type(0)))
        low = b.trunc(result, I8) if result.type.width > 8 else result
        self._flag("PF", b.icmp_unsigned("==", b.and_(b.ctpop(low), I8(1)), I8(0)))

    def _arithmetic_flags(self, how: str, left: Any, right: Any, result: Any, *, carry: bool = True) -> None:
        b, kind = self._b, left.type
        self._result_flags(result)
        if how in ("and_", "or_", "xor"):
            for name in ("CF", "OF", "AF"):
                self._flag(name, I1(0))
            return
        mixed = b.xor(b.xor(left, right), result)
        self._flag("AF", b.icmp_unsigned("!=", b.and_(mixed, kind(16)), kind(0)))
        if how == "add":
            over = b.and_(b.xor(left, result), b.xor(right, result))
            carried = b.icmp_unsigned("<", result, left)
        else:
            over = b.and_(b.xor(left, right), b.xor(left, result))
            carried = b.icmp_unsigned("<", left, right)
        self._flag("OF", b.icmp_signed("<", over, kind(0)))
        if carry:
            self._flag("CF", carried)

    def _condition(self, code: Any) -> Any:
        b = self._b

        def flag(name: str) -> Any:
            return b.load(self._flags[name])

        plain = {
            ConditionCode.O: lambda: flag("OF"), ConditionCode.B: lambda: flag("CF"),
            ConditionCode.E: lambda: flag("ZF"),
            ConditionCode.BE: lambda: b.or_(flag("CF"), flag("ZF")), ConditionCode.S: lambda: flag("SF"),
            ConditionCode.P: lambda: flag("PF"), ConditionCode.L: lambda: b.xor(flag("SF"), flag("OF")),
            ConditionCode.LE: lambda: b.or_(flag("ZF"), b.xor(flag("SF"), flag("OF"))),
        }  # fmt: skip
        opposite = {
            ConditionCode.NO: ConditionCode.O, ConditionCode.AE: ConditionCode.B, ConditionCode.NE: ConditionCode.E,
            ConditionCode.A: ConditionCode.BE, ConditionCode.NS: ConditionCode.S, ConditionCode.NP: ConditionCode.P,
            ConditionCode.GE: ConditionCode.L, ConditionCode.G: ConditionCode.LE,
        }  # fmt: skip
        if code in plain:
            return plain[code]()
        if code in opposite:
            return b.not_(plain[opposite[code]]())
        return _refuse("a condition")

    # Instructions -------------------------------------------------------------------------------------------------

    def _block(self, address: int, instructions: list[Instruction]) -> None:
        b = self._b
        b.position_at_end(self._blocks[address])
        for instruction in instructions:
            flow = instruction.flow_control
            if flow == FlowControl.NEXT:
                try:
                    self._instruction(instruction)
                except Refused as refused:
                    raise Refused(refused.args[0], instruction.ip) from None
            elif flow == FlowControl.UNCONDITIONAL_BRANCH:
                b.branch(self._go(instruction.ip, instruction.near_branch_target))
                return
            elif flow == FlowControl.CONDITIONAL_BRANCH and instruction.condition_code != ConditionCode.NONE:
                taken = self._condition(instruction.condition_code)
                here, following = instruction.ip, instruction.next_ip
                b.cbranch(taken, self._go(here, instruction.near_branch_target), self._go(here, following))
                return
            else:
                raise Refused("a call or a return")
        b.branch(self._go(instructions[-1].ip, instructions[-1].next_ip))

    def _instruction(self, instruction: Instruction) -> None:
        if not known(instruction):
            raise Refused("an instruction")
        if instruction.mnemonic not in NOTHING:
            _HANDLERS[instruction.mnemonic](self, instruction)

    def _arithmetic(self, instruction: Instruction) -> None:
        how = ARITHMETIC[instruction.mnemonic]
        size = self._size(instruction, 0)
        left, right = self._read(instruction, 0, size), self._read(instruction, 1, size)
        result = getattr(self._b, how)(left, right)
        if instruction.mnemonic not in COMPARES:
            self._write(instruction, 0, result, size)
        self._arithmetic_flags(how, left, right, result)

    def _step(self, instruction: Instruction) -> None:
        how = "add" if instruction.mnemonic == Mnemonic.INC else "sub"
        size = self._size(instruction, 0)
        left = self._read(instruction, 0, size)
        result = getattr(self._b, how)(left, left.type(1))
        self._write(instruction, 0, result, size)
        self._arithmetic_flags(how, left, left.type(1), result, carry=False)

    def _negate(self, instruction: Instruction) -> None:
        size = self._size(instruction, 0)
        value = self._read(instruction, 0, size)
        if instruction.mnemonic == Mnemonic.NOT:
            self._write(instruction, 0, self._b.not_(value), size)
            return
        result = self._b.sub(value.type(0), value)
        self._write(instruction, 0, result, size)
        self._arithmetic_flags("sub", value.type(0), value, result)

    def _shift(self, instruction: Instruction) -> None:
        size = self._size(instruction, 0)
        if instruction.op_kind(1) == OpKind.REGISTER:
            raise Refused("a shift by a register")
        count = instruction.immediate(1) & (63 if size == 8 else 31)
        if not 0 < count < 8 * size:
            raise Refused("a shift by all bits or none")
        b = self._b
        value = self._read(instruction, 0, size)
        how = SHIFTS[instruction.mnemonic]
        result = getattr(b, how)(value, value.type(count))
        self._write(instruction, 0, result, size)
        out = 8 * size - count if how == "shl" else count - 1
        carry = b.trunc(b.lshr(value, value.type(out)), I1)
        self._flag("CF", carry)
        if how == "shl":  # for more than one bit it is undefined; so it is what Unicorn makes it
            self._flag("OF", b.xor(carry, b.icmp_signed("<", result, value.type(0))))
        else:
            self._flag("OF", b.icmp_signed("<", value, value.type(0)) if how == "lshr" and count == 1 else I1(0))
        self._flag("AF", I1(0))
        self._result_flags(result)

    def _multiply(self, instruction: Instruction) -> None:
        if instruction.op_count < 2:
            raise Refused("a product of two words")
        size = self._size(instruction, 0)
        first = 0 if instruction.op_count == 2 else 1
        left, right = self._read(instruction, first, size), self._read(instruction, first + 1, size)
        b, wide = self._b, ir.IntType(16 * size)
        whole = b.mul(b.sext(left, wide), b.sext(right, wide))
        result = b.trunc(whole, left.type)
        self._write(instruction, 0, result, size)
        lost = b.icmp_unsigned("!=", b.sext(result, wide), whole)
        self._result_flags(result)
        self._flag("AF", I1(0))
        self._flag("CF", lost)
        self._flag("OF", lost)

    def _move(self, instruction: Instruction) -> None:
        size = self._size(instruction, 0)
        self._write(instruction, 0, self._read(instruction, 1, size), size)

    def _extend(self, instruction: Instruction) -> None:
        size, source = self._size(instruction, 0), self._size(instruction, 1)
        extend = self._b.zext if instruction.mnemonic == Mnemonic.MOVZX else self._b.sext
        value = self._read(instruction, 1, source)
        self._write(instruction, 0, extend(value, ir.IntType(8 * size)) if source < size else value, size)

    def _widen(self, instruction: Instruction) -> None:
        b = self._b
        if instruction.mnemonic == Mnemonic.CDQE:
            low = b.trunc(b.load(self._general[0]), I32)
            self._set(Register.RAX, b.sext(low, I64), 8)
        else:
            low = b.trunc(b.load(self._general[0]), ir.IntType(16))
            self._set(Register.EAX, b.sext(low, I32), 4)

    def _lea(self, instruction: Instruction) -> None:
        size = self._size(instruction, 0)
        value = self._address(instruction)
        self._write(instruction, 0, value if size == 8 else self._b.trunc(value, ir.IntType(8 * size)), size)

    def _conditional_move(self, instruction: Instruction) -> None:
        size = self._size(instruction, 0)
        new, old = self._read(instruction, 1, size), self._read(instruction, 0, size)
        taken = self._condition(instruction.condition_code)
        self._write(instruction, 0, self._b.select(taken, new, old), size)

    def _set_condition(self, instruction: Instruction) -> None:
        size = self._size(instruction, 0)
        self._write(instruction, 0, self._b.zext(self._condition(instruction.condition_code), I8), size)

    # Vectors ------------------------------------------------------------------------------------------------------

    def _vector_move(self, instruction: Instruction) -> None:
        value = self._vector(instruction, 1, PAIR)
        if instruction.op_kind(0) == OpKind.MEMORY:
            self._store(instruction, value, 16)
        else:
            self._set_vector(instruction.op_register(0), value)

    def _scalar_move(self, instruction: Instruction) -> None:
        kind, size = (DOUBLE, 8) if instruction.mnemonic == Mnemonic.MOVSD else (FLOAT, 4)
        if instruction.op_count != 2 or OpKind.MEMORY not in (instruction.op_kind(0), instruction.op_kind(1)):
            if instruction.op_kind(0) != OpKind.REGISTER or instruction.op_kind(1) != OpKind.REGISTER:
                raise Refused("a string instruction")
            self._set_low(instruction.op_register(0), self._vector(instruction, 1, kind, size))
        elif instruction.op_kind(0) == OpKind.MEMORY:
            self._store(instruction, self._vector(instruction, 1, kind, size), size)
        else:
            lanes = ir.VectorType(kind, 16 // size)
            value = self._b.insert_element(ir.Constant(lanes, None), self._load(instruction, kind, size), I32(0))
            self._set_vector(instruction.op_register(0), value)

    def _floating(self, how: str, left: Any, right: Any) -> Any:
        b = self._b
        if how in ("min", "max"):  # the second operand where they are equal or one is no number
            return b.select(b.fcmp_ordered("<" if how == "min" else ">", left, right), left, right)
        return getattr(b, how)(left, right)

    def _scalar(self, instruction: Instruction) -> None:
        how, kind = SCALAR[instruction.mnemonic]
        size = 8 if kind == DOUBLE else 4
        right = self._vector(instruction, 1, kind, size)
        left = self._vector(instruction, 0, kind, size)
        self._set_low(instruction.op_register(0), self._floating(how, left, right))

    def _packed(self, instruction: Instruction) -> None:
        how, kind = PACKED[instruction.mnemonic]
        right, left = self._vector(instruction, 1, kind), self._vector(instruction, 0, kind)
        self._set_vector(instruction.op_register(0), self._floating(how, left, right))

    def _bitwise(self, instruction: Instruction) -> None:
        how = BITWISE[instruction.mnemonic]
        right, left = self._vector(instruction, 1, I128), self._vector(instruction, 0, I128)
        self._set_vector(instruction.op_register(0), getattr(self._b, how)(left, right))

    def _lanes(self, instruction: Instruction) -> None:
        how, width = LANES[instruction.mnemonic]
        kind = ir.VectorType(ir.IntType(width), 128 // width)
        right, left = self._vector(instruction, 1, kind), self._vector(instruction, 0, kind)
        self._set_vector(instruction.op_register(0), getattr(self._b, how)(left, right))

    def _unpack(self, instruction: Instruction) -> None:
        index = 1 if instruction.mnemonic == Mnemonic.UNPCKHPD else 0
        right, left = self._vector(instruction, 1, PAIR), self._vector(instruction, 0, PAIR)
        mask = ir.Constant(ir.VectorType(I32, 2), [index, 2 + index])
        self._set_vector(instruction.op_register(0), self._b.shuffle_vector(left, right, mask))

    def _compare(self, instruction: Instruction) -> None:
        double = instruction.mnemonic in (Mnemonic.COMISD, Mnemonic.UCOMISD)
        kind, size = (DOUBLE, 8) if double else (FLOAT, 4)
        right, left = self._vector(instruction, 1, kind, size), self._vector(instruction, 0, kind, size)
        b = self._b
        self._flag("ZF", b.fcmp_unordered("==", left, right))
        self._flag("CF", b.fcmp_unordered("<", left, right))
        self._flag("PF", b.fcmp_unordered("uno", left, right))
        for name in ("OF", "SF", "AF"):
            self._flag(name, I1(0))

    def _convert(self, instruction: Instruction) -> None:
        b, mnemonic = self._b, instruction.mnemonic
        if mnemonic in (Mnemonic.CVTSI2SD, Mnemonic.CVTSI2SS):
            value = self._read(instruction, 1, self._size(instruction, 1))
            self._set_low(
                instruction.op_register(0), b.sitofp(value, DOUBLE if mnemonic == Mnemonic.CVTSI2SD else FLOAT)
            )
        elif mnemonic == Mnemonic.CVTSS2SD:
            self._set_low(instruction.op_register(0), b.fpext(self._vector(instruction, 1, FLOAT, 4), DOUBLE))
        else:
            self._set_low(instruction.op_register(0), b.fptrunc(self._vector(instruction, 1, DOUBLE, 8), FLOAT))


def known(instruction: Instruction) -> bool:
    """Whether instructions of this kind are translated; with some operands they are not, all the same."""
    if instruction.has_lock_prefix or instruction.has_rep_prefix or instruction.has_repne_prefix:
        return False
    return instruction.mnemonic in _HANDLERS or instruction.mnemonic in NOTHING


def _number(register: Any) -> int:
    """The processor's number of a general register of any size. (The decoder counts those of 8 bits otherwise.)"""
    return int(RegisterInfo(register).full_register) - int(Register.RAX)


def _refuse(what: str) -> Any:
    raise Refused(what)


def _memory_sizes() -> dict[int, int]:
    from iced_x86 import MemorySize

    names = {1: "UINT8 INT8", 2: "UINT16 INT16", 4: "UINT32 INT32", 8: "UINT64 INT64"}
    return {getattr(MemorySize, name): size for size, words in names.items() for name in words.split()}


def _handlers() -> dict[int, Callable[[Loop, Instruction], None]]:
    own = Loop.__dict__
    groups: dict[str, Any] = {
        "_arithmetic": ARITHMETIC, "_step": (Mnemonic.INC, Mnemonic.DEC), "_negate": (Mnemonic.NEG, Mnemonic.NOT),
        "_shift": SHIFTS, "_multiply": (Mnemonic.IMUL,), "_move": (Mnemonic.MOV,), "_lea": (Mnemonic.LEA,),
        "_extend": (Mnemonic.MOVZX, Mnemonic.MOVSX, Mnemonic.MOVSXD), "_widen": (Mnemonic.CDQE, Mnemonic.CWDE),
        "_vector_move": MOVES, "_scalar_move": (Mnemonic.MOVSD, Mnemonic.MOVSS), "_scalar": SCALAR, "_packed": PACKED,
        "_bitwise": BITWISE, "_lanes": LANES, "_unpack": (Mnemonic.UNPCKLPD, Mnemonic.UNPCKHPD),
        "_compare": (Mnemonic.COMISD, Mnemonic.UCOMISD, Mnemonic.COMISS, Mnemonic.UCOMISS),
        "_convert": (Mnemonic.CVTSI2SD, Mnemonic.CVTSI2SS, Mnemonic.CVTSS2SD, Mnemonic.CVTSD2SS),
        "_conditional_move": _named("CMOV"), "_set_condition": _named("SET"),
    }  # fmt: skip
    return {mnemonic: own[name] for name, mnemonics in groups.items() for mnemonic in mnemonics}


def _named(prefix: str) -> list[int]:
    endings = "O NO B AE E NE BE A S NS P NP L GE LE G".split()  # noqa: SIM905  # sixteen words, as the manual lists them
    return [getattr(Mnemonic, prefix + ending) for ending in endings]


_MEMORY_SIZES: Final = _memory_sizes()
_HANDLERS: Final = _handlers()
