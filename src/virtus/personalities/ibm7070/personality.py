"""The personality itself: answers whatever makes the processor come out."""

from collections.abc import Callable, Mapping
from typing import Final, TextIO

from virtus.devices.card_punch import CardPunch
from virtus.devices.card_reader import CardReader
from virtus.devices.line_printer import LinePrinter
from virtus.devices.tape import Reel
from virtus.devices.typewriter import Typewriter
from virtus.exits import Exit, Reason
from virtus.isa.ibm7070 import characters
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.characters import Arrangement
from virtus.isa.ibm7070.decode import Instruction, decode_word
from virtus.isa.ibm7070.layout import ASSIGNED, EVENT, HALT, INVALID_OPERATION, LOCATIONS, OPERAND
from virtus.isa.ibm7070.timing import cycles
from virtus.personalities.ibm7070.console import WHY, display
from virtus.personalities.ibm7070.machine import Processor, Stopped, Time
from virtus.personalities.ibm7070.priority import INQUIRY_1, Latch, Priority, valid
from virtus.personalities.ibm7070.records import columns_of, fetch, locations, put
from virtus.personalities.ibm7070.tapes import Tapes
from virtus.personalities.ibm7070.unit_record import UnitRecord
from virtus.records import dataclass, field

SWITCHES: Final = (1, 2, 3, 4)
"""Alteration switches of the console."""
_NAMES: Final = {EVENT: "event", HALT: "halt", ASSIGNED: "input or output"}
_TAPE_CODES: Final = range(81, 85)
STOPPED: Final = 1
"""The exit status of a machine that stopped of itself; one that was halted by its program has 0."""


@dataclass(slots=True)
class Equipment:
    """What is attached to the machine, and how the operator has set its switches."""

    reader: CardReader | None = None
    punch: CardPunch | None = None
    printer: LinePrinter | None = None
    typewriter: Typewriter | None = None
    tapes: Mapping[tuple[int, int], Reel] = field(default_factory=dict)
    switches: frozenset[int] = frozenset()
    arrangement: Arrangement = "commercial"


