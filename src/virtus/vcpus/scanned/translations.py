"""What sensitive instructions become in patches: code that works on the cells (`cells.py`) instead of the processor.

A translation touches nothing of the guest before the accesses that may fault, and then either does all of the
instruction or, where its easy case is not given, restores everything and stops for the evaluator. It keeps every flag
that the instruction keeps.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from iced_x86 import Encoder, Instruction, Mnemonic, OpKind, Register

from virtus.memory.guest_memory import FRAME_SHIFT
from virtus.vcpus.scanned import known_segments, port_shortcuts
from virtus.vcpus.scanned.breakpoints import INT3
from virtus.vcpus.scanned.cells import (
    CR0_AT,
    CR2_AT,
    CR3_AT,
    CR4_AT,
    DONE_AT,
    EAX_AT,
    EFLAGS_AT,
    ESP_AT,
    FIRST_AT,
    FLUSHABLE_AT,
    FOURTH_AT,
    HIDDEN_AT,
    HIGH_AT,
    INVALIDATED,
    LOW_AT,
    MAPPED,
    NATIVE,
    OTHERS,
    PENDING_AT,
    PORTS_AT,
    PRESENT_AT,
    RECORDS_AT,
    ROOT_LOADED,
    SECOND_AT,
    SEGMENT_LOADED,
    SELECTORS_AT,
    STACK_AT,
    TABLES_AT,
    TARGET_AT,
    THIRD_AT,
    Cells,
)
from virtus.vcpus.scanned.cpu_state import CS, IF, NT, RF

HOST_FLAGS: Final = 0x202
INVLPG: Final = b"\x0f\x01"
MOV_TO_SEGMENT: Final = 0x8E
JE, JNE, JAE = b"\x0f\x84", b"\x0f\x85", b"\x0f\x83"
CONTROLS: Final = {Register.CR0: CR0_AT, Register.CR2: CR2_AT, Register.CR3: CR3_AT, Register.CR4: CR4_AT}
_LOADED: Final = {Register.DS, Register.ES}
_KNOWN: Final = {Register.FS, Register.GS}
_GENERAL: Final = {Register.EAX + number for number in range(8)} - {Register.ESP}
_WORDS: Final = {Register.AX + number for number in range(8)} - {Register.SP}


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


class Fragment:
    """A translation in the making: its code, and what must be known of places in it."""

    def __init__(self, at: int, cells: Cells) -> None:
        """It will be at a linear address."""
        self.at, self.cells = at, cells
        self.code = bytearray()
        self.traps: dict[int, Trap] = {}
        self.places: list[Place] = []
        self._hard: list[int] = []

    @property
    def end(self) -> int:
        """The linear address behind what there is."""
        return self.at + len(self.code)

    def emit(self, *parts: bytes | int) -> None:
        """Bytes, and cells by their offsets."""
        for part in parts:
            self.code += self.cells.address(part) if isinstance(part, int) else part

    def save_eax(self, eip: int) -> None:
        """EAX goes to its cell; what faults from here on belongs to the guest's instruction at `eip`."""
        self.emit(b"\xa3", EAX_AT)  # mov [EAX], eax
        self.places.append(Place(self.end, eip, True))

    def restore_eax(self) -> None:
        """And comes back."""
        self.emit(b"\xa1", EAX_AT)

    def own_stack(self) -> None:
        """Switch to the monitor's stack, and save the flags there."""
        self.emit(b"\x89\x25", ESP_AT, b"\xbc", STACK_AT, b"\x9c")  # mov [ESP], esp; mov esp, STACK; pushf

    def guest_stack(self) -> None:
        """The flags that are on the monitor's stack, and the guest's."""
        self.emit(b"\x9d\x8b\x25", ESP_AT)  # popf; mov esp, [ESP]

    def hard_if(self, jump: bytes) -> None:
        """The hard case, by a conditional jump after a comparison."""
        self.emit(jump, bytes(4))
        self._hard.append(len(self.code))

    def hard_unless_equal(self) -> None:
        """The hard case, if the last comparison did not find equal values, or the last operation not 0."""
        self.hard_if(JNE)

    def hard_case(self, trap: Trap) -> None:
        """What all jumps to the hard case lead to; who does not jump goes on behind. On the monitor's stack."""
        case = Fragment(0, self.cells)
        case.guest_stack()
        case.restore_eax()
        case.emit(bytes([INT3]))
        self.emit(b"\xeb", bytes([len(case.code)]))  # jmp over it
        for behind in self._hard:
            self.code[behind - 4 : behind] = struct.pack("<i", len(self.code) - behind)
        self._hard.clear()
        self.emit(bytes(case.code))
        self.traps[self.end - 1] = trap


