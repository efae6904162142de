"""From a mnemonic and its operand to the word of an instruction."""

from collections.abc import Callable

from virtus.guests.autocoder.operands import Address, Symbols
from virtus.guests.autocoder.source import SourceError, parts_of
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.operations import BY_NAME, MINUS_ZERO, Form, Operation


class Encoder:
    """Assembles instructions with the symbols of a program."""

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self._forms: dict[Form, Callable[[tuple[Operation, ...], list[str], int], int]] = {
            Form.NONE: self._none,
            Form.ADDRESS: self._address,
            Form.FIELD: self._field,
            Form.DIGIT: self._digit,
            Form.INDEX: self._index,
            Form.SHIFT: self._shift,
            Form.SPLIT: self._split,
            Form.COUNT: self._count,
            Form.NUMBER: self._number,
            Form.UNIT: self._device,
            Form.SWITCH: self._switch,
            Form.SWITCH_ONLY: self._switch,
            Form.LATCH: self._latch,
            Form.TAPE: self._tape,
            Form.TAPE_CONTROL: self._tape_control,
            Form.TAPE_LATCH: self._tape_latch,
            Form.TAPE_BRANCH: self._tape_branch,
        }

    def encode(self, name: str, operand: str, here: int) -> int:
        """The word; raises SourceError."""
        rows = BY_NAME.get(name)
        if rows is None:
            raise SourceError(f"{name} is no operation")
        return self._forms[rows[0].form](rows, parts_of(operand) if operand else [], here)

    def _row_word(self, row: Operation, *, control: int = 0, address: int = 0, index: int = 0) -> int:
        code = 0 if row.code == MINUS_ZERO else abs(row.code)
        word = code * 10**8 + index * 10**6 + control * 10**4 + address
        for position, digit in row.digits:
            word = words.replaced(word, position, position, digit)
        return word | (words.MINUS if row.code < 0 else 0)

    def _expect(self, row: Operation, parts: list[str], count: int) -> None:
        if len(parts) != count:
            raise SourceError(f"{row.name} is written {row.name} {row.form.value}".rstrip())

    def _place(self, text: str, here: int) -> Address:
        return self._symbols.address(text, here)

    # One for each form of operand

    def _none(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        if len(parts) > 1:
            self._expect(rows[0], parts, 0)
        address = self._place(parts[0], here) if parts and parts[0] else Address(0)
        return self._row_word(rows[0], address=address.location, index=address.index)

    def _address(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 1)
        address = self._place(parts[0], here)
        return self._row_word(rows[0], address=address.location, index=address.index)

    def _field(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 1)
        address = self._place(parts[0], here)
        first, last = address.field or (0, 9)
        return self._row_word(rows[0], control=10 * first + last, address=address.location, index=address.index)

    def _digit(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 2)
        address = self._place(parts[0], here)
        first, last = address.field or (9, 9)
        if first != last:
            raise SourceError("one digit is compared")
        digit = self._limited(parts[1], 0, 9)
        return self._row_word(rows[0], control=10 * digit + last, address=address.location, index=address.index)

    def _index(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 2)
        address = self._place(parts[1], here)
        number = self._symbols.index_word(parts[0])
        return self._row_word(rows[0], control=number, address=address.location, index=address.index)

    def _limited(self, text: str, low: int, high: int) -> int:
        number = self._symbols.number(text)
        if not low <= number <= high:
            raise SourceError(f"{text} is {number}, and {low} to {high} is wanted")
        return number

    def _shift(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        row = rows[0]
        self._expect(row, parts, 1)
        address = self._place(parts[0], here)
        most = 20 if row.code < 0 else 10
        if address.location > most:
            raise SourceError(f"{row.name} shifts by {most} places at most")
        return self._row_word(row, address=address.location, index=address.index)

    def _split(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 1)
        count_text, bracket, point_text = parts[0].partition("(")
        if not bracket or not point_text.endswith(")"):
            raise SourceError(
                f"{rows[0].name} is written {rows[0].name} {rows[0].form.value}, with a point from 0 to 19"
            )
        count = self._limited(count_text, 0, 20)
        point = self._limited(point_text[:-1], 0, 19)
        row = rows[1] if point >= 10 else rows[0]
        return self._row_word(row, address=point % 10 * 1000 + count)

    def _count(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 1)
        return self._row_word(rows[0], control=self._symbols.index_word(parts[0]))

    def _number(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        row = rows[0]
        self._expect(row, parts, 2)
        address = self._place(parts[1], here)
        number = self._limited(parts[0], 1, 4)
        control = 10 * number
        if row.code == 60:  # units by their latches
            row = next((found for found in rows if found.digits[1][1] == number + (2 if row.name == "BQL" else 0)), row)
            control = 0
        return self._row_word(row, control=control, address=address.location, index=address.index)

    def _device(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 1)
        return self._row_word(rows[0], control=10 * self._limited(parts[0], 1, 4))

    def _switch(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        row = rows[0]
        branches = row.form is Form.SWITCH
        self._expect(row, parts, 2 if branches else 1)
        number = self._limited(parts[0], 1, 30) - 1
        address = self._place(parts[1], here) if branches else Address(0)
        row = rows[number // 10]
        return self._row_word(row, control=number % 10, address=address.location, index=address.index)

    def _latch(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 1)
        number = self._limited(parts[0], 1, 2)
        return self._row_word(rows[number - 1])

    def _unit(self, text: str) -> tuple[int, int]:
        number = self._symbols.number(text)
        if not 10 <= number <= 49:
            raise SourceError(f"{text} is no tape unit: a channel, 1 to 4, and a unit, 0 to 9, are two digits")
        return divmod(number, 10)

    def _tape(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 2)
        channel, unit = self._unit(parts[0])
        address = self._place(parts[1], here)
        return self._row_word(rows[channel - 1], control=10 * unit, address=address.location, index=address.index)

    def _tape_control(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 1)
        channel, unit = self._unit(parts[0])
        return self._row_word(rows[channel - 1], control=10 * unit)

    def _tape_latch(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 1)
        channel, unit = self._unit(parts[0])
        return self._row_word(rows[channel - 1], control=unit)

    def _tape_branch(self, rows: tuple[Operation, ...], parts: list[str], here: int) -> int:
        self._expect(rows[0], parts, 2)
        channel, unit = self._unit(parts[0])
        address = self._place(parts[1], here)
        return self._row_word(rows[channel - 1], control=unit, address=address.location, index=address.index)
