"""vCPU `resident`: a whole machine whose storage lives in this process, interpreted or translated.

It is for processors that no Linux program is for, whose every address is in bounds by construction: then translated
code can be called like a function of this process, and comes out by returning. Programs of such machines change their
own instructions as a matter of course. A store to a location that code was made from comes out before it is done, the
instruction is interpreted, and the translations of that location are dropped. A location that is changed again and
again is no longer translated: what is there is interpreted, and stores to it are plain stores.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

from virtus.exits import Exit, Reason
from virtus.isa.instruction_set import InstructionSet
from virtus.vcpus.interpreter.code import Code, Decoded
from virtus.vcpus.interpreter.evaluator import Evaluator
from virtus.vcpus.interpreter.memory import Memory, MemoryFault
from virtus.vcpus.resident_code import CodeRoom
from virtus.vcpus.resident_memory import WORD, Arrangement, ResidentMemory
from virtus.vcpus.translator import baseline, layout

OFTEN: Final = 3
"""A location that has been changed so often after it was translated is interpreted from then on."""
INTERPRETED_AT_ONCE: Final = 20_000
"""Instructions between looks at whether somebody else wants to do something."""
BLOCKS_AT_ONCE: Final = 1 << 21
"""Likewise in translated code: how often a block runs."""


class ResidentSet(InstructionSet, Protocol):
    """An instruction set with instructions that depend on their own effective address."""

    def resolved(self, word: int, operand: int) -> Any:
        """The instruction in a word, its effective address being known."""
        ...


class ResidentContext:
    """What a personality has of the machine: registers by slot, and words by location."""

    ident = 0

    def __init__(self, memory: ResidentMemory, regs: "memoryview[int]") -> None:
        self._memory = memory
        self._start = memory.arrangement.start
        self.regs = regs
        """By slot, and `layout`'s PC as an address."""

    @property
    def pc(self) -> int:
        """The location of the instruction that comes next, or came out."""
        return (self.regs[layout.PC] - self._start) // WORD

    @pc.setter
    def pc(self, location: int) -> None:
        self.regs[layout.PC] = self._start + WORD * location

    def load(self, location: int) -> int:
        """The word at a location; raises IndexError where there is none."""
        try:
            return self._memory.load(self._start + WORD * self._checked(location), WORD)
        except MemoryFault as error:
            raise IndexError(location) from error

    def store(self, location: int, word: int) -> None:
        """Store a word; raises IndexError where there is no location."""
        try:
            self._memory.store(self._start + WORD * self._checked(location), word, WORD)
        except MemoryFault as error:
            raise IndexError(location) from error

    def _checked(self, location: int) -> int:
        if not 0 <= location < self._memory.arrangement.locations:
            raise IndexError(location)
        return location


