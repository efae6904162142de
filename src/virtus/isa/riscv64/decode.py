"""Decoding of 32-bit instructions: RV64IMAFD, Zicsr, Zifencei, Zba, Zbb, Zbs. Reserved encodings are illegal.

Source: The RISC-V Instruction Set Manual, volume I (unprivileged), version 20240411; opcode tables of chapter "RV32/64G
Instruction Set Listings" and of "B" (bit manipulation).
"""

import struct
from functools import lru_cache
from typing import Final

from virtus.isa.riscv64.compressed import decode_compressed
from virtus.isa.riscv64.instruction import Instruction, illegal, signed

# Major opcodes (table "RISC-V base opcode map")
LOAD, LOAD_FP, MISC_MEM, OP_IMM, AUIPC, OP_IMM_32 = 0x03, 0x07, 0x0F, 0x13, 0x17, 0x1B
STORE, STORE_FP, AMO, OP, LUI, OP_32 = 0x23, 0x27, 0x2F, 0x33, 0x37, 0x3B
MADD, MSUB, NMSUB, NMADD, OP_FP = 0x43, 0x47, 0x4B, 0x4F, 0x53
BRANCH, JALR, JAL, SYSTEM = 0x63, 0x67, 0x6F, 0x73

LOADS: Final = ("lb", "lh", "lw", "ld", "lbu", "lhu", "lwu")
STORES: Final = ("sb", "sh", "sw", "sd")
BRANCHES: Final = {0: "beq", 1: "bne", 4: "blt", 5: "bge", 6: "bltu", 7: "bgeu"}
IMMEDIATES: Final = {0: "addi", 2: "slti", 3: "sltiu", 4: "xori", 6: "ori", 7: "andi"}
REGISTERS: Final = {
    (0, 0x00): "add", (0, 0x20): "sub", (1, 0x00): "sll", (2, 0x00): "slt", (3, 0x00): "sltu", (4, 0x00): "xor",
    (5, 0x00): "srl", (5, 0x20): "sra", (6, 0x00): "or", (7, 0x00): "and",
    (0, 0x01): "mul", (1, 0x01): "mulh", (2, 0x01): "mulhsu", (3, 0x01): "mulhu",
    (4, 0x01): "div", (5, 0x01): "divu", (6, 0x01): "rem", (7, 0x01): "remu",
    (2, 0x10): "sh1add", (4, 0x10): "sh2add", (6, 0x10): "sh3add",
    (4, 0x20): "xnor", (6, 0x20): "orn", (7, 0x20): "andn",
    (4, 0x05): "min", (5, 0x05): "minu", (6, 0x05): "max", (7, 0x05): "maxu",
    (1, 0x30): "rol", (5, 0x30): "ror",
    (1, 0x24): "bclr", (5, 0x24): "bext", (1, 0x34): "binv", (1, 0x14): "bset",
}  # fmt: skip
"""By funct3 and funct7."""
REGISTERS_32: Final = {
    (0, 0x00): "addw", (0, 0x20): "subw", (1, 0x00): "sllw", (5, 0x00): "srlw", (5, 0x20): "sraw",
    (0, 0x01): "mulw", (4, 0x01): "divw", (5, 0x01): "divuw", (6, 0x01): "remw", (7, 0x01): "remuw",
    (0, 0x04): "add.uw", (2, 0x10): "sh1add.uw", (4, 0x10): "sh2add.uw", (6, 0x10): "sh3add.uw",
    (1, 0x30): "rolw", (5, 0x30): "rorw",
}  # fmt: skip
SHIFTS: Final = {
    (1, 0x00): "slli", (5, 0x00): "srli", (5, 0x10): "srai", (5, 0x18): "rori",
    (1, 0x12): "bclri", (5, 0x12): "bexti", (1, 0x1A): "binvi", (1, 0x0A): "bseti",
}  # fmt: skip
"""OP-IMM with six bits of shift count: by funct3 and the upper six bits."""
SHIFTS_32: Final = {(1, 0x00): "slliw", (5, 0x00): "srliw", (5, 0x20): "sraiw", (5, 0x30): "roriw"}
UNARY: Final = {
    (1, 0x600): "clz", (1, 0x601): "ctz", (1, 0x602): "cpop", (1, 0x604): "sext.b", (1, 0x605): "sext.h",
    (5, 0x287): "orc.b", (5, 0x6B8): "rev8",
}  # fmt: skip
"""OP-IMM without an immediate: by funct3 and the upper twelve bits."""
UNARY_32: Final = {(1, 0x600): "clzw", (1, 0x601): "ctzw", (1, 0x602): "cpopw"}
ATOMICS: Final = {
    0x00: "amoadd", 0x01: "amoswap", 0x02: "lr", 0x03: "sc", 0x04: "amoxor", 0x08: "amoor", 0x0C: "amoand",
    0x10: "amomin", 0x14: "amomax", 0x18: "amominu", 0x1C: "amomaxu",
}  # fmt: skip
CONTROL: Final = {1: "csrrw", 2: "csrrs", 3: "csrrc", 5: "csrrwi", 6: "csrrsi", 7: "csrrci"}
FUSED: Final = {MADD: "fmadd", MSUB: "fmsub", NMSUB: "fnmsub", NMADD: "fnmadd"}
ARITHMETIC: Final = ("fadd", "fsub", "fmul", "fdiv")
INTEGERS: Final = ("w", "wu", "l", "lu")


