"""Automatic priority processing (A22-7003, "Automatic Priority Processing").

When a device is done, or has trouble, a latch is turned on. A latch that is not masked interrupts the main routine
before its next instruction: where to go on is kept in index word 97, the indicators at location 100, and the routine
for that latch begins. Priority routines are not interrupted; PR ends one. The next latch that is on, if any, is served
before the main routine goes on.

Sources in the order in which they are looked at, with the position of the mask word of PC: tape channels 4 (0) and 3
(1), inquiry groups 2 (2) and 1 (3), disk storage (4, 5), tape channels 2 (6) and 1 (7), unit record B (8) and A (9).
All are masked at the start. Order and numbers are those of the Open SIMH simulator (I7000/i7070_cpu.c, scan_irq).
"""

from typing import Final, NamedTuple

from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.layout import (
    COMPARED,
    EQUAL,
    FIELD_OVERFLOW,
    FLOAT_OVERFLOW,
    FLOAT_UNDERFLOW,
    HALTS,
    HIGH,
    INDICATORS,
    LOW,
    NOTHING,
    OVERFLOW1,
    PRIORITY_RETURN,
    SENSED,
    SENSES,
    SIGN_CHANGE,
    STATUS_INDEX,
)
from virtus.personalities.ibm7070.machine import Processor


class Latch(NamedTuple):
    """A latch by the digits that instructions name it with: group 0 for units, else a tape channel."""

    group: int
    unit: int


UNIT_A, UNIT_B = Latch(0, 1), Latch(0, 2)
INQUIRY_1, INQUIRY_2 = Latch(0, 3), Latch(0, 4)
TAPE_CHANNELS: Final = (1, 2, 3, 4)
TAPE_UNITS: Final = 10
_ROUTINES: Final = {UNIT_A: 104, UNIT_B: 105, INQUIRY_1: 106, INQUIRY_2: 107}
_TAPE_ROUTINES: Final = 150  # plus the condition in the final status word
_CHANNEL_POSITIONS: Final = {4: 0, 3: 1, 2: 6, 1: 7}
_UNIT_POSITIONS: Final = {INQUIRY_2: 2, INQUIRY_1: 3, UNIT_B: 8, UNIT_A: 9}
POSITIONS: Final = 10


def final_status(channel: int, unit: int) -> int:
    """The location of a tape unit's final status word."""
    return 100 + 10 * channel + unit


def initial_status(channel: int, unit: int) -> int:
    """The location of its initial status word."""
    return 150 + 10 * channel + unit


def valid(latch: Latch) -> bool:
    """Whether there is such a latch."""
    if latch.group == 0:
        return latch in _ROUTINES
    return latch.group in TAPE_CHANNELS and 0 <= latch.unit < TAPE_UNITS


class Priority:
    """The latches, the mask, and whether a priority routine runs."""

    def __init__(self) -> None:
        self.latches: set[Latch] = set()
        self.masked = set(range(POSITIONS))
        """Positions of the mask word whose latches do not interrupt."""
        self.in_routine = False

    def set_mask(self, word: int) -> None:
        """PC: a digit that is not zero masks."""
        self.masked = {position for position in range(POSITIONS) if words.field(word, position, position)}

    def _waiting(self) -> Latch | None:
        """The latch to be served next."""
        by_position: dict[int, Latch] = {}
        for latch in sorted(self.latches, reverse=True):
            position = _UNIT_POSITIONS.get(latch) if latch.group == 0 else _CHANNEL_POSITIONS[latch.group]
            if position is not None and position not in self.masked:
                by_position[position] = latch
        return by_position[min(by_position)] if by_position else None

    @property
    def interrupts(self) -> bool:
        """Whether the main routine is to be interrupted."""
        return not self.in_routine and self._waiting() is not None

    def interrupt(self, processor: Processor) -> None:
        """Interrupt the main routine."""
        latch = self._waiting()
        if latch is None or self.in_routine:
            return
        processor.store(PRIORITY_RETURN, words.replaced(0, 2, 5, processor.pc))
        processor.store(INDICATORS, indicators(processor))
        self._serve(processor, latch)

    def _serve(self, processor: Processor, latch: Latch) -> None:
        self.latches.discard(latch)
        self.in_routine = True
        set_indicators(processor, 0)
        if latch.group:
            status = final_status(latch.group, latch.unit)
            index = processor.load(STATUS_INDEX) & words.MAGNITUDE
            processor.store(STATUS_INDEX, words.replaced(index, 2, 5, status))
            processor.pc = _TAPE_ROUTINES + words.field(processor.load(status), 1, 1)
        else:
            processor.pc = _ROUTINES[latch]

    def release(self, processor: Processor, operand: int) -> None:
        """PR, whose effective address is `operand`: go on there, or for 97 where the main routine was interrupted."""
        if not self.in_routine:
            processor.pc += 1
            return
        latch = self._waiting()
        if latch is not None:
            if operand != PRIORITY_RETURN:
                index = processor.load(PRIORITY_RETURN) & words.MAGNITUDE
                processor.store(PRIORITY_RETURN, words.replaced(index, 2, 5, operand))
            self._serve(processor, latch)
            return
        self.in_routine = False
        back = words.field(processor.load(PRIORITY_RETURN), 2, 5)
        processor.pc = back if operand == PRIORITY_RETURN else operand
        set_indicators(processor, processor.load(INDICATORS))


# The word of indicators: digits for sign change and field overflow (see layout.HALTS), floating underflow and overflow,
# high, equal, low, and the overflow of accumulators 1, 2, 3.


def indicators(processor: Processor) -> int:
    """The indicators as the word that priority keeps."""
    regs = processor.regs
    compared = regs[COMPARED]
    digits = (
        regs[SIGN_CHANGE],
        regs[FIELD_OVERFLOW],
        regs[FLOAT_UNDERFLOW],
        regs[FLOAT_OVERFLOW],
        int(compared == HIGH),
        int(compared == EQUAL),
        int(compared == LOW),
        *(regs[OVERFLOW1 + number] for number in range(3)),
    )
    return int("".join(str(digit) for digit in digits))


def set_indicators(processor: Processor, word: int) -> None:
    """Set them from such a word; digits that mean nothing count as the nearest that does."""
    regs = processor.regs
    digits = [words.field(word, position, position) for position in range(10)]
    for slot, digit in ((SIGN_CHANGE, digits[0]), (FIELD_OVERFLOW, digits[1])):
        regs[slot] = HALTS if digit == 0 else SENSED if digit == SENSED else SENSES
    regs[FLOAT_UNDERFLOW], regs[FLOAT_OVERFLOW] = int(digits[2] != 0), int(digits[3] != 0)
    regs[COMPARED] = HIGH if digits[4] else EQUAL if digits[5] else LOW if digits[6] else NOTHING
    for number in range(3):
        regs[OVERFLOW1 + number] = int(digits[7 + number] != 0)
