"""The builder evaluated to LLVM's language: one host function for the guest code that begins at an address.

Guest registers are local variables (`alloca`) that LLVM makes values of; they are loaded from the state where the
function begins and after everything that may change it, and stored where somebody else may look. Which ones need
storing at a place is known only when all blocks are: such places are noted as `_Sync`, and written at the end.
Units that are too large for this have only the registers they use most in variables, the others in the state itself.

In `precise` mode registers are in the state, and stores to it are volatile, as is that of the guest's address before
each memory access: LLVM may not move them across one that may fault.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from virtus.isa.instruction_set import InstructionSet
from virtus.records import dataclass
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.llvm.convention import NOT_GUEST, Convention
from virtus.vcpus.translator.llvm.flow import Shape
from virtus.vcpus.translator.llvm.text_floats import FloatText
from virtus.vcpus.translator.llvm.text_words import Interpret, Value, WordText, operand

MANY_BLOCKS: Final = 160
"""Units with more have only `FEW` registers in variables: LLVM's work grows faster than the number of blocks."""
FEW: Final = 14
MANY_EDGES: Final = 600
"""With more edges out of computed jumps, these share one dispatch."""
FEW_TARGETS: Final = 16
"""With more targets, a computed jump goes through a table of its own instead of comparing (a handful of predicted
branches is faster than one jump that has to be computed)."""
MANY_TARGETS: Final = 12
"""A function with more targets of computed jumps can be entered at each of them: mostly the loop of an interpreter,
into which code that was translated before jumps at any of its instructions."""
SHORT_LOOP, COPIES = 10, 4
"""A loop of one block of so few instructions stands so many times in the code: it looks for interrupts less often."""
SPREAD, MULTIPLIER = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95
"""Odd numbers whose bits look random: 2**64 divided by the golden ratio (Knuth, "Sorting and Searching", 6.4), and a
multiplier of Steele and Vigna ("Computationally easy, spectrally good multipliers")."""
TRIES: Final = 100
GUEST_BITS: Final = layout.GUEST_END.bit_length() - 1


@dataclass(slots=True)
class _Sync:
    """A place where the state must hold all registers, or all but those that calls take with them; `changed` are those
    the block has changed before it."""

    block: int
    changed: frozenset[int]
    everything: bool


@dataclass(slots=True)
class _Reload:
    """A place where the state may have been changed by others; what calls bring back may be known already."""

    everything: bool