_word: Final = struct.Struct("<I").unpack_from


def decode(code: bytes | memoryview, offset: int) -> Instruction:
    """The instruction at `code[offset:]`; illegal where it is cut short."""
    if offset + 4 <= len(code):
        (word,) = _word(code, offset)
        return _full(word) if word & 3 == 3 else _compressed(word & 0xFFFF)
    half = int.from_bytes(code[offset : offset + 2], "little")
    if half & 3 != 3 and offset + 2 <= len(code):
        return _compressed(half)
    return illegal(half, 2)


@lru_cache(maxsize=1 << 16)
def _compressed(code: int) -> Instruction:
    return decode_compressed(code)


@lru_cache(maxsize=1 << 18)
def _full(code: int) -> Instruction:
    handler = _BY_OPCODE.get(code & 0x7F)
    found = handler(code) if handler is not None else None
    return found if found is not None else illegal(code, 4)


def _rd(code: int) -> int:
    return code >> 7 & 31


def _funct3(code: int) -> int:
    return code >> 12 & 7


def _rs1(code: int) -> int:
    return code >> 15 & 31


def _rs2(code: int) -> int:
    return code >> 20 & 31


def _i_type(name: str, code: int) -> Instruction:
    return Instruction(name, 4, code, _rd(code), _rs1(code), 0, signed(code >> 20, 12))


def _r_type(name: str, code: int) -> Instruction:
    return Instruction(name, 4, code, _rd(code), _rs1(code), _rs2(code))


def _store_type(name: str, code: int) -> Instruction:
    immediate = signed(code >> 25 << 5 | _rd(code), 12)
    return Instruction(name, 4, code, 0, _rs1(code), _rs2(code), immediate)


def _load(code: int) -> Instruction | None:
    funct3 = _funct3(code)
    return _i_type(LOADS[funct3], code) if funct3 < 7 else None


def _load_float(code: int) -> Instruction | None:
    name = {2: "flw", 3: "fld"}.get(_funct3(code))
    return _i_type(name, code) if name else None


def _store(code: int) -> Instruction | None:
    funct3 = _funct3(code)
    return _store_type(STORES[funct3], code) if funct3 < 4 else None


def _store_float(code: int) -> Instruction | None:
    name = {2: "fsw", 3: "fsd"}.get(_funct3(code))
    return _store_type(name, code) if name else None


def _fence(code: int) -> Instruction | None:
    # reserved fields are to be ignored (2.7, and "Zifencei")
    name = {0: "fence", 1: "fence.i"}.get(_funct3(code))
    return Instruction(name, 4, code) if name else None


def _immediate(code: int) -> Instruction | None:
    funct3 = _funct3(code)
    if funct3 in IMMEDIATES:
        return _i_type(IMMEDIATES[funct3], code)
    name = SHIFTS.get((funct3, code >> 26))
    if name:
        return Instruction(name, 4, code, _rd(code), _rs1(code), 0, code >> 20 & 63)
    name = UNARY.get((funct3, code >> 20))
    return Instruction(name, 4, code, _rd(code), _rs1(code)) if name else None


def _immediate_32(code: int) -> Instruction | None:
    funct3 = _funct3(code)
    if funct3 == 0:
        return _i_type("addiw", code)
    if funct3 == 1 and code >> 26 == 0x02:
        return Instruction("slli.uw", 4, code, _rd(code), _rs1(code), 0, code >> 20 & 63)
    name = SHIFTS_32.get((funct3, code >> 25))
    if name:
        return Instruction(name, 4, code, _rd(code), _rs1(code), 0, code >> 20 & 31)
    name = UNARY_32.get((funct3, code >> 20))
    return Instruction(name, 4, code, _rd(code), _rs1(code)) if name else None


def _register(code: int) -> Instruction | None:
    name = REGISTERS.get((_funct3(code), code >> 25))
    return _r_type(name, code) if name else None


