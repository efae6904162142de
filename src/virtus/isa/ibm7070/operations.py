"""The operations of the IBM 7070: mnemonics, codes, and what the digits of an instruction say.

An instruction is a word (A22-7003, "IBM 7070 Instructions"): sign and positions 0, 1 are the operation code; 2, 3 name
an index word; 4, 5 control it (mostly the first and last position of a field); 6 to 9 are the address. Several codes
stand for a group of operations, told apart by more digits: the table's `digits`, by position.
"""

from enum import Enum
from typing import Final

from virtus.records import dataclass


class Form(Enum):
    """How the operand is written in Autocoder."""

    NONE = ""
    ADDRESS = "address"
    FIELD = "address(first,last)"
    DIGIT = "address(position),digit"
    INDEX = "index word,address"
    SHIFT = "count"
    SPLIT = "count(point)"
    COUNT = "index word"
    NUMBER = "number,address"
    UNIT = "number"
    SWITCH = "switch,address"
    SWITCH_ONLY = "switch"
    LATCH = "latch"
    TAPE = "tape unit,address"
    TAPE_CONTROL = "tape unit"
    TAPE_LATCH = "latch of a tape unit"
    TAPE_BRANCH = "latch of a tape unit,address"


@dataclass(frozen=True, slots=True)
class Operation:
    """A row of the table. `code` is the operation code with its sign; -0 is -100."""

    name: str
    code: int
    form: Form
    digits: tuple[tuple[int, int], ...] = ()


MINUS_ZERO: Final = -100
"""The operation code -00."""


def _accumulators() -> list[Operation]:
    table: list[Operation] = []
    for number in (1, 2, 3):
        tens = 10 * number
        for name, code, form in (
            ("BZ", tens, Form.ADDRESS),
            ("BV", tens + 1, Form.ADDRESS),
            ("ST", tens + 2, Form.FIELD),
            ("ZA", tens + 3, Form.FIELD),
            ("A", tens + 4, Form.FIELD),
            ("C", tens + 5, Form.FIELD),
            ("AS", tens + 8, Form.FIELD),
            ("AAS", tens + 9, Form.FIELD),
            ("BM", -tens, Form.ADDRESS),
            ("ZST", -tens - 1, Form.FIELD),
            ("STD", -tens - 2, Form.FIELD),
            ("ZS", -tens - 3, Form.FIELD),
            ("S", -tens - 4, Form.FIELD),
            ("SS", -tens - 8, Form.FIELD),
        ):
            table.append(Operation(f"{name}{number}", code, form))
    return table


def _shifts() -> list[Operation]:
    table = [
        Operation(f"{name}{number}", 50, form, ((6, number), (7, kind)))
        for number in (1, 2, 3)
        for kind, (name, form) in enumerate(
            (("SR", Form.SHIFT), ("SRR", Form.SHIFT), ("SL", Form.SHIFT), ("SLC", Form.COUNT))
        )
    ]
    for kind, (name, form) in enumerate(
        (("SR", Form.SHIFT), ("SRR", Form.SHIFT), ("SL", Form.SHIFT), ("SLC", Form.COUNT))
    ):
        table.append(Operation(name, -50, form, ((7, kind),)))
    for kind, name in ((4, "SRS"), (5, "SLS"), (6, "SRS"), (7, "SLS")):
        table.append(Operation(name, -50, Form.SPLIT, ((7, kind),)))
    return table


def _signs() -> list[Operation]:
    table = [
        Operation(f"{name}{letter}", -3, Form.ADDRESS, ((4, digit), (5, kind)))
        for kind, name in ((0, "CS"), (1, "MS"))
        for letter, digit in (("A", 3), ("M", 6), ("P", 9))
    ]
    table.append(Operation("SMSC", -3, Form.NONE, ((5, 2),)))
    table.append(Operation("HMSC", -3, Form.NONE, ((5, 3),)))
    table.append(Operation("BSC", -3, Form.ADDRESS, ((5, 4),)))
    return table


def _tapes() -> list[Operation]:
    """Without priority the sign is minus; with it, plus, and the mnemonic begins with P."""
    table: list[Operation] = []
    transfers = ("TR", "TRR", "TW", "TWR", "TWZ", "TWC", "TSF", "TSB", "TRA")
    controls = ("TSEL", "TM", "TRW", "TRU", "TRB", "TSM", "TSK", "TEF", "TSLD", "TSHD")
    for sign, prefix in ((-1, ""), (1, "P")):
        for channel in (1, 2, 3, 4):
            code = sign * (80 + channel)
            table += [
                Operation(prefix + name, code, Form.TAPE, ((5, kind),)) for kind, name in enumerate(transfers, start=1)
            ]
            table += [
                Operation(prefix + name, code, Form.TAPE_CONTROL, ((5, 0), (9, kind)))
                for kind, name in enumerate(controls)
            ]
    return table


def _switches() -> list[Operation]:
    kinds = ("BES", "ESN", "ESF", "BSN", "BSF")
    return [
        Operation(name, 61 + word, Form.SWITCH if name.startswith("B") else Form.SWITCH_ONLY, ((4, kind),))
        for word in range(3)
        for kind, name in enumerate(kinds)
    ]


