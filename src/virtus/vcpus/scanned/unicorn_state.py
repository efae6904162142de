"""The exchange of an i386 processor's state with Unicorn, hidden parts of segment registers included.

Unicorn's own calls for registers load descriptors anew, which is wrong where a segment register holds what no table has
(real mode with segments of 4 GiB). So the state goes through a saved context: it is the processor of QEMU 5 in memory,
whose layout is checked by trying before it is relied upon.
"""

import struct
from typing import Final

from virtus.errors import HostLacks
from virtus.vcpus.scanned import unicorn_engine as names
from virtus.vcpus.scanned.cpu_state import (
    ATTRIBUTES,
    BIG,
    CR0_PE,
    CR0_PG,
    CR4_OSFXSR,
    CS,
    DF,
    DS,
    ES,
    FLAGS_FIXED,
    SS,
    STATUS_FLAGS,
    VM,
    CpuState,
)
from virtus.vcpus.scanned.unicorn_engine import Engine

# struct CPUX86State of QEMU 5.0 (target/i386/cpu.h) behind the 40 bytes of struct uc_context
REGISTERS_AT: Final = 40
EIP_AT: Final = REGISTERS_AT + 16 * 8
FLAGS: Final = struct.Struct("<QQQQIiII")
"""eflags, cc_dst, cc_src, cc_src2, cc_op, df, hflags, hflags2; between two runs, all flags are in the first."""
FLAGS_AT: Final = EIP_AT + 8
SEGMENT: Final = struct.Struct("<I4xQII")
ALL_SEGMENTS: Final = struct.Struct("<" + "I4xQII" * 10)
SEGMENTS_AT: Final = FLAGS_AT + FLAGS.size
LDT_AT: Final = SEGMENTS_AT + 6 * SEGMENT.size
TR_AT, GDT_AT, IDT_AT = (LDT_AT + index * SEGMENT.size for index in (1, 2, 3))
CONTROL: Final = struct.Struct("<QQQQQ")
CONTROL_AT: Final = LDT_AT + 4 * SEGMENT.size
GENERAL: Final = struct.Struct("<8Q")
EXCEPTION: Final = struct.Struct("<iiQ")
"""error_code, exception_is_int, exception_next_eip: in front of the debug registers."""
IN_FLIGHT: Final = 8 * 8 + 4 * 8
"""From the debug registers, over their breakpoints, to the exception that is being delivered; it would make a
double fault of the next one."""
NONE_IN_FLIGHT: Final = struct.pack("<i", -1)
CC_OP_EFLAGS: Final = 1
HF2_GIF: Final = 1
HF_CS32, HF_SS32, HF_ADDSEG, HF_PE, HF_MP_SHIFT, HF_OSFXSR = 1 << 4, 1 << 5, 1 << 6, 1 << 7, 9, 1 << 22
HF_CPL: Final = 3
CR0_MP_EM_TS: Final = 0xE
ATTRIBUTES_SHIFT: Final = 8

SENTINEL: Final = 0x5A5A_0000
SYSENTER: Final = struct.Struct("<I4xQQ")
"""sysenter_cs, sysenter_esp, sysenter_eip."""
SYSENTER_NUMBERS: Final = (0x174, 0x175, 0x176)