class UnitText(FloatText, WordText):
    """Writes one function. `internal` are addresses that have a function in the same module, called alike."""

    def __init__(self, isa: InstructionSet, shape: Shape, internal: frozenset[int], *, precise: bool) -> None:
        self.pc = self.next = 0
        self._isa, self._shape, self._internal, self.precise = isa, shape, internal, precise
        self._lines: list[Any] = []
        self._count = 0
        self._current: dict[int, Value] = {}
        self._dirty: set[int] = set()
        self._uses: Counter[int] = Counter()
        self._body: dict[int, list[Any]] = {}
        self._changes: dict[int, set[int]] = {}
        self._follows: dict[int, set[int]] = {}
        self._queue: list[int] = []
        self._block = 0
        self._copies = self._length = 0  # how often the block's code stands there again; instructions written for it
        self._ended = False
        self._outside: dict[int, set[int]] = {}  # other addresses: blocks that jump there
        self._cold: list[Any] = []
        self._dispatches = 0
        self._shared: list[str] = []
        self.leaves_calls = shape.has_calls
        self.convention = convention_of(isa, precise=precise)

    # Writing

    def _new(self, operation: str) -> str:
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f"{name} = {operation}")
        return name

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    # Registers

    def get(self, register: int) -> Value:
        """See Builder."""
        found = self._current.get(register)
        if found is None:
            self._uses[register] += 1
            found = self._current[register] = self._new(f"load i64, ptr %x{register}, {NOT_GUEST}")
        return found

    def set(self, register: int, value: Value) -> None:
        """See Builder."""
        self._uses[register] += 1
        self._current[register] = value
        self._floats_lose(register)
        if self.precise:
            self._lines.append(f"store volatile i64 {operand(value)}, ptr %x{register}, {NOT_GUEST}")
        else:
            self._dirty.add(register)
        self._changes[self._block].add(register)

    def _flush(self) -> None:
        """Values into variables."""
        for register in sorted(self._dirty):
            self._lines.append(f"store i64 {operand(self._current[register])}, ptr %x{register}, {NOT_GUEST}")
        self._dirty.clear()

    def _sync(self, *, everything: bool = False) -> None:
        """Variables into the state: all, or those that calls do not take with them."""
        self._flush()
        if not self.precise:
            self._lines.append(_Sync(self._block, frozenset(self._changes[self._block]), everything))

    def _reload(self, *, everything: bool) -> None:
        if not self.precise:
            self._lines.append(_Reload(everything))

    def _state(self, word: int) -> str:
        return self._new(f"getelementptr i64, ptr %st, i64 {word}")

    def _put(self, word: int, value: Value) -> None:
        """Store into a word of the state that is not a register."""
        self._lines.append(f"store i64 {operand(value)}, ptr {self._state(word)}, {NOT_GUEST}")

    def before_access(self) -> None:
        """A memory access follows, which may fault."""
        if self.precise:
            self._lines.append(f"store volatile i64 {self.pc}, ptr {self._state(layout.PC)}, {NOT_GUEST}")

    # The function

    def write(self) -> str:
        """The text of the function."""
        entry = self._shape.entry
        self._queue += [entry, *self.entries]
        while self._queue:
            pc = self._queue.pop()
            if pc not in self._body:
                self._write_block(pc)
        return self._assemble()

    def _goes(self, pc: int, *, synchronised: bool = False) -> str:
        """The label for a guest address: a block, or the way out to one that is elsewhere."""
        pc &= (1 << 64) - 1
        if pc in self._shape.instructions:
            if not synchronised:
                self._follows[self._block].add(pc)
            self._queue.append(pc)
            return f"%b{pc:x}"
        self._outside.setdefault(pc, set()).add(self._block)
        return f"%o{pc:x}"

    def _write_block(self, pc: int) -> None:
        self._block = pc
        self._body[pc] = self._lines = []
        self._changes[pc], self._follows[pc] = set(), set()
        self._current.clear()
        self._dirty.clear()
        self._floats_forget()
        self._ended = False
        self._copies = self._length = 0
        first, isa, instructions, leaders = True, self._isa, self._shape.instructions, self._shape.leaders
        while not self._ended:
            instruction = instructions.get(pc)
            if instruction is None or (not first and (pc in leaders or pc in self._body)):
                self._jump(pc)
                break
            first = False
            self._length += 1
            self.pc, self.next = pc, pc + instruction.size
            position = len(self._lines)
            known, dirty = dict(self._current), set(self._dirty)
            changes = set(self._changes[self._block])
            try:
                isa.describe(instruction)(self, instruction)
            except Interpret:
                del self._lines[position:]
                self._current, self._dirty, self._changes[self._block] = known, dirty, changes
                self._floats_forget()
                self._leave(layout.EXIT_INTERPRET, pc, self.next)
                break
            first = self.next == self._block  # once more
            pc = self.next

    def _jump(self, pc: int) -> None:
        self._flush()
        self._poll(pc)
        self._lines.append(f"br label {self._goes(pc)}")
        self._ended = True

    def _poll(self, target: int) -> None:
        """On the way backwards: look whether somebody wants the thread out."""
        if target > self.pc or target not in self._shape.instructions:
            return
        flag = self._new(f"load volatile i64, ptr {self._state(layout.INTERRUPT)}, {NOT_GUEST}")
        quiet = self._new(f"icmp eq i64 {flag}, 0")
        out, on = self._name("p"), self._name("q")
        self._lines.append(f"br i1 {quiet}, label %{on}, label %{out}, !prof !9")
        self._lines.append(f"{out}:")
        self._sync(everything=True)
        self._leave_here(layout.EXIT_INTERRUPT, target, target)
        self._lines.append(f"{on}:")

    def _arguments(self) -> str:
        """Of a call: the registers that go with it, which variables have."""
        registers = self.convention.registers
        values = [self._new(f"load i64, ptr %x{register}, {NOT_GUEST}") for register in registers]
        return ", ".join(("ptr %st", *(f"i64 {value}" for value in values)))

    def _call(self, function: str) -> str:
        """The result of a function that is called like this one."""
        arguments = self._arguments()
        return self._new(f"call {self.convention.function} {function}({arguments})")

    def _go_over(self, function: str) -> None:
        """End by jumping to a function that is called like this one."""
        arguments, convention = self._arguments(), self.convention
        result = self._new(f"{convention.tail} call {convention.function} {function}({arguments})")
        self._lines.append(f"ret {convention.result} {result}")

    def _return(self, pc: Value) -> None:
        convention = self.convention
        if not convention.registers:
            self._lines.append(f"ret i64 {operand(pc)}")
            return
        result = self._new(f"insertvalue {convention.result} poison, i64 {operand(pc)}, 0")
        for place, register in enumerate(convention.registers, 1):
            value = self._new(f"load i64, ptr %x{register}, {NOT_GUEST}")
            result = self._new(f"insertvalue {convention.result} {result}, i64 {value}, {place}")
        self._lines.append(f"ret {convention.result} {result}")

    def _stub(self, word: int) -> str:
        """What is called to come to a stub, from functions that are called like this one."""
        return self._new(f"load ptr, ptr {self._state(self.convention.stub(word))}, {NOT_GUEST}")

    def _leave_here(self, why: int, pc: int, expected: int | None) -> None:
        """Come out, everything being in the state; go on at `expected` if that is where to go on, else return."""
        self._put(layout.EXIT, why)
        self._put(layout.PC, pc)
        if self.convention.registers:
            pc_now = self._new(f"call x86_regcallcc i64 {self._stub(layout.CALL_LEAVE_AT)}(ptr %st)")
        else:
            pc_now = self._new(f"call i64 {self._stub(layout.LEAVE_AT)}(ptr %st)")

        def upward() -> str:
            if not self.convention.registers:
                return pc_now
            up = self._stub(layout.CALL_UP_AT)
            return self._new(f"call {self.convention.function} {up}(ptr %st, i64 {pc_now})")

        self._come_back(pc_now, upward, expected, everything=True)

    def _come_back(self, pc: str, upward: Callable[[], str], expected: int | None, *, everything: bool) -> None:
        """After somebody else has run: on to the block of `expected`, or return what `upward` says."""
        on, up = self._name("k"), self._name("u")
        goes_on = expected in self._shape.instructions
        if goes_on:
            same = self._new(f"icmp eq i64 {pc}, {expected}")
            self._lines.append(f"br i1 {same}, label %{on}, label %{up}, !prof !9")
            self._lines.append(f"{up}:")
        self._lines.append(f"ret {self.convention.result} {upward()}")
        if expected is not None and goes_on:
            self._lines.append(f"{on}:")
            self._reload(everything=everything)
            self._lines.append(f"br label {self._goes(expected, synchronised=True)}")

    def _called(self, result: str, link: int) -> None:
        """After a call of what is called like this function: what it has brought back."""
        convention = self.convention
        if not convention.registers:
            self._come_back(result, lambda: result, link, everything=True)
            return
        pc = self._new(f"extractvalue {convention.result} {result}, 0")
        brought = [
            (register, self._new(f"extractvalue {convention.result} {result}, {place}"))
            for place, register in enumerate(convention.registers, 1)
        ]
        for register, value in brought:
            self._lines.append(f"store i64 {value}, ptr %x{register}, {NOT_GUEST}")
        self._come_back(pc, lambda: result, link, everything=False)

    def _leave(self, why: int, pc: int, expected: int | None) -> None:
        """End the block by coming out."""
        self._sync(everything=True)
        self._leave_here(why, pc, expected)
        self._ended = True

    def interpret_if(self, condition: str) -> None:
        """When the bit is set, have this instruction interpreted, of which nothing has happened yet."""
        out, on = self._name("i"), self._name("j")
        self._lines.append(f"br i1 {condition}, label %{out}, label %{on}, !prof !8")
        self._lines.append(f"{out}:")
        current, dirty = dict(self._current), set(self._dirty)
        self._sync(everything=True)
        self._leave_here(layout.EXIT_INTERPRET, self.pc, self.next)
        self._lines.append(f"{on}:")
        self._current, self._dirty = current, dirty

    # Where it goes on (see Builder)

    def jump(self, target: int) -> None:
        """See Builder."""
        self._jump(target & (1 << 64) - 1)

    def branch(self, condition: str, target: int) -> None:
        """See Builder."""
        target &= (1 << 64) - 1
        self._flush()
        if target == self._block and self._length <= SHORT_LOOP * (self._copies + 1) and self._copies < COPIES - 1:
            again = self._name("a")
            self._lines.append(f"br i1 {condition}, label %{again}, label {self._goes(self.next)}")
            self._lines.append(f"{again}:")
            self._copies += 1
            self.next = target
            return
        if target <= self.pc and target in self._shape.instructions:
            back, on = self._name("t"), self._goes(self.next)
            self._lines.append(f"br i1 {condition}, label %{back}, label {on}")
            self._lines.append(f"{back}:")
            self._poll(target)
            self._lines.append(f"br label {self._goes(target)}")
        else:
            self._lines.append(f"br i1 {condition}, label {self._goes(target)}, label {self._goes(self.next)}")
        self._ended = True

    def jump_to(self, target: Value, *, is_return: bool = False) -> None:
        """See Builder."""
        if is_return:
            self._sync()
            self._return(target)
        elif type(target) is int:
            self._jump(target)
        else:
            self._flush()
            self._dispatch(str(target))
        self._ended = True

    def _dispatch(self, target: str) -> None:
        """A computed jump: to one of the blocks here, or through the table."""
        self._dispatches += 1
        targets = sorted(self._shape.computed)
        if len(targets) * self._dispatches > MANY_EDGES:
            self._lines.append(f"store i64 {target}, ptr %target")
            self._lines.append(f"store i64 {self.pc}, ptr %from")
            self._lines.append("br label %dispatch")
            self._follows[self._block].update(targets)
            self._queue.extend(targets)
            return
        self._switch(target, targets)

    def _switch(self, target: str, targets: list[int]) -> None:
        default = self._name("d")
        self._select(target, {pc: self._goes(pc) for pc in targets}, default)
        self._lines.append(f"{default}:")
        self._sync()
        self._go_through_table(target)

    def _select(self, target: str, labels: dict[int, str], default: str) -> None:
        """To the label of an address. Where there are many, by a table of LLVM's: their hash numbers the cases without
        holes, and for each one or a few comparisons are left, which are nearly always true."""
        if len(labels) <= FEW_TARGETS:
            cases = " ".join(f"i64 {pc}, label {label}" for pc, label in labels.items())
            self._lines.append(f"switch i64 {target}, label %{default} [{cases}]")
            return
        factor, shift, slots = perfect(labels)
        product = self._new(f"mul i64 {target}, {factor}")
        hashed = self._new(f"lshr i64 {product}, {shift}")
        names = {slot: self._name("h") for slot in slots}
        every = ((slot, names.get(slot, default)) for slot in range(1 << 64 - shift))
        cases = " ".join(f"i64 {slot}, label %{name}" for slot, name in every)
        self._lines.append(f"switch i64 {hashed}, label %{default} [{cases}]")
        for slot, pcs in slots.items():
            self._lines.append(f"{names[slot]}:")
            for place, pc in enumerate(pcs, 1):
                other = self._name("g") if place < len(pcs) else default
                here = self._new(f"icmp eq i64 {target}, {pc}")
                self._lines.append(f"br i1 {here}, label {labels[pc]}, label %{other}, !prof !9")
                if place < len(pcs):
                    self._lines.append(f"{other}:")

    def _go_through_table(self, target: str) -> None:
        self._put(layout.PC, target)
        self._put(layout.JUMP_FROM, self.pc)
        self._go_over(self._entry_of(target, layout.JUMP_MISS_AT))

    def _entry_of(self, target: Value, otherwise: int = layout.MISS_AT) -> str:
        """The translation of a guest address, or what makes one."""
        miss = self._stub(otherwise)
        if type(target) is int:
            if target >= layout.GUEST_END:
                return miss
            slot = self._new(f"inttoptr i64 {layout.table_entry(target, self.convention.table)} to ptr")
            found = self._new(f"load ptr, ptr {slot}, {NOT_GUEST}")
        else:
            high = self._new(f"lshr i64 {target}, {GUEST_BITS}")
            inside = self._new(f"icmp eq i64 {high}, 0")
            index = self._new(f"select i1 {inside}, i64 {target}, i64 0")
            offset = self._new(f"shl i64 {index}, 2")
            address = self._new(f"add i64 {offset}, {self.convention.table}")
            slot = self._new(f"inttoptr i64 {address} to ptr")
            listed = self._new(f"load ptr, ptr {slot}, {NOT_GUEST}")
            found = self._new(f"select i1 {inside}, ptr {listed}, ptr null")
        missing = self._new(f"icmp eq ptr {found}, null")
        return self._new(f"select i1 {missing}, ptr {miss}, ptr {found}")

    def call(self, target: int, link: int) -> None:
        """See Builder."""
        self.call_to(target & (1 << 64) - 1, link)

    def call_to(self, target: Value, link: int) -> None:
        """See Builder."""
        self._sync()
        if type(target) is int and target in self._internal:
            result = self._call(f"@{self.convention.letter}{target:x}")
        else:
            self._put(layout.PC, target)
            result = self._call(self._entry_of(target))
        self._called(result, link)
        self._ended = True

    def system_call(self) -> None:
        """See Builder."""
        self._leave(layout.EXIT_SYSCALL, self.next, self.next)

    def flush_instructions(self) -> None:
        """See Builder."""
        self._leave(layout.EXIT_FLUSH, self.next, None)

    def trap(self, kind: str) -> None:
        """See Builder."""
        self._leave(layout.EXIT_BREAKPOINT if kind == "breakpoint" else layout.EXIT_ILLEGAL, self.pc, None)

    def leave_if(self, condition: str, reason: int) -> None:
        """See Builder."""
        out, on = self._name("l"), self._name("m")
        self._lines.append(f"br i1 {condition}, label %{out}, label %{on}, !prof !8")
        self._lines.append(f"{out}:")
        current, dirty = dict(self._current), set(self._dirty)
        self._sync(everything=True)
        self._leave_here(layout.LEAVE_FIRST + reason, self.pc, None)
        self._lines.append(f"{on}:")
        self._current, self._dirty = current, dirty

    # Putting it together

    def _may_be_dirty(self) -> dict[int, frozenset[int]]:
        """For each block: which registers may differ from the state where it begins."""
        into: dict[int, set[int]] = {pc: set() for pc in self._body}
        todo = list(self._body)
        while todo:
            pc = todo.pop()
            out = into[pc] | self._changes[pc]
            for following in self._follows[pc]:
                if not out <= into[following]:
                    into[following] |= out
                    todo.append(following)
        return {pc: frozenset(registers) for pc, registers in into.items()}

    def _assemble(self) -> str:
        dirty, convention = self._may_be_dirty(), self.convention
        passed = frozenset(convention.registers)
        used = sorted(self._uses.keys() | passed)
        if self.precise:
            variables: set[int] = set()
        elif len(self._body) > MANY_BLOCKS:
            variables = {register for register, _ in self._uses.most_common(FEW)}
        else:
            variables = set(used)
        entry, define = self._shape.entry, f"define dso_local {convention.function}"
        lines: list[str] = []
        several = self.entries
        if several:
            for pc in several:
                lines += (
                    f"{define} @{convention.letter}{pc:x}({convention.parameters}) #0 {{",
                    f"%p = getelementptr i64, ptr %st, i64 {layout.PC}",
                    f"store i64 {pc}, ptr %p, {NOT_GUEST}",
                    f"%r = {convention.tail} call {convention.function} @m{entry:x}({convention.same})",
                    f"ret {convention.result} %r",
                    "}",
                )
            lines.append(f"define internal {convention.function} @m{entry:x}({convention.parameters}) #0 {{")
        else:
            lines.append(f"{define} @{convention.letter}{entry:x}({convention.parameters}) #0 {{")
        lines.append("entry:")
        for register in used:
            if register in variables:
                lines.append(f"%x{register} = alloca i64")
                lines.append(f"%s{register} = getelementptr i64, ptr %st, i64 {register}")
            else:
                lines.append(f"%x{register} = getelementptr i64, ptr %st, i64 {register}")
        for register in convention.registers:
            lines.append(f"store i64 %g{register}, ptr %x{register}, {NOT_GUEST}")
        uses_dispatch = bool(several) or any("br label %dispatch" in body for body in self._body.values())
        if uses_dispatch:
            lines += ("%target = alloca i64", "%from = alloca i64")
        if self.leaves_calls:
            self._stack_check(lines)
        counter = [0]

        def reload(*, everything: bool = False) -> None:
            for register in sorted(variables if everything else variables - passed):
                counter[0] += 1
                lines.append(f"%r{counter[0]} = load i64, ptr %s{register}, {NOT_GUEST}")
                lines.append(f"store i64 %r{counter[0]}, ptr %x{register}, {NOT_GUEST}")

        def sync(registers: frozenset[int], *, everything: bool = False) -> None:
            for register in sorted((registers | passed if everything else registers - passed) & variables):
                counter[0] += 1
                lines.append(f"%r{counter[0]} = load i64, ptr %x{register}, {NOT_GUEST}")
                lines.append(f"store i64 %r{counter[0]}, ptr %s{register}, {NOT_GUEST}")

        reload()
        if several:
            self._lines = []
            first = self._new(f"load i64, ptr {self._state(layout.PC)}, {NOT_GUEST}")
            self._lines.append(f"store i64 {first}, ptr %target")
            self._lines.append("store i64 0, ptr %from")
            at_entry = self._new(f"icmp eq i64 {first}, {entry}")
            self._lines.append(f"br i1 {at_entry}, label %b{entry:x}, label %dispatch")
            lines += self._lines
        else:
            lines.append(f"br label %b{entry:x}")
        for pc, body in self._body.items():
            lines.append(f"b{pc:x}:")
            for line in body:
                if type(line) is str:
                    lines.append(line)
                elif type(line) is _Sync:
                    sync(dirty[line.block] | line.changed, everything=line.everything)
                else:
                    reload(everything=line.everything)
        for pc, sources in self._outside.items():
            lines.append(f"o{pc:x}:")
            sync(frozenset().union(*(dirty[source] | self._changes[source] for source in sources)))
            self._lines = []
            if pc in self._internal:
                self._go_over(f"@{convention.letter}{pc:x}")
            else:
                self._put(layout.PC, pc)
                self._go_over(self._entry_of(pc))
            lines += self._lines
        if uses_dispatch:
            lines.append("dispatch:")
            self._lines = []
            target = self._new("load i64, ptr %target")
            default = self._name("d")
            self._select(target, {pc: f"%b{pc:x}" for pc in sorted(self._shape.computed)}, default)
            self._lines.append(f"{default}:")
            lines += self._lines
            sync(frozenset(used))
            self._lines = []
            self._put(layout.PC, target)
            self._put(layout.JUMP_FROM, self._new("load i64, ptr %from"))
            self._go_over(self._entry_of(target, layout.JUMP_MISS_AT))
            lines += self._lines
        lines.append("}\n")
        return "\n".join(lines) + "".join(map(convention.entry, several or [entry]))

    @property
    def entries(self) -> list[int]:
        """Where it can be entered, if that is more than one place."""
        computed = self._shape.computed
        return sorted({self._shape.entry, *computed}) if len(computed) > MANY_TARGETS else []

    def _stack_check(self, lines: list[str]) -> None:
        """Before anything else: is there host stack left, and does nobody want the thread out?"""
        self._lines = []
        limit = self._new(f"load volatile i64, ptr {self._state(layout.STACK_LIMIT)}")
        pointer = self._new('call i64 @llvm.read_register.i64(metadata !"rsp")'.replace('!"rsp"', "!7"))
        enough = self._new(f"icmp uge i64 {pointer}, {limit}")
        self._lines.append(f"br i1 {enough}, label %begin, label %unwind, !prof !9")
        self._lines.append("unwind:")
        if not self.entries:
            self._put(layout.PC, self._shape.entry)
        self._go_over(self._stub(layout.UNWIND_AT))
        self._lines.append("begin:")
        lines += self._lines


