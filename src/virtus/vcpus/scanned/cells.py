"""What the monitor and the supervisor's child share: cells of virtual state, and two tables that fragments look into.

One page of cells: the virtual EFLAGS, control registers and selectors, places for what a fragment sets aside, and a
stack of its own. Behind it a byte for every linear page, set where anything is remembered of its translation; and a
byte for every hash of a linear address, set where an instruction may lie under a jump of ours; and what is known of
ports (`port_shortcuts.py`) and of segments (`known_segments.py`).
"""

import struct
from typing import Final

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.vcpus.scanned import known_segments, port_shortcuts
from virtus.vcpus.scanned.cpu_state import (
    AF,
    CF,
    DF,
    FLAGS_DEFINED,
    FS,
    GS,
    IF,
    MASK32,
    OF,
    PF,
    SF,
    TF,
    ZF,
    CpuState,
)
from virtus.vcpus.scanned.known_segments import descriptor_of

EFLAGS_AT, PENDING_AT, CR0_AT, CR2_AT, CR3_AT, CR4_AT = 0, 4, 8, 12, 16, 20
SELECTORS_AT, TABLES_AT, LOW_AT, HIGH_AT = 32, 64, 96, 128
"""By segment: its selector, where its descriptor is, and what that must be for the segment to be as it is loaded."""
EAX_AT, ESP_AT, FIRST_AT, SECOND_AT, THIRD_AT, FOURTH_AT, TARGET_AT = 160, 164, 168, 172, 176, 180, 184
"""What a fragment sets aside."""
NULL_AT, NEVER_AT = 192, 200
"""A null descriptor; and one that no segment has."""
DONE_AT, FLUSHABLE_AT = 208, 212
"""What fragments have done that the monitor must know of (INVALIDATED, ROOT_LOADED, SEGMENT_LOADED); whether the
supervisor's child has pages that a load of CR3 concerns."""
INVALIDATED, ROOT_LOADED = 1, 2
SEGMENT_LOADED: Final = {FS: 4, GS: 8}
USER_DESC_AT: Final = 224
"""Where the child reads what one of its segments is to be."""
TRANSLATED, MAPPED = 1, 2
"""What is remembered of a linear page's translation: by the monitor alone, or by a child as well."""
STACK_AT: Final = 0x800
PRESENT_AT, PRESENT_SIZE = PAGE, 1 << 32 - FRAME_SHIFT
HIDDEN_AT, HIDDEN_SIZE = PRESENT_AT + PRESENT_SIZE, 1 << 16
PORTS_AT: Final = HIDDEN_AT + HIDDEN_SIZE
RECORDS_AT: Final = PORTS_AT + port_shortcuts.SIZE
SHARED: Final = RECORDS_AT + known_segments.SIZE
"""Bytes of all of it."""
LARGE_PAGES: Final = 1024
NATIVE: Final = CF | PF | AF | ZF | SF | OF | DF
OTHERS: Final = FLAGS_DEFINED & ~(NATIVE | IF)
"""Virtual flags whose change is the evaluator's."""
GLOBAL_TABLE_ONLY: Final = 4  # the TI bit of a selector

_SIX: Final = struct.Struct("<6I")


