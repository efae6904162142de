"""The quick translator: guest code to host code in one pass, with the guest's registers in memory.

It puts together the pieces that instructions become (`baseline_pieces`) from an address on, following jumps and
branches up to a limit. Faults are exact: whatever an instruction changes it changes last, and a list tells the guest
address for each place in the code. `layout` says how the code fits in with the rest.

Whatever is entered from outside, and whatever is jumped back to, is counted, so that every loop is. What is not done
natively is left to the interpreter, instruction by instruction (`layout.EXIT_INTERPRET`).
"""

import struct
from collections import deque
from collections.abc import Callable, Container
from functools import partial
from typing import Final

from virtus.isa.instruction_set import InstructionSet
from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler
from virtus.records import dataclass
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.baseline_pieces import (
    ASK,
    BRANCH,
    CALL,
    CALL_COMPUTED,
    JUMP,
    JUMP_COMPUTED,
    NEXT,
    RETURN,
    Piece,
    describer,
)
from virtus.vcpus.translator.baseline_values import STATE, WORD

LIMIT: Final = 96
"""Guest instructions that are translated at a time."""
GUEST_BITS: Final = layout.GUEST_END.bit_length() - 1
AFTER: Final = frozenset((layout.EXIT_SYSCALL, layout.EXIT_FLUSH))
"""Exits whose PC is the next instruction."""

_I32: Final = struct.Struct("<i")
_U64: Final = struct.Struct("<Q")
_COUNT: Final = b"\xff\x0d"  # dec dword [rip + ...]
COUNTER_AT, COUNTER_FROM = 2, 6
"""Of an entry: where its counter's distance stands, and from where that is counted."""
_BODY: Final = b"\x78\x05\xe9"  # js behind the next; jmp ...
_NEAR: Final = b"\x48\xc7\x87" + _I32.pack(WORD * layout.PC)  # mov qword [rdi + PC], ...
_FAR: Final = b"\x48\xb8"  # mov rax, ...
_FAR_STORE: Final = b"\x48\x89\x87" + _I32.pack(WORD * layout.PC)  # mov [rdi + PC], rax
_THIS: Final = b"\x48\x8d\x0d"  # lea rcx, [rip + ...]
_HOT: Final = b"\xff\xa7" + _I32.pack(WORD * layout.HOT_AT)  # jmp [rdi + HOT_AT]


def _entry(pc: int, counter: int, body: int) -> bytes:
    """Counts, and goes on at `body` until the counter runs out; both are distances from here. There are so many of
    these that they are put together by hand."""
    begun = _COUNT + _I32.pack(counter - COUNTER_FROM) + _BODY + _I32.pack(body - 13)
    if pc < 1 << 31:
        return begun + _NEAR + _I32.pack(pc) + _THIS + _I32.pack(-31) + _HOT
    return begun + _FAR + _U64.pack(pc) + _FAR_STORE + _THIS + _I32.pack(-37) + _HOT


@dataclass(slots=True)
class Unit:
    """Code for `place`, from one or more blocks of guest code."""

    code: bytes
    entries: dict[int, int]  # guest address of a block: offset
    map: list[tuple[int, int]]  # offset, guest address: of every instruction, in order of offsets
    counters: dict[int, int]  # guest address of a block: its counter's index
    covers: list[tuple[int, int]]  # guest addresses, disjoint and sorted


def translate(
    isa: InstructionSet,
    fetch: Callable[[int], bytes],
    pc: int,
    *,
    place: int,
    counter: Callable[[], int],
    limit: int = LIMIT,
    known: Container[int] = (),
) -> Unit:
    """Translate from guest address `pc`. `fetch` gives the code at an address, at least one instruction's if it can be
    executed; `place` is where the code will stand, and `counter` a new counter's index. Guest code in `known` has
    translations already.
    """
    return _Translation(isa, fetch, place, counter, known).run(pc, limit)


