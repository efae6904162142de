"""What an instruction set offers to those who run it, interpreter and translators alike."""

from collections.abc import Callable
from typing import Any, Protocol

from virtus.isa.builder import Builder


class Instruction(Protocol):
    """A decoded instruction; its operands are the instruction set's own affair."""

    name: str
    """The mnemonic, for example `c.addi` or `fmadd.d`."""
    size: int
    """Addresses to the next one (bytes, or words of a word machine)."""


class InstructionSet(Protocol):
    """A package under `isa/`, seen from outside. All addresses are the guest's."""

    name: str
    version: int
    """Counts up whenever a description changes: translations kept on disk are for one version."""
    register_names: tuple[str, ...]
    """By slot; at most 64."""
    call_registers: tuple[int, ...]
    """Slots of registers that optimised code takes along in the host's when it calls, and brings back: those that
    functions are most about by the usual calling convention. At most ten, or none; which is a matter of speed alone."""
    longest: int
    """The most that `decode` looks at, in bytes."""

    def decode(self, code: bytes | memoryview, offset: int) -> Any:
        """The instruction at `code[offset:]`. An encoding that means nothing, or is cut short, is an instruction too:
        one whose meaning is a trap."""
        ...

    def describe(self, instruction: Any) -> Callable[[Builder, Any], None]:
        """The meaning: a function `(builder, instruction)`; the builder's `pc` is the instruction's address."""
        ...

    def show(self, instruction: Any, pc: int) -> str:
        """As a disassembler prints it."""
        ...
