"""What floating-point instructions mean: extensions F and D. Source: RISC-V ISA manual, volume I, chapters "F", "D"."""

from typing import Any, Final

from virtus.isa.builder import Builder, Format
from virtus.isa.riscv64.instruction import Instruction
from virtus.isa.riscv64.meaning import Meaning, means, read, write
from virtus.isa.riscv64.memory import BOX
from virtus.isa.riscv64.registers import F

FORMATS: Final[tuple[Format, ...]] = ("s", "d")
SIGN: Final = {"s": 1 << 31, "d": 1 << 63}
INTEGERS: Final = {"w": (32, True), "wu": (32, False), "l": (64, True), "lu": (64, False)}


def _arithmetic(operation: Any, format: Format) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        x, y = b.get_float(F + i.rs1, format), b.get_float(F + i.rs2, format)
        b.set_float(F + i.rd, b.float_operation(operation, x, y, format, i.rounding), format)

    return meaning


def _square_root(format: Format) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        b.set_float(F + i.rd, b.square_root(b.get_float(F + i.rs1, format), format, i.rounding), format)

    return meaning


def _fused(format: Format, *, negate_product: bool, negate_addend: bool) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        x, y, z = (b.get_float(F + register, format) for register in (i.rs1, i.rs2, i.rs3))
        result = b.multiply_add(x, y, z, format, i.rounding, negate_product=negate_product, negate_addend=negate_addend)
        b.set_float(F + i.rd, result, format)

    return meaning


def _extremes(format: Format, *, greater: bool) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        x, y = b.get_float(F + i.rs1, format), b.get_float(F + i.rs2, format)
        result = b.float_maximum(x, y, format) if greater else b.float_minimum(x, y, format)
        b.set_float(F + i.rd, result, format)

    return meaning


def _compares(predicate: Any, format: Format) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        x, y = b.get_float(F + i.rs1, format), b.get_float(F + i.rs2, format)
        write(b, i.rd, b.word(b.float_compare(predicate, x, y, format)))

    return meaning


def _signs(kind: str, format: Format) -> Meaning:
    """fsgnj and its kin move bits and raise nothing, even for signalling NaN; a single must be boxed."""
    sign = SIGN[format]

    def meaning(b: Builder, i: Instruction) -> None:
        x, y = (b.float_bits(F + register, format) for register in (i.rs1, i.rs2))
        if kind == "fsgnjx":
            result = b.xor(x, b.and_(y, b.const(sign)))
        else:
            other = b.xor(y, b.const(sign)) if kind == "fsgnjn" else y
            result = b.or_(b.and_(x, b.const(sign - 1)), b.and_(other, b.const(sign)))
        b.set(F + i.rd, b.or_(result, b.const(BOX)) if format == "s" else result)

    return meaning


def _classifies(format: Format) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        write(b, i.rd, b.float_class(b.get_float(F + i.rs1, format), format))

    return meaning


def _to_integer(bits: int, format: Format, *, signed: bool) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        value = b.get_float(F + i.rs1, format)
        write(b, i.rd, b.float_to_integer(value, format, bits, signed=signed, rounding=i.rounding))

    return meaning


def _from_integer(bits: int, format: Format, *, signed: bool) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        value = b.integer_to_float(read(b, i.rs1), bits, signed=signed, format=format, rounding=i.rounding)
        b.set_float(F + i.rd, value, format)

    return meaning


for _format in FORMATS:
    for _operation in ("add", "sub", "mul", "div"):
        means(f"f{_operation}.{_format}")(_arithmetic(_operation, _format))
    means(f"fsqrt.{_format}")(_square_root(_format))
    means(f"fmadd.{_format}")(_fused(_format, negate_product=False, negate_addend=False))
    means(f"fmsub.{_format}")(_fused(_format, negate_product=False, negate_addend=True))
    means(f"fnmsub.{_format}")(_fused(_format, negate_product=True, negate_addend=False))
    means(f"fnmadd.{_format}")(_fused(_format, negate_product=True, negate_addend=True))
    means(f"fmin.{_format}")(_extremes(_format, greater=False))
    means(f"fmax.{_format}")(_extremes(_format, greater=True))
    for _predicate in ("eq", "lt", "le"):
        means(f"f{_predicate}.{_format}")(_compares(_predicate, _format))
    for _kind in ("fsgnj", "fsgnjn", "fsgnjx"):
        means(f"{_kind}.{_format}")(_signs(_kind, _format))
    means(f"fclass.{_format}")(_classifies(_format))
    for _name, (_bits, _signed) in INTEGERS.items():
        means(f"fcvt.{_name}.{_format}")(_to_integer(_bits, _format, signed=_signed))
        means(f"fcvt.{_format}.{_name}")(_from_integer(_bits, _format, signed=_signed))


@means("fcvt.s.d")
def _narrow(b: Builder, i: Instruction) -> None:
    b.set_float(F + i.rd, b.convert(b.get_float(F + i.rs1, "d"), "d", "s", i.rounding), "s")


@means("fcvt.d.s")
def _widen(b: Builder, i: Instruction) -> None:
    b.set_float(F + i.rd, b.convert(b.get_float(F + i.rs1, "s"), "s", "d", i.rounding), "d")


@means("fmv.x.d")
def _fmv_x_d(b: Builder, i: Instruction) -> None:
    write(b, i.rd, b.get(F + i.rs1))


@means("fmv.d.x")
def _fmv_d_x(b: Builder, i: Instruction) -> None:
    b.set(F + i.rd, read(b, i.rs1))


@means("fmv.x.w")
def _fmv_x_w(b: Builder, i: Instruction) -> None:
    write(b, i.rd, b.sign_extend(b.get(F + i.rs1), 32))


@means("fmv.w.x")
def _fmv_w_x(b: Builder, i: Instruction) -> None:
    b.set(F + i.rd, b.or_(b.zero_extend(read(b, i.rs1), 32), b.const(BOX)))
