"""A loop of x86-64 instructions as a function of LLVM's language.

What is not here is refused, and the loop stays with Unicorn. The function leaves the loop where the program does,
before an access to memory that must be looked at (no right, an end of a page, code that is written), and when it is
asked to: registers, flags and memory are then as the processor has them. Rounding is to nearest and exceptions are
masked; who calls makes sure of that. The status bits of MXCSR are not kept. Source: Intel SDM volume 2.
"""

from collections.abc import Callable
from typing import Any, Final

from iced_x86 import ConditionCode, FlowControl, Instruction, Mnemonic, OpKind, Register
from llvmlite import ir

from virtus.vcpus.emulated_x86.loop_state import (
    DOUBLE,
    FLOAT,
    I1,
    I8,
    I32,
    I64,
    I128,
    PAIR,
    QUAD,
    LoopState,
    Refused,
)

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


class Loop(LoopState):
    """The translation of one loop: `blocks` by address, each its instructions; `head` is one of them."""

    def __init__(
        self, blocks: dict[int, list[Instruction]], head: int, *, base: int, rights: int, stop: int, name: str
    ) -> None:
        super().__init__(base=base, rights=rights, stop=stop, name=name)
        self._head = head
        self._blocks = {address: self.function.append_basic_block(f"at_{address:x}") for address in blocks}
        self._b.branch(self._blocks[head])
        for address, instructions in blocks.items():
            self._block(address, instructions)

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


_HANDLERS: Final = _handlers()