class Cells:
    """All of it, over the memory that the child sees at `base`."""

    def __init__(self, state: CpuState, area: memoryview) -> None:
        """`area` is `SHARED` bytes."""
        self._state = state
        self.area = area
        self._words = area[:PAGE].cast("I")
        self._words[NEVER_AT >> 2] = 1
        self.present = area[PRESENT_AT : PRESENT_AT + PRESENT_SIZE]
        """By linear page: what is remembered of its translation: nothing, TRANSLATED or MAPPED."""
        self.hidden = area[HIDDEN_AT : HIDDEN_AT + HIDDEN_SIZE]
        """By the lower bits of linear addresses: whether an instruction under a jump may be there."""
        self.ports = port_shortcuts.PortShortcuts(area[PORTS_AT:RECORDS_AT])
        self.known = known_segments.KnownSegments(area[RECORDS_AT:SHARED])
        self.base = 0
        self._loads: list[int] = []

    def close(self) -> None:
        """Let go of the views."""
        self.ports.close()
        self.known.close()
        for view in (self._words, self.present, self.hidden, self.area):
            view.release()

    def address(self, offset: int) -> bytes:
        """A cell's linear address, as instructions have it."""
        return struct.pack("<I", self.base + offset)

    def put(self, offset: int, what: bytes) -> None:
        """Bytes for the child to read."""
        self.area[offset : offset + len(what)] = what

    def enter(self, pending: bool, flushable: bool) -> None:
        """Before the guest runs: its virtual state."""
        state = self._state
        self.area[FLUSHABLE_AT] = flushable
        _SIX.pack_into(self.area, 0, state.eflags & (OTHERS | IF), pending, state.cr0, state.cr2, state.cr3, state.cr4)
        loads = [segment.loads for segment in state.segments]
        loads += (state.gdtr.base, state.gdtr.limit)
        if loads != self._loads:
            self._loads = loads
            self._enter_segments()
            for number in SEGMENT_LOADED:
                self.known.learn(state.segments[number], state.gdtr)

    def _enter_segments(self) -> None:
        tables, lows, highs = [], [], []
        table = self._state.gdtr
        for segment in self._state.segments:
            selector = segment.selector
            at, low, high = self.base + NEVER_AT, 0, 0
            if not selector & ~3:
                at = self.base + (NEVER_AT if segment.attributes else NULL_AT)
            elif not selector & GLOBAL_TABLE_ONLY and selector | 7 <= table.limit:
                at, (low, high) = table.base + (selector & ~7) & MASK32, descriptor_of(segment)
            tables.append(at)
            lows.append(low)
            highs.append(high)
        selectors = [segment.selector for segment in self._state.segments]
        for offset, values in ((SELECTORS_AT, selectors), (TABLES_AT, tables), (LOW_AT, lows), (HIGH_AT, highs)):
            _SIX.pack_into(self.area, offset, *values)

    def leave(self) -> int:
        """After it ran: what fragments have done to translations since."""
        state = self._state
        state.eflags = state.eflags & ~(OTHERS | IF) | self._words[EFLAGS_AT >> 2] & (OTHERS | IF)
        done = self.area[DONE_AT]
        if done:
            self.area[DONE_AT] = 0
            if done & ROOT_LOADED:
                state.cr3 = self._words[CR3_AT >> 2]
            for number, bit in SEGMENT_LOADED.items():
                if done & bit:
                    self.known.loaded(state, number, self._words[(SELECTORS_AT >> 2) + number] & 0xFFFF)
        return done & (INVALIDATED | ROOT_LOADED)

    def hide_trap_flag(self) -> None:
        """A fragment is single-stepped: the flags it has saved must not bring TF back."""
        self._words[STACK_AT - 4 >> 2] &= ~TF

    @property
    def saved_eax(self) -> int:
        """EAX, where a fragment has set it aside."""
        return self._words[EAX_AT >> 2]

    def settle(self, base: int) -> None:
        """The child sees this memory at a linear address from now on."""
        self.base, self._loads = base, []
        self.known.settle(base + NULL_AT)

    def forget_all(self) -> None:
        """Nothing is remembered of any translation."""
        self.present[:] = bytes(PRESENT_SIZE)

    def remember(self, page: int, what: int, *, large: bool) -> None:
        """TRANSLATED or MAPPED is the translation of a linear page, by number; of 4 MiB where it is `large`."""
        if not large:
            if self.present[page] < what:
                self.present[page] = what
            return
        first = page & ~(LARGE_PAGES - 1)
        if what == MAPPED:
            self.present[first : first + LARGE_PAGES] = bytes([MAPPED]) * LARGE_PAGES
        else:
            there = bytes(self.present[first : first + LARGE_PAGES])
            self.present[first : first + LARGE_PAGES] = there.replace(b"\0", bytes([TRANSLATED]))
