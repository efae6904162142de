"""Tape channels and the units on them (A22-7003, "Magnetic Tape").

Channels 1 to 4 have units 0 to 9. An operation puts an initial status word at 150 + 10 channel + unit, and when it is
done a final one at 100 + 10 channel + unit: a condition in position 1, the location after the last word in 2 to 5, the
next record definition word's in 6 to 9. Without priority the processor waits for the end; with it, it goes on, and the
unit's latch is turned on then. A condition other than "as expected" turns the latch on in any case.

Words are in storage as soon as the operation begins. Times are those of an IBM 729 II at high density.
"""

from collections.abc import Callable, Mapping
from typing import Final

from virtus.devices.tape import Found, Reel
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.characters import RECORD_MARK
from virtus.isa.ibm7070.decode import Instruction, code_of
from virtus.personalities.ibm7070 import tape_code
from virtus.personalities.ibm7070.machine import MILLISECOND, Processor, Stopped, Time
from virtus.personalities.ibm7070.priority import Latch, Priority, final_status, initial_status
from virtus.personalities.ibm7070.records import MOST_WORDS, areas, fetch, put
from virtus.personalities.ibm7070.tape_code import FormatError

# Conditions in a final status word (I7000/i7070_chan.c)
FORMAT, TROUBLE, EXPECTED, SHORT, LONG, MARK, SEGMENT, PART = range(8)
"""A word that could not be made; unreadable; as expected; fewer or more words than the areas; a tape mark; no further
segment; the last word is not whole."""

START_MS: Final = 10.8
CHARACTERS_A_MS: Final = 41.667
REWIND_CHARACTERS_A_MS: Final = 500 * 0.556
"""High-speed rewinding, about 500 inches a second, at 556 characters an inch."""

Done = tuple[int, int, int, int]
"""Condition, location after the last word, location of the next definition, characters moved."""


