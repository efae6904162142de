"""Patches: a sensitive instruction that traps often becomes a jump to a fragment that works on virtual state.

A fragment holds the translated instruction (`translations.py`), those around it that the jump covers, and a jump back.
It works on cells that the monitor and the supervisor's child share (`cells.py`). Whoever is stopped inside a fragment
is brought to an instruction of the guest's first: the guest never sees an EIP of ours.

Where a site is shorter than a jump, what is behind it moves, too. An instruction right behind the jump's first byte may
be one that is jumped to: the fragment lies where the jump's second byte is a breakpoint then. And behind an instruction
that code does not go on from the jump may lie over padding, or be reached there by a short one.
"""

import struct
from typing import Final

from iced_x86 import Decoder, Encoder, FlowControl, Instruction, Mnemonic, Register, RegisterExt

from virtus.memory.guest_memory import PAGE
from virtus.vcpus.scanned.breakpoints import INT3, LONGEST, START, CodePage, CodePages
from virtus.vcpus.scanned.cells import HIDDEN_SIZE, SHARED, Cells
from virtus.vcpus.scanned.cpu_state import CpuState
from virtus.vcpus.scanned.translations import Fragment, Place, Trap, translation

HOT: Final = 16
"""Traps after which a site is worth a patch; where that fails, twice as many, and so on."""
FRAGMENTS: Final = 63 * PAGE
AREA: Final = SHARED + FRAGMENTS
"""The cells, and the fragments behind them."""
JUMP: Final = 5  # E9 rel32
SHORT_JUMP: Final = 2  # EB rel8
NEAR: Final = 120
"""Bytes that a short jump goes over."""
MOST_BEFORE: Final = 4
"""Instructions in front of a sensitive one that its patch may begin with."""
MOST_COVERED: Final = 12
LEAST_ALIGNMENT: Final = 4
"""Of functions."""
OFFSET: Final = PAGE - 1
_LAST: Final = {FlowControl.UNCONDITIONAL_BRANCH, FlowControl.RETURN}
_AWAY: Final = _LAST | {FlowControl.INDIRECT_BRANCH}


