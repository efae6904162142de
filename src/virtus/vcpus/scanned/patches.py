"""Patches: a sensitive instruction that traps often becomes a jump to a fragment that works on virtual state.

A fragment holds the translated instruction, those behind it that the jump covers, and a jump back. It works on cells in
a page that the monitor and the supervisor's child share: the virtual EFLAGS, selectors, and a stack of its own, so that
nothing of the guest is touched before the one access that may fault. Whoever is stopped inside a fragment is brought to
an instruction of the guest's first: the guest never sees an EIP of ours.
"""

import struct
from typing import Final, NamedTuple

from iced_x86 import Decoder, Encoder, FlowControl, Instruction, Mnemonic, OpKind, Register

from virtus.memory.guest_memory import PAGE
from virtus.vcpus.scanned.breakpoints import INT3, CodePage, CodePages
from virtus.vcpus.scanned.cpu_state import AF, CF, DF, FLAGS_DEFINED, IF, OF, PF, SF, TF, ZF, CpuState

HOT: Final = 32
"""Traps after which a site is worth a patch; where that fails, twice as many, and so on."""
AREA: Final = 64 * PAGE
"""The page of cells, and the fragments behind it."""
JUMP: Final = 5  # E9 rel32
MOST_FRAGMENT: Final = 512
EFLAGS_AT, PENDING_AT, EAX_AT, ESP_AT, TEMPORARY_AT, SELECTORS_AT, STACK_AT = 0, 4, 8, 12, 16, 32, 0x800
NATIVE: Final = CF | PF | AF | ZF | SF | OF | DF
OTHERS: Final = FLAGS_DEFINED & ~(NATIVE | IF)
"""Virtual flags whose change is the evaluator's."""
HOST_FLAGS: Final = 0x202

_SIMPLE: Final = {Mnemonic.CLI, Mnemonic.STI, Mnemonic.PUSHFD, Mnemonic.POPFD}
_LAST: Final = {FlowControl.CONDITIONAL_BRANCH, FlowControl.UNCONDITIONAL_BRANCH, FlowControl.RETURN}


class Trap(NamedTuple):
    """A breakpoint of a fragment's own: where the guest is then, and whether its STI has just been done."""

    eip: int
    window: bool
    shadow: bool


class Place(NamedTuple):
    """The part of a fragment from `start` on: the guest's instruction, and whether EAX is in its cell."""

    start: int
    eip: int
    saved: bool


def patchable(instruction: Instruction) -> bool:
    """Whether there is a translation."""
    if instruction.mnemonic in _SIMPLE:
        return True
    if instruction.mnemonic == Mnemonic.PUSH and instruction.op0_kind == OpKind.REGISTER:
        return Register.ES <= instruction.op0_register <= Register.GS and instruction.len <= 2
    return (
        instruction.mnemonic == Mnemonic.MOV
        and instruction.op0_kind == OpKind.REGISTER
        and instruction.op1_kind == OpKind.REGISTER
        and Register.ES <= instruction.op1_register <= Register.GS
        and Register.EAX <= instruction.op0_register <= Register.EDI
    )


