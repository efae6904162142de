"""The table of meanings, by mnemonic, and what all of them are made of: effective addresses, operands, time.

A description may come out before it has done anything (an event is due, storage has no such location, a store would
change translated code) and is then begun again; so whatever it sets it sets after the last `leave_if`, the cycles too.
"""

from collections.abc import Callable
from typing import Final

from virtus.isa.builder import Builder, Word
from virtus.isa.ibm7070 import timing
from virtus.isa.ibm7070.decode import Instruction
from virtus.isa.ibm7070.digits import field, is_alpha, is_minus
from virtus.isa.ibm7070.layout import (
    AC1,
    ACCUMULATOR_ADDRESSES,
    ALPHA_INDEX_WORD,
    CORE,
    COVERED,
    CYCLES,
    DEADLINE,
    EVENT,
    LOCATIONS,
    MODIFIED,
    NO_SUCH_LOCATION,
    OPERAND,
    PHASE,
    REGISTER_ADDRESSED,
    STORAGE,
    WORD,
    address_of,
)

Meaning = Callable[[Builder, Instruction], None]

MEANINGS: Final[dict[str, Meaning]] = {}


def means(*names: str) -> Callable[[Meaning], Meaning]:
    """Register a description under these mnemonics; it begins with a look at what is due."""

    def register(meaning: Meaning) -> Meaning:
        def whole(b: Builder, i: Instruction) -> None:
            b.leave_if(b.compare("uge", b.get(CYCLES), b.get(DEADLINE)), EVENT)
            meaning(b, i)

        _enter(names, whole)
        return meaning

    return register


def means_in_steps(*names: str) -> Callable[[Meaning], Meaning]:
    """Likewise for one that goes on at its own address until it is done (PHASE): events wait for its end."""

    def register(meaning: Meaning) -> Meaning:
        def whole(b: Builder, i: Instruction) -> None:
            due = b.compare("uge", b.get(CYCLES), b.get(DEADLINE))
            b.leave_if(b.both(due, b.compare("eq", b.get(PHASE), b.const(0))), EVENT)
            meaning(b, i)

        _enter(names, whole)
        return meaning

    return register


def _enter(names: tuple[str, ...], meaning: Meaning) -> None:
    for name in names:
        if name in MEANINGS:
            raise ValueError(f"{name} is described twice")
        MEANINGS[name] = meaning


def leave(b: Builder, reason: int) -> None:
    """Come out whatever happens; nothing of the instruction may follow but its end."""
    b.leave_if(b.compare("eq", b.const(0), b.const(0)), reason)


def spend(b: Builder, i: Instruction, more: Word | None = None) -> None:
    """Let the instruction's time pass, and `more` cycles."""
    known = timing.cycles(i.operation, i.first, i.last, indexed=i.index != 0)
    spend_cycles(b, b.const(known) if more is None else b.add(more, b.const(known)))


def spend_cycles(b: Builder, cycles: Word) -> None:
    """Let time pass."""
    b.set(CYCLES, b.add(b.get(CYCLES), cycles))


def accumulator(i: Instruction) -> int:
    """The slot of the accumulator that an operation code names by its first digit (none: the first)."""
    code = abs(i.operation.code) // 10 if i.operation else 0
    return AC1 + code - 1 if 1 <= code <= 3 else AC1


# Addresses


def index_word(b: Builder, number: int) -> Word:
    """The word at a location that the instruction names by two digits."""
    return b.load(b.const(address_of(number)), WORD)


def indexing_portion(b: Builder, word: Word) -> Word:
    """Positions 2 to 5."""
    return field(b, b.and_(word, b.const((1 << 34) - 1)), 2, 5)


def wrapped(b: Builder, location: Word) -> Word:
    """Addresses have four digits: a sum below 20000 without its fifth."""
    return b.select(b.compare("uge", location, b.const(LOCATIONS)), b.sub(location, b.const(LOCATIONS)), location)


def effective(b: Builder, i: Instruction) -> Word:
    """The address with the index word's indexing portion added, by its sign."""
    if not i.index:
        return b.const(i.address)
    word = index_word(b, i.index)
    b.leave_if(is_alpha(b, word), ALPHA_INDEX_WORD)
    portion = indexing_portion(b, word)
    downward = b.sub(b.const(LOCATIONS), portion)
    return wrapped(b, b.add(b.const(i.address), b.select(is_minus(b, word), downward, portion)))


def byte_address(b: Builder, location: Word) -> Word:
    """Where a computed location is."""
    return b.add(b.const(CORE), b.shift_left(location, b.const(3)))


def branch_target(b: Builder, i: Instruction) -> Word:
    """The effective address as one to jump to."""
    return byte_address(b, effective(b, i))


def next_location(b: Builder) -> int:
    """The location after this instruction's; the counter has four digits."""
    return ((b.pc - CORE) // WORD + 1) % LOCATIONS


class Place:
    """Where an operand is: an accumulator, a location that is known, or a computed one."""

    __slots__ = ("_address", "_builder", "_covered", "_slot")

    def __init__(self, b: Builder, location: Word, known: int | None) -> None:
        self._builder = b
        self._slot = -1
        self._address = self._covered = b.const(0)
        if known is None:
            b.leave_if(b.compare("uge", location, b.const(STORAGE)), REGISTER_ADDRESSED)
            self._address = byte_address(b, location)
            self._covered = b.add(b.const(COVERED), location)
        elif known in ACCUMULATOR_ADDRESSES:
            self._slot = AC1 + ACCUMULATOR_ADDRESSES[known] - 1
        elif known < STORAGE:
            self._address = b.const(address_of(known))
            self._covered = b.const(COVERED + known)
        else:
            leave(b, NO_SUCH_LOCATION)

    def read(self) -> Word:
        """The word there."""
        b = self._builder
        return b.get(self._slot) if self._slot >= 0 else b.load(self._address, WORD)

    def claim(self) -> "Place":
        """Come out if code has been made from what is there: it is about to be changed."""
        if self._slot < 0:
            claim(self._builder, self._covered)
        return self

    def write(self, word: Word) -> None:
        """Store a word; the place must have been claimed before anything was set."""
        b = self._builder
        if self._slot >= 0:
            b.set(self._slot, word)
        else:
            b.store(self._address, word, WORD)


def claim(b: Builder, covered: Word) -> None:
    """Come out if the byte at this address says that code has been made from a location (see layout.COVERED)."""
    b.leave_if(b.compare("ne", b.load(covered, 1), b.const(0)), MODIFIED)


def operand(b: Builder, i: Instruction) -> Place:
    """What the effective address names."""
    return Place(b, effective(b, i), None if i.index else i.address)


def index_place(b: Builder, i: Instruction) -> Place:
    """The index word that an instruction works on."""
    return Place(b, b.const(i.control), i.control)


def assigned(b: Builder, i: Instruction, reason: int) -> None:
    """Come out, with the effective address in OPERAND."""
    b.set(OPERAND, effective(b, i))
    leave(b, reason)
    b.jump(b.pc)
