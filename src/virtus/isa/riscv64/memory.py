"""What loads, stores and atomic operations mean: RV64I, A, and those of F and D that only move bits.

Source: RISC-V ISA manual, volume I, chapters "RV32I" (2.6), "A", "F" (20.5). Ordering bits of atomics are taken as set.
An atomic access that is not aligned is whatever evaluators make of it: an error of the bus, as on Linux (BUS_ADRALN).
"""

from typing import Any, Final

from virtus.isa.builder import Builder, Word
from virtus.isa.riscv64.instruction import Instruction
from virtus.isa.riscv64.meaning import Meaning, means, read, write
from virtus.isa.riscv64.registers import F

BOX: Final = 0xFFFFFFFF00000000
"""The upper half of a register that holds a single (NaN boxing, 21.2)."""
LOADS: Final = {
    "lb": (1, True), "lh": (2, True), "lw": (4, True), "ld": (8, False),
    "lbu": (1, False), "lhu": (2, False), "lwu": (4, False),
}  # fmt: skip
STORES: Final = {"sb": 1, "sh": 2, "sw": 4, "sd": 8}
ATOMICS: Final = ("add", "swap", "xor", "or", "and", "min", "max", "minu", "maxu")


def _address(b: Builder, i: Instruction) -> Word:
    base = read(b, i.rs1)
    return b.add(base, b.const(i.immediate)) if i.immediate else base


def _loads(size: int, *, signed: bool) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        write(b, i.rd, b.load(_address(b, i), size, signed=signed))

    return meaning


def _stores(size: int) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        b.store(_address(b, i), read(b, i.rs2), size)

    return meaning


for _name, (_size, _signed) in LOADS.items():
    means(_name)(_loads(_size, signed=_signed))
for _name, _size in STORES.items():
    means(_name)(_stores(_size))


@means("fld")
def _fld(b: Builder, i: Instruction) -> None:
    b.set(F + i.rd, b.load(_address(b, i), 8))


@means("flw")
def _flw(b: Builder, i: Instruction) -> None:
    b.set(F + i.rd, b.or_(b.load(_address(b, i), 4), b.const(BOX)))


@means("fsd")
def _fsd(b: Builder, i: Instruction) -> None:
    b.store(_address(b, i), b.get(F + i.rs2), 8)


@means("fsw")
def _fsw(b: Builder, i: Instruction) -> None:
    b.store(_address(b, i), b.get(F + i.rs2), 4)


@means("fence")
def _fence(b: Builder, i: Instruction) -> None:
    b.fence()


def _atomics(operation: Any, size: int) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        write(b, i.rd, b.atomic(operation, read(b, i.rs1), read(b, i.rs2), size))

    return meaning


def _load_reserved(size: int) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        write(b, i.rd, b.load_reserved(read(b, i.rs1), size))

    return meaning


def _store_conditional(size: int) -> Meaning:
    def meaning(b: Builder, i: Instruction) -> None:
        write(b, i.rd, b.store_conditional(read(b, i.rs1), read(b, i.rs2), size))

    return meaning


for _suffix, _size in ((".w", 4), (".d", 8)):
    means("lr" + _suffix)(_load_reserved(_size))
    means("sc" + _suffix)(_store_conditional(_size))
    for _operation in ATOMICS:
        means(f"amo{_operation}{_suffix}")(_atomics(_operation, _size))