class Patches:
    """All fragments of a processor's supervisor code."""

    def __init__(self, state: CpuState, codes: CodePages, cells: Cells) -> None:
        self._state, self._cells = state, cells
        at = codes.extra_at + SHARED
        self._area = codes.code.bytes[at : at + FRAGMENTS]
        self._next = 0
        self.hits: dict[int, int] = {}
        self.traps: dict[int, Trap] = {}
        self._places: list[Place] = []
        self._boundaries: dict[int, int] = {}
        self.interior: dict[int, CodePage] = {}
        """Linear addresses of guest instructions that lie under a jump of ours."""
        self._returns: set[int] = set()
        """Where fragments go back to: no jump may be laid over that."""
        self._busy: set[int] = set()
        """Instructions under a jump that were come to often: no jump may be laid over them again."""
        self.made = 0
        self.refused = 0
        self.full = False
        """Whether there was no room for a fragment: those of code that is gone take it until `forget`."""

    @property
    def base(self) -> int:
        """The linear address of the cells."""
        return self._cells.base

    @property
    def start(self) -> int:
        """The linear address of the fragments."""
        return self._cells.base + SHARED

    def settle(self, base: int) -> None:
        """The cells are at this linear address from now on; all patches there were must be gone."""
        self._cells.settle(base)
        self.forget()

    def forget(self) -> None:
        """No fragment is used any longer."""
        self._next = 0
        self.made, self.full = 0, False
        self.traps.clear()
        self._places.clear()
        self._boundaries.clear()
        self.interior.clear()
        self._returns.clear()
        self._busy.clear()
        self.hits.clear()
        self._cells.hidden[:] = bytes(HIDDEN_SIZE)

    def close(self) -> None:
        """Let go of the view."""
        self._area.release()

    # around direct execution

    def inside(self, eip: int) -> bool:
        """Whether this is in a fragment."""
        return self.made > 0 and 0 <= eip - self.start < self._next

    def boundary(self, eip: int) -> int | None:
        """The guest's EIP where an address in a fragment is between two of its instructions."""
        return self._boundaries.get(eip)

    def roll_back(self, eip: int) -> int:
        """The guest's EIP for a fault inside a fragment; its registers are as they were before that instruction."""
        found = max((place for place in self._places if place.start <= eip), key=lambda place: place.start)
        if found.saved:
            self._state.registers[0] = self._cells.saved_eax
        return found.eip

    # making

    def hot(self, eip: int) -> bool:
        """Count a trap; whether the site should be patched now."""
        count = self.hits.get(eip, 0) + 1
        self.hits[eip] = count
        return count >= HOT and count & count - 1 == 0

    def is_busy(self, eip: int) -> CodePage | None:
        """The page of an instruction under a jump that was come to once too often, as `hot` has it: the patch must go,
        and will not be made like this again."""
        page = self.interior.get(eip)
        if page is not None:
            self._busy.add(eip)
        return page

    def make(self, page: CodePage, eip: int, code: bytes, targets: set[int]) -> bool:
        """Patch the site at `eip` in a page, whose bytes are `code`; False where it cannot be."""
        if translation(_decoder(code, eip).decode()) is None:
            return False
        for first, stopping in [*((first, False) for first in self._beginnings(page, eip, code)), (eip, True)]:
            covered = self._cover(page, first, eip, code, targets, stopping)
            if covered and self._write(page, covered, None):
                self.hits[eip] = 0
                return True
        covered = self._cover(page, eip, eip, code, targets, False, SHORT_JUMP)
        island = self._island(page, eip, code, targets) if covered else None
        if island is not None and self._write(page, covered, island):
            self.hits[eip] = 0
            return True
        self.refused += 1
        return False

    def _island(self, page: CodePage, first: int, code: bytes, targets: set[int]) -> int | None:
        """Where near `first` a jump fits into padding behind an instruction that code does not go on from."""
        start, end = max(first - NEAR, first & ~OFFSET), min(first + NEAR, first | OFFSET)
        for at in range(start + 1, end):
            if page.covered[at & OFFSET] or not page.covered[at - 1 & OFFSET]:
                continue
            before = next((near for near in range(at - 1, start, -1) if page.covered[near & OFFSET] == START), at)
            last = _decoder(code, before).decode()
            if before + last.len == at and last.flow_control in _AWAY and self._is_padded(page, at, at, code, targets):
                return at
        return None

    def _beginnings(self, page: CodePage, eip: int, code: bytes) -> list[int]:
        """Where the jump may be: at the site, or at an instruction in front of it that goes on to it."""
        found, at = [eip], eip
        for _ in range(MOST_BEFORE):
            lowest = max(at - LONGEST, at & ~OFFSET)
            before = [near for near in range(at - 1, lowest - 1, -1) if page.covered[near & OFFSET] == START]
            if not before or page.covered[at & OFFSET] != START:
                break
            near = before[0]
            instruction = _decoder(code, near).decode()
            if near + instruction.len != at or near in self.interior or near & OFFSET in page.patched:
                break
            if page.copy[near & OFFSET] != code[near & OFFSET] and near & OFFSET not in page.sites:
                break  # the jump of another patch
            found.append(near)
            at = near
        return found

    def _cover(
        self, page: CodePage, first: int, site: int, code: bytes, targets: set[int], stopping: bool, reach: int = JUMP
    ) -> list[Instruction]:
        """The instructions of a fragment whose jump is at `first`, that at `site` among them, and those behind it that
        are translated as well; empty where one under the jump is a target, or one cannot be moved. With `stopping` a
        target may be where the jump's second byte stops who comes there. The jump is `reach` bytes long."""
        found: list[Instruction] = []
        decoder = _decoder(code, first)
        end = first
        while True:
            enough = end - first >= reach and end > site and end not in self.interior
            offset = end & OFFSET
            if end > first and ((end - 1 ^ first) & ~OFFSET or (end ^ first) & ~OFFSET):
                return found if enough and not (end - 1 ^ first) & ~OFFSET else []
            sensitive = offset in page.sites or offset in page.patched
            if enough and (not sensitive or len(found) >= MOST_COVERED):
                return found
            instruction = decoder.decode()
            end = instruction.ip32 + instruction.len
            fits = page.scanned(offset) and offset not in page.numeric and offset + instruction.len <= PAGE
            fits = fits and not (page.tail is not None and page.tail_at == offset)
            under = 0 < instruction.ip32 - first < reach
            reached = under and (instruction.ip32 in targets or instruction.ip32 in self._returns)
            if stopping and instruction.ip32 == first + 1 and first + 1 not in self._busy:
                reached = False
            overlaid = page.covered.find(START, offset + 1, offset + instruction.len) >= 0
            if not fits or reached or overlaid or instruction.is_invalid:
                return found if enough else []
            last = end > site and end not in self.interior
            last = last and (end - first >= reach or self._is_padded(page, first, end, code, targets))
            if sensitive:
                movable = translation(instruction) is not None and (instruction.mnemonic != Mnemonic.IRETD or last)
            else:
                plain = instruction.flow_control == FlowControl.NEXT or instruction.is_jcc_short_or_near
                movable = plain or (last and _ends(instruction))
            if not movable:
                return found if enough else []
            found.append(instruction)
            if instruction.mnemonic == Mnemonic.IRETD or instruction.flow_control in _LAST or instruction.is_call_near:
                return found

    def _is_padded(self, page: CodePage, first: int, end: int, code: bytes, targets: set[int]) -> bool:
        """Whether there is nothing but padding from `end`, where code does not go on, to the end of a jump at `first`:
        what was never scanned, and does nothing."""
        behind = range(end, first + JUMP)
        if (first ^ behind[-1]) & ~OFFSET:
            return False
        if any(page.covered[at & OFFSET] or at in targets or at in self._returns for at in behind):
            return False
        decoder, at = _decoder(code, end), end
        while at < first + JUMP:
            instruction = decoder.decode()
            begins = at % LEAST_ALIGNMENT == 0 and instruction.mnemonic != Mnemonic.INT3
            if begins or not _is_padding(instruction):
                return False  # functions begin with NOPs where tracers want room
            at += instruction.len
        return True

    def _room(self, first: int, second: int) -> int:
        """Where a fragment may begin that is jumped to from `first`: the byte behind that is a breakpoint where an
        instruction, at `second`, is there."""
        if second != first + 1:
            return self._next
        return self._next + (INT3 - (self.start + self._next - first - JUMP) & 0xFF)

    def _write(self, page: CodePage, covered: list[Instruction], island: int | None) -> bool:
        """Make the fragment of these instructions, and the jump to it, by way of an island or not."""
        first = covered[0]
        at = self._room(first.ip32, first.ip32 + first.len) if island is None else self._next
        fragment = Fragment(self.start + at, self._cells)
        ended = False
        boundaries: dict[int, int] = {}
        for instruction in covered:
            fragment.places.append(Place(fragment.end, instruction.ip32, False))
            boundaries[fragment.end] = instruction.ip32
            offset = instruction.ip32 & OFFSET
            if offset in page.sites or offset in page.patched:
                translate = translation(instruction)
                assert translate is not None
                translate(fragment, instruction)
                ended = instruction.mnemonic == Mnemonic.IRETD
            elif instruction.is_call_near:  # returns to the guest's own next instruction: push; jmp
                target = instruction.near_branch_target & 0xFFFF_FFFF
                fragment.emit(b"\x68" + struct.pack("<I", instruction.ip32 + instruction.len))
                fragment.emit(b"\xe9" + struct.pack("<i", _signed(target - (fragment.end + JUMP))))
                ended = True
            else:
                encoder = Encoder(32)
                if instruction.is_jcc_short_or_near or instruction.is_jmp_short:
                    instruction.as_near_branch()
                encoder.encode(instruction, fragment.end)
                fragment.emit(bytes(encoder.take_buffer()))
                ended = instruction.flow_control in _LAST
        back = covered[-1].ip32 + covered[-1].len
        fragment.places.append(Place(fragment.end, back, False))
        if not ended:
            boundaries[fragment.end] = back
            fragment.emit(b"\xe9" + struct.pack("<i", _signed(back - fragment.end - JUMP)))
        size = len(fragment.code)
        if at + size > FRAGMENTS:
            self.full = True
            return False
        self._area[at : at + size] = fragment.code
        self._next = at + size + 15 & ~15
        self._places += fragment.places
        self._boundaries |= boundaries
        self._returns.add(back)
        self.traps |= fragment.traps
        self._jump(page, covered, fragment.at, island)
        self.made += 1
        return True

    def _jump(self, page: CodePage, covered: list[Instruction], to: int, island: int | None) -> None:
        first, reach = covered[0].ip32, JUMP
        if island is None:
            _put(page, first, b"\xe9" + struct.pack("<i", _signed(to - first - JUMP)))
            padding = range(covered[-1].ip32 + covered[-1].len, first + JUMP)
        else:
            _put(page, island, b"\xe9" + struct.pack("<i", _signed(to - island - JUMP)))
            reach, padding = SHORT_JUMP, range(island, island + JUMP)
            _put(page, first, b"\xeb" + struct.pack("<b", island - first - SHORT_JUMP))
        for instruction in covered:
            at = instruction.ip32
            if at - first >= reach:
                break  # who comes there otherwise finds it as it was
            if at & OFFSET in page.sites:
                page.sites.discard(at & OFFSET)
                page.patched.add(at & OFFSET)
            if at != first:
                self._hide(page, at)
        for at in padding:
            self._hide(page, at)

    def _hide(self, page: CodePage, linear: int) -> None:
        """A jump lies over what is at a linear address."""
        self.interior[linear] = page
        self._cells.hidden[linear % HIDDEN_SIZE] = 1


def _put(page: CodePage, linear: int, jump: bytes) -> None:
    offset = linear & OFFSET
    page.copy[offset : offset + len(jump)] = jump
    page.jumps.update(range(offset, offset + len(jump)))


def _decoder(page: bytes, eip: int) -> Decoder:
    """Of a page's code, from an address on."""
    decoder = Decoder(32, page, ip=eip & ~OFFSET)
    decoder.position, decoder.ip = eip & OFFSET, eip
    return decoder


def _ends(instruction: Instruction) -> bool:
    """Whether a branch can be moved, if nothing comes behind it."""
    return (
        instruction.is_jmp_short_or_near
        or instruction.is_call_near
        or (instruction.mnemonic == Mnemonic.RET and instruction.op_count == 0)
    )


def _is_padding(instruction: Instruction) -> bool:
    """NOP, INT3, and LEA of a register's own value into it."""
    if instruction.mnemonic == Mnemonic.LEA:
        same = instruction.op0_register == instruction.memory_base and instruction.memory_displacement == 0
        return same and instruction.memory_index == Register.NONE and RegisterExt.size(instruction.op0_register) == 4
    return instruction.mnemonic in (Mnemonic.NOP, Mnemonic.INT3)


def _signed(value: int) -> int:
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value