def _register_32(code: int) -> Instruction | None:
    if _funct3(code) == 4 and code >> 20 == 0x080:
        return Instruction("zext.h", 4, code, _rd(code), _rs1(code))
    name = REGISTERS_32.get((_funct3(code), code >> 25))
    return _r_type(name, code) if name else None


def _upper(name: str, code: int) -> Instruction:
    return Instruction(name, 4, code, _rd(code), 0, 0, signed(code & 0xFFFFF000, 32))


def _branch(code: int) -> Instruction | None:
    name = BRANCHES.get(_funct3(code))
    offset = code >> 31 << 12 | (code >> 7 & 1) << 11 | (code >> 25 & 63) << 5 | (code >> 8 & 15) << 1
    return Instruction(name, 4, code, 0, _rs1(code), _rs2(code), signed(offset, 13)) if name else None


def _jal(code: int) -> Instruction:
    offset = code >> 31 << 20 | (code >> 12 & 255) << 12 | (code >> 20 & 1) << 11 | (code >> 21 & 1023) << 1
    return Instruction("jal", 4, code, _rd(code), 0, 0, signed(offset, 21))


def _jalr(code: int) -> Instruction | None:
    return _i_type("jalr", code) if _funct3(code) == 0 else None


def _system(code: int) -> Instruction | None:
    funct3 = _funct3(code)
    if funct3 == 0:
        name = {0x00000073: "ecall", 0x00100073: "ebreak"}.get(code)
        return Instruction(name, 4, code) if name else None
    name = CONTROL.get(funct3)
    return Instruction(name, 4, code, _rd(code), _rs1(code), 0, code >> 20) if name else None


def _atomic(code: int) -> Instruction | None:
    name = ATOMICS.get(code >> 27)
    suffix = {2: ".w", 3: ".d"}.get(_funct3(code))
    if not name or not suffix or (name == "lr" and _rs2(code)):
        return None
    return _r_type(name + suffix, code)


def _fused(code: int) -> Instruction | None:
    format = {0: ".s", 1: ".d"}.get(code >> 25 & 3)
    if not format or _funct3(code) in (5, 6):
        return None
    name = FUSED[code & 0x7F] + format
    return Instruction(name, 4, code, _rd(code), _rs1(code), _rs2(code), 0, code >> 27, _funct3(code))


def _float(code: int) -> Instruction | None:
    format = {0: ".s", 1: ".d"}.get(code >> 25 & 3)
    if not format:
        return None
    name = _float_name(code >> 27, _funct3(code), _rs2(code), format)
    if name is None:
        return None
    return Instruction(name, 4, code, _rd(code), _rs1(code), _rs2(code), 0, 0, _funct3(code))


def _float_name(funct5: int, funct3: int, rs2: int, format: str) -> str | None:
    rounds = funct3 not in (5, 6)
    wide = format == ".d"
    name: str | None = None
    if funct5 < 4:
        name = ARITHMETIC[funct5] if rounds else None
    elif funct5 == 4:
        name = {0: "fsgnj", 1: "fsgnjn", 2: "fsgnjx"}.get(funct3)
    elif funct5 == 5:
        name = {0: "fmin", 1: "fmax"}.get(funct3)
    elif funct5 == 8 and rounds:
        return {(False, 1): "fcvt.s.d", (True, 0): "fcvt.d.s"}.get((wide, rs2))
    elif funct5 == 11:
        name = "fsqrt" if rounds and rs2 == 0 else None
    elif funct5 == 20:
        name = {0: "fle", 1: "flt", 2: "feq"}.get(funct3)
    elif funct5 == 24 and rounds and rs2 < 4:
        name = f"fcvt.{INTEGERS[rs2]}"
    elif funct5 == 26 and rounds and rs2 < 4:
        return f"fcvt{format}.{INTEGERS[rs2]}"
    elif funct5 == 28 and rs2 == 0 and funct3 < 2:
        name = "fclass" if funct3 else ("fmv.x" if wide else None)
        if name is None:
            return "fmv.x.w"
    elif funct5 == 30 and rs2 == 0 and funct3 == 0:
        return "fmv.d.x" if wide else "fmv.w.x"
    return name + format if name else None


_BY_OPCODE: Final = {
    LOAD: _load, LOAD_FP: _load_float, MISC_MEM: _fence, OP_IMM: _immediate, OP_IMM_32: _immediate_32,
    AUIPC: lambda code: _upper("auipc", code), LUI: lambda code: _upper("lui", code),
    STORE: _store, STORE_FP: _store_float, AMO: _atomic, OP: _register, OP_32: _register_32,
    MADD: _fused, MSUB: _fused, NMSUB: _fused, NMADD: _fused, OP_FP: _float,
    BRANCH: _branch, JALR: _jalr, JAL: _jal, SYSTEM: _system,
}  # fmt: skip