class UnicornState:
    """Puts a CpuState into a Unicorn processor, and gets it back."""

    def __init__(self, engine: Engine) -> None:
        """Raises HostLacks where this Unicorn's processor is laid out in another way."""
        self._engine = engine
        self._view = engine.context
        self._find_layout()
        self._segments = b""
        self._control = (-1, -1, -1)

    def _find_layout(self) -> None:
        engine = self._engine
        for index, name in enumerate(names.GENERAL):
            engine.write(name, SENTINEL + index)
        engine.write(names.EIP, SENTINEL + 8)
        engine.write(names.EFLAGS, 0xAC7)
        for index, name in enumerate((names.LDTR, names.TR, names.GDTR, names.IDTR)):
            engine.write_memory_register(name, SENTINEL >> 16, SENTINEL + 9 + index, 0x1235 + index, 0x8200)
        engine.write(names.CR2, SENTINEL + 13)
        for index in (0, 1):
            engine.write(names.DR0 + index, SENTINEL + 16 + index)
        for index, number in enumerate(SYSENTER_NUMBERS):
            engine.write_model_register(number, SENTINEL + 0x20 + index)
        engine.save()
        sysenter = SYSENTER.pack(*(SENTINEL & 0xFFFF | 0x20, SENTINEL + 0x21, SENTINEL + 0x22))
        self._sysenter_at = bytes(self._view).find(sysenter)
        debug = bytes(self._view).find(struct.pack("<QQ", SENTINEL + 16, SENTINEL + 17))
        unpack = SEGMENT.unpack_from
        found = (
            GENERAL.unpack_from(self._view, REGISTERS_AT),
            struct.unpack_from("<Q", self._view, EIP_AT),
            [unpack(self._view, at)[1:3] for at in (LDT_AT, TR_AT, GDT_AT, IDT_AT)],
            CONTROL.unpack_from(self._view, CONTROL_AT)[2],
            FLAGS.unpack_from(self._view, FLAGS_AT)[2:6],
        )
        wanted = (
            tuple(SENTINEL + index for index in range(8)),
            (SENTINEL + 8,),
            [(SENTINEL + 9 + index, 0x1235 + index) for index in range(4)],
            SENTINEL + 13,
            (0xAC7 & STATUS_FLAGS, 0, CC_OP_EFLAGS, 1),
        )
        self._in_flight_at = debug + IN_FLIGHT
        if (
            found != wanted
            or min(debug, self._sysenter_at) < 0
            or self._view[self._in_flight_at :][:4] != NONE_IN_FLIGHT
        ):
            raise HostLacks(
                "starting Unicorn", "this version keeps its processor in another way", "install unicorn 2.1"
            )
        self._exception_at = debug - EXCEPTION.size

    def put(self, state: CpuState, *, flush: bool) -> None:
        """Give Unicorn the state; `flush` has it forget what it knows of page tables."""
        view, eflags, segments = self._view, state.eflags, state.segments
        GENERAL.pack_into(view, REGISTERS_AT, *state.registers)
        hidden = state.cpl | (state.cr0 & CR0_MP_EM_TS) << HF_MP_SHIFT - 1
        if state.cr0 & CR0_PE:
            hidden |= HF_PE
        if state.cr4 & CR4_OSFXSR:
            hidden |= HF_OSFXSR
        if segments[SS].attributes & BIG:
            hidden |= HF_SS32
        if segments[CS].attributes & BIG:
            hidden |= HF_CS32
        flat = not (segments[DS].base | segments[ES].base | segments[SS].base)
        if not (hidden & HF_CS32 and hidden & HF_PE and not eflags & VM and flat):
            hidden |= HF_ADDSEG
        struct.pack_into("<Q", view, EIP_AT, state.eip)
        FLAGS.pack_into(
            view,
            FLAGS_AT,
            eflags | FLAGS_FIXED,
            0,
            eflags & STATUS_FLAGS,
            0,
            CC_OP_EFLAGS,
            -1 if eflags & DF else 1,
            hidden,
            HF2_GIF,
        )
        words: list[int] = []
        for segment in (*segments, state.ldtr, state.tr):
            words += segment.selector, segment.base, segment.limit, segment.attributes << ATTRIBUTES_SHIFT
        gdtr, idtr = state.gdtr, state.idtr
        self._segments = ALL_SEGMENTS.pack(*words, 0, gdtr.base, gdtr.limit, 0, 0, idtr.base, idtr.limit, 0)
        view[SEGMENTS_AT:CONTROL_AT] = self._segments
        view[self._in_flight_at : self._in_flight_at + 4] = NONE_IN_FLIGHT
        CONTROL.pack_into(view, CONTROL_AT, state.cr0, 0, state.cr2, state.cr3, state.cr4)
        SYSENTER.pack_into(view, self._sysenter_at, state.sysenter_cs, state.sysenter_esp, state.sysenter_eip)
        engine = self._engine
        engine.restore()
        if flush or self._control != (state.cr0, state.cr3, state.cr4):
            engine.write(names.CR3, state.cr3)  # QEMU flushes at every write

    def address_physically(self) -> None:
        """Until the next `put`, linear addresses are physical ones."""
        if self._control[0] & CR0_PG:
            control = CONTROL.unpack_from(self._view, CONTROL_AT)
            CONTROL.pack_into(self._view, CONTROL_AT, control[0] & ~CR0_PG, *control[1:])
            self._engine.restore()
            self._engine.write(names.CR3, 0)
            self._control = -1, -1, -1  # `put` flushes again

    def get(self, state: CpuState) -> None:
        """Take the state from Unicorn; `halted` and `interrupt_shadow` are not there."""
        engine, view = self._engine, self._view
        engine.save()
        state.registers[:] = GENERAL.unpack_from(view, REGISTERS_AT)
        state.eip = struct.unpack_from("<Q", view, EIP_AT)[0] & 0xFFFF_FFFF
        flags = FLAGS.unpack_from(view, FLAGS_AT)
        state.eflags, state.cpl = flags[0] | FLAGS_FIXED, flags[6] & HF_CPL
        if view[SEGMENTS_AT:CONTROL_AT] != self._segments:
            self._get_segments(state)
        state.cr0, _, state.cr2, state.cr3, state.cr4 = CONTROL.unpack_from(view, CONTROL_AT)
        self._control = state.cr0, state.cr3, state.cr4
        state.sysenter_cs, state.sysenter_esp, state.sysenter_eip = SYSENTER.unpack_from(view, self._sysenter_at)

    def _get_segments(self, state: CpuState) -> None:
        words = ALL_SEGMENTS.unpack_from(self._view, SEGMENTS_AT)
        for index, segment in enumerate((*state.segments, state.ldtr, state.tr)):
            selector, base, limit, attributes = words[4 * index : 4 * index + 4]
            attributes = attributes >> ATTRIBUTES_SHIFT & ATTRIBUTES
            if (selector, base, limit, attributes) != segment.values():
                segment.load(selector & 0xFFFF, base & 0xFFFF_FFFF, limit, attributes)
        _, state.gdtr.base, state.gdtr.limit, _, _, state.idtr.base, state.idtr.limit, _ = words[32:]

    def exception(self) -> tuple[int, bool]:
        """Of the exception that Unicorn came out with: the error code, and whether it is a software interrupt.

        After `get`.
        """
        code, software, _ = EXCEPTION.unpack_from(self._view, self._exception_at)
        return code & 0xFFFF_FFFF, bool(software)
