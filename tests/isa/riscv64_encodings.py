"""The encodings of RV64GC with Zba, Zbb and Zbs as the manual's tables have them, to make instructions from at random.

Source: RISC-V ISA manual, volume I, "RV32/64G Instruction Set Listings", and the tables of extension "B". A pattern is
written as there, from bit 31 down: fixed bits, and fields. A field's width follows from its name.
"""

from random import Random
from typing import Final

WIDTHS: Final = {
    "rd": 5, "rs1": 5, "rs2": 5, "rs3": 5, "rm": 3, "imm12": 12, "imm20": 20, "jump20": 20,
    "high7": 7, "low5": 5, "branch7": 7, "branch5": 5, "shift5": 5, "shift6": 6, "order": 2, "any4": 4,
}  # fmt: skip

INTEGER: Final = {
    "lui": "imm20 rd 0110111", "auipc": "imm20 rd 0010111",
    "addi": "imm12 rs1 000 rd 0010011", "slti": "imm12 rs1 010 rd 0010011", "sltiu": "imm12 rs1 011 rd 0010011",
    "xori": "imm12 rs1 100 rd 0010011", "ori": "imm12 rs1 110 rd 0010011", "andi": "imm12 rs1 111 rd 0010011",
    "slli": "000000 shift6 rs1 001 rd 0010011", "srli": "000000 shift6 rs1 101 rd 0010011",
    "srai": "010000 shift6 rs1 101 rd 0010011",
    "add": "0000000 rs2 rs1 000 rd 0110011", "sub": "0100000 rs2 rs1 000 rd 0110011",
    "sll": "0000000 rs2 rs1 001 rd 0110011", "slt": "0000000 rs2 rs1 010 rd 0110011",
    "sltu": "0000000 rs2 rs1 011 rd 0110011", "xor": "0000000 rs2 rs1 100 rd 0110011",
    "srl": "0000000 rs2 rs1 101 rd 0110011", "sra": "0100000 rs2 rs1 101 rd 0110011",
    "or": "0000000 rs2 rs1 110 rd 0110011", "and": "0000000 rs2 rs1 111 rd 0110011",
    "addiw": "imm12 rs1 000 rd 0011011", "slliw": "0000000 shift5 rs1 001 rd 0011011",
    "srliw": "0000000 shift5 rs1 101 rd 0011011", "sraiw": "0100000 shift5 rs1 101 rd 0011011",
    "addw": "0000000 rs2 rs1 000 rd 0111011", "subw": "0100000 rs2 rs1 000 rd 0111011",
    "sllw": "0000000 rs2 rs1 001 rd 0111011", "srlw": "0000000 rs2 rs1 101 rd 0111011",
    "sraw": "0100000 rs2 rs1 101 rd 0111011",
    "mul": "0000001 rs2 rs1 000 rd 0110011", "mulh": "0000001 rs2 rs1 001 rd 0110011",
    "mulhsu": "0000001 rs2 rs1 010 rd 0110011", "mulhu": "0000001 rs2 rs1 011 rd 0110011",
    "div": "0000001 rs2 rs1 100 rd 0110011", "divu": "0000001 rs2 rs1 101 rd 0110011",
    "rem": "0000001 rs2 rs1 110 rd 0110011", "remu": "0000001 rs2 rs1 111 rd 0110011",
    "mulw": "0000001 rs2 rs1 000 rd 0111011", "divw": "0000001 rs2 rs1 100 rd 0111011",
    "divuw": "0000001 rs2 rs1 101 rd 0111011", "remw": "0000001 rs2 rs1 110 rd 0111011",
    "remuw": "0000001 rs2 rs1 111 rd 0111011",
    "add.uw": "0000100 rs2 rs1 000 rd 0111011", "slli.uw": "000010 shift6 rs1 001 rd 0011011",
    "sh1add": "0010000 rs2 rs1 010 rd 0110011", "sh1add.uw": "0010000 rs2 rs1 010 rd 0111011",
    "sh2add": "0010000 rs2 rs1 100 rd 0110011", "sh2add.uw": "0010000 rs2 rs1 100 rd 0111011",
    "sh3add": "0010000 rs2 rs1 110 rd 0110011", "sh3add.uw": "0010000 rs2 rs1 110 rd 0111011",
    "andn": "0100000 rs2 rs1 111 rd 0110011", "orn": "0100000 rs2 rs1 110 rd 0110011",
    "xnor": "0100000 rs2 rs1 100 rd 0110011",
    "clz": "011000000000 rs1 001 rd 0010011", "clzw": "011000000000 rs1 001 rd 0011011",
    "ctz": "011000000001 rs1 001 rd 0010011", "ctzw": "011000000001 rs1 001 rd 0011011",
    "cpop": "011000000010 rs1 001 rd 0010011", "cpopw": "011000000010 rs1 001 rd 0011011",
    "max": "0000101 rs2 rs1 110 rd 0110011", "maxu": "0000101 rs2 rs1 111 rd 0110011",
    "min": "0000101 rs2 rs1 100 rd 0110011", "minu": "0000101 rs2 rs1 101 rd 0110011",
    "sext.b": "011000000100 rs1 001 rd 0010011", "sext.h": "011000000101 rs1 001 rd 0010011",
    "zext.h": "000010000000 rs1 100 rd 0111011",
    "rol": "0110000 rs2 rs1 001 rd 0110011", "rolw": "0110000 rs2 rs1 001 rd 0111011",
    "ror": "0110000 rs2 rs1 101 rd 0110011", "rorw": "0110000 rs2 rs1 101 rd 0111011",
    "rori": "011000 shift6 rs1 101 rd 0010011", "roriw": "0110000 shift5 rs1 101 rd 0011011",
    "orc.b": "001010000111 rs1 101 rd 0010011", "rev8": "011010111000 rs1 101 rd 0010011",
    "bclr": "0100100 rs2 rs1 001 rd 0110011", "bclri": "010010 shift6 rs1 001 rd 0010011",
    "bext": "0100100 rs2 rs1 101 rd 0110011", "bexti": "010010 shift6 rs1 101 rd 0010011",
    "binv": "0110100 rs2 rs1 001 rd 0110011", "binvi": "011010 shift6 rs1 001 rd 0010011",
    "bset": "0010100 rs2 rs1 001 rd 0110011", "bseti": "001010 shift6 rs1 001 rd 0010011",
}  # fmt: skip

