"""The quick translator: guest code to host code in one pass, with the guest's registers in memory.

It evaluates the descriptions of instructions (`isa/builder.py`) to machine code, block by block from an address on,
following branches up to a limit. Faults are exact: whatever an instruction sets it sets last, and a list tells the
guest address for each place in the code. `layout` says how its code fits in with the rest.

What it does not do natively it leaves to the interpreter, instruction by instruction (`layout.EXIT_INTERPRET`).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from virtus.isa.instruction_set import InstructionSet
from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.baseline_floats import Floats
from virtus.vcpus.translator.baseline_values import STATE, Value, Values
from virtus.vcpus.translator.baseline_words import Interpret, Words

LIMIT: Final = 96
"""Guest instructions that are translated at a time."""
GUEST_BITS: Final = layout.GUEST_END.bit_length() - 1
WORD: Final = 8


@dataclass(slots=True)
class Unit:
    """Code for `place`, from one or more blocks of guest code."""

    code: bytes
    entries: dict[int, int]  # guest address of a block: offset
    map: list[tuple[int, int]]  # offset, guest address: of every instruction, in order of offsets
    counters: dict[int, int]  # guest address of a block: its counter's index
    covers: list[tuple[int, int]] = field(default_factory=list)  # guest addresses, disjoint and sorted


def translate(
    isa: InstructionSet,
    fetch: Callable[[int], bytes],
    pc: int,
    *,
    place: int,
    counter: Callable[[], int],
    limit: int = LIMIT,
) -> Unit:
    """Translate from guest address `pc`. `fetch` gives the code at an address, at least one instruction's if it can be
    executed; `place` is where the code will stand, and `counter` a new counter's index.
    """
    return _Translation(isa, fetch, place, counter).run(pc, limit)


class _Translation(Floats, Words):
    """One run of the translator; a Builder, whose `pc` is the instruction being translated."""

    def __init__(
        self, isa: InstructionSet, fetch: Callable[[int], bytes], place: int, counter: Callable[[], int]
    ) -> None:
        self.a = Assembler()
        self.values = Values(self.a)
        self.pc = self.next = 0
        self._isa, self._fetch, self._place, self._counter = isa, fetch, place, counter
        self._queue: deque[int] = deque()
        self._done: set[int] = set()
        self._heads: set[int] = set()  # targets of backward jumps
        self._labels: dict[int, int] = {}  # block addresses that something in this unit jumps to
        self._entries: dict[int, int] = {}
        self._map: list[tuple[int, int]] = []
        self._counters: dict[int, int] = {}
        self._cold: list[Callable[[], None]] = []
        self._data: dict[bytes, int] = {}
        self._covered: dict[int, int] = {}
        self._ended = False
        self._return = self.a.label()
        self._left = 0

    def run(self, start: int, limit: int) -> Unit:
        """See `translate`."""
        a, self._left = self.a, limit
        self._heads.add(start)
        self._label(start)
        done = self._done
        while self._queue:
            pc = self._queue.popleft()
            if pc in done:
                continue
            done.add(pc)
            if self._left > 0:
                self._block(pc)
            else:
                a.place(self._labels[pc])
                self._go_outside(pc)
            while self._cold:
                self._cold.pop()()
        a.place(self._return)
        a.back()
        for data, label in self._data.items():
            a.code += bytes(-len(a.code) % 8)
            a.place(label)
            a.code += data
        a.link()
        return Unit(bytes(a.code), self._entries, self._map, self._counters, self._ranges())

    def _ranges(self) -> list[tuple[int, int]]:
        ranges: list[tuple[int, int]] = []
        for start in sorted(self._covered):
            end = start + self._covered[start]
            if ranges and start <= ranges[-1][1]:
                ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
            else:
                ranges.append((start, end))
        return ranges

    def _block(self, pc: int) -> None:
        """Translate from a block's beginning to a jump, or to what is there already."""
        a, values, isa = self.a, self.values, self._isa
        values.forget()
        a.place(self._labels[pc])
        code, base = self._fetch(pc), pc
        if not code:
            self._go_outside(pc)  # not to be executed: let the fault be found when the guest gets here
            return
        self._entries[pc] = len(a.code)
        if pc in self._heads:
            self._count(pc)
        self._ended = False
        first = True
        while not self._ended:
            if not first and (pc in self._entries or self._left <= 0):
                a.jump(self._label(pc))
                return
            first = False
            offset = pc - base
            if len(code) - offset < isa.longest:
                code, base, offset = self._fetch(pc), pc, 0
                if not code:
                    self._go_outside(pc)
                    return
            instruction = isa.decode(code, offset)
            self._map.append((len(a.code), pc))
            self._covered[pc] = max(instruction.size, self._covered.get(pc, 0))
            self._left -= 1
            self.pc, self.next = pc, pc + instruction.size
            values.begin()
            position, cold = len(a.code), len(self._cold)
            try:
                isa.describe(instruction)(self, instruction)
            except Interpret:
                a.rewind(position)
                del self._cold[cold:]
                self._ended = self._forgets = False
                self._interpret()
            if self._forgets:
                self._forgets = False
                a.place(self._after)
                values.forget()
            pc = self.next

    def _count(self, pc: int) -> None:
        """Count a block, and look whether somebody wants the thread out."""
        a = self.a
        index = self._counters[pc] = self._counter()
        start, hot, out = a.label(), a.label(), a.label()
        a.place(start)
        a.decrement_counter(layout.COUNTERS + 4 * index - (self._place + len(a.code) + 6))
        a.jump_if(x86.SIGN, hot)
        a.compare_half(STATE, WORD * layout.INTERRUPT, 0)
        a.jump_if(x86.NOT_EQUAL, out)

        def cold() -> None:
            a.place(hot)
            self._set_pc(pc)
            a.address_of_code(x86.RCX, start)
            a.jump_through(STATE, WORD * layout.HOT_AT)
            a.place(out)
            self._leave(layout.EXIT_INTERRUPT, pc)
            self._compare(pc)
            a.jump_if(x86.NOT_EQUAL, self._return)
            a.jump(start)

        self._cold.append(cold)

    # Pieces of code

    def _label(self, pc: int) -> int:
        label = self._labels.get(pc)
        if label is None:
            label = self._labels[pc] = self.a.label()
            self._queue.append(pc)
        return label

    def _set_pc(self, pc: int) -> None:
        """Store a guest address into the state's PC; destroys RAX at most."""
        if pc < 1 << 31:
            self.a.store_word(STATE, WORD * layout.PC, pc)
        else:
            self.a.constant(x86.RAX, pc)
            self.a.store(STATE, WORD * layout.PC, x86.RAX)

    def _leave(self, why: int, pc: int) -> None:
        """Come out; RAX is where to go on."""
        self.a.store_word(STATE, WORD * layout.EXIT, why)
        self._set_pc(pc)
        self.a.call_through(STATE, WORD * layout.LEAVE_AT)

    def _compare(self, pc: int) -> None:
        """Compare RAX with a guest address; destroys RCX."""
        if pc < 1 << 31:
            self.a.arithmetic_immediate(x86.CMP, x86.RAX, pc)
        else:
            self.a.constant(x86.RCX, pc)
            self.a.arithmetic(x86.CMP, x86.RAX, x86.RCX)

    def _entry_of(self, pc: int) -> None:
        """RDX = the translation of a known address, or what makes one."""
        a = self.a
        a.constant(x86.RDX, layout.table_entry(pc))
        a.load(x86.RDX, x86.RDX, 0)
        a.test(x86.RDX, x86.RDX)
        a.load_if(x86.EQUAL, x86.RDX, STATE, WORD * layout.MISS_AT)

    def _note_jump(self) -> None:
        """Say which computed jump this is, in case it leads to what has no translation; destroys RCX."""
        if self.pc < 1 << 31:
            self.a.store_word(STATE, WORD * layout.JUMP_FROM, self.pc)
        else:
            self.a.constant(x86.RCX, self.pc)
            self.a.store(STATE, WORD * layout.JUMP_FROM, x86.RCX)

    def _entry_of_computed(self, register: int, miss: int = layout.MISS_AT) -> None:
        """RDX = the translation of the address in a register (not RDX, RCX), which goes to the PC as well."""
        a = self.a
        inside, known = a.label(), a.label()
        a.store(STATE, WORD * layout.PC, register)
        a.move(x86.RCX, register)
        a.shift(x86.SHR, x86.RCX, GUEST_BITS)
        a.jump_if(x86.EQUAL, inside)
        a.load(x86.RDX, STATE, WORD * miss)
        a.jump(known)
        a.place(inside)
        a.constant(x86.RDX, layout.TABLE)
        a.load_indexed_by_four(x86.RDX, x86.RDX, register)
        a.test(x86.RDX, x86.RDX)
        a.load_if(x86.EQUAL, x86.RDX, STATE, WORD * miss)
        a.place(known)

    def _go_outside(self, pc: int) -> None:
        """To code that is not in this unit."""
        self._set_pc(pc)
        if pc >= layout.GUEST_END:
            self.a.jump_through(STATE, WORD * layout.MISS_AT)
        else:
            self._entry_of(pc)
            self.a.jump_to(x86.RDX)

    def _call_entry(self, link: int) -> None:
        """Call RDX, and go on at `link` if that is where it comes back to."""
        a = self.a
        unwind = a.label()
        a.arithmetic_memory(x86.CMP, x86.RSP, STATE, WORD * layout.STACK_LIMIT)
        a.jump_if(x86.BELOW, unwind)
        a.push(STATE)
        a.call(x86.RDX)
        a.pop(STATE)
        self._compare(link)
        a.jump_if(x86.NOT_EQUAL, self._return)

        def cold() -> None:
            a.place(unwind)
            a.jump_through(STATE, WORD * layout.UNWIND_AT)

        self._cold.append(cold)
        self._go_on(link)

    def _go_on(self, pc: int) -> None:
        """Everything in registers is gone; the block goes on at `pc` if that is next, else jumps there."""
        self.values.forget()
        if pc != self.next:
            self.a.jump(self._label(pc))
            self._ended = True

    def _interpret(self) -> None:
        """Have this instruction interpreted."""
        self._leave(layout.EXIT_INTERPRET, self.pc)
        self._compare(self.next)
        self.a.jump_if(x86.NOT_EQUAL, self._return)
        self.values.forget()

    def interpret_cold(self, label: int) -> None:
        """At `label`, reached before the instruction has done anything, have it interpreted and go on after it."""
        if not self._forgets:
            self._forgets = True
            self._after = self.a.label()
        pc, following, after = self.pc, self.next, self._after

        def cold() -> None:
            self.a.place(label)
            self._leave(layout.EXIT_INTERPRET, pc)
            self._compare(following)
            self.a.jump_if(x86.NOT_EQUAL, self._return)
            self.a.jump(after)

        self._cold.append(cold)

    def out_of_line(self, emit: Callable[[], None]) -> None:
        """Emit something after the block."""
        self._cold.append(emit)

    def data(self, content: bytes) -> int:
        """The label of a constant in memory."""
        label = self._data.get(content)
        if label is None:
            label = self._data[content] = self.a.label()
        return label

    # Where it goes on (see Builder)

    def jump(self, target: int) -> None:
        """See Builder."""
        target &= (1 << 64) - 1
        self._look_back(target)
        self.a.jump(self._label(target))
        self._ended = True

    def _look_back(self, target: int) -> None:
        """Note where loops begin. One that was translated as if it were none is translated again, to be counted."""
        if target > self.pc:
            return
        self._heads.add(target)
        if target in self._done and target in self._entries and target not in self._counters:
            self._labels[target] = self.a.label()
            self._done.discard(target)
            self._queue.append(target)

    def branch(self, condition: Any, target: int) -> None:
        """See Builder."""
        target &= (1 << 64) - 1
        self._look_back(target)
        code = self.emit_condition(condition)
        self.a.jump_if(code, self._label(target))

    def jump_to(self, target: Value, *, is_return: bool = False) -> None:
        """See Builder."""
        values = self.values
        if is_return:
            values.copy(target, x86.RAX)
            self.a.back()
        elif type(target) is int:
            self.jump(target)
        else:
            register = values.copy(target, x86.RAX).register
            self._note_jump()
            self._entry_of_computed(register, layout.JUMP_MISS_AT)
            self.a.jump_to(x86.RDX)
        self._ended = True

    def call(self, target: int, link: int) -> None:
        """See Builder."""
        target &= (1 << 64) - 1
        self._set_pc(target)
        if target >= layout.GUEST_END:
            self.a.load(x86.RDX, STATE, WORD * layout.MISS_AT)
        else:
            self._entry_of(target)
        self._call_entry(link)

    def call_to(self, target: Value, link: int) -> None:
        """See Builder."""
        if type(target) is int:
            self.call(target, link)
            return
        self._entry_of_computed(self.values.copy(target, x86.RAX).register)
        self._call_entry(link)

    def system_call(self) -> None:
        """See Builder."""
        self._leave(layout.EXIT_SYSCALL, self.next)
        self._compare(self.next)
        self.a.jump_if(x86.NOT_EQUAL, self._return)
        self.values.forget()

    def flush_instructions(self) -> None:
        """See Builder."""
        self._leave(layout.EXIT_FLUSH, self.next)
        self.a.back()
        self._ended = True

    def trap(self, kind: str) -> None:
        """See Builder."""
        self._leave(layout.EXIT_BREAKPOINT if kind == "breakpoint" else layout.EXIT_ILLEGAL, self.pc)
        self.a.back()
        self._ended = True

    def leave_if(self, condition: Any, reason: int) -> None:
        """See Builder."""
        label, pc = self.a.label(), self.pc
        self.a.jump_if(self.emit_condition(condition), label)

        def cold() -> None:
            self.a.place(label)
            self._leave(layout.LEAVE_FIRST + reason, pc)
            self.a.back()

        self._cold.append(cold)