class Ibm7070Machine:
    """See `virtus.exits.Personality`. `display` goes to `console` when the machine halts or stops."""

    def __init__(self, equipment: Equipment, console: TextIO) -> None:
        self._equipment, self._console = equipment, console
        self._running = True
        self.status = 0
        self.time = Time()
        self.priority = Priority()
        self.tapes = Tapes(self.time, self.priority, equipment.tapes)
        self.units = UnitRecord(
            self.time,
            self.priority,
            reader=equipment.reader,
            punch=equipment.punch,
            printer=equipment.printer,
            typewriter=equipment.typewriter,
            arrangement=equipment.arrangement,
        )
        self._operations: dict[str, Callable[[Processor, Instruction, int], None]] = {
            "BAS": self._switch,
            "BCB": self._channel_busy,
            "PC": self._mask,
            "PR": lambda processor, instruction, operand: self.priority.release(processor, operand),
            "QR": self._inquiry,
            "QW": self._inquiry,
            "BAL": self._branch_latch,
            "BUL": self._branch_latch,
            "BQL": self._branch_latch,
            "BTL": self._branch_latch,
            **dict.fromkeys(("ULN", "QLN", "TLN"), self._latch_on),
            **dict.fromkeys(("ULF", "QLF", "TLF"), self._latch_off),
            **dict.fromkeys(("US", "UR", "UW", "UWIV", "TYP"), self.units.carry_out),
        }

    @property
    def running(self) -> bool:
        """See Personality."""
        return self._running

    def name_of(self, exit: Exit) -> str:
        """See Personality."""
        return WHY.get(
            exit.number, {EVENT: "event", HALT: "halt", ASSIGNED: "input or output"}.get(exit.number, "stop")
        )

    def start(self, processor: Processor) -> None:
        """Before the first instruction."""
        self.time.processor = processor
        keyboard = self._equipment.typewriter
        if keyboard is not None and keyboard.has_line:
            self.priority.latches.add(INQUIRY_1)
        self.time.set_deadline(at_once=self.priority.interrupts)

    def handle(self, exit: Exit) -> None:
        """See Personality."""
        processor: Processor = exit.context
        if exit.reason is not Reason.LEFT:
            return
        number = exit.number
        try:
            if number == ASSIGNED:
                self._carry_out(processor)
            elif number == HALT:
                self._end(processor, "halt", 0)
            elif number != EVENT:
                self._end(processor, WHY.get(number, f"reason {number}"), STOPPED)
        except Stopped as error:
            self._end(processor, str(error), STOPPED)
        if self._running:
            self.time.run_due()
            if self.priority.interrupts:
                self.priority.interrupt(processor)
            self.time.set_deadline(at_once=False)

    def _end(self, processor: Processor, why: str, status: int) -> None:
        self._running = False
        self.status = status
        self._console.write(display(processor, why) + "\n")
        self._console.flush()

    def _carry_out(self, processor: Processor) -> None:
        instruction = decode_word(processor.load(processor.pc))
        operand = int(processor.regs[OPERAND])
        before = self.time.now
        operation = instruction.operation
        if operation is None:
            raise Stopped(WHY[INVALID_OPERATION])
        carry_out = self._operations.get(instruction.name)
        if carry_out is None:
            if abs(operation.code) not in _TAPE_CODES:
                raise Stopped(f"{instruction.name} needs a device that is not attached")
            carry_out = self.tapes.carry_out
        carry_out(processor, instruction, operand)
        if self.time.now == before:
            self.time.pass_(cycles(operation, 0, 0, indexed=instruction.index != 0))
        processor.pc %= LOCATIONS

    # Switches, channels, latches

    def _branch(self, processor: Processor, condition: bool, operand: int) -> None:
        processor.pc = operand if condition else processor.pc + 1

    def _switch(self, processor: Processor, instruction: Instruction, operand: int) -> None:
        self._branch(processor, instruction.first in self._equipment.switches, operand)

    def _channel_busy(self, processor: Processor, instruction: Instruction, operand: int) -> None:
        self._branch(processor, self.tapes.busy(instruction.first), operand)

    def _mask(self, processor: Processor, instruction: Instruction, operand: int) -> None:
        self.priority.set_mask(fetch(processor, operand))
        processor.pc += 1

    def _branch_latch(self, processor: Processor, instruction: Instruction, operand: int) -> None:
        if instruction.name == "BAL":
            self._branch(processor, bool(self.priority.latches), operand)
        else:
            self._branch(processor, self._latch(instruction) in self.priority.latches, operand)

    @staticmethod
    def _latch(instruction: Instruction) -> Latch:
        latch = Latch(instruction.first, instruction.last)
        if not valid(latch):
            raise Stopped(f"there is no latch {latch.group}{latch.unit}")
        return latch

    def _latch_on(self, processor: Processor, instruction: Instruction, operand: int) -> None:
        self.priority.latches.add(self._latch(instruction))
        processor.pc += 1

    def _latch_off(self, processor: Processor, instruction: Instruction, operand: int) -> None:
        self.priority.latches.discard(self._latch(instruction))
        processor.pc += 1

    # The inquiry station: the typewriter's keyboard

    def _inquiry(self, processor: Processor, instruction: Instruction, operand: int) -> None:
        """QR reads a line that was typed (blank, if none was), QW types one."""
        station = self._equipment.typewriter
        if instruction.first != 1 or station is None:
            raise Stopped(f"inquiry station {instruction.first} is not attached")
        if instruction.name == "QW":
            codes = [
                code for location in locations(processor, operand) for code in columns_of(fetch(processor, location))
            ]
            try:
                station.type("".join(characters.character_of(code, self._equipment.arrangement) for code in codes))
            except ValueError as error:
                raise Stopped(f"inquiry station 1: {error}") from error
        else:
            text = station.read() or ""
            areas = list(locations(processor, operand))
            for number, location in enumerate(areas):
                part = text[number * words.CHARACTERS : (number + 1) * words.CHARACTERS]
                try:
                    put(processor, location, words.alpha(part))
                except ValueError as error:
                    raise Stopped(f"inquiry station 1: {error}") from error
            if station.has_line:
                self.priority.latches.add(INQUIRY_1)
        processor.pc += 1