JUMPS: Final = {
    "jal": "jump20 rd 1101111", "jalr": "imm12 rs1 000 rd 1100111",
    "beq": "branch7 rs2 rs1 000 branch5 1100011", "bne": "branch7 rs2 rs1 001 branch5 1100011",
    "blt": "branch7 rs2 rs1 100 branch5 1100011", "bge": "branch7 rs2 rs1 101 branch5 1100011",
    "bltu": "branch7 rs2 rs1 110 branch5 1100011", "bgeu": "branch7 rs2 rs1 111 branch5 1100011",
    "ebreak": "00000000000100000000000001110011",
}  # fmt: skip

LOADS: Final = {
    "lb": "imm12 rs1 000 rd 0000011", "lh": "imm12 rs1 001 rd 0000011", "lw": "imm12 rs1 010 rd 0000011",
    "ld": "imm12 rs1 011 rd 0000011", "lbu": "imm12 rs1 100 rd 0000011", "lhu": "imm12 rs1 101 rd 0000011",
    "lwu": "imm12 rs1 110 rd 0000011", "flw": "imm12 rs1 010 rd 0000111", "fld": "imm12 rs1 011 rd 0000111",
}  # fmt: skip
STORES: Final = {
    "sb": "high7 rs2 rs1 000 low5 0100011", "sh": "high7 rs2 rs1 001 low5 0100011",
    "sw": "high7 rs2 rs1 010 low5 0100011", "sd": "high7 rs2 rs1 011 low5 0100011",
    "fsw": "high7 rs2 rs1 010 low5 0100111", "fsd": "high7 rs2 rs1 011 low5 0100111",
}  # fmt: skip
_AMO: Final = {
    "amoadd": "00000", "amoswap": "00001", "amoxor": "00100", "amoor": "01000", "amoand": "01100",
    "amomin": "10000", "amomax": "10100", "amominu": "11000", "amomaxu": "11100",
}  # fmt: skip
RESERVATIONS: Final = {
    f"{name}{suffix}": pattern.format(width)
    for suffix, width in ((".w", "010"), (".d", "011"))
    for name, pattern in {
        "lr": "00010 order 00000 rs1 {} rd 0101111",
        "sc": "00011 order rs2 rs1 {} rd 0101111",
    }.items()
}
ATOMICS: Final = {
    f"{name}{suffix}": f"{bits} order rs2 rs1 {width} rd 0101111"
    for name, bits in _AMO.items()
    for suffix, width in ((".w", "010"), (".d", "011"))
}
FENCES: Final = {"fence": "any4 any4 any4 rs1 000 rd 0001111", "fence.i": "imm12 rs1 001 rd 0001111"}