class ResidentVcpu:
    """One machine with one processor; see the module, and `virtus.exits.Vcpu`.

    `constants` are what the arrangement has besides storage: bytes by address.
    """

    def __init__(
        self, isa: ResidentSet, arrangement: Arrangement, constants: dict[int, bytes], *, translate: bool = True
    ) -> None:
        self.isa, self.arrangement = isa, arrangement
        self.translated = self.interpreted = self.dropped = 0  # units, instructions, units again: for the meter
        self._code = CodeRoom(arrangement.start, arrangement.locations * WORD) if translate else None
        self._words: memoryview[int] = (
            self._code.state if self._code else memoryview(bytearray(WORD * layout.STATE_BYTES)).cast("Q")
        )
        try:
            self.memory = ResidentMemory(arrangement, self._words, self._modified)
        except BaseException:
            if self._code is not None:
                self._code.close()
            raise
        for address, content in constants.items():
            offset = address - arrangement.start
            self.memory.bytes[offset : offset + len(content)] = content
        self.context = ResidentContext(self.memory, self._words)
        self._evaluator = _ResidentEvaluator(isa, self._words, self.memory, keeps=not translate)
        self._changes = bytearray(arrangement.locations)
        self._exit = Exit()
        self._exit.reason, self._exit.context = Reason.LEFT, self.context
        self.watcher: Callable[[], None] | None = None
        """Called before each interpreted instruction, when set; everything is interpreted then."""

    def run(self) -> Exit:
        """See Vcpu."""
        if self._code is None or self.watcher is not None:
            why = self._interpret()
        else:
            why = self._run_translated(self._code)
        self._exit.number = why
        return self._exit

    def close(self) -> None:
        """See Vcpu."""
        self.memory.close()
        if self._code is not None:
            self._code.close()

    # Interpreting

    def _interpret(self) -> int:
        while True:
            if self.watcher is not None:
                self.watcher()
                why = self._step()
            else:
                try:
                    count, outcome = self._evaluator.run(INTERPRETED_AT_ONCE)
                except MemoryFault:
                    return self.arrangement.no_such_location
                self.interpreted += count
                why = self._after(outcome)
            if why >= 0:
                return why

    def _step(self) -> int:
        """One instruction; -1, or why the machine comes out."""
        try:
            count, outcome = self._evaluator.run(1)
        except MemoryFault:
            return self.arrangement.no_such_location
        self.interpreted += count
        return self._after(outcome)

    def _after(self, outcome: int) -> int:
        """What becomes of an outcome of the evaluator: -1 to go on, or a reason."""
        if not outcome:
            return -1
        if outcome == layout.EXIT_ILLEGAL:
            return self.arrangement.illegal
        reason = outcome - layout.LEAVE_FIRST
        if reason == self.arrangement.resolve:
            return self._resolve()
        return reason

    def _resolve(self) -> int:
        """Carry out the instruction at PC, whose effective address is known by now."""
        pc = self._words[layout.PC]
        word = int.from_bytes(self.memory.fetch(pc), "little")
        instruction = self.isa.resolved(word, self._words[self.arrangement.operand])
        kept = self._evaluator.code.instructions.get(pc)
        self._evaluator.code.instructions[pc] = (self.isa.describe(instruction), instruction, pc + WORD)
        try:
            return self._step()
        finally:
            if kept is None:
                self._evaluator.code.instructions.pop(pc, None)
            else:
                self._evaluator.code.instructions[pc] = kept

    def _modified(self, location: int) -> None:
        """A store has changed a location that code was made from."""
        self.memory.covered[location] = 0
        self._evaluator.code.instructions.pop(self.arrangement.start + WORD * location, None)
        if self._code is not None:
            self._changes[location] = min(self._changes[location] + 1, OFTEN)
            self.dropped += self._code.drop(location, self.memory.covered)

    # Translating

    def _run_translated(self, code: CodeRoom) -> int:
        words, arrangement = self._words, self.arrangement
        while True:
            why = code.enter()
            if why in (layout.EXIT_MISS, layout.EXIT_JUMP_MISS):
                why = self._miss(code)
            elif why in (layout.EXIT_HOT, layout.EXIT_INTERRUPT):
                code.go_on_counting(words[layout.PC], BLOCKS_AT_ONCE)
                continue
            elif why == layout.EXIT_INTERPRET:
                why = self._step()
            elif why == layout.EXIT_ILLEGAL:
                return arrangement.illegal
            elif why >= layout.LEAVE_FIRST:
                reason = why - layout.LEAVE_FIRST
                if reason in (arrangement.register_addressed, arrangement.modified):
                    why = self._step()
                elif reason == arrangement.resolve:
                    why = self._resolve()
                else:
                    return reason
            else:
                why = -1
            if why >= 0:
                return why

    def _miss(self, code: CodeRoom) -> int:
        pc = self._words[layout.PC]
        if not self._fetch(pc):
            return self._step()
        unit = baseline.translate(
            self.isa, self._fetch, pc, place=code.place, counter=lambda: code.counter(BLOCKS_AT_ONCE)
        )
        if code.put(unit, self.memory.covered):
            self.translated += 1
        return -1

    def _fetch(self, pc: int) -> bytes:
        """Code to be translated: none from registers, nor from where it changes again and again."""
        location, rest = divmod(pc - self.arrangement.start, WORD)
        if rest or not 0 <= location < self.arrangement.storage or self._changes[location] >= OFTEN:
            return b""
        return self.memory.words[location].to_bytes(WORD, "little")


class _ResidentInstructions(Code):
    """What is known of code: a location is marked as long as its instruction is remembered."""

    def __init__(self, isa: InstructionSet, memory: ResidentMemory, *, keeps: bool) -> None:
        """Without `keeps` nothing is remembered: storing where it came from needs nobody then."""
        super().__init__(isa)
        self._resident, self._keeps = memory, keeps

    def decode(self, memory: Memory, pc: int) -> Decoded:
        """See Code."""
        found = super().decode(memory, pc)
        location = (pc - self._resident.arrangement.start) // WORD
        if self._keeps and location < self._resident.arrangement.storage:
            self._resident.covered[location] = 1
        else:
            del self.instructions[pc]
        return found


class _ResidentEvaluator(Evaluator):
    """The interpreter: its memory knows registers by their locations, and notices changed code by itself."""

    def __init__(
        self, isa: InstructionSet, registers: "memoryview[int]", memory: ResidentMemory, *, keeps: bool
    ) -> None:
        super().__init__(isa, registers, memory, _ResidentInstructions(isa, memory, keeps=keeps))
        self._ignored = {memory.arrangement.register_addressed, memory.arrangement.modified}

    def leave_if(self, condition: bool, reason: int) -> None:
        """See Builder."""
        if condition and reason not in self._ignored:
            super().leave_if(condition, reason)
