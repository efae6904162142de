"""Card reader, card punch, printer and typewriter (A22-7003, "Unit Record").

Units are numbered as in the Open SIMH simulator: reader 1, punch 2, printer 3. The reader's panel is wired for 16 alpha
words of five columns. Sent to punch or printer, an alpha word is five columns, and a number ten, with a minus over the
last digit.

Exits are the locations after the instruction. After UR: trouble, end of file, a card. After UW: trouble, carriage
channel 9, a card or line. After TYP: trouble, typed. A unit goes on by itself while the program does; when it is ready
again it turns on a latch: A for the reader, B for the others. An instruction for a unit that is still busy waits.
"""

from collections.abc import Callable
from typing import Final

from virtus.devices.card_punch import CardPunch
from virtus.devices.card_reader import BadCard, CardReader
from virtus.devices.line_printer import LinePrinter
from virtus.devices.typewriter import Typewriter
from virtus.isa.ibm7070 import characters
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.characters import Arrangement
from virtus.isa.ibm7070.decode import Instruction
from virtus.personalities.ibm7070.machine import MILLISECOND, Processor, Stopped, Time
from virtus.personalities.ibm7070.priority import UNIT_A, UNIT_B, Latch, Priority
from virtus.personalities.ibm7070.records import columns_of, fetch, locations, put

READER, PUNCH, PRINTER = 1, 2, 3
SIGNAL, READ, WRITE, WRITE_INVALID, TYPE = range(5)
"""Position 5 of the instruction."""
CARD_MS: Final = 120
"""IBM 7500: 500 cards a minute."""
PUNCH_MS: Final = 240
"""IBM 7550: 250 cards a minute."""
LINE_MS: Final = 400
"""IBM 7400: 150 lines a minute."""
TYPED_MS: Final = 100
"""A character of the typewriter: 600 a minute."""
TRANSFER: Final = 2
"""Cycles for each word between storage and a unit's buffer."""
CARD_WORDS: Final = 16
MOST_TYPED: Final = 10_000


class UnitRecord:
    """The units, any of which may be missing."""

    def __init__(
        self,
        time: Time,
        priority: Priority,
        *,
        reader: CardReader | None,
        punch: CardPunch | None,
        printer: LinePrinter | None,
        typewriter: Typewriter | None,
        arrangement: Arrangement = "commercial",
    ) -> None:
        self._time, self._priority = time, priority
        self._reader, self._punch, self._printer, self._typewriter = reader, punch, printer, typewriter
        self._arrangement: Arrangement = arrangement
        self._ready_at = {READER: 0, PUNCH: 0, PRINTER: 0}

    def carry_out(self, processor: Processor, instruction: Instruction, operand: int) -> None:
        """A unit record instruction; the processor goes on at one of its exits."""
        unit, kind = instruction.first, instruction.last
        if kind == TYPE:
            self._type(processor, operand)
        elif kind == SIGNAL:
            self._time.wait_until(self._ready_at.get(unit, 0))
            self._time.pass_(TRANSFER)
            processor.pc += 1
        elif kind == READ:
            self._read(processor, unit, operand)
        else:
            self._write(processor, unit, operand, invalid=kind == WRITE_INVALID)

    def _begin(self, unit: int, milliseconds: float, latch: Latch) -> None:
        """The unit moves a card or line, and says when it is ready."""
        at = self._ready_at[unit] = self._time.now + round(milliseconds * MILLISECOND)
        self._time.at(at, lambda: self._priority.latches.add(latch))

    def _read(self, processor: Processor, unit: int, operand: int) -> None:
        if unit != READER or self._reader is None:
            what = "no cards (--cards FILE)" if unit == READER else "no such reader"
            raise Stopped(f"unit {unit} is not ready: {what}")
        self._time.wait_until(self._ready_at[READER])
        try:
            columns = self._reader.read()
            if columns is None:
                self._time.pass_(TRANSFER)
                processor.pc += 2
                return
            codes = [characters.code_of(column) for column in columns]
        except (BadCard, ValueError):
            self._begin(READER, CARD_MS, UNIT_A)
            processor.pc += 1
            return
        for number, location in zip(range(CARD_WORDS), locations(processor, operand), strict=False):
            magnitude = 0
            for code in codes[number * words.CHARACTERS : (number + 1) * words.CHARACTERS]:
                magnitude = magnitude * 100 + code
            put(processor, location, words.ALPHA | magnitude)
        self._time.pass_(TRANSFER * CARD_WORDS)
        self._begin(READER, CARD_MS, UNIT_A)
        processor.pc += 3

    def _text(self, processor: Processor, operand: int, places: int) -> str | None:
        """The characters of the areas of a list, as many as the unit takes; None where some digits are none."""
        text: list[str] = []
        for location in locations(processor, operand):
            if len(text) >= places:
                break
            try:
                codes = columns_of(fetch(processor, location))
                text += [characters.character_of(code, self._arrangement) for code in codes]
            except ValueError:
                return None
        self._time.pass_(TRANSFER * (len(text) // words.CHARACTERS))
        return "".join(text[:places])

    def _write(self, processor: Processor, unit: int, operand: int, *, invalid: bool) -> None:
        devices: dict[int, tuple[CardPunch | LinePrinter | None, str, float, int]] = {
            PUNCH: (self._punch, "nothing is there (--punch FILE)", PUNCH_MS, 80),
            PRINTER: (self._printer, "nothing is there (--printer FILE)", LINE_MS, 120),
        }
        device, what, milliseconds, places = devices.get(unit, (None, "no such unit", 0.0, 0))
        if device is None:
            raise Stopped(f"unit {unit} is not ready: {what}")
        self._time.wait_until(self._ready_at[unit])
        text = self._text(processor, operand, places)
        if text is None and not invalid:
            processor.pc += 1
            return
        do: Callable[[str], bool | None] = device.print if isinstance(device, LinePrinter) else device.punch
        channel_9 = do(text or "")
        self._begin(unit, milliseconds, UNIT_B)
        if invalid:
            processor.pc += 1
        else:
            processor.pc += 2 if channel_9 else 3

    def _type(self, processor: Processor, operand: int) -> None:
        if self._typewriter is None:
            raise Stopped("there is no console typewriter")
        text: list[str] = []
        for location in locations(processor, operand):
            word = fetch(processor, location)
            if not word & words.ALPHA:
                text.append(words.show(word))
            else:
                try:
                    text += [characters.character_of(code, self._arrangement) for code in columns_of(word)]
                except ValueError:
                    processor.pc += 1
                    return
            if len(text) > MOST_TYPED:
                break
        line = "".join(text)
        self._typewriter.type(line)
        self._time.pass_(round(TYPED_MS * len(line) * MILLISECOND))
        processor.pc += 2