def _floating(suffix: str, format: str) -> dict[str, str]:
    dotted = "." + suffix
    table = {
        "fadd": f"00000{format} rs2 rs1 rm rd 1010011", "fsub": f"00001{format} rs2 rs1 rm rd 1010011",
        "fmul": f"00010{format} rs2 rs1 rm rd 1010011", "fdiv": f"00011{format} rs2 rs1 rm rd 1010011",
        "fsqrt": f"01011{format} 00000 rs1 rm rd 1010011",
        "fsgnj": f"00100{format} rs2 rs1 000 rd 1010011", "fsgnjn": f"00100{format} rs2 rs1 001 rd 1010011",
        "fsgnjx": f"00100{format} rs2 rs1 010 rd 1010011",
        "fmin": f"00101{format} rs2 rs1 000 rd 1010011", "fmax": f"00101{format} rs2 rs1 001 rd 1010011",
        "feq": f"10100{format} rs2 rs1 010 rd 1010011", "flt": f"10100{format} rs2 rs1 001 rd 1010011",
        "fle": f"10100{format} rs2 rs1 000 rd 1010011", "fclass": f"11100{format} 00000 rs1 001 rd 1010011",
        "fmadd": f"rs3 {format} rs2 rs1 rm rd 1000011", "fmsub": f"rs3 {format} rs2 rs1 rm rd 1000111",
        "fnmsub": f"rs3 {format} rs2 rs1 rm rd 1001011", "fnmadd": f"rs3 {format} rs2 rs1 rm rd 1001111",
    }  # fmt: skip
    named = {name + dotted: pattern for name, pattern in table.items()}
    for number, kind in enumerate(("w", "wu", "l", "lu")):
        named[f"fcvt.{kind}{dotted}"] = f"11000{format} {number:05b} rs1 rm rd 1010011"
        named[f"fcvt{dotted}.{kind}"] = f"11010{format} {number:05b} rs1 rm rd 1010011"
    moved = "w" if suffix == "s" else "d"
    named[f"fmv.x.{moved}"] = f"11100{format} 00000 rs1 000 rd 1010011"
    named[f"fmv.{moved}.x"] = f"11110{format} 00000 rs1 000 rd 1010011"
    return named


FLOATING: Final = {
    **_floating("s", "00"),
    **_floating("d", "01"),
    "fcvt.s.d": "0100000 00001 rs1 rm rd 1010011",
    "fcvt.d.s": "0100001 00000 rs1 rm rd 1010011",
}
CONTROL: Final = {
    f"{name} {register}": f"{number:012b} rs1 {funct3} rd 1110011"
    for name, funct3 in {
        "csrrw": "001", "csrrs": "010", "csrrc": "011", "csrrwi": "101", "csrrsi": "110", "csrrci": "111",
    }.items()
    for register, number in {"fflags": 1, "frm": 2, "fcsr": 3}.items()
}  # fmt: skip

ENCODINGS: Final = {
    **INTEGER, **JUMPS, **LOADS, **STORES, **ATOMICS, **RESERVATIONS, **FENCES, **FLOATING, **CONTROL,
}  # fmt: skip


def encode(name: str, random: Random, **fields: int) -> int:
    """An instruction of this name; fields that are not given are random."""
    code = 0
    for part in ENCODINGS[name].split():
        width = WIDTHS.get(part) or len(part)
        if part in WIDTHS:
            value = fields[part] if part in fields else random.getrandbits(width)
        else:
            value = int(part, 2)
        assert 0 <= value < 1 << width, (name, part, value)
        code = code << width | value
    return code