def _cli(into: Fragment, instruction: Instruction) -> None:
    into.own_stack()
    into.emit(b"\x80\x25", EFLAGS_AT + 1, bytes([~(IF >> 8) & 0xFF]))  # and byte [EFLAGS + 1], ~2
    into.guest_stack()


def _window(into: Fragment, following: int, *, shadow: bool, after: bytes) -> None:
    """If an interrupt pends, come out behind the instruction."""
    into.emit(b"\x80\x3d", PENDING_AT, b"\0")  # cmp byte [PENDING], 0
    leave = Fragment(0, into.cells)
    leave.guest_stack()
    leave.emit(after)
    length = len(leave.code)
    into.emit(b"\x75", bytes([length + 2]), bytes(leave.code), b"\xeb", bytes([length + 1]), bytes(leave.code))
    into.traps[into.end] = Trap(following, True, shadow)
    into.emit(bytes([INT3]))


def _sti(into: Fragment, instruction: Instruction) -> None:
    into.own_stack()
    into.emit(b"\x80\x0d", EFLAGS_AT + 1, bytes([IF >> 8]))  # or byte [EFLAGS + 1], 2
    _window(into, instruction.ip32 + instruction.len, shadow=True, after=b"")


def _pushf(into: Fragment, instruction: Instruction) -> None:
    into.emit(b"\xa3", EAX_AT)
    into.own_stack()
    into.emit(b"\x8b\x04\x24\x25", struct.pack("<I", NATIVE | 2))  # mov eax, [esp]; and eax, NATIVE
    into.emit(b"\x0b\x05", EFLAGS_AT)  # or eax, [EFLAGS]
    into.emit(b"\x25", struct.pack("<I", ~RF & 0xFFFF_FFFF))  # and eax, ~RF
    into.guest_stack()
    into.places.append(Place(into.end, instruction.ip32, True))
    into.emit(b"\x50")  # push eax
    into.restore_eax()


def _popf(into: Fragment, instruction: Instruction) -> None:
    into.emit(b"\xa3", EAX_AT)
    into.emit(b"\x8b\x04\x24")  # mov eax, [esp]: the access that may fault
    into.own_stack()
    into.emit(b"\xa3", FIRST_AT)
    into.emit(b"\x33\x05", EFLAGS_AT, b"\xa9", struct.pack("<I", OTHERS))  # xor eax, [EFLAGS]; test eax, OTHERS
    into.hard_unless_equal()
    into.hard_case(Trap(instruction.ip32, False, False))
    _take_flags(into, OTHERS | IF)
    after = Fragment(0, into.cells)
    after.emit(b"\x8d\x64\x24\x04")  # lea esp, [esp + 4]
    after.restore_eax()
    _window(into, instruction.ip32 + instruction.len, shadow=False, after=bytes(after.code))


def _take_flags(into: Fragment, virtual: int) -> None:
    """The flags in the first cell: the virtual ones now, the processor's own when the monitor's stack is left."""
    into.emit(b"\xa1", FIRST_AT, b"\x25", struct.pack("<I", virtual), b"\xa3", EFLAGS_AT)
    into.emit(b"\xa1", FIRST_AT, b"\x25", struct.pack("<I", NATIVE))
    into.emit(b"\x0d", struct.pack("<I", HOST_FLAGS), b"\x89\x04\x24")  # or eax, HOST_FLAGS; mov [esp], eax


def _read_descriptor(into: Fragment, number: int) -> None:
    """The descriptor that a segment was loaded from, into the second and third cell."""
    for offset, cell in ((4, THIRD_AT), (0, SECOND_AT)):
        into.emit(b"\xa1", TABLES_AT + 4 * number, b"\x8b\x40", bytes([offset]), b"\xa3", cell)


def _demand_descriptor(into: Fragment, number: int) -> None:
    """The hard case if it has changed since: then loading the segment again is not nothing."""
    for cell, expected in ((SECOND_AT, LOW_AT), (THIRD_AT, HIGH_AT)):
        into.emit(b"\xa1", cell, b"\x3b\x05", expected + 4 * number)  # mov eax, [cell]; cmp eax, [expected]
        into.hard_unless_equal()


def _record(into: Fragment, field: int) -> None:
    """A field of the record of the selector in the first cell, into EAX."""
    into.emit(b"\x0f\xb6\x05", FIRST_AT, b"\x8d\x04\xc5", bytes(4))  # movzx eax, byte [first]; lea eax, [eax * 8]
    into.emit(b"\x8b\x04\x85", RECORDS_AT + field)  # mov eax, [RECORDS + field + eax * 4]