class Patches:
    """All fragments of a processor's supervisor code. `base` is the linear address of the cells."""

    def __init__(self, state: CpuState, codes: CodePages) -> None:
        self._state, self._codes = state, codes
        self._area = codes.code.bytes[codes.extra_at : codes.extra_at + AREA]
        self._cells = self._area[:PAGE].cast("I")
        self.base = 0
        self._next = PAGE
        self.hits: dict[int, int] = {}
        self.traps: dict[int, Trap] = {}
        self._places: list[Place] = []
        self._boundaries: dict[int, int] = {}
        self.interior: dict[int, CodePage] = {}
        """Linear addresses of guest instructions that lie under a jump of ours."""
        self.made = 0
        self.refused = 0

    @property
    def active(self) -> bool:
        """Whether there are any."""
        return self.made > 0

    def settle(self, base: int) -> None:
        """The cells are at this linear address from now on; all patches there were must be gone."""
        self.base = base
        self.forget()

    def forget(self) -> None:
        """No fragment is used any longer."""
        self._next = PAGE
        self.made = 0
        self.traps.clear()
        self._places.clear()
        self._boundaries.clear()
        self.interior.clear()
        self.hits.clear()

    def close(self) -> None:
        """Let go of the views."""
        self._cells.release()
        self._area.release()

    # around direct execution

    def enter(self, pending: bool) -> None:
        """Before the guest runs: its virtual state goes into the cells."""
        cells, state = self._cells, self._state
        cells[EFLAGS_AT >> 2] = state.eflags & (OTHERS | IF)
        cells[PENDING_AT >> 2] = pending
        for number, segment in enumerate(state.segments):
            cells[(SELECTORS_AT >> 2) + number] = segment.selector

    def leave(self) -> None:
        """After it ran."""
        state = self._state
        state.eflags = state.eflags & ~(OTHERS | IF) | self._cells[EFLAGS_AT >> 2] & (OTHERS | IF)

    def inside(self, eip: int) -> bool:
        """Whether this is in a fragment."""
        return self.made > 0 and self.base + PAGE <= eip < self.base + self._next

    def boundary(self, eip: int) -> int | None:
        """The guest's EIP where an address in a fragment is between two of its instructions."""
        return self._boundaries.get(eip)

    def hide_trap_flag(self) -> None:
        """A fragment is single-stepped: the flags it has saved must not bring TF back."""
        self._cells[STACK_AT - 4 >> 2] &= ~TF

    def roll_back(self, eip: int) -> int:
        """The guest's EIP for a fault inside a fragment; its registers are as they were before that instruction."""
        found = max((place for place in self._places if place.start <= eip), key=lambda place: place.start)
        if found.saved:
            self._state.registers[0] = self._cells[EAX_AT >> 2]
        return found.eip

    # making

    def hot(self, eip: int) -> bool:
        """Count a trap; whether the site should be patched now."""
        count = self.hits.get(eip, 0) + 1
        self.hits[eip] = count
        return count >= HOT and count & count - 1 == 0

    def make(self, page: CodePage, eip: int, code: bytes, targets: set[int]) -> bool:
        """Patch the site at `eip` in a page, whose bytes from there on are `code`; False where it cannot be."""
        if self._next + MOST_FRAGMENT > AREA:
            self.refused += 1
            return False
        covered = self._cover(page, eip, code, targets)
        if not covered:
            self.refused += 1
            return False
        start = self.base + self._next
        fragment = bytearray()
        ended = False
        for instruction in covered:
            at = start + len(fragment)
            offset = instruction.ip & PAGE - 1
            sensitive = offset in page.sites or offset in page.patched
            self._places.append(Place(at, instruction.ip32, False))
            self._boundaries[at] = instruction.ip32
            if sensitive:
                fragment += self._translated(instruction, at)
            elif instruction.is_call_near:  # returns to the guest's own next instruction: push; jmp
                back = instruction.ip32 + instruction.len
                target = instruction.near_branch_target & 0xFFFF_FFFF
                fragment += b"\x68" + struct.pack("<I", back)
                fragment += b"\xe9" + struct.pack("<i", _signed(target - (at + 2 * JUMP)))
                ended = True
            else:
                encoder = Encoder(32)
                if instruction.flow_control in _LAST and instruction.is_jcc_short_or_near | instruction.is_jmp_short:
                    instruction.as_near_branch()
                encoder.encode(instruction, at)
                fragment += encoder.take_buffer()
                ended = instruction.flow_control in (FlowControl.UNCONDITIONAL_BRANCH, FlowControl.RETURN)
        back = covered[-1].ip32 + covered[-1].len
        at = start + len(fragment)
        self._places.append(Place(at, back, False))
        if not ended:
            self._boundaries[at] = back
            fragment += b"\xe9" + struct.pack("<i", _signed(back - at - JUMP))
        self._area[self._next : self._next + len(fragment)] = fragment
        self._next += len(fragment) + 15 & ~15
        offset = eip & PAGE - 1
        page.copy[offset : offset + JUMP] = b"\xe9" + struct.pack("<i", _signed(start - eip - JUMP))
        for instruction in covered:
            if instruction.ip & PAGE - 1 in page.sites:
                page.sites.discard(instruction.ip & PAGE - 1)
                page.patched.add(instruction.ip & PAGE - 1)
            if instruction.ip32 != eip:
                self.interior[instruction.ip32] = page
        self.made += 1
        self.hits[eip] = 0
        return True

    def _cover(self, page: CodePage, eip: int, code: bytes, targets: set[int]) -> list[Instruction]:
        """The instructions under the jump; empty where one of them is a target, or cannot be moved."""
        found: list[Instruction] = []
        length = 0
        decoder = Decoder(32, code, ip=eip)
        while length < JUMP or eip + length in self.interior:
            instruction = decoder.decode()
            at = instruction.ip32
            if (
                instruction.is_invalid
                or not page.scanned(at & PAGE - 1)
                or (found and at in targets)
                or at & PAGE - 1 in page.numeric
            ):
                return []
            if (at & PAGE - 1) + instruction.len > PAGE or (page.tail is not None and page.tail_at == at & PAGE - 1):
                return []
            length += instruction.len
            found.append(instruction)
            if at & PAGE - 1 in page.sites or at & PAGE - 1 in page.patched:
                if not patchable(instruction):
                    return []
            elif instruction.flow_control != FlowControl.NEXT:
                movable = (
                    instruction.is_jcc_short_or_near
                    or instruction.is_jmp_short_or_near
                    or instruction.is_call_near
                    or (instruction.mnemonic == Mnemonic.RET and instruction.op_count == 0)
                )
                if length < JUMP or not movable or eip + length in self.interior:
                    return []
        return found

    def _translated(self, instruction: Instruction, at: int) -> bytes:
        mnemonic = instruction.mnemonic
        following = instruction.ip32 + instruction.len
        if mnemonic == Mnemonic.CLI:
            return self._cli()
        if mnemonic == Mnemonic.STI:
            return self._sti(at, following)
        if mnemonic == Mnemonic.PUSHFD:
            return self._pushf(at, instruction.ip32)
        if mnemonic == Mnemonic.POPFD:
            return self._popf(at, instruction.ip32, following)
        if mnemonic == Mnemonic.PUSH:
            slot = SELECTORS_AT + 4 * (instruction.op0_register - Register.ES)
            return b"\xff\x35" + self._cell(slot)  # push dword [slot]
        number = instruction.op0_register - Register.EAX
        slot = SELECTORS_AT + 4 * (instruction.op1_register - Register.ES)
        return b"\x8b" + bytes([5 | number << 3]) + self._cell(slot)  # mov r32, [slot]

    def _cell(self, offset: int) -> bytes:
        return struct.pack("<I", self.base + offset)

    def _own_stack(self) -> bytes:
        """Switch to the monitor's stack, and save the flags there."""
        return b"\x89\x25" + self._cell(ESP_AT) + b"\xbc" + self._cell(STACK_AT) + b"\x9c"

    def _guest_stack(self) -> bytes:
        return b"\x9d\x8b\x25" + self._cell(ESP_AT)  # popf; mov esp, [ESP]

    def _cli(self) -> bytes:
        clear = b"\x80\x25" + self._cell(EFLAGS_AT + 1) + bytes([~(IF >> 8) & 0xFF])  # and byte [EFLAGS + 1], ~2
        return self._own_stack() + clear + self._guest_stack()

    def _sti(self, at: int, following: int) -> bytes:
        code = self._own_stack()
        code += b"\x80\x0d" + self._cell(EFLAGS_AT + 1) + bytes([IF >> 8])  # or byte [EFLAGS + 1], 2
        return code + self._window(at + len(code), following, shadow=True, after=b"")

    def _window(self, at: int, following: int, *, shadow: bool, after: bytes) -> bytes:
        """If an interrupt pends, come out behind the instruction; the flags are on the monitor's stack."""
        leave = self._guest_stack() + after
        code = b"\x80\x3d" + self._cell(PENDING_AT) + b"\0"  # cmp byte [PENDING], 0
        code += b"\x75" + bytes([len(leave) + 2])  # jne
        code += leave + b"\xeb" + bytes([len(leave) + 1]) + leave
        self.traps[at + len(code)] = Trap(following, True, shadow)
        return code + bytes([INT3])

    def _pushf(self, at: int, eip: int) -> bytes:
        code = b"\xa3" + self._cell(EAX_AT) + self._own_stack()
        code += b"\x8b\x04\x24\x25" + struct.pack("<I", NATIVE | 2)  # mov eax, [esp]; and eax, NATIVE
        code += b"\x0b\x05" + self._cell(EFLAGS_AT) + self._guest_stack()  # or eax, [EFLAGS]
        self._places.append(Place(at + len(code), eip, True))
        return code + b"\x50\xa1" + self._cell(EAX_AT)  # push eax; mov eax, [EAX]

    def _popf(self, at: int, eip: int, following: int) -> bytes:
        code = b"\xa3" + self._cell(EAX_AT)
        code += b"\x8b\x04\x24"  # mov eax, [esp]: the access that may fault
        code += self._own_stack() + b"\xa3" + self._cell(TEMPORARY_AT)
        code += b"\x33\x05" + self._cell(EFLAGS_AT) + b"\xa9" + struct.pack("<I", OTHERS)  # xor, test
        slow = self._guest_stack() + b"\xa1" + self._cell(EAX_AT)
        code += b"\x74" + bytes([len(slow) + 1]) + slow
        self.traps[at + len(code)] = Trap(eip, False, False)
        code += bytes([INT3])
        code += b"\xa1" + self._cell(TEMPORARY_AT) + b"\x25" + struct.pack("<I", OTHERS | IF)
        code += b"\xa3" + self._cell(EFLAGS_AT)
        code += b"\xa1" + self._cell(TEMPORARY_AT) + b"\x25" + struct.pack("<I", NATIVE)
        code += b"\x0d" + struct.pack("<I", HOST_FLAGS) + b"\x89\x04\x24"  # or eax, HOST_FLAGS; mov [esp], eax
        after = b"\x8d\x64\x24\x04\xa1" + self._cell(EAX_AT)  # lea esp, [esp + 4]; mov eax, [EAX]
        return code + self._window(at + len(code), following, shadow=False, after=after)


def _signed(value: int) -> int:
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value
