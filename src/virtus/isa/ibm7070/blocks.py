"""Descriptions: block transmission and table look-up (A22-7003, "Core-to-core block transmission", "Table lookup").

The address is that of a list of record definition words. Each has an area's first location in positions 2 to 5 and its
last in 6 to 9; the last one of the list is minus. An area whose last location is before its first is empty.

A description cannot loop. So these go on at their own address, a word at a time, and keep how far they are in slots; an
event waits until they are done.
"""

from virtus.isa.builder import Bit, Builder, Word
from virtus.isa.ibm7070 import timing
from virtus.isa.ibm7070.decode import Instruction
from virtus.isa.ibm7070.digits import field, is_minus, magnitude, replaced
from virtus.isa.ibm7070.layout import (
    AC3,
    AREA,
    AREA_END,
    COVERED,
    FOUND,
    LAST_AREA,
    LIST,
    OTHER,
    PHASE,
    REGISTER_ADDRESSED,
    SPARE,
    STORAGE,
    TABLE_INDEX,
    WORD,
    address_of,
)
from virtus.isa.ibm7070.meaning import (
    byte_address,
    claim,
    effective,
    index_word,
    indexing_portion,
    means_in_steps,
    spend_cycles,
)
from virtus.isa.ibm7070.timing import ENTRY_SEARCHED, WORD_MOVED

START, NEXT_AREA, IN_AREA = 0, 1, 2
"""Phases: nothing done, the next record definition word is wanted, within an area."""


class Areas:
    """One step through the areas of a list: `now` is the location that this step is for, if there is one (`inside`)."""

    def __init__(self, b: Builder, i: Instruction, start: Word) -> None:
        """`start` is the location of the list."""
        self.b, self.i = b, i
        phase = b.get(PHASE)
        self.starting = b.compare("eq", phase, b.const(START))
        fetching = b.compare("ult", phase, b.const(IN_AREA))
        where = b.select(self.starting, start, b.get(LIST))
        where = b.select(fetching, where, b.const(SPARE))
        b.leave_if(b.both(fetching, b.compare("uge", where, b.const(STORAGE))), REGISTER_ADDRESSED)
        word = b.load(byte_address(b, where), WORD)
        digits = magnitude(b, word)
        self.now = b.select(fetching, field(b, digits, 2, 5), b.get(AREA))
        self.end = b.select(fetching, field(b, digits, 6, 9), b.get(AREA_END))
        self.last = b.select(fetching, b.word(is_minus(b, word)), b.get(LAST_AREA))
        self.list = b.select(fetching, b.add(where, b.const(1)), b.get(LIST))
        self.inside = b.compare("uge", self.end, self.now)
        self.fetching = fetching

    def location(self, location: Word) -> Word:
        """The location, or a spare one in a step that is for none; comes out where it is not in storage."""
        b = self.b
        b.leave_if(b.both(self.inside, b.compare("uge", location, b.const(STORAGE))), REGISTER_ADDRESSED)
        return b.select(self.inside, location, b.const(SPARE))

    def claimed(self, location: Word) -> Word:
        """The address of such a location, which is about to be stored into."""
        where = self.location(location)
        claim(self.b, self.b.add(self.b.const(COVERED), where))
        return byte_address(self.b, where)

    def spend(self, cycles: int) -> None:
        """The instruction's time at its start, and this step's."""
        b = self.b
        first = timing.cycles(self.i.operation, self.i.first, self.i.last, indexed=self.i.index != 0)
        start = b.select(self.starting, b.const(first), b.const(0))
        fetch = b.select(self.fetching, b.const(1), b.const(0))
        spend_cycles(b, b.add(b.add(start, fetch), b.select(self.inside, b.const(cycles), b.const(0))))

    def advance(self, step: Word) -> Bit:
        """Note how far it has come, `step` locations on; whether there is more to do."""
        b = self.b
        following = b.add(self.now, step)
        more_here = b.both(self.inside, b.compare("uge", self.end, following))
        more = b.either(more_here, b.compare("eq", self.last, b.const(0)))
        phase = b.select(more_here, b.const(IN_AREA), b.const(NEXT_AREA))
        b.set(AREA, following)
        b.set(AREA_END, self.end)
        b.set(LAST_AREA, self.last)
        b.set(LIST, self.list)
        b.set(PHASE, b.select(more, phase, b.const(START)))
        return more


def other_side(b: Builder, i: Instruction, areas: Areas) -> Word:
    """The location on the side that an index word gives, which is consecutive over all areas."""
    start = indexing_portion(b, index_word(b, i.control))
    return b.select(areas.starting, start, b.get(OTHER))


@means_in_steps("RS", "RG")
def move(b: Builder, i: Instruction) -> None:
    """Scatter the record at an index word's location over areas (RS), or gather it from them (RG)."""
    areas = Areas(b, i, effective(b, i))
    record = other_side(b, i, areas)
    if i.name == "RS":
        source, target = areas.location(record), areas.claimed(areas.now)
        source = byte_address(b, source)
    else:
        source, target = byte_address(b, areas.location(areas.now)), areas.claimed(record)
    word = b.load(source, WORD)
    areas.spend(WORD_MOVED)
    b.store(target, word, WORD)
    b.set(OTHER, b.add(record, b.word(areas.inside)))
    b.branch(areas.advance(b.const(1)), b.pc)


@means_in_steps("LL", "LE", "LEH")
def look_up(b: Builder, i: Instruction) -> None:
    """Compare a field of table entries with accumulator 3: for an equal one (LE), the first that is equal or higher
    (LEH), or the lowest of those that are lower (LL), which replaces accumulator 3.

    The digits are compared, signs are not. Entries are as far apart as the indexing portion of location 98 says. If
    one is found, its location goes there, and the next instruction is skipped.
    """
    areas = Areas(b, i, effective(b, i))
    start = b.load(b.const(address_of(TABLE_INDEX)), WORD)
    increment = b.select(areas.starting, indexing_portion(b, start), b.get(OTHER))
    entry = b.load(byte_address(b, areas.location(areas.now)), WORD)
    digits = field(b, magnitude(b, entry), i.first, i.last)
    wanted = magnitude(b, b.get(AC3))
    if i.name == "LE":
        hit = b.compare("eq", digits, wanted)
    elif i.name == "LEH":
        hit = b.compare("uge", digits, wanted)
    else:
        hit = b.compare("ult", digits, wanted)
    hit = b.both(areas.inside, hit)
    claim(b, b.const(COVERED + TABLE_INDEX))
    before = b.select(areas.starting, b.const(0), b.get(FOUND))
    found = b.select(hit, b.const(1), before)
    areas.spend(ENTRY_SEARCHED)
    b.set(OTHER, increment)
    b.set(FOUND, found)
    result = replaced(b, magnitude(b, start), 2, 5, areas.now)
    b.store(b.const(address_of(TABLE_INDEX)), b.select(hit, result, start), WORD)
    if i.name == "LL":
        b.set(AC3, b.select(hit, digits, b.get(AC3)))
    more = areas.advance(increment)
    if i.name != "LL":
        more = b.both(more, b.compare("eq", found, b.const(0)))
        b.set(PHASE, b.select(b.compare("eq", found, b.const(0)), b.get(PHASE), b.const(START)))
    after = b.add(b.const(b.pc + i.size), b.shift_left(found, b.const(3)))
    b.jump_to(b.select(more, b.const(b.pc), after))
