"""The interpreter at its fastest: blocks that are entered often become Python functions.

What an instruction does costs about ten calls when its description is evaluated; in a function that Python has compiled
for a whole block it costs some operations on local variables. Compiling costs as much as executing a block some thirty
times, so it is for what is entered often. A block goes on over branches that are not taken and along known jumps.
"""

from collections.abc import Callable, MutableSequence
from types import CodeType, FunctionType, TracebackType
from typing import Any, Final

from virtus.isa.instruction_set import InstructionSet
from virtus.records import dataclass
from virtus.vcpus.interpreter.code import Code
from virtus.vcpus.interpreter.evaluator import Evaluator
from virtus.vcpus.interpreter.memory import Memory, MemoryFault
from virtus.vcpus.interpreter.outcome import CameOut
from virtus.vcpus.interpreter.source import Source
from virtus.vcpus.interpreter.words import ALL
from virtus.vcpus.translator.layout import PC

HOT_AFTER: Final = 50
"""How often an address is entered before the block that begins there is compiled."""
LONGEST: Final = 64
"""Instructions of a block at most."""


@dataclass(frozen=True, slots=True)
class Block:
    """A compiled block: called with the evaluator, its registers, its memory's load and store, and a limit."""

    function: Callable[[Any, Any, Any, Any, int], tuple[int, int]]
    length: int
    """Instructions, of one round if it is a loop."""
    places: list[tuple[int, int]]
    """By line of its source: the instruction's address, and how many come before it."""
    first_line: int

    def place(self, error: BaseException) -> tuple[int, int]:
        """Where an exception came up: the instruction's address, and how many had been carried out."""
        traceback: TracebackType | None = error.__traceback__
        while traceback is not None and traceback.tb_frame.f_code is not self.function.__code__:
            traceback = traceback.tb_next
        assert traceback is not None, "it was raised by this block"
        pc, before = self.places[traceback.tb_lineno - self.first_line]
        rounds: int = traceback.tb_frame.f_locals.get("n", 0)
        return pc, rounds + before


class CompiledCode(Code):
    """Code with blocks; `stops` are addresses that blocks do not run over (see BlockEvaluator)."""

    def __init__(self, isa: InstructionSet, hot_after: int = HOT_AFTER) -> None:
        super().__init__(isa)
        self.hot_after = hot_after
        self.blocks: dict[int, Block] = {}
        self.single: dict[int, Block] = {}
        """Blocks of one instruction each, for who steps."""
        self.entered: dict[int, int] = {}
        self.stepped: dict[int, int] = {}
        self.stops: frozenset[int] = frozenset()

    def stop_at(self, stops: frozenset[int]) -> None:
        """Set `stops`."""
        self.stops = stops
        self.blocks.clear()

    def forget(self, start: int = 0, size: int = ALL) -> None:
        """See Code."""
        super().forget(start, size)
        self.blocks.clear()  # those that are still in use will be back soon
        self.single.clear()

    def enter(self, memory: Memory, pc: int) -> Block | None:
        """An address has been entered that had no block yet."""
        return self._count(self.entered, self.blocks, memory, pc, LONGEST)

    def step(self, memory: Memory, pc: int) -> Block | None:
        """Likewise, but one instruction is all that is wanted."""
        return self._count(self.stepped, self.single, memory, pc, 1)

    def _count(
        self, times: dict[int, int], blocks: dict[int, Block], memory: Memory, pc: int, longest: int
    ) -> Block | None:
        times[pc] = times.get(pc, 0) + 1
        if times[pc] < self.hot_after:
            return None
        times[pc] = 0
        block = blocks[pc] = self._compile(memory, pc, longest)
        return block

    def _compile(self, memory: Memory, start: int, longest: int) -> Block:
        source = Source(start, may_loop=start not in self.stops)
        seen = set[int]()
        while not source.ended and source.count < longest and source.proceed not in seen:
            pc = source.proceed
            if pc in self.stops and seen:
                break
            try:
                meaning, instruction, following = self.instructions.get(pc) or self.decode(memory, pc)
            except MemoryFault:
                if not seen:
                    raise
                break  # it is a fault when it gets there
            seen.add(pc)
            source.begin(pc, following)
            meaning(source, instruction)
        source.finish()
        text, head = source.text("block")
        whole = compile(text, f"<guest code at {start:#x}>", "exec")
        code = next(constant for constant in whole.co_consts if isinstance(constant, CodeType))
        return Block(FunctionType(code, {}), source.count, source.places, head + 1)


class BlockEvaluator(Evaluator):
    """An evaluator that is faster where it comes often.

    `run` also ends, with the outcome 0, before it carries out an instruction of `code.stops`, unless it began there.
    """

    code: CompiledCode

    def __init__(
        self,
        isa: InstructionSet,
        registers: MutableSequence[int] | memoryview,
        memory: Memory,
        code: CompiledCode | None = None,
    ) -> None:
        super().__init__(isa, registers, memory, CompiledCode(isa) if code is None else code)

    def step(self) -> int:
        """See Evaluator."""
        registers, code = self.registers, self.code
        pc = registers[PC]
        block = code.single.get(pc) or code.step(self.memory, pc)
        if block is None:
            return super().run(1)[1]
        memory = self.memory
        self._outcome = 0
        try:
            registers[PC], done = block.function(self, registers, memory.load, memory.store, 0)
            self.executed += done
        except CameOut as reason:
            return reason.outcome
        return self._outcome

    def run(self, count: int) -> tuple[int, int]:
        """See Evaluator."""
        registers, memory, code = self.registers, self.memory, self.code
        instructions, blocks, stops = code.instructions, code.blocks, code.stops
        load, store = memory.load, memory.store
        pc = registers[PC]
        block = None
        self._outcome = 0
        left = count
        entered = True
        try:
            while left > 0:
                if entered:
                    block = blocks.get(pc)
                    if block is None:
                        block = code.enter(memory, pc)
                    if block is not None and block.length <= left:
                        pc, done = block.function(self, registers, load, store, left - block.length)
                        left -= done
                    else:
                        block = None
                if block is None:
                    meaning, instruction, following = instructions.get(pc) or code.decode(memory, pc)
                    self.pc, self._next = pc, following
                    meaning(self, instruction)
                    pc = self._next
                    left -= 1
                    entered = pc != following
                if self._outcome or (stops and pc in stops):
                    break
        except Exception as error:
            if block is not None:
                pc, done = block.place(error)
                left -= done
            if not isinstance(error, CameOut):
                raise
            self._outcome = error.outcome
        finally:
            registers[PC] = pc
            self.executed += count - left
        return count - left, self._outcome
