"""Where guest code goes: its blocks, found by evaluating descriptions for their control flow alone.

Numbers are followed through a block, so that an address put together from two instructions is a known one.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from virtus.isa.instruction_set import InstructionSet
from virtus.records import dataclass, field

MASK: Final = 2**64 - 1


class _Unknown:
    """Any value that is not a known number."""

    def __repr__(self) -> str:
        return "?"


UNKNOWN: Final = _Unknown()


@dataclass(slots=True)
class Shape:
    """The blocks that can be reached from an entry without leaving the function, as far as can be told."""

    entry: int
    leaders: set[int] = field(default_factory=set)
    instructions: dict[int, Any] = field(default_factory=dict)  # by address
    calls: set[int] = field(default_factory=set)  # known addresses that are called
    mentioned: set[int] = field(default_factory=set)  # numbers that come to stand in registers
    has_calls: bool = False
    computed: set[int] = field(default_factory=set)  # where computed jumps are known to lead
    has_computed: bool = False

    def covers(self) -> list[tuple[int, int]]:
        """The guest code it consists of, as disjoint ranges."""
        ranges: list[tuple[int, int]] = []
        for pc in sorted(self.instructions):
            end = pc + self.instructions[pc].size
            if ranges and pc <= ranges[-1][1]:
                ranges[-1] = (ranges[-1][0], max(ranges[-1][1], end))
            else:
                ranges.append((pc, end))
        return ranges


def explore(
    isa: InstructionSet, fetch: Callable[[int], bytes], entry: int, jumps: Mapping[int, Iterable[int]], limit: int
) -> Shape:
    """The shape of what begins at `entry`. `jumps` says where computed jumps lead, by their addresses.

    `fetch` gives the code at an address, b"" where there is none to be had. At most `limit` instructions are taken.
    """
    shape = Shape(entry, {entry})
    flow = _Flow()
    todo = deque([entry])
    while todo:
        pc = todo.popleft()  # what is nearer comes first, if there is a limit
        flow.known.clear()
        while pc not in shape.instructions and len(shape.instructions) < limit:
            code = fetch(pc)
            if not code:
                break
            instruction = isa.decode(code, 0)
            shape.instructions[pc] = instruction
            flow.begin(pc, pc + instruction.size)
            isa.describe(instruction)(flow, instruction)
            shape.mentioned.update(flow.known.values())
            if flow.called is not None:
                shape.has_calls = True
                if type(flow.called) is int:
                    shape.calls.add(flow.called)
            for leader in flow.leaders:
                if leader not in shape.leaders:
                    shape.leaders.add(leader)
                    todo.append(leader)
            if flow.computed:
                shape.has_computed = True
                for target in jumps.get(pc, ()):
                    shape.computed.add(target)
                    if target not in shape.leaders:
                        shape.leaders.add(target)
                        todo.append(target)
            if flow.ended:
                break
            pc = flow.next
    shape.leaders &= shape.instructions.keys()
    shape.computed &= shape.instructions.keys()
    return shape


class _Flow:
    """A builder that knows numbers, and notes where an instruction goes on."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}
        self.begin(0, 0)

    def begin(self, pc: int, following: int) -> None:
        self.pc, self.next = pc, following
        self.leaders: list[int] = []
        self.called: Any = None
        self.computed = self.ended = False

    def const(self, value: int) -> int:
        return value & MASK

    def get(self, register: int) -> Any:
        return self.known.get(register, UNKNOWN)

    def set(self, register: int, value: Any) -> None:
        if type(value) is int:
            self.known[register] = value
        else:
            self.known.pop(register, None)

    def add(self, a: Any, b: Any) -> Any:
        return (a + b) & MASK if type(a) is int and type(b) is int else UNKNOWN

    def and_(self, a: Any, b: Any) -> Any:
        return a & b if type(a) is int and type(b) is int else UNKNOWN

    def set_float(self, register: int, value: Any, format: str) -> None:
        self.known.pop(register, None)

    def __getattr__(self, name: str) -> Any:
        return _nothing

    def jump(self, target: int) -> None:
        self.leaders.append(target & MASK)
        self.ended = True

    def branch(self, condition: Any, target: int) -> None:
        self.leaders += (target & MASK, self.next)
        self.ended = True

    def jump_to(self, target: Any, *, is_return: bool = False) -> None:
        if type(target) is int and not is_return:
            self.jump(target)
        self.computed = not is_return and type(target) is not int
        self.ended = True

    def call(self, target: int, link: int) -> None:
        self.call_to(target & MASK, link)

    def call_to(self, target: Any, link: int) -> None:
        self.called = target
        self.leaders.append(link)
        self.known.clear()
        self.ended = True

    def system_call(self) -> None:
        self.leaders.append(self.next)
        self.ended = True

    def flush_instructions(self) -> None:
        self.ended = True

    def trap(self, kind: str) -> None:
        self.ended = True


def _nothing(*arguments: Any, **options: Any) -> Any:
    return UNKNOWN