class _Translation:
    """One run of the translator."""

    def __init__(
        self,
        isa: InstructionSet,
        fetch: Callable[[int], bytes],
        place: int,
        counter: Callable[[], int],
        known: Container[int],
    ) -> None:
        self._a = Assembler()
        self._isa, self._fetch, self._place, self._counter, self._known = isa, fetch, place, counter, known
        self._describer = describer(isa)  # type: ignore[arg-type] # a protocol does not say that it is hashable
        self._queue: deque[int] = deque()
        self._offsets: dict[int, int] = {}  # of every instruction translated
        self._ranges: list[tuple[int, int]] = []  # of guest addresses, translated
        self._blocks: dict[int, None] = {}  # addresses that are to be entries, if they get translated
        self._jumps: list[tuple[int, int]] = []  # position, guest address: forward, or within a block
        self._back: dict[int, list[int]] = {}  # guest address: positions of jumps backward
        self._cold: list[Callable[[], None]] = []
        self._returns: list[int] = []  # positions of jumps to a `ret`

    def run(self, start: int, limit: int) -> Unit:
        """See `translate`."""
        self._blocks[start] = None
        self._queue.append(start)
        while self._queue:
            self._trace(self._queue.popleft(), limit)
        entries, counters = self._entries()
        self._outside()
        while self._cold:
            self._cold.pop()()
        a = self._a
        for position in self._returns:
            a.aim(position, len(a.code))
        a.back()
        places = [(offset, pc) for pc, offset in self._offsets.items()]
        return Unit(bytes(a.code), entries, places, counters, self._covers())

    def _follow(self, pc: int) -> None:
        """Translate from there, too, if there is room left."""
        if pc not in self._blocks and pc not in self._known:
            self._blocks[pc] = None
            self._queue.append(pc)

    def _trace(self, start: int, limit: int) -> None:
        """Translate from an address on, to where that is not what comes next."""
        a, offsets, describe, known = self._a, self._offsets, self._describer.piece, self._known
        decode, longest, text = self._isa.decode, self._isa.longest, self._a.code
        pc = first = start
        code, base, end = b"", 0, 0
        while pc not in offsets and len(offsets) < limit and (pc not in known or pc == start):
            if end - pc < longest:
                code, base = self._fetch(pc), pc
                end = pc + len(code)
                if not code:
                    break  # not to be executed: let the fault be found when the guest gets here
            instruction = decode(code, pc - base)
            offset = offsets[pc] = len(text)
            piece = describe(instruction, pc)
            text += piece.code
            following = pc + instruction.size
            if piece.exits:
                self._exit(piece, offset, pc, following)
            if piece.ends != NEXT:
                next = self._end(piece, pc, following)
                if next != following:
                    self._ranges.append((first, following))
                    if next is None:
                        return
                    first, end = next, 0
                    following = next
            pc = following
        if pc != first:
            self._ranges.append((first, pc))
        if pc != start:
            self._jumps.append((a.jump(), pc))

    def _exit(self, piece: Piece, offset: int, pc: int, following: int) -> None:
        """Where a piece comes out in the middle, now and then."""
        a, after = self._a, len(self._a.code)

        def cold(position: int, reason: int) -> None:
            a.aim(offset + position, len(a.code))
            self._leave(reason, pc)
            if reason != layout.EXIT_INTERPRET:
                a.back()
                return
            self._return_unless(following)
            if piece.ends == NEXT:
                a.aim(a.jump(), after)
            else:
                self._go(following)

        for position, reason in piece.exits:
            self._cold.append(partial(cold, position, reason))

    def _end(self, piece: Piece, pc: int, following: int) -> int | None:
        """What comes after a piece that ends a block; the guest address to go on with right behind it, if any."""
        a, ends, target = self._a, piece.ends, piece.target
        if ends == BRANCH:
            self._jump_to(a.jump_if(piece.condition), pc, target)
            return following
        if ends == JUMP:
            if target > pc:
                return target
            self._jump_to(a.jump(), pc, target)
            return None
        if ends == ASK:
            self._leave(piece.reason, following if piece.reason in AFTER else pc)
            self._return_unless(following)
            if piece.reason in AFTER:
                self._blocks[following] = None
            return following
        if ends == CALL:
            self._entry_of(target)
            self._call(piece.link, target)
            return piece.link
        if ends == CALL_COMPUTED:
            self._entry_of_computed(layout.MISS_AT)
            self._call(piece.link, None)
            return piece.link
        if ends == JUMP_COMPUTED:
            self._poll_computed()
            self._store_address(layout.JUMP_FROM, pc, x86.RCX)
            self._entry_of_computed(layout.JUMP_MISS_AT)
            a.jump_to(x86.RDX)
        elif ends == RETURN:
            self._poll_computed()
            a.back()
        else:
            self._leave(piece.reason, following if piece.reason in AFTER else pc)
            a.back()
        return None

    def _jump_to(self, position: int, pc: int, target: int) -> None:
        """Where a jump goes whose distance is at `position`."""
        self._follow(target)
        if target > pc:
            self._jumps.append((position, target))
        else:
            self._back.setdefault(target, []).append(position)

    # What stands behind the pieces

    def _entries(self) -> tuple[dict[int, int], dict[int, int]]:
        """A counted entry for each block that is entered from outside or jumped back to; before it, for the latter, a
        look whether somebody wants the thread out."""
        a, offsets = self._a, self._offsets
        entries: dict[int, int] = {}
        counters: dict[int, int] = {}
        for pc in self._blocks:
            if pc not in offsets:
                continue
            if pc in self._back:
                self._poll(pc, self._back.pop(pc))
            index = counters[pc] = self._counter()
            start = entries[pc] = len(a.code)
            a.code += _entry(pc, layout.COUNTERS + 4 * index - self._place - start, offsets[pc] - start)
        return entries, counters

    def _poll(self, pc: int, positions: list[int]) -> None:
        """Where jumps backward arrive: what follows is entered unless the thread is wanted out."""
        a = self._a
        for position in positions:
            a.aim(position, len(a.code))
        a.compare_half(STATE, WORD * layout.INTERRUPT, 0)
        wanted = a.jump_if(x86.NOT_EQUAL)
        following = len(a.code)

        def cold() -> None:
            a.aim(wanted, len(a.code))
            self._leave(layout.EXIT_INTERRUPT, pc)
            self._return_unless(pc)
            a.aim(a.jump(), following)

        self._cold.append(cold)

    def _outside(self) -> None:
        """Jumps to what is not in this unit."""
        a, offsets = self._a, self._offsets
        ways: dict[int, list[int]] = {}
        for position, pc in self._jumps:
            if pc in offsets:
                a.aim(position, offsets[pc])
            else:
                ways.setdefault(pc, []).append(position)
        for pc, positions in self._back.items():
            self._poll(pc, positions)
            self._go(pc)
        for pc, positions in ways.items():
            for position in positions:
                a.aim(position, len(a.code))
            self._go(pc)

    def _go(self, pc: int) -> None:
        """To what is elsewhere."""
        self._entry_of(pc)
        self._a.jump_to(x86.RDX)

    def _store_address(self, slot: int, pc: int, scratch: int) -> None:
        """Store a guest address into the state; destroys the register at most."""
        if pc < 1 << 31:
            self._a.store_word(STATE, WORD * slot, pc)
        else:
            self._a.constant(scratch, pc)
            self._a.store(STATE, WORD * slot, scratch)

    def _set_pc(self, pc: int) -> None:
        """Store a guest address into the state's PC; destroys RAX at most."""
        self._store_address(layout.PC, pc, x86.RAX)

    def _leave(self, why: int, pc: int) -> None:
        """Come out; RAX is where to go on."""
        self._set_pc(pc)
        self._a.store_word(STATE, WORD * layout.EXIT, why)
        self._a.call_through(STATE, WORD * layout.LEAVE_AT)

    def _return_unless(self, pc: int) -> None:
        """Return with RAX unless that is `pc`; destroys RCX."""
        a = self._a
        if pc < 1 << 31:
            a.arithmetic_immediate(x86.CMP, x86.RAX, pc)
        else:
            a.constant(x86.RCX, pc)
            a.arithmetic(x86.CMP, x86.RAX, x86.RCX)
        self._returns.append(a.jump_if(x86.NOT_EQUAL))

    def _entry_of(self, pc: int) -> None:
        """RDX = the translation of a known address, or else what makes one, with PC set."""
        a = self._a
        if pc >= layout.GUEST_END:
            self._set_pc(pc)
            a.load(x86.RDX, STATE, WORD * layout.MISS_AT)
            return
        a.constant(x86.RDX, layout.table_entry(pc))
        a.load(x86.RDX, x86.RDX, 0)
        a.test(x86.RDX, x86.RDX)
        nowhere = a.jump_if(x86.EQUAL)

        def cold() -> None:
            a.aim(nowhere, len(a.code))
            self._set_pc(pc)
            a.load(x86.RDX, STATE, WORD * layout.MISS_AT)
            a.aim(a.jump(), nowhere + 4)

        self._cold.append(cold)

    def _entry_of_computed(self, miss: int) -> None:
        """RDX = the translation of the address in RAX, which goes to the PC as well, or else what slot `miss` has."""
        a = self._a
        a.store(STATE, WORD * layout.PC, x86.RAX)
        a.load(x86.RDX, STATE, WORD * miss)
        a.move(x86.RCX, x86.RAX)
        a.shift(x86.SHR, x86.RCX, GUEST_BITS)
        beyond = a.skip_if(x86.NOT_EQUAL)
        a.constant(x86.RCX, layout.TABLE)
        a.load_indexed_by_four(x86.RCX, x86.RCX, x86.RAX)
        a.test(x86.RCX, x86.RCX)
        a.move_if(x86.NOT_EQUAL, x86.RDX, x86.RCX)
        a.land(beyond)

    def _call(self, link: int, target: int | None) -> None:
        """Call RDX unless the host's stack is used up, and go on only if it comes back to `link`. `target` is what goes
        to the PC where it is not there already."""
        a = self._a
        a.arithmetic_memory(x86.CMP, x86.RSP, STATE, WORD * layout.STACK_LIMIT)
        full = a.jump_if(x86.BELOW)
        a.push(STATE)
        a.call(x86.RDX)
        a.pop(STATE)
        self._return_unless(link)
        self._blocks[link] = None

        def cold() -> None:
            a.aim(full, len(a.code))
            if target is not None:
                self._set_pc(target)
            a.jump_through(STATE, WORD * layout.UNWIND_AT)

        self._cold.append(cold)

    def _poll_computed(self) -> None:
        """Before RAX is gone to, which may be backwards: look whether the thread is wanted out."""
        a = self._a
        a.compare_half(STATE, WORD * layout.INTERRUPT, 0)
        wanted = a.skip_if(x86.EQUAL)
        a.store(STATE, WORD * layout.PC, x86.RAX)
        a.store_word(STATE, WORD * layout.EXIT, layout.EXIT_INTERRUPT)
        a.jump_through(STATE, WORD * layout.LEAVE_AT)  # which returns with where to go on
        a.land(wanted)

    def _covers(self) -> list[tuple[int, int]]:
        covers: list[tuple[int, int]] = []
        for start, end in sorted(self._ranges):
            if covers and start <= covers[-1][1]:
                covers[-1] = (covers[-1][0], max(end, covers[-1][1]))
            else:
                covers.append((start, end))
        return covers