def _change_segment(into: Fragment, number: int, eip: int) -> None:
    """FS or GS becomes what the selector in EAX says, where that is known. EAX is in its cell; so it is afterwards."""
    into.emit(b"\xa3", FIRST_AT)
    for offset, cell in ((4, THIRD_AT), (0, SECOND_AT)):
        _record(into, known_segments.POINTER_AT)
        into.emit(b"\x8b\x40", bytes([offset]), b"\xa3", cell)  # mov eax, [eax + offset]; mov [cell], eax
    into.own_stack()
    fields = (
        (known_segments.SELECTOR_AT, FIRST_AT, SELECTORS_AT),
        (known_segments.LOW_AT, SECOND_AT, LOW_AT),
        (known_segments.HIGH_AT, THIRD_AT, HIGH_AT),
    )
    for field, cell, _ in fields:
        _record(into, field)
        into.emit(b"\x3b\x05", cell)  # cmp eax, [cell]
        into.hard_unless_equal()
    into.hard_case(Trap(eip, False, False))
    _record(into, known_segments.HOST_AT)
    into.emit(b"\x8e", bytes([0xC0 | number << 3]))  # mov fs, ax
    _record(into, known_segments.POINTER_AT)
    into.emit(b"\xa3", TABLES_AT + 4 * number)
    for _, cell, kept in fields:
        into.emit(b"\xa1", cell, b"\xa3", kept + 4 * number)  # mov eax, [cell]; mov [kept], eax
    into.emit(b"\x80\x0d", DONE_AT, bytes([SEGMENT_LOADED[number]]))  # or byte [DONE], LOADED
    into.guest_stack()


def _load_known_segment(into: Fragment, instruction: Instruction) -> None:
    """MOV to FS or GS, from a register or memory."""
    into.save_eax(instruction.ip32)
    raw = _encoded(instruction)  # 8E /r
    into.emit(b"\x0f\xb7", bytes([raw[1] & ~0x38]), raw[2:])  # movzx eax, r/m16
    _change_segment(into, instruction.op0_register - Register.ES, instruction.ip32)
    into.restore_eax()


def _pop_known_segment(into: Fragment, instruction: Instruction) -> None:
    """POP of FS or GS."""
    into.save_eax(instruction.ip32)
    into.emit(b"\x8b\x04\x24\x0f\xb7\xc0")  # mov eax, [esp]; movzx eax, ax
    _change_segment(into, instruction.op0_register - Register.ES, instruction.ip32)
    into.emit(b"\x8d\x64\x24\x04")  # lea esp, [esp + 4]
    into.restore_eax()


def _load_segment(into: Fragment, instruction: Instruction) -> None:
    """MOV to DS or ES: easy where it loads what is loaded."""
    number, source = instruction.op0_register - Register.ES, int(instruction.op1_register)
    source -= Register.EAX if source >= Register.EAX else Register.AX
    into.save_eax(instruction.ip32)
    _read_descriptor(into, number)
    into.own_stack()
    _demand_descriptor(into, number)
    into.restore_eax()
    into.emit(b"\x66\x3b", bytes([5 | source << 3]), SELECTORS_AT + 4 * number)  # cmp r16, [selector]
    into.hard_unless_equal()
    into.hard_case(Trap(instruction.ip32, False, False))
    into.guest_stack()


def _pop_segment(into: Fragment, instruction: Instruction) -> None:
    """POP of the same."""
    number = instruction.op0_register - Register.ES
    into.save_eax(instruction.ip32)
    into.emit(b"\x8b\x04\x24\xa3", FIRST_AT)  # mov eax, [esp]; mov [first], eax
    _read_descriptor(into, number)
    into.own_stack()
    _demand_descriptor(into, number)
    into.emit(b"\xa1", FIRST_AT, b"\x66\x3b\x05", SELECTORS_AT + 4 * number)  # cmp ax, [selector]
    into.hard_unless_equal()
    into.hard_case(Trap(instruction.ip32, False, False))
    into.guest_stack()
    into.emit(b"\x8d\x64\x24\x04")  # lea esp, [esp + 4]
    into.restore_eax()