def _latches() -> list[Operation]:
    table = [Operation("BAL", 60, Form.ADDRESS, ((4, 0), (5, 0)))]
    for code, suffix, form, tape in (
        (60, "L", Form.NUMBER, Form.TAPE_BRANCH),
        (-61, "LN", Form.LATCH, Form.TAPE_LATCH),
        (-62, "LF", Form.LATCH, Form.TAPE_LATCH),
    ):
        begin = "B" if code > 0 else ""
        table += [Operation(f"{begin}U{suffix}", code, form, ((4, 0), (5, unit))) for unit in (1, 2)]
        table += [Operation(f"{begin}Q{suffix}", code, form, ((4, 0), (5, unit))) for unit in (3, 4)]
        table += [Operation(f"{begin}T{suffix}", code, tape, ((4, channel),)) for channel in (1, 2, 3, 4)]
    return table


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation("HB", 0, Form.ADDRESS),
    Operation("HP", MINUS_ZERO, Form.NONE),
    Operation("B", 1, Form.ADDRESS),
    Operation("NOP", -1, Form.NONE),
    Operation("BLX", 2, Form.INDEX),
    Operation("CD", 3, Form.DIGIT),
    *_signs(),
    *_accumulators(),
    Operation("ZAA", 16, Form.FIELD),
    Operation("ZSA", -16, Form.FIELD),
    Operation("AA", 17, Form.FIELD),
    Operation("SA", -17, Form.FIELD),
    Operation("CA", -15, Form.FIELD),
    Operation("BL", 40, Form.ADDRESS),
    Operation("BH", -40, Form.ADDRESS),
    Operation("BE", -41, Form.ADDRESS),
    Operation("BFV", 41, Form.ADDRESS, ((5, 0),)),
    Operation("SMFV", 41, Form.NONE, ((5, 1),)),
    Operation("HMFV", 41, Form.NONE, ((5, 2),)),
    Operation("BCX", -43, Form.INDEX),
    Operation("BXN", 44, Form.INDEX),
    Operation("BXM", -44, Form.INDEX),
    Operation("XL", 45, Form.INDEX),
    Operation("XU", -45, Form.INDEX),
    Operation("XZA", 46, Form.INDEX),
    Operation("XZS", -46, Form.INDEX),
    Operation("XA", 47, Form.INDEX),
    Operation("XS", -47, Form.INDEX),
    Operation("XSN", 48, Form.INDEX),
    Operation("XLIN", -48, Form.INDEX),
    Operation("BIX", 49, Form.INDEX),
    Operation("BDX", -49, Form.INDEX),
    *_shifts(),
    Operation("BAS", 51, Form.NUMBER, ((5, 0),)),
    Operation("BCB", 51, Form.NUMBER, ((5, 1),)),
    Operation("M", 53, Form.FIELD),
    Operation("D", -53, Form.FIELD),
    Operation("QR", 54, Form.NUMBER, ((5, 0),)),
    Operation("QW", 54, Form.NUMBER, ((5, 1),)),
    Operation("PC", 55, Form.ADDRESS, ((5, 0),)),
    Operation("ENA", 56, Form.INDEX),
    Operation("ENS", -56, Form.INDEX),
    Operation("ENB", 57, Form.INDEX),
    Operation("EAN", -57, Form.INDEX),
    *_latches(),
    *_switches(),
    Operation("PR", 64, Form.ADDRESS),
    Operation("RS", 65, Form.INDEX),
    Operation("RG", -65, Form.INDEX),
    Operation("LL", 66, Form.FIELD),
    Operation("LE", 67, Form.FIELD),
    Operation("LEH", 68, Form.FIELD),
    Operation("US", 69, Form.UNIT, ((5, 0),)),
    Operation("UR", 69, Form.NUMBER, ((5, 1),)),
    Operation("UW", 69, Form.NUMBER, ((5, 2),)),
    Operation("UWIV", 69, Form.NUMBER, ((5, 3),)),
    Operation("TYP", 69, Form.ADDRESS, ((5, 4),)),
    Operation("FBV", 70, Form.ADDRESS),
    Operation("FBU", -70, Form.ADDRESS),
    Operation("FR", 71, Form.NONE),
    Operation("FM", 73, Form.ADDRESS),
    Operation("FD", -73, Form.ADDRESS),
    Operation("FA", 74, Form.ADDRESS),
    Operation("FS", -74, Form.ADDRESS),
    Operation("FZA", 75, Form.ADDRESS),
    Operation("FDD", -75, Form.ADDRESS),
    Operation("FAD", 76, Form.ADDRESS),
    Operation("FADS", -76, Form.ADDRESS),
    Operation("FAA", 77, Form.ADDRESS),
    Operation("FSA", -77, Form.ADDRESS),
    *_tapes(),
)


def _by_code() -> dict[int, tuple[Operation, ...]]:
    codes: dict[int, list[Operation]] = {}
    for operation in OPERATIONS:
        codes.setdefault(operation.code, []).append(operation)
    return {code: tuple(found) for code, found in codes.items()}


def _by_name() -> dict[str, tuple[Operation, ...]]:
    names: dict[str, list[Operation]] = {}
    for operation in OPERATIONS:
        names.setdefault(operation.name, []).append(operation)
    return {name: tuple(found) for name, found in names.items()}


BY_CODE: Final = _by_code()
BY_NAME: Final = _by_name()
"""Several rows have the name of an operation whose code says which channel, switch word or accumulator it is for."""
