"""Instructions as a disassembler prints them, without aliases: a compressed one as what it stands for.

Source of the syntax: RISC-V Assembly Programmer's Manual; RISC-V ISA manual, volume I, for rounding modes and orders.
"""

from collections.abc import Callable
from typing import Final

from virtus.isa.riscv64 import control, integers, memory
from virtus.isa.riscv64.decode import BRANCHES, INTEGERS
from virtus.isa.riscv64.instruction import Instruction
from virtus.isa.riscv64.registers import F_NAMES, X_NAMES

ROUNDING: Final = ("rne", "rtz", "rdn", "rup", "rmm", "?", "?", "dyn")
CONTROL_NAMES: Final = {
    control.FFLAGS: "fflags", control.FRM: "frm", control.FCSR: "fcsr",
    control.CYCLE: "cycle", control.TIME: "time", control.INSTRET: "instret",
}  # fmt: skip
ORDERINGS: Final = {0: "", 1: ".rl", 2: ".aq", 3: ".aqrl"}
_WIDENS: Final = ("fcvt.d.s", "fcvt.d.w", "fcvt.d.wu")
"""Conversions that never round, whatever they say."""


def show(instruction: Instruction, pc: int) -> str:
    """One line, for example `addi a0, a0, -1`; targets of jumps are addresses."""
    return _OPERANDS.get(instruction.name, _floating)(instruction, pc)


def _line(name: str, *operands: str) -> str:
    return f"{name} {', '.join(operands)}"


def _registers(i: Instruction, pc: int) -> str:
    return _line(i.name, X_NAMES[i.rd], X_NAMES[i.rs1], X_NAMES[i.rs2])


def _immediate(i: Instruction, pc: int) -> str:
    return _line(i.name, X_NAMES[i.rd], X_NAMES[i.rs1], str(i.immediate))


def _unary(i: Instruction, pc: int) -> str:
    return _line(i.name, X_NAMES[i.rd], X_NAMES[i.rs1])


def _upper(i: Instruction, pc: int) -> str:
    return _line(i.name, X_NAMES[i.rd], f"{i.immediate >> 12 & 0xFFFFF:#x}")


def _target(i: Instruction, pc: int) -> str:
    return f"{pc + i.immediate & 2**64 - 1:#x}"


def _branch(i: Instruction, pc: int) -> str:
    return _line(i.name, X_NAMES[i.rs1], X_NAMES[i.rs2], _target(i, pc))


def _jal(i: Instruction, pc: int) -> str:
    return _line(i.name, X_NAMES[i.rd], _target(i, pc))


def _place(i: Instruction) -> str:
    return f"{i.immediate}({X_NAMES[i.rs1]})"


def _load(i: Instruction, pc: int) -> str:
    names = F_NAMES if i.name.startswith("f") else X_NAMES
    return _line(i.name, names[i.rd], _place(i))


def _store(i: Instruction, pc: int) -> str:
    names = F_NAMES if i.name.startswith("f") else X_NAMES
    return _line(i.name, names[i.rs2], _place(i))


def _atomic(i: Instruction, pc: int) -> str:
    name = i.name + ORDERINGS[i.code >> 25 & 3]
    value = () if name.startswith("lr") else (X_NAMES[i.rs2],)
    return _line(name, X_NAMES[i.rd], *value, f"({X_NAMES[i.rs1]})")


def _control(i: Instruction, pc: int) -> str:
    source = str(i.rs1) if i.name.endswith("i") else X_NAMES[i.rs1]
    return _line(i.name, X_NAMES[i.rd], CONTROL_NAMES.get(i.immediate, f"{i.immediate:#x}"), source)


def _accesses(bits: int) -> str:
    """Of a fence: input, output, reads, writes."""
    return "".join(letter for bit, letter in zip((8, 4, 2, 1), "iorw", strict=True) if bits & bit) or "0"


def _fence(i: Instruction, pc: int) -> str:
    if i.code >> 28 == 8:
        return "fence.tso"
    return _line("fence", _accesses(i.code >> 24 & 15), _accesses(i.code >> 20 & 15))


def _illegal(i: Instruction, pc: int) -> str:
    return f".insn {i.size}, {i.code:#0{2 + 2 * i.size}x}"


def _floating(i: Instruction, pc: int) -> str:
    """All others work on floating-point registers; which of their operands are integers, the name says."""
    kind, *formats = i.name.split(".")
    moves = kind in ("fmv", "fcvt")
    integers = ("x",) if kind == "fmv" else INTEGERS
    to_integer = formats[0] in integers if moves else kind in ("feq", "flt", "fle", "fclass")
    from_integer = moves and formats[1] in integers
    operands = [(X_NAMES if to_integer else F_NAMES)[i.rd], (X_NAMES if from_integer else F_NAMES)[i.rs1]]
    if not moves and kind not in ("fsqrt", "fclass"):
        operands.append(F_NAMES[i.rs2])
    fused = kind in ("fmadd", "fmsub", "fnmsub", "fnmadd")
    if fused:
        operands.append(F_NAMES[i.rs3])
    rounds = fused or kind in ("fadd", "fsub", "fmul", "fdiv", "fsqrt", "fcvt")
    if rounds and i.rounding != 7 and i.name not in _WIDENS:
        operands.append(ROUNDING[i.rounding])
    return _line(i.name, *operands)


_OPERANDS: Final[dict[str, Callable[[Instruction, int], str]]] = {
    **dict.fromkeys(integers.BINARY, _registers),
    **dict.fromkeys((*integers.WITH_IMMEDIATE, "slli.uw"), _immediate),
    **dict.fromkeys((*integers.UNARY, "orc.b"), _unary),
    **dict.fromkeys([kind + half for kind in ("div", "divu", "rem", "remu") for half in ("", "w")], _registers),
    **dict.fromkeys(BRANCHES.values(), _branch),
    **dict.fromkeys((*memory.LOADS, "flw", "fld"), _load),
    **dict.fromkeys((*memory.STORES, "fsw", "fsd"), _store),
    **dict.fromkeys(
        [name + width for name in ("lr", "sc", *(f"amo{op}" for op in memory.ATOMICS)) for width in (".w", ".d")],
        _atomic,
    ),
    **dict.fromkeys([kind + form for kind in ("csrrw", "csrrs", "csrrc") for form in ("", "i")], _control),
    **dict.fromkeys(("ecall", "ebreak", "fence.i"), lambda i, pc: i.name),
    "lui": _upper,
    "auipc": _upper,
    "jal": _jal,
    "jalr": lambda i, pc: _line(i.name, X_NAMES[i.rd], _place(i)),
    "fence": _fence,
    "illegal": _illegal,
}
