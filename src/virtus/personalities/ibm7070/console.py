"""What the operator sees when the machine stops: where, why, and the registers."""

from typing import Final

from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.decode import decode_word, show_instruction
from virtus.isa.ibm7070.layout import (
    AC1,
    ALPHA_FLOAT,
    ALPHA_INDEX_WORD,
    COMPARED,
    CYCLES,
    FIELD_OVERFLOWS,
    IMPROPER_DIVISION,
    INVALID_OPERATION,
    NO_SUCH_LOCATION,
    OVERFLOW1,
    SIGN_CHANGES,
)
from virtus.isa.ibm7070.timing import MICROSECONDS
from virtus.personalities.ibm7070.machine import Processor

WHY: Final = {
    FIELD_OVERFLOWS: "field overflow",
    SIGN_CHANGES: "sign change",
    IMPROPER_DIVISION: "improper division",
    ALPHA_INDEX_WORD: "an alpha index word",
    ALPHA_FLOAT: "an alpha word in floating arithmetic",
    NO_SUCH_LOCATION: "an address that no storage has",
    INVALID_OPERATION: "an invalid instruction",
}
_COMPARED: Final = ("-", "low", "equal", "high")


def display(processor: Processor, why: str) -> str:
    """The lines of the console: what happened, the instruction and its location, accumulators, indicators, time."""
    location, regs = processor.pc, processor.regs
    try:
        word = processor.load(location)
        instruction = f"{words.show(word)}  {show_instruction(decode_word(word))}"
    except IndexError:
        instruction = "(no storage)"
    accumulators = "  ".join(f"{number} {words.show(regs[AC1 + number - 1])}" for number in (1, 2, 3))
    overflows = " ".join(str(number) for number in (1, 2, 3) if regs[OVERFLOW1 + number - 1]) or "none"
    cycles = regs[CYCLES]
    return (
        f"{why} at {location:04d}: {instruction}\n"
        f"accumulators  {accumulators}\n"
        f"overflow {overflows}; compared {_COMPARED[regs[COMPARED] & 3]}; "
        f"{cycles:,} cycles of {MICROSECONDS} µs ({cycles * MICROSECONDS / 1e6:.3f} s)"
    )