def _iret(into: Fragment, instruction: Instruction) -> None:
    """IRET to the same code segment, to where no instruction lies under a jump."""
    into.save_eax(instruction.ip32)
    for offset, cell in ((8, FIRST_AT), (4, FOURTH_AT), (0, TARGET_AT)):
        into.emit(b"\x8b\x44\x24", bytes([offset]), b"\xa3", cell)  # mov eax, [esp + offset]; mov [cell], eax
    _read_descriptor(into, CS)
    into.own_stack()
    _demand_descriptor(into, CS)
    into.emit(b"\xa1", FOURTH_AT, b"\x66\x3b\x05", SELECTORS_AT + 4 * CS)  # cmp ax, [CS]
    into.hard_unless_equal()
    into.emit(b"\xa1", FIRST_AT, b"\x33\x05", EFLAGS_AT, b"\xa9", struct.pack("<I", OTHERS & ~RF))
    into.hard_unless_equal()
    into.emit(b"\xf6\x05", EFLAGS_AT + 1, bytes([NT >> 8]))  # test byte [EFLAGS + 1], NT
    into.hard_unless_equal()
    into.emit(b"\x0f\xb7\x05", TARGET_AT)  # movzx eax, word [target]
    into.emit(b"\x80\xb8", HIDDEN_AT, b"\0")  # cmp byte [HIDDEN + eax], 0
    into.hard_unless_equal()
    into.emit(b"\xa1", FIRST_AT, b"\xc1\xe8\x09\x83\xe0\x01")  # shr eax, 9; and eax, 1
    into.emit(b"\x22\x05", PENDING_AT)  # and al, [PENDING]
    into.hard_unless_equal()
    into.hard_case(Trap(instruction.ip32, False, False))
    _take_flags(into, (OTHERS & ~RF) | IF)
    into.guest_stack()
    into.restore_eax()
    into.emit(b"\x8d\x64\x24\x0c\xff\x25", TARGET_AT)  # lea esp, [esp + 12]; jmp [target]


def _encoded(instruction: Instruction) -> bytes:
    encoder = Encoder(32)
    encoder.encode(instruction, instruction.ip)
    return encoder.take_buffer()


def _invlpg(into: Fragment, instruction: Instruction) -> None:
    """INVLPG of a page that no child has mapped; what the monitor remembers it forgets before it uses it."""
    raw = _encoded(instruction)  # 0F 01 /7
    into.save_eax(instruction.ip32)
    into.emit(b"\x8d", bytes([raw[2] & ~0x38]), raw[3:])  # lea eax, [...]
    into.own_stack()
    into.emit(
        b"\xc1\xe8", bytes([FRAME_SHIFT]), b"\x80\xb8", PRESENT_AT, bytes([MAPPED])
    )  # cmp byte [PRESENT + eax], MAPPED
    into.hard_if(JAE)
    into.hard_case(Trap(instruction.ip32, False, False))
    into.emit(b"\x80\x0d", DONE_AT, bytes([INVALIDATED]))  # or byte [DONE], INVALIDATED
    into.restore_eax()
    into.guest_stack()


def _load_root(into: Fragment, instruction: Instruction) -> None:
    """MOV to CR3 while the supervisor's child has nothing but global pages: users' are looked at when they run next."""
    into.save_eax(instruction.ip32)
    into.emit(b"\x8b", bytes([0xC0 | instruction.op1_register - Register.EAX]), b"\xa3", FIRST_AT)  # mov eax, r32
    into.own_stack()
    into.emit(b"\x80\x3d", FLUSHABLE_AT, b"\0")  # cmp byte [FLUSHABLE], 0
    into.hard_unless_equal()
    into.hard_case(Trap(instruction.ip32, False, False))
    into.emit(b"\xa1", FIRST_AT, b"\xa3", CR3_AT)
    into.emit(b"\x80\x0d", DONE_AT, bytes([ROOT_LOADED]))  # or byte [DONE], ROOT_LOADED
    into.guest_stack()
    into.restore_eax()


def _port(into: Fragment, instruction: Instruction, number: int, flag: int) -> None:
    """The port's number in EAX; the hard case unless it has a shortcut. Goes to the monitor's stack."""
    into.emit(b"\xa3", EAX_AT)
    into.own_stack()
    if instruction.op_kind(number) == OpKind.IMMEDIATE8:
        into.emit(b"\xb8", struct.pack("<I", instruction.immediate8))  # mov eax, port
    else:
        into.emit(b"\x0f\xb7\xc2")  # movzx eax, dx
    into.emit(b"\xf6\x80", PORTS_AT + port_shortcuts.FLAGS_AT, bytes([flag]))  # test byte [FLAGS + eax], flag
    into.hard_if(JE)


def _in(into: Fragment, instruction: Instruction) -> None:
    """IN of a byte that is known."""
    _port(into, instruction, 1, port_shortcuts.KNOWN)
    into.hard_case(Trap(instruction.ip32, False, False))
    into.emit(b"\x8a\x80", PORTS_AT + port_shortcuts.VALUES_AT)  # mov al, [VALUES + eax]
    into.emit(b"\xa2", EAX_AT)  # mov [EAX], al
    into.guest_stack()
    into.restore_eax()


