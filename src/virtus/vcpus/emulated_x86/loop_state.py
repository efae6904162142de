"""What the instructions of a loop work on, in LLVM's language: registers, flags, vectors, and the guest's memory.

Within the function they are local variables, which LLVM keeps in the host's registers; `_leave` stores them. Memory is
looked at before each access: what must not be used so leaves the loop before the instruction.
"""

from typing import Any, Final

from iced_x86 import ConditionCode, Instruction, OpKind, Register, RegisterInfo
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


class Refused(Exception):
    """An instruction that is not translated here."""


class LoopState:
    """The function of a loop, and what it works on. `base` is where guest memory begins for the host, `rights` its map
    of pages' rights, `stop` a byte that asks to leave."""

    def __init__(self, *, base: int, rights: int, stop: int, name: str) -> None:
        self.module = ir.Module(name=name)
        signature = ir.FunctionType(I64, [I64.as_pointer()])
        self.function = ir.Function(self.module, signature, name=name)
        self._state = self.function.args[0]
        self._base, self._rights, self._stop = base, rights, stop
        self._b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self._general: dict[int, Any] = {}
        self._vectors: dict[int, Any] = {}
        self._flags = {name: self._b.alloca(I1, name=name) for name in BITS}
        self._turns = self._b.alloca(I64, name="turns")
        self._b.store(I64(0), self._turns)
        self._leaving: dict[int, Any] = {}
        for number in range(16):
            self._general[number] = self._b.alloca(I64)
            self._vectors[number] = self._b.alloca(PAIR)
        self._load_all()

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


def _number(register: Any) -> int:
    """The processor's number of a general register of any size. (The decoder counts those of 8 bits otherwise.)"""
    return int(RegisterInfo(register).full_register) - int(Register.RAX)


def _refuse(what: str) -> Any:
    raise Refused(what)


def _memory_sizes() -> dict[int, int]:
    from iced_x86 import MemorySize

    names = {1: "UINT8 INT8", 2: "UINT16 INT16", 4: "UINT32 INT32", 8: "UINT64 INT64"}
    return {getattr(MemorySize, name): size for size, words in names.items() for name in words.split()}


_MEMORY_SIZES: Final = _memory_sizes()