class Tapes:
    """All channels. Units that have no reel are not ready, which stops the machine."""

    def __init__(self, time: Time, priority: Priority, reels: Mapping[tuple[int, int], Reel]) -> None:
        self._time, self._priority, self._reels = time, priority, reels
        self._free_at = dict.fromkeys((1, 2, 3, 4), 0)
        self.records = 0
        self._controls: dict[int, Callable[[Reel], Done]] = {
            0: lambda reel: (EXPECTED, 0, 0, 0),
            1: self._mark,
            2: self._rewind,
            3: self._rewind,
            4: self._back,
            5: self._segment_mark,
            6: lambda reel: (EXPECTED, 0, 0, 0),
            8: lambda reel: (EXPECTED, 0, 0, 0),
            9: lambda reel: (EXPECTED, 0, 0, 0),
        }

    def busy(self, channel: int) -> bool:
        """Whether a channel works at something."""
        return self._free_at.get(channel, 0) > self._time.now

    def carry_out(self, processor: Processor, instruction: Instruction, operand: int) -> None:
        """A tape instruction; the processor goes on after it."""
        channel, unit, kind = abs(code_of(instruction.word)) % 10, instruction.first, instruction.last
        with_priority = not instruction.word & words.MINUS
        reel = self._reels.get((channel, unit))
        if reel is None:
            raise Stopped(f"tape unit {channel}{unit} is not ready: no reel is mounted (--tape {channel}{unit}=FILE)")
        time = self._time
        time.wait_until(self._free_at[channel])
        sign = 0 if with_priority else words.MINUS
        status = words.replaced(words.replaced((80 + kind) * 10**8, 2, 5, (processor.pc + 1) % 10_000), 6, 9, operand)
        processor.store(initial_status(channel, unit), status | sign)
        processor.pc += 1
        control = operand % 10
        if kind == 0 and control == 7:
            self._priority.latches.discard(Latch(channel, unit))  # TEF: the end of file has been seen
            time.pass_(1)
            return
        if kind == 0:
            done = self._controls[control](reel)
            keeps_status = True
        else:
            done = self._transfer(processor, reel, kind, operand)
            keeps_status = False
        condition, after, following, count = done
        at = time.now + max(1, round((START_MS + count / CHARACTERS_A_MS) * MILLISECOND))
        if kind == 0 and control in (2, 3):
            at = time.now + max(1, round(count / REWIND_CHARACTERS_A_MS * MILLISECOND))
        latched = (with_priority and not (kind == 0 and control in (0, 2, 3, 4, 6, 8, 9))) or condition != EXPECTED
        self._free_at[channel] = at

        def finish() -> None:
            location = final_status(channel, unit)
            old = processor.load(location) & words.MAGNITUDE
            flag = words.field(old, 0, 0) * 10**9
            rest = words.field(old, 2, 9) if keeps_status else after % 10_000 * 10**4 + following % 10_000
            processor.store(location, flag + condition * 10**8 + rest)
            if latched:
                self._priority.latches.add(Latch(channel, unit))

        if with_priority:
            time.at(at, finish)
        else:
            time.wait_until(at)
            finish()

    # Operations without data

    def _mark(self, reel: Reel) -> Done:
        self._needs_ring(reel)
        reel.mark()
        return EXPECTED, 0, 0, 1

    def _rewind(self, reel: Reel) -> Done:
        length = reel.position
        reel.rewind()
        return EXPECTED, 0, 0, length

    def _back(self, reel: Reel) -> Done:
        before = reel.position
        found = reel.back()
        return (TROUBLE if found is Found.BAD else EXPECTED), 0, 0, before - reel.position

    def _segment_mark(self, reel: Reel) -> Done:
        self._needs_ring(reel)
        reel.write(tape_code.with_parity([tape_code.SEGMENT_MARK]))
        return EXPECTED, 0, 0, 1

    @staticmethod
    def _needs_ring(reel: Reel) -> None:
        if not reel.writable:
            raise Stopped(f"the reel {reel.path} may not be written (its ring is out)")

    # Transfers

    def _transfer(self, processor: Processor, reel: Reel, kind: int, operand: int) -> Done:
        self.records += 1
        if kind in (3, 4, 5, 6):
            self._needs_ring(reel)
            return self._write(processor, reel, operand, by_marks=kind in (4, 6), compress=kind in (5, 6))
        if kind in (7, 8):
            return self._find_segment(reel, operand, forward=kind == 7)
        return self._read(processor, reel, operand, by_marks=kind == 2, alpha_only=kind == 9)

    def _write(self, processor: Processor, reel: Reel, operand: int, *, by_marks: bool, compress: bool) -> Done:
        record: list[int] = []
        location = following = operand
        for first, last, after in areas(processor, operand):
            following = after
            for location in range(first, last + 1):
                word = fetch(processor, location)
                record.append(word)
                if len(record) > MOST_WORDS:
                    raise Stopped(f"a record of more than {MOST_WORDS} words")
                if by_marks and _ends_with_mark(word):
                    break
        try:
            data = tape_code.encode(record, compress=compress)
        except FormatError:
            return FORMAT, location, following, 0
        if not data:
            return FORMAT, location, following, 0
        reel.write(data)
        return EXPECTED, location + 1, following, len(data)

    def _read(self, processor: Processor, reel: Reel, operand: int, *, by_marks: bool, alpha_only: bool) -> Done:
        found, data = reel.read()
        if found is Found.MARK:
            return MARK, 0, operand, 1
        if found is Found.NOTHING:
            return TROUBLE, 0, operand, 0
        decoded = tape_code.decode(data, alpha_only=alpha_only)
        condition = EXPECTED if found is Found.RECORD else TROUBLE
        location = following = operand
        try:
            for first, last, following in areas(processor, operand):
                location = first
                while location <= last:
                    word, whole = next(decoded, (-1, True))
                    if word < 0:
                        return (condition if condition != EXPECTED else SHORT), location, following, len(data)
                    put(processor, location, word)
                    location += 1
                    if not whole:
                        condition = PART
                    if by_marks and _ends_with_mark(word):
                        break
            if next(decoded, None) is not None:
                condition = LONG if condition == EXPECTED else condition
        except FormatError:
            condition = FORMAT
        return condition, location, following, len(data)

    def _find_segment(self, reel: Reel, operand: int, *, forward: bool) -> Done:
        """To after the next segment mark, or before the last one."""
        start = reel.position
        while True:
            if forward:
                found, data = reel.read()
            else:
                found = reel.back()
                data = b""
                if found is Found.RECORD:
                    here = reel.position
                    data = reel.read()[1]
                    reel.rewind_to(here)
            moved = abs(reel.position - start)
            if found in (Found.NOTHING, Found.BAD, Found.BEGINNING):
                return SEGMENT, 0, operand, moved
            if found is Found.MARK:
                return MARK, 0, operand, moved
            if len(data) == 1 and data[0] & tape_code.CHARACTER_BITS == tape_code.SEGMENT_MARK:
                return EXPECTED, 0, operand, moved


def _ends_with_mark(word: int) -> bool:
    return bool(word & words.ALPHA) and (word & words.MAGNITUDE) % 100 == RECORD_MARK