def _out(into: Fragment, instruction: Instruction) -> None:
    """OUT of a byte that is posted."""
    count = PORTS_AT + port_shortcuts.COUNT_AT
    _port(into, instruction, 0, port_shortcuts.POSTED)
    into.emit(b"\x81\x3d", count, struct.pack("<I", port_shortcuts.MOST))  # cmp dword [COUNT], MOST
    into.hard_if(JAE)
    into.hard_case(Trap(instruction.ip32, False, False))
    into.emit(b"\x51\x8a\x0d", EAX_AT)  # push ecx; mov cl, [EAX]: what is written is what a known port reads
    into.emit(b"\x88\x88", PORTS_AT + port_shortcuts.VALUES_AT, b"\x59")  # mov [VALUES + eax], cl; pop ecx
    into.emit(b"\xc1\xe0\x08\x8a\x05", EAX_AT)  # shl eax, 8; mov al, [EAX]
    into.emit(b"\x51\x8b\x0d", count)  # push ecx; mov ecx, [COUNT]
    into.emit(b"\x89\x04\x8d", PORTS_AT + port_shortcuts.QUEUE_AT)  # mov [QUEUE + 4 * ecx], eax
    into.emit(b"\xff\x05", count, b"\x59")  # inc dword [COUNT]; pop ecx
    into.guest_stack()
    into.restore_eax()


def _push_segment(into: Fragment, instruction: Instruction) -> None:
    into.emit(b"\xff\x35", SELECTORS_AT + 4 * (instruction.op0_register - Register.ES))  # push dword [selector]


def _store(into: Fragment, instruction: Instruction) -> None:
    """MOV of a selector or a control register to a general one."""
    source, number = instruction.op1_register, instruction.op0_register - Register.EAX
    cell = CONTROLS.get(source)
    cell = SELECTORS_AT + 4 * (source - Register.ES) if cell is None else cell
    into.emit(b"\x8b", bytes([5 | number << 3]), cell)  # mov r32, [cell]


def _is_plain_load(instruction: Instruction) -> bool:
    """Whether a MOV to a segment register has no prefix, and a source that is one when the flags are in place."""
    if instruction.op1_kind == OpKind.REGISTER:
        return instruction.op1_register in _GENERAL | _WORDS and _encoded(instruction)[0] == MOV_TO_SEGMENT
    return instruction.op1_kind == OpKind.MEMORY and _encoded(instruction)[0] == MOV_TO_SEGMENT


Translate = Callable[[Fragment, Instruction], None]
_BY_NAME: Final[dict[int, Translate]] = {
    Mnemonic.CLI: _cli, Mnemonic.STI: _sti, Mnemonic.PUSHFD: _pushf, Mnemonic.POPFD: _popf, Mnemonic.IRETD: _iret,
}  # fmt: skip


def translation(instruction: Instruction) -> Translate | None:
    """How an instruction is translated; None where it is not."""
    mnemonic = instruction.mnemonic
    if mnemonic == Mnemonic.INVLPG:
        return _invlpg if instruction.len <= 7 and _encoded(instruction)[:2] == INVLPG else None  # no prefixes
    first = instruction.op0_register if instruction.op_count and instruction.op0_kind == OpKind.REGISTER else 0
    if mnemonic == Mnemonic.PUSH and Register.ES <= first <= Register.GS:
        return _push_segment if instruction.len <= 2 and instruction.stack_pointer_increment == -4 else None
    if mnemonic == Mnemonic.POP and first in _LOADED | _KNOWN:
        pop = _pop_segment if first in _LOADED else _pop_known_segment
        return pop if instruction.stack_pointer_increment == 4 else None
    if mnemonic == Mnemonic.MOV and first in _KNOWN:
        return _load_known_segment if _is_plain_load(instruction) else None
    if mnemonic == Mnemonic.MOV and instruction.op1_kind == OpKind.REGISTER:
        source = instruction.op1_register
        if first in _LOADED:
            return _load_segment if source in _GENERAL | _WORDS else None
        if first == Register.CR3:
            return _load_root if source in _GENERAL else None
        if Register.EAX <= first <= Register.EDI and (Register.ES <= source <= Register.GS or source in CONTROLS):
            return _store
    if mnemonic in (Mnemonic.IN, Mnemonic.OUT):
        byte = instruction.op_register(0 if mnemonic == Mnemonic.IN else 1) == Register.AL
        return (_in if mnemonic == Mnemonic.IN else _out) if byte else None
    return _BY_NAME.get(mnemonic)