def perfect(addresses: Iterable[int]) -> tuple[int, int, dict[int, list[int]]]:
    """A factor and a shift that spread addresses over twice as many places, as evenly as can be found soon, and what
    comes to stand in each: at `(address * factor mod 2**64) >> shift`."""
    known = sorted(addresses)
    shift = 64 - (2 * len(known) - 1).bit_length()
    best: tuple[int, int, dict[int, list[int]]] | None = None
    factor, fewest = SPREAD, 0
    for _ in range(TRIES):
        slots: dict[int, list[int]] = {}
        for pc in known:
            slots.setdefault(pc * factor % (1 << 64) >> shift, []).append(pc)
        if best is None or len(slots) > fewest:
            best, fewest = (factor, shift, slots), len(slots)
        factor = factor * MULTIPLIER % (1 << 64) | 1
    assert best is not None
    return best


def convention_of(isa: InstructionSet, *, precise: bool) -> Convention:
    """How the functions of a module are called."""
    return Convention(() if precise else isa.call_registers)


def unit_text(isa: InstructionSet, shape: Shape, internal: frozenset[int], *, precise: bool) -> str:
    """The functions for a shape: called u and the entry's address, and f where calls take registers along; those for
    further entries are called likewise."""
    return UnitText(isa, shape, internal, precise=precise).write()
