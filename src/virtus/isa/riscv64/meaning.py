"""The table of meanings: each instruction as described over the builder, by mnemonic, and helpers that all use."""

from collections.abc import Callable
from typing import Final

from virtus.isa.builder import Builder, Word
from virtus.isa.riscv64.instruction import Instruction

Meaning = Callable[[Builder, Instruction], None]

MEANINGS: Final[dict[str, Meaning]] = {}


def means(*names: str) -> Callable[[Meaning], Meaning]:
    """Register a description under these mnemonics."""

    def register(meaning: Meaning) -> Meaning:
        for name in names:
            if name in MEANINGS:
                raise ValueError(f"{name} is described twice")
            MEANINGS[name] = meaning
        return meaning

    return register


def read(b: Builder, register: int) -> Word:
    """An integer register; x0 is zero."""
    return b.get(register) if register else b.const(0)


def write(b: Builder, register: int, value: Word) -> None:
    """Set an integer register; what goes to x0 is lost."""
    if register:
        b.set(register, value)
