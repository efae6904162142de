"""From words to instructions, and back to what an assembler lists."""

import struct
from functools import lru_cache
from typing import Final

from virtus.isa.ibm7070.layout import LOCATIONS, WORD
from virtus.isa.ibm7070.operations import BY_CODE, MINUS_ZERO, Form, Operation
from virtus.isa.ibm7070.word import ALPHA, MINUS, SIGNS, field, show, valid

INVALID: Final = "invalid"
SHIFT_CONTROL, COUPLED_SHIFT_CONTROL = 50, -50


class Instruction:
    """`index`, `first`, `last`, `address` are the digits 2-3, 4, 5 and 6-9; `word` is all of it."""

    __slots__ = ("address", "first", "index", "last", "name", "operation", "size", "word")

    def __init__(self, word: int, operation: Operation | None) -> None:
        self.word = word
        self.operation = operation
        self.name = INVALID if operation is None else operation.name
        self.size = WORD
        digits = word & ~SIGNS
        self.index = digits // 10**6 % 100
        self.first = digits // 10**5 % 10
        self.last = digits // 10**4 % 10
        self.address = digits % 10**4

    @property
    def control(self) -> int:
        """Positions 4 and 5 as a number: an index word, for example."""
        return 10 * self.first + self.last

    def __repr__(self) -> str:
        return f"<{self.name} {show(self.word)}>"


def code_of(word: int) -> int:
    """The operation code with its sign (see Operation)."""
    digits = (word & ~SIGNS) // 10**8
    if word & MINUS:
        return -digits if digits else MINUS_ZERO
    return digits


@lru_cache(maxsize=LOCATIONS)
def decode_word(word: int) -> Instruction:
    """The instruction in a word; one that means nothing is invalid. A shift whose address is indexed may turn out to be
    any shift."""
    if not valid(word) or word & ALPHA:
        return Instruction(word & SIGNS if not valid(word) else word, None)
    code = code_of(word)
    rows = BY_CODE.get(code, ())
    for operation in rows:
        if all(field(word, position, position) == digit for position, digit in operation.digits):
            instruction = Instruction(word, operation)
            if operation.form is Form.FIELD and instruction.first > instruction.last:
                return Instruction(word, None)
            return instruction
    if code in (SHIFT_CONTROL, COUPLED_SHIFT_CONTROL) and field(word, 2, 3):
        return Instruction(word, rows[0])
    return Instruction(word, None)


def decode(code: bytes | memoryview, offset: int) -> Instruction:
    """See InstructionSet."""
    if len(code) - offset < WORD:
        return Instruction(0, None)
    return decode_word(struct.unpack_from("<Q", code, offset)[0])


def show_instruction(instruction: Instruction) -> str:
    """As Autocoder writes it, with numbers for names."""
    operation = instruction.operation
    if operation is None:
        return show(instruction.word)
    operand = _operand(instruction, operation)
    return f"{operation.name} {operand}".rstrip()


def _operand(i: Instruction, operation: Operation) -> str:
    form = operation.form
    address = f"{i.address:04d}" + (f"+X{i.index}" if i.index else "")
    number = i.first or i.last - (2 if operation.name.startswith(("BQ", "Q")) and i.last > 2 else 0)
    switch = f"{10 * (operation.code - 61) + i.last + 1}"
    unit = f"{abs(operation.code) % 10}{i.first}"
    texts = {
        Form.NONE: "",
        Form.ADDRESS: address,
        Form.FIELD: address if (i.first, i.last) == (0, 9) else f"{address}({i.first},{i.last})",
        Form.DIGIT: f"{address}({i.last}),{i.first}",
        Form.INDEX: f"X{i.control},{address}",
        Form.SHIFT: f"{i.address % 100}" + (f"+X{i.index}" if i.index else ""),
        Form.SPLIT: f"{i.address % 100}({i.address // 1000 + 10 * (i.address // 100 % 10 // 6)})",
        Form.COUNT: f"X{i.control}",
        Form.NUMBER: f"{number},{address}",
        Form.UNIT: f"{i.first}",
        Form.SWITCH: f"{switch},{address}",
        Form.SWITCH_ONLY: switch,
        Form.LATCH: f"{number}",
        Form.TAPE: f"{unit},{address}",
        Form.TAPE_CONTROL: unit,
        Form.TAPE_LATCH: i.control,
        Form.TAPE_BRANCH: f"{i.control},{address}",
    }
    return str(texts[form])
