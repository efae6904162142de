"""What one instruction becomes: a piece of machine code that can stand anywhere, and how it ends.

Most pieces know nothing of their instruction's address; they are made once for an instruction and used again.
"""

from functools import lru_cache
from typing import Any, Final, Literal

from virtus.isa.builder import BREAKPOINT
from virtus.isa.instruction_set import InstructionSet
from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.baseline_floats import Floats
from virtus.vcpus.translator.baseline_memory import Memory
from virtus.vcpus.translator.baseline_values import MASK, Condition, Interpret, Value, Values

MOST_PIECES: Final = 1 << 16

# How a piece ends
NEXT, JUMP, BRANCH, CALL, CALL_COMPUTED, JUMP_COMPUTED, RETURN, STOP, ASK = range(9)
"""On to the next instruction; to `target`; to it if `condition`; a call of it, or of RAX; to RAX; back with RAX; out
with `reason`, to go on wherever that says; the same, expecting that it says the next instruction."""


class Piece:
    """`code`, and `exits`: where in it a jump's distance is to be filled in, and the reason to come out with there."""

    __slots__ = ("code", "condition", "ends", "exits", "link", "reason", "target")

    def __init__(self) -> None:
        self.code = b""
        self.exits: list[tuple[int, int]] = []
        self.ends = NEXT
        self.target = self.link = self.condition = self.reason = 0


class Describer(Floats, Memory):
    """Makes pieces: a Builder of which every description is carried out once. See `isa.builder`."""

    def __init__(self, isa: InstructionSet) -> None:
        self.a = Assembler()
        self.values = Values(self.a)
        self.changed = False
        self.faults = getattr(isa, "faults", True)
        self._describe = isa.describe
        self._pieces: dict[Any, Piece] = {}
        self._piece = Piece()
        self._pc = 0
        self._fixed = False  # whether the piece is for this address only

    def piece(self, instruction: Any, pc: int) -> Piece:
        """What `instruction` becomes at `pc`."""
        found = self._pieces.get(instruction)
        if found is not None:
            return found
        self.a.code = bytearray()
        self.values.begin()
        piece = self._piece = Piece()
        self._pc, self._fixed, self.changed = pc, False, False
        try:
            self._describe(instruction)(self, instruction)
            piece.code = bytes(self.a.code)
        except Interpret:
            piece = Piece()
            self._end(piece, ASK, reason=layout.EXIT_INTERPRET)
        if not self._fixed:
            if len(self._pieces) >= MOST_PIECES:
                self._pieces.clear()
            self._pieces[instruction] = piece
        return piece

    @staticmethod
    def _end(piece: Piece, ends: int, *, target: int = 0, link: int = 0, reason: int = 0) -> None:
        piece.ends, piece.target, piece.link, piece.reason = ends, target & MASK, link & MASK, reason

    @property
    def pc(self) -> int:
        """See Builder."""
        self._fixed = True
        return self._pc

    @pc.setter
    def pc(self, value: int) -> None:
        self._pc = value

    def interpret_if(self, condition: int) -> None:
        """On a condition code, have the instruction interpreted; nothing of it may have been done."""
        if self.changed:
            raise Interpret
        self._piece.exits.append((self.a.jump_if(condition), layout.EXIT_INTERPRET))

    def leave_if(self, condition: Condition, reason: int) -> None:
        """See Builder."""
        self._piece.exits.append((self.a.jump_if(self.holds(condition)), layout.LEAVE_FIRST + reason))
        self.changed = True  # it is not to be carried out again from its beginning

    # Where it goes on. An address that is told comes from the instruction's own, which makes the piece a fixed one.

    def jump(self, target: int) -> None:
        """See Builder."""
        self._fixed = True
        self._end(self._piece, JUMP, target=target)

    def branch(self, condition: Condition, target: int) -> None:
        """See Builder."""
        self._fixed = True
        self._piece.condition = self.holds(condition)
        self._end(self._piece, BRANCH, target=target)

    def _computed(self, target: Value) -> None:
        self.values.put(x86.RAX, target)

    def jump_to(self, target: Value, *, is_return: bool = False) -> None:
        """See Builder."""
        if type(target) is int and not is_return:
            self.jump(target)
        else:
            self._computed(target)
            self._end(self._piece, RETURN if is_return else JUMP_COMPUTED)

    def call(self, target: int, link: int) -> None:
        """See Builder."""
        self._fixed = True
        self._end(self._piece, CALL, target=target, link=link)

    def call_to(self, target: Value, link: int) -> None:
        """See Builder."""
        self._fixed = True
        if type(target) is int:
            self._end(self._piece, CALL, target=target, link=link)
        else:
            self._computed(target)
            self._end(self._piece, CALL_COMPUTED, link=link)

    def system_call(self) -> None:
        """See Builder."""
        self._end(self._piece, ASK, reason=layout.EXIT_SYSCALL)

    def flush_instructions(self) -> None:
        """See Builder."""
        self._end(self._piece, STOP, reason=layout.EXIT_FLUSH)

    def trap(self, kind: Literal["illegal", "breakpoint"]) -> None:
        """See Builder."""
        self._end(self._piece, STOP, reason=layout.EXIT_BREAKPOINT if kind == BREAKPOINT else layout.EXIT_ILLEGAL)


@lru_cache(maxsize=8)
def describer(isa: Any) -> Describer:
    """The one for an instruction set, with the pieces it has made so far."""
    return Describer(isa)
