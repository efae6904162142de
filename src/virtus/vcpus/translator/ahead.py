"""Ahead of time: all the functions of a program that can be found without running it, given to the optimiser.

Functions are found from the program's entry: what is called, and every address of code that is put together in code or
stands in the program's data, as tables of functions do. What is found too much costs time and disk, nothing else.
"""

import select
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from virtus.vcpus.translator import layout
from virtus.vcpus.translator.llvm.flow import Shape, explore
from virtus.vcpus.translator.tiers import Tiers

if TYPE_CHECKING:
    from virtus.vcpus.translator.context import TranslatedContext

MOST_INSTRUCTIONS: Final = 8000
LARGEST_DATA: Final = 64 << 20
WORD: Final = 8

Show = Callable[[int, int], None]
"""Called with how many functions are done, and how many there are."""


def translate(context: "TranslatedContext", tiers: Tiers, data: list[tuple[int, int]], show: Show) -> int:
    """Have everything optimised that a stopped context's program has in its executable mappings; how many units.

    `data` are the ranges of memory in which addresses of functions may stand. Returns when all is done.
    """
    asked = 0
    waiting: set[int] = set()
    for entry in list(functions(context, data)):
        number = tiers.ask(context, entry)
        if number:
            waiting.add(number)
            asked += 1
    poll = select.poll()
    poll.register(tiers.fileno(), select.POLLIN)
    while waiting:
        show(asked - len(waiting), asked)
        poll.poll()
        if not tiers.collect():
            break  # the background process is gone
        waiting &= tiers.waiting()
    show(asked, asked)
    return asked


def functions(context: "TranslatedContext", data: list[tuple[int, int]]) -> Iterator[int]:
    """The entries of functions, each once, callers before what they call."""
    space, isa = context.space, context.vcpu.isa

    def fetch(address: int) -> bytes:
        return space.fetch(context.ident, address, isa.longest)

    seen: set[int] = set()
    inside: set[int] = set()
    todo = [context.regs[layout.PC], *_addresses(context, data)]
    while todo:
        entry = todo.pop(0)
        if entry in seen or entry in inside or entry & 1 or entry not in space.executable:
            continue
        seen.add(entry)
        shape: Shape = explore(isa, fetch, entry, {}, MOST_INSTRUCTIONS)
        if not shape.instructions:
            continue
        inside |= shape.instructions.keys()
        yield entry
        todo += sorted(shape.calls | shape.mentioned)


def _addresses(context: "TranslatedContext", data: list[tuple[int, int]]) -> list[int]:
    """Words in memory that are addresses of code."""
    found: set[int] = set()
    for start, end in data:
        if end - start > LARGEST_DATA:
            continue
        content = context.read_partial(start, end - start)
        words = memoryview(content[: len(content) & -WORD]).cast("Q")
        found.update(word for word in set(words) if not word & 1 and word in context.space.executable)
    return sorted(found)
